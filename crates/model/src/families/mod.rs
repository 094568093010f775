//! The families: one short file each, with the same parts in the same order.
//!
//! (a) `from_json`: keys of a Hugging Face `config.json` → [`ModelConfig`]. Sizes must be there; every other key that is absent takes the
//! default of that family's configuration class in transformers 5.23, which stands beside it.
//! (b) `from_gguf`: GGUF metadata → [`ModelConfig`].
//! (c) `hf_sources`, `gguf_sources`: role → names in either kind of checkpoint.
//!
//! What several families share is in `json`, `gguf` and `names` here.

mod gguf;
mod gpt_neox;
mod json;
mod llama;
mod mixtral;
mod names;
mod olmoe;
mod qwen2;
mod qwen3;

use crate::config::{Family, ModelConfig};
use crate::config_json::ConfigJson;
use crate::error::ModelError;
use crate::gguf_keys::GgufKeys;
use crate::tensor_plan::{PlannedTensor, Role, Source, TensorPlan, roles};
use roofline_weights::gguf::Header;

/// What a family file says.
struct Description {
    family: Family,
    /// `model_type` in config.json.
    model_types: &'static [&'static str],
    /// `general.architecture` in GGUF.
    gguf_architecture: &'static str,
    from_json: fn(&ConfigJson) -> Result<ModelConfig, ModelError>,
    from_gguf: fn(&GgufKeys<'_>) -> Result<ModelConfig, ModelError>,
    hf_sources: fn(&ModelConfig, Role, &[usize]) -> Vec<Source>,
    gguf_sources: fn(&ModelConfig, Role, &[usize]) -> Vec<Source>,
}

const FAMILIES: [&Description; 6] =
    [&llama::LLAMA, &qwen2::QWEN2, &qwen3::QWEN3, &gpt_neox::GPT_NEOX, &olmoe::OLMOE, &mixtral::MIXTRAL];

fn description(family: Family) -> &'static Description {
    match family {
        Family::Llama => &llama::LLAMA,
        Family::Qwen2 => &qwen2::QWEN2,
        Family::Qwen3 => &qwen3::QWEN3,
        Family::GptNeox => &gpt_neox::GPT_NEOX,
        Family::Olmoe => &olmoe::OLMOE,
        Family::Mixtral => &mixtral::MIXTRAL,
    }
}

impl ModelConfig {
    /// Reads and validates a Hugging Face `config.json`; `file` is its name in error messages.
    ///
    /// # Errors
    /// [`ModelError`] naming the file, the key and the value that is missing, wrong or not supported.
    pub fn from_config_json(text: &str, file: &str) -> Result<ModelConfig, ModelError> {
        let json = ConfigJson::parse(text, file)?;
        let model_type = json.text("model_type")?;
        let found = FAMILIES.into_iter().find(|family| family.model_types.contains(&model_type));
        let family = found.ok_or_else(|| ModelError::UnknownArchitecture {
            file: file.to_string(),
            found: model_type.to_string(),
            supported: FAMILIES.map(|family| family.model_types.join(", ")).join(", "),
        })?;
        json::refuse_foreign_options(&json)?;
        let config = (family.from_json)(&json)?;
        config.validate(file)?;
        Ok(config)
    }

    /// Reads and validates the configuration in a GGUF header; `file` is its name in error messages.
    ///
    /// # Errors
    /// [`ModelError`] naming the file, the key and the value that is missing, wrong or not supported.
    pub fn from_gguf(header: &Header, file: &str) -> Result<ModelConfig, ModelError> {
        let keys = GgufKeys::new(header, file)?;
        // Mixtral's converter writes the Llama architecture with experts.
        let with_experts = keys.optional_count("expert_count")?.unwrap_or(0) > 0;
        let fits = |family: &Description| match (family.family, with_experts) {
            (Family::Llama, true) | (Family::Mixtral, false) => false,
            _ => family.gguf_architecture == keys.architecture(),
        };
        let found = FAMILIES.into_iter().find(|family| fits(family));
        let family = found.ok_or_else(|| ModelError::UnknownArchitecture {
            file: file.to_string(),
            found: keys.architecture().to_string(),
            supported: "gptneox, llama, olmoe, qwen2, qwen3".to_string(),
        })?;
        gguf::refuse_foreign_options(&keys)?;
        let config = (family.from_gguf)(&keys)?;
        config.validate(file)?;
        Ok(config)
    }
}

impl TensorPlan {
    /// The plan of a Hugging Face folder. `config` must have been validated.
    pub fn hugging_face(config: &ModelConfig) -> TensorPlan {
        let mut ignored = names::HF_IGNORED.map(String::from).to_vec();
        if config.tied_embeddings {
            // Some savers write the head although it is the embedding table.
            ignored.extend(["lm_head.weight".to_string(), "embed_out.weight".to_string()]);
        }
        plan(config, description(config.family).hf_sources, ignored)
    }

    /// The plan of a GGUF file. `config` must have been validated.
    pub fn gguf(config: &ModelConfig) -> TensorPlan {
        plan(config, description(config.family).gguf_sources, names::GGUF_IGNORED.map(String::from).to_vec())
    }
}

fn plan(
    config: &ModelConfig,
    sources: fn(&ModelConfig, Role, &[usize]) -> Vec<Source>,
    ignored: Vec<String>,
) -> TensorPlan {
    let planned = roles(config).into_iter().map(|(role, shape)| PlannedTensor {
        role,
        sources: sources(config, role, &shape),
        shape,
    });
    TensorPlan { tensors: planned.collect(), ignored }
}
