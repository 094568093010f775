//! The report: the paper profile against the article's formulas, the SI profile against hand-computed figures, properties.
#![allow(clippy::unwrap_used, clippy::panic)] // a test may fail where it stands

mod common;

use common::*;
use proptest::prelude::*;
use roofline_limits::accounting::{Accounting, Step, WeightFormats};
use roofline_limits::hardware::{Confidence, Figure, HardwareTable, NumberType};
use roofline_limits::paper::{self, MODELS};
use roofline_limits::report::{Bound, Capacity, Report, Request, Workload, report};
use roofline_limits::serving::without_gqa;
use roofline_limits::{Hardware, LimitsError, Precision, Profile, Switches};
use roofline_model::{ModelConfig, presets};

fn rtx_4090() -> Hardware {
    HardwareTable::built_in().unwrap().get("RTX 4090").unwrap().clone()
}

fn workload(prompt: u64, batch: u64, position: u64) -> Workload {
    Workload { prompt, context: position, batch, chunk: 512, positions: vec![1, position] }
}

fn si(config: &ModelConfig, hardware: &Hardware, precision: &str, workload: &Workload) -> Report {
    let precision = Precision::parse(precision, Profile::Si).unwrap();
    report(&Request::new(config, hardware, &precision, workload, Switches::SI)).unwrap()
}

/// All switches off, the general calculator gives what the article's formulas give, for all of its models and precisions.
#[test]
fn with_all_switches_off_the_report_is_the_article() {
    let hardware = rtx_4090();
    let close = |a: f64, b: f64| assert!((a - b).abs() <= 1e-9 * b.abs(), "{a} {b}");
    // written by hand, and as the presets have them
    let preset = |name: &str| {
        presets::find(&format!("Qwen1.5-{}", name.replace("mha", "noGQA"))).unwrap().config().unwrap()
    };
    for (model, config) in MODELS.iter().flat_map(|m| [(m, qwen15(m)), (m, preset(m.name))]) {
        for (name, w, a) in
            [("w16a16", 16.0, 16.0), ("w8a16", 8.0, 16.0), ("w6a16", 6.0, 16.0), ("w4a8", 4.0, 8.0)]
        {
            let precision = Precision::parse(name, Profile::Paper).unwrap();
            for n in [1, 20, 1000] {
                let workload = workload(n, 1, 10_000);
                let r = report(&Request::new(&config, &hardware, &precision, &workload, Switches::PAPER))
                    .unwrap();
                assert_eq!(r.parameters.layers, model.layer_parameters());
                assert_eq!(r.parameters.active, model.parameters());
                close(r.kv_bytes_per_token, model.kv_elements() as f64 * a / 8.0);
                close(r.prefill.read_ms, model.read_ms(n as f64, w, a));
                close(r.prefill.compute_coarse_ms, model.coarse_ms(n as f64));
                close(r.prefill.compute_fine_ms, model.fine_ms(n as f64));
                close(r.prefill.ttft_ms, model.ttft_ms(n as f64, w, a));
                close(r.turning_point.coarse.unwrap(), model.turning_point(w, a, false));
                close(r.turning_point.fine.unwrap(), model.turning_point(w, a, true));
                close(r.decode.w_tokens_per_ms, model.w_tokens_per_ms(a));
                close(r.decode.b_ms, model.b_ms(w, a));
                let expected = 9_999.0 / model.w_tokens_per_ms(a) + model.b_ms(w, a);
                close(r.decode.positions[1].latency_ms, expected);
                match (r.memory.capacity, model.capacity(w, a)) {
                    (Capacity::Tokens { tokens }, Some(expected)) => assert_eq!(tokens, expected),
                    (Capacity::DoesNotFit { .. }, None) => {}
                    (ours, theirs) => panic!("{}: {ours:?} {theirs:?}", model.name),
                }
            }
        }
    }
    assert_eq!(paper::MEMORY, rtx_4090().memory_bytes().unwrap());
}

