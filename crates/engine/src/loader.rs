//! From files to a [`Model`]: every planned tensor is found, checked and packed, and every other one accounted for.

use crate::cpu::{Cpu, inv_freq};
use crate::error::EngineError;
use crate::files::ModelFiles;
use crate::model::{
    ExpertWeights, Layer, LayerFfn, Linear, LoadFacts, MappedRows, MappedTable, Model, NormWeights, Packing,
    Tables,
};
use roofline_kernels::{KernelError, PackedMatrix, Team};
use roofline_model::ModelConfig;
use roofline_model::config::{Ffn, RopeScaling};
use roofline_model::tensor_plan::{LayerRole, PlannedTensor, Role, Rows, Source};
use roofline_weights::{Format, TensorView, blocks};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

impl Model {
    /// Packs the weights of `files` for `cpu`. `progress` hears (tensors done, tensors in all).
    ///
    /// # Errors
    /// Tensors missing, unexpected, of another shape than the configuration says, or holding NaN or infinity (named);
    /// no memory.
    pub fn load(
        files: &ModelFiles,
        cpu: Cpu,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Model, EngineError> {
        Model::load_with(files, cpu, Packing::AtLoad, progress)
    }

    /// The same, with the matrices packed now or at each use.
    ///
    /// # Errors
    /// As for [`Model::load`]; with [`Packing::AtUse`] what a matrix holds is not looked at before it is multiplied, which
    /// then fails with [`KernelError::NotFiniteIn`].
    pub fn load_with(
        files: &ModelFiles,
        cpu: Cpu,
        packing: Packing,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Model, EngineError> {
        let started = Instant::now();
        let config = files.config().clone();
        let present = files.checkpoint().tensors().map(|view| (view.name, view.shape));
        if let Err(mismatch) = files.plan().check(present) {
            // A tensor in a format we cannot read counts as missing there: its format is the better complaint.
            mismatch.missing.iter().try_for_each(|name| files.checkpoint().find(name).map(drop))?;
            return Err(mismatch.into());
        }
        let mut loader = Loader::new(files, &cpu, packing, progress);
        let rope_factors = match config.rope.scaling {
            RopeScaling::FrequencyFactors => Some(loader.vector(Role::RopeFactors)?),
            _ => None,
        };
        let inv_freq = inv_freq(&config.rope, rope_factors.as_deref());
        let tables = loader.tables(&config)?.into();
        let layers =
            (0..config.n_layers).map(|index| loader.layer(index, &config)).collect::<Result<_, _>>()?;
        let final_norm = loader.norm(Role::FinalNorm, Role::FinalNormBias)?.into();
        let facts = LoadFacts {
            packing,
            time: started.elapsed(),
            pack_time: loader.pack_time,
            weight_bytes: loader.bytes,
            packed_bytes: loader.packed_bytes,
            parameters: loader.parameters,
        };
        Ok(Model { config, cpu, tables, layers, final_norm, inv_freq, facts })
    }
}

/// Looks planned tensors up by role.
struct Loader<'a> {
    files: &'a ModelFiles,
    cpu: &'a Cpu,
    packing: Packing,
    planned: HashMap<Role, &'a PlannedTensor>,
    progress: &'a mut dyn FnMut(usize, usize),
    done: usize,
    bytes: u64,
    parameters: u64,
    pack_time: Duration,
    packed_bytes: u64,
}

impl<'a> Loader<'a> {
    fn new(
        files: &'a ModelFiles,
        cpu: &'a Cpu,
        packing: Packing,
        progress: &'a mut dyn FnMut(usize, usize),
    ) -> Loader<'a> {
        let planned = files.plan().tensors.iter().map(|tensor| (tensor.role, tensor)).collect();
        Loader {
            files,
            cpu,
            packing,
            planned,
            progress,
            done: 0,
            bytes: 0,
            parameters: 0,
            pack_time: Duration::ZERO,
            packed_bytes: 0,
        }
    }

    /// The bytes of a planned tensor and which rows of them it is. The plan was checked: a miss is a plan without the
    /// role, an error of ours and reported as such.
    fn find(&mut self, role: Role) -> Result<(TensorView<'a>, &'a Source, &'a PlannedTensor), EngineError> {
        let planned = *self.planned.get(&role).ok_or(EngineError::NotPlanned { role })?;
        let checkpoint = self.files.checkpoint();
        for source in &planned.sources {
            if let Some(view) = checkpoint.find(&source.name)? {
                self.done += 1;
                (self.progress)(self.done, self.planned.len());
                return Ok((view, source, planned));
            }
        }
        Err(EngineError::NotPlanned { role })
    }

