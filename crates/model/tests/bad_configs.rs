//! Wrong configurations: every key with every wrong type, options that cannot run, sizes beyond reason, and random JSON.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests

use proptest::prelude::*;
use roofline_model::config::{Activation, Ffn, Residual, RopeScaling};
use roofline_model::{GenerationConfig, ModelConfig, ModelError, TensorPlan};
use roofline_weights::gguf::{Array, Header, Metadata, TensorInfo, Value as Meta};
use serde_json::{Map, Value, json};

/// One small valid configuration of each family, with every key its family file reads.
fn families() -> Vec<Map<String, Value>> {
    let base = json!({
        "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6,
        "intermediate_size": 20, "vocab_size": 40, "max_position_embeddings": 64, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": true, "bos_token_id": 1, "eos_token_id": [2, 3]
    });
    let of = |model_type: &str, more: Value| {
        let mut all = base.as_object().unwrap().clone();
        all.insert("model_type".into(), json!(model_type));
        all.extend(more.as_object().unwrap().clone());
        all
    };
    vec![
        of("llama", json!({"attention_bias": false, "mlp_bias": false})),
        of("mistral", json!({"sliding_window": 64})),
        of("qwen2", json!({"use_sliding_window": false})),
        of("qwen3", json!({"attention_bias": false, "use_sliding_window": false})),
        of(
            "gpt_neox",
            json!({"attention_bias": true, "rotary_pct": 0.5, "head_dim": 8, "layer_norm_eps": 1e-5,
            "use_parallel_residual": true}),
        ),
        of(
            "olmoe",
            json!({"num_experts": 4, "num_experts_per_tok": 2, "norm_topk_prob": false, "clip_qkv": 3.0}),
        ),
        of("mixtral", json!({"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": null})),
    ]
}

fn read(config: &Map<String, Value>) -> Result<ModelConfig, ModelError> {
    ModelConfig::from_config_json(&Value::Object(config.clone()).to_string(), "config.json")
}

fn with(config: &Map<String, Value>, key: &str, value: Value) -> Map<String, Value> {
    let mut changed = config.clone();
    changed.insert(key.into(), value);
    changed
}

fn llama(more: Value) -> Result<ModelConfig, ModelError> {
    let mut config = families()[0].clone();
    for (key, value) in more.as_object().unwrap() {
        config.insert(key.clone(), value.clone());
    }
    read(&config)
}

/// Keys the family reads through an alias or not at all.
fn unread(model_type: &str, key: &str) -> bool {
    match model_type {
        "gpt_neox" => matches!(key, "num_key_value_heads" | "rms_norm_eps"),
        _ => false,
    }
}

#[test]
fn every_key_with_a_wrong_type_is_named() {
    for config in families() {
        let model_type = config["model_type"].as_str().unwrap().to_string();
        let family = read(&config).unwrap().family.name();
        assert!(family == model_type || (family, model_type.as_str()) == ("llama", "mistral"));
        for (key, value) in &config {
            let wrong = [json!({}), json!([["x"]]), json!("x"), json!(true), json!(-7.5)];
            for wrong in wrong.into_iter().filter(|wrong| {
                // what is right for this key
                let same = std::mem::discriminant(wrong) == std::mem::discriminant(value);
                !unread(&model_type, key) && !(same && (wrong.is_boolean() || wrong == value))
            }) {
                let error = match read(&with(&config, key, wrong.clone())) {
                    Err(error) => error.to_string(),
                    Ok(_) => panic!("{model_type}: {key} = {wrong} was accepted"),
                };
                let spoken = match key.as_str() {
                    "rms_norm_eps" | "layer_norm_eps" => "eps", // a number, refused by validation
                    "rope_theta" => "theta",
                    "rotary_pct" => "rotary",
                    "model_type" => "",
                    other => other,
                };
                assert!(
                    error.starts_with("config.json: ") && error.contains(spoken),
                    "{key} = {wrong}: {error}"
                );
            }
        }
    }
}

