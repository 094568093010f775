//! A report as a list of named figures with units: what the tables and the CSV are made of.

use roofline_lab::units::{bytes, grouped, si, three_digits};
use roofline_limits::Report;
use roofline_limits::report::{Bound, Capacity};

/// One figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Fact {
    /// Heading it stands under.
    pub group: &'static str,
    /// What it is.
    pub name: String,
    pub value: Value,
}

/// A figure with its unit, or why there is none.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Parameters(u64),
    Bytes(f64),
    Tokens(f64),
    Milliseconds(f64),
    TokensPerMillisecond(f64),
    TokensPerSecond(f64),
    Bits(f64),
    Text(String),
}

impl Value {
    /// For people.
    pub fn text(&self) -> String {
        match self {
            Value::Parameters(n) => si(*n as f64, "").trim_end().to_string(),
            Value::Bytes(n) => bytes(n.round() as u64),
            Value::Tokens(n) if *n >= 1000.0 => grouped(n.round() as u64),
            Value::Tokens(n) => three_digits(*n),
            Value::Milliseconds(ms) => si(ms / 1e3, "s"),
            Value::TokensPerMillisecond(w) if *w >= 1000.0 => format!("{} tok/ms", grouped(w.round() as u64)),
            Value::TokensPerMillisecond(w) => format!("{} tok/ms", three_digits(*w)),
            Value::TokensPerSecond(t) if *t >= 1000.0 => format!("{} tok/s", grouped(t.round() as u64)),
            Value::TokensPerSecond(t) => format!("{} tok/s", three_digits(*t)),
            Value::Bits(bits) => format!("{bits:.3} bits"),
            Value::Text(text) => text.clone(),
        }
    }

    /// For programs: the exact number and its unit.
    pub fn raw(&self) -> (String, &'static str) {
        match self {
            Value::Parameters(n) => (n.to_string(), "parameters"),
            Value::Bytes(n) => (n.to_string(), "B"),
            Value::Tokens(n) => (n.to_string(), "tokens"),
            Value::Milliseconds(ms) => (ms.to_string(), "ms"),
            Value::TokensPerMillisecond(w) => (w.to_string(), "tokens/ms"),
            Value::TokensPerSecond(t) => (t.to_string(), "tokens/s"),
            Value::Bits(bits) => (bits.to_string(), "bits"),
            Value::Text(text) => (text.clone(), ""),
        }
    }
}

/// All figures of a report but the operators, in the order they are shown.
pub fn facts(report: &Report) -> Vec<Fact> {
    [parameters(report), memory(report), prefill(report), decode(report)].concat()
}

fn fact(group: &'static str, name: impl Into<String>, value: Value) -> Fact {
    Fact { group, name: name.into(), value }
}

fn parameters(report: &Report) -> Vec<Fact> {
    let p = &report.parameters;
    let group = "parameters";
    let mut facts = vec![
        fact(group, "layers", Value::Parameters(p.layers)),
        fact(group, "output head", Value::Parameters(p.head)),
        fact(group, "embedding", Value::Parameters(p.embedding)),
        fact(group, "norms", Value::Parameters(p.norms)),
        fact(group, "total", Value::Parameters(p.total)),
    ];
    if p.layers_active != p.layers {
        facts.push(fact(group, "active in layers", Value::Parameters(p.layers_active)));
    }
    facts.push(fact(group, "active per token", Value::Parameters(p.active)));
    facts
}

fn memory(report: &Report) -> Vec<Fact> {
    let m = &report.memory;
    let group = "memory";
    let workload = &report.workload;
    let capacity = match m.capacity {
        Capacity::Tokens { tokens } => Value::Tokens(tokens as f64),
        Capacity::DoesNotFit { missing_bytes } => {
            Value::Text(format!("does not fit: {} lacking", bytes(missing_bytes.ceil() as u64)))
        }
        Capacity::MemoryNotKnown => Value::Text("device's memory not known".to_string()),
    };
    let device = m.device_bytes.map_or(Value::Text("not known".to_string()), Value::Bytes);
    let sequences = if workload.batch == 1 {
        String::new()
    } else {
        format!(" × {} sequences", grouped(workload.batch))
    };
    vec![
        fact(group, "stored bits per weight", Value::Bits(report.bits_per_weight)),
        fact(group, "weights", Value::Bytes(m.weight_bytes)),
        fact(group, "KV per token", Value::Bytes(report.kv_bytes_per_token)),
        fact(
            group,
            format!("KV of {} tokens{sequences}", grouped(workload.context)),
            Value::Bytes(m.kv_bytes),
        ),
        fact(group, "activations and logits", Value::Bytes(m.scratch_bytes)),
        fact(group, "in all", Value::Bytes(m.total_bytes)),
        fact(group, "of the device", device),
        fact(group, "capacity in tokens", capacity),
    ]
}

fn prefill(report: &Report) -> Vec<Fact> {
    let (p, t) = (&report.prefill, &report.turning_point);
    let group = "prefill";
    let turning = |at: Option<f64>| {
        at.map_or(Value::Text("none: reading is slower at any length".into()), Value::Tokens)
    };
    vec![
        fact(group, "reading", Value::Milliseconds(p.read_ms)),
        fact(
            group,
            "computing, every row through the head (coarse)",
            Value::Milliseconds(p.compute_coarse_ms),
        ),
        fact(group, "computing, last row through the head (fine)", Value::Milliseconds(p.compute_fine_ms)),
        fact(group, format!("limit of TTFT, {} tokens", grouped(p.prompt)), Value::Milliseconds(p.ttft_ms)),
        fact(group, "limit of TTFT, operator by operator", Value::Milliseconds(p.ttft_by_operator_ms)),
        fact(group, "bound by", bound(p.bound)),
        fact(group, "limit of prompt speed", Value::TokensPerSecond(p.tokens_per_s)),
        fact(group, "turning point, coarse", turning(t.coarse)),
        fact(group, "turning point, fine", turning(t.fine)),
        fact(group, "turning point of a chunk without head", turning(t.headless)),
    ]
}

fn decode(report: &Report) -> Vec<Fact> {
    let d = &report.decode;
    let group = "decode";
    let mut facts = vec![
        fact(group, "W", Value::TokensPerMillisecond(d.w_tokens_per_ms)),
        fact(group, "B", Value::Milliseconds(d.b_ms)),
    ];
    for at in &d.positions {
        let position = grouped(at.position);
        facts.push(fact(
            group,
            format!("limit of latency at {position}"),
            Value::Milliseconds(at.latency_ms),
        ));
        let by_operator = Value::Milliseconds(at.latency_by_operator_ms);
        facts.push(fact(group, format!("operator by operator at {position}"), by_operator));
        facts.push(fact(
            group,
            format!("limit of speed at {position}"),
            Value::TokensPerSecond(at.tokens_per_s),
        ));
        facts.push(fact(group, format!("bound at {position} by"), bound(at.bound)));
    }
    facts
}

/// What takes the time.
pub fn bound(bound: Bound) -> Value {
    Value::Text(bound_text(bound).to_string())
}

pub fn bound_text(bound: Bound) -> &'static str {
    match bound {
        Bound::Bandwidth => "bandwidth",
        Bound::Compute => "compute",
        Bound::Nothing => "nothing",
    }
}
