//! Models made up from a geometry: random weights of plausible scale, a tokenizer of the right size, a file or a folder.
//!
//! Norms are 1, biases N(0, 0.02), embeddings N(0, 0.02), matrices N(0, 1/√cols), those that write onto the residual stream divided by
//! √(2·layers) besides, as GPT-2 was initialised: every activation stays near 1 whatever the depth, and logits stay finite.

mod folder;
mod random;
mod tokenizer;

use std::io::{BufWriter, Write};
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};

use roofline_limits::Recipe;
use roofline_model::config::ModelConfig;
use roofline_model::tensor_plan::{LayerRole, Role};
use roofline_model::{ModelError, TensorPlan, presets};
use roofline_weights::gguf::{TensorSpec, Value, Writer};
use roofline_weights::{Format, blocks};
use serde::Serialize;

use super::encode::{in_rounds, pieces};
use super::error::ConvertError;
use super::metadata::{describe, set_type};
use super::quantize::Progress;
use super::side_file::SideFile;
use super::tensors::{gguf_config, rope_factor_values};
use super::vocabulary::Vocabulary;
use random::Stream;

/// Where quantized blocks come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Blocks {
    /// Random bits with scales that give the right deviation: as fast as the disk.
    Random,
    /// Random values, encoded: what a quantizer would write.
    Encoded,
}

/// Above this many weights blocks are random unless asked otherwise: encoding takes about 100 ns per weight and thread.
const ENCODED_UP_TO: u64 = 1_000_000_000;

/// What to make up.
#[derive(Debug, Clone)]
pub struct SynthOptions {
    /// The file type, which gives each tensor its format; folders hold floats only.
    pub recipe: Recipe,
    /// Seed of the weights.
    pub seed: u64,
    /// Longest context to declare; the geometry's own if `None`.
    pub context: Option<usize>,
    /// Where quantized blocks come from; by size if `None`.
    pub blocks: Option<Blocks>,
    /// Most bytes of one file of a folder.
    pub shard_bytes: u64,
    /// Threads that work.
    pub threads: usize,
    /// Replace a file that is there.
    pub force: bool,
}

/// What was made up.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Synthesized {
    /// The file or folder.
    pub output: PathBuf,
    /// Name of the geometry.
    pub geometry: String,
    /// Hugging Face's name of the family.
    pub family: &'static str,
    /// Name of the file type.
    #[serde(rename = "type")]
    pub recipe: Recipe,
    /// Where quantized blocks come from; `None` when none are.
    pub blocks: Option<Blocks>,
    /// Seed of the weights.
    pub seed: u64,
    /// Longest context declared.
    pub context: usize,
    /// Weights.
    pub weights: u64,
    /// Bytes of all tensors.
    pub tensor_bytes: u64,
    /// Tensors.
    pub tensors: usize,
    /// Tokens of the made-up tokenizer; 0 when the vocabulary is too small for one.
    pub tokens: usize,
    /// What a reader of the file will not know.
    pub notes: Vec<String>,
}

/// A geometry as text and as configuration.
struct Geometry {
    name: String,
    json: serde_json::Value,
    config: ModelConfig,
}

/// One tensor to be made up.
#[derive(Debug, Clone)]
struct Tensor {
    spec: TensorSpec,
    role: Role,
}

