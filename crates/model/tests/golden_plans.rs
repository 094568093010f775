//! Configurations and plans against what transformers saves: `tests/golden/plans.json`, written by `tools/golden_plans.py`.

#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests

use roofline_model::config::{Activation, Ffn, ModelConfig, QkNorm, Residual, RopeScaling};
use roofline_model::tensor_plan::{LayerRole, Role, Rows};
use roofline_model::{ModelError, TensorPlan};
use serde_json::Value;
use std::collections::BTreeMap;

struct Case {
    name: String,
    config: String,
    parameters: u64,
    tensors: BTreeMap<String, Vec<usize>>,
}

fn cases() -> Vec<Case> {
    let all: Value = serde_json::from_str(include_str!("golden/plans.json")).unwrap();
    let cases = all["cases"].as_object().unwrap().iter().map(|(name, case)| Case {
        name: name.clone(),
        config: case["config"].to_string(),
        parameters: case["parameters"].as_u64().unwrap(),
        tensors: serde_json::from_value(case["tensors"].clone()).unwrap(),
    });
    cases.collect()
}

fn config_of(name: &str) -> ModelConfig {
    let case = cases().into_iter().find(|case| case.name == name).unwrap();
    ModelConfig::from_config_json(&case.config, "config.json").unwrap()
}

fn as_present(tensors: &BTreeMap<String, Vec<usize>>) -> impl Iterator<Item = (&str, &[usize])> {
    tensors.iter().map(|(name, shape)| (name.as_str(), shape.as_slice()))
}

#[test]
fn plans_name_exactly_the_tensors_that_transformers_saves() {
    for case in cases() {
        let config = ModelConfig::from_config_json(&case.config, "config.json").unwrap();
        let plan = TensorPlan::hugging_face(&config);
        let chosen = plan.check(as_present(&case.tensors)).unwrap_or_else(|e| panic!("{}: {e}", case.name));
        // Every row of every saved tensor goes to exactly one role.
        let mut taken: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for source in &chosen {
            let total = if source.shape.len() == 1 {
                source.shape[0]
            } else {
                source.shape.iter().rev().skip(1).product()
            };
            taken.entry(&source.name).or_default().extend(rows_of(source.rows, total));
        }
        for (name, mut rows) in taken {
            rows.sort_unstable();
            let shape = &case.tensors[name];
            let total = if shape.len() == 1 { shape[0] } else { shape.iter().rev().skip(1).product() };
            assert_eq!(rows, (0..total).collect::<Vec<_>>(), "{}: {name}", case.name);
        }
    }
}

fn rows_of(rows: Rows, total: usize) -> Vec<usize> {
    match rows {
        Rows::All => (0..total).collect(),
        Rows::Runs { start, run, stride, count } => {
            (0..count).flat_map(|i| start + i * stride..start + i * stride + run).collect()
        }
    }
}

#[test]
fn parameter_counts_are_those_of_transformers() {
    for case in cases() {
        let config = ModelConfig::from_config_json(&case.config, "config.json").unwrap();
        assert_eq!(config.parameters().total(), case.parameters, "{}", case.name);
        assert_eq!(TensorPlan::hugging_face(&config).weights(), case.parameters, "{}", case.name);
        assert_eq!(TensorPlan::gguf(&config).weights(), case.parameters, "{}", case.name);
    }
}

