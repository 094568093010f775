//! Sizes derived from a [`ModelConfig`]: widths, weights by group, cache values per token.

use crate::config::{Activation, Ffn, ModelConfig, NormKind, QkNorm};

/// Weights of a model by the part of the forward pass that reads them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParameterCount {
    /// The embedding table: vocab_size · hidden_size.
    pub embedding: u64,
    /// All blocks, every expert included.
    pub layers: u64,
    /// The norm before the head.
    pub final_norm: u64,
    /// The output head; 0 when it is the embedding table.
    pub head: u64,
}

impl ParameterCount {
    /// Every weight that is stored.
    pub fn total(&self) -> u64 {
        self.embedding + self.layers + self.final_norm + self.head
    }
}

impl Ffn {
    /// The non-linearity.
    pub fn activation(&self) -> Activation {
        match *self {
            Ffn::Gated { activation, .. }
            | Ffn::Plain { activation, .. }
            | Ffn::Experts { activation, .. } => activation,
        }
    }

    /// Rows of w_up (of one expert).
    pub fn intermediate_size(&self) -> usize {
        match *self {
            Ffn::Gated { intermediate_size, .. }
            | Ffn::Plain { intermediate_size, .. }
            | Ffn::Experts { intermediate_size, .. } => intermediate_size,
        }
    }
}

/// The products below are bounded by `validate`; an unvalidated configuration may overflow them.
impl ModelConfig {
    /// Outputs of wq: n_heads · head_dim.
    pub fn q_dim(&self) -> usize {
        self.n_heads * self.head_dim
    }

    /// Outputs of wk and of wv: n_kv_heads · head_dim.
    pub fn kv_dim(&self) -> usize {
        self.n_kv_heads * self.head_dim
    }

    /// Query heads that share one key/value head.
    pub fn group_size(&self) -> usize {
        self.n_heads / self.n_kv_heads
    }

    /// Experts in a block; 0 in a family without experts.
    pub fn n_experts(&self) -> usize {
        match self.ffn {
            Ffn::Experts { n_experts, .. } => n_experts,
            _ => 0,
        }
    }

    /// Values (not bytes) that one token adds to the cache: keys and values of every layer.
    pub fn kv_values_per_token(&self) -> u64 {
        2 * self.n_layers as u64 * self.kv_dim() as u64
    }

    /// Weights stored, by group.
    pub fn parameters(&self) -> ParameterCount {
        let table = self.vocab_size as u64 * self.hidden_size as u64;
        let experts = self.n_experts() as u64;
        ParameterCount {
            embedding: table,
            layers: self.n_layers as u64 * (self.layer_without_experts() + experts * self.one_expert()),
            final_norm: self.norm_weights(),
            head: if self.tied_embeddings { 0 } else { table },
        }
    }

    /// Weights stored less those of the experts a token does not visit. As publishers count it, the whole embedding table is in it.
    pub fn active_parameters(&self) -> u64 {
        let idle = match self.ffn {
            Ffn::Experts { n_experts, n_active, .. } => (n_experts - n_active) as u64,
            _ => 0,
        };
        self.parameters().total() - self.n_layers as u64 * idle * self.one_expert()
    }

    /// Weights of one expert of one block; 0 in a family without experts.
    pub fn one_expert(&self) -> u64 {
        match self.ffn {
            Ffn::Experts { intermediate_size, .. } => 3 * self.hidden_size as u64 * intermediate_size as u64,
            _ => 0,
        }
    }

    /// Weights of one block without its experts; the router is in it.
    pub fn layer_without_experts(&self) -> u64 {
        let [hidden, q, kv] = [self.hidden_size, self.q_dim(), self.kv_dim()].map(|n| n as u64);
        let with_bias = |has: bool, n: u64| if has { n } else { 0 };
        let projections = hidden * (q + 2 * kv) + q * hidden;
        let biases = with_bias(self.bias.qkv, q + 2 * kv) + with_bias(self.bias.out, hidden);
        let qk_norm = match self.qk_norm {
            QkNorm::None => 0,
            QkNorm::PerHead => 2 * self.head_dim as u64,
            QkNorm::FullWidth => q + kv,
        };
        let ff = self.ffn.intermediate_size() as u64;
        let ffn = match self.ffn {
            Ffn::Gated { .. } => 3 * hidden * ff + with_bias(self.bias.ffn, 2 * ff + hidden),
            Ffn::Plain { .. } => 2 * hidden * ff + with_bias(self.bias.ffn, ff + hidden),
            Ffn::Experts { n_experts, .. } => n_experts as u64 * hidden,
        };
        2 * self.norm_weights() + projections + biases + qk_norm + ffn
    }

    /// Weights of one norm over the residual stream.
    fn norm_weights(&self) -> u64 {
        match self.norm.kind {
            NormKind::Rms => self.hidden_size as u64,
            NormKind::Layer => 2 * self.hidden_size as u64,
        }
    }
}
