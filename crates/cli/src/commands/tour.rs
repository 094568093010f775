//! `roofline` without arguments: what machine this is, a text from the demo model, and what it cost.

use std::time::Instant;

use roofline_engine::{GenerateOptions, GenerationInput, Session, SessionOptions};
use roofline_lab::environment::Environment;
use roofline_lab::units::{bytes, grouped};

use super::run::{encode, runs_on, sampler_for, stream};
use crate::failure::Failure;
use crate::interrupt::Interrupt;
use crate::model::{self, DEMO, Machinery};
use crate::output::print;
use crate::sampling::Sampling;

/// How the text begins.
const PROMPT: &str = "The old house stood at the end of the lane, and nobody had lived in it since";

/// Enough tokens for a steady rate, few enough to read.
const TOKENS: usize = 200;

/// The tour.
pub fn run() -> Result<(), Failure> {
    let (machinery, sampling) = (Machinery::default(), Sampling::default());
    print(&machine())?;
    let files = model::open(DEMO)?;
    let model = machinery.load(&files)?;
    let interrupt = Interrupt::install()?;
    let facts = model.facts();
    print(&format!(
        "Model: {DEMO}, {} parameters in {}, {}; {}.\n\n{PROMPT}",
        grouped(facts.parameters),
        bytes(facts.weight_bytes),
        files.config().family.name(),
        runs_on(&model),
    ))?;
    let chosen = sampling.choose(&files)?;
    let mut session = Session::new(model.clone(), SessionOptions::default())?;
    let called = Instant::now();
    let prompt = encode(&files, PROMPT)?;
    let mut sampler = sampler_for(&chosen, &model, session.context())?;
    let options = GenerateOptions {
        max_new_tokens: Some(TOKENS),
        stop_ids: files.stop_ids().iter().map(|stop| stop.id).collect(),
        ..GenerateOptions::default()
    };
    let input = GenerationInput {
        session: &mut session,
        sampler: &mut sampler,
        tokenizer: files.tokenizer(),
        prompt: &prompt,
        options,
        cancel: interrupt.flag(),
        called,
    };
    let record = stream(input, true)?;
    print(&format!("\n{}\n{NEXT}", record.table().to_text()))
}

const NEXT: &str = "Next:\n  roofline run MODEL -p TEXT    your own model: a Hugging Face folder or a .gguf file\n  \
    roofline inspect MODEL        what is in it\n  \
    roofline machine              measure this machine's roof\n  \
    roofline --help               everything else\n";

fn machine() -> String {
    let Environment { cpu, memory, .. } = Environment::read();
    let cores = cpu.cores.map_or("an unknown number of".to_string(), |cores| cores.to_string());
    let memory = memory.total_bytes.map_or("memory of unknown size".to_string(), bytes);
    format!("Machine: {}, {cores} cores, {memory}.\n", cpu.name.as_deref().unwrap_or("unknown processor"))
}
