//! The sizes of a configuration as checked `u64`, and the shapes of its matrices.

use crate::error::LimitsError;
use roofline_model::ModelConfig;
use roofline_model::config::{Ffn, NormKind, QkNorm};
use roofline_model::tensor_plan::{LayerRole, Role};

/// Above this a width is a mistake; below it no product of two widths can overflow.
const WIDEST: usize = 1 << 28;
/// Above this a number of layers, heads or experts is a mistake, and a loop over them would not end.
const MOST: usize = 1 << 16;

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
        let within = |name: &str, value: usize, most: usize| -> Result<u64, LimitsError> {
            if value == 0 || value > most {
                return Err(LimitsError::Config(format!("{name} is {value}, it must be from 1 to {most}")));
            }
            Ok(value as u64)
        };
        let size = |name: &str, value: usize| within(name, value, WIDEST);
        let count = |name: &str, value: usize| within(name, value, MOST);
        let (ff, gated, experts) = match config.ffn {
            Ffn::Gated { intermediate_size, .. } => (intermediate_size, true, None),
            Ffn::Plain { intermediate_size, .. } => (intermediate_size, false, None),
            Ffn::Experts { intermediate_size, n_experts, n_active, .. } => {
                (intermediate_size, true, Some((n_experts, n_active)))
            }
        };
        let experts = match experts {
            None => None,
            Some((experts, active)) => {
                let experts =
                    Experts { count: count("n_experts", experts)?, active: count("n_active", active)? };
                if experts.active > experts.count {
                    let Experts { count, active } = experts;
                    return Err(LimitsError::Config(format!("a token visits {active} experts of {count}")));
                }
                Some(experts)
            }
        };
        let hidden = size("hidden_size", config.hidden_size)?;
        let heads = count("n_heads", config.n_heads)?;
        let kv_heads = count("n_kv_heads", config.n_kv_heads)?;
        let head_dim = size("head_dim", config.head_dim)?;
        if !heads.is_multiple_of(kv_heads) {
            return Err(LimitsError::Config(format!(
                "{heads} query heads do not divide into {kv_heads} key/value heads"
            )));
        }
        let q = crate::error::product("width of q", &[heads, head_dim])?;
        let kv = crate::error::product("width of k", &[kv_heads, head_dim])?;
        Ok(Dims {
            layers: count("n_layers", config.n_layers)?,
            hidden,
            heads,
            kv_heads,
            head_dim,
            q,
            kv,
            vocab: size("vocab_size", config.vocab_size)?,
            ff: size("intermediate_size", ff)?,
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
