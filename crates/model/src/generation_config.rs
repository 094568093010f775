//! What a model's author recommends for sampling: `generation_config.json`. Nothing is filled in: what the file does not say is `None`, so the
//! caller can tell a recommendation from its own default.

use crate::config_json::ConfigJson;
use crate::error::ModelError;
use serde_json::Value;

/// Recommendations of one file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GenerationConfig {
    /// The file they stand in, for the summary that says which value came from where.
    pub file: String,
    /// False means greedy, whatever the other fields say.
    pub do_sample: Option<bool>,
    /// Divisor of the logits, ≥ 0; 0 is greedy.
    pub temperature: Option<f64>,
    /// Most likely tokens kept; 0 keeps all.
    pub top_k: Option<usize>,
    /// Smallest set of tokens of at least this probability, 0..=1.
    pub top_p: Option<f64>,
    /// Tokens of at least this share of the likeliest one's probability, 0..=1.
    pub min_p: Option<f64>,
    /// Locally typical set of this probability, 0..=1.
    pub typical_p: Option<f64>,
    /// Divisor of the positive logits of tokens seen, > 0.
    pub repetition_penalty: Option<f64>,
    /// Length of the runs that may not occur twice; 0 is off.
    pub no_repeat_ngram_size: Option<usize>,
    /// Most tokens to generate.
    pub max_new_tokens: Option<usize>,
    /// Most tokens of prompt and answer together.
    pub max_length: Option<usize>,
    /// Sequence start.
    pub bos_token_id: Option<u32>,
    /// Ends, ascending; empty when the file names none.
    pub eos_token_ids: Vec<u32>,
    /// Keys in the file that would change the output and are not honoured, with their values as JSON.
    pub not_honoured: Vec<(String, String)>,
}

/// Keys that change the output, beside the values that leave it alone.
const FOREIGN: [(&str, &[&str]); 22] = [
    ("num_beams", &["1"]),
    ("num_beam_groups", &["1"]),
    ("penalty_alpha", &["0", "0.0"]),
    ("epsilon_cutoff", &["0", "0.0"]),
    ("eta_cutoff", &["0", "0.0"]),
    ("top_h", &[]),
    ("guidance_scale", &["1", "1.0"]),
    ("encoder_repetition_penalty", &["1", "1.0"]),
    ("encoder_no_repeat_ngram_size", &["0"]),
    ("diversity_penalty", &["0", "0.0"]),
    ("length_penalty", &["1", "1.0"]),
    ("min_length", &["0"]),
    ("min_new_tokens", &["0"]),
    ("bad_words_ids", &["[]"]),
    ("sequence_bias", &["{}", "[]"]),
    ("suppress_tokens", &["[]"]),
    ("begin_suppress_tokens", &["[]"]),
    ("forced_bos_token_id", &[]),
    ("forced_eos_token_id", &[]),
    ("exponential_decay_length_penalty", &[]),
    ("stop_strings", &["[]"]),
    ("watermarking_config", &[]),
];

impl GenerationConfig {
    /// Reads `generation_config.json`; `file` is its name in messages.
    ///
    /// # Errors
    /// [`ModelError`] naming the key of a value of the wrong type or outside its range.
    pub fn from_json(text: &str, file: &str) -> Result<GenerationConfig, ModelError> {
        let json = ConfigJson::parse(text, file)?;
        Ok(GenerationConfig {
            file: file.to_string(),
            do_sample: json.optional_flag("do_sample")?,
            temperature: within(&json, "temperature", "a number of at least 0", |x| x >= 0.0)?,
            top_k: json.optional_count("top_k")?,
            top_p: share(&json, "top_p")?,
            min_p: share(&json, "min_p")?,
            typical_p: share(&json, "typical_p")?,
            repetition_penalty: within(&json, "repetition_penalty", "a number above 0", |x| x > 0.0)?,
            no_repeat_ngram_size: json.optional_count("no_repeat_ngram_size")?,
            max_new_tokens: json.optional_size("max_new_tokens")?,
            max_length: json.optional_size("max_length")?,
            bos_token_id: json.optional_token("bos_token_id")?,
            eos_token_ids: json.optional_tokens("eos_token_id")?.unwrap_or_default(),
            not_honoured: not_honoured(&json),
        })
    }
}

fn within(
    json: &ConfigJson,
    key: &str,
    expected: &str,
    fits: impl Fn(f64) -> bool,
) -> Result<Option<f64>, ModelError> {
    match json.optional_number(key)? {
        Some(x) if !fits(x) => Err(json.bad(key, expected)),
        number => Ok(number),
    }
}

fn share(json: &ConfigJson, key: &str) -> Result<Option<f64>, ModelError> {
    within(json, key, "a number from 0 to 1", |x| (0.0..=1.0).contains(&x))
}

fn not_honoured(json: &ConfigJson) -> Vec<(String, String)> {
    let harmless = |key: &str, value: &Value| {
        FOREIGN.iter().all(|(foreign, usual)| key != *foreign || usual.contains(&value.to_string().as_str()))
    };
    let foreign =
        json.present().filter(|(key, value)| !harmless(key, value) && **value != Value::Bool(false));
    foreign.map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_the_file_says_and_nothing_more() {
        // Qwen2.5-7B-Instruct's file
        let text = r#"{"bos_token_id": 151643, "pad_token_id": 151643, "do_sample": true, "eos_token_id": [151645, 151643],
            "repetition_penalty": 1.05, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "transformers_version": "4.37.0"}"#;
        let config = GenerationConfig::from_json(text, "g.json").unwrap();
        let expected = GenerationConfig {
            file: "g.json".into(),
            do_sample: Some(true),
            temperature: Some(0.7),
            top_k: Some(20),
            top_p: Some(0.8),
            repetition_penalty: Some(1.05),
            bos_token_id: Some(151643),
            eos_token_ids: vec![151643, 151645],
            ..GenerationConfig::default()
        };
        assert_eq!(config, expected);
        let empty = GenerationConfig::from_json("{}", "").unwrap();
        assert_eq!(empty, GenerationConfig::default());
    }

    #[test]
    fn options_that_are_not_honoured_are_listed() {
        let text = r#"{"num_beams": 4, "length_penalty": 1.0, "suppress_tokens": [1], "stop_strings": null, "use_cache": true}"#;
        let config = GenerationConfig::from_json(text, "g.json").unwrap();
        let listed = [("num_beams", "4"), ("suppress_tokens", "[1]")];
        assert_eq!(config.not_honoured, listed.map(|(k, v)| (k.to_string(), v.to_string())));
    }

    #[test]
    fn values_out_of_range_are_named() {
        for (key, value) in [
            ("temperature", "-1"),
            ("top_p", "1.5"),
            ("min_p", "\"0.1\""),
            ("typical_p", "-0.1"),
            ("repetition_penalty", "0"),
            ("top_k", "2.5"),
            ("no_repeat_ngram_size", "-3"),
            ("max_new_tokens", "0"),
            ("do_sample", "1"),
            ("eos_token_id", "[1,null]"),
        ] {
            let error =
                GenerationConfig::from_json(&format!("{{\"{key}\": {value}}}"), "g.json").unwrap_err();
            assert!(error.to_string().starts_with(&format!("g.json: {key} is {value}")), "{error}");
        }
    }
}