#[test]
fn hyper_parameters_arrive() {
    let llama = config_of("llama_tied_biased_wide_heads");
    assert!(llama.tied_embeddings && llama.bias.qkv && llama.bias.out && llama.bias.ffn);
    assert_eq!((llama.head_dim, llama.q_dim(), llama.kv_dim(), llama.group_size()), (8, 32, 16, 2));
    assert_eq!(llama.kv_values_per_token(), 2 * 2 * 16);
    assert_eq!((llama.bos_token_id, llama.eos_token_ids), (Some(1), vec![2]));

    assert_eq!(
        config_of("llama3_rope").rope.scaling,
        RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_context: 32
        }
    );
    assert_eq!(config_of("llama3_rope").rope.theta, 500_000.0);
    assert_eq!(config_of("llama_linear_rope").rope.scaling, RopeScaling::Linear { factor: 2.0 });
    assert_eq!(config_of("qwen3").qk_norm, QkNorm::PerHead);

    let neox = config_of("gpt_neox");
    assert_eq!((neox.rope.rotary_dim, neox.residual), (2, Residual::Parallel)); // int(6 * 0.34)
    assert_eq!(neox.ffn, Ffn::Plain { intermediate_size: 32, activation: Activation::Gelu });

    let olmoe = config_of("olmoe");
    assert_eq!((olmoe.qk_norm, olmoe.clip_qkv), (QkNorm::FullWidth, Some(8.0)));
    let Ffn::Experts { n_experts: 3, n_active: 2, renormalize: false, .. } = olmoe.ffn else {
        panic!("{:?}", olmoe.ffn)
    };
    assert_eq!(olmoe.parameters().total() - olmoe.active_parameters(), 2 * 3 * 24 * 20);
    let Ffn::Experts { renormalize: true, .. } = config_of("mixtral").ffn else { panic!() };
}

#[test]
fn fused_expert_names_of_transformers_5_are_found() {
    for name in ["olmoe", "mixtral"] {
        let case = cases().into_iter().find(|case| case.name == name).unwrap();
        let config = ModelConfig::from_config_json(&case.config, "config.json").unwrap();
        let mut fused: BTreeMap<String, Vec<usize>> = case
            .tensors
            .iter()
            .filter(|(n, _)| !n.contains("experts."))
            .map(|(n, s)| (n.clone(), s.clone()))
            .collect();
        for layer in 0..config.n_layers {
            let prefix = format!("model.layers.{layer}.mlp.experts");
            fused.insert(format!("{prefix}.gate_up_proj"), vec![3, 40, 24]);
            fused.insert(format!("{prefix}.down_proj"), vec![3, 24, 20]);
        }
        let plan = TensorPlan::hugging_face(&config);
        let chosen = plan.check(as_present(&fused)).unwrap();
        let of = |role| {
            let i = plan.tensors.iter().position(|t| t.role == Role::Layer(1, role)).unwrap();
            (chosen[i].name.as_str(), chosen[i].rows)
        };
        let gate_up = "model.layers.1.mlp.experts.gate_up_proj";
        assert_eq!(of(LayerRole::ExpertGate(2)), (gate_up, Rows::range(80, 20)));
        assert_eq!(of(LayerRole::ExpertUp(2)), (gate_up, Rows::range(100, 20)));
        assert_eq!(
            of(LayerRole::ExpertDown(2)),
            ("model.layers.1.mlp.experts.down_proj", Rows::range(48, 24))
        );
    }
}

#[test]
fn mismatches_name_every_tensor_with_both_shapes() {
    let case = cases().into_iter().find(|case| case.name == "qwen2").unwrap();
    let config = ModelConfig::from_config_json(&case.config, "config.json").unwrap();
    let mut tensors = case.tensors.clone();
    tensors.remove("model.layers.1.self_attn.q_proj.bias");
    tensors.insert("model.norm.weight".into(), vec![23]);
    tensors.insert("vision.patch".into(), vec![1]);
    // harmless: an old buffer, and a head although the embeddings are tied
    tensors.insert("model.layers.0.self_attn.rotary_emb.inv_freq".into(), vec![3]);
    tensors.insert("lm_head.weight".into(), vec![40, 24]);
    let plan = TensorPlan::hugging_face(&config);
    let mismatch = plan.check(as_present(&tensors)).unwrap_err();
    assert_eq!(mismatch.missing, ["model.layers.1.self_attn.q_proj.bias"]);
    assert_eq!(mismatch.unexpected, ["vision.patch"]);
    assert_eq!(
        ModelError::from(mismatch).to_string(),
        "the tensors do not fit the configuration; 1 missing: model.layers.1.self_attn.q_proj.bias; \
         1 of another shape: model.norm.weight is [23], the configuration implies [24]; 1 unexpected: vision.patch"
    );
    let nothing = plan.check([]).unwrap_err();
    assert_eq!(nothing.missing.len(), plan.tensors.len());
    assert!(nothing.to_string().contains("and 21 more"), "{nothing}");
}
