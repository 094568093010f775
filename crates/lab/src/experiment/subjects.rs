//! The models of an experiment: opened, quantized or made up on the way, loaded once, shared by all cells.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use roofline_engine::{Cpu, EmbeddedModel, Model, ModelFiles};
use roofline_limits::{FileFormats, Recipe};
use roofline_model::presets;
use roofline_model::tokenizer::Tokenizer;
use roofline_weights::Format;

use super::axes;
use super::error::ExperimentError;
use super::hash::Hash;
use super::rows::ModelFacts;
use crate::convert::{self, QuantizeOptions, SynthOptions};
use crate::environment::Environment;
use crate::error::LabError;

/// Longest context that a geometry may be given: positions beyond are no longer whole in f32.
const MOST_CONTEXT: usize = 1 << 24;

/// A loaded model and what is known of it.
pub struct Subject {
    /// As the axis `model` names it.
    pub name: String,
    /// As the axis `precision` names it.
    pub precision: String,
    /// Its files, for tokenizer and end tokens.
    pub files: ModelFiles,
    /// The weights; each thread count gets a team of its own.
    pub model: Arc<Model>,
    /// Formats per role.
    pub formats: FileFormats,
    /// For the rows.
    pub facts: ModelFacts,
    /// Tokens whose text ends a sentence.
    pub sentence_ids: Vec<u32>,
}

impl Subject {
    /// Whether its weights are made up: its tokenizer then means nothing.
    pub fn made_up(&self) -> bool {
        self.facts.geometry.is_some()
    }