/// Figures worked out beside the article in true units: 1008e9 B/s, 165.2e12 FLOP/s, causal attention.
#[test]
fn si_figures_of_7b_on_a_4090() {
    let config = qwen15(&MODELS[3]);
    let r = si(&config, &rtx_4090(), "w16a16", &workload(1000, 1, 1000));
    assert!((r.decode.b_ms - 14.09).abs() < 0.01, "{}", r.decode.b_ms);
    assert!((r.decode.w_tokens_per_ms - 1923.0).abs() < 0.5);
    assert!((r.prefill.compute_fine_ms - 80.0).abs() < 0.05, "{}", r.prefill.compute_fine_ms);
    assert!((r.turning_point.coarse.unwrap() - 166.0).abs() < 1.0, "{:?}", r.turning_point);
    assert!((r.turning_point.fine.unwrap() - 182.0).abs() < 1.0, "{:?}", r.turning_point);
    assert_eq!(r.device.peak_type, NumberType::Bf16F32);
    // 24 GiB less head, layers and embedding leave 19,698 tokens without scratch
    let Capacity::Tokens { tokens } = r.memory.capacity else { panic!() };
    let scratch_tokens = (r.memory.scratch_bytes / r.kv_bytes_per_token).ceil() as u64;
    assert!((19_690..=19_698).contains(&(tokens + scratch_tokens)), "{tokens} + {scratch_tokens}");
    assert_eq!(r.prefill.bound, Bound::Compute);
    assert_eq!(r.decode.positions[0].bound, Bound::Bandwidth);
}

/// The report's bytes and FLOPs are the integers of the accounting.
#[test]
fn the_report_is_the_integer_accounting() {
    for (config, touched) in [(llama3_8b(), vec![]), (pythia_410m(), vec![]), (olmoe(), vec![8; 16])] {
        for name in ["bf16", "q4_k_m", "w8a16kv8"] {
            let precision = Precision::parse(name, Profile::Si).unwrap();
            let workload = workload(7, 1, 300);
            let r = report(&Request::new(&config, &rtx_4090(), &precision, &workload, Switches::SI)).unwrap();
            let accounting =
                Accounting::new(&config, WeightFormats::Recipe(precision.weights), precision.kv).unwrap();
            let step = Step::single(1, 299, 1).with_touched_experts(touched.clone());
            let cost = accounting.step(&step).unwrap();
            for (row, (operator, cost)) in r.decode_operators.iter().zip(cost.iter()) {
                assert_eq!(row.operator, operator);
                let close = |a: f64, b: u64| (a - b as f64).abs() <= 1e-12 * b as f64;
                assert!(
                    close(row.bytes, cost.bytes()) && close(row.flops, cost.flops),
                    "{name} {row:?} {cost:?}"
                );
            }
        }
    }
}

#[test]
fn experts_are_forecast_as_their_union() {
    let r = |prompt| si(&olmoe(), &rtx_4090(), "bf16", &workload(prompt, 1, 100));
    let bytes = |r: &Report| {
        let row = r.prefill_operators.iter().find(|row| row.operator.name() == "experts").unwrap();
        row.bytes
    };
    let one = 16.0 * 3.0 * 2048.0 * 1024.0 * 2.0;
    assert!((bytes(&r(1)) / (8.0 * one) - 1.0).abs() < 1e-12);
    assert!((bytes(&r(2)) / (15.0 * one) - 1.0).abs() < 1e-12); // 64·(1 − (7/8)²)
    assert!((bytes(&r(1000)) / (64.0 * one) - 1.0).abs() < 1e-12);
}

#[test]
fn questions_that_make_no_sense_are_refused() {
    let precision = Precision::parse("w16a16", Profile::Si).unwrap();
    let hardware = rtx_4090();
    let config = llama3_8b();
    let spoil = |f: fn(&mut Workload)| {
        let mut workload = workload(10, 1, 10);
        f(&mut workload);
        report(&Request::new(&config, &hardware, &precision, &workload, Switches::SI))
            .unwrap_err()
            .to_string()
    };
    assert_eq!(spoil(|w| w.batch = 0), "the batch is 0, it must be from 1 to 1048576");
    assert!(spoil(|w| w.prompt = 0).contains("the prompt in tokens is 0"));
    assert!(spoil(|w| w.prompt = u64::MAX).contains("18446744073709551615"));
    assert!(spoil(|w| w.context = 0).contains("the context"));
    assert!(spoil(|w| w.positions = vec![0]).contains("a position is 0"));
    let mut broken = hardware.clone();
    broken.bandwidth = Figure { value: f64::NAN, source: String::new(), confidence: Confidence::C };
    let workload = workload(10, 1, 10);
    let error = report(&Request::new(&config, &broken, &precision, &workload, Switches::SI)).unwrap_err();
    assert!(matches!(error, LimitsError::OutOfRange { .. }), "{error}");
    assert_eq!(
        roofline_limits::error::parse_count("the batch", "-3", 100).unwrap_err().to_string(),
        "the batch is -3, it must be from 1 to 100"
    );
    for text in ["", "4k", "1.5", "NaN"] {
        assert!(roofline_limits::error::parse_count("the batch", text, 100).is_err(), "{text}");
    }
    assert!(roofline_limits::error::parse_count("the batch", &"9".repeat(60), 100).is_err());
}

