//! Time of the prompt against its length: flat while weights are read, a line once there is enough to compute.

use super::super::recording::Recording;
use super::super::rows::{Finding, Fit, Form, Measurement};
use super::CONFIDENCE;
use super::common::{counted, finding, limit, medians, quantity};
use crate::statistics::{Point, Segmented, segmented};
use crate::units::si;

/// Prompts beyond this many times the predicted turn tell of attention, whose cost grows with the square.
const FAR: f64 = 64.0;

/// The turning point, measured and predicted.
pub fn findings(recording: &Recording) -> Vec<Finding> {
    let runs = counted(recording);
    turn(&runs).into_iter().collect()
}

fn turn(runs: &[&Measurement]) -> Option<Finding> {
    let predicted = runs.iter().find_map(|run| limit(run, "turning_point"));
    let mut points = medians(runs, "prompt", "prefill");
    points.retain(|(prompt, _)| predicted.is_none_or(|turn| *prompt <= FAR * turn.max(1.0)));
    let fit = segmented(&Point::relative(&points), CONFIDENCE).ok()?;
    let [k0, k1, k2] = fit.coefficients;
    let limit_words = match predicted {
        Some(turn) => format!(
            "the calculator puts it at {turn:.1} rows, where computing at the machine's peak takes as long as reading the \
             weights; slower arithmetic turns sooner"
        ),
        None => "the calculator sees none: reading is slower at any length".to_string(),
    };
    let measured = match fit.broken {
        true => format!(
            "The prompt's time turns at {:.1} rows [{:.1}, {:.1}]: below it a further row costs {}, above it {}",
            fit.turn,
            fit.turn_interval.low,
            fit.turn_interval.high,
            si(k1, "s"),
            si(k1 + k2, "s")
        ),
        false => format!(
            "No turning point is shown among the medians of {} lengths: a straight line does as well",
            fit.n
        ),
    };
    let mut found = finding("turning_point", format!("{measured}; {limit_words}."));
    found.values.set("turn", quantity(fit.turn, "tok", Some(fit.turn_interval), fit.n));
    found.values.set("per_row_below", quantity(k1, "s/tok", None, fit.n));
    found.values.set("per_row_above", quantity(k1 + k2, "s/tok", None, fit.n));
    if let Some(turn) = predicted {
        found.values.set("turn_limit", quantity(turn, "tok", None, 1));
    }
    found.fit = Some(curve(&fit, &points, vec![k0, k1, k2, fit.turn]));
    Some(found)
}

fn curve(fit: &Segmented, points: &[(f64, f64)], coefficients: Vec<f64>) -> Fit {
    let xs = || points.iter().map(|point| point.0);
    Fit {
        form: Form::Segmented,
        x: "prompt".into(),
        y: "prefill".into(),
        y_unit: "s".into(),
        coefficients,
        range: [xs().fold(f64::INFINITY, f64::min), xs().fold(0.0, f64::max)],
        residual_deviation: fit.residual_deviation,
        n: fit.n,
    }
}
