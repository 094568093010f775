//! Document 001: T against the number of output tokens, per step and as a whole.

use super::super::recording::Recording;
use super::super::rows::{Finding, Fit, Form, Measurement};
use super::CONFIDENCE;
use super::common::{axis, counted, finding, limit, medians, metric, of_limit, quantity, with_interval};
use crate::statistics::{
    Interval, Line, Point, Sorted, least_squares, mean_interval, median, polynomial, theil_sen,
};
use crate::units::si;

/// Blocks of neighbouring steps that a line is laid through; pairs of points grow with the square.
const BLOCKS: usize = 400;
/// Fewer steps give no line.
const LEAST_STEPS: usize = 30;

/// T(n), its log-log slope, the line of the steps against their limit, and the stages.
pub fn findings(recording: &Recording) -> Vec<Finding> {
    let runs = counted(recording);
    let mut all = Vec::new();
    all.extend(whole(&runs));
    all.extend(log_log(&runs));
    all.extend(steps(&runs));
    all.extend(shares(&runs));
    all
}

/// T = b + a·n + c·n² through the medians of the lengths.
fn whole(runs: &[&Measurement]) -> Option<Finding> {
    let points = medians(runs, "output", "e2e");
    // Times spread in proportion to themselves, over two orders of magnitude.
    let fit = polynomial(&Point::relative(&points), 2, CONFIDENCE).ok()?;
    let [b, a, c] = fit.coefficients[..] else { return None };
    let curved = !fit.intervals[2].contains(0.0);
    let curve = match curved {
        true => {
            format!("each token costs {} more than the one before", si(2.0 * c, "s"))
        }
        false => {
            "c is not distinguishable from 0 here: the whole does not show what the steps may".to_string()
        }
    };
    let mut found = finding(
        "whole",
        format!(
            "T(n) = {} + {}·n + {}·n² through the medians of {} lengths; {curve}.",
            with_interval(b, fit.intervals[0], "s"),
            with_interval(a, fit.intervals[1], "s"),
            with_interval(c, fit.intervals[2], "s"),
            fit.n
        ),
    );
    for (name, k) in [("b", 0), ("a", 1), ("c", 2)] {
        found.values.set(name, quantity(fit.coefficients[k], "s", Some(fit.intervals[k]), fit.n));
    }
    found.fit = Some(Fit {
        form: Form::Quadratic,
        x: "output".into(),
        y: "e2e".into(),
        y_unit: "s".into(),
        range: range(&points),
        residual_deviation: fit.residual_deviation,
        n: fit.n,
        coefficients: fit.coefficients,
    });
    Some(found)
}

/// The slope on log-log paper, of T and of the decode steps alone.
fn log_log(runs: &[&Measurement]) -> Option<Finding> {
    let logs = |of: &dyn Fn(&Measurement) -> Option<(f64, f64)>| -> Option<Line> {
        let positive = |(x, y): &(f64, f64)| *x > 0.0 && *y > 0.0;
        let points = runs.iter().filter_map(|run| of(run)).filter(positive);
        least_squares(&points.map(|(x, y)| (x.ln(), y.ln())).collect::<Vec<_>>(), CONFIDENCE).ok()
    };
    let whole = logs(&|run| Some((axis(run, "output")?, metric(run, "e2e")?)))?;
    let steps = logs(&|run| {
        let (first, last) = (run.tokens.first()?, run.tokens.last()?);
        Some((run.tokens.len() as f64 - 1.0, last - first))
    })?;
    let interval = |line: &Line| {
        format!("{:.3} [{:.3}, {:.3}]", line.slope, line.slope_interval.low, line.slope_interval.high)
    };
    let mut found = finding(
        "log_log",
        format!(
            "On log-log paper T has the slope {}, and the n − 1 decode steps alone {}. A slope near 1 says that the \
             constant is small and c·n is small against a; it does not say that either is 0.",
            interval(&whole),
            interval(&steps)
        ),
    );
    found.values.set("slope", quantity(whole.slope, "1", Some(whole.slope_interval), whole.n));
    found.values.set("slope_of_steps", quantity(steps.slope, "1", Some(steps.slope_interval), steps.n));
    let of_output = || runs.iter().filter_map(|run| axis(run, "output"));
    found.fit = Some(Fit {
        form: Form::Power,
        x: "output".into(),
        y: "e2e".into(),
        y_unit: "s".into(),
        coefficients: vec![whole.intercept, whole.slope],
        range: [of_output().fold(f64::INFINITY, f64::min), of_output().fold(0.0, f64::max)],
        residual_deviation: whole.residual_deviation,
        n: whole.n,
    });
    Some(found)
}

