//! Parts of GGUF metadata that families share.

use crate::config::{
    Activation, Bias, Family, Ffn, ModelConfig, Norm, NormKind, Pairing, QkNorm, Residual, Rope, RopeScaling,
};
use crate::error::ModelError;
use crate::gguf_keys::GgufKeys;
use roofline_weights::gguf::Value;

/// The configuration that most architectures share: RMSNorm, gated silu FFN, sequential residual, biases where block 0 has them.
/// A family file changes what it does otherwise.
pub(super) fn base(keys: &GgufKeys<'_>, family: Family, norm: Norm) -> Result<ModelConfig, ModelError> {
    let n_heads = keys.size("attention.head_count")?;
    let head_dim = head_dim(keys, n_heads)?;
    Ok(ModelConfig {
        family,
        hidden_size: keys.size("embedding_length")?,
        n_layers: keys.size("block_count")?,
        n_heads,
        n_kv_heads: keys.optional_size("attention.head_count_kv")?.unwrap_or(n_heads),
        head_dim,
        vocab_size: vocab_size(keys)?,
        context_length: keys.size("context_length")?,
        norm,
        qk_norm: QkNorm::None,
        bias: Bias {
            qkv: keys.has_tensor("blk.0.attn_q.bias"),
            out: keys.has_tensor("blk.0.attn_output.bias"),
            ffn: keys.has_tensor("blk.0.ffn_down.bias"),
        },
        rope: rope(keys, head_dim)?,
        residual: Residual::Sequential,
        ffn: Ffn::Gated {
            intermediate_size: keys.size("feed_forward_length")?,
            activation: Activation::Silu,
        },
        tied_embeddings: !keys.has_tensor("output.weight"),
        clip_qkv: keys.optional_number("attention.clamp_kqv")?.map(|clip| clip as f32),
        bos_token_id: keys.optional_token(".tokenizer.ggml.bos_token_id")?,
        eos_token_ids: end_tokens(keys)?,
    })
}

/// RMSNorm with the eps the file must state.
pub(super) fn rms(keys: &GgufKeys<'_>) -> Result<Norm, ModelError> {
    Ok(Norm { kind: NormKind::Rms, eps: keys.number("attention.layer_norm_rms_epsilon")? as f32 })
}

/// Width of a head: `key_length`, or embedding_length / head_count. Values must be as wide as keys.
fn head_dim(keys: &GgufKeys<'_>, n_heads: usize) -> Result<usize, ModelError> {
    let hidden_size = keys.size("embedding_length")?;
    let head_dim = match keys.optional_size("attention.key_length")? {
        Some(length) => length,
        None if hidden_size.is_multiple_of(n_heads) => hidden_size / n_heads,
        None => {
            let expected = format!("a multiple of head_count = {n_heads}, or attention.key_length beside it");
            return Err(keys.bad("embedding_length", expected));
        }
    };
    match keys.optional_size("attention.value_length")? {
        Some(length) if length != head_dim => Err(keys.unsupported(
            "attention.value_length",
            format!("values as wide as keys ({head_dim}) are supported"),
        )),
        _ => Ok(head_dim),
    }
}

/// `vocab_size`, or the rows of the embedding table, or the length of the token list. The table may be padded beyond the list.
fn vocab_size(keys: &GgufKeys<'_>) -> Result<usize, ModelError> {
    if let Some(size) = keys.optional_size("vocab_size")? {
        return Ok(size);
    }
    if let Some([rows, _]) = keys.tensor_shape("token_embd.weight").as_deref() {
        return Ok(*rows);
    }
    match keys.value(".tokenizer.ggml.tokens") {
        Some(Value::Array(tokens)) => Ok(tokens.len()),
        _ => keys.size("vocab_size"), // names the missing key
    }
}

