//! [`ModelFiles`]: everything a model is on disk, opened and checked, before a weight is packed.

use crate::error::EngineError;
use roofline_model::chat_template::ChatTemplate;
use roofline_model::generation_config::GenerationConfig;
use roofline_model::tokenizer::Tokenizer;
use roofline_model::{ModelConfig, TensorPlan};
use roofline_weights::Checkpoint;
use std::path::Path;
use std::sync::Arc;

/// A model's description, its checkpoint, and what came with it.
pub struct ModelFiles {
    name: String,
    config: ModelConfig,
    plan: TensorPlan,
    checkpoint: Arc<Checkpoint>,
    tokenizer: Option<Tokenizer>,
    template: Option<ChatTemplate>,
    generation: GenerationConfig,
    stop_ids: Vec<StopId>,
    notes: Vec<String>,
}

/// A token that ends a text, and who says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopId {
    /// The token.
    pub id: u32,
    /// `config`, `generation_config`, `tokenizer`, `template`.
    pub sources: Vec<&'static str>,
}

/// A Hugging Face folder held in memory.
#[derive(Debug, Clone, Copy)]
pub struct EmbeddedModel {
    /// What to call it.
    pub name: &'static str,
    /// config.json
    pub config: &'static str,
    /// generation_config.json
    pub generation_config: &'static str,
    /// model.safetensors
    pub weights: &'static [u8],
    /// tokenizer.json
    pub tokenizer: &'static [u8],
}

impl ModelFiles {
    /// Opens a Hugging Face folder or a GGUF file.
    ///
    /// # Errors
    /// [`EngineError::NotAModel`] for a path that is neither; else what is wrong with the files, by name.
    pub fn open(path: &Path) -> Result<ModelFiles, EngineError> {
        let not_a_model = |why: String| EngineError::NotAModel { path: path.display().to_string(), why };
        let kind = std::fs::metadata(path).map_err(|error| not_a_model(error.to_string()))?;
        if kind.is_dir() {
            match read_text(&path.join("config.json"))? {
                Some(config) => ModelFiles::open_folder(path, &config),
                None => Err(not_a_model("there is no config.json in this folder".into())),
            }
        } else if !kind.is_file() {
            Err(not_a_model("this is neither a folder nor a regular file".into()))
        } else if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf")) {
            ModelFiles::open_gguf(path)
        } else {
            Err(not_a_model("this is neither a folder nor a .gguf file".into()))
        }
    }

    fn open_folder(dir: &Path, config: &str) -> Result<ModelFiles, EngineError> {
        let generation = match read_text(&dir.join("generation_config.json"))? {
            Some(text) => GenerationConfig::from_json(&text, "generation_config.json")?,
            None => GenerationConfig::default(),
        };
        let tokenizer = match dir.join("tokenizer.json").is_file() {
            true => Some(Tokenizer::from_hf_dir(dir)?),
            false => None,
        };
        let template = ChatTemplate::from_hf_dir(dir)?;
        let config = ModelConfig::from_config_json(config, &dir.join("config.json").display().to_string())?;
        let plan = TensorPlan::hugging_face(&config);
        let checkpoint = Checkpoint::open_hf(dir)?;
        let name = dir.file_name().unwrap_or(dir.as_os_str()).to_string_lossy().into_owned();
        Ok(ModelFiles::assemble(name, config, plan, checkpoint, tokenizer, template, generation))
    }

    fn open_gguf(path: &Path) -> Result<ModelFiles, EngineError> {
        let checkpoint = Checkpoint::open_gguf(path)?;
        let file = path.display().to_string();
        let Some(header) = checkpoint.gguf() else {
            return Err(EngineError::NotAModel {
                path: file,
                why: "there is no GGUF header in this file".into(),
            });
        };
        let config = ModelConfig::from_gguf(header, &file)?;
        let plan = TensorPlan::gguf(&config);
        // llama.cpp writes "none" (older: "no_vocab") where a file carries no vocabulary.
        let tokenizer = match header.metadata.optional::<&str>("tokenizer.ggml.model")? {
            None | Some("none" | "no_vocab") => None,
            Some(_) => Some(Tokenizer::from_gguf(&header.metadata)?),
        };
        let template = ChatTemplate::from_gguf(&header.metadata)?;
        let name = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let generation = GenerationConfig::default();
        Ok(ModelFiles::assemble(name, config, plan, checkpoint, tokenizer, template, generation))
    }

    /// A model that is part of the program.
    ///
    /// # Errors
    /// What is wrong with its parts.
    pub fn embedded(parts: EmbeddedModel) -> Result<ModelFiles, EngineError> {
        let config = ModelConfig::from_config_json(parts.config, "config.json")?;
        let generation = GenerationConfig::from_json(parts.generation_config, "generation_config.json")?;
        let plan = TensorPlan::hugging_face(&config);
        let checkpoint = Checkpoint::from_safetensors_bytes(parts.weights)?;
        let tokenizer = Tokenizer::from_tokenizer_json(parts.tokenizer, None)?;
        let name = parts.name.to_string();
        Ok(ModelFiles::assemble(name, config, plan, checkpoint, Some(tokenizer), None, generation))
    }

    fn assemble(
        name: String,
        config: ModelConfig,
        plan: TensorPlan,
        checkpoint: Checkpoint,
        tokenizer: Option<Tokenizer>,
        template: Option<ChatTemplate>,
        generation: GenerationConfig,
    ) -> ModelFiles {
        let mut notes = Vec::new();
        let end_of_turn = match (&template, &tokenizer) {
            (Some(template), Some(tokenizer)) => template.end_of_turn(tokenizer).unwrap_or_else(|error| {
                notes.push(format!("the chat template does not show how a turn ends: {error}"));
                None
            }),
            _ => None,
        };
        let mut stop_ids = stop_ids(&config, &generation, tokenizer.as_ref(), end_of_turn);
        stop_ids.retain(|stop| {
            let known = (stop.id as usize) < config.vocab_size;
            if !known {
                let (id, sources, vocab) = (stop.id, stop.sources.join(", "), config.vocab_size);
                notes.push(format!(
                    "end token {id} ({sources}) is outside the vocabulary of {vocab}: it ends nothing"
                ));
            }
            known
        });
        if stop_ids.is_empty() {
            notes.push("no end token is known for this model: a text ends at its length only".to_string());
        }
        let checkpoint = Arc::new(checkpoint);
        ModelFiles { name, config, plan, checkpoint, tokenizer, template, generation, stop_ids, notes }
    }

    /// Folder or file name without extension.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The hyper-parameters.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The tensors they imply.
    pub fn plan(&self) -> &TensorPlan {
        &self.plan
    }

    /// The weights.
    pub fn checkpoint(&self) -> &Arc<Checkpoint> {
        &self.checkpoint
    }

    /// The tokenizer, if one came along.
    pub fn tokenizer(&self) -> Option<&Tokenizer> {
        self.tokenizer.as_ref()
    }

    /// The chat template, if one came along.
    pub fn template(&self) -> Option<&ChatTemplate> {
        self.template.as_ref()
    }

    /// Sampling defaults that came along.
    pub fn generation(&self) -> &GenerationConfig {
        &self.generation
    }

    /// Tokens that end a text, with their sources; the union of config, generation_config, tokenizer and template.
    pub fn stop_ids(&self) -> &[StopId] {
        &self.stop_ids
    }

    /// What a user should know about these files, in words.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }
}

