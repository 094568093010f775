//! The download itself, through the `hf-hub` crate: its cache layout is the one other tools share.

use std::path::{Component, Path, PathBuf};

use hf_hub::api::Progress;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::Pull;
use crate::failure::Failure;
use crate::output::{print, print_json};

/// Files beside the weights that a model may have.
const SMALL_FILES: [&str; 8] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
];
const INDEX: &str = "model.safetensors.index.json";

impl Pull {
    pub(super) fn download(&self) -> Result<(), Failure> {
        let api: Api = ApiBuilder::from_env()
            .with_retries(3)
            .with_user_agent("roofline", env!("CARGO_PKG_VERSION"))
            .build()
            .map_err(|error| self.failed("the hub", &error))?;
        let repo = Repo::with_revision(self.repository.clone(), RepoType::Model, self.revision.clone());
        let remote = api.repo(repo.clone());
        let listed = remote.info().map_err(|error| self.failed("its list of files", &error))?;
        let names: Vec<&str> = listed.siblings.iter().map(|file| file.rfilename.as_str()).collect();
        let chosen = self.choose(&names)?;
        let cache = Cache::from_env().repo(repo);
        let mut paths = Vec::with_capacity(chosen.len());
        for name in &chosen {
            let path = match cache.get(name) {
                Some(path) => path,
                None => self.fetch(&remote, name)?,
            };
            paths.push(path);
        }
        let model = model_path(&chosen, &paths)
            .ok_or_else(|| Failure::new(format_args!("nothing was chosen from {}", self.repository)))?;
        if self.json {
            return print_json(&json!({
                "repository": self.repository, "commit": listed.sha, "model": model, "files": paths,
            }));
        }
        print(&format!("{}\n", model.display()))
    }

    fn fetch(&self, remote: &ApiRepo, name: &str) -> Result<PathBuf, Failure> {
        let bar = Bar(ProgressBar::new(0));
        remote.download_with_progress(name, bar).map_err(|error| self.failed(name, &error))
    }

    /// The files to load, weights last.
    fn choose<'a>(&'a self, names: &[&'a str]) -> Result<Vec<&'a str>, Failure> {
        if let Some(bad) = names.iter().find(|name| !stays_inside(name)) {
            return Err(Failure::new(format_args!("{} lists a file called `{bad}`", self.repository))
                .hint("a name that leaves its folder; nothing was loaded"));
        }
        if let Some(file) = &self.file {
            return match names.iter().find(|name| *name == file) {
                Some(name) => Ok(vec![name]),
                None => Err(Failure::new(format_args!("{} has no file {file}", self.repository))
                    .hint(format_args!("it has {}", names.join(", ")))),
            };
        }
        let mut chosen: Vec<&str> = SMALL_FILES.into_iter().filter(|name| names.contains(name)).collect();
        let mut weights: Vec<&str> = names.iter().copied().filter(|name| is_weights(name)).collect();
        weights.sort_unstable();
        if weights.contains(&"model.safetensors") {
            weights = vec!["model.safetensors"];
        } else if names.contains(&INDEX) {
            chosen.push(INDEX);
        } else if weights.is_empty() {
            return self.choose_gguf(names);
        }
        chosen.extend(weights);
        Ok(chosen)
    }

    fn choose_gguf<'a>(&self, names: &[&'a str]) -> Result<Vec<&'a str>, Failure> {
        let files: Vec<&str> = names.iter().copied().filter(|name| name.ends_with(".gguf")).collect();
        match files.as_slice() {
            [] => Err(Failure::new(format_args!(
                "{} has neither safetensors nor GGUF weights",
                self.repository
            ))),
            [file] => Ok(vec![file]),
            files => Err(Failure::new(format_args!("{} has {} GGUF files", self.repository, files.len()))
                .hint(format_args!("choose one with --file: {}", files.join(", ")))),
        }
    }

    fn failed(&self, what: &str, error: &ApiError) -> Failure {
        Failure::new(format_args!("cannot load {what} of {}: {}", self.repository, reason(error)))
            .hint("check the name and the network; a broken download goes on where it stopped")
    }
}

/// Weights at the top of a repository, in one file or in numbered ones.
fn is_weights(name: &str) -> bool {
    name.starts_with("model") && name.ends_with(".safetensors") && !name.contains('/')
}

fn stays_inside(name: &str) -> bool {
    !name.is_empty() && Path::new(name).components().all(|part| matches!(part, Component::Normal(_)))
}

/// The GGUF file itself, or the folder of the files.
fn model_path(names: &[&str], paths: &[PathBuf]) -> Option<PathBuf> {
    let (name, path) = names.last().zip(paths.last())?;
    if name.ends_with(".gguf") { Some(path.clone()) } else { path.parent().map(Path::to_path_buf) }
}

/// One line, without the layers of wrapping around it.
fn reason(error: &ApiError) -> String {
    let text = match error {
        ApiError::TooManyRetries(inner) => return reason(inner),
        other => other.to_string(),
    };
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Bytes, speed and time left on stderr.
struct Bar(ProgressBar);

impl Progress for Bar {
    fn init(&mut self, size: usize, filename: &str) {
        self.0.set_length(size as u64);
        self.0.set_position(0);
        let template =
            "{msg} {bar:30} {decimal_bytes}/{decimal_total_bytes}, {decimal_bytes_per_sec}, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.0.set_style(style);
        }
        self.0.set_message(filename.to_string());
    }

    fn update(&mut self, size: usize) {
        self.0.inc(size as u64);
    }

    fn finish(&mut self) {
        self.0.finish_and_clear();
    }
}
