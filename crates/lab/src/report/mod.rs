//! Reports: rows of experiments as a page that one can show, with every number beside the rows it comes from.
//!
//! A report depends on nothing but the rows: the same rows make the same bytes. Nothing in it is fetched.

mod csv;
mod define;
pub(crate) mod digest;
mod fits;
mod html;
mod markdown;
pub mod page;
mod pareto;
mod run;
mod shown;
mod stages;
mod sweep;
mod tables;
mod tokens;

pub use run::Source;

use crate::error::LabError;
use crate::experiment::rows::{About, Value, View};
use crate::plot;
use page::{Block, Line, Page, Section};
use run::Run;
use sweep::Group;

/// A report over one or several files of rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    page: Page,
    csv: String,
}

impl Report {
    /// Arranges the rows.
    pub fn of(sources: &[Source]) -> Report {
        let is_only = sources.len() == 1;
        let runs: Vec<Run<'_>> =
            sources.iter().enumerate().map(|(i, source)| Run::new(i, is_only, source)).collect();
        Report { page: page(&runs), csv: csv::runs_csv(&runs) }
    }

    /// What it consists of.
    pub fn page(&self) -> &Page {
        &self.page
    }

    /// One file for a browser.
    ///
    /// # Errors
    /// A number that no axis can show.
    pub fn html(&self) -> Result<String, LabError> {
        html::html(&self.page)
    }

    /// Sentences and tables, and the plots where `pictures` names the folder that holds [`Report::svgs`].
    pub fn markdown(&self, pictures: Option<&str>) -> String {
        markdown::markdown(&self.page, pictures)
    }

    /// A line per run.
    pub fn csv(&self) -> &str {
        &self.csv
    }

    /// (name, file) of every plot.
    ///
    /// # Errors
    /// As [`Report::html`].
    pub fn svgs(&self) -> Result<Vec<(String, String)>, LabError> {
        let mut files = Vec::new();
        for one in self.page.plots() {
            let mut charts = vec![one.main.chart.clone()];
            charts.extend(one.residuals.iter().map(|panel| panel.chart.clone()));
            files.push((format!("{}.svg", one.id), plot::render(&charts)?));
        }
        for one in self.page.stacks() {
            files.push((format!("{}.svg", one.id), one.stack.render()?));
            let shares = one.stack.shares().render()?;
            files.push((format!("{}-shares.svg", one.id), shares));
        }
        Ok(files)
    }
}

/// (text, CSV) of a plot as it stands in the page: what its download holds.
pub fn csv_of(plot: &page::Plot) -> String {
    csv::plot_csv(plot)
}

/// The same of bars.
pub fn csv_of_stack(stack: &page::StackPlot) -> String {
    csv::stack_csv(stack)
}

fn page(runs: &[Run<'_>]) -> Page {
    let mut names: Vec<&str> = Vec::new();
    for run in runs {
        if !names.contains(&run.recording.header.experiment.as_str()) {
            names.push(&run.recording.header.experiment);
        }
    }
    let title = match names.is_empty() {
        true => "Roofline".to_string(),
        false => format!("Roofline: {}", names.join(", ")),
    };
    let mut sections: Vec<Section> = runs.iter().map(findings).collect();
    for (index, group) in groups(runs).iter().enumerate() {
        sections.push(curves(group, index + 1));
    }
    for run in runs {
        sections.push(parts(run));
        sections.push(numbers(run));
    }
    sections.retain(|section| !section.blocks.is_empty());
    sections.push(how(runs));
    sections.push(definitions(runs));
    Page { title, warnings: runs.iter().flat_map(|run| warnings(run, runs.len() > 1)).collect(), sections }
}

/// Section titles name the file where there are several.
fn titled(title: &str, run: &Run<'_>) -> String {
    if run.is_only { title.to_string() } else { format!("{title}: {}", run.file) }
}

/// Runs with the same view stand in the same plots.
fn groups<'a>(runs: &'a [Run<'a>]) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    for run in runs {
        let header = &run.recording.header;
        let of_run = |group: &&mut Group<'a>| {
            group.view == header.view && group.runs[0].recording.header.experiment == header.experiment
        };
        match groups.iter_mut().find(of_run) {
            Some(group) => group.runs.push(run),
            None => groups.push(Group { runs: vec![run], view: header.view.clone() }),
        }
    }
    groups
}

