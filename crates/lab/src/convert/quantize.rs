//! From a Hugging Face folder or a GGUF file to a GGUF file of a chosen type, tensor by tensor.

use std::io::{BufWriter, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use roofline_limits::Recipe;
use roofline_model::ModelConfig;
use roofline_model::tensor_plan::{LayerRole, Role};
use roofline_weights::gguf::{Array, Metadata, TensorSpec, Value, Writer};
use roofline_weights::{Checkpoint, Format};
use serde::Serialize;

use super::encode::Task;
use super::error::ConvertError;
use super::importance::Importance;
use super::metadata::{Described, describe, set_type};
use super::side_file::SideFile;
use super::tensors::{self, OutputTensor};
use super::vocabulary;

/// What to make of a model.
#[derive(Debug, Clone)]
pub struct QuantizeOptions {
    /// The file type, which gives each tensor its format.
    pub recipe: Recipe,
    /// Threads that encode.
    pub threads: usize,
    /// llama.cpp's importance matrix, if one is to guide the encoder.
    pub importance: Option<PathBuf>,
    /// Replace a file that is there.
    pub force: bool,
    /// Quantize tensors that are quantized already.
    pub requantize: bool,
}

/// How far the work has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<'a> {
    /// The tensor at hand.
    pub tensor: &'a str,
    /// Weights written.
    pub done: u64,
    /// Weights in all.
    pub total: u64,
}

/// What became of the model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Quantized {
    /// The file written.
    pub output: PathBuf,
    /// `general.architecture`.
    pub architecture: String,
    /// Name of the file type.
    #[serde(rename = "type")]
    pub recipe: Recipe,
    /// Every tensor, in file order.
    pub tensors: Vec<QuantizedTensor>,
    /// Weights in all.
    pub weights: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Bytes of the tensors in the source.
    pub source_bytes: u64,
    /// √(Σ error² / Σ value²) over all tensors that were encoded.
    pub relative_error: f64,
    /// What a reader of the file will not know, and what was left to a default.
    pub notes: Vec<String>,
}

/// What became of one tensor.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct QuantizedTensor {
    /// Name in the file.
    pub name: String,
    /// Outermost dimension first.
    pub shape: Vec<usize>,
    /// Formats it had, usually one.
    pub from: Vec<&'static str>,
    /// Format it has.
    pub to: &'static str,
    /// The format that the type asks for, where rows do not fill its blocks.
    pub instead_of: Option<&'static str>,
    /// Whether an importance matrix guided it.
    pub importance: bool,
    /// Bytes written.
    pub bytes: u64,
    /// √(Σ error² / Σ value²).
    pub relative_error: f64,
    /// Largest |error|.
    pub largest_error: f64,
}

/// A model whose tensors can be read: what [`quantize`] starts from.
struct Input {
    config: ModelConfig,
    checkpoint: Checkpoint,
    described: Described,
}

