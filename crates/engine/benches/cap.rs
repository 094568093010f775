//! The same nine-token answer of the demo model under caps of 16 and of 4096 new tokens: the cap is a stop rule, so the
//! two cost the same. Run with `cargo bench -p roofline-engine --bench cap`.

use criterion::{Criterion, criterion_group, criterion_main};
use roofline_engine::sampling::{Sampler, SamplerConfig};
use roofline_engine::{Cpu, GenerateOptions, Generation, GenerationInput, Model, ModelFiles, Session};
use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

/// Tokens of the answer.
const ANSWER: usize = 9;

struct Setup {
    files: ModelFiles,
    model: Arc<Model>,
    prompt: Vec<u32>,
}

impl Setup {
    fn new() -> Result<Setup, Box<dyn Error>> {
        let files = ModelFiles::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../cli/demo"))?;
        let model = Arc::new(Model::load(&files, Cpu::new(1, None)?, &mut |_, _| {})?);
        let tokenizer = files.tokenizer().ok_or("the demo model has a tokenizer")?;
        let prompt = tokenizer.encode("It was a dark and stormy night", true, true)?;
        Ok(Setup { files, model, prompt })
    }

    /// A new session, the prompt, and the answer up to `options`' end.
    fn answer(&self, options: GenerateOptions) -> Result<Vec<u32>, Box<dyn Error>> {
        let mut session = Session::new(self.model.clone(), Default::default())?;
        let mut sampler = Sampler::new(SamplerConfig::greedy(), self.model.config().vocab_size, 64)?;
        let cancel = AtomicBool::new(false);
        let input = GenerationInput {
            session: &mut session,
            sampler: &mut sampler,
            tokenizer: self.files.tokenizer(),
            prompt: &self.prompt,
            options,
            cancel: &cancel,
            called: Instant::now(),
        };
        let events = Generation::start(input, &mut |_| {})?.collect::<Result<Vec<_>, _>>()?;
        Ok(events.iter().map(|event| event.id).collect())
    }
}

fn cap(criterion: &mut Criterion) {
    let setup = match Setup::new() {
        Ok(setup) => setup,
        Err(error) => return eprintln!("the demo model does not load: {error}"),
    };
    let first = GenerateOptions { max_new_tokens: Some(ANSWER), ..GenerateOptions::default() };
    let last = match setup.answer(first) {
        Ok(ids) => ids[ANSWER - 1],
        Err(error) => return eprintln!("the demo model does not answer: {error}"),
    };
    let mut group = criterion.benchmark_group("nine tokens");
    for cap in [16, 4096] {
        let options =
            GenerateOptions { max_new_tokens: Some(cap), stop_ids: vec![last], ..GenerateOptions::default() };
        group.bench_function(format!("cap {cap}"), |bencher| {
            bencher.iter(|| setup.answer(options.clone()).is_ok())
        });
    }
    group.finish();
}

criterion_group!(benches, cap);
criterion_main!(benches);
