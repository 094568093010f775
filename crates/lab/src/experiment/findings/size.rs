//! A family of geometries: what a longer cache costs each of them, which is what any cache policy can save at most.

use super::super::recording::Recording;
use super::super::rows::{Finding, Measurement, Value};
use super::against;
use super::common::{
    compared, counted, finding, median_of, noise_floor, pairs, quantity, ratio_words, verdict_words,
};

/// Per model: attention's share of a step, the deepest cache against the shallowest, and policies where the cache is
/// deepest: where it is shallow they have nothing to evict.
pub fn findings(recording: &Recording) -> Vec<Finding> {
    let spec = &recording.header.spec;
    let runs = counted(recording);
    let values = |axis: &str| spec.axes.get(axis).map(Vec::as_slice).unwrap_or_default();
    let Some((full, policies)) = values("cache").split_first() else { return Vec::new() };
    let mut all = Vec::new();
    for model in values("model") {
        let of = |axes: &[(&str, &Value)]| -> Vec<&Measurement> {
            let agrees =
                |run: &&Measurement| axes.iter().all(|(axis, value)| run.cell.get(axis) == Some(*value));
            runs.iter().copied().filter(agrees).collect()
        };
        if let [shallow, .., deep] = values("depth") {
            let kept = of(&[("model", model), ("cache", full)]);
            all.extend(depths(recording, model, &kept, (shallow, deep)));
        }
        let deepest = match values("depth").last() {
            Some(deep) => of(&[("model", model), ("depth", deep)]),
            None => of(&[("model", model)]),
        };
        for policy in policies {
            let found = against::one(recording, &deepest, "cache", (full, policy), &["itl_p50", "tpot"]);
            all.extend(found.map(|mut found| {
                found.name = format!("size_{model}_{policy}");
                found.cell.set("model", model.clone());
                found.sentence = format!("{model}, deepest cache: {}", found.sentence);
                found
            }));
        }
    }
    all
}

/// A nearly full cache against a nearly empty one: the most that a policy could save.
fn depths(
    recording: &Recording,
    model: &Value,
    runs: &[&Measurement],
    (shallow, deep): (&Value, &Value),
) -> Option<Finding> {
    let at_depth: Vec<&Measurement> =
        runs.iter().copied().filter(|run| run.cell.get("depth") == Some(deep)).collect();
    let share = median_of(&at_depth, "attention_share")?;
    let comparison = compared(&pairs(runs, "depth", shallow, deep, "itl_p50"))?;
    let floor = noise_floor(recording, "itl_p50").unwrap_or(0.0);
    let mut found = finding(
        &format!("size_{model}"),
        format!(
            "{model}: at {deep} tokens attention takes {:.1} % of a step; the median step there over one at {shallow}: {} \
             ({}); nothing that keeps the cache at {shallow} tokens can save more than that.",
            100.0 * share,
            ratio_words(&comparison),
            verdict_words(&comparison, floor)
        ),
    );
    found.cell.set("model", model.clone());
    found.values.set("attention_share", quantity(share, "1", None, at_depth.len()));
    found.values.set("itl_p50", quantity(comparison.ratio, "1", Some(comparison.interval), comparison.n));
    Some(found)
}
