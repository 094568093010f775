//! Every formula of a report with its numbers put in, and what each switch changes.

use crate::accounting::Accounting;
use crate::error::LimitsError;
use crate::forecast::{Forecast, Rates, total_bytes};
use crate::report::{Capacity, Report, Request, decode_shape, ms, prefill_shape, report};
use crate::switches::{Switch, Switches};
use serde::Serialize;

/// One quantity and how it came about.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// What it is.
    pub quantity: &'static str,
    /// The formula in symbols.
    pub formula: String,
    /// The same with the numbers put in.
    pub with_numbers: String,
    /// The result.
    pub result: f64,
    /// Its unit.
    pub unit: &'static str,
}

/// One headline figure with a switch as it is and turned the other way.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Effect {
    /// What it is.
    pub quantity: &'static str,
    /// As in the report; `None` when there is no such number (memory not known, no turning point).
    pub as_reported: Option<f64>,
    /// With this switch turned the other way.
    pub other_way: Option<f64>,
    /// Unit of both.
    pub unit: &'static str,
}

/// What one switch changes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SwitchEffect {
    /// The switch.
    pub switch: Switch,
    /// Whether it is on in the report.
    pub on: bool,
    /// What on and off mean.
    pub meaning: &'static str,
    /// Headline figures that it moves; empty when it moves none of them here.
    pub effects: Vec<Effect>,
}

/// The explanation of a report.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explain {
    /// Formulas in the order of the report.
    pub formulas: Vec<Explanation>,
    /// All switches.
    pub switches: Vec<SwitchEffect>,
}

/// Explains the report of the same request.
pub fn explain(request: &Request<'_>) -> Result<Explain, LimitsError> {
    let shown = report(request)?;
    let accounting = Accounting::new(request.config, request.formats, request.precision.kv)?;
    let rates = Rates::new(request.hardware, request.precision, request.switches)?;
    let forecast = Forecast::new(&accounting, request.precision, request.switches);
    let sheet =
        Sheet { request, report: &shown, accounting: &accounting, rates: &rates, forecast: &forecast };
    let mut formulas = sheet.sizes();
    formulas.extend(sheet.prefill());
    formulas.extend(sheet.decode());
    let mut switches = Vec::new();
    for switch in Switch::ALL {
        let other = report(&Request { switches: request.switches.toggled(switch), ..*request })?;
        switches.push(SwitchEffect {
            switch,
            on: request.switches.has(switch),
            meaning: switch.meaning(),
            effects: effects(&shown, &other),
        });
    }
    Ok(Explain { formulas, switches })
}

fn effects(shown: &Report, other: &Report) -> Vec<Effect> {
    let tokens = |r: &Report| match r.memory.capacity {
        Capacity::Tokens { tokens } => Some(tokens as f64),
        _ => None,
    };
    let at = |r: &Report| r.decode.positions.last().map(|p| p.latency_ms);
    type Read<'a> = &'a dyn Fn(&Report) -> Option<f64>;
    let headlines: [(&'static str, Read<'_>, &'static str); 7] = [
        ("weights in memory", &|r| Some(r.memory.weight_bytes), "bytes"),
        ("capacity", &tokens, "tokens"),
        ("time to first token", &|r| Some(r.prefill.ttft_ms), "ms"),
        ("turning point (fine)", &|r| r.turning_point.fine, "tokens"),
        ("W", &|r| Some(r.decode.w_tokens_per_ms), "tokens/ms"),
        ("B", &|r| Some(r.decode.b_ms), "ms"),
        ("latency at the last position", &at, "ms"),
    ];
    let moved = headlines.into_iter().map(|(quantity, read, unit)| Effect {
        quantity,
        as_reported: read(shown),
        other_way: read(other),
        unit,
    });
    moved.filter(|e| e.as_reported != e.other_way).collect()
}

/// A number as a reader would write it: whole when it is, otherwise with six digits.
fn num(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        let short = format!("{value:e}");
        let whole = format!("{value:.0}");
        return if short.len() + 3 < whole.len() { short } else { whole };
    }
    let digits = if value.abs() >= 1000.0 { 2 } else { 6 };
    format!("{value:.digits$}")
}

