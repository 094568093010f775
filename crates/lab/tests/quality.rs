//! Perplexity through real sessions on a small golden model: against logits taken one window at a time, and the
//! properties that a measurement must have.
#![allow(clippy::unwrap_used)] // helpers outside of #[test] too

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use roofline_engine::{CacheSpec, Cpu, KvFormat, Model, ModelFiles, Session, SessionOptions};
use roofline_lab::quality::{self, Convention, Mode, Plan, Report, Setup, Text};

const TEXT: &str = "It was the best of times, it was the worst of times,\n it was the age of wisdom, it was the age of \
                    foolishness, it was the epoch of belief, it was the epoch of incredulity, it was the season of \
                    Light, it was the season of Darkness, it was the spring of hope, it was the winter of despair.";

fn files() -> ModelFiles {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/golden");
    ModelFiles::open(&root.join("llama_gqa_tied")).unwrap()
}

fn model(files: &ModelFiles, threads: usize) -> Arc<Model> {
    Arc::new(Model::load(files, Cpu::new(threads, None).unwrap(), &mut |_, _| {}).unwrap())
}

fn text(files: &ModelFiles, convention: Convention) -> Text {
    Text::encode(files.tokenizer().unwrap(), "times", TEXT, convention, None).unwrap()
}

fn plan(files: &ModelFiles, convention: Convention, context: usize) -> Plan {
    let bos = quality::lead(files.tokenizer().unwrap(), convention).unwrap();
    let mut plan = Plan::of(convention, 128, bos);
    plan.context = context;
    plan.stride = if convention == Convention::Strided { context / 2 } else { context };
    plan.prompt = context / 2;
    plan
}

fn measure(
    model: &Arc<Model>,
    text: &Text,
    plan: &Plan,
    setups: &[Setup],
    reference: Option<&Setup>,
) -> Report {
    let never = AtomicBool::new(false);
    let texts = std::slice::from_ref(text);
    quality::measure(model, texts, plan, setups, reference, &never, &mut |_| {}).unwrap()
}

/// −ln p of `target` after `fed`, by a session of its own and nothing of this crate.
fn nll(model: &Arc<Model>, fed: &[u32], target: u32) -> f64 {
    let options = SessionOptions { kv_format: KvFormat::F32.into(), ..SessionOptions::default() };
    let mut session = Session::new(model.clone(), options).unwrap();
    session.prefill(fed).unwrap();
    let logits = session.logits().unwrap();
    let sum: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum(); // logits of a tiny model are small
    sum.ln() - f64::from(logits[target as usize])
}

#[test]
fn windows_run_through_sessions_as_defined() {
    let files = files();
    let model = model(&files, 2);
    for convention in Convention::ALL {
        let (text, plan) = (text(&files, convention), plan(&files, convention, 48));
        let tokens = text.tokens();
        let (mut sum, mut count) = (0.0, 0);
        for window in convention.windows(tokens, plan.context, plan.stride, plan.bos).unwrap() {
            let inputs = window.inputs(tokens);
            for (row, &target) in (window.first_row..).zip(&tokens[window.targets()]) {
                sum += nll(&model, &inputs[..=row], target);
                count += 1;
            }
        }
        let found = measure(&model, &text, &plan, &[Setup::full(KvFormat::F32)], None);
        let found = &found.rows[0].perplexity;
        assert_eq!(found.tokens, count, "{convention}");
        assert!((found.nll.value - sum / count as f64).abs() < 1e-9, "{convention}");
    }
}

#[test]
fn bos_is_what_the_conventions_say() {
    let files = files();
    let bos = files.tokenizer().unwrap().bos();
    assert_eq!(plan(&files, Convention::HalfChunk, 48).bos, bos);
    assert_eq!(plan(&files, Convention::Strided, 48).bos, None);
    assert_eq!(plan(&files, Convention::RollingDoc, 48).bos, bos);
    let framed = text(&files, Convention::Strided);
    let bare = text(&files, Convention::RollingDoc);
    assert_eq!(framed.tokens()[0], bos.unwrap());
    assert_eq!(&framed.tokens()[1..], bare.tokens());
    // lm-eval reads control tokens in a text as those tokens, llama.cpp as text.
    let encode = |convention| {
        Text::encode(files.tokenizer().unwrap(), "x", "<|end_of_text|>", convention, None).unwrap()
    };
    assert_eq!(encode(Convention::RollingDoc).tokens().len(), 1);
    assert!(encode(Convention::HalfChunk).tokens().len() > 2);
}

