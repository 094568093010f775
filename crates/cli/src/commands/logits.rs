//! `roofline logits`: what the model says after each token, as numbers.

use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use roofline_engine::sampling::{Sampler, SamplerConfig, TokenLogprob};
use roofline_engine::{Arithmetic, EngineError, KvFormat, ModelFiles, Session};
use serde_json::json;

use super::run::encode;
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::model::{self, Machinery, Memory, parse_ids};
use crate::output::{Align, Table, WholeFile, print, print_json, say};

/// Logits after every token of a text
///
/// Writes them as a safetensors file (tensor `logits`, (n_tokens, vocab_size), f32) and shows the most probable next
/// tokens. Arithmetic is exact unless --fast is given, and keys
/// and values are kept in f32 unless --kv-type says otherwise: this command is a measuring instrument.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  roofline logits demo -p 'It was' --top 10\n  \
    roofline logits ./pythia-70m --tokens 510,2206,310 --output logits.safetensors\n  \
    roofline logits demo --tokens 510,2206,310,11,77 --prompt 3 --cache h2o:heavy=1,recent=1 --every")]
pub struct Logits {
    /// `demo`, a Hugging Face folder or a .gguf file
    model: String,
    /// The text as token ids, as 1,2,3
    #[arg(long, value_name = "IDS", required_unless_present = "prompt")]
    tokens: Option<String>,
    /// The text; beside --tokens, how many of them are the prompt, the others being fed one by one
    #[arg(short, long, value_name = "TEXT|P")]
    prompt: Option<String>,
    /// Write all logits to this safetensors file
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Show the N most probable next tokens [default: 10, or none with --output]
    #[arg(long, value_name = "N")]
    top: Option<usize>,
    /// Show them after every token, not only after the last
    #[arg(long)]
    every: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    memory: Memory,
    #[command(flatten)]
    machinery: Machinery,
}

impl Logits {
    pub fn run(&self) -> Result<(), Failure> {
        let options = self.memory.options_or(KvFormat::F32)?;
        let files = model::open(&self.model)?;
        let (ids, prompt) = match (&self.tokens, &self.prompt) {
            (Some(ids), prompt) => {
                let ids = parse_ids(ids)?;
                let prompt =
                    prompt.as_deref().map_or(Ok(ids.len()), |prompt| prompt_len(prompt, ids.len()))?;
                (ids, prompt)
            }
            (None, text) => {
                let ids = encode(&files, text.as_deref().unwrap_or_default())?;
                let prompt = ids.len();
                (ids, prompt)
            }
        };
        let vocab = files.config().vocab_size;
        let top = self.top.unwrap_or(if self.output.is_some() { 0 } else { 10 }).min(vocab);
        let mut session = Session::new(self.machinery.load_in(&files, Arithmetic::Exact)?, options)?;
        let interrupt = Interrupt::install()?;
        let mut ranker = Sampler::new(SamplerConfig::greedy(), vocab, 0)?;
        let mut writer =
            self.output.as_deref().map(|path| LogitsFile::create(path, ids.len(), vocab)).transpose()?;

        let mut tops: Vec<Vec<TokenLogprob>> = Vec::new(); // (n_tokens or 1, top)
        let mut failed: Result<(), Failure> = Ok(());
        let bar = Bar::new(ids.len());
        let mut take = |index: usize, logits: &[f32]| {
            failed = self.take(index, logits, &ids, top, &mut ranker, &mut tops, writer.as_mut());
            bar.at(index + 1);
            if failed.is_err() || interrupt.asked() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        let done = follow(&mut session, &ids, prompt, &mut take);
        bar.clear();
        failed?;
        if interrupt.asked() {
            return Err(Failure::interrupted());
        }
        done?;
        if let Some(writer) = writer {
            writer.finish()?;
        }
        let arithmetic = session.model().cpu().table().arithmetic();
        if self.json {
            return print_json(&self.json(&ids, &tops, &files, arithmetic));
        }
        say!("{arithmetic} arithmetic");
        self.show(&ids, &tops, &files)
    }

    /// One row of logits: into the file, and into the list of what is shown.
    #[allow(clippy::too_many_arguments)] // the row, where it goes, and what it takes to rank it
    fn take(
        &self,
        index: usize,
        logits: &[f32],
        ids: &[u32],
        top: usize,
        ranker: &mut Sampler,
        tops: &mut Vec<Vec<TokenLogprob>>,
        writer: Option<&mut LogitsFile>,
    ) -> Result<(), Failure> {
        if let Some(writer) = writer {
            writer.row(logits)?;
        }
        if top > 0 && (self.every || index + 1 == ids.len()) {
            tops.push(ranker.top_logprobs(logits, top)?.to_vec());
        }
        Ok(())
    }

    fn show(&self, ids: &[u32], tops: &[Vec<TokenLogprob>], files: &ModelFiles) -> Result<(), Failure> {
        if let Some(path) = &self.output {
            say!("{} rows of {} logits in {}", ids.len(), files.config().vocab_size, path.display());
        }
        let mut text = String::new();
        for (ids, top) in prefixes(ids, tops.len()).zip(tops) {
            let last = ids.last().copied().unwrap_or_default();
            text.push_str(&format!("after token {} ({last}{})\n", ids.len() - 1, shown(files, last)));
            let columns = [
                ("rank", Align::Right),
                ("id", Align::Right),
                ("ln p", Align::Right),
                ("p", Align::Right),
                ("token", Align::Left),
            ];
            let mut table = Table::new(&columns);
            for (rank, next) in top.iter().enumerate() {
                table.row([
                    (rank + 1).to_string(),
                    next.token.to_string(),
                    format!("{:.4}", next.logprob),
                    format!("{:.4}", next.logprob.exp()),
                    shown(files, next.token).trim_start().to_string(),
                ]);
            }
            text.push_str(&table.to_text());
        }
        print(&text)
    }

    fn json(
        &self,
        ids: &[u32],
        tops: &[Vec<TokenLogprob>],
        files: &ModelFiles,
        arithmetic: Arithmetic,
    ) -> serde_json::Value {
        let position = |(ids, top): (&[u32], &Vec<TokenLogprob>)| {
            let next = |next: &TokenLogprob| {
                let token = files.tokenizer().and_then(|tokenizer| tokenizer.token(next.token));
                json!({ "id": next.token, "logprob": next.logprob, "token": token })
            };
            json!({ "position": ids.len() - 1, "id": ids.last(), "top": top.iter().map(next).collect::<Vec<_>>() })
        };
        json!({
            "model": files.name(),
            "arithmetic": arithmetic.name(),
            "token_ids": ids,
            "vocab_size": files.config().vocab_size,
            "output": self.output,
            "next": prefixes(ids, tops.len()).zip(tops).map(position).collect::<Vec<_>>(),
        })
    }
}

/// The last `count` prefixes of `ids`, shortest first.
fn prefixes(ids: &[u32], count: usize) -> impl Iterator<Item = &[u32]> {
    (ids.len() + 1 - count.min(ids.len())..=ids.len()).map(|len| &ids[..len])
}

/// The token as it is written in the vocabulary, in quotes, behind a space; nothing without a tokenizer.
fn shown(files: &ModelFiles, id: u32) -> String {
    let bytes = files.tokenizer().and_then(|tokenizer| tokenizer.token_bytes(id));
    bytes.map_or(String::new(), |bytes| format!(" {:?}", String::from_utf8_lossy(&bytes)))
}

/// A progress bar that appears when the work takes over a moment.
struct Bar(ProgressBar, Instant);

impl Bar {
    fn new(tokens: usize) -> Bar {
        let bar = ProgressBar::hidden();
        bar.set_length(tokens as u64);
        if let Ok(style) = ProgressStyle::with_template("logits {bar:40} {pos}/{len} tokens, {eta} left") {
            bar.set_style(style);
        }
        Bar(bar, Instant::now())
    }

