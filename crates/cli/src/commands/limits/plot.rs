//! `--plot`: the roofline with the model's operators, and latency against position.

use roofline_lab::LabError;
use roofline_lab::plot::{Ceiling, Latency, OperatorPoint, Roof, latency, render, roofline};
use roofline_lab::units::grouped;
use roofline_limits::hardware::Hardware;
use roofline_limits::report::OperatorLimit;

use super::Answer;

/// An SVG file of the first answer. `curve` holds (position, milliseconds) of the decode limit.
pub fn svg(answer: &Answer, hardware: &Hardware, curve: Vec<(f64, f64)>) -> Result<String, LabError> {
    let report = &answer.report;
    let title = format!("{} on {}", answer.model, report.device.name);
    let subtitle =
        format!("{}, {} profile: no run can stand above the lines", report.precision.label, answer.profile);
    let last = report.decode.positions.last().map_or(1, |at| at.position);
    let mut points =
        operators(&report.prefill_operators, &format!("prefill of {}", grouped(report.prefill.prompt)));
    points.extend(operators(&report.decode_operators, &format!("decode at {}", grouped(last))));
    let roofs = roofline(&title, &subtitle, &roof(answer, hardware), &points);
    let times = latency(&Latency {
        title: "Decode: time per token".to_string(),
        subtitle: format!("{title}, {}, limit", report.precision.label),
        limit: curve,
        b_ms: report.decode.b_ms,
        w_tokens_per_ms: report.decode.w_tokens_per_ms,
        measured: Vec::new(),
        fit: None,
    });
    Ok(render(&[roofs, times])?)
}

fn operators(operators: &[OperatorLimit], phase: &str) -> Vec<OperatorPoint> {
    let point = |o: &OperatorLimit| OperatorPoint {
        name: o.operator.name().to_string(),
        phase: phase.to_string(),
        bytes: o.bytes,
        flops: o.flops,
        seconds: o.limit_ms / 1e3,
    };
    operators.iter().map(point).collect()
}

/// The peaks that count here: that of the products, that of attention, and f32 for orientation.
fn roof(answer: &Answer, hardware: &Hardware) -> Roof {
    let device = &answer.report.device;
    let mut ceilings =
        vec![Ceiling { name: device.peak_type.words().to_string(), flops_per_second: device.peak }];
    let f32_peak = hardware.peaks.get_key_value(&roofline_limits::hardware::NumberType::F32);
    let others = [
        Some((device.attention_peak_type, device.attention_peak)),
        f32_peak.map(|(number, figure)| (*number, figure.value)),
    ];
    for (number, flops_per_second) in others.into_iter().flatten() {
        if ceilings.iter().all(|ceiling| ceiling.name != number.words()) {
            ceilings.push(Ceiling { name: number.words().to_string(), flops_per_second });
        }
    }
    Roof { name: device.name.clone(), bandwidth: device.bandwidth, ceilings }
}
