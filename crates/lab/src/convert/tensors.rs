//! The tensors of the GGUF file being written, and where each of their rows lies in the source.

use std::collections::HashMap;
use std::ops::Range;

use roofline_model::config::{Family, ModelConfig, Pairing, RopeScaling};
use roofline_model::tensor_plan::{LayerRole, PlannedTensor, Role, Rows, Source};
use roofline_model::{ModelError, TensorPlan};
use roofline_weights::{Checkpoint, Format, TensorView, WeightsError, blocks};

use super::error::ConvertError;

/// One tensor of the output. A vector is seen as rows of one value.
#[derive(Debug, Clone)]
pub(super) struct OutputTensor<'a> {
    /// Name in the GGUF file.
    pub name: String,
    /// Outermost dimension first.
    pub shape: Vec<usize>,
    /// What it is for; `None` for one that no forward pass needs. Stacked experts have the role of the first.
    pub role: Option<Role>,
    data: Data<'a>,
}

#[derive(Debug, Clone)]
enum Data<'a> {
    /// Parts of source tensors, one above the other.
    Parts(Vec<Part<'a>>),
    /// Values that only the configuration knows.
    Values(Vec<f32>),
}

/// Rows of one source tensor.
#[derive(Debug, Clone, Copy)]
struct Part<'a> {
    view: TensorView<'a>,
    rows: Rows,
    count: usize,
    /// Width of the heads whose rotated pairs the output holds in adjacent rows.
    adjacent: Option<usize>,
}

impl<'a> OutputTensor<'a> {
    /// A tensor that is written as it lies in the source.
    fn whole(view: TensorView<'a>, role: Option<Role>) -> OutputTensor<'a> {
        let (count, _) = as_matrix(view.shape);
        let part = Part { view, rows: Rows::All, count, adjacent: None };
        let (name, shape) = (view.name.to_owned(), view.shape.to_vec());
        OutputTensor { name, shape, role, data: Data::Parts(vec![part]) }
    }

    /// (rows, cols): the leading dimensions together, the last one.
    pub fn as_matrix(&self) -> (usize, usize) {
        as_matrix(&self.shape)
    }

    /// Number of weights.
    pub fn weights(&self) -> usize {
        self.shape.iter().product()
    }

    /// The formats its parts lie in, each once.
    pub fn source_formats(&self) -> Vec<Format> {
        let Data::Parts(parts) = &self.data else { return vec![Format::F32] };
        let mut formats: Vec<Format> = parts.iter().map(|part| part.view.format).collect();
        formats.sort_unstable();
        formats.dedup();
        formats
    }

    /// Decodes rows into `out`, (rows.len(), cols).
    pub fn decode(&self, rows: Range<usize>, out: &mut [f32]) -> Result<(), WeightsError> {
        let (_, cols) = self.as_matrix();
        match &self.data {
            Data::Values(values) => {
                out.copy_from_slice(&values[rows.start * cols..rows.end * cols]);
                Ok(())
            }
            Data::Parts(parts) => {
                let mut out = out.chunks_exact_mut(cols);
                each_row(parts, rows, cols, |format, bytes| match out.next() {
                    Some(out) => blocks::decode(format, bytes, out),
                    None => Ok(()),
                })
            }
        }
    }

    /// Appends rows as they are stored; every part must be in the output's format.
    pub fn copy(&self, rows: Range<usize>, out: &mut Vec<u8>) -> Result<(), WeightsError> {
        let (_, cols) = self.as_matrix();
        match &self.data {
            Data::Values(values) => {
                blocks::encode(Format::F32, &values[rows.start * cols..rows.end * cols], None, out)
            }
            Data::Parts(parts) => each_row(parts, rows, cols, |_, bytes| {
                out.extend_from_slice(bytes);
                Ok(())
            }),
        }
    }
}

fn as_matrix(shape: &[usize]) -> (usize, usize) {
    match shape {
        [] => (1, 1),
        [length] => (*length, 1),
        [leading @ .., cols] => (leading.iter().product(), *cols),
    }
}

/// Calls `row` with format and bytes of each output row.
fn each_row(
    parts: &[Part<'_>],
    rows: Range<usize>,
    cols: usize,
    mut row: impl FnMut(Format, &[u8]) -> Result<(), WeightsError>,
) -> Result<(), WeightsError> {
    let mut first = 0; // output row at which the part begins
    for part in parts {
        let (start, end) = (rows.start.max(first), rows.end.min(first + part.count));
        let Part { view, .. } = part;
        let width = view.format.bytes_of(cols).ok_or_else(|| WeightsError::BlockBytes {
            format: view.format,
            weights: cols,
            expected: format!("not a whole number of blocks of {}", view.format.block_len()),
            bytes: view.bytes.len(),
        })?;
        for output in start..end {
            let at = part.source_row(output - first) * width;
            row(view.format, &view.bytes[at..at + width])?;
        }
        first += part.count;
    }
    Ok(())
}

impl Part<'_> {
    /// The row of the source tensor that becomes row `row` of this part.
    fn source_row(&self, row: usize) -> usize {
        let planned = match self.adjacent {
            // (2, half) within each head becomes (half, 2)
            Some(head_dim) => {
                let (head, i) = (row / head_dim, row % head_dim);
                head * head_dim + (i % 2) * (head_dim / 2) + i / 2
            }
            None => row,
        };
        match self.rows {
            Rows::All => planned,
            Rows::Runs { start, run, stride, .. } => start + planned / run * stride + planned % run,
        }
    }
}

/// The configuration as a GGUF file holds it: Llama's pairs adjacent, Llama 3's stretching a tensor.
pub(super) fn gguf_config(config: &ModelConfig) -> ModelConfig {
    let mut config = config.clone();
    if matches!(config.family, Family::Llama | Family::Mixtral) {
        config.rope.pairing = Pairing::Adjacent;
    }
    if matches!(config.rope.scaling, RopeScaling::Llama3 { .. }) {
        config.rope.scaling = RopeScaling::FrequencyFactors;
    }
    config
}

/// The output tensors of a GGUF file, in its own order.
pub(super) fn of_gguf<'a>(
    config: &ModelConfig,
    checkpoint: &'a Checkpoint,
) -> Result<Vec<OutputTensor<'a>>, ConvertError> {
    if let Some((name, _)) = checkpoint.unsupported().next() {
        checkpoint.require(name)?; // the error that says what it is
    }
    let plan = TensorPlan::gguf(config);
    let chosen = check(&plan, checkpoint)?;
    let mut roles: HashMap<&str, Role> = HashMap::new();
    for (tensor, source) in plan.tensors.iter().zip(chosen) {
        roles.entry(source.name.as_str()).or_insert(tensor.role);
    }
    Ok(checkpoint.tensors().map(|view| OutputTensor::whole(view, roles.get(view.name).copied())).collect())
}