#[test]
fn what_is_missing_is_named() {
    let table =
        HardwareTable::parse("mine.toml", "[[device]]\nname = \"box\"\nbandwidth_gb_s = 50\n").unwrap();
    let precision = Precision::parse("w16a16", Profile::Si).unwrap();
    let (config, workload) = (llama3_8b(), workload(10, 1, 10));
    let error =
        report(&Request::new(&config, table.get("box").unwrap(), &precision, &workload, Switches::SI));
    assert!(error.unwrap_err().to_string().starts_with("box has no figure for the f32 peak"));
    let text = "[[device]]\nname = \"box\"\nbandwidth_gb_s = 50\npeak_tflops.f32 = 1\n";
    let table = HardwareTable::parse("mine.toml", text).unwrap();
    let r = report(&Request::new(&config, table.get("box").unwrap(), &precision, &workload, Switches::SI))
        .unwrap();
    assert_eq!(r.memory.capacity, Capacity::MemoryNotKnown);
    assert_eq!(r.device.peak_type, NumberType::F32);
    assert!(r.notes.iter().any(|note| note.contains("lists no 16-bit peak")), "{:?}", r.notes);
    assert!(r.notes.iter().any(|note| note.contains("memory of box is not known")), "{:?}", r.notes);
}

/// JSON has no NaN and no infinity: serde writes null for them. Only these may be null.
fn assert_finite(value: &serde_json::Value, path: &str) {
    match value {
        serde_json::Value::Null => {
            let allowed = path.ends_with("device_bytes") || path.contains("turning_point");
            assert!(allowed, "{path} is not a number");
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| assert_finite(item, path)),
        serde_json::Value::Object(map) => {
            map.iter().for_each(|(key, item)| assert_finite(item, &format!("{path}.{key}")));
        }
        _ => {}
    }
}

fn any_config() -> impl Strategy<Value = ModelConfig> {
    (1usize..20, 1usize..8, 1usize..4, 1usize..6, 1usize..16, 1usize..1000, 0usize..3, any::<bool>())
        .prop_map(|(layers, kv_heads, group, dim, ff, vocab, kind, tied)| {
            let mut config = llama(Sizes {
                layers,
                hidden: kv_heads * group * dim * 32,
                heads: kv_heads * group,
                kv_heads,
                head_dim: dim * 32,
                ff: ff * 64,
                vocab,
            });
            config.tied_embeddings = tied;
            match kind {
                1 => {
                    config.ffn = roofline_model::config::Ffn::Experts {
                        intermediate_size: ff * 64,
                        activation: roofline_model::config::Activation::Silu,
                        n_experts: ff + 1,
                        n_active: 1 + ff / 2,
                        renormalize: false,
                    }
                }
                2 => config.bias = roofline_model::config::Bias { qkv: true, out: true, ffn: true },
                _ => {}
            }
            config
        })
}

