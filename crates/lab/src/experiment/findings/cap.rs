//! Document 000: does max_new_tokens cost anything where the answer ends before it?

use super::super::guard::verdict;
use super::super::recording::Recording;
use super::super::rows::{Finding, Fit, Form, Measurement, Value};
use super::CONFIDENCE;
use super::common::{
    axis, compared, counted, finding, median_of, metric, noise_floor, quantity, ratio_words, verdict_words,
    with_interval,
};
use crate::statistics::{Verdict, theil_sen};
use crate::units::{bytes, si};

/// The sentence the experiment is made for, the other side of it, and what the caps did to the answers.
pub fn findings(recording: &Recording) -> Vec<Finding> {
    let runs = counted(recording);
    let floor = noise_floor(recording, "e2e").unwrap_or(0.0);
    let mut all = Vec::new();
    for cache in recording.header.spec.axes.get("cache").into_iter().flatten() {
        let of_cache: Vec<&Measurement> =
            runs.iter().copied().filter(|run| run.cell.get("cache") == Some(cache)).collect();
        let mut found = Vec::new();
        found.extend(cost(&of_cache, floor));
        found.extend(without_end(&of_cache));
        found.extend(missing_end(&of_cache));
        found.extend(guard(&of_cache));
        for finding in &mut found {
            finding.cell.set("cache", cache.clone());
            if recording.header.spec.axes.get("cache").is_some_and(|caches| caches.len() > 1) {
                finding.sentence = format!("cache {cache}: {}", finding.sentence);
            }
        }
        all.extend(found);
    }
    all
}

fn ends(run: &Measurement) -> bool {
    run.cell.get("eos") != Some(&Value::Text("off".into()))
}

/// Answers that ended by themselves, at the smallest cap that let them and at the largest: the same tokens, the same
/// round, another cap.
fn cost(runs: &[&Measurement], floor: f64) -> Option<Finding> {
    let ended = |run: &&Measurement| ends(run) && run.finish.as_deref() == Some("eos");
    let answers: Vec<&Measurement> = runs.iter().copied().filter(ended).collect();
    let largest = answers.iter().filter_map(|run| axis(run, "cap")).fold(0.0, f64::max);
    let (mut times, mut memory, mut smallest) = (Vec::new(), Vec::new(), f64::INFINITY);
    for high in answers.iter().filter(|run| axis(run, "cap") == Some(largest)) {
        let same = |low: &&&Measurement| {
            let agree = |name: &str| low.cell.get(name) == high.cell.get(name);
            low.repeat == high.repeat
                && low.output_hash == high.output_hash
                && low.cell.names().all(|name| name == "cap" || agree(name))
                && axis(low, "cap") < Some(largest)
        };
        let partners = answers.iter().filter(same);
        let Some(low) =
            partners.min_by(|a, b| axis(a, "cap").unwrap_or(0.0).total_cmp(&axis(b, "cap").unwrap_or(0.0)))
        else {
            continue;
        };
        smallest = axis(low, "cap").unwrap_or(smallest).min(smallest);
        times.push((metric(low, "e2e")?, metric(high, "e2e")?));
        memory.push((low.bytes.kv_peak, high.bytes.kv_peak));
    }
    let comparison = compared(&times)?;
    let verdict = match comparison.verdict(floor) {
        Verdict::NoDifferenceShown => "the cap cost no time that can be shown".to_string(),
        _ => format!("the larger cap took {}", verdict_words(&comparison, floor)),
    };
    let more_bytes = memory.iter().filter(|(low, high)| high > low).count();
    let memory = match (more_bytes, memory.iter().map(|(low, high)| high.saturating_sub(*low)).max()) {
        (0, _) => "and not one byte of cache".to_string(),
        (_, most) => format!("and up to {} more of cache reserved", bytes(most.unwrap_or(0))),
    };
    let mut found = finding(
        "cost_of_the_cap",
        format!(
            "Answers that end by themselves, the same tokens under the smallest cap that lets them end (from {smallest}) \
             and under {largest}: time {}, n = {} pairs: {verdict}, {memory}.",
            ratio_words(&comparison),
            comparison.n
        ),
    );
    found.values.set("ratio", quantity(comparison.ratio, "1", Some(comparison.interval), comparison.n));
    Some(found)
}

