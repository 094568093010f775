//! [`ChatTemplate`]: a conversation written out the way a model was trained to read it.
//!
//! Templates are Jinja programs that come with a model. They run here in the environment that transformers gives
//! them (`environment.rs`), within a budget of steps: a file from somewhere must not be able to hang the program.

mod clock;
mod environment;
mod json;

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use minijinja::{Environment, Value};
use roofline_weights::gguf::{Metadata, Texts};
use serde_json::Value as Json;

use crate::tokenizer::{Tokenizer, TokenizerError};

/// Why a template could not be read or rendered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// A file could not be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// `tokenizer_config.json` is not JSON, or its `chat_template` has no form that a template has.
    #[error("chat_template of tokenizer_config.json: {0}")]
    Config(String),
    /// A GGUF key of the template has another type.
    #[error(transparent)]
    Metadata(#[from] roofline_weights::WeightsError),
    /// The model has templates, but none of this name.
    #[error("the model has no chat template called {wanted:?}; it has {names}")]
    NoSuchTemplate {
        /// The name that was asked for.
        wanted: String,
        /// The names there are.
        names: String,
    },
    /// The template is not a Jinja program that can be compiled.
    #[error("chat template {name:?}, line {line}: {message}")]
    Syntax {
        /// Which template.
        name: String,
        /// Line in the template, from 1; 0 if unknown.
        line: usize,
        /// What is wrong there.
        message: String,
    },
    /// The template itself refused the conversation, by `raise_exception`.
    #[error("the chat template refuses this conversation: {0}")]
    Refused(String),
    /// The template failed while it ran.
    #[error("chat template {name:?}, line {line}: {message}")]
    Render {
        /// Which template.
        name: String,
        /// Line in the template, from 1; 0 if unknown.
        line: usize,
        /// What happened there.
        message: String,
    },
    /// The rendered text could not be tokenized.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// `system`, `user` or `assistant`; templates know more.
    pub role: String,
    /// What was said.
    pub content: String,
}

impl Message {
    /// A turn of `role` that says `content`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }
}

/// What a template is told besides the messages.
#[derive(Debug, Clone)]
pub struct RenderOptions {
    /// Whether to end with the beginning of the assistant's next turn.
    pub add_generation_prompt: bool,
    /// Text of the BOS token; what the template writes for it when there is none is empty.
    pub bos_token: Option<String>,
    /// Text of the EOS token.
    pub eos_token: Option<String>,
    /// Anything else by name: `tools`, `enable_thinking`, … Overrides all of the above.
    pub extra: serde_json::Map<String, Json>,
    /// What `strftime_now` takes for now; dates are in UTC.
    pub now: SystemTime,
}

impl RenderOptions {
    /// For an answer: with a generation prompt, the tokens of `tokenizer` and the present time.
    pub fn of(tokenizer: &Tokenizer) -> Self {
        let text = |id: Option<u32>| id.and_then(|id| tokenizer.token(id)).map(str::to_string);
        Self {
            add_generation_prompt: true,
            bos_token: text(tokenizer.bos()),
            eos_token: text(tokenizer.eos()),
            extra: serde_json::Map::new(),
            now: SystemTime::now(),
        }
    }
}

/// The chat templates of a model; one of them is in use.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    sources: Vec<(String, String)>, // (name, text as the model has it)
    chosen: usize,
}

/// Name of the template that is used unless another is asked for.
const DEFAULT: &str = "default";

impl ChatTemplate {
    /// A template from its text.
    ///
    /// # Errors
    /// Text that does not compile.
    pub fn new(template: &str) -> Result<Self, TemplateError> {
        Self::named(vec![(DEFAULT.to_string(), template.to_string())])
    }

    /// Templates by name; `default` is in use, or the first if none is called so.
    fn named(sources: Vec<(String, String)>) -> Result<Self, TemplateError> {
        let environment = environment::with_templates(&sources)?;
        let chosen = sources.iter().position(|(name, _)| name == DEFAULT).unwrap_or(0);
        Ok(Self { environment, sources, chosen })
    }

    /// The templates of a Hugging Face folder: `chat_template.jinja`, or else those of `tokenizer_config.json`. `None`
    /// if the model has none.
    ///
    /// # Errors
    /// A file that cannot be read, or templates that do not compile.
    pub fn from_hf_dir(dir: impl AsRef<Path>) -> Result<Option<Self>, TemplateError> {
        let file = dir.as_ref().join("chat_template.jinja");
        if let Some(bytes) = read_optional(&file)? {
            let text = String::from_utf8(bytes).map_err(|error| TemplateError::Io {
                path: file,
                source: std::io::Error::new(std::io::ErrorKind::InvalidData, error),
            })?;
            return Self::new(&text).map(Some);
        }
        match read_optional(&dir.as_ref().join("tokenizer_config.json"))? {
            Some(bytes) => Self::from_tokenizer_config(&bytes),
            None => Ok(None),
        }
    }

