//! This machine's own roof: what its memory and arithmetic reach, with spread, and how far to believe it.
//!
//! On a machine shared with others one measurement says little. Every figure is therefore sampled in several rounds
//! spread over the whole run and kept as best, median and quartiles: the best is the roof, the distance to the median
//! says how often it can be had. [`Noise`] says when the neighbours were loud.

mod device;
mod figure;
mod measure;
mod noise;
mod store;

pub use device::THIS;
pub use figure::{Figure, Unit, What};
pub use measure::{Options, Step, measure, measure_quickly};
pub(crate) use noise::Clock;
pub use noise::{Noise, Reason};
pub use store::{config_folder, default_path, load, save};

use serde::{Deserialize, Serialize};

use crate::environment::Environment;

/// A measured machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// When, as `2026-11-21T05:40:00Z`.
    pub measured_at: String,
    /// How long the measurement took, in seconds.
    pub seconds: f64,
    /// How far to believe it.
    pub noise: Noise,
    /// What was measured.
    pub environment: Environment,
    /// The figures, memory first.
    pub figures: Vec<Figure>,
}

impl Machine {
    /// The figure of `what` on `threads` threads.
    pub fn figure(&self, what: What, threads: usize) -> Option<&Figure> {
        self.figures.iter().find(|figure| figure.what == what && figure.threads == threads)
    }

    /// The figures of this thread count alone; `None` when there are none.
    pub fn on(&self, threads: usize) -> Option<Machine> {
        let figures: Vec<Figure> =
            self.figures.iter().filter(|figure| figure.threads == threads).cloned().collect();
        (!figures.is_empty()).then(|| Machine { figures, ..self.clone() })
    }

    /// The figure of `what` with the highest best rate over all thread counts: the roof.
    pub fn roof(&self, what: What) -> Option<&Figure> {
        let figures = self.figures.iter().filter(|figure| figure.what == what);
        figures.max_by(|a, b| a.best.total_cmp(&b.best))
    }
}
