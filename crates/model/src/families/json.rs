//! Parts of `config.json` that families share.

use crate::config::{Activation, Pairing, Rope, RopeScaling};
use crate::config_json::ConfigJson;
use crate::error::ModelError;
use serde_json::Value;

/// Heads of a model and their width.
pub(super) struct Heads {
    pub n_heads: usize,
    pub n_kv_heads: usize,
    pub head_dim: usize,
}

/// Reads the heads. `kv_default` is the family's `num_key_value_heads` when the key is absent (`None`: as many as query heads, which is also
/// what `null` means everywhere); `head_dim_default` likewise (`None`: hidden_size / num_attention_heads).
pub(super) fn heads(
    json: &ConfigJson,
    kv_default: Option<usize>,
    head_dim_default: Option<usize>,
) -> Result<Heads, ModelError> {
    let n_heads = json.size("num_attention_heads")?;
    let n_kv_heads = match json.optional_size("num_key_value_heads")? {
        Some(n) => n,
        None if json.mentions("num_key_value_heads") => n_heads,
        None => kv_default.unwrap_or(n_heads),
    };
    let explicit = json.optional_size("head_dim")?;
    if let Some(head_dim) = explicit.or(head_dim_default) {
        return Ok(Heads { n_heads, n_kv_heads, head_dim });
    }
    let hidden_size = json.size("hidden_size")?;
    if !hidden_size.is_multiple_of(n_heads) {
        let expected = format!("a multiple of num_attention_heads = {n_heads}, or head_dim beside it");
        return Err(json.bad("hidden_size", expected));
    }
    Ok(Heads { n_heads, n_kv_heads, head_dim: hidden_size / n_heads })
}

/// Whether only the leading part of a head is rotated, and by default how much of it.
pub(super) enum Partial {
    /// The family rotates whole heads.
    Never,
    /// GPT-NeoX: the fraction when no key says otherwise.
    Fraction(f64),
}

/// Reads the rotary embedding in both spellings: `rope_parameters` (transformers 5) and `rope_theta` with `rope_scaling` (before). Where a file
/// has both objects `rope_scaling` counts, as in transformers; a key in the object counts before its name outside.
pub(super) fn rope(
    json: &ConfigJson,
    theta_default: f64,
    partial: Partial,
    head_dim: usize,
) -> Result<Rope, ModelError> {
    let not_empty = |object: &ConfigJson| object.present().next().is_some();
    let parameters = match json.optional_object("rope_scaling")?.filter(not_empty) {
        Some(scaling) => Some(scaling),
        None => json.optional_object("rope_parameters")?.filter(not_empty),
    };
    let inner = |key: &str| parameters.as_ref().map_or(Ok(None), |object| object.optional_number(key));
    let theta = match inner("rope_theta")? {
        Some(theta) => Some(theta),
        None => json.optional_number("rotary_emb_base")?.or(json.optional_number("rope_theta")?),
    };
    let fraction = match inner("partial_rotary_factor")? {
        Some(fraction) => Some(fraction),
        None => json.optional_number("rotary_pct")?.or(json.optional_number("partial_rotary_factor")?),
    };
    let scaling = parameters.as_ref().map_or(Ok(RopeScaling::None), |object| rope_scaling(json, object))?;
    Ok(Rope {
        theta: theta.unwrap_or(theta_default),
        rotary_dim: rotary_dim(json, partial, fraction, head_dim)?,
        pairing: Pairing::Halves,
        scaling,
    })
}

fn rotary_dim(
    json: &ConfigJson,
    partial: Partial,
    fraction: Option<f64>,
    head_dim: usize,
) -> Result<usize, ModelError> {
    let unsupported = |fraction: f64, supported: &str| ModelError::UnsupportedOption {
        file: json.file().to_string(),
        option: format!("partial_rotary_factor = {fraction}"),
        supported: supported.to_string(),
    };
    match partial {
        Partial::Never => match fraction {
            None => Ok(head_dim),
            Some(1.0) => Ok(head_dim),
            Some(part) => Err(unsupported(part, "this family rotates whole heads; gpt_neox rotates a part")),
        },
        Partial::Fraction(default) => match fraction.unwrap_or(default) {
            // truncated as Python's int() does
            part if part > 0.0 && part <= 1.0 => Ok((head_dim as f64 * part) as usize),
            part => Err(unsupported(part, "it must lie above 0 and at most at 1")),
        },
    }
}