#[test]
fn sizes_must_be_there() {
    for config in families() {
        for key in [
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "intermediate_size",
            "vocab_size",
            "max_position_embeddings",
            "model_type",
        ] {
            for removed in [None, Some(Value::Null)] {
                let mut config = config.clone();
                config.remove(key);
                config.extend(removed.map(|null| (key.to_string(), null)));
                let error = read(&config).unwrap_err();
                assert!(
                    matches!(&error, ModelError::MissingKey { key: named, .. } if named == key),
                    "{error}"
                );
            }
        }
    }
}

#[test]
fn absent_keys_take_the_defaults_of_transformers() {
    let sizes = |model_type: &str| {
        let text = json!({"model_type": model_type, "hidden_size": 256, "num_hidden_layers": 1, "num_attention_heads": 64,
            "intermediate_size": 20, "vocab_size": 40, "max_position_embeddings": 64});
        ModelConfig::from_config_json(&text.to_string(), "config.json").unwrap()
    };
    let heads = |config: &ModelConfig| (config.n_kv_heads, config.head_dim);
    let (llama, qwen2, qwen3) = (sizes("llama"), sizes("qwen2"), sizes("qwen3"));
    assert_eq!((heads(&llama), heads(&qwen2), heads(&qwen3)), ((64, 4), (32, 4), (32, 128)));
    assert_eq!((llama.norm.eps, llama.rope.theta, llama.tied_embeddings), (1e-6, 1e4, false));
    assert_eq!((llama.eos_token_ids, qwen2.eos_token_ids), (vec![2], vec![]));
    assert_eq!((heads(&sizes("mixtral")), sizes("mixtral").rope.theta), ((8, 4), 1e6));
    assert_eq!(sizes("olmoe").norm.eps, 1e-5);
    let Ffn::Experts { n_experts: 64, n_active: 8, renormalize: false, .. } = sizes("olmoe").ffn else {
        panic!()
    };
    let neox = ModelConfig::from_config_json(
        r#"{"model_type": "gpt_neox", "hidden_size": 256, "num_hidden_layers": 1, "num_attention_heads": 4,
            "intermediate_size": 20, "vocab_size": 40, "max_position_embeddings": 64}"#,
        "config.json",
    )
    .unwrap();
    assert_eq!((neox.rope.rotary_dim, neox.residual), (16, Residual::Parallel));
    assert_eq!(neox.ffn, Ffn::Plain { intermediate_size: 20, activation: Activation::Gelu });
    // null is not absent: as many key/value heads as heads, and no end token
    let config = with(&families()[2], "num_key_value_heads", Value::Null);
    let config = read(&with(&config, "eos_token_id", Value::Null)).unwrap();
    assert_eq!((config.n_kv_heads, config.eos_token_ids), (4, vec![]));
}

#[test]
fn options_that_cannot_run_are_refused_by_name() {
    let rope = |kind: &str| json!({"rope_scaling": {"type": kind, "factor": 4.0}});
    for (more, option) in [
        (rope("yarn"), "rope_scaling.type = \"yarn\""),
        (rope("dynamic"), "rope_scaling.type = \"dynamic\""),
        (json!({"rope_parameters": {"rope_type": "longrope"}}), "rope_parameters.rope_type = \"longrope\""),
        (
            json!({"rope_parameters": {"full_attention": {"rope_type": "default"}}}),
            "rope_parameters.full_attention",
        ),
        (json!({"partial_rotary_factor": 0.5}), "partial_rotary_factor = 0.5"),
        (
            json!({"quantization_config": {"quant_method": "gptq"}}),
            "quantization_config = {\"quant_method\":\"gptq\"}",
        ),
        (json!({"norm_after": true}), "norm_after"),
        (json!({"alibi": true}), "alibi"),
        (json!({"use_mrope": true}), "use_mrope"),
        (json!({"attn_logit_softcapping": 50.0}), "attn_logit_softcapping"),
        (json!({"layer_types": ["sliding_attention", "full_attention"]}), "layer_types"),
        (json!({"hidden_act": "relu6"}), "hidden_act = \"relu6\""),
        (json!({"model_type": "mistral", "sliding_window": 63}), "sliding_window = 63"),
        (json!({"model_type": "qwen2", "use_sliding_window": true}), "use_sliding_window"),
    ] {
        let error = llama(more).unwrap_err();
        assert!(matches!(error, ModelError::UnsupportedOption { .. }), "{error}");
        assert!(error.to_string().contains(option), "{error}");
    }
    let unknown = llama(json!({"model_type": "olmo2"})).unwrap_err();
    assert_eq!(
        unknown.to_string(),
        "config.json: architecture \"olmo2\" is not supported; supported are llama, mistral, qwen2, qwen3, gpt_neox, olmoe, mixtral"
    );
}