/// Without end tokens the cap is the length.
fn without_end(runs: &[&Measurement]) -> Option<Finding> {
    let off: Vec<&Measurement> = runs.iter().copied().filter(|run| !ends(run)).collect();
    let points: Vec<(f64, f64)> =
        off.iter().filter_map(|run| Some((axis(run, "cap")?, metric(run, "e2e")?))).collect();
    let line = theil_sen(&points, CONFIDENCE).ok()?;
    let exact = off.iter().all(|run| Some(run.tokens.len() as f64) == axis(run, "cap"));
    let length =
        if exact { "every answer has exactly as many tokens as the cap" } else { "answers follow the cap" };
    let mut found = finding(
        "without_an_end_token",
        format!(
            "Without an end token {length}, and the time grows by {} per token of cap: that is the price of the tokens, \
             not of the cap.",
            with_interval(line.slope, line.slope_interval, "s")
        ),
    );
    found.cell.set("eos", Value::Text("off".into()));
    found.values.set("slope", quantity(line.slope, "s/tok", Some(line.slope_interval), line.n));
    let caps = || points.iter().map(|point| point.0);
    found.fit = Some(Fit {
        form: Form::Line,
        x: "cap".into(),
        y: "e2e".into(),
        y_unit: "s".into(),
        coefficients: vec![line.intercept, line.slope],
        range: [caps().fold(f64::INFINITY, f64::min), caps().fold(0.0, f64::max)],
        residual_deviation: line.residual_deviation,
        n: line.n,
    });
    Some(found)
}

/// What a missing end token costs at the largest cap: what document 000 took for the cost of the cap.
fn missing_end(runs: &[&Measurement]) -> Option<Finding> {
    let largest = runs.iter().filter_map(|run| axis(run, "cap")).fold(0.0, f64::max);
    let at = |with_end: bool| -> Vec<&Measurement> {
        runs.iter()
            .copied()
            .filter(|run| ends(run) == with_end && axis(run, "cap") == Some(largest))
            .collect()
    };
    let (with, without) = (at(true), at(false));
    let (fast, slow) = (median_of(&with, "e2e")?, median_of(&without, "e2e")?);
    let (few, many) = (median_of(&with, "generated")?, median_of(&without, "generated")?);
    let mut found = finding(
        "missing_end_token",
        format!(
            "At a cap of {largest}, a missing end token turns answers of {few:.0} tokens in {} into {many:.0} in {}: {:.1} \
             times as long (medians of {} and {} runs).",
            si(fast, "s"),
            si(slow, "s"),
            slow / fast,
            with.len(),
            without.len()
        ),
    );
    found.values.set("ratio", quantity(slow / fast, "1", None, with.len().min(without.len())));
    Some(found)
}

/// Caps that are far too large or cut answers off, one sentence for all of them.
fn guard(runs: &[&Measurement]) -> Option<Finding> {
    let mut caps: Vec<f64> = runs.iter().filter(|run| ends(run)).filter_map(|run| axis(run, "cap")).collect();
    caps.sort_unstable_by(f64::total_cmp);
    caps.dedup();
    let mut words = Vec::new();
    for cap in caps {
        let of_cap: Vec<&&Measurement> =
            runs.iter().filter(|run| ends(run) && axis(run, "cap") == Some(cap)).collect();
        let lengths: Vec<usize> = of_cap.iter().map(|run| run.tokens.len()).collect();
        let at_cap = of_cap.iter().filter(|run| run.finish.as_deref() == Some("length")).count();
        words.extend(verdict(cap as u64, &lengths, at_cap));
    }
    (!words.is_empty()).then(|| finding("guard", format!("{}.", words.join("; "))))
}