proptest! {
    /// More bandwidth or more arithmetic is never slower, at any precision and in any profile.
    #[test]
    fn a_faster_device_is_never_slower(
        config in any_config(), prompt in 1u64..4000, position in 1u64..100_000, batch in 1u64..64,
        faster in 1.0f64..10.0, paper in any::<bool>(), name in prop::sample::select(vec!["w16a16", "w4a16kv8", "q8_0"]),
    ) {
        let (profile, switches) =
            if paper { (Profile::Paper, Switches::PAPER) } else { (Profile::Si, Switches::SI) };
        let precision = Precision::parse(name, profile).unwrap();
        let workload = workload(prompt, batch, position);
        let on = |hardware: &Hardware| {
            report(&Request::new(&config, hardware, &precision, &workload, switches)).unwrap()
        };
        let base = rtx_4090();
        let slow = on(&base);
        assert_finite(&serde_json::to_value(&slow).unwrap(), "");
        let mut wide = base.clone();
        wide.bandwidth.value *= faster;
        let mut strong = base;
        strong.peaks.values_mut().for_each(|peak| peak.value *= faster);
        for fast in [on(&wide), on(&strong)] {
            prop_assert!(fast.prefill.ttft_ms <= slow.prefill.ttft_ms);
            prop_assert!(fast.prefill.ttft_by_operator_ms <= slow.prefill.ttft_by_operator_ms);
            prop_assert!(fast.decode.b_ms <= slow.decode.b_ms);
            for (f, s) in fast.decode.positions.iter().zip(&slow.decode.positions) {
                prop_assert!(f.latency_ms <= s.latency_ms);
            }
        }
    }

    /// The parts are the total, and no operator-wise sum is below the limit it refines.
    #[test]
    fn operators_sum_to_the_limit(config in any_config(), prompt in 1u64..4000, batch in 1u64..32) {
        let r = si(&config, &rtx_4090(), "w8a16", &workload(prompt, batch, prompt));
        let sum = |f: fn(&roofline_limits::report::OperatorLimit) -> f64| r.prefill_operators.iter().map(f).sum::<f64>();
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-9 * b;
        prop_assert!(close(sum(|o| o.read_ms), r.prefill.read_ms));
        prop_assert!(close(sum(|o| o.compute_ms), r.prefill.compute_fine_ms));
        prop_assert!(close(sum(|o| o.limit_ms), r.prefill.ttft_by_operator_ms));
        prop_assert!(r.prefill.ttft_by_operator_ms >= r.prefill.ttft_ms * (1.0 - 1e-12));
    }

    /// GQA with one query head per group is multi-head attention; more than one is never slower nor larger.
    #[test]
    fn gqa_with_one_group_is_mha(config in any_config(), prompt in 1u64..2000) {
        let workload = workload(prompt, 1, 5000);
        let mha = without_gqa(&config);
        let (grouped, full) = (si(&config, &rtx_4090(), "w16a16", &workload), si(&mha, &rtx_4090(), "w16a16", &workload));
        if config.n_kv_heads == config.n_heads {
            prop_assert_eq!(&grouped, &full);
        }
        prop_assert!(grouped.kv_bytes_per_token <= full.kv_bytes_per_token);
        prop_assert!(grouped.decode.b_ms <= full.decode.b_ms);
        prop_assert!(grouped.prefill.ttft_ms <= full.prefill.ttft_ms);
        prop_assert!(grouped.memory.total_bytes <= full.memory.total_bytes);
    }

    /// Fewer bits are never larger nor slower.
    #[test]
    fn quantized_is_never_above_full(config in any_config(), prompt in 1u64..2000, position in 1u64..9000) {
        let workload = workload(prompt, 1, position);
        let widths = ["w32a32", "w16a16", "w8a16", "w8a16kv8", "w8a8kv8"];
        let reports: Vec<Report> = widths.iter().map(|name| si(&config, &rtx_4090(), name, &workload)).collect();
        for pair in reports.windows(2) {
            prop_assert!(pair[1].memory.total_bytes <= pair[0].memory.total_bytes);
            prop_assert!(pair[1].prefill.ttft_ms <= pair[0].prefill.ttft_ms);
            prop_assert!(pair[1].decode.positions[1].latency_ms <= pair[0].decode.positions[1].latency_ms);
        }
    }

    /// A batch never takes less time than one user and never longer than its members one after the other.
    #[test]
    fn a_batch_lies_between_one_user_and_all_in_turn(config in any_config(), batch in 1u64..64, position in 1u64..5000) {
        let at = |batch| si(&config, &rtx_4090(), "w16a16", &workload(10, batch, position)).decode.positions[1].latency_ms;
        let (one, many) = (at(1), at(batch));
        prop_assert!(many >= one * (1.0 - 1e-12));
        prop_assert!(many <= one * batch as f64 * (1.0 + 1e-12));
        prop_assert_eq!(at(1), one);
    }
}
