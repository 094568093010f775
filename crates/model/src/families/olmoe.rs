//! OLMoE: experts in place of the FFN, not renormalised, and an RMSNorm over the full width of q and of k.

use super::{Description, gguf, json, names};
use crate::config::{Activation, Bias, Family, Ffn, ModelConfig, Norm, NormKind, QkNorm, Residual};
use crate::config_json::ConfigJson;
use crate::error::ModelError;
use crate::gguf_keys::GgufKeys;
use crate::tensor_plan::{LayerRole, Role, Source};

pub(super) const OLMOE: Description = Description {
    family: Family::Olmoe,
    model_types: &["olmoe"],
    gguf_architecture: "olmoe",
    from_json,
    from_gguf,
    hf_sources,
    gguf_sources,
};

fn from_json(json: &ConfigJson) -> Result<ModelConfig, ModelError> {
    let heads = json::heads(json, None, None)?;
    let attention_bias = json::flag_or(json, "attention_bias", false)?;
    Ok(ModelConfig {
        family: Family::Olmoe,
        hidden_size: json.size("hidden_size")?,
        n_layers: json.size("num_hidden_layers")?,
        n_heads: heads.n_heads,
        n_kv_heads: heads.n_kv_heads,
        head_dim: heads.head_dim,
        vocab_size: json.size("vocab_size")?,
        context_length: json.size("max_position_embeddings")?,
        norm: Norm { kind: NormKind::Rms, eps: json::number_or(json, "rms_norm_eps", 1e-5)? },
        qk_norm: QkNorm::FullWidth,
        bias: Bias { qkv: attention_bias, out: attention_bias, ffn: false },
        rope: json::rope(json, 10_000.0, json::Partial::Never, heads.head_dim)?,
        residual: Residual::Sequential,
        ffn: Ffn::Experts {
            intermediate_size: json.size("intermediate_size")?,
            activation: json::activation(json, Activation::Silu)?,
            n_experts: json.optional_size("num_experts")?.unwrap_or(64),
            n_active: json.optional_size("num_experts_per_tok")?.unwrap_or(8),
            renormalize: json::flag_or(json, "norm_topk_prob", false)?,
        },
        tied_embeddings: json::flag_or(json, "tie_word_embeddings", false)?,
        clip_qkv: json.optional_number("clip_qkv")?.map(|clip| clip as f32),
        bos_token_id: json::bos(json, None)?,
        eos_token_ids: json::eos(json, Some(50279))?,
    })
}

fn from_gguf(keys: &GgufKeys<'_>) -> Result<ModelConfig, ModelError> {
    let mut config = gguf::base(keys, Family::Olmoe, gguf::rms(keys)?)?;
    config.qk_norm = QkNorm::FullWidth;
    config.ffn = gguf::experts(keys, false)?;
    Ok(config)
}

fn hf_sources(config: &ModelConfig, role: Role, shape: &[usize]) -> Vec<Source> {
    let one =
        |layer, name: String| vec![Source::whole(format!("model.layers.{layer}.mlp.{name}.weight"), shape)];
    let (layer, layer_role, mut sources) = match role {
        Role::Layer(layer, LayerRole::Router) => return one(layer, "gate".to_string()),
        Role::Layer(layer, role @ LayerRole::ExpertGate(e)) => {
            (layer, role, one(layer, format!("experts.{e}.gate_proj")))
        }
        Role::Layer(layer, role @ LayerRole::ExpertUp(e)) => {
            (layer, role, one(layer, format!("experts.{e}.up_proj")))
        }
        Role::Layer(layer, role @ LayerRole::ExpertDown(e)) => {
            (layer, role, one(layer, format!("experts.{e}.down_proj")))
        }
        _ => return names::hf(role, shape),
    };
    sources.extend(names::hf_fused_expert(layer, layer_role, shape, config.n_experts()));
    sources
}

fn gguf_sources(config: &ModelConfig, role: Role, shape: &[usize]) -> Vec<Source> {
    names::gguf(role, shape, config.n_experts())
}