/// All tokens of a text together decode to its words and bytes; so do those that a rolling document scores.
#[test]
fn words_and_bytes_of_tokens_add_up_to_the_texts() {
    let files = files();
    for convention in Convention::ALL {
        let text = text(&files, convention);
        let whole = text.source().unwrap().whole;
        assert_eq!(text.worth(0..text.tokens().len()), Some(whole), "{convention}");
        assert_eq!(whole.bytes, TEXT.len() as u64);
        let half = text.tokens().len() / 2;
        let (a, b) = (text.worth(0..half).unwrap(), text.worth(half..text.tokens().len()).unwrap());
        assert_eq!((a.bytes + b.bytes, a.words + b.words), (whole.bytes, whole.words));
    }
    let rolling = text(&files, Convention::RollingDoc);
    let found = measure(
        &model(&files, 1),
        &rolling,
        &plan(&files, Convention::RollingDoc, 40),
        &[Setup::full(KvFormat::F32)],
        None,
    );
    assert_eq!(found.counts, Some(rolling.source().unwrap().whole));
    let row = &found.rows[0].perplexity;
    let sum = row.nll.value * row.tokens as f64;
    let (words, bytes) = (row.word.unwrap().value.ln(), row.byte.unwrap().value.ln());
    let whole = rolling.source().unwrap().whole;
    assert!((words - sum / whole.words as f64).abs() < 1e-9);
    assert!((bytes - sum / whole.bytes as f64).abs() < 1e-9);
}

/// Threads, steps and modes change the clock, not the numbers.
#[test]
fn the_same_tokens_give_the_same_bits() {
    let files = files();
    let convention = Convention::HalfChunk;
    let (text, plan) = (text(&files, convention), plan(&files, convention, 48));
    let setups = [Setup::full(KvFormat::F32), Setup::full(KvFormat::F16)];
    let figures = |report: Report| -> Vec<_> {
        report.rows.into_iter().map(|row| (row.perplexity, row.buckets)).collect()
    };
    let expected = figures(measure(&model(&files, 1), &text, &plan, &setups, None));
    for (threads, chunk, mode) in
        [(2, 512, Mode::Parallel), (1, 7, Mode::Parallel), (2, 1, Mode::Parallel), (2, 512, Mode::Decode)]
    {
        let other = Plan { chunk, mode, ..plan.clone() };
        let mut found = figures(measure(&model(&files, threads), &text, &other, &setups, None));
        for ((row, _), (same, _)) in found.iter_mut().zip(&expected) {
            row.as_reference = same.as_reference; // not told in decode mode
        }
        assert_eq!(found, expected, "{threads} threads, steps of {chunk}, {mode:?}");
    }
}

#[test]
fn a_cache_against_itself_differs_in_nothing_and_a_narrow_one_a_little() {
    let files = files();
    let model = model(&files, 2);
    let convention = Convention::Strided;
    let (text, plan) = (text(&files, convention), plan(&files, convention, 64));
    let reference = Setup::full(KvFormat::F32);
    let fixed = Setup { cache: CacheSpec::fixed(64), kv_format: KvFormat::F32.into() };
    let setups = [reference.clone(), fixed, Setup::full(KvFormat::Bf16)];
    for mode in [Mode::Parallel, Mode::Decode] {
        let plan = Plan { mode, ..plan.clone() };
        let report = measure(&model, &text, &plan, &setups, Some(&reference));
        for same in &report.rows[..2] {
            let against = same.against.as_ref().unwrap();
            assert_eq!((against.kl_max, against.same_top, against.nll_difference.value), (0.0, 1.0, 0.0));
            assert_eq!(same.perplexity, report.reference.as_ref().unwrap().perplexity);
        }
        let narrow = report.rows[2].against.as_ref().unwrap();
        assert!(narrow.kl.value > 0.0 && narrow.kl.value < 1e-3, "{narrow:?}");
        assert!(narrow.kl_p99 >= narrow.kl_median && narrow.kl_max >= narrow.kl_p99);
        assert!(narrow.nll_difference.value != 0.0);
        // Half the bytes of f32, and one slot for each token fed.
        let (wide, small) = (report.rows[0].kv, report.rows[2].kv);
        assert_eq!(wide.live, 2 * small.live);
        assert!(small.committed >= small.live && small.peak >= small.committed);
    }
}

