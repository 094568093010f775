//! Mixtral: Llama's block with experts whose router weights are rescaled to sum to one.

use super::{Description, gguf, json, names};
use crate::config::{Activation, Bias, Family, Ffn, ModelConfig, Norm, NormKind, Pairing, QkNorm, Residual};
use crate::config_json::ConfigJson;
use crate::error::ModelError;
use crate::gguf_keys::GgufKeys;
use crate::tensor_plan::{LayerRole, Role, Source};

pub(super) const MIXTRAL: Description = Description {
    family: Family::Mixtral,
    model_types: &["mixtral"],
    gguf_architecture: "llama", // with expert_count above 0
    from_json,
    from_gguf,
    hf_sources,
    gguf_sources,
};

fn from_json(json: &ConfigJson) -> Result<ModelConfig, ModelError> {
    json::refuse_sliding_window(json, None)?;
    let heads = json::heads(json, Some(8), None)?;
    Ok(ModelConfig {
        family: Family::Mixtral,
        hidden_size: json.size("hidden_size")?,
        n_layers: json.size("num_hidden_layers")?,
        n_heads: heads.n_heads,
        n_kv_heads: heads.n_kv_heads,
        head_dim: heads.head_dim,
        vocab_size: json.size("vocab_size")?,
        context_length: json.size("max_position_embeddings")?,
        norm: Norm { kind: NormKind::Rms, eps: json::number_or(json, "rms_norm_eps", 1e-5)? },
        qk_norm: QkNorm::None,
        bias: Bias::default(),
        rope: json::rope(json, 1_000_000.0, json::Partial::Never, heads.head_dim)?,
        residual: Residual::Sequential,
        ffn: Ffn::Experts {
            intermediate_size: json.size("intermediate_size")?,
            activation: json::activation(json, Activation::Silu)?,
            n_experts: json.optional_size("num_local_experts")?.unwrap_or(8),
            n_active: json.optional_size("num_experts_per_tok")?.unwrap_or(2),
            renormalize: true,
        },
        tied_embeddings: json::flag_or(json, "tie_word_embeddings", false)?,
        clip_qkv: None,
        bos_token_id: json::bos(json, Some(1))?,
        eos_token_ids: json::eos(json, Some(2))?,
    })
}

fn from_gguf(keys: &GgufKeys<'_>) -> Result<ModelConfig, ModelError> {
    let mut config = gguf::base(keys, Family::Mixtral, gguf::rms(keys)?)?;
    config.rope.pairing = Pairing::Adjacent; // the converter permuted the rows of wq and wk
    config.ffn = gguf::experts(keys, true)?;
    Ok(config)
}

fn hf_sources(config: &ModelConfig, role: Role, shape: &[usize]) -> Vec<Source> {
    let moe = |layer, name: &str| format!("model.layers.{layer}.block_sparse_moe.{name}.weight");
    let (layer, layer_role, name) = match role {
        Role::Layer(layer, LayerRole::Router) => {
            let fused = format!("model.layers.{layer}.mlp.gate.weight");
            return vec![Source::whole(moe(layer, "gate"), shape), Source::whole(fused, shape)];
        }
        Role::Layer(layer, role @ LayerRole::ExpertGate(e)) => (layer, role, format!("experts.{e}.w1")),
        Role::Layer(layer, role @ LayerRole::ExpertUp(e)) => (layer, role, format!("experts.{e}.w3")),
        Role::Layer(layer, role @ LayerRole::ExpertDown(e)) => (layer, role, format!("experts.{e}.w2")),
        _ => return names::hf(role, shape),
    };
    let mut sources = vec![Source::whole(moe(layer, &name), shape)];
    sources.extend(names::hf_fused_expert(layer, layer_role, shape, config.n_experts()));
    sources
}

fn gguf_sources(config: &ModelConfig, role: Role, shape: &[usize]) -> Vec<Source> {
    names::gguf(role, shape, config.n_experts())
}
