//! Which format each tensor of a model gets under a named file type.
//!
//! The rules for the k-quant mixes are those of llama.cpp's quantizer (`llama_tensor_get_type`, read in its source of 2026).
//! They were read, not recalled; the exceptions for architectures that are not ours are left out.

use crate::dims::Dims;
use crate::error::LimitsError;
use roofline_model::ModelConfig;
use roofline_model::config::Family;
use roofline_model::tensor_plan::{LayerRole, Role};
use roofline_weights::format::Format;
use serde::{Serialize, Serializer};

/// A named assignment of formats to tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Recipe {
    /// One format for every matrix, head and embedding included.
    Uniform(Format),
    /// A llama.cpp file type.
    Gguf(GgufType),
}

/// The llama.cpp file types that quantize, by their names without `MOSTLY_`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the variants are their names
pub enum GgufType {
    Q8_0,
    Q6K,
    Q5KM,
    Q5KS,
    Q5_1,
    Q5_0,
    Q4KM,
    Q4KS,
    Q4_1,
    Q4_0,
    Q3KL,
    Q3KM,
    Q3KS,
    Q2K,
}

/// Name, type, format of the tensors that no rule names.
const TYPES: [(&str, GgufType, Format); 14] = [
    ("q8_0", GgufType::Q8_0, Format::Q8_0),
    ("q6_k", GgufType::Q6K, Format::Q6K),
    ("q5_k_m", GgufType::Q5KM, Format::Q5K),
    ("q5_k_s", GgufType::Q5KS, Format::Q5K),
    ("q5_1", GgufType::Q5_1, Format::Q5_1),
    ("q5_0", GgufType::Q5_0, Format::Q5_0),
    ("q4_k_m", GgufType::Q4KM, Format::Q4K),
    ("q4_k_s", GgufType::Q4KS, Format::Q4K),
    ("q4_1", GgufType::Q4_1, Format::Q4_1),
    ("q4_0", GgufType::Q4_0, Format::Q4_0),
    ("q3_k_l", GgufType::Q3KL, Format::Q3K),
    ("q3_k_m", GgufType::Q3KM, Format::Q3K),
    ("q3_k_s", GgufType::Q3KS, Format::Q3K),
    ("q2_k", GgufType::Q2K, Format::Q2K),
];

impl Recipe {
    /// Every name that [`Recipe::from_name`] reads.
    pub fn names() -> impl Iterator<Item = &'static str> {
        ["f32", "f16", "bf16"].into_iter().chain(TYPES.iter().map(|t| t.0))
    }

    /// The recipe of a file-type name, as `q4_k_m` or `bf16`, in either case.
    pub fn from_name(name: &str) -> Result<Recipe, LimitsError> {
        let wanted = name.trim().to_ascii_lowercase();
        if let Some(row) = TYPES.iter().find(|row| row.0 == wanted) {
            return Ok(Recipe::Gguf(row.1));
        }
        match Format::from_name(&wanted) {
            Some(format) if !format.is_quantized() => Ok(Recipe::Uniform(format)),
            _ => Err(LimitsError::FileType { text: name.to_owned(), known: Recipe::names().collect() }),
        }
    }

    /// Lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            Recipe::Uniform(format) => format.name(),
            Recipe::Gguf(kind) => TYPES[kind as usize].0,
        }
    }

    /// The format of most matrices.
    pub fn base(self) -> Format {
        match self {
            Recipe::Uniform(format) => format,
            Recipe::Gguf(kind) => TYPES[kind as usize].2,
        }
    }

    /// The format of one tensor of `config`. Vectors and quantized models' routers are F32; a matrix whose rows do not fill
    /// the blocks of a K format takes the format of 32 that llama.cpp falls back to, and F16 when those do not fill either.
    pub fn format_of(self, config: &ModelConfig, role: Role) -> Result<Format, LimitsError> {
        Ok(self.rules(&Dims::new(config)?, config).format_of(role))
    }

    /// The format of one tensor and the one its rows are too narrow for. `importance` says that an importance matrix guides the
    /// encoder, with which llama.cpp writes the first `ffn_down` of Q4_0 and Q5_0 as Q4_1 and Q5_1.
    ///
    /// # Errors
    /// As [`Recipe::format_of`].
    pub fn choose(self, config: &ModelConfig, role: Role, importance: bool) -> Result<Choice, LimitsError> {
        let dims = Dims::new(config)?;
        Ok(Rules { importance, ..self.rules(&dims, config) }.choose(role))
    }

    /// The rules with the model's sizes at hand, for callers that ask about many tensors.
    pub(crate) fn rules<'a>(self, dims: &'a Dims, config: &ModelConfig) -> Rules<'a> {
        let n_gqa = dims.heads / dims.kv_heads;
        Rules {
            recipe: self,
            dims,
            importance: false,
            eight_experts: dims.experts.is_some_and(|e| e.count == 8),
            grouped: n_gqa >= 4,
            // what llama.cpp calls a 70B: its table of layer counts per architecture, in which Mixtral is Llama
            seventy_b: dims.layers == 80
                && match config.family {
                    Family::Llama | Family::Mixtral => n_gqa > 1,
                    Family::Qwen2 => true,
                    Family::Qwen3 | Family::GptNeox | Family::Olmoe => false,
                },
            fused_qkv: config.family == Family::GptNeox,
        }
    }
}

