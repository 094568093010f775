//! Rows by the schema, made up: what an experiment would write on a machine whose truth is known.
#![allow(clippy::unwrap_used, dead_code)] // each test file uses its part of it

use roofline_lab::environment::{Cpu, Engine, Environment, MainMemory};
use roofline_lab::experiment::rows::*;
use roofline_lab::experiment::{Analysis, Ordered, Prompts, Recording, Spec, hash_of};

/// SplitMix64, as noise between 0 and 1.
pub struct Noise(pub u64);

impl Noise {
    pub fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// What an experiment on made-up rows is.
pub struct Plan {
    pub name: &'static str,
    pub model: &'static str,
    pub axes: Vec<(&'static str, Vec<Value>)>,
    pub view: View,
    pub repeats: usize,
}

pub fn whole(values: &[u64]) -> Vec<Value> {
    values.iter().map(|n| Value::Whole(*n)).collect()
}

pub fn words(values: &[&str]) -> Vec<Value> {
    values.iter().map(|text| Value::Text(text.to_string())).collect()
}

pub fn view(x: &str, by: Option<&str>, y: &[&str], log: bool) -> View {
    View {
        x: x.into(),
        by: by.map(str::to_string),
        y: y.iter().map(|name| name.to_string()).collect(),
        log_x: log,
        log_y: log,
    }
}

/// Time against output length: b = 12 ms, 2 ms a token, a little more with every position.
pub fn output_tokens() -> Vec<Row> {
    rows(&Plan {
        name: "output-tokens",
        model: "demo",
        axes: vec![("model", words(&["demo"])), ("output", whole(&[8, 16, 32, 64, 128, 256, 512, 1024]))],
        view: view("output", None, &["e2e", "tpot"], true),
        repeats: 5,
    })
}

/// Policies of the cache with names along x, and their quality.
pub fn cache_policy() -> Vec<Row> {
    let policies =
        ["full", "static:fit", "streaming:sinks=4,window=252", "quest:budget=256", "snapkv:budget=256"];
    let mut rows = rows(&Plan {
        name: "cache-policy",
        model: "demo",
        axes: vec![("cache", words(&policies)), ("output", whole(&[64])), ("prompt", whole(&[1024]))],
        view: view("cache", None, &["tpot", "kv_live", "kv_peak"], false),
        repeats: 5,
    });
    let at = rows.len() - 2; // findings and the last note come after
    for (i, policy) in policies.iter().enumerate() {
        let cell: Ordered<Value> = [("cache", Value::Text(policy.to_string()))].into_iter().collect();
        let quantity = |value: f64| Quantity {
            value,
            unit: "1".into(),
            low: Some(value * 0.98),
            high: Some(value * 1.02),
            n: Some(2048),
        };
        let quality = Quality {
            cell_hash: hash_of(&cell),
            cell,
            model: model("demo"),
            method: "2,048 tokens of prose, half-chunk 512".into(),
            metrics: [
                ("perplexity", quantity(50.6 + [0.0, 0.0, 1.7, 0.4, 0.9][i])),
                ("kl", quantity(0.001 + 0.02 * i as f64)),
            ]
            .into_iter()
            .collect(),
            wall_s: 3.0,
        };
        rows.insert(at + i, Row::Quality(Box::new(quality)));
    }
    rows
}

/// Two thread counts, a line for each.
pub fn depth_by_threads() -> Vec<Row> {
    rows(&Plan {
        name: "context-depth",
        model: "demo",
        axes: vec![
            ("threads", whole(&[1, 2])),
            ("depth", whole(&[0, 128, 512, 1024, 1984])),
            ("output", whole(&[32])),
        ],
        view: view("depth", Some("threads"), &["tpot", "decode_rate"], false),
        repeats: 5,
    })
}

/// Header, measurements, findings, a note that everything is there.
pub fn rows(plan: &Plan) -> Vec<Row> {
    let axes: Ordered<Vec<Value>> = plan.axes.iter().map(|(name, values)| (*name, values.clone())).collect();
    let spec = Spec {
        name: plan.name.into(),
        question: format!("What does {} ask?", plan.name),
        analysis: Analysis::Plain,
        axes,
        repeats: plan.repeats,
        warm_up: 1,
        prompts: Prompts::Text,
        temperature: 0.0,
        quality: false,
        seed: 7,
    };
    let header = Header {
        schema: SCHEMA,
        experiment: plan.name.into(),
        question: spec.question.clone(),
        experiment_hash: spec.hash(),
        spec,
        seed: 7,
        command: format!("roofline experiment {} {}", plan.name, plan.model),
        view: plan.view.clone(),
        environment: environment(),
        machine: None,
        started: "2026-11-24T22:00:00Z".into(),
    };
    let mut rows = vec![Row::Header(Box::new(header))];
    let mut noise = Noise(1);
    let mut order = 0;
    for round in 0..=plan.repeats {
        for cell in cells(&plan.axes) {
            let warm_up = round == 0;
            let repeat = round.saturating_sub(1);
            rows.push(Row::Measurement(Box::new(measurement(
                &cell,
                plan.model,
                (repeat, order, warm_up),
                &mut noise,
            ))));
            order += 1;
        }
    }
    rows.push(Row::Finding(Box::new(finding(plan))));
    rows.push(note(About::Finished, "everything is there"));
    rows
}

fn cells(axes: &[(&'static str, Vec<Value>)]) -> Vec<Ordered<Value>> {
    let mut cells: Vec<Ordered<Value>> = vec![Ordered::default()];
    for (name, values) in axes {
        let with = |cell: &Ordered<Value>, value: &Value| {
            let mut cell = cell.clone();
            cell.set(*name, value.clone());
            cell
        };
        cells = cells.iter().flat_map(|cell| values.iter().map(move |value| with(cell, value))).collect();
    }
    cells
}

pub fn note(about: About, text: &str) -> Row {
    Row::Note(Note { about, text: text.into(), at: "2026-11-24T22:01:00Z".into(), cell_hash: None })
}

fn model(name: &str) -> ModelFacts {
    ModelFacts {
        name: name.into(),
        geometry: None,
        formats: "bf16".into(),
        hash: "0123456789abcdef".into(),
        parameters: 5_600_000,
    }
}

fn number(cell: &Ordered<Value>, axis: &str, otherwise: f64) -> f64 {
    cell.get(axis).and_then(Value::number).unwrap_or(otherwise)
}

pub fn measurement(
    cell: &Ordered<Value>,
    name: &str,
    (repeat, order, warm_up): (usize, usize, bool),
    noise: &mut Noise,
) -> Measurement {
    let n = number(cell, "output", 32.0) as usize;
    let depth = number(cell, "depth", 0.0) + number(cell, "prompt", 64.0);
    let threads = number(cell, "threads", 2.0);
    let policy = cell.get("cache").map_or(0, |value| value.to_string().len() % 5);
    let ttft = 0.012 * (1.0 + 0.05 * noise.next());
    let mut tokens = vec![ttft];
    for i in 1..n {
        let step = (0.0016 + 2e-7 * (depth + i as f64)) * 2.0 / threads
            * (1.0 + 0.04 * noise.next() - 0.02 * policy as f64);
        let hiccup = if noise.next() > 0.995 { 0.004 } else { 0.0 };
        tokens.push(tokens[i - 1] + step + hiccup);
    }
    let wall = tokens[n - 1] + 1e-5;
    let steps = (n.max(2) - 1) as f64;
    let tpot = (tokens[n - 1] - ttft) / steps;
    let metric = |value: f64, unit: &str| Metric::new(value, unit);
    let decode = tokens[n - 1] - ttft;
    let kv = ((depth + n as f64) * 12_288.0 * (1.0 - 0.15 * policy as f64)) as u64;
    Measurement {
        cell: cell.clone(),
        cell_hash: hash_of(cell),
        repeat,
        order,
        warm_up,
        model: model(name),
        prompt_hash: "00aa".into(),
        prompt_tokens: 64,
        seed: 7,
        started: "2026-11-24T22:00:01Z".into(),
        wall_s: wall,
        metrics: [
            ("generated", metric(n as f64, "tok")),
            ("e2e", metric(wall, "s")),
            ("ttft", metric(ttft, "s")),
            ("tpot", metric(tpot, "s")),
            ("decode_rate", metric(1.0 / tpot, "tok/s")),
            ("mbu", metric(0.6 + 0.02 * noise.next(), "1")),
            ("kv_live", metric(kv as f64, "B")),
            ("kv_peak", metric(kv as f64 * 1.1, "B")),
        ]
        .into_iter()
        .collect(),
        stages: [
            ("before", 0.0001),
            ("prefill", ttft - 0.0004),
            ("decode", decode * 0.97),
            ("sampling", decode * 0.02 + 0.0002),
            ("text", decode * 0.01 + 0.0001),
        ]
        .into_iter()
        .collect(),
        unaccounted: 1e-5 / wall,
        adds_up: true,
        tokens: if warm_up { Vec::new() } else { tokens },
        decode_operators: [
            "embed",
            "qkv",
            "rope",
            "attention",
            "wo",
            "norm",
            "w_gate_up",
            "w_down",
            "output_head",
        ]
        .iter()
        .enumerate()
        .map(|(i, operator)| (*operator, decode * [0.01, 0.2, 0.02, 0.12, 0.08, 0.04, 0.28, 0.14, 0.1][i]))
        .collect(),
        bytes: Bytes {
            weights: 11_200_000,
            kv_live: kv,
            kv_committed: kv,
            kv_peak: kv + kv / 10,
            peak_rss: Some(80_000_000),
        },
        finish: Some("length".into()),
        output_hash: Some("beef".into()),
        limits: [
            ("ttft", metric(0.006, "s")),
            ("tpot", metric((0.0011 + 1e-7 * depth) * 2.0 / threads, "s")),
        ]
        .into_iter()
        .collect(),
        surroundings: Surroundings { load_average: Some(0.8), others: Some(0.03), ..Surroundings::default() },
    }
}

fn finding(plan: &Plan) -> Finding {
    let quantity = |value: f64, unit: &str| Quantity {
        value,
        unit: unit.into(),
        low: Some(value * 0.99),
        high: Some(value * 1.01),
        n: Some(40),
    };
    let fit = (plan.name == "output-tokens").then(|| Fit {
        form: Form::Quadratic,
        x: "output".into(),
        y: "e2e".into(),
        y_unit: "s".into(),
        coefficients: vec![0.0105, 0.00166, 1.1e-7],
        range: [8.0, 1024.0],
        residual_deviation: 0.012,
        n: 40,
    });
    Finding {
        name: "line".into(),
        cell: Ordered::default(),
        sentence:
            "Each token costs 1.66 ms and 0.22 µs more with every position; no difference shown beyond that."
                .into(),
        values: [("per_token", quantity(0.00166, "s")), ("at_start", quantity(0.0105, "s"))]
            .into_iter()
            .collect(),
        fit,
    }
}

pub fn environment() -> Environment {
    Environment {
        cpu: Cpu {
            name: Some("Example CPU".into()),
            architecture: "x86_64".into(),
            hardware_threads: Some(4),
            cores: Some(2),
            usable_cores: Some(2),
            sockets: Some(1),
            max_hz: Some(3.0e9),
            governor: Some("performance".into()),
            virtual_machine: true,
            instruction_sets: vec!["avx2".into(), "avx512f".into()],
            caches: Vec::new(),
        },
        memory: MainMemory { total_bytes: Some(8 << 30), ..MainMemory::default() },
        kernel: Some("Linux 6.1".into()),
        engine: Engine {
            version: "0.1.0".into(),
            commit: Some("0123456789ab".into()),
            dirty: Some(false),
            compiler: Some("rustc 1.95.0".into()),
            target: None,
            profile: Some("release".into()),
        },
    }
}

/// As a file.
pub fn jsonl(rows: &[Row]) -> String {
    rows.iter().map(|row| format!("{}\n", serde_json::to_string(row).unwrap())).collect()
}

pub fn recording(rows: &[Row]) -> Recording {
    Recording::parse(jsonl(rows).as_bytes(), "fixture").unwrap()
}
