//! The definitions of the article that the project started from, and all of its tables.
//!
//! 《大语言模型推理理论极限和实际测试一》 (theoretical limits of LLM inference: one user, Qwen1.5 on an RTX 4090). The definitions
//! here are those that reproduce its printed digits; where they depart from physics, [`crate::switches`] has a name for it.
//! B = 2^30 and M = 2^20 parameters, bandwidth 1008·2^30 bytes/s, compute 82.58·2^40 FLOP/s, memory 24·2^30 bytes; embedding and
//! norms are not counted; a prompt of n tokens moves (2n − 1) tokens of K and V.

use serde::Serialize;

const MEBI: f64 = (1u64 << 20) as f64;
const GIBI: f64 = (1u64 << 30) as f64;
const TEBI: f64 = (1u64 << 40) as f64;

/// Bytes per second of the article's RTX 4090.
pub const BANDWIDTH: f64 = 1008.0 * GIBI;
/// FLOP/s of the article's RTX 4090: the rate of its CUDA cores.
pub const COMPUTE: f64 = 82.58 * TEBI;
/// Bytes of the article's RTX 4090.
pub const MEMORY: f64 = 24.0 * GIBI;

/// One model of the article.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct PaperModel {
    /// Its size, `-mha` where the article leaves GQA out.
    pub name: &'static str,
    /// num_hidden_layers
    pub layers: u64,
    /// hidden_size
    pub hidden: u64,
    /// intermediate_size
    pub intermediate: u64,
    /// vocab_size
    pub vocab: u64,
    /// Query heads per key/value head.
    pub groups: u64,
}

const fn model(
    name: &'static str,
    layers: u64,
    hidden: u64,
    intermediate: u64,
    vocab: u64,
    groups: u64,
) -> PaperModel {
    PaperModel { name, layers, hidden, intermediate, vocab, groups }
}

/// The article's models. It prints 24576 as the intermediate size of 110B without GQA; its results need 49152.
pub const MODELS: [PaperModel; 10] = [
    model("0.5B", 24, 1024, 2816, 151936, 1),
    model("1.8B", 24, 2048, 5504, 151936, 1),
    model("4B", 40, 2560, 6912, 151936, 1),
    model("7B", 32, 4096, 11008, 151936, 1),
    model("14B", 40, 5120, 13696, 152064, 1),
    model("32B-mha", 64, 5120, 27392, 152064, 1),
    model("32B", 64, 5120, 27392, 152064, 5),
    model("72B", 80, 8192, 24576, 152064, 1),
    model("110B-mha", 80, 8192, 49152, 152064, 1),
    model("110B", 80, 8192, 49152, 152064, 8),
];

impl PaperModel {
    /// Lp: q, k and v with bias, the others without.
    pub fn layer_parameters(&self) -> u64 {
        let (h, i) = (self.hidden, self.intermediate);
        self.layers * ((h + 1) * h + 2 * ((h + 1) * h / self.groups) + h * h + 3 * h * i)
    }

    /// Hp: the output head.
    pub fn head_parameters(&self) -> u64 {
        self.hidden * self.vocab
    }

    /// Tp = Lp + Hp.
    pub fn parameters(&self) -> u64 {
        self.layer_parameters() + self.head_parameters()
    }

    /// K and V elements of one token.
    pub fn kv_elements(&self) -> u64 {
        2 * self.layers * (self.hidden / self.groups)
    }

    /// Milliseconds to read weights of `w` bits and K and V of `a` bits for a prompt of `n` tokens.
    pub fn read_ms(&self, n: f64, w: f64, a: f64) -> f64 {
        let kv = self.kv_elements() as f64 * (2.0 * n - 1.0);
        (self.parameters() as f64 * w / 8.0 + kv * a / 8.0) / BANDWIDTH * 1e3
    }

    /// Milliseconds to compute, every token through the head.
    pub fn coarse_ms(&self, n: f64) -> f64 {
        (self.parameters() as f64 * n + self.attention_elements(n)) * 2.0 / COMPUTE * 1e3
    }

    /// Milliseconds to compute, only the last token through the head.
    pub fn fine_ms(&self, n: f64) -> f64 {
        let products = self.layer_parameters() as f64 * n + self.head_parameters() as f64;
        (products + self.attention_elements(n)) * 2.0 / COMPUTE * 1e3
    }

    /// Time to first token: the larger of reading and computing (fine).
    pub fn ttft_ms(&self, n: f64, w: f64, a: f64) -> f64 {
        self.read_ms(n, w, a).max(self.fine_ms(n))
    }

    /// The prompt length at which reading and computing take the same time; both are linear in it.
    pub fn turning_point(&self, w: f64, a: f64, fine: bool) -> f64 {
        let ahead = |n: f64| if fine { self.fine_ms(n) } else { self.coarse_ms(n) } - self.read_ms(n, w, a);
        let (at_0, at_1) = (ahead(0.0), ahead(1.0));
        at_0 / (at_0 - at_1)
    }

    /// Tokens of cache that fit beside the weights; `None` when those do not fit (the article's "oom").
    pub fn capacity(&self, w: f64, a: f64) -> Option<u64> {
        let free = MEMORY - self.parameters() as f64 * w / 8.0;
        (free >= 0.0).then(|| (free / (self.kv_elements() as f64 * a / 8.0)) as u64)
    }

    /// W: tokens of context that make a step 1 ms longer.
    pub fn w_tokens_per_ms(&self, a: f64) -> f64 {
        BANDWIDTH / 1e3 / (self.kv_elements() as f64 * a / 8.0)
    }

    /// B: milliseconds of the first step, one token of K and V included.
    pub fn b_ms(&self, w: f64, a: f64) -> f64 {
        self.read_ms(1.0, w, a)
    }

