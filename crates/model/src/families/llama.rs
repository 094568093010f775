//! Llama 2 and 3, and Mistral: the block the others vary. RMSNorm, whole-head RoPE, grouped-query attention, gated silu FFN.

use super::{Description, gguf, json, names};
use crate::config::{Activation, Bias, Family, Ffn, ModelConfig, Norm, NormKind, Pairing, QkNorm, Residual};
use crate::config_json::ConfigJson;
use crate::error::ModelError;
use crate::gguf_keys::GgufKeys;
use crate::tensor_plan::{Role, Source};

pub(super) const LLAMA: Description = Description {
    family: Family::Llama,
    model_types: &["llama", "mistral"],
    gguf_architecture: "llama",
    from_json,
    from_gguf,
    hf_sources,
    gguf_sources,
};

fn from_json(json: &ConfigJson) -> Result<ModelConfig, ModelError> {
    let mistral = json.text("model_type")? == "mistral";
    if mistral {
        json::refuse_sliding_window(json, Some(4096))?;
    }
    let heads = json::heads(json, mistral.then_some(8), None)?;
    let attention_bias = json::flag_or(json, "attention_bias", false)?;
    Ok(ModelConfig {
        family: Family::Llama,
        hidden_size: json.size("hidden_size")?,
        n_layers: json.size("num_hidden_layers")?,
        n_heads: heads.n_heads,
        n_kv_heads: heads.n_kv_heads,
        head_dim: heads.head_dim,
        vocab_size: json.size("vocab_size")?,
        context_length: json.size("max_position_embeddings")?,
        norm: Norm { kind: NormKind::Rms, eps: json::number_or(json, "rms_norm_eps", 1e-6)? },
        qk_norm: QkNorm::None,
        bias: Bias { qkv: attention_bias, out: attention_bias, ffn: json::flag_or(json, "mlp_bias", false)? },
        rope: json::rope(json, 10_000.0, json::Partial::Never, heads.head_dim)?,
        residual: Residual::Sequential,
        ffn: Ffn::Gated {
            intermediate_size: json.size("intermediate_size")?,
            activation: json::activation(json, Activation::Silu)?,
        },
        tied_embeddings: json::flag_or(json, "tie_word_embeddings", false)?,
        clip_qkv: None,
        bos_token_id: json::bos(json, Some(1))?,
        eos_token_ids: json::eos(json, Some(2))?,
    })
}

fn from_gguf(keys: &GgufKeys<'_>) -> Result<ModelConfig, ModelError> {
    let mut config = gguf::base(keys, Family::Llama, gguf::rms(keys)?)?;
    config.rope.pairing = Pairing::Adjacent; // the converter permuted the rows of wq and wk
    Ok(config)
}

fn hf_sources(_: &ModelConfig, role: Role, shape: &[usize]) -> Vec<Source> {
    names::hf(role, shape)
}

fn gguf_sources(_: &ModelConfig, role: Role, shape: &[usize]) -> Vec<Source> {
    names::gguf(role, shape, 0)
}
