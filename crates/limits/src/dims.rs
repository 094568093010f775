//! The sizes of a configuration as checked `u64`, and the shapes of its matrices.

use crate::error::LimitsError;
use roofline_model::ModelConfig;
use roofline_model::config::{Ffn, NormKind, QkNorm};
use roofline_model::tensor_plan::{LayerRole, Role};

/// Experts of a block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Experts {
    pub count: u64,
    pub active: u64,
}

/// Sizes of a model, checked to be usable.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dims {
    pub layers: u64,
    pub hidden: u64,
    pub heads: u64,
    pub kv_heads: u64,
    pub head_dim: u64,
    pub q: u64,
    pub kv: u64,
    pub vocab: u64,
    pub ff: u64,
    pub gated: bool,
    pub experts: Option<Experts>,
    pub norm_len: u64,    // elements of one norm over the residual stream, bias included
    pub qk_norm_len: u64, // elements of the norms on q and k of one layer
    pub qkv_bias: bool,
    pub out_bias: bool,
    pub ffn_bias: bool,
    pub tied: bool,
}

impl Dims {
    /// Reads the sizes of `config`, refusing what cannot run.
    pub fn new(config: &ModelConfig) -> Result<Dims, LimitsError> {
        // bounds every size, so that no product below can overflow
        config.validate("the configuration").map_err(|error| LimitsError::Config(error.to_string()))?;
        let (gated, experts) = match config.ffn {
            Ffn::Gated { .. } => (true, None),
            Ffn::Plain { .. } => (false, None),
            Ffn::Experts { n_experts, n_active, .. } => {
                (true, Some(Experts { count: n_experts as u64, active: n_active as u64 }))
            }
        };
        let (hidden, head_dim) = (config.hidden_size as u64, config.head_dim as u64);
        let (q, kv) = (config.q_dim() as u64, config.kv_dim() as u64);
        Ok(Dims {
            layers: config.n_layers as u64,
            hidden,
            heads: config.n_heads as u64,
            kv_heads: config.n_kv_heads as u64,
            head_dim,
            q,
            kv,
            vocab: config.vocab_size as u64,
            ff: config.ffn.intermediate_size() as u64,
            gated,
            experts,
            norm_len: match config.norm.kind {
                NormKind::Rms => hidden,
                NormKind::Layer => 2 * hidden,
            },
            qk_norm_len: match config.qk_norm {
                QkNorm::None => 0,
                QkNorm::PerHead => 2 * head_dim,
                QkNorm::FullWidth => q + kv,
            },
            qkv_bias: config.bias.qkv,
            out_bias: config.bias.out,
            ffn_bias: config.bias.ffn,
            tied: config.tied_embeddings,
        })
    }

    /// (rows, cols) of a matrix of this model; `None` for vectors.
    pub fn matrix_shape(&self, role: Role) -> Option<(u64, u64)> {
        let shape = match role {
            Role::TokenEmbedding | Role::OutputHead => (self.vocab, self.hidden),
            Role::FinalNorm | Role::FinalNormBias | Role::RopeFactors => return None,
            Role::Layer(_, layer_role) => match layer_role {
                LayerRole::Wq => (self.q, self.hidden),
                LayerRole::Wk | LayerRole::Wv => (self.kv, self.hidden),
                LayerRole::Wo => (self.hidden, self.q),
                LayerRole::Router => (self.experts?.count, self.hidden),
                LayerRole::WGate | LayerRole::WUp | LayerRole::ExpertGate(_) | LayerRole::ExpertUp(_) => {
                    (self.ff, self.hidden)
                }
                LayerRole::WDown | LayerRole::ExpertDown(_) => (self.hidden, self.ff),
                _ => return None,
            },
        };
        Some(shape)
    }
}