/// The question, what was found, and what happened on the way.
fn findings(run: &Run<'_>) -> Section {
    let header = &run.recording.header;
    let mut blocks = vec![Block::Text(header.question.clone())];
    let sentence = |(id, finding): &(String, &crate::experiment::rows::Finding)| {
        // A sentence that tells an axis by itself is not told it again.
        let is_told = |axis: &str, value: &Value| match value {
            Value::Text(text) => finding.sentence.contains(text.as_str()),
            other => finding.sentence.contains(&format!("{axis} {other}")),
        };
        let told = finding.cell.iter().filter(|(axis, value)| is_told(axis, value));
        let told: Vec<&str> = told.map(|(axis, _)| axis).collect();
        let cell = run.words(&finding.cell, &told);
        let before = if cell.is_empty() { String::new() } else { format!("{cell}: ") };
        let links =
            if finding.values.is_empty() { Vec::new() } else { vec![("numbers".to_string(), id.clone())] };
        Line { text: format!("{before}{}", finding.sentence), links }
    };
    if run.findings.is_empty() {
        blocks.push(Block::Text("No finding was written: the experiment did not come to its end.".into()));
    } else {
        blocks.push(Block::List(run.findings.iter().map(sentence).collect()));
    }
    let notes = tables::notes(run);
    if !notes.is_empty() {
        blocks.push(Block::Heading("On the way".into()));
        blocks.push(Block::List(notes));
    }
    Section { id: format!("{}-findings", run.id), title: titled("Findings", run), blocks }
}

/// Every metric of the view along its axis.
fn curves(group: &Group<'_>, number: usize) -> Section {
    let View { x, y, .. } = &group.view;
    let mut metrics: Vec<String> = Vec::new();
    let mut add = |name: &String| {
        if !metrics.contains(name) {
            metrics.push(name.clone());
        }
    };
    y.iter().for_each(&mut add);
    if y.is_empty() {
        group.runs.iter().flat_map(|run| run.metrics()).for_each(|name| add(&name));
    }
    for (_, finding) in group.runs.iter().flat_map(|run| &run.findings) {
        // A curve that was fitted is drawn, with whatever it was fitted to.
        finding.fit.iter().filter(|fit| fit.x == *x).for_each(|fit| add(&fit.y));
    }
    let mut taken: Vec<String> = Vec::new();
    let mut id = |name: &str| {
        let mut id = format!("g{number}-{}", slug(name));
        while taken.contains(&id) {
            id.push_str("-2"); // names that differ in signs only
        }
        taken.push(id.clone());
        id
    };
    let mut blocks = Vec::new();
    for metric in &metrics {
        let words = sweep::metric_words(metric);
        let title = format!("{} against {}", capitalised(&words), sweep::axis_label(x));
        blocks.extend(
            sweep::metric_plot(group, metric, &id(metric), &title).map(|plot| Block::Plot(Box::new(plot))),
        );
    }
    let share = sweep::share_plot(group, &metrics, &id("share-of-limit"));
    blocks.extend(share.map(|plot| Block::Plot(Box::new(plot))));
    let names: Vec<&str> = group.runs.iter().map(|run| run.file).collect();
    let title = match names.len() {
        1 => titled("Curves", group.runs[0]),
        _ => format!("Curves: {}", names.join(", ")),
    };
    Section { id: format!("g{number}-curves"), title, blocks }
}

/// Stages, operators, single tokens, quality against cost.
fn parts(run: &Run<'_>) -> Section {
    let group = Group { runs: vec![run], view: run.recording.header.view.clone() };
    let id = |name: &str| format!("{}-{name}", run.id);
    let mut blocks = Vec::new();
    blocks.extend(pareto::plots(run).into_iter().map(|plot| Block::Plot(Box::new(plot))));
    let stacks = [stages::stages(run, &id("stages")), stages::operators(run, &id("operators"))];
    blocks.extend(stacks.into_iter().flatten().map(|stack| Block::Stack(Box::new(stack))));
    let plots =
        [tokens::trace_plot(&group, &id("steps")), tokens::distribution_plot(&group, &id("distribution"))];
    blocks.extend(plots.into_iter().flatten().map(|plot| Block::Plot(Box::new(plot))));
    Section { id: id("parts"), title: titled("Where the time went", run), blocks }
}

/// All tables of a run.
fn numbers(run: &Run<'_>) -> Section {
    let metrics = run.metrics();
    let mut blocks = Vec::new();
    if !run.cells.is_empty() {
        blocks.push(Block::Table(tables::summary(run, &told(run, &metrics))));
    }
    blocks.extend(tables::quality(run).map(Block::Table));
    blocks.extend(tables::findings(run).map(Block::Table));
    if !run.all.is_empty() {
        blocks.push(Block::Folded(tables::rows(run, &metrics)));
    }
    Section { id: format!("{}-numbers", run.id), title: titled("Numbers", run), blocks }
}

