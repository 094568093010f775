//! The mixes against files in circulation: how many tensors of each format llama.cpp lists when it loads them.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::collections::{BTreeMap, HashSet};

use roofline_limits::Recipe;
use roofline_model::config::RopeScaling;
use roofline_model::{TensorPlan, presets};

/// Tensors of a GGUF file by format, fused and stacked ones counted once.
fn counts(preset: &str, kind: &str) -> BTreeMap<&'static str, usize> {
    let mut config = presets::find(preset).unwrap().config().unwrap();
    if matches!(config.rope.scaling, RopeScaling::Llama3 { .. }) {
        config.rope.scaling = RopeScaling::FrequencyFactors; // a tensor in GGUF
    }
    let recipe = Recipe::from_name(kind).unwrap();
    let mut names = HashSet::new();
    let mut counts = BTreeMap::new();
    for tensor in TensorPlan::gguf(&config).tensors {
        if names.insert(tensor.sources[0].name.clone()) {
            let choice = recipe.choose(&config, tensor.role, false).unwrap();
            assert_eq!(choice.format, recipe.format_of(&config, tensor.role).unwrap());
            *counts.entry(choice.format.name()).or_insert(0) += 1;
        }
    }
    counts
}

#[test]
fn tensors_by_format_are_those_of_published_files() {
    // what llama.cpp printed when it loaded files of these sizes ("- type q4_K:  193 tensors")
    for (preset, kind, expected) in [
        ("Llama-3-8B", "q4_k_m", vec![("f32", 65), ("q4_k", 193), ("q6_k", 33)]),
        ("Llama-3.1-8B", "q4_k_m", vec![("f32", 66), ("q4_k", 193), ("q6_k", 33)]),
        ("Llama-3-8B", "q5_k_m", vec![("f32", 65), ("q5_k", 193), ("q6_k", 33)]),
        ("Llama-2-7B", "q4_0", vec![("f32", 65), ("q4_0", 225), ("q6_k", 1)]),
        ("Llama-2-7B", "q3_k_m", vec![("f32", 65), ("q3_k", 129), ("q4_k", 92), ("q5_k", 4), ("q6_k", 1)]),
        ("Qwen2.5-7B", "q4_k_m", vec![("f32", 141), ("q4_k", 169), ("q6_k", 29)]),
    ] {
        assert_eq!(counts(preset, kind), expected.into_iter().collect(), "{preset} {kind}");
    }
}

#[test]
fn rows_that_fill_no_block_of_256_say_what_was_wanted() {
    // Qwen2.5-0.5B: 896 columns are 28 blocks of 32
    let config = presets::find("Qwen2.5-0.5B").unwrap().config().unwrap();
    let counts = counts("Qwen2.5-0.5B", "q4_k_m");
    assert_eq!(counts, [("f32", 121), ("q4_k", 12), ("q5_0", 132), ("q6_k", 12), ("q8_0", 13)].into());
    let first = TensorPlan::gguf(&config).tensors[0].role;
    let choice = Recipe::from_name("q4_k_m").unwrap().choose(&config, first, false).unwrap();
    assert_eq!((choice.format.name(), choice.wanted.name()), ("q8_0", "q6_k"));
}

#[test]
fn importance_changes_the_first_w_down_of_the_old_types_only() {
    use roofline_model::tensor_plan::{LayerRole, Role};
    let config = presets::find("Llama-2-7B").unwrap().config().unwrap();
    for (kind, early) in [("q4_0", "q4_1"), ("q5_0", "q5_1"), ("q4_1", "q4_1"), ("q4_k_m", "q6_k")] {
        let recipe = Recipe::from_name(kind).unwrap();
        let of = |layer, role, importance| {
            recipe.choose(&config, Role::Layer(layer, role), importance).unwrap().format.name()
        };
        assert_eq!(of(3, LayerRole::WDown, true), early, "{kind}");
        if kind != "q4_k_m" {
            assert_eq!((of(3, LayerRole::WDown, false), of(4, LayerRole::WDown, true)), (kind, kind));
            assert_eq!(of(3, LayerRole::WUp, true), kind);
        }
    }
}
