//! `roofline pull`: downloads a model from a Hugging Face hub, where the program was built to.

#[cfg(feature = "hub")]
mod hub;

use clap::Args;

use crate::failure::Failure;

/// Download a model from the Hugging Face hub
///
/// Takes what the engine reads: config, tokenizer, chat template and safetensors weights, or one GGUF file. Files lie in
/// the hub's usual cache ($HF_HOME or ~/.cache/huggingface), finished ones are not loaded again, and a broken download
/// goes on where it stopped. $HF_ENDPOINT names another server; the token of `huggingface-cli login` is used.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  roofline pull HuggingFaceTB/SmolLM2-135M-Instruct\n  \
    roofline pull Qwen/Qwen2.5-0.5B-Instruct-GGUF --file qwen2.5-0.5b-instruct-q4_k_m.gguf\n\n\
    It prints the path that other commands take as MODEL. This command needs a program built with --features hub.")]
pub struct Pull {
    /// Repository as ORG/NAME
    #[arg(value_name = "ORG/NAME")]
    repository: String,
    /// Only this file, as a .gguf of a repository with many
    #[arg(long, value_name = "NAME")]
    file: Option<String>,
    /// Branch, tag or commit
    #[arg(long, value_name = "REVISION", default_value = "main")]
    revision: String,
    /// Print one JSON object
    #[arg(long)]
    #[cfg_attr(not(feature = "hub"), allow(dead_code))]
    json: bool,
}

impl Pull {
    pub fn run(&self) -> Result<(), Failure> {
        if !is_repository(&self.repository) {
            return Err(Failure::new(format_args!("`{}` is not a repository", self.repository))
                .hint("write ORG/NAME, as HuggingFaceTB/SmolLM2-135M-Instruct"));
        }
        self.download()
    }

    #[cfg(not(feature = "hub"))]
    fn download(&self) -> Result<(), Failure> {
        let wanted = self.file.as_deref().unwrap_or("its files");
        Err(Failure::new("this program was built without downloads").hint(format_args!(
            "build with `cargo build --release --features hub`, or fetch {wanted} from huggingface.co/{}/tree/{} and name the folder",
            self.repository, self.revision
        )))
    }
}

/// Two names of letters, digits, `-`, `_` and `.`, none of them only dots.
fn is_repository(text: &str) -> bool {
    let is_name = |name: &str| {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        !name.is_empty() && name.len() <= 96 && name.chars().all(fits) && name.chars().any(|c| c != '.')
    };
    text.split_once('/').is_some_and(|(owner, name)| is_name(owner) && is_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_two_names() {
        for good in ["HuggingFaceTB/SmolLM2-135M", "a/b", "meta-llama/Llama-3.1_8B"] {
            assert!(is_repository(good), "{good}");
        }
        for bad in ["", "gpt2", "a/b/c", "../x", "a/..", "a b/c", "https://x/y", "a/"] {
            assert!(!is_repository(bad), "{bad}");
        }
    }
}