/// The output tensors of a Hugging Face folder whose configuration is `config`, in the order of the forward pass.
pub(super) fn of_hugging_face<'a>(
    config: &ModelConfig,
    checkpoint: &'a Checkpoint,
) -> Result<Vec<OutputTensor<'a>>, ConvertError> {
    let plan = TensorPlan::hugging_face(config);
    let chosen = check(&plan, checkpoint)?;
    let by_role: HashMap<Role, &Source> = plan.tensors.iter().map(|tensor| tensor.role).zip(chosen).collect();
    let mut tensors: Vec<OutputTensor<'a>> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for planned in TensorPlan::gguf(&gguf_config(config)).tensors {
        let Some(target) = planned.sources.first() else {
            return Err(ConvertError::NotExpressible {
                file: config.family.name().to_owned(),
                what: format!("{:?}", planned.role),
                why: "GGUF has no name for it".to_owned(),
            });
        };
        if planned.role == Role::RopeFactors {
            tensors.push(rope_factors(config, target));
            continue;
        }
        let source = by_role.get(&planned.role).copied();
        let part = part(config, checkpoint, &planned, source)?;
        let place = *places.entry(target.name.clone()).or_insert_with(|| {
            tensors.push(OutputTensor {
                name: target.name.clone(),
                shape: target.shape.clone(),
                role: Some(planned.role),
                data: Data::Parts(Vec::new()),
            });
            tensors.len() - 1
        });
        if let Data::Parts(parts) = &mut tensors[place].data {
            parts.push(part);
        }
    }
    Ok(tensors)
}

fn check<'p>(plan: &'p TensorPlan, checkpoint: &Checkpoint) -> Result<Vec<&'p Source>, ConvertError> {
    // A tensor of an unreadable type would count as missing; say what it is instead.
    if let Some((name, _)) = checkpoint.unsupported().find(|(name, _)| !plan.ignores(name)) {
        checkpoint.require(name)?;
    }
    let present: Vec<_> = checkpoint.tensors().collect();
    Ok(plan.check(present.iter().map(|view| (view.name, view.shape))).map_err(ModelError::from)?)
}

/// The rows of one planned tensor, in the order in which the plans of fused and stacked tensors follow each other.
fn part<'a>(
    config: &ModelConfig,
    checkpoint: &'a Checkpoint,
    planned: &PlannedTensor,
    source: Option<&Source>,
) -> Result<Part<'a>, ConvertError> {
    let missing = || WeightsError::MissingTensor {
        file: "the folder".to_owned(),
        tensor: planned.sources.first().map(|source| source.name.clone()).unwrap_or_default(),
    };
    let source = source.ok_or_else(missing)?;
    let view = checkpoint.require(&source.name)?;
    let rotated =
        matches!(planned.role, Role::Layer(_, LayerRole::Wq | LayerRole::Wk | LayerRole::Bq | LayerRole::Bk));
    let adjacent = gguf_config(config).rope.pairing == Pairing::Adjacent && rotated;
    Ok(Part {
        view,
        rows: source.rows,
        count: as_matrix(&planned.shape).0,
        adjacent: adjacent.then_some(config.head_dim),
    })
}

fn rope_factors(config: &ModelConfig, target: &Source) -> OutputTensor<'static> {
    OutputTensor {
        name: target.name.clone(),
        shape: target.shape.clone(),
        role: Some(Role::RopeFactors),
        data: Data::Values(rope_factor_values(config)),
    }
}

/// The divisors of the frequencies that stand for Llama 3's stretching; (rotary_dim / 2). The rule is that of transformers
/// (`_compute_llama3_parameters`), which stretches the frequencies themselves.
pub(super) fn rope_factor_values(config: &ModelConfig) -> Vec<f32> {
    let rope = &config.rope;
    let value = |i: usize| {
        let RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } =
            rope.scaling
        else {
            return 1.0;
        };
        let period = 2.0 * std::f64::consts::PI * rope.theta.powf((2 * i) as f64 / rope.rotary_dim as f64);
        let turns = original_context as f64 / period;
        let kept = ((turns - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0.0, 1.0);
        (1.0 / ((1.0 - kept) / factor + kept)) as f32
    };
    (0..rope.rotary_dim / 2).map(value).collect()
}