    fn at(&self, done: usize) {
        if self.0.is_hidden() && self.1.elapsed() > Duration::from_millis(700) {
            self.0.set_draw_target(ProgressDrawTarget::stderr());
        }
        self.0.set_position(done as u64);
    }

    fn clear(&self) {
        self.0.finish_and_clear();
    }
}

/// A safetensors file with one f32 tensor `logits`, written row by row.
struct LogitsFile {
    out: WholeFile,
    path: PathBuf,
}

impl LogitsFile {
    fn create(path: &Path, rows: usize, vocab: usize) -> Result<LogitsFile, Failure> {
        let out = WholeFile::create(path).map_err(|error| cannot_write(path, &error))?;
        let mut file = LogitsFile { out, path: path.to_path_buf() };
        let bytes = 4 * rows as u64 * vocab as u64;
        let tensor =
            json!({ "logits": { "dtype": "F32", "shape": [rows, vocab], "data_offsets": [0, bytes] } });
        let mut header = tensor.to_string();
        header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
        file.write(&(header.len() as u64).to_le_bytes())?;
        file.write(header.as_bytes())?;
        Ok(file)
    }

    fn row(&mut self, logits: &[f32]) -> Result<(), Failure> {
        logits.iter().try_for_each(|logit| self.write(&logit.to_le_bytes()))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.out.write_all(bytes).map_err(|error| cannot_write(&self.path, &error))
    }

    fn finish(self) -> Result<(), Failure> {
        self.out.finish().map_err(|error| cannot_write(&self.path, &error))
    }
}

/// How many of `len` tokens are the prompt.
fn prompt_len(text: &str, len: usize) -> Result<usize, Failure> {
    match text.parse::<usize>() {
        Ok(prompt) if (1..=len).contains(&prompt) => Ok(prompt),
        _ => {
            Err(Failure::new(format_args!("--prompt {text}: beside --tokens it is a number from 1 to {len}"))
                .hint("it says how many of the tokens are taken in at once, as --prompt 3"))
        }
    }
}

/// Takes in the first `prompt` of `ids` at once and the others one by one, with the logits after each.
fn follow(
    session: &mut Session,
    ids: &[u32],
    prompt: usize,
    take: &mut dyn FnMut(usize, &[f32]) -> ControlFlow<()>,
) -> Result<(), EngineError> {
    session.prefill_logits(&ids[..prompt], take)?;
    for (index, &id) in ids.iter().enumerate().skip(prompt) {
        if take(index, session.decode(id)?).is_break() {
            return Err(EngineError::Cancelled);
        }
    }
    Ok(())
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format_args!("--output {}: {error}", path.display()))
}
