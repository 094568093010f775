//! Qwen3 (dense): Llama's block with an RMSNorm on every head of q and k, and heads of 128 whatever the hidden size.

use super::{Description, gguf, json, names};
use crate::config::{Activation, Bias, Family, Ffn, ModelConfig, Norm, NormKind, QkNorm, Residual};
use crate::config_json::ConfigJson;
use crate::error::ModelError;
use crate::gguf_keys::GgufKeys;
use crate::tensor_plan::{Role, Source};

pub(super) const QWEN3: Description = Description {
    family: Family::Qwen3,
    model_types: &["qwen3"],
    gguf_architecture: "qwen3",
    from_json,
    from_gguf,
    hf_sources,
    gguf_sources,
};

fn from_json(json: &ConfigJson) -> Result<ModelConfig, ModelError> {
    json::refuse_use_sliding_window(json)?;
    let heads = json::heads(json, Some(32), Some(128))?;
    let attention_bias = json::flag_or(json, "attention_bias", false)?;
    Ok(ModelConfig {
        family: Family::Qwen3,
        hidden_size: json.size("hidden_size")?,
        n_layers: json.size("num_hidden_layers")?,
        n_heads: heads.n_heads,
        n_kv_heads: heads.n_kv_heads,
        head_dim: heads.head_dim,
        vocab_size: json.size("vocab_size")?,
        context_length: json.size("max_position_embeddings")?,
        norm: Norm { kind: NormKind::Rms, eps: json::number_or(json, "rms_norm_eps", 1e-6)? },
        qk_norm: QkNorm::PerHead,
        bias: Bias { qkv: attention_bias, out: attention_bias, ffn: false },
        rope: json::rope(json, 10_000.0, json::Partial::Never, heads.head_dim)?,
        residual: Residual::Sequential,
        ffn: Ffn::Gated {
            intermediate_size: json.size("intermediate_size")?,
            activation: json::activation(json, Activation::Silu)?,
        },
        tied_embeddings: json::flag_or(json, "tie_word_embeddings", false)?,
        clip_qkv: None,
        bos_token_id: json::bos(json, None)?,
        eos_token_ids: json::eos(json, None)?,
    })
}

fn from_gguf(keys: &GgufKeys<'_>) -> Result<ModelConfig, ModelError> {
    let mut config = gguf::base(keys, Family::Qwen3, gguf::rms(keys)?)?;
    config.qk_norm = QkNorm::PerHead;
    Ok(config)
}

fn hf_sources(_: &ModelConfig, role: Role, shape: &[usize]) -> Vec<Source> {
    names::hf(role, shape)
}

fn gguf_sources(_: &ModelConfig, role: Role, shape: &[usize]) -> Vec<Source> {
    names::gguf(role, shape, 0)
}