    fn count(&mut self, weights: usize, format: Format) {
        self.parameters += weights as u64;
        self.bytes += format.bytes_of(weights).unwrap_or(0) as u64;
    }

    /// A vector as f32, every value finite.
    fn vector(&mut self, role: Role) -> Result<Vec<f32>, EngineError> {
        let (view, source, planned) = self.find(role)?;
        let len: usize = planned.shape.iter().product();
        let total: usize = view.shape.iter().product();
        let mut all = vec![0.0; total]; // (total)
        blocks::decode(view.format, view.bytes, &mut all)?;
        let values: Vec<f32> = match source.rows {
            Rows::All => all,
            rows => (0..len).map(|index| all[rows.source_row(index)]).collect(),
        };
        if let Some(index) = values.iter().position(|value| !value.is_finite()) {
            return Err(EngineError::NotFinite { name: source.name.clone(), value: values[index], index });
        }
        self.count(len, view.format);
        Ok(values)
    }

    fn optional(&mut self, role: Role) -> Result<Option<Vec<f32>>, EngineError> {
        if self.planned.contains_key(&role) { self.vector(role).map(Some) } else { Ok(None) }
    }

    fn norm(&mut self, weight: Role, bias: Role) -> Result<NormWeights, EngineError> {
        Ok(NormWeights { weight: self.vector(weight)?, bias: self.optional(bias)? })
    }

    fn matrix(&mut self, role: Role) -> Result<PackedMatrix, EngineError> {
        let (view, source, planned) = self.find(role)?;
        let [rows, cols] = planned.shape[..] else { return Err(EngineError::NotPlanned { role }) };
        let matrix = match self.packing {
            Packing::AtLoad => self.packed(&view, source, rows, cols),
            Packing::AtUse => self
                .mapped_rows(&view, source, cols)
                .and_then(|source| PackedMatrix::mapped(view.format, rows, cols, Arc::new(source))),
        };
        let matrix =
            matrix.map_err(|error| EngineError::Tensor { name: source.name.clone(), role, source: error })?;
        self.count(rows * cols, view.format);
        self.packed_bytes += matrix.allocated_bytes() as u64;
        Ok(matrix)
    }

    fn packed(
        &mut self,
        view: &TensorView<'_>,
        source: &Source,
        rows: usize,
        cols: usize,
    ) -> Result<PackedMatrix, KernelError> {
        let started = Instant::now();
        let row_bytes = view.format.bytes_of(cols).unwrap_or(0);
        let of_row = |row: usize| {
            let at = source.rows.source_row(row) * row_bytes;
            &view.bytes[at..at + row_bytes]
        };
        // Never two copies of the weights resident: what is packed lets go of its file as packing goes on.
        let (checkpoint, mut released) = (self.files.checkpoint(), 0);
        let mut release = |rows: usize| {
            if let Rows::All = source.rows {
                checkpoint.release_part(&source.name, released..rows * row_bytes);
                released = rows * row_bytes;
            }
        };
        let packed = PackedMatrix::pack_with(view.format, rows, cols, &of_row, &self.cpu.team, &mut release);
        checkpoint.release(&source.name);
        self.pack_time += started.elapsed();
        packed
    }

    /// The rows of `view`, kept where they are.
    fn mapped_rows(
        &self,
        view: &TensorView<'_>,
        source: &Source,
        cols: usize,
    ) -> Result<MappedRows, KernelError> {
        let format = view.format;
        let row_bytes = format.bytes_of(cols).ok_or(KernelError::PartialBlock { format, cols })?;
        let checkpoint = self.files.checkpoint().clone();
        // Every view comes from the checkpoint, so it has a position there; without one no row would be found.
        let position = checkpoint.position(view.name).unwrap_or(usize::MAX);
        Ok(MappedRows { checkpoint, position, name: source.name.clone(), rows: source.rows, row_bytes })
    }

    /// The embedding table and the output head. An untied table is only looked up, a row a token: it stays in the file.
    fn tables(&mut self, config: &ModelConfig) -> Result<Tables, EngineError> {
        let role = Role::TokenEmbedding;
        if config.tied_embeddings {
            return Ok(Tables::Tied(self.matrix(role)?));
        }
        let (view, source, _) = self.find(role)?;
        let refused = |error| EngineError::Tensor { name: source.name.clone(), role, source: error };
        let rows = self.mapped_rows(&view, source, config.hidden_size).map_err(refused)?;
        self.count(config.vocab_size * config.hidden_size, view.format);
        let embedding = match self.packing {
            Packing::AtLoad => {
                if let Some((row, col)) = first_not_finite(&view, rows.row_bytes, &self.cpu.team) {
                    return Err(refused(KernelError::NotFinite { row, col }));
                }
                self.files.checkpoint().release(&source.name);
                MappedTable { rows, format: view.format, checked: true }
            }
            Packing::AtUse => MappedTable { rows, format: view.format, checked: false },
        };
        Ok(Tables::Untied { embedding, head: self.matrix(Role::OutputHead)? })
    }

