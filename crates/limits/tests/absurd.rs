//! Whatever is asked, the answer is a finite number or a refusal: no panic, no NaN, no infinity.

#![allow(clippy::unwrap_used, clippy::panic)] // a test may fail where it stands

mod common;

use common::*;
use proptest::prelude::*;
use roofline_limits::accounting::{Accounting, AttentionWork, Segment, Step, WeightFormats};
use roofline_limits::error::parse_count;
use roofline_limits::explain::explain;
use roofline_limits::hardware::HardwareTable;
use roofline_limits::policies::{Policy, policy_limit};
use roofline_limits::report::{Request, Workload, report};
use roofline_limits::serving::{Targets, chunked_prefill, serving, smallest_chunk};
use roofline_limits::speculative::{Draft, speculation};
use roofline_limits::{KvFormat, Precision, Profile, Recipe, Switches};
use roofline_model::ModelConfig;
use roofline_model::config::{Activation, Ffn};

/// Sizes from nothing to everything, the usual ones often.
fn size() -> impl Strategy<Value = usize> {
    prop_oneof![
        4 => prop::sample::select(vec![1usize, 2, 8, 32, 64, 128, 256, 4096]),
        1 => prop::sample::select(vec![0usize, 3, 1 << 16, 1 << 22, 1 << 25, 1 << 31, usize::MAX]),
    ]
}

fn count() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 1u64..10_000, 1 => prop::sample::select(vec![0, 1 << 20, 1 << 30, u64::MAX])]
}

fn any_config() -> impl Strategy<Value = ModelConfig> {
    ([size(), size(), size(), size(), size(), size(), size(), size(), size()], any::<bool>(), any::<bool>())
        .prop_map(
            |([layers, hidden, heads, kv_heads, head_dim, ff, vocab, n_experts, n_active], tied, experts)| {
                let mut config = llama(Sizes { layers, hidden, heads, kv_heads, head_dim, ff, vocab });
                config.tied_embeddings = tied;
                config.rope.rotary_dim = head_dim & !1;
                if experts {
                    let activation = Activation::Silu;
                    config.ffn = Ffn::Experts {
                        intermediate_size: ff,
                        activation,
                        n_experts,
                        n_active,
                        renormalize: true,
                    };
                }
                config
            },
        )
}

/// serde writes null for NaN and infinities.
fn finite(value: &impl serde::Serialize) -> bool {
    fn check(value: &serde_json::Value) -> bool {
        match value {
            serde_json::Value::Null => false,
            serde_json::Value::Array(items) => items.iter().all(check),
            serde_json::Value::Object(map) => map.values().all(check),
            _ => true,
        }
    }
    check(&serde_json::to_value(value).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn reports_are_finite_or_refused(
        config in any_config(), prompt in count(), context in count(), batch in count(), chunk in count(), position in count(),
        name in prop::sample::select(vec!["w16a16", "w4a16kv8", "q4_k_m", "q2_kkv-q8_0", "w8a4kv2", "w32"]),
        device in prop::sample::select(vec!["RTX 4090", "Raspberry Pi 5", "H200", "M2 Ultra"]),
        paper in any::<bool>(),
    ) {
        let (profile, switches) =
            if paper { (Profile::Paper, Switches::PAPER) } else { (Profile::Si, Switches::SI) };
        let precision = Precision::parse(name, profile).unwrap();
        let hardware = HardwareTable::built_in().unwrap().get(device).unwrap();
        let workload = Workload { prompt, context, batch, chunk, positions: vec![position, 1] };
        let request = Request::new(&config, hardware, &precision, &workload, switches);
        if let Ok(report) = report(&request) {
            prop_assert!(finite(&report.prefill) && finite(&report.decode) && finite(&report.parameters), "{report:?}");
            prop_assert!(finite(&report.prefill_operators) && finite(&report.decode_operators), "{report:?}");
            prop_assert!(report.memory.total_bytes.is_finite() && finite(&report.memory.capacity), "{report:?}");
            prop_assert!(report.prefill.ttft_ms > 0.0 && report.decode.b_ms > 0.0);
            for formula in explain(&request).unwrap().formulas {
                prop_assert!(formula.result.is_finite(), "{formula:?}");
            }
        }
        if let Ok(chunked) = chunked_prefill(&request, chunk.max(prompt / 64)) {
            prop_assert!(finite(&chunked), "{chunked:?}");
        }
        let _ = smallest_chunk(&request);
        if let Ok(serving) = serving(&request, position, Targets::default()) {
            for batch in [serving.interactive, serving.offline].into_iter().flatten() {
                prop_assert!(finite(&batch) && batch.tokens_per_s > 0.0, "{serving:?}");
            }
        }
        if let Ok(speculation) = speculation(&request, Draft::Cost(0.1), 0.7, position) {
            prop_assert!(finite(&speculation), "{speculation:?}");
        }
        for policy in [Policy::Quest { budget: chunk, page: batch, dense_layers: context }, Policy::Budget { tokens: chunk }] {
            if let Ok(limit) = policy_limit(&request, policy, context) {
                prop_assert!(finite(&limit), "{limit:?}");
            }
        }
    }

    #[test]
    fn steps_are_counted_or_refused(
        config in any_config(), rows in count(), before in count(), head in count(), touched in count(),
        segments in 0usize..4, work in any::<bool>(), kv in prop::sample::select(KvFormat::ALL.to_vec()),
    ) {
        let formats = WeightFormats::Recipe(Recipe::from_name("q4_k_m").unwrap());
        if let Ok(accounting) = Accounting::new(&config, formats, kv) {
            let attention = work.then_some(AttentionWork { slots_read: rows, pairs: before, watched_pairs: rows, metadata_bytes: head });
            let step = Step {
                segments: vec![Segment { rows, kv_before: before }; segments],
                head_rows: head,
                touched_experts: vec![touched; if config.n_experts() > 0 { config.n_layers } else { 0 }],
                attention,
            };
            if let Ok(cost) = accounting.step(&step) {
                prop_assert!(cost.total().flops >= cost.iter().map(|(_, cost)| cost.flops).max().unwrap());
            }
        }
    }

    #[test]
    fn text_is_read_or_refused(text in "\\PC{0,24}", near in "w?[0-9]{0,3}a?[0-9]{0,3}(kv)?[-_q0-9a-z]{0,5}") {
        for text in [&text, &near] {
            for profile in [Profile::Si, Profile::Paper] {
                if let Ok(precision) = Precision::parse(text, profile) {
                    prop_assert!(precision.nominal_weight_bits >= 2.0 && precision.arithmetic_bits >= 4);
                }
            }
            let _ = KvFormat::from_name(text);
            let _ = HardwareTable::parse("text", text);
            let _ = HardwareTable::built_in().unwrap().get(text);
            if let Ok(value) = parse_count("the batch", text, 1000) {
                prop_assert!((1..=1000).contains(&value));
            }
        }
    }
}
