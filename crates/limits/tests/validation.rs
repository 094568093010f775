//! Published measurements against the SI limits: none may exceed its limit, and the median error of "limit × typical
//! efficiency" is computed. `cargo test -p roofline-limits --test validation -- --nocapture` prints the table of `docs/validation.md`.
#![allow(clippy::unwrap_used, clippy::panic)] // a test may fail where it stands

mod common;

use common::*;
use roofline_limits::hardware::HardwareTable;
use roofline_limits::report::{Request, Workload, report};
use roofline_limits::{Precision, Profile, Switch, Switches};
use roofline_model::ModelConfig;
use roofline_model::presets;

/// How the weights of a measurement are stored.
#[derive(Clone, Copy)]
enum Stored {
    /// A file type with its real bits.
    Type(&'static str),
    /// A round number of bits per weight, in a format that is not one of ours.
    Bits(f64),
}

/// What was timed.
#[derive(Clone, Copy)]
enum Phase {
    /// Decode at this position, tokens per second.
    Decode(u64),
    /// A prompt of this many tokens, prompt tokens per second.
    Prefill(u64),
}

struct Measurement {
    group: &'static str,
    device: &'static str,
    model: &'static str,
    stored: Stored,
    phase: Phase,
    tokens_per_s: f64,
}

/// llama.cpp, discussion 4167, build 8e672ef, Llama-2-7B, tg128 and pp512: device, F16 tg, Q8_0 tg, Q4_0 tg, Q4_0 pp.
const APPLE: [(&str, f64, f64, f64, f64); 10] = [
    ("Apple M1 (8-core GPU)", f64::NAN, 7.91, 14.15, 117.96),
    ("Apple M1 Max (32)", 23.03, 40.20, 61.19, 530.06),
    ("Apple M2 (10)", 6.72, 12.21, 21.91, 179.57),
    ("Apple M2 Pro (19)", 13.06, 23.01, 38.86, 341.19),
    ("Apple M2 Max (38)", 24.65, 41.83, 65.95, 671.31),
    ("Apple M2 Ultra (76)", 41.02, 66.64, 94.27, 1238.48),
    ("Apple M3 Pro (18)", 9.89, 17.53, 30.74, 341.67),
    ("Apple M4 (10)", 7.43, 13.54, 24.11, 221.29),
    ("Apple M4 Pro (20)", 17.18, 30.69, 50.74, 439.78),
    ("Apple M4 Max (40)", 31.64, 54.05, 83.06, 885.68),
];

/// calm's README, RTX 4090: model, bits, tokens/s over the first 32 tokens, over the last 32 at 4000.
const CALM: [(&str, f64, f64, f64); 8] = [
    ("Llama-2-7B", 16.0, 67.0, 58.0),
    ("Llama-2-7B", 8.0, 128.0, 99.0),
    ("Llama-2-7B", 4.0, 225.0, 151.0),
    ("Llama-2-13B", 8.0, 68.0, 55.0),
    ("Llama-2-13B", 4.0, 126.0, 87.0),
    ("Mistral-7B", 16.0, 63.0, 61.0),
    ("Mistral-7B", 8.0, 120.0, 113.0),
    ("Mistral-7B", 4.0, 219.0, 196.0),
];

/// gpt-fast's README, A100-80GB limited to 330 W, prompt of 5: model, bits (4-bit groups of 32 with bf16 scale and zero are 5), tokens/s.
const GPT_FAST: [(&str, f64, f64); 5] = [
    ("Llama-2-7B", 16.0, 104.9),
    ("Llama-2-7B", 8.0, 155.58),
    ("Llama-2-7B", 5.0, 196.80),
    ("Llama-2-70B", 8.0, 19.13),
    ("Llama-2-70B", 5.0, 25.25),
];

fn measurements() -> Vec<Measurement> {
    let mut all = Vec::new();
    let mut add = |group, device, model, stored, phase, tokens_per_s: f64| {
        if tokens_per_s.is_finite() {
            all.push(Measurement { group, device, model, stored, phase, tokens_per_s });
        }
    };
    for (device, f16, q8, q4, prompt) in APPLE {
        // tg128 is the mean over positions 1 to 128
        for (name, speed) in [("f16", f16), ("q8_0", q8), ("q4_0", q4)] {
            add(
                "llama.cpp decode, Apple",
                device,
                "Llama-2-7B",
                Stored::Type(name),
                Phase::Decode(64),
                speed,
            );
        }
        add(
            "llama.cpp prefill, Apple",
            device,
            "Llama-2-7B",
            Stored::Type("q4_0"),
            Phase::Prefill(512),
            prompt,
        );
    }
    for (model, bits, first, last) in CALM {
        add("calm, RTX 4090", "RTX 4090", model, Stored::Bits(bits), Phase::Decode(16), first);
        add("calm, RTX 4090", "RTX 4090", model, Stored::Bits(bits), Phase::Decode(4000), last);
    }
    for (model, bits, speed) in GPT_FAST {
        // 5 prompt tokens and 200 generated ones
        add("gpt-fast, A100", "A100 80GB", model, Stored::Bits(bits), Phase::Decode(100), speed);
    }
    // LLM-Viewer, issue 4: LLaMA-7B on TensorRT-LLM, A100: 16.1 ms for 128 prompt tokens, 120.5 ms for 2048
    for (prompt, ms) in [(128, 16.1), (2048, 120.5)] {
        let speed = prompt as f64 / ms * 1e3;
        add(
            "TensorRT-LLM prefill, A100",
            "A100 80GB",
            "Llama-2-7B",
            Stored::Bits(16.0),
            Phase::Prefill(prompt),
            speed,
        );
    }
    all
}

fn model(name: &str) -> ModelConfig {
    match name {
        "Llama-2-7B" => llama2_7b(),
        "Llama-2-70B" => llama2_70b(),
        name => presets::all()
            .iter()
            .find(|preset| preset.name.starts_with(name))
            .unwrap_or_else(|| panic!("no preset {name}"))
            .config()
            .unwrap(),
    }
}

/// Tokens per second that the SI profile allows.
fn limit(m: &Measurement) -> f64 {
    let (name, switches) = match m.stored {
        Stored::Type(name) => (format!("{name}a16"), Switches::SI),
        Stored::Bits(_) => ("w16a16".to_owned(), Switches::SI.toggled(Switch::RealBits)),
    };
    let mut precision = Precision::parse(&name, Profile::Si).unwrap();
    if let Stored::Bits(bits) = m.stored {
        precision.nominal_weight_bits = bits;
    }
    let (prompt, position) = match m.phase {
        Phase::Decode(position) => (1, position),
        Phase::Prefill(prompt) => (prompt, prompt),
    };
    let workload = Workload { prompt, context: 4096, batch: 1, chunk: 512, positions: vec![position] };
    let hardware = HardwareTable::built_in().unwrap().get(m.device).unwrap();
    let config = model(m.model);
    let r = report(&Request::new(&config, hardware, &precision, &workload, switches)).unwrap();
    match m.phase {
        Phase::Decode(_) => r.decode.positions[0].tokens_per_s,
        Phase::Prefill(_) => r.prefill.tokens_per_s,
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    (values[(n - 1) / 2] + values[n / 2]) / 2.0
}

#[test]
fn no_published_measurement_exceeds_its_limit() {
    for m in measurements() {
        let limit = limit(&m);
        assert!(m.tokens_per_s <= limit, "{} {}: {} above {limit}", m.device, m.model, m.tokens_per_s);
        // a limit that nobody comes near would be as wrong
        assert!(
            m.tokens_per_s >= 0.3 * limit,
            "{} {}: {} far below {limit}",
            m.device,
            m.model,
            m.tokens_per_s
        );
    }
}

/// Limit × the median efficiency of the *other* measurements of its group, so that no measurement predicts itself.
#[test]
fn limits_times_typical_efficiency_predict_within_the_stated_error() {
    let all: Vec<(Measurement, f64)> =
        measurements().into_iter().map(|m| (limit(&m), m)).map(|(l, m)| (m, l)).collect();
    let mut groups: Vec<&str> = all.iter().map(|(m, _)| m.group).collect();
    groups.dedup();
    groups.sort_unstable();
    groups.dedup();
    let mut errors = Vec::new();
    println!(
        "| measured by | n | efficiency, median (least to most) | error of limit × efficiency, median |"
    );
    println!("|---|---|---|---|");
    for group in groups {
        let efficiency: Vec<f64> =
            all.iter().filter(|(m, _)| m.group == group).map(|(m, limit)| m.tokens_per_s / limit).collect();
        let error = |i: usize| {
            let others = efficiency.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, e)| *e).collect();
            (median(others) / efficiency[i] - 1.0).abs()
        };
        let own: Vec<f64> = (0..efficiency.len()).map(error).collect();
        let (least, most) = efficiency.iter().fold((1.0f64, 0.0f64), |(a, b), &e| (a.min(e), b.max(e)));
        println!(
            "| {group} | {} | {:.0} % ({:.0} to {:.0} %) | {:.0} % |",
            own.len(),
            100.0 * median(efficiency.clone()),
            100.0 * least,
            100.0 * most,
            100.0 * median(own.clone())
        );
        errors.extend(own);
    }
    let overall = median(errors.clone());
    println!("all {} together: median error {:.1} %", errors.len(), 100.0 * overall);
    // 28.1 % is what a bandwidth-over-bytes rule reached on 6,633 public measurements
    assert!(overall < 0.281);
}