struct Sheet<'a> {
    request: &'a Request<'a>,
    report: &'a Report,
    accounting: &'a Accounting,
    rates: &'a Rates,
    forecast: &'a Forecast,
}

fn line(
    quantity: &'static str,
    formula: impl Into<String>,
    with_numbers: String,
    result: f64,
    unit: &'static str,
) -> Explanation {
    Explanation { quantity, formula: formula.into(), with_numbers, result, unit }
}

impl Sheet<'_> {
    fn switches(&self) -> Switches {
        self.request.switches
    }

    fn sizes(&self) -> Vec<Explanation> {
        let (d, p, r) = (&self.accounting.dims, &self.report.parameters, self.report);
        let mut lines = vec![self.layer_parameters()];
        lines.push(line(
            "parameters of the output head",
            "vocab·hidden",
            format!("{}·{}", d.vocab, d.hidden),
            p.head as f64,
            "parameters",
        ));
        lines.push(self.kv_per_token());
        let memory = &r.memory;
        lines.push(line(
            "weights in memory",
            "Σ tensors rows·cols·bits/8",
            format!("{} parameters at {} bits", p.total, num(memory.weight_bytes * 8.0 / p.total as f64)),
            memory.weight_bytes,
            "bytes",
        ));
        if let (Some(bytes), Capacity::Tokens { tokens }) = (memory.device_bytes, memory.capacity) {
            lines.push(line(
                "capacity",
                "floor((memory − weights − scratch) / KV per token)",
                format!(
                    "floor(({} − {} − {}) / {})",
                    num(bytes),
                    num(memory.weight_bytes),
                    num(memory.scratch_bytes),
                    num(r.kv_bytes_per_token)
                ),
                tokens as f64,
                "tokens",
            ));
        }
        lines
    }

    fn layer_parameters(&self) -> Explanation {
        let d = &self.accounting.dims;
        let mut formula = "layers·(hidden·(q + 2·kv) + q·hidden".to_owned();
        let mut numbers = format!("{}·({}·({} + 2·{}) + {}·{}", d.layers, d.hidden, d.q, d.kv, d.q, d.hidden);
        let parts: u64 = if d.gated { 3 } else { 2 };
        match d.experts {
            Some(e) => {
                formula += " + n·hidden + n·3·hidden·ff";
                numbers += &format!(" + {}·{} + {}·3·{}·{}", e.count, d.hidden, e.count, d.hidden, d.ff);
            }
            None => {
                formula += &format!(" + {parts}·hidden·ff");
                numbers += &format!(" + {parts}·{}·{}", d.hidden, d.ff);
            }
        }
        for (has, symbol, value) in [
            (d.qkv_bias, "q + 2·kv", d.q + 2 * d.kv),
            (d.out_bias, "hidden", d.hidden),
            (
                d.ffn_bias,
                if d.gated { "2·ff + hidden" } else { "ff + hidden" },
                (parts - 1) * d.ff + d.hidden,
            ),
        ] {
            if has {
                formula += &format!(" + {symbol}");
                numbers += &format!(" + {value}");
            }
        }
        let result = self.report.parameters.layers as f64;
        line("parameters of the layers", formula + ")", numbers + ")", result, "parameters")
    }

    fn kv_per_token(&self) -> Explanation {
        let d = &self.accounting.dims;
        let bytes = self.report.kv_bytes_per_token;
        if self.switches().has(Switch::KvWidth) {
            let slot = self.accounting.slot_bytes;
            let numbers = format!("{}·{}·{slot}", d.layers, d.kv_heads);
            line("KV per token", "layers·kv_heads·slot", numbers, bytes, "bytes")
        } else {
            let bits = self.request.precision.nominal_kv_bits;
            let numbers = format!("2·{}·{}·{}·{}/8", d.layers, d.kv_heads, d.head_dim, num(bits));
            line("KV per token", "2·layers·kv_heads·head_dim·a/8", numbers, bytes, "bytes")
        }
    }

    fn prefill(&self) -> Vec<Explanation> {
        let (r, rates) = (&self.report.prefill, self.rates);
        let shape = prefill_shape(&self.report.workload);
        let bytes = total_bytes(&self.forecast.loads(shape));
        let n = shape.rows;
        let pairs = self.forecast.pairs(n, 0.0);
        let (row, head) = self.forecast.row_and_head_flops();
        let pair_formula = if self.switches().has(Switch::CausalAttention) { "n(n+1)/2" } else { "2n−1" };
        let batch = shape.segments;
        let compute = |head_rows: f64| {
            format!(
                "({}·{}·{} + {}·{}) / {} + {}·{}·{} / {}",
                num(batch),
                num(row),
                num(n),
                num(head),
                num(head_rows),
                num(rates.matmul),
                num(batch),
                num(self.forecast.pair_flops()),
                num(pairs),
                num(rates.attention),
            )
        };
        let formula = |head: &str| {
            format!("(batch·row·n + head·{head}) / peak + batch·pair·{pair_formula} / attention peak")
        };
        vec![
            line(
                "prefill, reading",
                "bytes / bandwidth",
                format!("{} / {}", num(bytes), num(rates.bandwidth_of(bytes))),
                r.read_ms,
                "ms",
            ),
            line(
                "prefill, computing, coarse",
                formula("batch·n"),
                compute(n * batch),
                r.compute_coarse_ms,
                "ms",
            ),
            line("prefill, computing, fine", formula("batch"), compute(batch), r.compute_fine_ms, "ms"),
            line(
                "time to first token",
                "max(reading, computing fine)",
                format!("max({}, {})", num(r.read_ms), num(r.compute_fine_ms)),
                r.ttft_ms,
                "ms",
            ),
        ]
        .into_iter()
        .chain(self.turning_point())
        .collect()
    }

    fn turning_point(&self) -> Option<Explanation> {
        let n = self.report.turning_point.fine?;
        let shape = crate::forecast::Shape { rows: n, kv_before: 0.0, segments: 1.0, head_rows: 1.0 };
        let time = self.forecast.time(shape, self.rates);
        let numbers = format!("n = {n:.2}: {} ms = {} ms", num(ms(time.read_s)), num(ms(time.compute_s)));
        Some(line(
            "turning point (fine)",
            "the n at which reading(n) = computing fine(n)",
            numbers,
            n,
            "tokens",
        ))
    }

    fn decode(&self) -> Vec<Explanation> {
        let (decode, rates) = (&self.report.decode, self.rates);
        let batch = self.report.workload.batch as f64;
        let kv = self.report.kv_bytes_per_token;
        let bytes = |position| total_bytes(&self.forecast.loads(decode_shape(position, batch)));
        let bandwidth = |position| rates.bandwidth_of(bytes(position));
        let last = self.report.workload.positions.last().copied().unwrap_or(self.report.workload.context);
        let mut lines = vec![
            line(
                "W",
                "bandwidth / 1000 / (KV per token·batch)",
                format!("{} / 1000 / ({}·{})", num(bandwidth(last)), num(kv), num(batch)),
                decode.w_tokens_per_ms,
                "tokens/ms",
            ),
            line(
                "B",
                "max(bytes at position 1 / bandwidth, its FLOPs / peak)",
                format!("{} / {}", num(bytes(1)), num(bandwidth(1))),
                decode.b_ms,
                "ms",
            ),
        ];
        for at in &decode.positions {
            lines.push(line(
                "latency at a position",
                format!("max(bytes at position {} / bandwidth, its FLOPs / peak)", at.position),
                format!(
                    "max({} / {} = {} ms, {} ms)",
                    num(bytes(at.position)),
                    num(bandwidth(at.position)),
                    num(at.read_ms),
                    num(at.compute_ms)
                ),
                at.latency_ms,
                "ms",
            ));
        }
        lines
    }
}
