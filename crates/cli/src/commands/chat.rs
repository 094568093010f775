//! `roofline chat`: a conversation that keeps what it has read.

use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use roofline_engine::sampling::Sampler;
use roofline_engine::{
    CacheError, EngineError, FinishReason, GenerateOptions, GenerationInput, ModelFiles, Session,
};
use roofline_model::chat_template::{ChatTemplate, Message, RenderOptions};
use serde_json::json;

use super::run::{runs_on, sampler_for, stream};
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::model::{self, DEMO, Machinery, Memory};
use crate::output::{WholeFile, say, to_stderr};
use crate::record::Record;
use crate::sampling::{Chosen, Sampling};

/// Talk with a model, turn by turn
///
/// Uses the model's own chat template. Ctrl-C stops an answer and keeps the conversation; at the prompt it ends the
/// program. Lines that begin with / are commands: /help lists them.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  roofline chat ./Qwen2.5-0.5B-Instruct\n  \
    roofline chat model.gguf --system 'Answer in one sentence.' -n 200\n  \
    printf 'Hello\\n/stats\\n' | roofline chat model.gguf")]
pub struct Chat {
    /// `demo`, a Hugging Face folder or a .gguf file
    #[arg(default_value = DEMO)]
    model: String,
    /// What the model is told before the conversation
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Which chat template: the model's, or `plain` (User: … Assistant: …), or a Jinja file
    #[arg(long, value_name = "NAME", default_value = "model")]
    template: String,
    /// Tokens of one answer at most; a stop rule, it sizes nothing
    #[arg(short = 'n', long, value_name = "N", default_value_t = 512)]
    max_new_tokens: usize,
    #[command(flatten)]
    memory: Memory,
    #[command(flatten)]
    machinery: Machinery,
    #[command(flatten)]
    sampling: Sampling,
}

/// For models that were never taught turns. The stop text ends an answer where the model begins to play the user.
const PLAIN: &str = "{% for m in messages %}{{ m.role | capitalize }}: {{ m.content }}\n{% endfor %}\
                     {% if add_generation_prompt %}Assistant:{% endif %}";
const PLAIN_STOP: &str = "\nUser:";

const HELP: &str = "/reset           forget the conversation\n/system TEXT     forget it and set the system prompt\n\
                    /save FILE       write the conversation as JSON\n/stats           what the last answer cost\n\
                    /quit            leave\n";

impl Chat {
    pub fn run(&self) -> Result<(), Failure> {
        let options = self.memory.options()?;
        let files = model::open(&self.model)?;
        let chosen = self.sampling.choose(&files)?;
        let template = self.template(&files)?;
        let model = self.machinery.load(&files)?;
        let interrupt = Interrupt::install()?;
        let session = Session::new(model.clone(), options)?;
        let sampler = sampler_for(&chosen, &model, session.context())?;
        say!("{} on {}; /help lists the commands", files.name(), runs_on(&model));
        for note in files.notes().iter().chain(&chosen.notes).chain(&template.note) {
            say!("note: {note}");
        }
        let messages = self.system.iter().map(|text| Message::new("system", text)).collect();
        let mut talk = Talk {
            files: &files,
            chosen: &chosen,
            template,
            session,
            sampler,
            messages,
            last: None,
            max: self.max_new_tokens,
        };
        talk.listen(&interrupt)
    }

    fn template(&self, files: &ModelFiles) -> Result<Template, Failure> {
        if files.tokenizer().is_none() {
            return Err(Failure::new(format_args!("{} has no tokenizer", files.name()))
                .hint("chat needs text; roofline run --tokens works with ids"));
        }
        match (self.template.as_str(), files.template()) {
            ("model", Some(template)) => {
                Ok(Template { template: template.clone(), plain: false, note: None })
            }
            ("model", None) => Template::plain(Some(format!(
                "{} has no chat template; `User: … Assistant: …` is used (--template plain)",
                files.name()
            ))),
            ("plain", _) => Template::plain(None),
            (file, _) => {
                let text = std::fs::read_to_string(file)
                    .map_err(|error| Failure::new(format_args!("--template {file}: {error}")))?;
                let template = ChatTemplate::new(&text).map_err(Failure::new)?;
                Ok(Template { template, plain: false, note: None })
            }
        }
    }
}

struct Template {
    template: ChatTemplate,
    plain: bool,
    note: Option<String>,
}

impl Template {
    fn plain(note: Option<String>) -> Result<Template, Failure> {
        Ok(Template { template: ChatTemplate::new(PLAIN).map_err(Failure::new)?, plain: true, note })
    }
}

/// A conversation under way.
struct Talk<'a> {
    files: &'a ModelFiles,
    chosen: &'a Chosen,
    template: Template,
    session: Session,
    sampler: Sampler,
    messages: Vec<Message>,
    last: Option<Record>,
    max: usize,
}