/// The efficiencies that a second reading of the same thread came to (weights only, whole file, published bandwidth), in per
/// cent: they guard the figures above against a slip of the pen.
#[test]
fn the_apple_figures_agree_with_a_second_reading() {
    let gib = (1u64 << 30) as f64;
    for (device, q4, f16) in [
        ("Apple M1 (8-core GPU)", Some(80.0), None),
        ("Apple M2 (10)", Some(84.0), Some(91.0)),
        ("Apple M4 (10)", Some(77.0), Some(83.0)),
        ("Apple M3 Pro (18)", Some(78.0), Some(89.0)),
        ("Apple M2 Pro (19)", Some(72.0), Some(84.0)),
        ("Apple M4 Pro (20)", Some(71.0), Some(85.0)),
        ("Apple M2 Max (38)", None, Some(81.0)),
        ("Apple M4 Max (40)", Some(58.0), Some(78.0)),
        ("Apple M2 Ultra (76)", Some(45.0), Some(69.0)),
    ] {
        let row = APPLE.iter().find(|row| row.0 == device).unwrap();
        let bandwidth = HardwareTable::built_in().unwrap().get(device).unwrap().bandwidth.value;
        for (speed, size, second) in [(row.3, 3.56, q4), (row.1, 12.55, f16)] {
            let Some(second) = second else { continue };
            let ours = 100.0 * speed * size * gib / bandwidth;
            assert!((ours - second).abs() < 4.0, "{device}: {ours} {second}");
        }
    }
}