/// Writes a model of `geometry` (a preset's name or the path of a config.json) to `output`: a GGUF file where the name ends in
/// `.gguf`, a Hugging Face folder otherwise.
///
/// # Errors
/// [`ConvertError`]; nothing is left at `output` then.
pub fn synthesize(
    geometry: &str,
    output: &Path,
    options: &SynthOptions,
    mut progress: impl FnMut(Progress<'_>) -> ControlFlow<()>,
) -> Result<Synthesized, ConvertError> {
    let geometry = read_geometry(geometry, options.context)?;
    let config = &geometry.config;
    let vocabulary = tokenizer::synthetic(config.vocab_size, config.bos_token_id, &config.eos_token_ids);
    let is_file = output.extension().is_some_and(|extension| extension == "gguf");
    let all = if is_file {
        of_gguf(&gguf_config(config), options.recipe)?
    } else {
        folder::tensors(config, options.recipe, output)?
    };
    let quantized = all.iter().any(|tensor| tensor.spec.format.is_quantized());
    let by_size = if config.parameters().total() > ENCODED_UP_TO { Blocks::Random } else { Blocks::Encoded };
    let blocks = quantized.then(|| options.blocks.unwrap_or(by_size));
    let maker = Maker { config, seed: options.seed, blocks, threads: options.threads };
    let plan =
        Plan { geometry: &geometry, output, options, maker, tensors: &all, vocabulary: vocabulary.as_ref() };
    let mut notes = if is_file { plan.write_gguf(&mut progress)? } else { plan.write_folder(&mut progress)? };
    if vocabulary.is_none() {
        notes.push(format!(
            "{} tokens cannot hold the 256 bytes, so there is no tokenizer",
            config.vocab_size
        ));
    }
    Ok(Synthesized {
        output: output.to_path_buf(),
        family: config.family.name(),
        recipe: options.recipe,
        blocks,
        seed: options.seed,
        context: config.context_length,
        weights: all.iter().map(|tensor| weights(&tensor.spec)).sum(),
        tensor_bytes: all.iter().map(|tensor| bytes(&tensor.spec)).sum(),
        tensors: all.len(),
        tokens: vocabulary.map_or(0, |vocabulary| vocabulary.tokens.len()),
        notes,
        geometry: geometry.name,
    })
}

fn weights(spec: &TensorSpec) -> u64 {
    spec.shape.iter().product::<usize>() as u64
}

fn bytes(spec: &TensorSpec) -> u64 {
    spec.format.bytes_of(spec.shape.iter().product()).unwrap_or(0) as u64
}

/// A preset, or a config.json where the text is a path.
fn read_geometry(geometry: &str, context: Option<usize>) -> Result<Geometry, ConvertError> {
    let path = Path::new(geometry);
    let (name, text) = if path.is_file() {
        let text = std::fs::read_to_string(path).map_err(|source| ConvertError::File {
            action: "read",
            path: path.to_path_buf(),
            source,
        })?;
        (geometry.to_owned(), text)
    } else if geometry.ends_with(".json") || path.is_dir() {
        let why =
            if path.is_dir() { "it is a folder; name its config.json" } else { "there is no such file" };
        return Err(ConvertError::Geometry { geometry: geometry.to_owned(), why: why.to_owned() });
    } else {
        let preset = presets::find(geometry)?;
        (preset.name.to_owned(), preset.config_json())
    };
    let bad = |reason: String| ModelError::Json { file: name.clone(), reason };
    let mut json: serde_json::Value = serde_json::from_str(&text).map_err(|error| bad(error.to_string()))?;
    let Some(object) = json.as_object_mut() else { return Err(bad("not an object".to_owned()).into()) };
    if let Some(context) = context {
        object.insert("max_position_embeddings".to_owned(), context.into());
    }
    let config = ModelConfig::from_config_json(&json.to_string(), &name)?;
    Ok(Geometry { name, json, config })
}

/// The tensors of a GGUF file: those of the plan that are one in the file, once.
fn of_gguf(config: &ModelConfig, recipe: Recipe) -> Result<Vec<Tensor>, ConvertError> {
    let format = |role| match role {
        Role::Layer(_, LayerRole::Router) => Ok(Format::F32),
        role => recipe.choose(config, role, false).map(|choice| choice.format),
    };
    distinct(TensorPlan::gguf(config), format)
}

/// The first source of every planned tensor, each name once.
fn distinct(
    plan: TensorPlan,
    format: impl Fn(Role) -> Result<Format, roofline_limits::LimitsError>,
) -> Result<Vec<Tensor>, ConvertError> {
    let mut names = std::collections::HashSet::new();
    let mut all = Vec::new();
    for planned in plan.tensors {
        let Some(source) = planned.sources.into_iter().next() else { continue };
        if names.insert(source.name.clone()) {
            let spec = TensorSpec { name: source.name, format: format(planned.role)?, shape: source.shape };
            all.push(Tensor { spec, role: planned.role });
        }
    }
    Ok(all)
}

/// Makes the bytes of tensors.
struct Maker<'a> {
    config: &'a ModelConfig,
    seed: u64,
    blocks: Option<Blocks>,
    threads: usize,
}