impl Serialize for Recipe {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// What a recipe gives one tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// The format to store it in.
    pub format: Format,
    /// The format that the recipe asks for; another one where rows do not fill its blocks.
    pub wanted: Format,
}

/// A recipe applied to one model.
pub(crate) struct Rules<'a> {
    recipe: Recipe,
    dims: &'a Dims,
    importance: bool,
    eight_experts: bool,
    grouped: bool,
    seventy_b: bool,
    fused_qkv: bool,
}

impl Rules<'_> {
    /// The format of one tensor.
    pub fn format_of(&self, role: Role) -> Format {
        self.choose(role).format
    }

    fn choose(&self, role: Role) -> Choice {
        let Some((_, cols)) = self.dims.matrix_shape(role) else {
            return Choice { format: Format::F32, wanted: Format::F32 };
        };
        let wanted = match self.recipe {
            Recipe::Uniform(format) => {
                if format.is_quantized() && matches!(role, Role::Layer(_, LayerRole::Router)) {
                    Format::F32
                } else {
                    format
                }
            }
            Recipe::Gguf(kind) => self.gguf(kind, role),
        };
        Choice { format: fitting(wanted, cols), wanted }
    }

    fn gguf(&self, kind: GgufType, role: Role) -> Format {
        let base = TYPES[kind as usize].2;
        match role {
            Role::OutputHead => head_format(base),
            Role::TokenEmbedding if self.dims.tied => head_format(base),
            Role::Layer(layer, layer_role) => self.layer(kind, base, layer as u64, layer_role),
            _ => base,
        }
    }

    fn layer(&self, kind: GgufType, base: Format, layer: u64, role: LayerRole) -> Format {
        match role {
            LayerRole::Router => Format::F32,
            LayerRole::Wv => self.attention_v(kind, base, layer),
            LayerRole::Wq | LayerRole::Wk if self.fused_qkv => self.attention_v(kind, base, layer),
            LayerRole::Wk if self.eight_experts => Format::Q8_0,
            LayerRole::Wo => self.attention_out(kind, base),
            LayerRole::WDown | LayerRole::ExpertDown(_) => self.ffn_down(kind, base, layer),
            _ => base,
        }
    }

    fn attention_v(&self, kind: GgufType, base: Format, layer: u64) -> Format {
        let format = match kind {
            GgufType::Q2K if self.grouped => Format::Q4K,
            GgufType::Q2K => Format::Q3K,
            GgufType::Q3KM if layer < 2 => Format::Q5K,
            GgufType::Q3KM => Format::Q4K,
            GgufType::Q3KL => Format::Q5K,
            GgufType::Q4KM | GgufType::Q5KM if self.more_bits(layer) => Format::Q6K,
            GgufType::Q4KS if layer < 4 => Format::Q5K,
            _ => base,
        };
        match format {
            _ if self.eight_experts => Format::Q8_0,
            Format::Q3K | Format::Q4K if self.seventy_b => Format::Q5K,
            format => format,
        }
    }

    fn attention_out(&self, kind: GgufType, base: Format) -> Format {
        match kind {
            GgufType::Q2K | GgufType::Q3KS | GgufType::Q3KM | GgufType::Q4KS | GgufType::Q4KM
                if self.eight_experts =>
            {
                Format::Q5K
            }
            _ if self.eight_experts => base,
            GgufType::Q2K => Format::Q3K,
            GgufType::Q3KM => Format::Q4K,
            GgufType::Q3KL => Format::Q5K,
            _ => base,
        }
    }

    fn ffn_down(&self, kind: GgufType, base: Format, layer: u64) -> Format {
        let layers = self.dims.layers;
        match kind {
            GgufType::Q2K => Format::Q3K,
            GgufType::Q3KM if layer < layers / 16 => Format::Q5K,
            GgufType::Q3KM => Format::Q4K,
            GgufType::Q3KL => Format::Q5K,
            GgufType::Q4KM | GgufType::Q5KM if self.more_bits(layer) => Format::Q6K,
            GgufType::Q4KS if layer < layers / 8 => Format::Q5K,
            GgufType::Q4_0 if self.importance && layer < layers / 8 => Format::Q4_1,
            GgufType::Q5_0 if self.importance && layer < layers / 8 => Format::Q5_1,
            _ => base,
        }
    }

    /// The first and last eighth of the layers and every third between them.
    fn more_bits(&self, layer: u64) -> bool {
        let layers = self.dims.layers;
        layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2
    }
}

/// The head keeps at least six bits. (llama.cpp makes it Q8_0 where its rows do not fill the file type's blocks, which is also what
/// [`fitting`] makes of Q6_K there.)
fn head_format(base: Format) -> Format {
    if base == Format::Q8_0 { Format::Q8_0 } else { Format::Q6K }
}

/// `format`, or what takes its place for rows of `cols` weights.
fn fitting(format: Format, cols: u64) -> Format {
    let fits = |f: Format| cols.is_multiple_of(f.block_len() as u64);
    if fits(format) {
        return format;
    }
    let instead = match format {
        Format::Q2K | Format::Q3K => Format::Q4_0,
        Format::Q4K => Format::Q5_0,
        Format::Q5K => Format::Q5_1,
        Format::Q6K => Format::Q8_0,
        _ => Format::F16,
    };
    if fits(instead) { instead } else { Format::F16 }
}