#[test]
fn rope_in_both_spellings() {
    let linear = RopeScaling::Linear { factor: 2.0 };
    for more in [
        json!({"rope_scaling": {"type": "linear", "factor": 2}}),
        json!({"rope_scaling": {"rope_type": "linear", "factor": 2.0}}),
        json!({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}}),
        json!({"rope_parameters": {"rope_type": "default"}, "rope_scaling": {"rope_type": "linear", "factor": 2.0}}),
        json!({"rope_parameters": {"rope_type": "linear", "factor": 2.0}, "rope_scaling": {}}),
    ] {
        assert_eq!(llama(more).unwrap().rope.scaling, linear);
    }
    let inner =
        llama(json!({"rope_theta": 5.0, "rope_parameters": {"rope_type": "default", "rope_theta": 7}}))
            .unwrap();
    assert_eq!(inner.rope.theta, 7.0);
    let missing = llama(json!({"rope_scaling": {"type": "llama3", "factor": 8.0}})).unwrap_err();
    assert!(missing.to_string().contains("rope_scaling.low_freq_factor is missing"), "{missing}");
    let inverted = json!({"rope_scaling": {"type": "llama3", "factor": 8.0, "low_freq_factor": 4.0, "high_freq_factor": 1.0}});
    assert!(llama(inverted).unwrap_err().to_string().contains("high_freq_factor is 1"));
    assert!(llama(json!({"rope_scaling": {"type": "linear", "factor": 0.5}})).is_err());
}

#[test]
fn rules_between_keys_are_checked() {
    for (more, said) in [
        (json!({"num_key_value_heads": 3}), "n_heads is 4, but it must be a multiple of n_kv_heads = 3"),
        (json!({"head_dim": 7}), "rotary_dim is 7"),
        (json!({"head_dim": null, "num_attention_heads": 5}), "hidden_size is 24, expected a multiple of"),
        (json!({"hidden_size": 1u64 << 40}), "hidden_size is 1099511627776, but it must lie between"),
        (json!({"hidden_size": 1u64 << 63}), "hidden_size"),
        (json!({"num_hidden_layers": 1_000_000_000}), "n_layers is 1000000000"),
        (json!({"head_dim": 4_000_000}), "n_heads * head_dim is 16000000"),
        (json!({"rms_norm_eps": 1e-60}), "norm eps is 0"),
        (json!({"rms_norm_eps": 1e60}), "norm eps is inf"),
        (json!({"rope_theta": -1}), "rope theta is -1"),
        (json!({"model_type": "olmoe", "num_experts": 4, "num_experts_per_tok": 5}), "n_active experts is 5"),
        (
            json!({"model_type": "olmoe", "num_experts": 16384, "num_hidden_layers": 4096}),
            "n_experts is 16384",
        ),
        (json!({"model_type": "olmoe", "clip_qkv": -1}), "clip_qkv is -1"),
        (
            json!({"hidden_size": 4194304, "intermediate_size": 4194304, "num_hidden_layers": 4096, "head_dim": 2}),
            "number of weights",
        ),
    ] {
        let error = llama(more).unwrap_err().to_string();
        assert!(error.starts_with("config.json: ") && error.contains(said), "{error}");
    }
}

#[test]
fn a_window_as_long_as_the_context_is_no_window() {
    for (window, context) in [(json!(null), 9999), (json!(4096), 4096)] {
        llama(json!({"model_type": "mistral", "sliding_window": window, "max_position_embeddings": context}))
            .unwrap();
    }
    // absent: transformers' default of 4096
    assert!(llama(json!({"model_type": "mistral", "max_position_embeddings": 4097})).is_err());
    assert!(llama(json!({"model_type": "mistral", "max_position_embeddings": 4096})).is_ok());
}