fn rope_scaling(json: &ConfigJson, object: &ConfigJson) -> Result<RopeScaling, ModelError> {
    const SUPPORTED: &str = "supported rope types are default, linear, llama3";
    if let Some((key, _)) = object.present().find(|(_, value)| matches!(value, Value::Object(_))) {
        return Err(object.unsupported(key, "one rope for all layers is supported"));
    }
    let key = if object.value("rope_type").is_some() { "rope_type" } else { "type" };
    match object.optional_text(key)? {
        None | Some("default") => Ok(RopeScaling::None),
        Some("linear") => Ok(RopeScaling::Linear { factor: object.number("factor")? }),
        Some("llama3") => Ok(RopeScaling::Llama3 {
            factor: object.number("factor")?,
            low_freq_factor: object.number("low_freq_factor")?,
            high_freq_factor: object.number("high_freq_factor")?,
            original_context: match object.optional_size("original_max_position_embeddings")? {
                Some(context) => context,
                None => json.size("max_position_embeddings")?,
            },
        }),
        Some(_) => Err(object.unsupported(key, SUPPORTED)),
    }
}

/// Reads `hidden_act`.
pub(super) fn activation(json: &ConfigJson, default: Activation) -> Result<Activation, ModelError> {
    match json.optional_text("hidden_act")? {
        None => Ok(default),
        Some("silu" | "swish") => Ok(Activation::Silu),
        Some("gelu" | "gelu_python") => Ok(Activation::Gelu),
        Some("gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" | "gelu_python_tanh" | "gelu_accurate") => {
            Ok(Activation::GeluTanh)
        }
        Some("relu") => Ok(Activation::Relu),
        Some(_) => Err(json.unsupported(
            "hidden_act",
            "supported are silu, gelu, gelu_new, gelu_fast, gelu_pytorch_tanh, relu",
        )),
    }
}

/// `bos_token_id`: `default` when the key is absent, none when it is `null`.
pub(super) fn bos(json: &ConfigJson, default: Option<u32>) -> Result<Option<u32>, ModelError> {
    Ok(if json.mentions("bos_token_id") { json.optional_token("bos_token_id")? } else { default })
}

/// `eos_token_id`: `default` when the key is absent, none when it is `null`.
pub(super) fn eos(json: &ConfigJson, default: Option<u32>) -> Result<Vec<u32>, ModelError> {
    let declared = json.optional_tokens("eos_token_id")?;
    let fallback = if json.mentions("eos_token_id") { None } else { default };
    Ok(declared.unwrap_or_else(|| fallback.into_iter().collect()))
}

/// An f32 that the forward pass uses.
pub(super) fn number_or(json: &ConfigJson, key: &str, default: f32) -> Result<f32, ModelError> {
    Ok(json.optional_number(key)?.map_or(default, |x| x as f32))
}

/// `true` or `false` with a default.
pub(super) fn flag_or(json: &ConfigJson, key: &str, default: bool) -> Result<bool, ModelError> {
    Ok(json.optional_flag(key)?.unwrap_or(default))
}

/// A window at least as long as the context changes nothing; a shorter one is refused. `default` is the family's when the key is absent.
pub(super) fn refuse_sliding_window(json: &ConfigJson, default: Option<usize>) -> Result<(), ModelError> {
    let context = json.size("max_position_embeddings")?;
    let declared = json.optional_size("sliding_window")?;
    let window = if json.mentions("sliding_window") { declared } else { default };
    match window {
        Some(window) if window < context => Err(ModelError::UnsupportedOption {
            file: json.file().to_string(),
            option: format!("sliding_window = {window} below max_position_embeddings = {context}"),
            supported: format!(
                "full attention is: set max_position_embeddings to {window} to use the model within its window"
            ),
        }),
        _ => Ok(()),
    }
}

/// Qwen's switch for a sliding window on the upper layers.
pub(super) fn refuse_use_sliding_window(json: &ConfigJson) -> Result<(), ModelError> {
    match json.optional_flag("use_sliding_window")? {
        Some(true) => Err(json.unsupported("use_sliding_window", "full attention is: false or absent")),
        _ => Ok(()),
    }
}

/// Options of other families and of quantizers that would silently change the result.
pub(super) fn refuse_foreign_options(json: &ConfigJson) -> Result<(), ModelError> {
    if json.value("quantization_config").is_some() {
        return Err(json.unsupported(
            "quantization_config",
            "supported are F32, F16 and BF16 safetensors and quantized GGUF files",
        ));
    }
    for key in ["norm_after", "alibi", "use_mrope"] {
        if flag_or(json, key, false)? {
            return Err(json.unsupported(key, "it must be false or absent"));
        }
    }
    for key in ["attn_logit_softcapping", "final_logit_softcapping"] {
        if json.value(key).is_some() {
            return Err(json.unsupported(key, "it must be null or absent"));
        }
    }
    match json.value("layer_types") {
        None => Ok(()),
        Some(Value::Array(kinds)) if kinds.iter().all(|kind| kind == "full_attention") => Ok(()),
        Some(_) => Err(json.unsupported("layer_types", "supported is a list of \"full_attention\"")),
    }
}