    /// In compute each KV element counts once per query head that uses it.
    fn attention_elements(&self, n: f64) -> f64 {
        self.kv_elements() as f64 * self.groups as f64 * (2.0 * n - 1.0)
    }
}

/// What a table of the article is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // the titles say it
pub enum Kind {
    Params,
    Kv,
    Cap3,
    Prefill1,
    Prefill1000,
    Turn,
    Prefill20,
    Decode,
    Cap5,
}

impl Kind {
    /// Every kind, in the order of the article.
    pub const ALL: [Kind; 9] = [
        Kind::Params,
        Kind::Kv,
        Kind::Cap3,
        Kind::Prefill1,
        Kind::Prefill1000,
        Kind::Turn,
        Kind::Prefill20,
        Kind::Decode,
        Kind::Cap5,
    ];

    /// Lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Params => "params",
            Kind::Kv => "kv",
            Kind::Cap3 => "cap3",
            Kind::Prefill1 => "prefill1",
            Kind::Prefill1000 => "prefill1000",
            Kind::Turn => "turn",
            Kind::Prefill20 => "prefill20",
            Kind::Decode => "decode",
            Kind::Cap5 => "cap5",
        }
    }

    /// What it shows.
    pub fn title(self) -> &'static str {
        match self {
            Kind::Params => "Parameters",
            Kind::Kv => "KV cache parameters per token",
            Kind::Cap3 => "Tokens of KV cache that fit in 24 GiB",
            Kind::Prefill1 => "Prefill, 1 prompt token",
            Kind::Prefill1000 => "Prefill, 1000 prompt tokens",
            Kind::Turn => "Turning point from bandwidth to compute, in prompt tokens",
            Kind::Prefill20 => "Prefill, 20 prompt tokens beside 1",
            Kind::Decode => "Decode: W (tokens per +1 ms) and B (first step)",
            Kind::Cap5 => "Tokens of KV cache that fit in 24 GiB, five precisions",
        }
    }

    fn columns(self) -> &'static [&'static str] {
        const PREFILL: [&str; 9] = [
            "layers",
            "head",
            "total",
            "read_w16a16",
            "read_w8a16",
            "compute_coarse",
            "compute_fine",
            "ttft_w8a16",
            "ttft_w8a16_n1",
        ];
        match self {
            Kind::Params => &PREFILL[..3],
            Kind::Kv => &["kv"],
            Kind::Cap3 => &["kv", "w16a16", "w8a16", "w4a16"],
            Kind::Cap5 => &["kv", "w16a16", "w8a16", "w4a16", "w6a16", "w4a8"],
            Kind::Prefill1 | Kind::Prefill1000 => &PREFILL[..8],
            Kind::Prefill20 => &PREFILL,
            Kind::Turn => {
                &["w16a16_coarse", "w16a16_fine", "w8a16_coarse", "w8a16_fine", "w4a16_coarse", "w4a16_fine"]
            }
            Kind::Decode => &["w16a16_W", "w16a16_B", "w8a16_W", "w8a16_B", "w4a16_W", "w4a16_B"],
        }
    }

    fn row(self, m: &PaperModel) -> Vec<String> {
        let billions = |n: u64| format!("{:.2}B", n as f64 / GIBI);
        let time = |ms: f64| format!("{ms:.2}ms");
        let kv = format!("{}M", m.kv_elements() as f64 / MEBI);
        let tokens = |w, a| m.capacity(w, a).map_or("oom".to_owned(), |tokens| tokens.to_string());
        let params = [m.layer_parameters(), m.head_parameters(), m.parameters()].map(billions);
        let prefill = |n: f64| {
            let mut row = params.to_vec();
            let times = [m.read_ms(n, 16.0, 16.0), m.read_ms(n, 8.0, 16.0), m.coarse_ms(n), m.fine_ms(n)];
            row.extend(times.into_iter().chain([m.ttft_ms(n, 8.0, 16.0)]).map(time));
            row
        };
        match self {
            Kind::Params => params.to_vec(),
            Kind::Kv => vec![kv],
            Kind::Cap3 => vec![kv, tokens(16.0, 16.0), tokens(8.0, 16.0), tokens(4.0, 16.0)],
            Kind::Cap5 => {
                let mut row = Kind::Cap3.row(m);
                row.extend([tokens(6.0, 16.0), tokens(4.0, 8.0)]);
                row
            }
            Kind::Prefill1 => prefill(1.0),
            Kind::Prefill1000 => prefill(1000.0),
            Kind::Prefill20 => {
                let mut row = prefill(20.0);
                row.push(time(m.ttft_ms(1.0, 8.0, 16.0)));
                row
            }
            Kind::Turn => [16.0, 8.0, 4.0]
                .into_iter()
                .flat_map(|w| [false, true].map(|fine| format!("{:.2}", m.turning_point(w, 16.0, fine))))
                .collect(),
            Kind::Decode => [16.0, 8.0, 4.0]
                .into_iter()
                .flat_map(|w| [format!("{}", m.w_tokens_per_ms(16.0).round()), time(m.b_ms(w, 16.0))])
                .collect(),
        }
    }
}

/// One table: a row of printed cells per model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Table {
    /// What it is about.
    pub kind: Kind,
    /// Column names after the model's.
    pub columns: Vec<&'static str>,
    /// Model and cells.
    pub rows: Vec<(&'static str, Vec<String>)>,
}

/// The article's table of that kind, for all ten models.
pub fn table(kind: Kind) -> Table {
    let rows = MODELS.iter().map(|m| (m.name, kind.row(m))).collect();
    Table { kind, columns: kind.columns().to_vec(), rows }
}