fn gguf_header(entries: &[(&str, Meta)], tensors: &[(&str, &[u64])]) -> Header {
    let mut metadata = Metadata::new("test.gguf");
    let usual = [
        ("llama.context_length", 64),
        ("llama.embedding_length", 24),
        ("llama.block_count", 2),
        ("llama.feed_forward_length", 20),
        ("llama.attention.head_count", 4),
    ];
    metadata.set("general.architecture", Meta::Str("llama".into()));
    usual.into_iter().for_each(|(key, value)| metadata.set(key, Meta::U32(value)));
    metadata.set("llama.attention.layer_norm_rms_epsilon", Meta::F32(1e-5));
    entries.iter().for_each(|(key, value)| metadata.set(*key, value.clone()));
    let tensors = tensors.iter().map(|(name, dims)| TensorInfo {
        name: name.to_string(),
        dims: dims.to_vec(),
        ggml_type: 0,
        offset: 0,
    });
    Header { version: 3, metadata, alignment: 32, tensors: tensors.collect(), data_start: 0 }
}

fn from_gguf(entries: &[(&str, Meta)], tensors: &[(&str, &[u64])]) -> Result<ModelConfig, ModelError> {
    ModelConfig::from_gguf(&gguf_header(entries, tensors), "test.gguf")
}

const EMBEDDING: (&str, &[u64]) = ("token_embd.weight", &[24, 48]);

#[test]
fn gguf_options_and_their_refusals() {
    let scaling = |kind: &str, factor: f32| {
        from_gguf(
            &[
                ("llama.rope.scaling.type", Meta::Str(kind.into())),
                ("llama.rope.scaling.factor", Meta::F32(factor)),
            ],
            &[EMBEDDING],
        )
    };
    assert_eq!(scaling("linear", 4.0).unwrap().rope.scaling, RopeScaling::Linear { factor: 4.0 });
    assert_eq!(scaling("none", 4.0).unwrap().rope.scaling, RopeScaling::None);
    let old = from_gguf(&[("llama.rope.scale_linear", Meta::F32(2.0))], &[EMBEDDING]).unwrap();
    assert_eq!(old.rope.scaling, RopeScaling::Linear { factor: 2.0 });
    for (key, value, named) in [
        ("llama.rope.scaling.type", Meta::Str("yarn".into()), "yarn"),
        ("llama.attention.sliding_window", Meta::U32(32), "sliding_window = 32"),
        ("llama.attention.value_length", Meta::U32(9), "value_length = 9"),
        ("llama.expert_gating_func", Meta::U32(2), "expert_gating_func"),
        ("llama.expert_weights_scale", Meta::F32(2.5), "expert_weights_scale = 2.5"),
        ("llama.attention.head_count", Meta::Array(Array::I32(vec![4, 4])), "an array of 2"),
        ("llama.attention.head_count", Meta::I32(-4), "-4"),
        ("llama.block_count", Meta::U32(0), "llama.block_count is 0"),
        ("llama.rope.freq_base", Meta::F32(f32::NAN), "freq_base is NaN"),
        ("llama.rope.dimension_count", Meta::U32(5), "rotary_dim is 5"),
        (
            "general.architecture",
            Meta::Str("mamba".into()),
            "\"mamba\" is not supported; supported are gptneox",
        ),
        ("tokenizer.ggml.eos_token_id", Meta::Str("</s>".into()), "eos_token_id is \"</s>\""),
    ] {
        let error = from_gguf(&[(key, value)], &[EMBEDDING]).unwrap_err().to_string();
        assert!(error.starts_with("test.gguf: ") && error.contains(named), "{error}");
    }
}

#[test]
fn gguf_vocabulary_is_the_rows_of_the_table() {
    let tokens = ("tokenizer.ggml.tokens", Meta::Array(Array::Str(vec!["a"; 40].into_iter().collect())));
    // the table is padded beyond the token list
    assert_eq!(from_gguf(std::slice::from_ref(&tokens), &[EMBEDDING]).unwrap().vocab_size, 48);
    assert_eq!(from_gguf(&[tokens], &[]).unwrap().vocab_size, 40);
    assert_eq!(from_gguf(&[("llama.vocab_size", Meta::U64(44))], &[EMBEDDING]).unwrap().vocab_size, 44);
    assert!(from_gguf(&[], &[]).unwrap_err().to_string().contains("llama.vocab_size is missing"));
    let tied = from_gguf(&[], &[EMBEDDING]).unwrap();
    let untied = from_gguf(&[], &[EMBEDDING, ("output.weight", &[24, 48])]).unwrap();
    assert!(tied.tied_embeddings && !untied.tied_embeddings);
}

