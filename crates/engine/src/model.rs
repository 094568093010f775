//! [`Model`]: a configuration and its weights. Immutable once loaded; sessions share it.

use crate::cpu::{Cpu, norm_kind};
use crate::error::EngineError;
use roofline_kernels::{AttentionShape, FileRows, KernelError, MatmulJob, Norm, PackedMatrix};
use roofline_model::ModelConfig;
use roofline_model::config;
use roofline_model::operator::Cost;
use roofline_model::tensor_plan::Rows;
use roofline_weights::{Checkpoint, Format, blocks};
use std::sync::Arc;
use std::time::Duration;

/// A loaded model. The weights are shared with what [`Model::with_cpu`] makes of it.
pub struct Model {
    pub(crate) config: ModelConfig,
    pub(crate) cpu: Cpu,
    pub(crate) tables: Arc<Tables>,
    pub(crate) layers: Arc<[Layer]>,         // (n_layers)
    pub(crate) final_norm: Arc<NormWeights>, // (hidden_size)
    pub(crate) inv_freq: Vec<f64>,           // (rotary_dim / 2)
    pub(crate) facts: LoadFacts,
}

/// When matrices get the layout of the kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Packing {
    /// While loading, into memory of their own; the file's pages are let go of.
    #[default]
    AtLoad,
    /// At each product, a few rows at a time: weights stay in the file's pages. Starts at once, decodes slower; a weight
    /// that is no number is found when it is multiplied.
    AtUse,
}

impl Packing {
    /// `at load` or `at use`.
    pub fn name(self) -> &'static str {
        match self {
            Packing::AtLoad => "at load",
            Packing::AtUse => "at use",
        }
    }
}

/// What loading did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LoadFacts {
    /// When matrices are packed.
    pub packing: Packing,
    /// Wall time from opened files to a runnable model.
    pub time: Duration,
    /// How much of it went into packing matrices: reading them from the file (or the system's cache of it) and writing
    /// them in the layout of the kernels, all threads at once.
    pub pack_time: Duration,
    /// Bytes of weights as stored in their formats; a tied table counts once.
    pub weight_bytes: u64,
    /// Memory that packed matrices hold, beside the file. The rest of the weights are vectors, and what stays in the file.
    pub packed_bytes: u64,
    /// Weights.
    pub parameters: u64,
}

/// One transformer block.
pub(crate) struct Layer {
    pub attention_norm: NormWeights, // (hidden)
    pub wq: Linear,                  // (q, hidden)
    pub wk: Linear,                  // (kv, hidden)
    pub wv: Linear,                  // (kv, hidden)
    pub q_norm: Option<Vec<f32>>,    // (head_dim) or (q)
    pub k_norm: Option<Vec<f32>>,    // (head_dim) or (kv)
    pub wo: Linear,                  // (hidden, q)
    pub ffn_norm: NormWeights,       // (hidden)
    pub ffn: LayerFfn,
}

/// The feed-forward part of a block; the activation is the configuration's.
pub(crate) enum LayerFfn {
    Gated { w_gate: Linear, w_up: Linear, w_down: Linear },
    Plain { w_up: Linear, w_down: Linear },
    Experts(ExpertWeights),
}

/// The experts of one block and the router before them.
pub(crate) struct ExpertWeights {
    pub router: Linear,            // (n_experts, hidden)
    pub w_gate: Vec<PackedMatrix>, // (n_experts) of (ff, hidden)
    pub w_up: Vec<PackedMatrix>,   // (n_experts) of (ff, hidden)
    pub w_down: Vec<PackedMatrix>, // (n_experts) of (hidden, ff)
    pub in_formats: Vec<Format>,   // formats of w_gate and w_up, each once
    pub out_formats: Vec<Format>,  // formats of w_down, each once
}

impl ExpertWeights {
    /// Stored bytes of the experts whose group is not empty.
    pub fn bytes(&self, groups: &[std::ops::Range<usize>]) -> u64 {
        let one = |expert: usize| {
            [&self.w_gate, &self.w_up, &self.w_down]
                .map(|all| all[expert].stored_bytes() as u64)
                .iter()
                .sum::<u64>()
        };
        (0..groups.len()).filter(|&expert| !groups[expert].is_empty()).map(one).sum()
    }
}

/// A matrix and its bias.
pub(crate) struct Linear {
    pub w: PackedMatrix,        // (out, in)
    pub bias: Option<Vec<f32>>, // (out)
}

impl Linear {
    /// out (+)= w·activations + bias for `rows` rows; `out` is (≥ rows, w.rows).
    pub fn job<'a>(&'a self, rows: usize, out: &'a mut [f32], add: bool) -> MatmulJob<'a> {
        MatmulJob { w: &self.w, bias: self.bias.as_deref(), out: &mut out[..rows * self.w.rows()], add }
    }

    /// What multiplying `rows` rows costs.
    pub fn cost(&self, rows: usize) -> Cost {
        let mut cost = matrix_cost(&self.w, rows);
        cost.weight_bytes += self.bias.as_ref().map_or(0, |bias| 4 * bias.len() as u64);
        cost
    }
}

