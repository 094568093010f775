//! Every convention against its reference implementation on the same logits, as `tools/golden_perplexity.py` computed it.

use std::sync::atomic::AtomicBool;

use roofline_engine::{CacheBytes, CacheSpec, EngineError, KvFormat};
use serde::Deserialize;

use super::run::{Job, Reader, RowSink, run};
use super::*;

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
    divergences: Divergences,
    counts: Vec<Counted>,
}

#[derive(Deserialize)]
struct Case {
    vocab: usize,
    tokens: Vec<u32>,
    convention: String,
    context: usize,
    stride: usize,
    bos: Option<u32>,
    perplexity: f64,
    count: usize,
    nll: f64,
    error: Option<f64>,
}

#[derive(Deserialize)]
struct Divergences {
    reference: Vec<Vec<f32>>, // (rows, vocab)
    policy: Vec<Vec<f32>>,    // (rows, vocab)
    kl: Vec<f64>,             // (rows)
    p99: f64,
    same_top: f64,
}

#[derive(Deserialize)]
struct Counted {
    text: String,
    words: u64,
    bytes: u64,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("../../tests/golden/perplexity.json")).unwrap()
}

/// A reader whose logits after `fed` are `logits(fed)`.
struct Given<F> {
    fed: Vec<u32>,
    logits: F,
    row: Vec<f32>,
}

impl<F: Fn(&[u32]) -> Vec<f32>> Reader for Given<F> {
    fn extend(&mut self, ids: &[u32]) -> Result<(), EngineError> {
        self.fed.extend_from_slice(ids);
        Ok(())
    }

    fn prefill(&mut self, ids: &[u32], _: &AtomicBool) -> Result<(), EngineError> {
        self.extend(ids)
    }

    fn rows(&mut self, ids: &[u32], sink: &mut RowSink<'_>) -> Result<(), EngineError> {
        for (index, &id) in ids.iter().enumerate() {
            self.fed.push(id);
            if sink(index, &(self.logits)(&self.fed)).is_break() {
                return Err(EngineError::Cancelled);
            }
        }
        Ok(())
    }

    fn decode(&mut self, id: u32) -> Result<&[f32], EngineError> {
        self.fed.push(id);
        self.row = (self.logits)(&self.fed);
        Ok(&self.row)
    }

    fn observe(&mut self) {}

    fn missed(&mut self, _: &Self) -> Result<f64, EngineError> {
        Ok(0.25)
    }

    fn bytes(&self) -> CacheBytes {
        CacheBytes { live: self.fed.len() as u64, ..CacheBytes::default() }
    }
}

/// `logits_after` of the script.
fn hashed(fed: &[u32], vocab: usize) -> Vec<f32> {
    let prime = 0x100_0000_01b3u64;
    let state = fed.iter().fold(0xcbf2_9ce4_8422_2325u64, |h, &id| (h ^ u64::from(id)).wrapping_mul(prime));
    let row = (0..vocab as u64).map(|v| {
        let bits = crate::statistics::Random(state.wrapping_add(v)).next() >> 40;
        bits as f32 / (1 << 24) as f32 * 8.0 - 4.0
    });
    row.collect()
}

fn plan(case: &Case, mode: Mode, chunk: usize) -> Plan {
    Plan {
        convention: case.convention.parse().unwrap(),
        context: case.context,
        stride: case.stride,
        bos: case.bos,
        mode,
        prompt: 1,
        chunk,
        buckets: 3,
    }
}

fn report(case: &Case, plan: &Plan) -> Report {
    let texts = [Text::of_tokens(case.tokens.clone())];
    let setup = Setup::full(KvFormat::F32);
    let job = Job { texts: &texts, plan, setups: &[&setup], compares: false, vocab: case.vocab };
    let open = |_: &Setup, _: usize| {
        Ok(Given { fed: Vec::new(), logits: |fed: &[u32]| hashed(fed, case.vocab), row: Vec::new() })
    };
    run(&job, &open, &AtomicBool::new(false), &mut |_| {}).unwrap()
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * b.abs().max(1.0)
}

#[test]
fn every_convention_is_its_reference_implementation() {
    for case in golden().cases {
        for chunk in [1, 5, 512] {
            let report = report(&case, &plan(&case, Mode::Parallel, chunk));
            let found = &report.rows[0].perplexity;
            let what = format!(
                "{} {} {} of {} tokens",
                case.convention,
                case.context,
                case.stride,
                case.tokens.len()
            );
            assert_eq!(found.tokens, case.count, "{what}");
            assert!(close(found.nll.value * case.count as f64, case.nll), "{what}");
            assert!(close(found.as_reference.unwrap(), case.perplexity), "{what}");
            assert!(close(found.token.value, (case.nll / case.count as f64).exp()), "{what}");
            if let (Some(error), Some(found)) = (case.error, found.standard_error_of_tokens) {
                assert!((error - found).abs() < 1e-6 * error.max(1.0), "{what}: {found} is not {error}");
            }
            let buckets = &report.rows[0].buckets;
            assert_eq!(buckets.iter().map(|bucket| bucket.tokens).sum::<usize>(), case.count, "{what}");
        }
    }
}

