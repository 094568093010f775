//! A family of geometries: what a longer cache costs each of them, which is what any cache policy can save at most.

use super::super::recording::Recording;
use super::super::rows::{Finding, Measurement};
use super::against;
use super::common::{
    compared, counted, finding, median_of, noise_floor, pairs, quantity, ratio_words, verdict_words,
};

/// Per model: attention's share of a step, and the deepest cache against the shallowest.
pub fn findings(recording: &Recording) -> Vec<Finding> {
    let spec = &recording.header.spec;
    let runs = counted(recording);
    let floor = noise_floor(recording, "tpot").unwrap_or(0.0);
    let mut all = Vec::new();
    for model in spec.axes.get("model").into_iter().flatten() {
        let of_model: Vec<&Measurement> =
            runs.iter().copied().filter(|run| run.cell.get("model") == Some(model)).collect();
        let Some([shallow, .., deep]) = spec.axes.get("depth").map(Vec::as_slice) else { continue };
        let at_depth: Vec<&Measurement> =
            of_model.iter().copied().filter(|run| run.cell.get("depth") == Some(deep)).collect();
        let Some(share) = median_of(&at_depth, "attention_share") else { continue };
        let pairs = pairs(&of_model, "depth", shallow, deep, "tpot");
        let Some(comparison) = compared(&pairs) else { continue };
        let mut found = finding(
            &format!("size_{model}"),
            format!(
                "{model}: at {deep} tokens attention takes {:.1} % of a step; a step there over one at {shallow}: {} ({}); \
                 nothing that keeps the cache at {shallow} tokens can save more than that.",
                100.0 * share,
                ratio_words(&comparison),
                verdict_words(&comparison, floor)
            ),
        );
        found.cell.set("model", model.clone());
        found.values.set("attention_share", quantity(share, "1", None, at_depth.len()));
        found.values.set("tpot", quantity(comparison.ratio, "1", Some(comparison.interval), comparison.n));
        all.push(found);
    }
    all.extend(against::first_value(recording, "cache", &["itl_p50", "tpot"]));
    all
}