    /// The tokens that end an answer under this value of the axis `eos`.
    pub fn stop_ids(&self, eos: &str) -> Vec<u32> {
        match eos {
            "model" => self.files.stop_ids().iter().map(|stop| stop.id).collect(),
            "sentence" => {
                let model = self.files.stop_ids().iter().map(|stop| stop.id);
                model.chain(self.sentence_ids.iter().copied()).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// Makes subjects. What it writes lies in a folder of its own that goes with it.
pub struct Workshop {
    embedded: EmbeddedModel,
    folder: PathBuf,
    threads: usize,
}

impl Workshop {
    /// A workshop that knows the embedded model and converts on `threads` threads.
    pub fn new(embedded: EmbeddedModel, threads: usize) -> Workshop {
        // Two of one process would take each other's files away.
        static MADE: AtomicU64 = AtomicU64::new(0);
        let (process, number) = (std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(format!("roofline-experiment-{process}-{number}"));
        Workshop { embedded, folder, threads }
    }

    /// Finds or makes `name` at `precision` and loads it. `going_on` is asked now and then.
    ///
    /// # Errors
    /// No such model; what its files, a conversion or loading fail at; not enough memory.
    pub fn subject(
        &self,
        name: &str,
        precision: &str,
        cpu: &Cpu,
        going_on: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Subject, LabError> {
        let recipe = axes::recipe(precision).map_err(ExperimentError::Spec)?;
        let (files, geometry) = self.files(name, precision, recipe, going_on)?;
        if going_on(&format!("loading {name} at {precision}")).is_break() {
            return Err(LabError::Cancelled);
        }
        let wanted: u64 = files.checkpoint().tensors().map(|tensor| tensor.bytes.len() as u64).sum();
        match Environment::read().memory.available_bytes {
            Some(available) if wanted > available => {
                let model = format!("{name} at {precision}");
                return Err(ExperimentError::Memory { model, wanted, available }.into());
            }
            _ => {}
        }
        let hash = hash_of_tensors(&files);
        let model = Model::load(&files, cpu.clone(), &mut |_, _| {})?;
        let tensors = files.checkpoint().tensors().map(|view| (view.name, view.format, view.shape));
        let formats = FileFormats::new(files.plan(), tensors)?;
        let facts = ModelFacts {
            name: name.to_string(),
            geometry,
            formats: formats_by_bytes(&files),
            hash,
            parameters: model.facts().parameters,
        };
        let sentence_ids = files.tokenizer().map(sentence_ids).unwrap_or_default();
        let (name, precision) = (name.to_string(), precision.to_string());
        Ok(Subject { name, precision, files, model: Arc::new(model), formats, facts, sentence_ids })
    }

    /// The files, and the geometry whose weights were made up.
    fn files(
        &self,
        name: &str,
        precision: &str,
        recipe: Option<Recipe>,
        going_on: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<(ModelFiles, Option<String>), LabError> {
        let made = self.folder.join(format!("{}-{precision}.gguf", file_name(name)));
        let mut go = |what: &str| {
            let words = format!("{what} {name} at {precision}");
            going_on(&words)
        };
        let is_embedded = name == self.embedded.name;
        if is_embedded || Path::new(name).exists() {
            let Some(recipe) = recipe else {
                let files = match is_embedded {
                    true => ModelFiles::embedded(self.embedded)?,
                    false => ModelFiles::open(Path::new(name))?,
                };
                return Ok((files, None));
            };
            self.make_folder()?;
            let source = if is_embedded { self.write_embedded()? } else { PathBuf::from(name) };
            let options = QuantizeOptions {
                recipe,
                threads: self.threads,
                importance: None,
                force: true,
                requantize: true,
            };
            convert::quantize(&source, &made, &options, |_| go("quantizing"))?;
            return Ok((ModelFiles::open(&made)?, None));
        }
        let unknown = |hint: String| ExperimentError::NoModel { name: name.to_string(), hint };
        let (geometry, context) = match name.split_once('@') {
            Some((geometry, tokens)) => {
                let tokens = tokens.parse().ok().filter(|tokens| (1..=MOST_CONTEXT).contains(tokens));
                let tokens = tokens.ok_or_else(|| {
                    unknown(format!("behind the @ stands a context of 1 to {MOST_CONTEXT} tokens"))
                })?;
                (geometry, Some(tokens))
            }
            None => (name, None),
        };
        let geometry = presets::find(geometry).map_err(|error| unknown(error.to_string()))?;
        self.make_folder()?;
        let options = SynthOptions {
            recipe: recipe.unwrap_or(Recipe::Uniform(Format::Bf16)),
            seed: 0,
            context,
            blocks: None,
            shard_bytes: u64::MAX,
            threads: self.threads,
            force: true,
        };
        convert::synthesize(geometry.name, &made, &options, |_| go("making up"))?;
        Ok((ModelFiles::open(&made)?, Some(geometry.name.to_string())))
    }

    fn make_folder(&self) -> Result<(), LabError> {
        std::fs::create_dir_all(&self.folder).map_err(|source| self.failed(&self.folder, source))
    }

    /// The embedded model as a Hugging Face folder, for the converter.
    fn write_embedded(&self) -> Result<PathBuf, LabError> {
        let folder = self.folder.join(file_name(self.embedded.name));
        let write = |name: &str, bytes: &[u8]| {
            let path = folder.join(name);
            std::fs::write(&path, bytes).map_err(|source| self.failed(&path, source))
        };
        std::fs::create_dir_all(&folder).map_err(|source| self.failed(&folder, source))?;
        write("config.json", self.embedded.config.as_bytes())?;
        write("generation_config.json", self.embedded.generation_config.as_bytes())?;
        write("tokenizer.json", self.embedded.tokenizer)?;
        write("model.safetensors", self.embedded.weights)?;
        Ok(folder)
    }

    fn failed(&self, path: &Path, source: std::io::Error) -> LabError {
        LabError::File { action: "write", path: path.to_path_buf(), source }
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        // Open files stay readable; a folder that was never made is no error.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A model's name as a file name.
fn file_name(name: &str) -> String {
    let safe = |c: char| if c.is_alphanumeric() || matches!(c, '-' | '.') { c } else { '_' };
    Path::new(name)
        .file_name()
        .map_or(name, |last| last.to_str().unwrap_or("model"))
        .chars()
        .map(safe)
        .collect()
}

/// Names, formats, shapes and bytes of all tensors.
fn hash_of_tensors(files: &ModelFiles) -> String {
    let mut hash = Hash::default();
    for tensor in files.checkpoint().tensors() {
        hash.add(tensor.name.as_bytes());
        hash.add(tensor.format.name().as_bytes());
        for side in tensor.shape {
            hash.add(&(*side as u64).to_le_bytes());
        }
        hash.add(tensor.bytes);
    }
    hash.text()
}

/// As `q4_k+q6_k+f32`, most bytes first.
fn formats_by_bytes(files: &ModelFiles) -> String {
    let mut bytes: BTreeMap<Format, usize> = BTreeMap::new();
    for tensor in files.checkpoint().tensors() {
        *bytes.entry(tensor.format).or_default() += tensor.bytes.len();
    }
    let mut by_bytes: Vec<(Format, usize)> = bytes.into_iter().collect();
    by_bytes.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    by_bytes.iter().map(|(format, _)| format.name()).collect::<Vec<_>>().join("+")
}

/// Tokens whose text ends in a full stop, an exclamation or a question mark.
fn sentence_ids(tokenizer: &Tokenizer) -> Vec<u32> {
    let ends = |id: &u32| {
        tokenizer.token_bytes(*id).is_some_and(|bytes| matches!(bytes.last(), Some(b'.' | b'!' | b'?')))
    };
    (0..tokenizer.vocab_size() as u32).filter(ends).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// They had one folder, and the first to be done took the other's files away.
    #[test]
    fn workshops_of_one_process_have_folders_of_their_own() {
        let embedded =
            EmbeddedModel { name: "none", config: "", generation_config: "", weights: &[], tokenizer: &[] };
        let [a, b] = [(); 2].map(|()| Workshop::new(embedded, 1));
        std::fs::create_dir_all(&b.folder).unwrap();
        drop(a);
        assert!(b.folder.is_dir());
        let folder = b.folder.clone();
        drop(b);
        assert!(!folder.exists());
    }
}