fn stop_ids(
    config: &ModelConfig,
    generation: &GenerationConfig,
    tokenizer: Option<&Tokenizer>,
    end_of_turn: Option<u32>,
) -> Vec<StopId> {
    let mut all: Vec<StopId> = Vec::new();
    let mut add = |source, ids: &[u32]| {
        for &id in ids {
            match all.iter_mut().find(|stop| stop.id == id) {
                Some(stop) if stop.sources.contains(&source) => {}
                Some(stop) => stop.sources.push(source),
                None => all.push(StopId { id, sources: vec![source] }),
            }
        }
    };
    add("config", &config.eos_token_ids);
    add("generation_config", &generation.eos_token_ids);
    if let Some(tokenizer) = tokenizer {
        add("tokenizer", tokenizer.end_of_turn_ids());
    }
    add("template", end_of_turn.as_slice());
    all
}

/// The text of a file, or `None` when there is no such file. A link to nowhere is an error, and so is a pipe, which
/// would be waited for.
fn read_text(path: &Path) -> Result<Option<String>, EngineError> {
    let bad = |why: String| EngineError::NotAModel { path: path.display().to_string(), why };
    match std::fs::metadata(path) {
        Ok(kind) if kind.is_file() => {
            std::fs::read_to_string(path).map(Some).map_err(|error| bad(error.to_string()))
        }
        Ok(_) => Err(bad("this is not a regular file".into())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => match path.is_symlink() {
            true => Err(bad("this link leads to a file that is not there".into())),
            false => Ok(None),
        },
        Err(error) => Err(bad(error.to_string())),
    }
}
