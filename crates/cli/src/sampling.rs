//! Sampling flags, and where each setting of a run came from.

use clap::Args;
use roofline_engine::ModelFiles;
use roofline_engine::sampling::{Chain, SamplerConfig};
use serde::Serialize;

use crate::failure::Failure;

/// How the next token is drawn. What is not given comes from the model's generation_config.json; a model without one
/// is decoded greedily, as transformers does.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Sampling")]
pub struct Sampling {
    /// The most probable token each time; the same as --temperature 0
    #[arg(long, conflicts_with = "temperature")]
    greedy: bool,
    /// Divides the logits; 0 takes the most probable token
    #[arg(long, short = 't', value_name = "T", allow_negative_numbers = true)]
    temperature: Option<f32>,
    /// Keep the K most probable tokens
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Keep the most probable tokens that together reach P
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    top_p: Option<f32>,
    /// Keep tokens at least P times as probable as the best
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    min_p: Option<f32>,
    /// Keep the tokens nearest to the expected surprise that together reach P
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    typical_p: Option<f32>,
    /// Divide (or multiply) the logits of tokens seen before
    #[arg(long, value_name = "R", allow_negative_numbers = true)]
    repetition_penalty: Option<f32>,
    /// Subtract from the logits of tokens seen before, once each
    #[arg(long, value_name = "A", allow_negative_numbers = true)]
    presence_penalty: Option<f32>,
    /// Subtract from the logits of tokens seen before, once per occurrence
    #[arg(long, value_name = "A", allow_negative_numbers = true)]
    frequency_penalty: Option<f32>,
    /// Tokens the penalties look back on: a number, or `all` [default: as the chain has it]
    #[arg(long, value_name = "N")]
    penalty_window: Option<String>,
    /// Forbid a sequence of N tokens to occur twice
    #[arg(long, value_name = "N")]
    no_repeat_ngram: Option<usize>,
    /// Strength of DRY, which penalises continuing a repetition; 0 is off
    #[arg(long, value_name = "M", allow_negative_numbers = true)]
    dry_multiplier: Option<f32>,
    /// Growth of DRY per repeated token
    #[arg(long, value_name = "B", requires = "dry_multiplier")]
    dry_base: Option<f32>,
    /// Repeated tokens that DRY lets pass
    #[arg(long, value_name = "N", requires = "dry_multiplier")]
    dry_allowed_length: Option<usize>,
    /// Add to the logit of a token, as 198=-inf; may be given again
    #[arg(long, value_name = "ID=BIAS", allow_negative_numbers = true)]
    logit_bias: Vec<String>,
    /// Order of the stages: hf, llamacpp, or names with semicolons between them
    #[arg(long, value_name = "ORDER", default_value_t)]
    chain: Order,
    /// Seed of the draw
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

/// The text of --chain.
#[derive(Debug, Clone)]
struct Order(String);

impl Default for Order {
    fn default() -> Order {
        Order("hf".to_string())
    }
}

impl std::str::FromStr for Order {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Order, Self::Err> {
        Ok(Order(text.to_string()))
    }
}

impl std::fmt::Display for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

/// One setting and where it came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// Name, as `temperature`.
    pub name: String,
    /// Value, as `0.8`.
    pub value: String,
    /// `flag`, `generation_config.json` or `default`.
    pub source: String,
}

/// The sampler's options, and what to say of them.
pub struct Chosen {
    /// What the sampler is built from.
    pub config: SamplerConfig,
    /// Every setting that is on.
    pub settings: Vec<Setting>,
    /// What the model's file asks for and is not done.
    pub notes: Vec<String>,
}

impl Sampling {
    /// Flags over generation_config.json over greedy.
    pub fn choose(&self, files: &ModelFiles) -> Result<Chosen, Failure> {
        let mut chosen = Chosen { config: SamplerConfig::default(), settings: Vec::new(), notes: Vec::new() };
        chosen.config.seed = self.seed;
        chosen.config.chain = self.chain.0.parse::<Chain>().map_err(|error| flag("chain", error))?;
        self.model_defaults(files, &mut chosen)?;
        self.flags(&mut chosen)?;
        if chosen.config.temperature.is_none() {
            chosen.config.temperature = Some(0.0);
            chosen.say("temperature", 0.0, "default");
        }
        chosen.config.validate().map_err(Failure::new)?;
        chosen.config.check_tokens(files.config().vocab_size).map_err(Failure::new)?;
        Ok(chosen)
    }

