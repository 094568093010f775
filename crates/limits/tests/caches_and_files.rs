//! Steps that fit in a cache, and formats read from a real file's directory.

#![allow(clippy::unwrap_used, clippy::panic)] // a test may fail where it stands

mod common;

use common::*;
use roofline_limits::accounting::{Accounting, WeightFormats};
use roofline_limits::hardware::NumberType;
use roofline_limits::report::{Report, Request, Workload, report};
use roofline_limits::{
    FileFormats, Hardware, KvFormat, LimitsError, Precision, Profile, Recipe, Switch, Switches,
};
use roofline_model::{ModelConfig, TensorPlan};
use roofline_weights::format::Format;

fn machine() -> Hardware {
    let peaks = [(NumberType::F32, 1e12), (NumberType::Int8I32, 4e12)];
    let machine = Hardware::from_probe("this", 40e9, &peaks, Some(16 << 30), "probe").unwrap();
    let machine = machine.with_cache("L3", 64 << 20, 200e9, "probe").unwrap();
    machine.with_cache("L2", 4 << 20, 800e9, "probe").unwrap()
}

fn ask(config: &ModelConfig, switches: Switches) -> Report {
    let precision = Precision::parse("q8_0", Profile::Si).unwrap();
    let workload = Workload { positions: vec![1], ..Workload::default() };
    report(&Request::new(config, &machine(), &precision, &workload, switches)).unwrap()
}

/// 256 wide, 4 layers, 4096 words: 4 MB of weights in Q8_0.
fn small() -> ModelConfig {
    llama(Sizes { layers: 4, hidden: 256, heads: 4, kv_heads: 4, head_dim: 64, ff: 768, vocab: 4096 })
}

#[test]
fn a_small_model_is_limited_by_the_cache_it_fits_in() {
    let bytes = |r: &Report| r.decode_operators.iter().map(|row| row.bytes).sum::<f64>();
    let small = small();
    let on = ask(&small, Switches::SI);
    assert!(bytes(&on) > (4 << 20) as f64 && bytes(&on) < (64 << 20) as f64, "{}", bytes(&on));
    assert!((on.decode.b_ms - bytes(&on) / 200e9 * 1e3).abs() < 1e-12);
    assert!(on.notes.iter().any(|note| note.contains("200 GB/s are the limit")), "{:?}", on.notes);
    let off = ask(&small, Switches::SI.toggled(Switch::CacheLevels));
    assert!((off.decode.b_ms / on.decode.b_ms - 5.0).abs() < 1e-9);
    assert!((off.decode.w_tokens_per_ms * 5.0 / on.decode.w_tokens_per_ms - 1.0).abs() < 1e-9);
    // what does not fit is limited by memory
    let large = ask(&llama2_7b(), Switches::SI);
    assert_eq!(
        large,
        Report { switches: Switches::SI, ..ask(&llama2_7b(), Switches::SI.toggled(Switch::CacheLevels)) }
    );
}

#[test]
fn a_cache_slower_than_memory_never_counts() {
    let slow = machine().with_cache("L4", 1 << 40, 10e9, "probe").unwrap();
    assert_eq!(slow.cache_for(1e9).map(|c| c.name.as_str()), None);
    assert_eq!(slow.cache_for(5e6).map(|c| c.name.as_str()), Some("L3"));
    assert!(machine().with_cache("L1", 0, 1e12, "probe").is_err());
    assert!(machine().with_cache("L1", 1 << 15, f64::NAN, "probe").is_err());
}

/// A file written by a recipe has the recipe's formats, found through the names in its directory.
#[test]
fn formats_come_from_the_names_in_a_file() {
    let config = roofline_model::presets::find("Qwen3-0.6B").unwrap().config().unwrap();
    let plan = TensorPlan::gguf(&config);
    let recipe = Recipe::from_name("q4_k_m").unwrap();
    let tensors = || {
        plan.tensors.iter().map(|tensor| {
            let format = recipe.format_of(&config, tensor.role).unwrap();
            let source = &tensor.sources[0];
            (source.name.as_str(), format, source.shape.as_slice())
        })
    };
    let file = FileFormats::new(&plan, tensors()).unwrap();
    let from_file = file.with(|formats| Accounting::new(&config, formats, KvFormat::F16)).unwrap();
    let from_recipe = Accounting::new(&config, WeightFormats::Recipe(recipe), KvFormat::F16).unwrap();
    assert_eq!(from_file.resident_bytes(), from_recipe.resident_bytes());
    assert_eq!(file.base(), Format::Q4K);
    let precision = file.precision(KvFormat::F16);
    assert_eq!((precision.arithmetic_bits, precision.nominal_weight_bits), (8, 4.0));
    let missing = FileFormats::new(&plan, tensors().skip(1)).unwrap_err();
    assert!(matches!(missing, LimitsError::Config(_)), "{missing}");
}
