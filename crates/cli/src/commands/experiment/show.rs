//! Progress: a bar on a terminal, plain lines now and then where stderr is a file or a pipe.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use roofline_lab::experiment::{Progress, Spec};

use crate::output::say;

/// Seconds between two plain lines.
const EVERY: Duration = Duration::from_secs(10);

/// Says where the experiment stands.
pub struct Show {
    bar: Option<ProgressBar>,
    name: String,
    spoke: Option<Instant>,
    phase: Option<bool>, // the last one heard of: whether it was the warm-up
    preparing: String,
}

impl Show {
    pub fn new(spec: &Spec) -> Show {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(0);
            if let Ok(style) = ProgressStyle::with_template("{prefix} {bar:24} {pos}/{len} {wide_msg}") {
                bar.set_style(style);
            }
            bar
        });
        Show { bar, name: spec.name.clone(), spoke: None, phase: None, preparing: String::new() }
    }

    pub fn hear(&mut self, progress: &Progress<'_>) {
        match progress {
            Progress::Preparing(what) => self.prepare(what),
            Progress::Noted(text) => match &self.bar {
                Some(bar) => bar.suspend(|| say!("note: {text}")),
                None => say!("note: {text}"),
            },
            Progress::Running { warm_up, done, runs, cell, left, last } => {
                let phase = if *warm_up { "warming up" } else { "measuring" };
                let words = words(cell, *left, *last);
                if let Some(bar) = &self.bar {
                    bar.set_length(*runs as u64);
                    bar.set_position(*done as u64);
                    bar.set_prefix(format!("{}: {phase}", self.name));
                    bar.set_message(words);
                } else if self.phase != Some(*warm_up) || self.spoke.is_none_or(|at| at.elapsed() >= EVERY) {
                    say!("{}: {phase} {}/{runs}, {words}", self.name, done + 1);
                    self.spoke = Some(Instant::now());
                }
                self.phase = Some(*warm_up);
            }
        }
    }

    /// A conversion reports every round of pieces; the words are said once.
    fn prepare(&mut self, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_prefix(self.name.clone());
            bar.set_message(what.to_string());
            bar.tick();
        } else if self.preparing != what {
            say!("{}: {what}", self.name);
        }
        self.preparing = what.to_string();
    }

    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn words(cell: &str, left: Option<Duration>, last: Option<&str>) -> String {
    let left = left.map(|left| format!("{} left", time(left)));
    let last = last.map(|last| format!("last {last}"));
    let cell = (!cell.is_empty()).then(|| cell.to_string());
    [cell, left, last].into_iter().flatten().collect::<Vec<_>>().join("; ")
}

/// Seconds, or minutes and seconds.
fn time(left: Duration) -> String {
    match left.as_secs() {
        seconds if seconds < 60 => format!("{seconds} s"),
        seconds => format!("{} min {:02} s", seconds / 60, seconds % 60),
    }
}