    /// What generation_config.json says. Without `do_sample` it is greedy whatever the temperature, as in transformers.
    fn model_defaults(&self, files: &ModelFiles, chosen: &mut Chosen) -> Result<(), Failure> {
        let from = files.generation();
        let mut set = |name: &str, value: Option<String>| match value {
            Some(value) => chosen.set(name, &value, "generation_config.json"),
            None => Ok(()),
        };
        set("repetition_penalty", from.repetition_penalty.filter(|&r| r != 1.0).map(|r| r.to_string()))?;
        set("no_repeat_ngram", from.no_repeat_ngram_size.filter(|&n| n > 0).map(|n| n.to_string()))?;
        if from.do_sample == Some(true) {
            set("temperature", Some(from.temperature.unwrap_or(1.0).to_string()))?;
            set("top_k", from.top_k.filter(|&k| k > 0).map(|k| k.to_string()))?;
            set("top_p", from.top_p.filter(|&p| p < 1.0).map(|p| p.to_string()))?;
            set("min_p", from.min_p.filter(|&p| p > 0.0).map(|p| p.to_string()))?;
            set("typical_p", from.typical_p.filter(|&p| p < 1.0).map(|p| p.to_string()))?;
        }
        for (key, value) in &from.not_honoured {
            chosen.notes.push(format!("generation_config.json sets {key} to {value}, which is not done"));
        }
        Ok(())
    }

    fn flags(&self, chosen: &mut Chosen) -> Result<(), Failure> {
        let number = |value: Option<f32>| value.map(|value| value.to_string());
        let count = |value: Option<usize>| value.map(|value| value.to_string());
        let temperature = if self.greedy { Some(0.0) } else { self.temperature };
        let flags = [
            ("temperature", number(temperature)),
            ("top_k", count(self.top_k)),
            ("top_p", number(self.top_p)),
            ("min_p", number(self.min_p)),
            ("typical_p", number(self.typical_p)),
            ("repetition_penalty", number(self.repetition_penalty)),
            ("presence_penalty", number(self.presence_penalty)),
            ("frequency_penalty", number(self.frequency_penalty)),
            ("penalty_window", self.penalty_window.clone()),
            ("no_repeat_ngram", count(self.no_repeat_ngram)),
            ("dry_multiplier", number(self.dry_multiplier)),
            ("dry_base", number(self.dry_base)),
            ("dry_allowed_length", count(self.dry_allowed_length)),
        ];
        for (name, value) in flags {
            if let Some(value) = value {
                chosen.set(name, &value, "flag")?;
            }
        }
        if !self.logit_bias.is_empty() {
            let pairs: Vec<String> = self.logit_bias.iter().map(|pair| pair.replacen('=', ":", 1)).collect();
            chosen.set("logit_bias", &pairs.join("+"), "flag")?;
        }
        Ok(())
    }
}

impl Chosen {
    fn set(&mut self, name: &str, value: &str, source: &str) -> Result<(), Failure> {
        self.config.set(name, value).map_err(|error| match source {
            "flag" => flag(name, error),
            _ => Failure::new(format_args!("{source}: {error}"))
                .hint(format_args!("override it with --{}", dashed(name))),
        })?;
        self.say(name, value, source);
        Ok(())
    }

    /// Writes the setting down; a later source replaces an earlier one.
    fn say(&mut self, name: &str, value: impl ToString, source: &str) {
        self.settings.retain(|setting| setting.name != name);
        self.settings.push(Setting {
            name: name.to_string(),
            value: value.to_string(),
            source: source.to_string(),
        });
    }
}

fn dashed(name: &str) -> String {
    name.replace('_', "-")
}

fn flag(name: &str, error: impl std::fmt::Display) -> Failure {
    Failure::new(format_args!("--{}: {error}", dashed(name)))
}