/// Where only what is behind the prompt was scored anyway, decode mode is the same measurement.
#[test]
fn decode_mode_scores_the_same_tokens_as_parallel_mode() {
    let mut compared = 0;
    for case in golden().cases.iter().filter(|case| case.convention == "half-chunk") {
        let plan = Plan { prompt: case.context / 2, ..plan(case, Mode::Decode, 512) };
        let found = &report(case, &plan).rows[0];
        assert_eq!(found.perplexity.tokens, case.count);
        assert!(close(found.perplexity.nll.value * case.count as f64, case.nll));
        assert_eq!(found.at_once.unwrap().tokens, case.tokens.len() / case.context * (case.context / 2));
        compared += 1;
    }
    assert!(compared > 20);
}

#[test]
fn divergence_and_agreement_are_those_of_numpy() {
    let golden = golden().divergences;
    let rows = golden.kl.len();
    let texts = [Text::of_tokens((0..rows as u32).map(|i| i % 17).collect())];
    let (full, policy) =
        (Setup::full(KvFormat::F32), Setup { cache: CacheSpec::fixed(99), kv_format: KvFormat::F32.into() });
    for mode in [Mode::Parallel, Mode::Decode] {
        let mut plan = Plan::of(Convention::RollingDoc, rows, Some(0));
        (plan.mode, plan.prompt, plan.chunk) = (mode, 1, 7);
        let job = Job { texts: &texts, plan: &plan, setups: &[&full, &policy], compares: true, vocab: 17 };
        let open = |setup: &Setup, _: usize| {
            let table = if setup.cache == CacheSpec::Full { &golden.reference } else { &golden.policy };
            Ok(Given { fed: Vec::new(), logits: |fed: &[u32]| table[fed.len() - 1].clone(), row: Vec::new() })
        };
        let report = run(&job, &open, &AtomicBool::new(false), &mut |_| {}).unwrap();
        let against = report.rows[0].against.as_ref().unwrap();
        let kl = match mode {
            Mode::Parallel => &golden.kl[..],
            Mode::Decode => &golden.kl[1..], // the prompt is not scored
        };
        assert!(close(against.kl.value, kl.iter().sum::<f64>() / kl.len() as f64));
        assert!(close(against.kl_max, kl.iter().copied().fold(0.0, f64::max)));
        let reference = report.reference.as_ref().unwrap();
        let difference = report.rows[0].perplexity.nll.value - reference.perplexity.nll.value;
        assert!(close(against.nll_difference.value, difference));
        let told = (mode == Mode::Decode).then_some(0.25);
        assert_eq!(against.missed_attention.map(|missed| missed.value), told);
        if mode == Mode::Parallel {
            assert!(close(against.kl_p99, golden.p99));
            assert!(close(against.same_top, golden.same_top));
        }
    }
}

#[test]
fn words_and_bytes_are_pythons() {
    for Counted { text, words, bytes } in golden().counts {
        assert_eq!(super::text::counts_of(&text), Counts { bytes, words }, "{text:?}");
    }
}

#[test]
fn a_row_without_a_number_is_named() {
    let texts = [Text::of_tokens(vec![1; 20])];
    let setup = Setup::full(KvFormat::F32);
    for (mode, value) in [(Mode::Parallel, f32::NAN), (Mode::Decode, f32::NEG_INFINITY)] {
        let mut plan = Plan::of(Convention::HalfChunk, 10, None);
        (plan.mode, plan.chunk) = (mode, 3);
        let job = Job { texts: &texts, plan: &plan, setups: &[&setup], compares: false, vocab: 3 };
        let open = |_: &Setup, _: usize| {
            let logits = move |fed: &[u32]| vec![0.0, if fed.len() == 8 { value } else { 1.0 }, 0.0];
            Ok(Given { fed: Vec::new(), logits, row: Vec::new() })
        };
        let error = run(&job, &open, &AtomicBool::new(false), &mut |_| {}).unwrap_err().to_string();
        assert!(error.contains("full: the logits for token 8 of text 0 (row 7 of window 0)"), "{error}");
    }
}

#[test]
fn cancelling_ends_it() {
    let case = &golden().cases[100];
    let texts = [Text::of_tokens(case.tokens.clone())];
    let setup = Setup::full(KvFormat::F32);
    let plan = plan(case, Mode::Parallel, 2);
    let job = Job { texts: &texts, plan: &plan, setups: &[&setup], compares: false, vocab: case.vocab };
    let open = |_: &Setup, _: usize| {
        Ok(Given { fed: Vec::new(), logits: |fed: &[u32]| hashed(fed, case.vocab), row: Vec::new() })
    };
    let cancel = AtomicBool::new(false);
    let mut steps = 0;
    let result = run(&job, &open, &cancel, &mut |_| {
        steps += 1;
        cancel.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert!(matches!(result, Err(crate::LabError::Cancelled)) && steps == 1);
}
