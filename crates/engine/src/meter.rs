//! [`Meter`]: what every operator moved and computed, and how long it took, booked where it ran. `docs/accounting.md`
//! defines what counts; `limits` predicts the same integers from the configuration alone.

use roofline_model::operator::{Cost, Operator};
use std::time::{Duration, Instant};

/// Costs and times per operator since the meter was last cleared. Counting allocates nothing.
#[derive(Debug, Clone)]
pub struct Meter {
    costs: [Cost; Operator::COUNT],
    times: [Duration; Operator::COUNT],
    experts_touched: Vec<u64>, // (n_layers)
    last: Instant,
}

impl Meter {
    /// A meter of nothing yet, for a model of `n_layers`.
    pub(crate) fn new(n_layers: usize) -> Meter {
        Meter {
            costs: [Cost::default(); Operator::COUNT],
            times: [Duration::ZERO; Operator::COUNT],
            experts_touched: vec![0; n_layers],
            last: Instant::now(),
        }
    }

    /// Forgets everything counted.
    pub fn clear(&mut self) {
        self.costs = [Cost::default(); Operator::COUNT];
        self.times = [Duration::ZERO; Operator::COUNT];
        self.experts_touched.fill(0);
    }

    /// Starts the clock: what passed before belongs to no operator.
    pub(crate) fn start(&mut self) {
        self.last = Instant::now();
    }

    /// Books `cost` and the time since the previous booking. One clock read (~25 ns) per operator keeps the overhead
    /// of a small model's step in the microseconds.
    pub(crate) fn count(&mut self, operator: Operator, cost: Cost) {
        let now = Instant::now();
        self.costs[operator as usize] += cost;
        self.times[operator as usize] += now - self.last;
        self.last = now;
    }

    pub(crate) fn count_experts(&mut self, layer: usize, touched: u64) {
        self.experts_touched[layer] += touched;
    }

    /// What `operator` moved and computed.
    pub fn cost(&self, operator: Operator) -> Cost {
        self.costs[operator as usize]
    }

    /// How long `operator` took.
    pub fn time(&self, operator: Operator) -> Duration {
        self.times[operator as usize]
    }

    /// Per layer, the experts that at least one row of a step visited, summed over steps: (n_layers).
    pub fn experts_touched(&self) -> &[u64] {
        &self.experts_touched
    }

    /// Sum over operators.
    pub fn total(&self) -> Cost {
        let mut total = Cost::default();
        for cost in self.costs {
            total += cost;
        }
        total
    }

    /// Time in operators; the rest of a step's wall time is overhead.
    pub fn total_time(&self) -> Duration {
        self.times.iter().sum()
    }
}
