//! What every word of a report means. T₀ is the call, Tᵢ the moment when token i is there.

const METRICS: &[(&str, &str)] = &[
    ("ttft", "Time to first token: T₁ − T₀. Prefill, sampling and text of the first token."),
    (
        "tpot",
        "Time per output token: (Tₙ − T₁) / (n − 1). The first token is not in it; n counts the end token.",
    ),
    (
        "itl",
        "Inter-token latency: ITLᵢ = Tᵢ − Tᵢ₋₁, for every token from the second; per token, not per chunk of text.",
    ),
    (
        "e2e",
        "End to end: from T₀ until the last token's text was there; the wall time of the run. TTFT + (n − 1) · TPOT, and the text of the last token.",
    ),
    ("generated", "Tokens generated, the end token counted: n."),
    ("prefill", "Time of the forward steps over the prompt."),
    ("prefill_rate", "Tokens of the prompt over the time of the prefill."),
    ("prefill_flops", "FLOPs of the prefill, by the engine's meter, over its time."),
    ("decode_rate", "1 / TPOT: n tokens take n − 1 decode steps, the first comes from the prefill."),
    ("itl_p50", "Median of the ITL of one run."),
    ("itl_p95", "95 % of the ITL of one run are at most this."),
    ("itl_p99", "99 % of the ITL of one run are at most this."),
    (
        "decode_bytes",
        "Bytes of weights and cache that a decode step moved on average, by the engine's meter.",
    ),
    ("decode_bandwidth", "Bytes that the decode steps moved, by the engine's meter, over Tₙ − T₁."),
    ("attention_share", "Time in attention over Tₙ − T₁."),
    ("kv_live", "Bytes of the KV cache in slots that are in use at the end."),
    ("kv_peak", "Most bytes of pages that the KV cache held."),
    ("weights", "Bytes of the weights as they are held in memory."),
    (
        "mbu",
        "Model bandwidth utilization: bytes moved per second over the best that the probe of this machine read. 1 is the limit.",
    ),
    (
        "mfu",
        "Model FLOPs utilization: FLOP per second over the best that the probe of this machine computed. 1 is the limit.",
    ),
    ("perplexity", "exp of the mean negative log-probability of the text's tokens; lower is better."),
    (
        "kl",
        "Kullback–Leibler divergence from the reference's probabilities, token by token over the same text; lower is better.",
    ),
];

const STAGES: &[(&str, &str)] = &[
    ("before", "From the call until the prefill begins: tokenizing, checks."),
    ("prefill", "The prompt through the model, up to the logits of its last token."),
    ("decode", "Forward passes of single tokens."),
    ("sampling", "From logits to a token."),
    ("text", "From tokens to text."),
    ("elsewhere", "Between the stages."),
];

const ALWAYS: &[(&str, &str)] = &[
    (
        "cell",
        "One combination of the axes. Every cell runs once in every round; the order within a round is drawn from the seed.",
    ),
    ("warm-up", "A run that is recorded and enters no figure."),
    (
        "median, quartiles",
        "Order statistics of the counted runs, linear between them (type 7). No run is left out as an outlier.",
    ),
    (
        "95 % interval",
        "Percentile bootstrap of the median, 2,000 resamples from a fixed seed, never narrower than the order statistics that hold the median with 95 %; of five runs it reaches from the smallest to the largest.",
    ),
    (
        "limit",
        "The fastest that bytes moved and FLOPs computed allow on the bandwidth and the peak that the probes of this machine reached. For this machine, not for the data sheet.",
    ),
    (
        "share of the limit",
        "Rates: median over limit. Times: limit over median. Above 100 % something is counted or probed wrong, or weights came from a cache.",
    ),
    (
        "unaccounted",
        "1 − Σ stages / wall. Stages are timed inside one run, never by subtracting runs; beyond ±2 % the run is flagged.",
    ),
    (
        "KV live, committed, peak",
        "Bytes of the KV cache in slots that are in use; in pages that are held; the most that were held. Counted, not estimated.",
    ),
    ("peak RSS", "Most memory of the process that was resident, weights included."),
    (
        "finish",
        "Why the text ended: eos (the model ended it), length (the cap), stop (a stop text), context_full.",
    ),
    (
        "no difference shown",
        "The interval of the difference holds zero, or lies inside the noise that the same thing shows against itself.",
    ),
];

/// Definitions of the metrics and stages that occur, and of what every report uses.
pub(super) fn of(metrics: &[String], stages: &[String]) -> Vec<(String, String)> {
    let known = |list: &[(&str, &str)], name: &str| {
        list.iter().find(|(known, _)| *known == name).map(|(_, text)| text.to_string())
    };
    let mut all = Vec::new();
    for name in ["ttft", "itl", "tpot", "mbu", "mfu"] {
        all.extend(known(METRICS, name).map(|text| (name.to_uppercase(), text)));
    }
    for name in
        metrics.iter().filter(|name| !matches!(name.as_str(), "ttft" | "itl" | "tpot" | "mbu" | "mfu"))
    {
        let text = known(METRICS, name).unwrap_or_else(|| {
            "Named by the program that wrote the rows; not defined in this version.".into()
        });
        all.push((name.clone(), text));
    }
    for name in stages {
        all.extend(known(STAGES, name).map(|text| (format!("stage {name}"), text)));
    }
    all.extend(ALWAYS.iter().map(|(name, text)| (name.to_string(), text.to_string())));
    all
}
