//! GPT-NeoX and Pythia: LayerNorm, biases everywhere, a plain gelu FFN, RoPE on the leading quarter of each head, both branches
//! fed from the same residual unless the file says otherwise, and q, k, v fused in one tensor.

use super::{Description, gguf, json, names};
use crate::config::{Activation, Bias, Family, Ffn, ModelConfig, Norm, NormKind, QkNorm, Residual};
use crate::config_json::ConfigJson;
use crate::error::ModelError;
use crate::gguf_keys::GgufKeys;
use crate::tensor_plan::{LayerRole, Role, Rows, Source};

pub(super) const GPT_NEOX: Description = Description {
    family: Family::GptNeox,
    model_types: &["gpt_neox"],
    gguf_architecture: "gptneox",
    from_json,
    from_gguf,
    hf_sources,
    gguf_sources,
};

fn residual(parallel: bool) -> Residual {
    if parallel { Residual::Parallel } else { Residual::Sequential }
}

fn from_json(json: &ConfigJson) -> Result<ModelConfig, ModelError> {
    let heads = json::heads(json, None, None)?;
    let attention_bias = json::flag_or(json, "attention_bias", true)?;
    Ok(ModelConfig {
        family: Family::GptNeox,
        hidden_size: json.size("hidden_size")?,
        n_layers: json.size("num_hidden_layers")?,
        n_heads: heads.n_heads,
        n_kv_heads: heads.n_heads,
        head_dim: heads.head_dim,
        vocab_size: json.size("vocab_size")?,
        context_length: json.size("max_position_embeddings")?,
        norm: Norm { kind: NormKind::Layer, eps: json::number_or(json, "layer_norm_eps", 1e-5)? },
        qk_norm: QkNorm::None,
        bias: Bias { qkv: attention_bias, out: attention_bias, ffn: true },
        rope: json::rope(json, 10_000.0, json::Partial::Fraction(0.25), heads.head_dim)?,
        residual: residual(json::flag_or(json, "use_parallel_residual", true)?),
        ffn: Ffn::Plain {
            intermediate_size: json.size("intermediate_size")?,
            activation: json::activation(json, Activation::Gelu)?,
        },
        tied_embeddings: json::flag_or(json, "tie_word_embeddings", false)?,
        clip_qkv: None,
        bos_token_id: json::bos(json, Some(0))?,
        eos_token_ids: json::eos(json, Some(2))?,
    })
}

fn from_gguf(keys: &GgufKeys<'_>) -> Result<ModelConfig, ModelError> {
    let eps = keys.number("attention.layer_norm_epsilon")? as f32;
    let mut config = gguf::base(keys, Family::GptNeox, Norm { kind: NormKind::Layer, eps })?;
    config.bias.qkv = keys.has_tensor("blk.0.attn_qkv.bias");
    config.residual = residual(keys.optional_flag("use_parallel_residual")?.unwrap_or(true));
    // GGUF does not record the activation; Pythia's and GPT-NeoX-20B's own files say "gelu" and "gelu_fast", 0.0005 apart at most.
    let intermediate_size = keys.size("feed_forward_length")?;
    config.ffn = Ffn::Plain { intermediate_size, activation: Activation::Gelu };
    Ok(config)
}

fn hf_sources(config: &ModelConfig, role: Role, shape: &[usize]) -> Vec<Source> {
    let (layer, role) = match role {
        Role::TokenEmbedding => return vec![Source::whole("gpt_neox.embed_in.weight", shape)],
        Role::FinalNorm => return vec![Source::whole("gpt_neox.final_layer_norm.weight", shape)],
        Role::FinalNormBias => return vec![Source::whole("gpt_neox.final_layer_norm.bias", shape)],
        Role::OutputHead => return vec![Source::whole("embed_out.weight", shape)],
        Role::RopeFactors => return Vec::new(),
        Role::Layer(layer, role) => (layer, role),
    };
    if let Some((part, suffix)) = fused_part(role) {
        let name = format!("gpt_neox.layers.{layer}.attention.query_key_value.{suffix}");
        // rows are (head, one of q k v, head_dim)
        let run = config.head_dim;
        let rows = Rows::Runs { start: part * run, run, stride: 3 * run, count: config.n_heads };
        return vec![Source { name, shape: fused_shape(shape), rows }];
    }
    let name = match role {
        LayerRole::AttentionNorm => "input_layernorm.weight",
        LayerRole::AttentionNormBias => "input_layernorm.bias",
        LayerRole::Wo => "attention.dense.weight",
        LayerRole::Bo => "attention.dense.bias",
        LayerRole::FfnNorm => "post_attention_layernorm.weight",
        LayerRole::FfnNormBias => "post_attention_layernorm.bias",
        LayerRole::WUp => "mlp.dense_h_to_4h.weight",
        LayerRole::BUp => "mlp.dense_h_to_4h.bias",
        LayerRole::WDown => "mlp.dense_4h_to_h.weight",
        LayerRole::BDown => "mlp.dense_4h_to_h.bias",
        _ => return Vec::new(),
    };
    vec![Source::whole(format!("gpt_neox.layers.{layer}.{name}"), shape)]
}

fn gguf_sources(config: &ModelConfig, role: Role, shape: &[usize]) -> Vec<Source> {
    if let Role::Layer(layer, layer_role) = role
        && let Some((part, suffix)) = fused_part(layer_role)
    {
        let name = format!("blk.{layer}.attn_qkv.{suffix}");
        // the converter sorted the rows: all of q, all of k, all of v
        let rows = Rows::range(part * config.q_dim(), config.q_dim());
        return vec![Source { name, shape: fused_shape(shape), rows }];
    }
    names::gguf(role, shape, 0)
}

/// Which third of the fused tensor a role is.
fn fused_part(role: LayerRole) -> Option<(usize, &'static str)> {
    Some(match role {
        LayerRole::Wq => (0, "weight"),
        LayerRole::Wk => (1, "weight"),
        LayerRole::Wv => (2, "weight"),
        LayerRole::Bq => (0, "bias"),
        LayerRole::Bk => (1, "bias"),
        LayerRole::Bv => (2, "bias"),
        _ => return None,
    })
}

/// Three of `shape` stacked.
fn fused_shape(shape: &[usize]) -> Vec<usize> {
    shape.iter().enumerate().map(|(i, &n)| if i == 0 { 3 * n } else { n }).collect()
}
