//! From axes to cells, and from a seed to the order in which they run.

use super::axes::{AXES, FIT, TASK_CAPS};
use super::error::ExperimentError;
use super::hash::hash_of;
use super::ordered::Ordered;
use super::rows::{Value, View};
use super::spec::{Analysis, Spec};
use crate::statistics::Random;

/// One combination of values.
#[derive(Debug, Clone, PartialEq)]
pub struct Cell {
    /// Axis → value, every axis that the experiment has.
    pub values: Ordered<Value>,
    /// Its identity.
    pub hash: String,
}

const MOST_CELLS: usize = 10_000;
const MOST_REPEATS: usize = 10_000;

impl Cell {
    fn new(values: Ordered<Value>) -> Cell {
        let hash = hash_of(&values);
        Cell { values, hash }
    }

    /// A count; 0 where the axis is absent.
    pub fn count(&self, axis: &str) -> usize {
        match self.values.get(axis) {
            Some(Value::Whole(n)) => usize::try_from(*n).unwrap_or(usize::MAX),
            _ => 0,
        }
    }

    /// A name; empty where the axis is absent.
    pub fn text(&self, axis: &str) -> &str {
        match self.values.get(axis) {
            Some(Value::Text(text)) => text,
            _ => "",
        }
    }

    /// Tokens generated at most.
    pub fn most_tokens(&self) -> usize {
        self.count("output").max(self.count("cap"))
    }

    /// Tokens of context that a run may need.
    pub fn context(&self) -> usize {
        self.count("depth").saturating_add(self.count("prompt")).saturating_add(self.most_tokens())
    }

    /// Text form of its cache policy.
    pub fn cache(&self) -> String {
        match self.text("cache") {
            FIT => format!("static:{}", self.context()),
            text => text.to_string(),
        }
    }

    /// Why it cannot run on a model with this context, if it cannot.
    pub fn beyond(&self, model: &str, context_length: usize) -> Option<String> {
        let wanted = self.context();
        if wanted > context_length {
            return Some(format!(
                "beyond the context: it needs {wanted} tokens, {model} takes {context_length}"
            ));
        }
        let capacity = self.cache().strip_prefix("static:").and_then(|n| n.parse::<usize>().ok());
        capacity
            .filter(|&capacity| capacity < wanted)
            .map(|capacity| format!("beyond the cache: it needs {wanted} tokens, the cache holds {capacity}"))
    }

    /// As `prompt 64, output 128`, only the named axes.
    pub fn words(&self, axes: &[&str]) -> String {
        let of = |axis: &&str| self.values.get(axis).map(|value| format!("{axis} {value}"));
        axes.iter().filter_map(of).collect::<Vec<_>>().join(", ")
    }
}

impl Spec {
    /// Every combination, the first axis slowest.
    ///
    /// # Errors
    /// [`ExperimentError::Spec`] for axes without values, more combinations than anybody reads, no length or two.
    pub fn cells(&self) -> Result<Vec<Cell>, ExperimentError> {
        self.check()?;
        let mut cells: Vec<Ordered<Value>> = vec![Ordered::default()];
        for (axis, values) in self.axes.iter() {
            let with = |cell: &Ordered<Value>, value: &Value| {
                let mut cell = cell.clone();
                cell.set(axis, value.clone());
                cell
            };
            cells = cells.iter().flat_map(|cell| values.iter().map(move |value| with(cell, value))).collect();
            if cells.len() > MOST_CELLS {
                return Err(ExperimentError::Spec(format!(
                    "the axes multiply to more than {MOST_CELLS} cells: give fewer values"
                )));
            }
        }
        Ok(cells.into_iter().map(Cell::new).collect())
    }

