//! `roofline tokenize`: text to token ids and back.

use std::io::Read;

use clap::Args;
use roofline_model::Tokenizer;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::model::{self, parse_ids};
use crate::output::{Align, Table, print, print_json};

/// Show the token ids of a text, or the text of token ids
///
/// The text is encoded as a prompt is: with the tokens that the model expects around a whole text (--no-special leaves
/// them out), and with the names of control tokens read as plain text (--parse-special reads them as those tokens).
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  roofline tokenize demo 'Once upon a time'\n  \
    roofline tokenize ./qwen3-0.6b --parse-special '<|im_start|>user'\n  \
    roofline tokenize model.gguf --ids 1,450,4996\n  cat book.txt | roofline tokenize demo - --json")]
pub struct Tokenize {
    /// `demo`, a Hugging Face folder or a .gguf file
    model: String,
    /// The text, or - for standard input
    #[arg(required_unless_present = "ids", conflicts_with = "ids")]
    text: Option<String>,
    /// Token ids to turn into text, as 1,2,3
    #[arg(long, value_name = "IDS")]
    ids: Option<String>,
    /// Leave out the tokens that the model expects around a whole text
    #[arg(long)]
    no_special: bool,
    /// Read the names of control tokens in the text as those tokens
    #[arg(long)]
    parse_special: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Tokenize {
    pub fn run(&self) -> Result<(), Failure> {
        let files = model::open(&self.model)?;
        let Some(tokenizer) = files.tokenizer() else {
            return Err(Failure::new(format_args!("{} has no tokenizer", self.model))
                .hint("give token ids where a command takes --tokens"));
        };
        let ids = match &self.ids {
            Some(ids) => parse_ids(ids)?,
            None => {
                tokenizer.encode(&self.text()?, !self.no_special, self.parse_special).map_err(Failure::new)?
            }
        };
        let text = tokenizer.decode(&ids, false).map_err(Failure::new)?;
        if self.json {
            let tokens: Vec<Value> = ids.iter().map(|id| token_json(tokenizer, *id)).collect();
            return print_json(&json!({ "ids": ids, "text": text, "tokens": tokens }));
        }
        print(&describe(tokenizer, &ids, &text))
    }

    fn text(&self) -> Result<String, Failure> {
        match self.text.as_deref() {
            Some("-") => {
                let mut text = String::new();
                std::io::stdin()
                    .read_to_string(&mut text)
                    .map_err(|error| Failure::new(format_args!("cannot read standard input: {error}")))?;
                Ok(text)
            }
            text => Ok(text.unwrap_or_default().to_string()),
        }
    }
}

/// `bytes` are what a token stands for, since that need not be whole characters.
fn token_json(tokenizer: &Tokenizer, id: u32) -> Value {
    json!({
        "id": id,
        "token": tokenizer.token(id),
        "bytes": tokenizer.token_bytes(id),
        "special": tokenizer.is_special(id),
    })
}

fn describe(tokenizer: &Tokenizer, ids: &[u32], text: &str) -> String {
    let mut table =
        Table::new(&[("id", Align::Right), ("token", Align::Left), ("text", Align::Left), ("", Align::Left)]);
    for id in ids {
        let bytes = tokenizer.token_bytes(*id).unwrap_or_default();
        table.row([
            id.to_string(),
            shown(tokenizer.token(*id).unwrap_or_default()),
            format!("{:?}", String::from_utf8_lossy(&bytes)),
            if tokenizer.is_special(*id) { "control".to_string() } else { String::new() },
        ]);
    }
    let list: Vec<String> = ids.iter().map(u32::to_string).collect();
    let (n, characters) = (ids.len(), text.chars().count());
    format!("{}\n{n} tokens, {characters} characters: {}\n", table.to_text(), list.join(","))
}

/// Nothing that moves the cursor.
pub fn shown(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}
