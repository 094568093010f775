//! The Hugging Face folder of a made-up model: config.json, tokenizer, one safetensors file or shards with their index.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use roofline_limits::Recipe;
use roofline_model::TensorPlan;
use roofline_model::config::{Family, ModelConfig};
use roofline_weights::Format;
use serde_json::{Map, Value, json};

use super::{Plan, Tensor, bytes, distinct, tokenizer, weights};
use crate::convert::error::ConvertError;
use crate::convert::quantize::Progress;

/// The tensors of a folder, all of one float format.
pub(super) fn tensors(
    config: &ModelConfig,
    recipe: Recipe,
    output: &Path,
) -> Result<Vec<Tensor>, ConvertError> {
    match recipe {
        Recipe::Uniform(format) if !format.is_quantized() => {
            distinct(TensorPlan::hugging_face(config), |_| Ok(format))
        }
        _ => Err(ConvertError::NotExpressible {
            file: output.display().to_string(),
            what: recipe.name().to_owned(),
            why: "a folder holds f32, f16 or bf16; name a file that ends in .gguf".to_owned(),
        }),
    }
}

/// A folder that appears whole or not at all.
struct SideFolder {
    path: PathBuf,
    side: PathBuf,
    kept: bool,
}

impl SideFolder {
    fn create(path: &Path) -> Result<SideFolder, ConvertError> {
        let error = |source| ConvertError::File { action: "write", path: path.to_path_buf(), source };
        let empty = |path: &Path| fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none());
        if fs::symlink_metadata(path).is_ok() && !empty(path) {
            let what = "there already, and a folder is never replaced";
            return Err(ConvertError::WrongOutput { path: path.to_path_buf(), what, wanted: "new folder" });
        }
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let side = path.with_file_name(format!(".{name}.{}.part", std::process::id()));
        fs::create_dir(&side).map_err(error)?;
        Ok(SideFolder { path: path.to_path_buf(), side, kept: false })
    }

    fn error(&self, source: std::io::Error) -> ConvertError {
        ConvertError::File { action: "write", path: self.path.clone(), source }
    }

    fn text(&self, name: &str, text: &str) -> Result<(), ConvertError> {
        fs::write(self.side.join(name), text).map_err(|source| self.error(source))
    }

    fn keep(mut self) -> Result<(), ConvertError> {
        fs::rename(&self.side, &self.path).map_err(|source| self.error(source))?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for SideFolder {
    fn drop(&mut self) {
        if !self.kept {
            // The error that led here is the one to tell.
            let _ = fs::remove_dir_all(&self.side);
        }
    }
}

impl Plan<'_> {
    /// Writes the folder; its readers know everything.
    pub(super) fn write_folder(
        &self,
        progress: &mut impl FnMut(Progress<'_>) -> ControlFlow<()>,
    ) -> Result<Vec<String>, ConvertError> {
        let folder = SideFolder::create(self.output)?;
        folder.text("config.json", &config_json(self))?;
        for (name, text) in self.vocabulary.map(tokenizer::files).into_iter().flatten() {
            folder.text(name, &text)?;
        }
        let shards = shards(self.tensors, self.options.shard_bytes);
        let mut weight_map = Map::new();
        let total = self.tensors.iter().map(|tensor| weights(&tensor.spec)).sum();
        let mut before = 0;
        for (i, shard) in shards.iter().enumerate() {
            let name = match shards.len() {
                1 => "model.safetensors".to_owned(),
                n => format!("model-{:05}-of-{n:05}.safetensors", i + 1),
            };
            weight_map.extend(shard.iter().map(|tensor| (tensor.spec.name.clone(), json!(name))));
            let file = File::create(folder.side.join(&name)).map_err(|source| folder.error(source))?;
            let mut out = BufWriter::with_capacity(1 << 20, file);
            let mut write = |bytes: &[u8]| out.write_all(bytes).map_err(|source| folder.error(source));
            write(&header(shard))?;
            for tensor in *shard {
                let name = &tensor.spec.name;
                self.maker.make(tensor, &mut write, |done| {
                    progress(Progress { tensor: name, done: before + done, total })
                })?;
                before += weights(&tensor.spec);
            }
            out.flush().and_then(|()| out.get_ref().sync_all()).map_err(|source| folder.error(source))?;
        }
        if shards.len() > 1 {
            let size: u64 = self.tensors.iter().map(|tensor| bytes(&tensor.spec)).sum();
            let index = json!({"metadata": {"total_size": size}, "weight_map": weight_map});
            folder.text("model.safetensors.index.json", &index.to_string())?;
        }
        folder.keep()?;
        Ok(Vec::new())
    }
}

/// The geometry's config.json with what transformers wants beside it.
fn config_json(plan: &Plan<'_>) -> String {
    let mut json = plan.geometry.json.clone();
    let config = &plan.geometry.config;
    if let Some(object) = json.as_object_mut() {
        let class = match config.family {
            Family::Llama if object.get("model_type") == Some(&json!("mistral")) => "MistralForCausalLM",
            Family::Llama => "LlamaForCausalLM",
            Family::Qwen2 => "Qwen2ForCausalLM",
            Family::Qwen3 => "Qwen3ForCausalLM",
            Family::GptNeox => "GPTNeoXForCausalLM",
            Family::Olmoe => "OlmoeForCausalLM",
            Family::Mixtral => "MixtralForCausalLM",
        };
        let dtype = match plan.options.recipe.base() {
            Format::F16 => "float16",
            Format::Bf16 => "bfloat16",
            _ => "float32",
        };
        object.insert("architectures".to_owned(), json!([class]));
        object.insert("torch_dtype".to_owned(), json!(dtype));
        object.insert(
            "roofline_synth".to_owned(),
            json!({"geometry": plan.geometry.name, "seed": plan.options.seed}),
        );
    }
    format!("{json:#}\n")
}

/// Runs of tensors of at most `limit` bytes, none empty.
fn shards(all: &[Tensor], limit: u64) -> Vec<&[Tensor]> {
    let mut shards = Vec::new();
    let (mut start, mut size) = (0, 0u64);
    for (i, tensor) in all.iter().enumerate() {
        let more = bytes(&tensor.spec);
        if i > start && size.saturating_add(more) > limit {
            shards.push(&all[start..i]);
            (start, size) = (i, 0);
        }
        size = size.saturating_add(more);
    }
    shards.push(&all[start..]);
    shards
}

/// Length, directory, and spaces up to a multiple of eight.
fn header(tensors: &[Tensor]) -> Vec<u8> {
    let mut directory = Map::new();
    directory.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    let mut start = 0;
    for tensor in tensors {
        let end = start + bytes(&tensor.spec);
        let dtype = tensor.spec.format.name().to_uppercase();
        let entry = json!({"dtype": dtype, "shape": tensor.spec.shape, "data_offsets": [start, end]});
        directory.insert(tensor.spec.name.clone(), entry);
        start = end;
    }
    let mut text = Value::Object(directory).to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut header = (text.len() as u64).to_le_bytes().to_vec();
    header.append(&mut text);
    header
}