fn setup(cache: &str) -> Setup {
    Setup { cache: cache.parse().unwrap(), kv_format: KvFormat::F32.into() }
}

/// The band that rows see at once is what they see one by one, from any prompt on.
#[test]
fn streaming_at_once_is_streaming_one_by_one() {
    let files = files();
    let model = model(&files, 2);
    for convention in [Convention::HalfChunk, Convention::RollingDoc] {
        let (text, plan) = (text(&files, convention), plan(&files, convention, 96));
        for cache in ["streaming:sinks=4,window=20", "streaming:sinks=0,window=30,positions=true"] {
            let setups = [setup(cache)];
            let at_once = measure(&model, &text, &plan, &setups, None);
            let decode = Plan { mode: Mode::Decode, prompt: 1, ..plan.clone() };
            let one_by_one = measure(&model, &text, &decode, &setups, None);
            let (a, b) = (&at_once.rows[0].perplexity, &one_by_one.rows[0].perplexity);
            if convention == Convention::HalfChunk {
                assert_eq!(a.tokens, b.tokens);
                assert!((a.nll.value - b.nll.value).abs() < 1e-4, "{cache}: {a:?} {b:?}");
            } else {
                // The token that each prompt predicts is left out; the last window scores none of its first.
                assert_eq!(a.tokens, b.tokens + at_once.windows - 1);
            }
            assert!(one_by_one.rows[0].at_once.unwrap().tokens == at_once.windows);
        }
    }
}

/// Streaming stays inside of the model's context however long the window; nothing else does.
#[test]
fn streaming_alone_goes_beyond_the_models_context() {
    let files = files();
    let model = model(&files, 2);
    let text =
        Text::encode(files.tokenizer().unwrap(), "times", &TEXT.repeat(3), Convention::RollingDoc, None)
            .unwrap();
    let plan = plan(&files, Convention::RollingDoc, 400);
    let streaming = setup("streaming:sinks=4,window=60");
    let report = measure(&model, &text, &plan, std::slice::from_ref(&streaming), None);
    let row = &report.rows[0];
    assert!(row.perplexity.token.value.is_finite() && row.perplexity.tokens == text.tokens().len());
    assert!(row.buckets.last().unwrap().last == 400 && row.buckets.len() == 8);
    let never = AtomicBool::new(false);
    let texts = std::slice::from_ref(&text);
    let full = Setup::full(KvFormat::F32);
    for (setups, reference) in [([full.clone()], None), ([streaming], Some(&full))] {
        let error = quality::measure(&model, texts, &plan, &setups, reference, &never, &mut |_| {});
        let line = error.unwrap_err().to_string();
        assert!(line.contains("longer than the model's context of 128, and the cache full"), "{line}");
    }
}

const ACTING: [(&str, &str); 7] = [
    ("snapkv:budget=128,window=8", "snapkv:budget=20,window=8"),
    ("adakv:budget=128,window=8", "adakv:budget=20,window=8"),
    ("knorm:budget=128", "knorm:budget=20"),
    ("h2o:heavy=64,recent=64", "h2o:heavy=10,recent=10"),
    ("tova:budget=128", "tova:budget=20"),
    ("quest:budget=128,page=16,dense_layers=0", "quest:budget=32,page=16,dense_layers=0"),
    ("streaming:sinks=4,window=123", "streaming:sinks=4,window=16"),
];

/// Every policy is the full cache while its budget lasts, and costs something when it does not.
#[test]
fn policies_cost_nothing_within_their_budget_and_something_beyond_it() {
    let files = files();
    let model = model(&files, 2);
    let convention = Convention::HalfChunk;
    let (text, mut plan) = (text(&files, convention), plan(&files, convention, 90));
    plan.mode = Mode::Decode;
    let setups: Vec<Setup> = ACTING.iter().flat_map(|(wide, small)| [setup(wide), setup(small)]).collect();
    let full = Setup::full(KvFormat::F32);
    let report = measure(&model, &text, &plan, &setups, Some(&full));
    let kept = report.reference.as_ref().unwrap().kv.live;
    for pair in report.rows.chunks(2) {
        let (wide, small) = (pair[0].against.as_ref().unwrap(), pair[1].against.as_ref().unwrap());
        let cache = &pair[1].cache;
        assert_eq!((wide.kl_max, wide.same_top), (0.0, 1.0), "{}", pair[0].cache);
        assert!(wide.missed_attention.unwrap().value < 1e-6, "{}", pair[0].cache);
        assert!(small.kl.value > 0.0, "{cache}");
        let missed = small.missed_attention.unwrap().value;
        assert!(missed > 0.01 && missed < 1.0, "{cache}: {missed}");
        if !cache.starts_with("quest") {
            // Compressors keep every token that is fed after the prompt.
            assert!(pair[1].kv.live < kept, "{cache} holds {} of {kept}", pair[1].kv.live);
        }
    }
    // At once, those that act on prompts or in decode steps would be the full cache.
    let never = AtomicBool::new(false);
    plan.mode = Mode::Parallel;
    let texts = std::slice::from_ref(&text);
    for (wide, _) in &ACTING[..6] {
        let error = quality::measure(&model, texts, &plan, &[setup(wide)], None, &never, &mut |_| {});
        assert!(error.unwrap_err().to_string().contains("use --mode decode"), "{wide}");
    }
}