    /// The `chat_template` of a `tokenizer_config.json`: a text, or a list of objects with `name` and `template`.
    ///
    /// # Errors
    /// Bytes that are not JSON, another form of `chat_template`, or templates that do not compile.
    pub fn from_tokenizer_config(bytes: &[u8]) -> Result<Option<Self>, TemplateError> {
        let config: Json = serde_json::from_slice(bytes).map_err(|e| TemplateError::Config(e.to_string()))?;
        let sources = match config.get("chat_template") {
            None | Some(Json::Null) => return Ok(None),
            Some(Json::String(template)) => vec![(DEFAULT.to_string(), template.clone())],
            Some(Json::Array(list)) => list.iter().map(named_template).collect::<Result<_, _>>()?,
            Some(_) => return Err(TemplateError::Config("neither a text nor a list".to_string())),
        };
        if sources.is_empty() { Ok(None) } else { Self::named(sources).map(Some) }
    }

    /// The templates of a GGUF file: `tokenizer.chat_template`, and `tokenizer.chat_template.<name>` for the names in
    /// `tokenizer.chat_templates`.
    ///
    /// # Errors
    /// Keys of another type, or templates that do not compile.
    pub fn from_gguf(metadata: &Metadata) -> Result<Option<Self>, TemplateError> {
        let mut sources = Vec::new();
        if let Some(text) = metadata.optional::<&str>("tokenizer.chat_template")? {
            sources.push((DEFAULT.to_string(), text.to_string()));
        }
        let names = metadata.optional::<&Texts>("tokenizer.chat_templates")?;
        for name in names.into_iter().flat_map(Texts::iter) {
            let text = metadata.str(&format!("tokenizer.chat_template.{name}"))?;
            if name != DEFAULT || sources.is_empty() {
                sources.push((name.to_string(), text.to_string()));
            }
        }
        if sources.is_empty() { Ok(None) } else { Self::named(sources).map(Some) }
    }

    /// Names of the templates, in the model's order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.sources.iter().map(|(name, _)| name.as_str())
    }

    /// The text of the template in use, as the model has it.
    pub fn source(&self) -> &str {
        &self.sources[self.chosen].1
    }

    /// The same templates with `name` in use.
    ///
    /// # Errors
    /// A name that the model does not have.
    pub fn choose(mut self, name: &str) -> Result<Self, TemplateError> {
        let found = self.names().position(|known| known == name);
        self.chosen = found.ok_or_else(|| TemplateError::NoSuchTemplate {
            wanted: name.to_string(),
            names: self.names().collect::<Vec<_>>().join(", "),
        })?;
        Ok(self)
    }

    /// The conversation as text. It holds the template's BOS already, so it is to be encoded without special tokens
    /// around it and with those in it parsed.
    ///
    /// # Errors
    /// [`TemplateError::Refused`] where the template raises an exception, [`TemplateError::Render`] where it fails or
    /// takes too many steps.
    pub fn render(&self, messages: &[Message], options: &RenderOptions) -> Result<String, TemplateError> {
        let name = &self.sources[self.chosen].0;
        let context = environment::context(messages, options);
        let rendered = self.environment.get_template(name).and_then(|template| template.render(context));
        rendered.map_err(|error| environment::render_error(name, &error))
    }

    /// The special token that this template puts after what an assistant said, if it puts one: what a model trained
    /// on it ends its turn with.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`] for a conversation of one user and one assistant turn.
    pub fn end_of_turn(&self, tokenizer: &Tokenizer) -> Result<Option<u32>, TemplateError> {
        // Letters alone survive whatever trimming and escaping a template does.
        const ANSWER: &str = "Zwischenruf";
        let messages = [Message::new("user", "Hi"), Message::new("assistant", ANSWER)];
        let options = RenderOptions { add_generation_prompt: false, ..RenderOptions::of(tokenizer) };
        let text = self.render(&messages, &options)?;
        let Some((_, tail)) = text.rsplit_once(ANSWER) else { return Ok(None) };
        let ids = tokenizer.encode(tail, false, true)?;
        let blank = |id: &u32| tokenizer.token_bytes(*id).is_some_and(|bytes| bytes.trim_ascii().is_empty());
        Ok(ids.into_iter().find(|id| !blank(id)).filter(|id| tokenizer.is_whole(*id)))
    }
}

fn named_template(entry: &Json) -> Result<(String, String), TemplateError> {
    let text = |key: &str| entry.get(key).and_then(Json::as_str).map(str::to_string);
    text("name")
        .zip(text("template"))
        .ok_or_else(|| TemplateError::Config("an entry of the list lacks a name or a template".to_string()))
}

fn read_optional(path: &Path) -> Result<Option<Vec<u8>>, TemplateError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TemplateError::Io { path: path.to_path_buf(), source }),
    }
}

impl From<&Message> for Value {
    fn from(message: &Message) -> Self {
        minijinja::context! { role => &message.role, content => &message.content }
    }
}