impl Talk<'_> {
    /// Reads lines until there are no more.
    fn listen(&mut self, interrupt: &Interrupt) -> Result<(), Failure> {
        let stdin = std::io::stdin();
        let typed = stdin.is_terminal();
        loop {
            interrupt.idle();
            if typed {
                to_stderr(format_args!("> "));
            }
            let mut line = String::new();
            let read = stdin.lock().read_line(&mut line);
            match read.map_err(|error| Failure::new(format_args!("stdin: {error}")))? {
                0 => return Ok(()),
                _ if line.trim().is_empty() => continue,
                _ => {}
            }
            interrupt.busy();
            let line = line.trim_end_matches(['\n', '\r']);
            match line.strip_prefix('/') {
                Some("quit" | "exit") => return Ok(()),
                Some(command) => self.obey(command),
                None => self.turn(line, interrupt)?,
            }
        }
    }

    fn obey(&mut self, command: &str) {
        match command.split_once(' ').unwrap_or((command, "")) {
            ("help", _) => to_stderr(format_args!("{HELP}")),
            ("reset", _) => {
                self.messages.retain(|message| message.role == "system");
                say!("The conversation is forgotten.");
            }
            ("system", text) => {
                self.messages.clear();
                if !text.trim().is_empty() {
                    self.messages.push(Message::new("system", text.trim()));
                }
                say!("The conversation begins anew.");
            }
            ("stats", _) => match &self.last {
                Some(record) => to_stderr(format_args!("{}", record.table().to_text())),
                None => say!("There is no answer yet."),
            },
            ("save", path) if !path.trim().is_empty() => match self.save(&PathBuf::from(path.trim())) {
                Ok(()) => say!("Saved to {}.", path.trim()),
                Err(error) => say!("{}: {error}", path.trim()),
            },
            ("save", _) => say!("Give a file: /save conversation.json"),
            (other, _) => say!("There is no command /{other}. These are:\n{HELP}"),
        }
    }

    fn save(&self, path: &std::path::Path) -> std::io::Result<()> {
        let messages: Vec<_> = self
            .messages
            .iter()
            .map(|message| json!({ "role": message.role, "content": message.content }))
            .collect();
        let all = json!({
            "model": self.files.name(),
            "sampling": self.chosen.settings,
            "seed": self.chosen.config.seed,
            "messages": messages,
            "last_answer": self.last.as_ref().map(Record::json),
        });
        let mut file = WholeFile::create(path)?;
        writeln!(file, "{all:#}")?;
        file.finish()
    }

    /// One question and its answer. What is wrong with a turn is said, and the conversation goes on without it.
    fn turn(&mut self, text: &str, interrupt: &Interrupt) -> Result<(), Failure> {
        self.messages.push(Message::new("user", text));
        match self.answer(interrupt) {
            Ok(record) => {
                self.messages.push(Message::new("assistant", record.text.trim()));
                match record.finish {
                    FinishReason::Cancelled => say!("(stopped)"),
                    FinishReason::Length => say!("(cut at {} tokens; -n raises this)", self.max),
                    FinishReason::ContextFull => say!("(the context is full; /reset begins anew)"),
                    FinishReason::Eos | FinishReason::Stop => {}
                }
                self.last = Some(record);
                Ok(())
            }
            Err(failure) if failure.nobody_listens() => Err(failure),
            Err(failure) => {
                self.messages.pop();
                say!("{failure}; this turn is dropped");
                Ok(())
            }
        }
    }

    fn answer(&mut self, interrupt: &Interrupt) -> Result<Record, Failure> {
        let called = Instant::now();
        let ids = self.prompt()?;
        // Only what differs from what the session has seen is read again.
        let seen = self.session.tokens();
        let shared = seen.iter().zip(&ids).take_while(|(seen, id)| seen == id).count().min(ids.len() - 1);
        let (seen, spec) = (seen.len(), self.session.options().cache.to_string());
        let shared = match self.session.rollback(seen - shared) {
            Err(EngineError::Cache(CacheError::Evicted { .. })) => {
                say!("(the cache {spec} has evicted what came before: the whole conversation is read again)");
                self.session.rollback(seen)?;
                0
            }
            taken_back => taken_back.map(|()| shared)?,
        };
        let stop_ids = self.files.stop_ids().iter().map(|stop| stop.id).collect();
        let stop_texts = if self.template.plain { vec![PLAIN_STOP.to_string()] } else { Vec::new() };
        let options = GenerateOptions {
            max_new_tokens: Some(self.max),
            stop_ids,
            stop_texts,
            ..GenerateOptions::default()
        };
        let input = GenerationInput {
            session: &mut self.session,
            sampler: &mut self.sampler,
            tokenizer: self.files.tokenizer(),
            prompt: &ids[shared..],
            options,
            cancel: interrupt.flag(),
            called,
        };
        stream(input, true)
    }

    /// The whole conversation as the template writes it. A template writes its own special tokens; the plain one
    /// leaves them to the tokenizer.
    fn prompt(&self) -> Result<Vec<u32>, Failure> {
        let Some(tokenizer) = self.files.tokenizer() else {
            return Err(Failure::new("there is no tokenizer"));
        };
        let options = RenderOptions::of(tokenizer);
        let text = self.template.template.render(&self.messages, &options).map_err(Failure::new)?;
        let ids = tokenizer.encode(&text, self.template.plain, true).map_err(Failure::new)?;
        if ids.is_empty() {
            return Err(
                Failure::new("the chat template renders to nothing").hint("--template plain does not")
            );
        }
        Ok(ids)
    }
}
