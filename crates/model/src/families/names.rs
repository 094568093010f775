//! Tensor names that families share. A role that a scheme has no name for gives no source, which the plan reports as missing.

use crate::tensor_plan::{LayerRole, Role, Rows, Source};

/// Buffers that old Hugging Face savers wrote beside the weights.
pub(super) const HF_IGNORED: [&str; 3] =
    [".rotary_emb.inv_freq", ".attention.bias", ".attention.masked_bias"];

/// Constants that converters may add.
pub(super) const GGUF_IGNORED: [&str; 1] = [".attn_rot_embd.weight"];

/// Names of Llama and the families that kept them. Experts have names of their own in each family.
pub(super) fn hf(role: Role, shape: &[usize]) -> Vec<Source> {
    let name = match role {
        Role::TokenEmbedding => "model.embed_tokens.weight".to_string(),
        Role::FinalNorm => "model.norm.weight".to_string(),
        Role::OutputHead => "lm_head.weight".to_string(),
        Role::FinalNormBias | Role::RopeFactors => return Vec::new(),
        Role::Layer(layer, role) => match hf_layer(role) {
            Some(name) => format!("model.layers.{layer}.{name}"),
            None => return Vec::new(),
        },
    };
    vec![Source::whole(name, shape)]
}

fn hf_layer(role: LayerRole) -> Option<&'static str> {
    Some(match role {
        LayerRole::AttentionNorm => "input_layernorm.weight",
        LayerRole::Wq => "self_attn.q_proj.weight",
        LayerRole::Wk => "self_attn.k_proj.weight",
        LayerRole::Wv => "self_attn.v_proj.weight",
        LayerRole::Bq => "self_attn.q_proj.bias",
        LayerRole::Bk => "self_attn.k_proj.bias",
        LayerRole::Bv => "self_attn.v_proj.bias",
        LayerRole::QNorm => "self_attn.q_norm.weight",
        LayerRole::KNorm => "self_attn.k_norm.weight",
        LayerRole::Wo => "self_attn.o_proj.weight",
        LayerRole::Bo => "self_attn.o_proj.bias",
        LayerRole::FfnNorm => "post_attention_layernorm.weight",
        LayerRole::WGate => "mlp.gate_proj.weight",
        LayerRole::WUp => "mlp.up_proj.weight",
        LayerRole::WDown => "mlp.down_proj.weight",
        LayerRole::BGate => "mlp.gate_proj.bias",
        LayerRole::BUp => "mlp.up_proj.bias",
        LayerRole::BDown => "mlp.down_proj.bias",
        _ => return None,
    })
}

/// Where an expert's matrix lies when transformers 5 keeps all experts of a block in two tensors, gate rows before up rows:
/// `gate_up_proj` (n_experts, 2·ff, hidden) and `down_proj` (n_experts, hidden, ff).
pub(super) fn hf_fused_expert(
    layer: usize,
    role: LayerRole,
    shape: &[usize],
    n_experts: usize,
) -> Vec<Source> {
    let &[rows, cols] = shape else { return Vec::new() };
    let (name, height, start) = match role {
        LayerRole::ExpertGate(expert) => ("gate_up_proj", 2 * rows, expert * 2 * rows),
        LayerRole::ExpertUp(expert) => ("gate_up_proj", 2 * rows, expert * 2 * rows + rows),
        LayerRole::ExpertDown(expert) => ("down_proj", rows, expert * rows),
        _ => return Vec::new(),
    };
    let name = format!("model.layers.{layer}.mlp.experts.{name}");
    vec![Source { name, shape: vec![n_experts, height, cols], rows: Rows::range(start, rows) }]
}

/// GGUF names, the same in every architecture. Experts are stacked (n_experts, rows, cols); Mixtral files of 2023 hold one
/// tensor per expert.
pub(super) fn gguf(role: Role, shape: &[usize], n_experts: usize) -> Vec<Source> {
    let (layer, role) = match role {
        Role::TokenEmbedding => return vec![Source::whole("token_embd.weight", shape)],
        Role::FinalNorm => return vec![Source::whole("output_norm.weight", shape)],
        Role::FinalNormBias => return vec![Source::whole("output_norm.bias", shape)],
        Role::OutputHead => return vec![Source::whole("output.weight", shape)],
        Role::RopeFactors => return vec![Source::whole("rope_freqs.weight", shape)],
        Role::Layer(layer, role) => (layer, role),
    };
    if let Some(name) = gguf_layer(role) {
        return vec![Source::whole(format!("blk.{layer}.{name}"), shape)];
    }
    let (name, expert) = match role {
        LayerRole::ExpertGate(expert) => ("ffn_gate", expert),
        LayerRole::ExpertUp(expert) => ("ffn_up", expert),
        LayerRole::ExpertDown(expert) => ("ffn_down", expert),
        _ => return Vec::new(),
    };
    let &[rows, cols] = shape else { return Vec::new() };
    let stacked = Source {
        name: format!("blk.{layer}.{name}_exps.weight"),
        shape: vec![n_experts, rows, cols],
        rows: Rows::range(expert * rows, rows),
    };
    vec![stacked, Source::whole(format!("blk.{layer}.{name}.{expert}.weight"), shape)]
}

fn gguf_layer(role: LayerRole) -> Option<&'static str> {
    Some(match role {
        LayerRole::AttentionNorm => "attn_norm.weight",
        LayerRole::AttentionNormBias => "attn_norm.bias",
        LayerRole::Wq => "attn_q.weight",
        LayerRole::Wk => "attn_k.weight",
        LayerRole::Wv => "attn_v.weight",
        LayerRole::Bq => "attn_q.bias",
        LayerRole::Bk => "attn_k.bias",
        LayerRole::Bv => "attn_v.bias",
        LayerRole::QNorm => "attn_q_norm.weight",
        LayerRole::KNorm => "attn_k_norm.weight",
        LayerRole::Wo => "attn_output.weight",
        LayerRole::Bo => "attn_output.bias",
        LayerRole::FfnNorm => "ffn_norm.weight",
        LayerRole::FfnNormBias => "ffn_norm.bias",
        LayerRole::Router => "ffn_gate_inp.weight",
        LayerRole::WGate => "ffn_gate.weight",
        LayerRole::WUp => "ffn_up.weight",
        LayerRole::WDown => "ffn_down.weight",
        LayerRole::BGate => "ffn_gate.bias",
        LayerRole::BUp => "ffn_up.bias",
        LayerRole::BDown => "ffn_down.bias",
        LayerRole::ExpertGate(_) | LayerRole::ExpertUp(_) | LayerRole::ExpertDown(_) => return None,
    })
}