/// Writes `input` (a Hugging Face folder or a GGUF file) as the GGUF file `output`. `progress` is asked after each round of pieces
/// whether to go on.
///
/// # Errors
/// [`ConvertError`]; nothing is left at `output` then, and a file that was there is untouched.
pub fn quantize(
    input: &Path,
    output: &Path,
    options: &QuantizeOptions,
    mut progress: impl FnMut(Progress<'_>) -> ControlFlow<()>,
) -> Result<Quantized, ConvertError> {
    let Input { config, checkpoint, described } = open(input)?;
    let importance = options.importance.as_deref().map(Importance::read).transpose()?;
    let is_gguf = checkpoint.gguf().is_some();
    let outputs = if is_gguf {
        tensors::of_gguf(&config, &checkpoint)?
    } else {
        tensors::of_hugging_face(&config, &checkpoint)?
    };
    let (plans, mut notes) = plan(&config, &outputs, options, importance.as_ref())?;
    let Described { mut metadata, notes: described } = described;
    notes.splice(0..0, described);
    set_type(&mut metadata, options.recipe);
    if let Some(importance) = &importance {
        set_importance(&mut metadata, importance);
    }
    let side = SideFile::create(output, options.force)?;
    let file = BufWriter::with_capacity(1 << 20, side.file());
    let written = write(output, file, &metadata, &plans, options.threads, &mut progress)?;
    side.keep()?;
    Ok(Quantized {
        output: output.to_path_buf(),
        architecture: metadata.str("general.architecture")?.to_owned(),
        recipe: options.recipe,
        weights: outputs.iter().map(|tensor| tensor.weights() as u64).sum(),
        bytes: std::fs::metadata(output).map_or(0, |file| file.len()),
        source_bytes: checkpoint.tensors().map(|tensor| tensor.bytes.len() as u64).sum(),
        relative_error: written.relative_error,
        tensors: written.tensors,
        notes,
    })
}

/// Opens a folder with config.json, or a GGUF file.
fn open(input: &Path) -> Result<Input, ConvertError> {
    let found = std::fs::metadata(input).map_err(|source| ConvertError::File {
        action: "read",
        path: input.to_path_buf(),
        source,
    })?;
    let file = input.display().to_string();
    if !found.is_dir() {
        let not = |why: &str| ConvertError::NotAModel { path: input.to_path_buf(), why: why.to_owned() };
        if input.extension().is_some_and(|extension| extension == "safetensors") {
            return Err(not("weights alone; name the folder that holds config.json beside them"));
        }
        let checkpoint = Checkpoint::open_gguf(input)?;
        let Some(header) = checkpoint.gguf() else { return Err(not("not a GGUF file")) };
        let config = ModelConfig::from_gguf(header, &file)?;
        let described = Described { metadata: header.metadata.clone(), notes: Vec::new() };
        return Ok(Input { config, checkpoint, described });
    }
    let path = input.join("config.json");
    let text = std::fs::read_to_string(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => ConvertError::NotAModel {
            path: input.to_path_buf(),
            why: "the folder holds no config.json".to_owned(),
        },
        _ => ConvertError::File { action: "read", path: path.clone(), source: error },
    })?;
    let config = ModelConfig::from_config_json(&text, &path.display().to_string())?;
    let checkpoint = Checkpoint::open_hf(input)?;
    let name =
        input.canonicalize().ok().and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    let mut described = describe(&config, name.as_deref().unwrap_or("model"), &file)?;
    match vocabulary::read(input, &config)? {
        Some(vocabulary) => {
            vocabulary.write(&mut described.metadata);
            described.notes.extend(vocabulary.notes);
        }
        None => {
            described.metadata.set("tokenizer.ggml.model", Value::Str("none".to_owned()));
            described.notes.push("the folder has no tokenizer.json, so the file has no tokenizer".to_owned());
        }
    }
    Ok(Input { config, checkpoint, described })
}

fn set_importance(metadata: &mut Metadata, importance: &Importance) {
    metadata.set("quantize.imatrix.file", Value::Str(importance.file.clone()));
    if let [dataset] = importance.datasets.as_slice() {
        metadata.set("quantize.imatrix.dataset", Value::Str(dataset.clone()));
    } else if !importance.datasets.is_empty() {
        metadata
            .set("quantize.imatrix.datasets", Value::Array(Array::Str(importance.datasets.iter().collect())));
    }
    let number = |n: u64| Value::U32(u32::try_from(n).unwrap_or(u32::MAX));
    metadata.set("quantize.imatrix.entries_count", number(importance.len() as u64));
    if let Some(chunks) = importance.chunks {
        metadata.set("quantize.imatrix.chunks_count", number(chunks));
    }
}

/// One tensor with the format it is to have.
struct Planned<'a> {
    tensor: &'a OutputTensor<'a>,
    format: Format,
    wanted: Format,
    importance: Vec<&'a [f32]>,
}

