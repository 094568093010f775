//! What happened in one generation: the numbers of the summary and of `--json`.

use std::time::Duration;

use roofline_engine::sampling::TokenLogprob;
use roofline_engine::{
    CacheBytes, CacheSpec, FinishReason, Generation, LoadFacts, Meter, Packing, Session, Stages, TokenEvent,
};
use roofline_lab::environment::resident::peak_rss;
use roofline_lab::units::{bytes, grouped, three_digits};
use serde_json::{Value, json};

use crate::output::Table;

/// A finished generation.
pub struct Record {
    pub prompt: Vec<u32>,
    pub events: Vec<TokenEvent>,
    pub text: String,
    pub finish: FinishReason,
    pub stages: Stages,
    pub wall: Duration,
    pub prefill: Meter,
    pub decode: Meter,
    pub cache: CacheBytes,
    pub policy: CacheSpec,
    pub kv_type: String,
    pub load: LoadFacts,
    pub peak_rss: Option<u64>, // bytes, when the generation ended
}

impl Record {
    /// Takes the numbers out of a generation that has ended, `wall` after T₀.
    pub fn of(
        generation: &Generation<'_>,
        prompt: &[u32],
        events: Vec<TokenEvent>,
        text: String,
        wall: Duration,
    ) -> Record {
        let session: &Session = generation.session();
        Record {
            prompt: prompt.to_vec(),
            events,
            text,
            finish: generation.finish().unwrap_or(FinishReason::Cancelled),
            stages: generation.stages(),
            wall,
            prefill: generation.prefill_meter().clone(),
            decode: generation.decode_meter().clone(),
            cache: session.cache_bytes(),
            policy: session.options().cache.clone(),
            kv_type: session.options().kv_format.to_string(),
            load: session.model().facts(),
            peak_rss: peak_rss(),
        }
    }

    /// T₁ − T₀, once there is a token.
    pub fn ttft(&self) -> Option<Duration> {
        self.events.first().map(|event| event.at)
    }

    /// (Tₙ − T₁)/(n − 1), once there are two tokens.
    pub fn tpot(&self) -> Option<Duration> {
        let (first, last) = (self.events.first()?, self.events.last()?);
        let steps = u32::try_from(self.events.len() - 1).ok().filter(|&steps| steps > 0)?;
        Some((last.at - first.at) / steps)
    }

    /// Wall time in no stage: writing the text out, and other programs that had this one's cores.
    pub fn elsewhere(&self) -> Duration {
        let Stages { before, prefill, decode, sampling, text } = self.stages;
        self.wall.saturating_sub(before + prefill + decode + sampling + text)
    }

    /// Prompt tokens per second of forward steps.
    pub fn prefill_rate(&self) -> Option<f64> {
        if self.events.is_empty() && self.finish == FinishReason::Cancelled {
            return None; // perhaps only part of the prompt was read
        }
        rate(self.prompt.len() as f64, self.stages.prefill)
    }

    /// 1 / TPOT.
    pub fn decode_rate(&self) -> Option<f64> {
        self.tpot().and_then(|tpot| rate(1.0, tpot))
    }

    /// Bytes that decode steps moved, per second of decode steps.
    pub fn decode_bandwidth(&self) -> Option<f64> {
        rate(self.decode.total().bytes() as f64, self.stages.decode)
    }

    /// FLOPs of the prefill, per second of it.
    pub fn prefill_flops(&self) -> Option<f64> {
        rate(self.prefill.total().flops as f64, self.stages.prefill)
    }

    /// The table of the summary.
    pub fn table(&self) -> Table {
        let mut table = Table::of_facts();
        let ms = |time: Duration| format!("{} ms", three_digits(1e3 * time.as_secs_f64()));
        let per_second = |rate: Option<f64>, unit: &str| match rate {
            Some(rate) => format!("{} {unit}/s", three_digits(rate)),
            None => "not measured".to_string(),
        };
        table.row([
            "load".to_string(),
            match self.load.packing {
                Packing::AtLoad => format!(
                    "{}, {} of weights; {} of it packing {}",
                    ms(self.load.time),
                    bytes(self.load.weight_bytes),
                    ms(self.load.pack_time),
                    bytes(self.load.packed_bytes)
                ),
                Packing::AtUse => format!(
                    "{}, {} of weights in the file, packed at each use",
                    ms(self.load.time),
                    bytes(self.load.weight_bytes)
                ),
            },
        ]);
        table.row([
            "prompt".to_string(),
            format!(
                "{} tokens, {}, {}",
                grouped(self.prompt.len() as u64),
                per_second(self.prefill_rate(), "tokens"),
                per_second(self.prefill_flops().map(|flops| flops / 1e9), "GFLOP"),
            ),
        ]);
        table.row([
            "decode".to_string(),
            format!(
                "{} tokens, {}, {} moved",
                grouped(self.events.len() as u64),
                per_second(self.decode_rate(), "tokens"),
                per_second(self.decode_bandwidth().map(|rate| rate / 1e9), "GB"),
            ),
        ]);
        let first = self.ttft().map_or("no token came".to_string(), ms);
        let each = self.tpot().map_or(String::new(), |tpot| format!(", then {} each (TPOT)", ms(tpot)));
        table.row(["first token".to_string(), format!("{first} (TTFT){each}")]);
        table.row([
            "stages".to_string(),
            format!(
                "before {}, prefill {}, decode {}, sampling {}, text {}, elsewhere {}; wall {}",
                ms(self.stages.before),
                ms(self.stages.prefill),
                ms(self.stages.decode),
                ms(self.stages.sampling),
                ms(self.stages.text),
                ms(self.elsewhere()),
                ms(self.wall)
            ),
        ]);
        table.row([
            "KV cache".to_string(),
            format!(
                "{} live, {} committed, {} peak, {} metadata",
                bytes(self.cache.live),
                bytes(self.cache.committed),
                bytes(self.cache.peak),
                bytes(self.cache.metadata)
            ),
        ]);
        if self.policy != CacheSpec::Full {
            table.row([
                "policy".to_string(),
                format!("{}; {}", self.policy, self.policy.rollback().describe()),
            ]);
        }
        table.row([
            "peak RSS".to_string(),
            self.peak_rss.map_or("not visible on this system".to_string(), bytes),
        ]);
        table.row(["finished by".to_string(), self.finish_in_words().to_string()]);
        table
    }

