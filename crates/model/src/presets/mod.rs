//! Real geometries that need no download: each is written out as the `config.json` of its repository and read by its family file, so a
//! preset passes the same checks as a file.

mod table;

use crate::config::ModelConfig;
use crate::error::ModelError;

/// What the models of one series share.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Series {
    model_type: &'static str,
    context: usize,
    norm_eps: f64,
    /// Further members of the JSON object.
    rest: &'static str,
}

/// One published model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Preset {
    /// Name to ask for, in either case.
    pub name: &'static str,
    /// Repository on huggingface.co whose `config.json` states the sizes.
    pub repository: &'static str,
    /// Weights as published; `None` where no one publishes a count of just this part.
    pub published: Option<u64>,
    /// What differs from the repository, if anything does.
    pub note: Option<&'static str>,
    series: &'static Series,
    hidden: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    ff: usize,
    vocab: usize,
    tied: bool,
}

impl Preset {
    /// Where the figures come from.
    pub fn source(&self) -> String {
        let link = format!("https://huggingface.co/{}/blob/main/config.json", self.repository);
        match self.note {
            None => link,
            Some(note) => format!("{link} ({note})"),
        }
    }

    /// The configuration in the spelling of transformers before version 5.
    pub fn config_json(&self) -> String {
        let Series { model_type, context, norm_eps, rest } = self.series;
        let eps_key = if *model_type == "gpt_neox" { "layer_norm_eps" } else { "rms_norm_eps" };
        format!(
            r#"{{"model_type": "{model_type}", "hidden_size": {}, "num_hidden_layers": {}, "num_attention_heads": {},
    "num_key_value_heads": {}, "head_dim": {}, "intermediate_size": {}, "vocab_size": {}, "tie_word_embeddings": {},
    "max_position_embeddings": {context}, "{eps_key}": {norm_eps:e}, {rest}}}"#,
            self.hidden,
            self.layers,
            self.heads,
            self.kv_heads,
            self.head_dim,
            self.ff,
            self.vocab,
            self.tied
        )
    }

    /// The configuration.
    ///
    /// # Errors
    /// As [`ModelConfig::from_config_json`]; a test builds every preset.
    pub fn config(&self) -> Result<ModelConfig, ModelError> {
        ModelConfig::from_config_json(&self.config_json(), self.name)
    }
}

/// Every preset, by series and size.
pub fn all() -> &'static [Preset] {
    static ALL: [Preset; table::PRESETS.len()] = table::PRESETS;
    &ALL
}

/// The preset of that name. Case does not matter, nor an organisation in front, nor `_` or a space for `-`.
///
/// # Errors
/// [`ModelError::UnknownPreset`] with the nearest names.
pub fn find(name: &str) -> Result<&'static Preset, ModelError> {
    let wanted = normalised(name);
    all().iter().find(|preset| normalised(preset.name) == wanted).ok_or_else(|| ModelError::UnknownPreset {
        name: name.chars().take(60).collect(),
        nearest: nearest(&wanted).join(", "),
    })
}

fn normalised(name: &str) -> String {
    let short = name.trim().rsplit('/').next().unwrap_or_default();
    let fold = |c: char| if matches!(c, '_' | ' ') { '-' } else { c.to_ascii_lowercase() };
    short.chars().take(60).map(fold).collect()
}

/// The four names with the fewest edits to `wanted`.
fn nearest(wanted: &str) -> Vec<&'static str> {
    let mut names: Vec<(usize, &'static str)> =
        all().iter().map(|preset| (edits(wanted, &normalised(preset.name)), preset.name)).collect();
    names.sort();
    names.into_iter().take(4).map(|(_, name)| name).collect()
}

/// Levenshtein distance: insertions, deletions and replacements that turn one text into the other.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect(); // distances from the part of `a` read so far
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TensorPlan;
    use crate::config::{Family, RopeScaling};

    #[test]
    fn every_preset_has_the_published_number_of_weights() {
        for preset in all() {
            let config = preset.config().unwrap_or_else(|error| panic!("{}: {error}", preset.name));
            if let Some(published) = preset.published {
                assert_eq!(config.parameters().total(), published, "{}", preset.name);
            }
            assert!(preset.published.is_some() || preset.note.is_some(), "{}", preset.name);
        }
    }

    #[test]
    fn plans_of_presets_sum_to_their_parameters() {
        for name in
            ["Qwen2.5-7B", "Qwen3-32B", "Llama-3.1-405B", "Pythia-12B", "OLMoE-1B-7B", "Mixtral-8x22B"]
        {
            let config = find(name).unwrap().config().unwrap();
            assert_eq!(TensorPlan::hugging_face(&config).weights(), config.parameters().total(), "{name}");
        }
    }

    #[test]
    fn active_weights_are_those_of_the_papers() {
        // OLMoE: 1.3B active of 6.9B; Mixtral: 12.9B of 46.7B, and 39B of 141B
        for (name, billions) in [("OLMoE-1B-7B", 1.3), ("Mixtral-8x7B", 12.9), ("Mixtral-8x22B", 39.2)] {
            let active = find(name).unwrap().config().unwrap().active_parameters() as f64 / 1e9;
            assert!((active - billions).abs() < 0.05, "{name}: {active}");
        }
        let dense = find("qwen3-4b").unwrap().config().unwrap();
        assert_eq!(dense.active_parameters(), dense.parameters().total());
    }

    #[test]
    fn geometry_of_document_003() {
        // lines 511-522 of the document; n_groups = heads / kv heads
        let rows = [
            ("0.5B", 1024, 24, 2816, 1),
            ("7B", 4096, 32, 11008, 1),
            ("32B", 5120, 64, 27392, 5),
            ("110B", 8192, 80, 49152, 8),
        ];
        for (size, hidden, layers, ff, groups) in rows {
            let config = find(&format!("Qwen1.5-{size}")).unwrap().config().unwrap();
            assert_eq!((config.hidden_size, config.n_layers), (hidden, layers));
            assert_eq!((config.ffn.intermediate_size(), config.group_size()), (ff, groups));
        }
        assert_eq!(find("qwen1.5-110b-nogqa").unwrap().config().unwrap().group_size(), 1);
    }

    #[test]
    fn names_are_found_in_either_case_and_misses_name_neighbours() {
        for name in ["llama-3.2-1b", "LLAMA-3.2-1B", "meta-llama/Llama-3.2-1B", "llama_3.2 1b"] {
            let preset = find(name).unwrap();
            assert_eq!(preset.name, "Llama-3.2-1B");
            let config = preset.config().unwrap();
            assert_eq!((config.family, config.tied_embeddings, config.head_dim), (Family::Llama, true, 64));
            assert!(matches!(config.rope.scaling, RopeScaling::Llama3 { factor: 32.0, .. }));
        }
        let error = find("qwen2.5-8b").unwrap_err().to_string();
        assert!(error.contains("\"qwen2.5-8b\"") && error.contains("Qwen2.5-7B"), "{error}");
        assert!(find("").is_err() && find(&"x".repeat(100_000)).is_err());
    }

    #[test]
    fn names_are_unique() {
        for (i, preset) in all().iter().enumerate() {
            assert!(all()[..i].iter().all(|other| normalised(other.name) != normalised(preset.name)));
            assert!(preset.source().starts_with("https://huggingface.co/"));
        }
    }
}
