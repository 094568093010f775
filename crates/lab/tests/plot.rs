//! Charts: what is on them, what they refuse, and that they are the same every time.
#![allow(clippy::unwrap_used)] // helpers outside of #[test] too

use roofline_lab::plot::*;

fn device() -> Roof {
    let ceiling = |name: &str, flops_per_second| Ceiling { name: name.into(), flops_per_second };
    Roof {
        name: "example".into(),
        bandwidth: 36e9,
        ceilings: vec![
            ceiling("int8, int32 sums", 942e9),
            ceiling("bf16, f32 sums", 470e9),
            ceiling("f32", 235e9),
        ],
    }
}

/// A phase at its limit: time is the larger of bytes / bandwidth and FLOPs / peak.
fn phase(name: &str, rows: f64) -> Vec<OperatorPoint> {
    let operator = |operator: &str, weights: f64, flops: f64| {
        let bytes = weights + 4.0 * rows * 2048.0;
        let seconds = (bytes / 36e9).max(flops / 942e9);
        OperatorPoint { name: operator.into(), phase: name.into(), bytes, flops, seconds }
    };
    vec![
        operator("embed", 0.0, 0.0),
        operator("qkv", 150e6, 300e6 * rows),
        operator("attention", 8e6 * rows.sqrt(), 16e6 * rows),
        operator("wo", 70e6, 140e6 * rows),
        operator("w_gate_up", 550e6, 1.1e9 * rows),
        operator("w_down", 280e6, 560e6 * rows),
        operator("output_head", 140e6, 280e6),
    ]
}

fn chart() -> Chart {
    let operators = [phase("prefill of 512", 512.0), phase("decode at 4,096", 1.0)].concat();
    roofline("Example 1B on example", "w8a8, limits, SI profile", &device(), &operators)
}

fn line() -> Chart {
    latency(&Latency {
        title: "Decode: time per token".into(),
        subtitle: "Example 1B, w8a8".into(),
        limit: vec![(1.0, 33.0), (4096.0, 38.5)],
        b_ms: 33.0,
        w_tokens_per_ms: 745.0,
        measured: (1..60)
            .map(|i| (f64::from(i) * 64.0, 36.0 + f64::from(i) * 0.11 + f64::from(i * i % 7) * 0.1))
            .collect(),
        fit: None,
    })
}

#[test]
fn the_picture_is_the_same_every_time_and_for_both_schemes() {
    let svg = render(&[chart(), line()]).unwrap();
    assert_eq!(svg, render(&[chart(), line()]).unwrap());
    assert!(svg.contains("@media (prefers-color-scheme:dark)"));
    std::fs::write(std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("plot.svg"), &svg).unwrap();
    for text in
        ["memory: 36.0 GB/s", "arithmetic intensity (FLOP per byte)", "time per token (ms)", "B = 33.0 ms"]
    {
        assert!(svg.contains(text), "{text} is missing");
    }
}

#[test]
fn operators_at_one_place_share_a_disc() {
    let chart = chart();
    let discs: Vec<&str> = chart
        .series
        .iter()
        .filter(|s| matches!(s.mark, Mark::Labelled(_)))
        .map(|s| s.name.as_str())
        .collect();
    let decode: Vec<&&str> = discs.iter().filter(|name| name.starts_with("decode")).collect();
    assert!(decode.iter().any(|name| name.contains("w_down") && name.contains("w_gate_up")), "{discs:?}");
    assert!(chart.remarks[0].contains("embed (prefill of 512: "), "{:?}", chart.remarks);
}

#[test]
fn ceilings_close_together_share_a_name() {
    let mut roof = device();
    roof.ceilings[1].flops_per_second = 240e9;
    let chart = roofline("", "", &roof, &phase("decode", 1.0));
    let notes: Vec<&str> = chart.notes.iter().map(|note| note.text.as_str()).collect();
    assert_eq!(notes, ["memory: 36.0 GB/s", "int8, int32 sums", "bf16, f32 sums; f32"]);
}

#[test]
fn no_operator_stands_above_the_roof() {
    let roof = device();
    let chart = chart();
    for series in chart.series.iter().filter(|s| matches!(s.mark, Mark::Labelled(_))) {
        for &(intensity, performance) in &series.points {
            let limit = (intensity * roof.bandwidth).min(942e9);
            assert!(performance <= limit * 1.000_001, "{}: {performance} > {limit}", series.name);
        }
    }
}

#[test]
fn what_no_axis_can_show_is_refused() {
    let mut chart = chart();
    chart.series[0].points[0].0 = 0.0;
    assert!(matches!(render(&[chart]), Err(PlotError::Coordinate { axis: "x", scale: "logarithmic", .. })));
    let mut chart = line();
    chart.series[1].points[0].1 = f64::NAN;
    assert!(matches!(render(&[chart]), Err(PlotError::Coordinate { axis: "y", scale: "linear", .. })));
    let mut chart = line();
    chart.series.clear();
    assert!(matches!(render(&[chart]), Err(PlotError::Empty { .. })));
}