    fn layer(&mut self, index: usize, config: &ModelConfig) -> Result<Layer, EngineError> {
        let role = |role| Role::Layer(index, role);
        Ok(Layer {
            attention_norm: self.norm(role(LayerRole::AttentionNorm), role(LayerRole::AttentionNormBias))?,
            wq: self.linear(role(LayerRole::Wq), role(LayerRole::Bq))?,
            wk: self.linear(role(LayerRole::Wk), role(LayerRole::Bk))?,
            wv: self.linear(role(LayerRole::Wv), role(LayerRole::Bv))?,
            q_norm: self.optional(role(LayerRole::QNorm))?,
            k_norm: self.optional(role(LayerRole::KNorm))?,
            wo: self.linear(role(LayerRole::Wo), role(LayerRole::Bo))?,
            ffn_norm: self.norm(role(LayerRole::FfnNorm), role(LayerRole::FfnNormBias))?,
            ffn: self.ffn(index, config)?,
        })
    }

    fn linear(&mut self, weight: Role, bias: Role) -> Result<Linear, EngineError> {
        Ok(Linear { w: self.matrix(weight)?, bias: self.optional(bias)? })
    }

    fn ffn(&mut self, index: usize, config: &ModelConfig) -> Result<LayerFfn, EngineError> {
        let role = |role| Role::Layer(index, role);
        match config.ffn {
            Ffn::Gated { .. } => Ok(LayerFfn::Gated {
                w_gate: self.linear(role(LayerRole::WGate), role(LayerRole::BGate))?,
                w_up: self.linear(role(LayerRole::WUp), role(LayerRole::BUp))?,
                w_down: self.linear(role(LayerRole::WDown), role(LayerRole::BDown))?,
            }),
            Ffn::Plain { .. } => Ok(LayerFfn::Plain {
                w_up: self.linear(role(LayerRole::WUp), role(LayerRole::BUp))?,
                w_down: self.linear(role(LayerRole::WDown), role(LayerRole::BDown))?,
            }),
            Ffn::Experts { n_experts, .. } => {
                let mut all = |one: fn(usize) -> LayerRole| {
                    (0..n_experts).map(|expert| self.matrix(role(one(expert)))).collect::<Result<Vec<_>, _>>()
                };
                let w_gate = all(LayerRole::ExpertGate)?;
                let w_up = all(LayerRole::ExpertUp)?;
                let w_down = all(LayerRole::ExpertDown)?;
                let router = Linear { w: self.matrix(role(LayerRole::Router))?, bias: None };
                let in_formats = formats(w_gate.iter().chain(&w_up));
                let out_formats = formats(w_down.iter());
                Ok(LayerFfn::Experts(ExpertWeights { router, w_gate, w_up, w_down, in_formats, out_formats }))
            }
        }
    }
}

/// Row and column of the first weight (or of its block) that is NaN or infinite, in rows of `row_bytes`. A table that is
/// only looked up passes no packing, which would have found it.
fn first_not_finite(table: &TensorView<'_>, row_bytes: usize, team: &Team) -> Option<(usize, usize)> {
    let first = AtomicUsize::new(usize::MAX);
    let rows: Vec<&[u8]> = table.bytes.chunks(row_bytes.max(1)).collect(); // (vocab_size)
    const ROWS: usize = 256; // a tile
    team.run(rows.len().div_ceil(ROWS), &|tile, _| {
        let tile_rows = rows.iter().enumerate().skip(tile * ROWS).take(ROWS);
        for (row, bytes) in tile_rows {
            if blocks::first_not_finite(table.format, bytes).is_some() {
                first.fetch_min(row, Ordering::Relaxed);
                return;
            }
        }
    });
    let row = first.into_inner();
    rows.get(row).and_then(|bytes| Some((row, blocks::first_not_finite(table.format, bytes)?)))
}

/// The different formats among `matrices`.
fn formats<'m>(matrices: impl Iterator<Item = &'m PackedMatrix>) -> Vec<Format> {
    let mut formats: Vec<Format> = matrices.map(|w| w.format()).collect();
    formats.sort_unstable();
    formats.dedup();
    formats
}