/// Every token that the file declares as an end: of text, of turn, of message.
fn end_tokens(keys: &GgufKeys<'_>) -> Result<Vec<u32>, ModelError> {
    let mut ids = Vec::new();
    for key in ["eos_token_id", "eot_token_id", "eom_token_id"] {
        ids.extend(keys.optional_token(&format!(".tokenizer.ggml.{key}"))?);
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

/// Rotary embedding in halves; Llama's file says otherwise. Llama 3.1's stretching is a tensor of divisors.
fn rope(keys: &GgufKeys<'_>, head_dim: usize) -> Result<Rope, ModelError> {
    const SUPPORTED: &str = "supported are none, linear, and Llama 3.1's rope_freqs.weight";
    // Files of 2023 write the linear factor alone.
    let factor = match keys.optional_number("rope.scaling.factor")? {
        Some(factor) => Some(factor),
        None => keys.optional_number("rope.scale_linear")?,
    };
    let kind = keys.optional_text("rope.scaling.type")?;
    let factors = keys.has_tensor("rope_freqs.weight");
    let scaling = match (kind, factor) {
        (None | Some("linear"), Some(factor)) if !factors && factor != 1.0 => RopeScaling::Linear { factor },
        (Some("linear"), None) => RopeScaling::Linear { factor: keys.number("rope.scaling.factor")? },
        (Some("none"), _) | (None, None) | (None | Some("linear"), Some(1.0)) => match factors {
            true => RopeScaling::FrequencyFactors,
            false => RopeScaling::None,
        },
        _ => return Err(keys.unsupported("rope.scaling.type", SUPPORTED)),
    };
    Ok(Rope {
        theta: keys.optional_number("rope.freq_base")?.unwrap_or(10_000.0),
        rotary_dim: keys.optional_size("rope.dimension_count")?.unwrap_or(head_dim),
        pairing: Pairing::Halves,
        scaling,
    })
}

/// Experts as the metadata describe them. `renormalize` is the architecture's habit where no key says it.
pub(super) fn experts(keys: &GgufKeys<'_>, renormalize: bool) -> Result<Ffn, ModelError> {
    let intermediate_size = match keys.optional_size("expert_feed_forward_length")? {
        Some(size) => size,
        None => keys.size("feed_forward_length")?,
    };
    Ok(Ffn::Experts {
        intermediate_size,
        activation: Activation::Silu,
        n_experts: keys.size("expert_count")?,
        n_active: keys.size("expert_used_count")?,
        renormalize: keys.optional_flag("expert_weights_norm")?.unwrap_or(renormalize),
    })
}

/// Options that would silently change the result.
pub(super) fn refuse_foreign_options(keys: &GgufKeys<'_>) -> Result<(), ModelError> {
    let context = keys.size("context_length")?;
    if keys.optional_count("attention.sliding_window")?.is_some_and(|window| window > 0 && window < context) {
        return Err(keys.unsupported(
            "attention.sliding_window",
            format!("full attention is: the window must be absent, 0, or at least the context of {context}"),
        ));
    }
    for key in ["expert_shared_count", "expert_group_count"] {
        if keys.optional_count(key)?.is_some_and(|n| n > 0) {
            return Err(keys.unsupported(key, "it must be 0 or absent"));
        }
    }
    // beside each key the values that mean "as usual"
    for (key, usual) in [
        ("expert_weights_scale", [0.0, 1.0]),
        ("rope.scaling.attn_factor", [1.0, 1.0]),
        ("attention.scale", [0.0, 0.0]),
    ] {
        if keys.optional_number(key)?.is_some_and(|x| !usual.contains(&x)) {
            return Err(keys.unsupported(key, format!("it must be {} or absent", usual[1])));
        }
    }
    // 0 is unset, 1 is softmax, 2 is sigmoid
    if keys.optional_count("expert_gating_func")?.is_some_and(|kind| kind > 1) {
        return Err(keys.unsupported("expert_gating_func", "softmax (1) is supported"));
    }
    Ok(())
}