    fn finish_in_words(&self) -> &'static str {
        match self.finish {
            FinishReason::Eos => "eos: the model ended the text",
            FinishReason::Stop => "stop: a stop text came",
            FinishReason::Length => "length: the tokens asked for are there",
            FinishReason::ContextFull => "length: the context or the cache is full",
            FinishReason::Cancelled => "cancelled",
        }
    }

    /// The object of `--json`, without what only the command knows.
    pub fn json(&self) -> Value {
        let seconds = |time: Duration| time.as_secs_f64();
        json!({
            "prompt_ids": self.prompt,
            "generated_ids": self.events.iter().map(|event| event.id).collect::<Vec<_>>(),
            "text": self.text,
            "finish_reason": self.finish.name(),
            "finish_detail": self.finish_in_words(),
            "tokens": self.events.iter().map(token_json).collect::<Vec<_>>(),
            "ttft_s": self.ttft().map(seconds),
            "tpot_s": self.tpot().map(seconds),
            "wall_s": seconds(self.wall),
            "prefill_tokens_per_s": self.prefill_rate(),
            "decode_tokens_per_s": self.decode_rate(),
            "decode_bytes_per_s": self.decode_bandwidth(),
            "prefill_flops_per_s": self.prefill_flops(),
            "stages_s": {
                "before": seconds(self.stages.before),
                "prefill": seconds(self.stages.prefill),
                "decode": seconds(self.stages.decode),
                "sampling": seconds(self.stages.sampling),
                "text": seconds(self.stages.text),
                "elsewhere": seconds(self.elsewhere()),
            },
            "load": {
                "seconds": seconds(self.load.time),
                "packing": self.load.packing.name(),
                "pack_seconds": seconds(self.load.pack_time),
                "weight_bytes": self.load.weight_bytes,
                "packed_bytes": self.load.packed_bytes,
                "parameters": self.load.parameters,
            },
            "kv_bytes": {
                "live": self.cache.live,
                "committed": self.cache.committed,
                "peak": self.cache.peak,
                "metadata": self.cache.metadata,
            },
            "cache": self.policy.to_string(),
            "kv_type": self.kv_type,
            "prefill_operators": operators_json(&self.prefill),
            "decode_operators": operators_json(&self.decode),
            "peak_rss_bytes": self.peak_rss,
        })
    }
}

fn token_json(event: &TokenEvent) -> Value {
    let mut token = json!({
        "id": event.id,
        "text": event.text,
        "logprob": event.logprob,
        "at_s": event.at.as_secs_f64(),
    });
    if !event.alternatives.is_empty() {
        let alternative = |top: &TokenLogprob| json!({ "id": top.token, "logprob": top.logprob });
        token["alternatives"] = event.alternatives.iter().map(alternative).collect();
    }
    token
}

/// Bytes, FLOPs and time of every operator that ran.
fn operators_json(meter: &Meter) -> Value {
    let ran = roofline_model::Operator::ALL.into_iter().filter(|&operator| !meter.time(operator).is_zero());
    ran.map(|operator| {
        let cost = meter.cost(operator);
        json!({
            "operator": operator.name(),
            "weight_bytes": cost.weight_bytes,
            "kv_read_bytes": cost.kv_read_bytes,
            "kv_write_bytes": cost.kv_write_bytes,
            "flops": cost.flops,
            "seconds": meter.time(operator).as_secs_f64(),
        })
    })
    .collect()
}

fn rate(amount: f64, time: Duration) -> Option<f64> {
    (amount > 0.0 && !time.is_zero()).then(|| amount / time.as_secs_f64())
}