#[test]
fn generation_config_of_any_shape_is_an_error_not_a_panic() {
    for text in ["", "[]", "{\"top_k\": {}}", "{\"temperature\": \"hot\"}"] {
        assert!(GenerationConfig::from_json(text, "g.json").is_err(), "{text}");
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-100i64..5000).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop_oneof!["linear", "llama3", "default", "silu", "yarn", "\\PC{0,9}"].prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 12, 4, |inner| {
        let key = prop_oneof!["rope_type", "type", "factor", "rope_theta", "low_freq_factor", "\\PC{0,4}"];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Any value under any key is either refused or gives a configuration whose plan sums to its weight count.
    #[test]
    fn random_values_never_panic(
        family in 0usize..7,
        changes in prop::collection::vec((0usize..30, any_json()), 1..4),
    ) {
        let mut config = families().swap_remove(family);
        let more = ["rope_scaling", "rope_parameters", "layer_types", "partial_rotary_factor", "rotary_emb_base",
            "sliding_window", "quantization_config"];
        let keys: Vec<String> = config.keys().cloned().chain(more.map(String::from)).collect();
        for (at, value) in changes {
            config.insert(keys[at % keys.len()].clone(), value);
        }
        if let Ok(config) = read(&config) && config.n_layers * (1 + config.n_experts()) < 3000 {
            prop_assert_eq!(TensorPlan::hugging_face(&config).weights(), config.parameters().total());
            prop_assert_eq!(TensorPlan::gguf(&config).weights(), config.parameters().total());
            prop_assert!(config.active_parameters() <= config.parameters().total());
        }
    }

    /// Arbitrary text never panics.
    #[test]
    fn random_text_never_panics(text in "\\PC*", braces in "[{}\\[\\]\",:0-9a-z]*") {
        prop_assert!(ModelConfig::from_config_json(&text, "f").is_err());
        prop_assert!(ModelConfig::from_config_json(&braces, "f").is_err());
        let _ = GenerationConfig::from_json(&braces, "f");
    }

    /// Valid sizes: the plan sums to the count, heads and all.
    #[test]
    fn plans_sum_to_the_parameter_count(
        family in 0usize..7, layers in 1usize..6, kv in 1usize..5, group in 1usize..4, half in 1usize..9,
        hidden in 1usize..70, ff in 1usize..70, vocab in 1usize..200, experts in 2usize..6, flags in any::<[bool; 4]>(),
    ) {
        let mut config = families().swap_remove(family);
        let sizes = json!({"num_hidden_layers": layers, "num_attention_heads": kv * group, "num_key_value_heads": kv,
            "head_dim": 4 * half, "hidden_size": hidden, "intermediate_size": ff, "vocab_size": vocab,
            "num_experts": experts, "num_local_experts": experts, "tie_word_embeddings": flags[0],
            "attention_bias": flags[1], "mlp_bias": flags[2], "use_parallel_residual": flags[3]});
        config.extend(sizes.as_object().unwrap().clone());
        let config = read(&config).unwrap();
        prop_assert_eq!(TensorPlan::hugging_face(&config).weights(), config.parameters().total());
        prop_assert_eq!(config.kv_values_per_token(), 2 * (layers * config.n_kv_heads * 4 * half) as u64);
        // every planned tensor has a source whose shape holds it
        for plan in [TensorPlan::hugging_face(&config), TensorPlan::gguf(&config)] {
            for tensor in &plan.tensors {
                prop_assert!(!tensor.sources.is_empty(), "{:?}", tensor.role);
                for source in &tensor.sources {
                    let total: usize = source.shape.iter().product();
                    prop_assert!(total >= tensor.shape.iter().product::<usize>());
                    prop_assert_eq!(source.shape.len().min(2), tensor.shape.len());
                }
            }
        }
    }
}