/// What multiplying `rows` rows by `w` costs.
pub(crate) fn matrix_cost(w: &PackedMatrix, rows: usize) -> Cost {
    let flops = 2 * rows as u64 * w.rows() as u64 * w.cols() as u64;
    Cost { weight_bytes: w.stored_bytes() as u64, flops, ..Cost::default() }
}

/// Weights of a norm.
pub(crate) struct NormWeights {
    pub weight: Vec<f32>,       // (n)
    pub bias: Option<Vec<f32>>, // (n)
}

impl NormWeights {
    /// The norm in the kernels' terms.
    pub fn of(&self, norm: config::Norm) -> Norm<'_> {
        Norm { kind: norm_kind(norm.kind), eps: norm.eps, weight: &self.weight, bias: self.bias.as_deref() }
    }

    /// What applying it costs.
    pub fn cost(&self) -> Cost {
        let vectors = 1 + u64::from(self.bias.is_some());
        Cost { weight_bytes: 4 * vectors * self.weight.len() as u64, ..Cost::default() }
    }
}

/// The two matrices over the vocabulary.
pub(crate) enum Tables {
    /// One packed matrix is both.
    Tied(PackedMatrix), // (vocab_size, hidden)
    /// Single rows of the embedding are looked up in the file; only the head is multiplied.
    Untied { embedding: MappedTable, head: PackedMatrix }, // (vocab_size, hidden) each
}

/// An embedding table left where it lies in the checkpoint.
pub(crate) struct MappedTable {
    pub rows: MappedRows,
    pub format: Format,
    pub checked: bool, // every weight was found finite; otherwise each row is looked at as it is read
}

/// Rows of a tensor where they lie in the checkpoint.
pub(crate) struct MappedRows {
    pub checkpoint: Arc<Checkpoint>,
    pub position: usize, // of the tensor in the checkpoint
    pub name: String,
    pub rows: Rows,
    pub row_bytes: usize,
}

impl FileRows for MappedRows {
    fn name(&self) -> &str {
        &self.name
    }

    /// Empty where there is no such row, which kernels refuse.
    fn row(&self, row: usize) -> &[u8] {
        let at = self.rows.source_row(row) * self.row_bytes;
        let tensor = self.checkpoint.tensor_at(self.position);
        tensor.and_then(|tensor| tensor.bytes.get(at..at + self.row_bytes)).unwrap_or_default()
    }
}

impl MappedTable {
    fn row(&self, id: u32, out: &mut [f32]) -> Result<(), EngineError> {
        let (row, bytes) = (id as usize, self.rows.row(id as usize));
        blocks::decode(self.format, bytes, out)?;
        if self.checked {
            return Ok(());
        }
        match blocks::first_not_finite(self.format, bytes) {
            Some(col) => Err(KernelError::NotFiniteIn { name: self.rows.name.clone(), row, col }.into()),
            None => Ok(()),
        }
    }
}

impl Model {
    /// The hyper-parameters.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The same weights, not copied, on other threads or with other kernels: packing depends on neither.
    pub fn with_cpu(&self, cpu: Cpu) -> Model {
        Model {
            config: self.config.clone(),
            cpu,
            tables: self.tables.clone(),
            layers: self.layers.clone(),
            final_norm: self.final_norm.clone(),
            inv_freq: self.inv_freq.clone(),
            facts: self.facts,
        }
    }

    /// The threads and the kernels it runs on.
    pub fn cpu(&self) -> &Cpu {
        &self.cpu
    }

    pub(crate) fn attention_shape(&self) -> AttentionShape {
        let ModelConfig { n_heads, n_kv_heads, head_dim, .. } = self.config;
        AttentionShape { n_heads, n_kv_heads, head_dim, scale: 1.0 / (head_dim as f32).sqrt() }
    }

    /// What loading did.
    pub fn facts(&self) -> LoadFacts {
        self.facts
    }

    /// The output head: its own matrix, or the embedding table.
    pub(crate) fn output_head(&self) -> &PackedMatrix {
        match &*self.tables {
            Tables::Tied(table) => table,
            Tables::Untied { head, .. } => head,
        }
    }

    /// Bytes of one embedding row as stored.
    pub(crate) fn embedding_row_bytes(&self) -> u64 {
        match &*self.tables {
            Tables::Tied(table) => table.format().bytes_of(table.cols()).unwrap_or(0) as u64,
            Tables::Untied { embedding, .. } => embedding.rows.row_bytes as u64,
        }
    }

    /// Decodes embedding row `id` into `out`: (hidden_size).
    pub(crate) fn embed(&self, id: u32, out: &mut [f32]) -> Result<(), EngineError> {
        match &*self.tables {
            Tables::Tied(table) => table.decode_row(id as usize, out)?,
            Tables::Untied { embedding, .. } => embedding.row(id, out)?,
        }
        Ok(())
    }
}