#[test]
fn errors_are_over_blocks() {
    let files = files();
    let tokenizer = files.tokenizer().unwrap();
    let long = TEXT.repeat(12);
    let text = Text::encode(tokenizer, "times", &long, Convention::RollingDoc, None).unwrap();
    let setups = [Setup::full(KvFormat::F16)];
    let report = measure(&model(&files, 2), &text, &plan(&files, Convention::RollingDoc, 100), &setups, None);
    assert!(report.blocks > 5 && report.blocks <= text.tokens().len() / 128);
    let token = report.rows[0].perplexity.token;
    let interval = token.interval.unwrap();
    assert!(token.standard_error.unwrap() > 0.0 && interval.contains(token.value));
    // A single block has no error, and that is said.
    let short = Text::of_tokens(text.tokens()[..100].to_vec());
    let report =
        measure(&model(&files, 2), &short, &plan(&files, Convention::RollingDoc, 100), &setups, None);
    let found = &report.rows[0].perplexity;
    assert_eq!((report.blocks, found.token.standard_error, found.word), (1, None, None));
}

#[test]
fn plans_that_cannot_be_followed_are_refused() {
    let files = files();
    let model = model(&files, 1);
    let (text, good) = (text(&files, Convention::HalfChunk), plan(&files, Convention::HalfChunk, 48));
    let full = [Setup::full(KvFormat::F32)];
    let never = AtomicBool::new(false);
    let refusal = |plan: &Plan, texts: &[Text], setups: &[Setup]| {
        quality::measure(&model, texts, plan, setups, None, &never, &mut |_| {}).unwrap_err().to_string()
    };
    let texts = std::slice::from_ref(&text);
    let decode = Plan { mode: Mode::Decode, ..good.clone() };
    for (plan, words) in [
        (Plan { context: 2, stride: 2, ..good.clone() }, "--context 2 is not possible"),
        (Plan { context: 129, stride: 129, ..good.clone() }, "longer than the model's context of 128"),
        (Plan { stride: 0, ..good.clone() }, "--stride 0 is not possible"),
        (Plan { stride: 49, ..good.clone() }, "tokens between windows of 48 would not be scored"),
        (Plan { stride: 24, ..good.clone() }, "windows of half-chunk do not overlap"),
        (Plan { chunk: 0, ..good.clone() }, "--chunk 0"),
        (Plan { buckets: 0, ..good.clone() }, "--buckets 0"),
        (Plan { prompt: 0, ..decode.clone() }, "--prompt 0 is not possible: it takes 1 to 47"),
        (Plan { prompt: 48, ..decode.clone() }, "--prompt 48 is not possible"),
        (Plan { prompt: 47, ..decode }, "the prompt of 47 tokens reaches to the end of every window"),
        (Plan { convention: Convention::RollingDoc, bos: None, ..good.clone() }, "needs a BOS or EOS token"),
    ] {
        let line = refusal(&plan, texts, &full);
        assert!(line.contains(words), "{line}");
    }
    assert!(refusal(&good, &[], &full).contains("at least one text"));
    assert!(refusal(&good, texts, &[]).contains("at least one cache"));
    let short = [Text::of_tokens(vec![1; 47])];
    assert!(refusal(&good, &short, &full).contains("a text of 47 tokens is too short"));
    let small = [Setup { cache: CacheSpec::fixed(20), kv_format: KvFormat::F32.into() }];
    assert!(refusal(&good, texts, &small).contains("static:20 is full"));
}
