//! The format of every matrix beside the one that llama.cpp's quantizer gives it (`tools/golden_mixes.py`), 26 geometries in all types.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::collections::BTreeMap;

use roofline_limits::Recipe;
use roofline_model::tensor_plan::{LayerRole, Role};
use roofline_model::{ModelConfig, TensorPlan};
use serde_json::Value;

/// Formats layer by layer in runs, as the file holds them, of every kind of matrix; fused and stacked ones once.
fn mix(config: &ModelConfig, recipe: Recipe, importance: bool) -> BTreeMap<String, String> {
    let mut columns: BTreeMap<String, Vec<(String, &'static str)>> = BTreeMap::new();
    for tensor in TensorPlan::gguf(config).tensors {
        let source = &tensor.sources[0];
        if source.shape.len() < 2 || matches!(tensor.role, Role::Layer(_, LayerRole::Router)) {
            continue; // F32 in every file that is written; a folder's may be as wide as its other matrices
        }
        let format = recipe.choose(config, tensor.role, importance).unwrap().format.name();
        let name = source.name.strip_suffix(".weight").unwrap();
        let kind = match tensor.role {
            Role::Layer(layer, _) => name.strip_prefix(&format!("blk.{layer}.")).unwrap(),
            _ => name,
        };
        let column = columns.entry(kind.to_owned()).or_default();
        // The parts of one tensor must agree.
        match column.iter().find(|(known, _)| known == name) {
            Some((_, known)) => assert_eq!(*known, format, "{name}"),
            None => column.push((name.to_owned(), format)),
        }
    }
    let runs = |column: Vec<(String, &str)>| {
        let runs: Vec<String> = column
            .chunk_by(|(_, one), (_, next)| one == next)
            .map(|run| format!("{}*{}", run[0].1, run.len()))
            .collect();
        runs.join(" ")
    };
    columns.into_iter().map(|(kind, column)| (kind, runs(column))).collect()
}

/// {kind: runs} of a type in the file.
fn expected(types: &Value, kind: &str) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for (runs, kinds) in types.get(kind).and_then(Value::as_object).into_iter().flatten() {
        let kinds = kinds.as_str().unwrap().split(' ').filter(|kind| *kind != "ffn_gate_inp");
        all.extend(kinds.map(|matrix| (matrix.to_owned(), runs.clone())));
    }
    all
}

#[test]
fn every_matrix_has_the_format_that_llama_cpp_gives_it() {
    let golden: Value = serde_json::from_str(include_str!("golden/mixes.json")).unwrap();
    let mut wrong = Vec::new();
    let mut compared = 0;
    for (name, case) in golden.as_object().unwrap() {
        let config = ModelConfig::from_config_json(&case["config"].to_string(), name).unwrap();
        for kind in Recipe::names() {
            let recipe = Recipe::from_name(kind).unwrap();
            let mut theirs = expected(&case["types"], kind);
            for importance in [false, true] {
                if importance {
                    theirs.extend(expected(&case["types"], &format!("{kind}+imatrix")));
                }
                let ours = mix(&config, recipe, importance);
                compared += ours.len();
                if ours != theirs {
                    let differ: Vec<_> = theirs
                        .iter()
                        .filter(|(kind, runs)| ours.get(*kind) != Some(runs))
                        .map(|(kind, runs)| format!("{kind}: {:?}, llama.cpp {runs}", ours.get(kind)))
                        .collect();
                    wrong.push(format!("{name} {kind} importance {importance}: {}", differ.join("; ")));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(compared > 7000, "{compared}");
}