/// Chooses every format before anything is written.
fn plan<'a>(
    config: &ModelConfig,
    outputs: &'a [OutputTensor<'a>],
    options: &QuantizeOptions,
    importance: Option<&'a Importance>,
) -> Result<(Vec<Planned<'a>>, Vec<String>), ConvertError> {
    let mut plans = Vec::with_capacity(outputs.len());
    let mut without = Vec::new();
    for tensor in outputs {
        let (format, wanted) = match tensor.role {
            // Routers are small and decide everything after them: F32, as llama.cpp's converter writes them.
            None | Some(Role::Layer(_, LayerRole::Router)) => (Format::F32, Format::F32),
            Some(role) => {
                let choice = options.recipe.choose(config, role, importance.is_some())?;
                (choice.format, choice.wanted)
            }
        };
        let requantized = |from: &&Format| from.is_quantized() && **from != format && format.is_quantized();
        let from = tensor.source_formats();
        if let Some(from) = from.iter().find(requantized).filter(|_| !options.requantize) {
            return Err(ConvertError::Requantize { tensor: tensor.name.clone(), format: *from });
        }
        let mut rows = Vec::new();
        if let Some(importance) = importance.filter(|_| format.is_quantized()) {
            let (count, cols) = tensor.as_matrix();
            let matrices = if tensor.shape.len() == 3 { tensor.shape[0] } else { 1 };
            match importance.of(&tensor.name, matrices.min(count), cols)? {
                Some(found) => rows = found,
                None => without.push(tensor.name.as_str()),
            }
        }
        plans.push(Planned { tensor, format, wanted, importance: rows });
    }
    if let Some(importance) = importance
        && plans.iter().all(|plan| plan.importance.is_empty())
    {
        let why = match without.as_slice() {
            [] => format!("{} encodes no tensor; leave the importance matrix out", options.recipe.name()),
            [first, ..] => format!(
                "it has no entry for any of the model's {} matrices, as {first}; it was computed on another model",
                without.len()
            ),
        };
        return Err(ConvertError::ImportanceUnused { file: importance.file.clone(), why });
    }
    let mut notes = Vec::new();
    if !without.is_empty() {
        notes.push(format!("the importance matrix has no entry for {}: encoded without", without.join(", ")));
    }
    Ok((plans, notes))
}

/// What [`write`] did.
struct Written {
    tensors: Vec<QuantizedTensor>,
    relative_error: f64,
}

/// Writes header and tensors to `out`, called `path` in errors.
fn write<W: Write>(
    path: &Path,
    out: W,
    metadata: &Metadata,
    plans: &[Planned<'_>],
    threads: usize,
    progress: &mut impl FnMut(Progress<'_>) -> ControlFlow<()>,
) -> Result<Written, ConvertError> {
    let spec = |plan: &Planned<'_>| TensorSpec {
        name: plan.tensor.name.clone(),
        format: plan.format,
        shape: plan.tensor.shape.clone(),
    };
    let specs: Vec<TensorSpec> = plans.iter().map(spec).collect();
    let mut writer = Writer::new(path.display().to_string(), out, metadata, &specs)?;
    let total = plans.iter().map(|plan| plan.tensor.weights() as u64).sum();
    let mut before = 0;
    let mut all = super::encode::Loss::default();
    let mut tensors = Vec::with_capacity(plans.len());
    for plan in plans {
        let Planned { tensor, format, wanted, importance } = plan;
        let task = Task { tensor, format: *format, importance, threads };
        let mut bytes = 0;
        let loss = task.run(
            |piece| {
                bytes += piece.len() as u64;
                Ok(writer.append(&tensor.name, piece)?)
            },
            |done| progress(Progress { tensor: &tensor.name, done: before + done as u64, total }),
        )?;
        before += tensor.weights() as u64;
        all.add(loss);
        tensors.push(QuantizedTensor {
            name: tensor.name.clone(),
            shape: tensor.shape.clone(),
            from: tensor.source_formats().into_iter().map(Format::name).collect(),
            to: format.name(),
            instead_of: (format != wanted).then(|| wanted.name()),
            importance: !importance.is_empty(),
            bytes,
            relative_error: loss.relative(),
            largest_error: loss.largest,
        });
    }
    writer.finish()?;
    Ok(Written { tensors, relative_error: all.relative() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    /// A disk of so many bytes.
    struct Disk(usize);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if bytes.len() > self.0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0 -= bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_is_said_wherever_it_fills() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/golden/llama_mha");
        let Input { config, checkpoint, described } = open(&golden).unwrap();
        let outputs = tensors::of_hugging_face(&config, &checkpoint).unwrap();
        let options = QuantizeOptions {
            recipe: Recipe::from_name("q8_0").unwrap(),
            threads: 1,
            importance: None,
            force: false,
            requantize: false,
        };
        let (plans, _) = plan(&config, &outputs, &options, None).unwrap();
        let written = |bytes: usize| {
            let mut go_on = |_: Progress<'_>| ControlFlow::Continue(());
            write(Path::new("out.gguf"), Disk(bytes), &described.metadata, &plans, 1, &mut go_on)
        };
        assert!(written(1 << 20).is_ok());
        for bytes in [0, 100, 4_000, 20_000] {
            let error = written(bytes).err().map(|error| error.to_string()).unwrap();
            assert!(
                error.starts_with("out.gguf: cannot write: ") && error.contains("space"),
                "{bytes}: {error}"
            );
        }
    }
}
