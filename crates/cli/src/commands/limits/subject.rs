//! Which model limits are asked about: a preset, a configuration, or real files with the formats they are stored in.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use roofline_limits::accounting::WeightFormats;
use roofline_limits::{KvFormat, Precision, Recipe};
use roofline_model::presets;
use roofline_model::tensor_plan::Role;
use roofline_model::{ModelConfig, ModelError, TensorPlan};
use roofline_weights::{Checkpoint, Format};

use crate::failure::Failure;
use crate::model::{self, DEMO};

/// A model as far as its limits go.
pub struct Subject {
    pub name: String,
    /// Where the sizes come from.
    pub source: String,
    pub config: ModelConfig,
    /// The format of each tensor, when real weights were read.
    stored: Option<Stored>,
}

/// Formats of real weights.
struct Stored {
    formats: HashMap<Role, Format>,
    /// Weights per format.
    weights: BTreeMap<Format, u64>,
}

impl Subject {
    /// The demo model, or a file or folder of that name, or a preset.
    pub fn find(model: &str) -> Result<Subject, Failure> {
        if model == DEMO {
            return Subject::demo();
        }
        let path = Path::new(model);
        if path.is_dir() {
            return Subject::folder(path);
        }
        if path.is_file() {
            let is_gguf = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
            return if is_gguf { Subject::gguf(path) } else { Subject::config_file(path) };
        }
        let preset = presets::find(model).map_err(|error| not_found(model, error))?;
        let (name, source, config) = (preset.name.to_string(), preset.source(), preset.config()?);
        Ok(Subject { name, source, config, stored: None })
    }

    fn demo() -> Result<Subject, Failure> {
        let files = model::open(DEMO)?;
        let stored = Some(Stored::read(files.plan(), files.checkpoint()));
        let source = "the model inside of the program".to_string();
        Ok(Subject { name: DEMO.to_string(), source, config: files.config().clone(), stored })
    }

    fn config_file(path: &Path) -> Result<Subject, Failure> {
        let source = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|e| Failure::new(format_args!("cannot read {source}: {e}")))?;
        let config = ModelConfig::from_config_json(&text, &source)?;
        let folder = path.parent().and_then(Path::file_name).unwrap_or(path.as_os_str());
        Ok(Subject { name: folder.to_string_lossy().into_owned(), source, config, stored: None })
    }

    /// Weights are optional here: their formats are read where there are any.
    fn folder(path: &Path) -> Result<Subject, Failure> {
        let config_path = path.join("config.json");
        if !config_path.is_file() {
            return Err(Failure::new(format_args!("there is no config.json in {}", path.display()))
                .hint("name a Hugging Face folder, a .gguf file, a config.json or a preset"));
        }
        let mut subject = Subject::config_file(&config_path)?;
        let has_weights =
            ["model.safetensors", "model.safetensors.index.json"].iter().any(|f| path.join(f).exists());
        if has_weights {
            let checkpoint = Checkpoint::open_hf(path)?;
            subject.stored = Some(Stored::read(&TensorPlan::hugging_face(&subject.config), &checkpoint));
        }
        Ok(subject)
    }

    fn gguf(path: &Path) -> Result<Subject, Failure> {
        let source = path.display().to_string();
        let checkpoint = Checkpoint::open_gguf(path)?;
        let header =
            checkpoint.gguf().ok_or_else(|| Failure::new(format_args!("{source} has no GGUF header")))?;
        let config = ModelConfig::from_gguf(header, &source)?;
        let stored = Some(Stored::read(&TensorPlan::gguf(&config), &checkpoint));
        let name = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        Ok(Subject { name, source, config, stored })
    }

    /// The precision in which the files store the weights, if files were read: cache and arithmetic as the engine
    /// takes them by default.
    pub fn stored_precision(&self) -> Option<Precision> {
        let stored = self.stored.as_ref()?;
        let total: u64 = stored.weights.values().sum();
        let (main, _) = stored.weights.iter().max_by_key(|(_, weights)| **weights)?;
        let mut shares: Vec<(&Format, &u64)> = stored.weights.iter().collect();
        shares.sort_by_key(|(_, weights)| std::cmp::Reverse(**weights));
        let share = |weights: &u64| 100.0 * *weights as f64 / total as f64;
        let shares: Vec<String> =
            shares.iter().map(|(format, weights)| format!("{format} {:.1} %", share(weights))).collect();
        Some(Precision {
            label: format!("as stored: {}", shares.join(", ")),
            weights: Recipe::Uniform(*main),
            nominal_weight_bits: main.bits_per_weight().floor(),
            arithmetic_bits: match main {
                Format::F32 => 32,
                Format::F16 | Format::Bf16 => 16,
                _ => 8,
            },
            kv: KvFormat::F16.into(),
            nominal_kv_bits: 16.0,
        })
    }

    /// Calls `use_formats` with the formats for a precision: the stored ones, or those of a file type.
    pub fn with_formats<T>(
        &self,
        precision: &Precision,
        is_stored: bool,
        use_formats: impl FnOnce(WeightFormats<'_>) -> T,
    ) -> T {
        match &self.stored {
            Some(stored) if is_stored => {
                use_formats(WeightFormats::Tensors(&|role| stored.formats.get(&role).copied()))
            }
            _ => use_formats(WeightFormats::Recipe(precision.weights)),
        }
    }
}

impl Stored {
    fn read(plan: &TensorPlan, checkpoint: &Checkpoint) -> Stored {
        let mut stored = Stored { formats: HashMap::new(), weights: BTreeMap::new() };
        for planned in &plan.tensors {
            let found = planned.sources.iter().find_map(|source| checkpoint.tensor(&source.name));
            if let Some(view) = found {
                stored.formats.insert(planned.role, view.format);
                let weights: u64 = planned.shape.iter().map(|n| *n as u64).product();
                *stored.weights.entry(view.format).or_default() += weights;
            }
        }
        stored
    }
}

fn not_found(model: &str, error: ModelError) -> Failure {
    let looks_like_a_path =
        model.contains(std::path::MAIN_SEPARATOR) || model.ends_with(".gguf") || model.ends_with(".json");
    if looks_like_a_path {
        return Failure::new(format_args!("there is no file or folder {model}"))
            .hint("name a Hugging Face folder, a .gguf file, a config.json or a preset");
    }
    Failure::new(error).hint("see roofline limits --list")
}