/// ITL = B + position/W: a line through the steps of every long run, and its spread over the runs.
fn steps(runs: &[&Measurement]) -> Option<Finding> {
    let longest = runs.iter().map(|run| run.tokens.len()).max()?;
    let long: Vec<&Measurement> =
        runs.iter().copied().filter(|run| run.tokens.len() * 4 >= longest * 3).collect();
    let lines: Vec<Line> = long.iter().filter_map(|run| line_of(run)).collect();
    let b: Vec<f64> = lines.iter().map(|line| line.at(1.0)).collect();
    let slopes: Vec<f64> = lines.iter().map(|line| line.slope).collect();
    let (b, b_interval) = mean_interval(&b, CONFIDENCE).ok()?;
    let (slope, slope_interval) = mean_interval(&slopes, CONFIDENCE).ok()?;
    let b_limit = limit(long[0], "b");
    let w_limit = limit(long[0], "w");
    let of_b = b_limit.map_or(String::new(), |limit| of_limit(b, limit));
    let w = match slope_interval.low > 0.0 {
        true => {
            let measured = Interval { low: 1.0 / slope_interval.high, high: 1.0 / slope_interval.low };
            let limit =
                w_limit.map_or(String::new(), |limit| format!(" (memory allows {})", si(limit, "tokens/s")));
            format!("W = {}{limit}", with_interval(1.0 / slope, measured, "tokens/s"))
        }
        false => format!(
            "no growth with the position shown: a token of context adds {}",
            with_interval(slope, slope_interval, "s")
        ),
    };
    // Σ over the n − 1 steps at positions P + 1 … P + n − 1 of b − slope + slope·position.
    let a = b - slope + slope * (long[0].prompt_tokens as f64 - 0.5);
    let mut found = finding(
        "steps",
        format!(
            "Step by step, ITL = B + position/W: B = {}{of_b}; {w}; from the {} longest runs, each a line of its own. \
             Summed up: a = {} per token and c = {}·n².",
            with_interval(b, b_interval, "s"),
            lines.len(),
            si(a, "s"),
            si(slope / 2.0, "s"),
        ),
    );
    found.values.set("b", quantity(b, "s", Some(b_interval), lines.len()));
    found.values.set("a", quantity(a, "s", None, lines.len()));
    let c_interval = Interval { low: slope_interval.low / 2.0, high: slope_interval.high / 2.0 };
    found.values.set("c", quantity(slope / 2.0, "s", Some(c_interval), lines.len()));
    found.values.set("slope", quantity(slope, "s/tok", Some(slope_interval), lines.len()));
    if let Some(limit) = b_limit {
        found.values.set("b_limit", quantity(limit, "s", None, 1));
    }
    if let Some(limit) = w_limit {
        found.values.set("w_limit", quantity(limit, "tok/s", None, 1));
    }
    let first = long[0].prompt_tokens as f64 + 1.0;
    let squares: f64 = lines.iter().map(|line| line.residual_deviation.powi(2)).sum();
    found.fit = Some(Fit {
        form: Form::Line,
        x: "position".into(),
        y: "itl".into(),
        y_unit: "s".into(),
        coefficients: vec![b - slope, slope],
        range: [first, first + longest as f64 - 2.0],
        residual_deviation: (squares / lines.len() as f64).sqrt(),
        n: lines.len(),
    });
    Some(found)
}

/// The line through one run's steps, position 1 being the first token of the sequence. Medians of blocks first: a step
/// that another program interrupted is no part of the line.
pub fn line_of(run: &Measurement) -> Option<Line> {
    if run.tokens.len() <= LEAST_STEPS {
        return None;
    }
    let before = axis(run, "depth").unwrap_or(0.0) + run.prompt_tokens as f64;
    // The step that made token i (from 0) had its input at position `before` + i.
    let gaps: Vec<(f64, f64)> = (run.tokens.windows(2).enumerate())
        .map(|(i, pair)| (before + 1.0 + i as f64, pair[1] - pair[0]))
        .collect();
    let per_block = gaps.len().div_ceil(BLOCKS);
    let block = |block: &[(f64, f64)]| -> Option<(f64, f64)> {
        let (xs, ys): (Vec<f64>, Vec<f64>) = block.iter().copied().unzip();
        Some((median(&xs).ok()?, median(&ys).ok()?))
    };
    let points: Vec<(f64, f64)> = gaps.chunks(per_block).filter_map(block).collect();
    theil_sen(&points, CONFIDENCE).ok()
}

/// Shares of the stages in the shortest and the longest answer.
fn shares(runs: &[&Measurement]) -> Option<Finding> {
    let outputs = || runs.iter().filter_map(|run| axis(run, "output"));
    let ends = [outputs().fold(f64::INFINITY, f64::min), outputs().fold(0.0, f64::max)];
    let mut found = finding("stages", String::new());
    let mut parts = Vec::new();
    for end in ends {
        let of_end: Vec<&&Measurement> = runs.iter().filter(|run| axis(run, "output") == Some(end)).collect();
        let share = |stage: &str| {
            let shares: Vec<f64> =
                of_end.iter().filter_map(|run| Some(run.stages.get(stage)? / run.wall_s)).collect();
            Sorted::new(&shares).ok().map(|sorted| sorted.median())
        };
        let (prefill, decode) = (share("prefill")?, share("decode")?);
        let rest = 1.0 - prefill - decode;
        for (stage, share) in [("prefill", prefill), ("decode", decode), ("rest", rest)] {
            found.values.set(format!("{stage}_at_{end}"), quantity(share, "1", None, of_end.len()));
        }
        parts.push(format!(
            "{end} tokens: prefill {:.1} %, decode {:.1} %, everything else {:.1} %",
            100.0 * prefill,
            100.0 * decode,
            100.0 * rest
        ));
    }
    found.sentence = format!("Shares of the wall time at {}.", parts.join("; at "));
    Some(found)
}

fn range(points: &[(f64, f64)]) -> [f64; 2] {
    let xs = || points.iter().map(|point| point.0);
    [xs().fold(f64::INFINITY, f64::min), xs().fold(f64::NEG_INFINITY, f64::max)]
}
