//! [`ModelConfig`]: every hyper-parameter that changes what a forward pass computes, validated once.
//!
//! A family differs from another by data here, never by a second layer loop.

/// The model families that have a file under `families/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Family {
    Llama,
    Qwen2,
    Qwen3,
    GptNeox,
    Olmoe,
    /// Llama's block with experts in place of the FFN; known to `limits`, run by the same loop.
    Mixtral,
}

impl Family {
    /// Name as Hugging Face's `model_type` spells it.
    pub fn name(self) -> &'static str {
        match self {
            Family::Llama => "llama",
            Family::Qwen2 => "qwen2",
            Family::Qwen3 => "qwen3",
            Family::GptNeox => "gpt_neox",
            Family::Olmoe => "olmoe",
            Family::Mixtral => "mixtral",
        }
    }
}

/// Hyper-parameters of one model. Built by a family file from `config.json` or GGUF metadata, then checked by
/// `validate`.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Which family file described it.
    pub family: Family,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Number of transformer blocks.
    pub n_layers: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key/value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Width of one head; `n_heads * head_dim` need not be `hidden_size`.
    pub head_dim: usize,
    /// Rows of the embedding table and of the output head.
    pub vocab_size: usize,
    /// Longest context the checkpoint declares, in tokens.
    pub context_length: usize,
    /// Norm before attention, before the FFN and before the head.
    pub norm: Norm,
    /// Norm on queries and keys before RoPE.
    pub qk_norm: QkNorm,
    /// Which projections carry a bias vector.
    pub bias: Bias,
    /// Rotary position embedding.
    pub rope: Rope,
    /// How a block adds its two branches to the residual stream.
    pub residual: Residual,
    /// The feed-forward part of every block.
    pub ffn: Ffn,
    /// Whether the output head is the embedding table.
    pub tied_embeddings: bool,
    /// Clamp q, k and v to ±this after the norm on q and k, before RoPE (OLMoE's `clip_qkv`, in transformers' order).
    pub clip_qkv: Option<f32>,
    /// Sequence-start token the config declares.
    pub bos_token_id: Option<u32>,
    /// End tokens the config declares, ascending.
    pub eos_token_ids: Vec<u32>,
}

/// Normalisation over the residual stream.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Norm {
    /// RMSNorm or LayerNorm.
    pub kind: NormKind,
    /// Added to the mean square or variance.
    pub eps: f32,
}

/// Which statistic a norm divides by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// x / sqrt(mean(x²) + eps) · weight
    Rms,
    /// (x − mean) / sqrt(var + eps) · weight + bias
    Layer,
}

/// RMSNorm on q and k, with the block norm's eps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QkNorm {
    /// No such norm.
    None,
    /// One weight of `head_dim`, applied to each head (Qwen3).
    PerHead,
    /// One weight over the whole projection, before the head split (OLMoE).
    FullWidth,
}

/// Which projections carry a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bias {
    /// On wq, wk and wv.
    pub qkv: bool,
    /// On wo.
    pub out: bool,
    /// On the FFN matrices, w_gate included; never with experts.
    pub ffn: bool,
}

/// Rotary position embedding.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Base of the frequencies.
    pub theta: f64,
    /// Leading dimensions of a head that are rotated; even, at most `head_dim`.
    pub rotary_dim: usize,
    /// Which two elements form a rotated pair.
    pub pairing: Pairing,
    /// How the frequencies are stretched.
    pub scaling: RopeScaling,
}

/// Which two elements of a head form a rotated pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairing {
    /// (i, i + rotary_dim / 2): Hugging Face checkpoints, and GGUF of every family but Llama.
    Halves,
    /// (2i, 2i + 1): GGUF of the Llama architecture, whose wq and wk rows the converter permuted.
    Adjacent,
}

/// Stretching of RoPE frequencies.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// Frequencies as they are.
    None,
    /// Every position divided by `factor`.
    Linear {
        /// ≥ 1.
        factor: f64,
    },
    /// Llama 3.1: long wavelengths divided by `factor`, short ones kept, a ramp between.
    Llama3 {
        /// Divisor of the long wavelengths.
        factor: f64,
        /// Ramp end at wavelength `original_context / low_freq_factor`.
        low_freq_factor: f64,
        /// Ramp start at wavelength `original_context / high_freq_factor`.
        high_freq_factor: f64,
        /// Context of the pre-training, in tokens.
        original_context: usize,
    },
    /// A divisor per frequency, as GGUF stores Llama 3.1's (`rope_freqs.weight`); `rotary_dim / 2` values that the
    /// loader reads from that tensor.
    FrequencyFactors,
}

/// How a block adds its branches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Residual {
    /// h = x + attention(norm₁(x)); y = h + ffn(norm₂(h))
    Sequential,
    /// y = x + attention(norm₁(x)) + ffn(norm₂(x)) (GPT-NeoX)
    Parallel,
}

/// The feed-forward part.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Ffn {
    /// w_down(act(w_gate·x) ⊙ w_up·x)
    Gated {
        /// Rows of w_gate and w_up.
        intermediate_size: usize,
        /// Applied to the gate.
        activation: Activation,
    },
    /// w_down(act(w_up·x))
    Plain {
        /// Rows of w_up.
        intermediate_size: usize,
        /// Applied to w_up·x.
        activation: Activation,
    },
    /// A router picks `n_active` of `n_experts` gated FFNs per token.
    Experts {
        /// Rows of one expert's w_gate and w_up.
        intermediate_size: usize,
        /// Applied to the gate.
        activation: Activation,
        /// Experts in a block.
        n_experts: usize,
        /// Experts a token visits.
        n_active: usize,
        /// Whether the chosen router weights are rescaled to sum to one.
        renormalize: bool,
    },
}

/// Non-linearity of an FFN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// x · sigmoid(x)
    Silu,
    /// x · Φ(x), with erf
    Gelu,
    /// x · Φ(x), tanh approximation (`gelu_new`, `gelu_pytorch_tanh`, `gelu_fast`)
    GeluTanh,
    /// max(x, 0)
    Relu,
}