    fn check(&self) -> Result<(), ExperimentError> {
        let refuse = |why: String| Err(ExperimentError::Spec(why));
        if let Some((axis, _)) = self.axes.iter().find(|(_, values)| values.is_empty()) {
            return refuse(format!("{axis}: give at least one value"));
        }
        if self.repeats == 0 || self.repeats > MOST_REPEATS {
            return refuse(format!("repeats {} is not between 1 and {MOST_REPEATS}", self.repeats));
        }
        if self.warm_up > MOST_REPEATS {
            return refuse(format!("warm_up {} is not between 0 and {MOST_REPEATS}", self.warm_up));
        }
        if !(self.temperature.is_finite() && (0.0..=100.0).contains(&self.temperature)) {
            return refuse(format!("temperature {} is not between 0 and 100", self.temperature));
        }
        match (self.axes.get("output"), self.axes.get("cap"), self.axes.get("eos")) {
            (Some(_), None, None) | (None, Some(_), Some(_)) => Ok(()),
            (Some(_), Some(_), _) => {
                refuse("output (exactly so many tokens) and cap (at most so many) exclude each other".into())
            }
            (Some(_), None, Some(_)) => {
                refuse("output ignores end tokens; give cap instead to let eos end the text".into())
            }
            (None, _, _) => refuse("give output (exactly so many tokens) or cap (at most so many)".into()),
        }
    }

    /// Fills in what nobody said, in the order of [`AXES`].
    pub fn expand(&mut self) {
        let mut axes = Ordered::default();
        let capped = self.axes.get("cap").is_some();
        for axis in &AXES {
            let given = self.axes.get(axis.name).cloned();
            let of_cap = (axis.name == "eos" && capped).then(|| vec![Value::Text("model".into())]);
            if let Some(values) = given.or(of_cap).or_else(|| axis.default().map(|value| vec![value])) {
                axes.set(axis.name, values);
            }
        }
        self.axes = axes;
    }

    /// Axes with more than one value.
    pub fn varied(&self) -> Vec<&str> {
        self.axes.iter().filter(|(_, values)| values.len() > 1).map(|(axis, _)| axis).collect()
    }

    /// What a report should draw first.
    pub fn view(&self) -> View {
        let view = |x: &str, y: &[&str], log_x, log_y| View {
            x: x.to_string(),
            by: None,
            y: y.iter().map(|name| name.to_string()).collect(),
            log_x,
            log_y,
        };
        let mut view = match self.analysis {
            Analysis::OutputTokens => view("output", &["e2e", "tpot"], true, true),
            Analysis::MaxNewTokens => view("cap", &["e2e", "generated", "kv_peak", "tpot"], true, false),
            Analysis::PromptLength => view("prompt", &["prefill", "ttft", "prefill_rate"], true, true),
            Analysis::ContextDepth => view("depth", &["tpot", "decode_rate"], false, false),
            Analysis::CachePolicy => view("cache", &["itl_p50", "tpot", "kv_live", "kv_peak"], false, false),
            Analysis::ModelSize => view("model", &["attention_share", "itl_p50", "tpot"], false, false),
            Analysis::Precision => view("precision", &["itl_p50", "tpot", "weights"], false, false),
            Analysis::Threads => view("threads", &["itl_p50", "tpot", "prefill_rate"], false, false),
            Analysis::Noise => view("arm", &["e2e", "tpot", "ttft"], false, false),
            Analysis::Plain => {
                let numeric = |axis: &&str| {
                    self.axes.get(axis).is_some_and(|values| values.iter().all(|v| v.number().is_some()))
                };
                let varied = self.varied();
                let x = varied.iter().copied().find(numeric).or(varied.first().copied()).unwrap_or("model");
                view(x, &["tpot", "ttft", "e2e"], false, false)
            }
        };
        let by = |axis: &&str| *axis != view.x && !matches!(*axis, "item" | "arm");
        view.by = self.varied().into_iter().find(by).map(str::to_string);
        view
    }

