//! GGUF metadata of a model, key by key as llama.cpp's converter writes them.

use roofline_limits::Recipe;
use roofline_limits::mix::GgufType;
use roofline_model::config::{Activation, Family, Ffn, ModelConfig, NormKind, Residual, RopeScaling};
use roofline_weights::Format;
use roofline_weights::gguf::{Metadata, Value};

use super::error::ConvertError;

/// Version of the block layouts, which readers check before they believe a quantized tensor.
const QUANTIZATION_VERSION: u32 = 2;

/// Metadata and what a reader of them cannot know.
pub(super) struct Described {
    pub metadata: Metadata,
    pub notes: Vec<String>,
}

/// Everything but the tokenizer. `name` is `general.name`, `file` is what errors call the source.
pub(super) fn describe(config: &ModelConfig, name: &str, file: &str) -> Result<Described, ConvertError> {
    let refuse = |what: &str, why: &str| ConvertError::NotExpressible {
        file: file.to_owned(),
        what: what.to_owned(),
        why: why.to_owned(),
    };
    let mut keys = Keys::new(architecture(config.family), name);
    let mut notes = Vec::new();
    keys.size("vocab_size", config.vocab_size, file)?;
    keys.size("context_length", config.context_length, file)?;
    keys.size("embedding_length", config.hidden_size, file)?;
    keys.size("block_count", config.n_layers, file)?;
    keys.size("feed_forward_length", config.ffn.intermediate_size(), file)?;
    keys.size("attention.head_count", config.n_heads, file)?;
    keys.size("attention.head_count_kv", config.n_kv_heads, file)?;
    keys.size("attention.key_length", config.head_dim, file)?;
    keys.size("attention.value_length", config.head_dim, file)?;
    keys.size("rope.dimension_count", config.rope.rotary_dim, file)?;
    keys.set("rope.freq_base", Value::F32(config.rope.theta as f32));
    match config.norm.kind {
        NormKind::Rms => keys.set("attention.layer_norm_rms_epsilon", Value::F32(config.norm.eps)),
        NormKind::Layer => keys.set("attention.layer_norm_epsilon", Value::F32(config.norm.eps)),
    }
    if let RopeScaling::Linear { factor } = config.rope.scaling {
        keys.set("rope.scaling.type", Value::Str("linear".to_owned()));
        keys.set("rope.scaling.factor", Value::F32(factor as f32));
    }
    if config.family == Family::GptNeox {
        let parallel = config.residual == Residual::Parallel;
        keys.set("use_parallel_residual", Value::Bool(parallel));
    }
    if let Some(clip) = config.clip_qkv {
        keys.set("attention.clamp_kqv", Value::F32(clip));
        notes.push(format!(
            "clip_qkv = {clip} is written as attention.clamp_kqv; llama.cpp does not read it for OLMoE"
        ));
    }
    let activation = match config.ffn {
        Ffn::Gated { activation, .. } | Ffn::Plain { activation, .. } => activation,
        Ffn::Experts { activation, n_experts, n_active, renormalize, .. } => {
            keys.size("expert_count", n_experts, file)?;
            keys.size("expert_used_count", n_active, file)?;
            if config.family == Family::Olmoe && renormalize {
                keys.set("expert_weights_norm", Value::Bool(true));
                notes.push(
                    "norm_topk_prob is written as expert_weights_norm; llama.cpp does not read it for OLMoE"
                        .to_owned(),
                );
            }
            activation
        }
    };
    match (config.family, activation) {
        (Family::GptNeox, Activation::Gelu) => {}
        (Family::GptNeox, Activation::GeluTanh) => notes.push(
            "GGUF does not record GPT-NeoX's activation: readers take gelu, this model says its tanh approximation \
             (0.0005 apart at most)"
                .to_owned(),
        ),
        (Family::GptNeox, _) => return Err(refuse("hidden_act", "readers of gptneox files take gelu")),
        (_, Activation::Silu) => {}
        _ => return Err(refuse("hidden_act", "readers of this architecture take silu")),
    }
    Ok(Described { metadata: keys.metadata, notes })
}

/// `general.architecture`; Mixtral is Llama with experts.
fn architecture(family: Family) -> &'static str {
    match family {
        Family::Llama | Family::Mixtral => "llama",
        Family::Qwen2 => "qwen2",
        Family::Qwen3 => "qwen3",
        Family::GptNeox => "gptneox",
        Family::Olmoe => "olmoe",
    }
}

/// Says what the tensors are stored as.
pub(super) fn set_type(metadata: &mut Metadata, recipe: Recipe) {
    metadata.set("general.file_type", Value::U32(file_type(recipe)));
    metadata.set("general.quantization_version", Value::U32(QUANTIZATION_VERSION));
}

/// llama.cpp's number of a file type (`llama_ftype`).
fn file_type(recipe: Recipe) -> u32 {
    match recipe {
        Recipe::Uniform(Format::F16) => 1,
        Recipe::Uniform(Format::Bf16) => 32,
        Recipe::Uniform(_) => 0,
        Recipe::Gguf(kind) => match kind {
            GgufType::Q4_0 => 2,
            GgufType::Q4_1 => 3,
            GgufType::Q8_0 => 7,
            GgufType::Q5_0 => 8,
            GgufType::Q5_1 => 9,
            GgufType::Q2K => 10,
            GgufType::Q3KS => 11,
            GgufType::Q3KM => 12,
            GgufType::Q3KL => 13,
            GgufType::Q4KS => 14,
            GgufType::Q4KM => 15,
            GgufType::Q5KS => 16,
            GgufType::Q5KM => 17,
            GgufType::Q6K => 18,
        },
    }
}

struct Keys {
    metadata: Metadata,
    architecture: &'static str,
}

impl Keys {
    fn new(architecture: &'static str, name: &str) -> Keys {
        let mut metadata = Metadata::new("the GGUF being written");
        metadata.set("general.architecture", Value::Str(architecture.to_owned()));
        metadata.set("general.type", Value::Str("model".to_owned()));
        metadata.set("general.name", Value::Str(name.to_owned()));
        Keys { metadata, architecture }
    }

    fn set(&mut self, key: &str, value: Value) {
        self.metadata.set(format!("{}.{key}", self.architecture), value);
    }

    fn size(&mut self, key: &str, size: usize, file: &str) -> Result<(), ConvertError> {
        let size = u32::try_from(size).map_err(|_| ConvertError::NotExpressible {
            file: file.to_owned(),
            what: format!("{key} = {size}"),
            why: "the key holds 32 bits".to_owned(),
        })?;
        self.set(key, Value::U32(size));
        Ok(())
    }
}