/// The metrics of the view, then the usual ones; all others stand in the table of runs.
fn told(run: &Run<'_>, metrics: &[String]) -> Vec<String> {
    let usual = ["ttft", "tpot", "prefill_rate", "decode_rate", "decode_bandwidth", "mbu", "kv_peak"];
    let mut told = run.recording.header.view.y.clone();
    for name in usual {
        if !told.iter().any(|have| have == name) {
            told.push(name.to_string());
        }
    }
    told.retain(|name| metrics.contains(name));
    if told.is_empty() { metrics.to_vec() } else { told }
}

/// How to do it again, and where it was done.
fn how(runs: &[Run<'_>]) -> Section {
    let mut blocks = Vec::new();
    for run in runs {
        if runs.len() > 1 {
            blocks.push(Block::Heading(run.file.to_string()));
        }
        blocks.push(Block::Command(run.recording.header.command.clone()));
    }
    blocks.push(Block::Table(tables::environment(runs)));
    Section { id: "again".into(), title: "How to do it again".into(), blocks }
}

fn definitions(runs: &[Run<'_>]) -> Section {
    let (mut metrics, mut stages): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    let add = |list: &mut Vec<String>, name: &str| {
        if !list.iter().any(|have| have == name) {
            list.push(name.to_string());
        }
    };
    for run in runs {
        run.metrics().iter().for_each(|name| add(&mut metrics, name));
        for (_, quality) in &run.qualities {
            quality.metrics.names().for_each(|name| add(&mut metrics, name));
        }
        for (_, one) in &run.all {
            one.stages.names().for_each(|name| add(&mut stages, name));
        }
    }
    let blocks = vec![Block::Definitions(define::of(&metrics, &stages))];
    Section { id: "definitions".into(), title: "What the words mean".into(), blocks }
}

/// What a reader must know before believing a number.
fn warnings(run: &Run<'_>, name_it: bool) -> Vec<Line> {
    let before = if name_it { format!("{}: ", run.file) } else { String::new() };
    let mut lines = Vec::new();
    let mut say = |text: String, links: Vec<(String, String)>| {
        let text = if before.is_empty() { capitalised(&text) } else { format!("{before}{text}") };
        lines.push(Line { text, links });
    };
    let counted = run.counted().count();
    let bad: Vec<&(String, _)> = run.counted().filter(|(_, one)| !one.adds_up).collect();
    if !bad.is_empty() {
        let worst = bad.iter().map(|(_, one)| one.unaccounted).max_by(|a, b| a.abs().total_cmp(&b.abs()));
        let worst = shown::digits((1e4 * worst.unwrap_or(0.0)).round() / 100.0);
        let some: Vec<(String, String)> =
            bad.iter().take(8).map(|(row, _)| (row.clone(), row.clone())).collect();
        let more = if bad.len() > some.len() { format!(" The first {}:", some.len()) } else { String::new() };
        say(
            format!(
                "in {} of {counted} counted runs the stages do not add up to the wall time within 2 % (worst: {worst} % \
                 unaccounted); do not trust their stages.{more}",
                bad.len()
            ),
            some,
        );
    }
    if counted == 0 {
        say("there is no counted run.".into(), Vec::new());
    } else if !run.is_finished() {
        say(
            format!(
                "the experiment is not complete: {counted} of {} runs are there. Cells differ in n.",
                run.asked()
            ),
            Vec::new(),
        );
    }
    for text in &run.recording.left_out {
        say(format!("{text}; it is left out."), Vec::new());
    }
    let engine = &run.recording.header.environment.engine;
    if engine.profile.as_deref() == Some("debug") {
        say("measured with a debug build: the times mean nothing.".into(), Vec::new());
    }
    if engine.dirty == Some(true) {
        say(
            "measured with files that no commit holds: nobody can build this program again.".into(),
            Vec::new(),
        );
    }
    let moved =
        run.notes.iter().filter(|note| matches!(note.about, About::Drift | About::Background | About::Clock));
    let count = moved.count();
    if count > 0 {
        let notes = if count == 1 { "a note says".to_string() } else { format!("{count} notes say") };
        let link = vec![("see".to_string(), format!("{}-findings", run.id))];
        say(format!("{notes} that the machine was not quiet or the figures drifted."), link);
    }
    lines
}

/// The first letter large.
fn capitalised(words: &str) -> String {
    let mut letters = words.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

/// Letters, digits and hyphens.
fn slug(name: &str) -> String {
    let letters = name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' });
    letters.collect()
}