    /// The order in which a round runs the cells: a permutation of 0..cells, drawn from the seed and the round.
    pub fn order(&self, round: u64, cells: usize) -> Vec<usize> {
        let mut random = Random(self.seed ^ round.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut order: Vec<usize> = (0..cells).collect();
        for last in (1..cells).rev() {
            order.swap(last, random.below(last + 1)); // Fisher and Yates
        }
        order
    }

    /// The task whose cap this is, if it is one's.
    pub fn task_of(cap: u64) -> Option<&'static str> {
        TASK_CAPS.iter().find(|(_, tokens)| *tokens == cap).map(|(task, _)| *task)
    }
}

#[cfg(test)]
mod tests {
    use super::super::presets;
    use super::*;

    fn spec() -> Spec {
        presets::find("output-tokens").unwrap().spec(false)
    }

    #[test]
    fn a_spec_multiplies_out_with_every_axis_in_every_cell() {
        let mut spec = spec();
        spec.axes.set("threads", vec![Value::Whole(1), Value::Whole(2)]);
        let cells = spec.cells().unwrap();
        assert_eq!(cells.len(), 2 * spec.axes.get("output").unwrap().len());
        assert!(cells.iter().all(|cell| cell.values.len() == spec.axes.len()));
        let mut hashes: Vec<&str> = cells.iter().map(|cell| cell.hash.as_str()).collect();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), cells.len());
    }

    #[test]
    fn orders_are_permutations_of_their_seed_and_round() {
        let spec = spec();
        let mut sorted = spec.order(3, 40);
        assert_eq!(sorted, spec.order(3, 40));
        assert_ne!(sorted, spec.order(4, 40));
        assert_ne!(sorted, Spec { seed: spec.seed + 1, ..spec.clone() }.order(3, 40));
        sorted.sort_unstable();
        assert_eq!(sorted, (0..40).collect::<Vec<_>>());
    }

    #[test]
    fn every_place_of_a_round_is_equally_likely() {
        let spec = spec();
        let mut seen = [[0usize; 4]; 4];
        for round in 0..4000 {
            for (place, cell) in spec.order(round, 4).into_iter().enumerate() {
                seen[place][cell] += 1;
            }
        }
        // Binomial(4000, 1/4): 1000 ± 27; six deviations.
        assert!(seen.iter().flatten().all(|&n| n.abs_diff(1000) < 165), "{seen:?}");
    }

    #[test]
    fn contradictions_are_refused() {
        let refused = |change: &dyn Fn(&mut Spec)| {
            let mut spec = spec();
            change(&mut spec);
            spec.cells().unwrap_err().to_string()
        };
        assert!(refused(&|s| s.axes.set("cap", vec![Value::Whole(1)])).contains("exclude each other"));
        assert!(refused(&|s| s.axes.set("eos", vec![Value::Text("off".into())])).contains("end tokens"));
        assert!(refused(&|s| s.axes.remove("output")).contains("give output"));
        assert!(refused(&|s| s.axes.set("threads", vec![])).contains("at least one"));
        assert!(refused(&|s| s.repeats = 0).contains("repeats 0"));
        assert!(refused(&|s| s.temperature = f64::NAN).contains("temperature"));
        assert!(
            refused(&|s| s.axes.set("output", (1..20_000).map(Value::Whole).collect())).contains("cells")
        );
    }

    #[test]
    fn a_cell_beyond_the_context_or_the_cache_says_so() {
        let mut spec = spec();
        spec.axes.set("output", vec![Value::Whole(100)]);
        spec.axes.set("cache", vec![Value::Text(FIT.into()), Value::Text("static:20".into())]);
        let cells = spec.cells().unwrap();
        assert_eq!(cells[0].cache(), "static:164");
        assert_eq!(cells[0].beyond("m", 164), None);
        assert!(cells[0].beyond("m", 163).unwrap().contains("needs 164 tokens, m takes 163"));
        assert!(cells[1].beyond("m", 999).unwrap().contains("the cache holds 20"));
    }
}