impl Maker<'_> {
    /// Gives the bytes of a tensor to `write`, front to back, and the weights finished to `done`.
    fn make(
        &self,
        tensor: &Tensor,
        mut write: impl FnMut(&[u8]) -> Result<(), ConvertError>,
        mut done: impl FnMut(u64) -> ControlFlow<()>,
    ) -> Result<(), ConvertError> {
        let shape = &tensor.spec.shape;
        let (rows, cols) = match shape.as_slice() {
            [length] => (1, *length),
            [leading @ .., cols] => (leading.iter().product(), *cols),
            [] => (1, 1),
        };
        in_rounds(
            &pieces(rows, rows, cols),
            self.threads,
            |rows| self.piece(tensor, rows, cols),
            |rows, bytes| {
                write(&bytes)?;
                match done((rows.end * cols) as u64).is_break() {
                    true => Err(ConvertError::Cancelled),
                    false => Ok(()),
                }
            },
        )
    }

    fn piece(&self, tensor: &Tensor, rows: &Range<usize>, cols: usize) -> Result<Vec<u8>, ConvertError> {
        let format = tensor.spec.format;
        let mut stream = Stream::new(self.seed, &tensor.spec.name, rows.start);
        let weights = rows.len() * cols;
        let mut bytes = Vec::with_capacity(format.bytes_of(weights).unwrap_or(0));
        let deviation = self.deviation(tensor.role, cols);
        if self.blocks == Some(Blocks::Random) && format.is_quantized() {
            stream.blocks(format, deviation, weights / format.block_len(), &mut bytes);
            return Ok(bytes);
        }
        let mut values = match tensor.role {
            Role::RopeFactors => rope_factor_values(self.config),
            _ => vec![1.0; weights], // (rows, cols)
        };
        if !is_norm(tensor.role) {
            stream.normal(deviation, &mut values);
        }
        blocks::encode(format, &values, None, &mut bytes).map_err(|source| ConvertError::Tensor {
            tensor: tensor.spec.name.clone(),
            rows: rows.clone(),
            source,
        })?;
        Ok(bytes)
    }

    /// Standard deviation of the weights of a role.
    fn deviation(&self, role: Role, cols: usize) -> f32 {
        let of_matrix = 1.0 / (cols as f32).sqrt();
        match role {
            Role::Layer(_, LayerRole::Wo | LayerRole::WDown | LayerRole::ExpertDown(_)) => {
                of_matrix / (2.0 * self.config.n_layers as f32).sqrt()
            }
            Role::OutputHead => of_matrix,
            Role::Layer(_, role) if is_matrix(role) => of_matrix,
            _ => 0.02,
        }
    }
}

fn is_matrix(role: LayerRole) -> bool {
    use LayerRole::{ExpertGate, ExpertUp, Router, WGate, WUp, Wk, Wq, Wv};
    matches!(role, Wq | Wk | Wv | WGate | WUp | Router | ExpertGate(_) | ExpertUp(_))
}

/// Weights that are not random: norms are 1, and so are the divisors of frequencies unless the geometry stretches them.
fn is_norm(role: Role) -> bool {
    match role {
        Role::FinalNorm | Role::RopeFactors => true,
        Role::Layer(_, role) => {
            use LayerRole::{AttentionNorm, FfnNorm, KNorm, QNorm};
            matches!(role, AttentionNorm | FfnNorm | QNorm | KNorm)
        }
        _ => false,
    }
}

/// Everything that is settled before the first byte is written.
struct Plan<'a> {
    geometry: &'a Geometry,
    output: &'a Path,
    options: &'a SynthOptions,
    maker: Maker<'a>,
    tensors: &'a [Tensor],
    vocabulary: Option<&'a Vocabulary>,
}

impl Plan<'_> {
    /// Writes the GGUF file and returns what its readers will not know.
    fn write_gguf(
        &self,
        progress: &mut impl FnMut(Progress<'_>) -> ControlFlow<()>,
    ) -> Result<Vec<String>, ConvertError> {
        let Plan { geometry, output, options, maker, tensors, vocabulary } = self;
        let name = format!("{} with random weights", geometry.name);
        let described = describe(&geometry.config, &name, &geometry.name)?;
        let mut metadata = described.metadata;
        set_type(&mut metadata, options.recipe);
        metadata.set("roofline.synth.geometry", Value::Str(geometry.name.clone()));
        metadata.set("roofline.synth.seed", Value::U64(options.seed));
        if let Some(blocks) = maker.blocks {
            let how = if blocks == Blocks::Random { "random blocks" } else { "encoded values" };
            metadata.set("roofline.synth.quantized", Value::Str(how.to_owned()));
        }
        match vocabulary {
            Some(vocabulary) => vocabulary.write(&mut metadata),
            None => metadata.set("tokenizer.ggml.model", Value::Str("none".to_owned())),
        }
        let specs: Vec<TensorSpec> = tensors.iter().map(|tensor| tensor.spec.clone()).collect();
        let side = SideFile::create(output, options.force)?;
        let file = BufWriter::with_capacity(1 << 20, side.file());
        let mut writer = Writer::new(output.display().to_string(), file, &metadata, &specs)?;
        let total = specs.iter().map(weights).sum();
        let mut before = 0;
        for tensor in *tensors {
            let name = &tensor.spec.name;
            maker.make(
                tensor,
                |bytes| Ok(writer.append(name, bytes)?),
                |done| progress(Progress { tensor: name, done: before + done, total }),
            )?;
            before += weights(&tensor.spec);
        }
        writer.finish()?.flush().map_err(|source| ConvertError::File {
            action: "write",
            path: output.to_path_buf(),
            source,
        })?;
        side.keep()?;
        Ok(described.notes)
    }
}
