//! Configurations written by hand, so that these tests know what the numbers should be.
#![allow(dead_code)] // each test takes what it needs

use roofline_model::ModelConfig;
use roofline_model::config::*;

/// Sizes of a Llama-like model.
pub struct Sizes {
    pub layers: usize,
    pub hidden: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub ff: usize,
    pub vocab: usize,
}

/// A gated, RMS-normed, sequential model without biases.
pub fn llama(s: Sizes) -> ModelConfig {
    ModelConfig {
        family: Family::Llama,
        hidden_size: s.hidden,
        n_layers: s.layers,
        n_heads: s.heads,
        n_kv_heads: s.kv_heads,
        head_dim: s.head_dim,
        vocab_size: s.vocab,
        context_length: 32768,
        norm: Norm { kind: NormKind::Rms, eps: 1e-6 },
        qk_norm: QkNorm::None,
        bias: Bias::default(),
        rope: Rope {
            theta: 1e4,
            rotary_dim: s.head_dim,
            pairing: Pairing::Halves,
            scaling: RopeScaling::None,
        },
        residual: Residual::Sequential,
        ffn: Ffn::Gated { intermediate_size: s.ff, activation: Activation::Silu },
        tied_embeddings: false,
        clip_qkv: None,
        bos_token_id: None,
        eos_token_ids: Vec::new(),
    }
}

/// Llama-2-7B.
pub fn llama2_7b() -> ModelConfig {
    llama(Sizes { layers: 32, hidden: 4096, heads: 32, kv_heads: 32, head_dim: 128, ff: 11008, vocab: 32000 })
}

/// Llama-2-70B.
pub fn llama2_70b() -> ModelConfig {
    llama(Sizes { layers: 80, hidden: 8192, heads: 64, kv_heads: 8, head_dim: 128, ff: 28672, vocab: 32000 })
}

/// Llama-3-8B.
pub fn llama3_8b() -> ModelConfig {
    llama(Sizes { layers: 32, hidden: 4096, heads: 32, kv_heads: 8, head_dim: 128, ff: 14336, vocab: 128256 })
}

/// OLMoE-1B-7B: 64 experts, 8 visited, norms over the full width of q and k.
pub fn olmoe() -> ModelConfig {
    let mut config = llama(Sizes {
        layers: 16,
        hidden: 2048,
        heads: 16,
        kv_heads: 16,
        head_dim: 128,
        ff: 1024,
        vocab: 50304,
    });
    config.family = Family::Olmoe;
    config.qk_norm = QkNorm::FullWidth;
    config.ffn = Ffn::Experts {
        intermediate_size: 1024,
        activation: Activation::Silu,
        n_experts: 64,
        n_active: 8,
        renormalize: false,
    };
    config
}

/// Pythia-410M: LayerNorm, biases everywhere, a plain FFN.
pub fn pythia_410m() -> ModelConfig {
    let mut config = llama(Sizes {
        layers: 24,
        hidden: 1024,
        heads: 16,
        kv_heads: 16,
        head_dim: 64,
        ff: 4096,
        vocab: 50304,
    });
    config.family = Family::GptNeox;
    config.norm.kind = NormKind::Layer;
    config.bias = Bias { qkv: true, out: true, ffn: true };
    config.residual = Residual::Parallel;
    config.ffn = Ffn::Plain { intermediate_size: 4096, activation: Activation::Gelu };
    config
}

/// The article's model of that name as a configuration; heads of 64.
pub fn qwen15(model: &roofline_limits::paper::PaperModel) -> ModelConfig {
    let heads = model.hidden as usize / 64;
    let mut config = llama(Sizes {
        layers: model.layers as usize,
        hidden: model.hidden as usize,
        heads,
        kv_heads: heads / model.groups as usize,
        head_dim: 64,
        ff: model.intermediate as usize,
        vocab: model.vocab as usize,
    });
    config.family = Family::Qwen2;
    config.bias.qkv = true;
    config
}
