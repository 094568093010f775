//! A `config.json` (read again as a `generation_config.json`): refused by name, or a configuration whose tensor plan
//! is finite and asks for weights.
#![no_main]

use libfuzzer_sys::fuzz_target;
use roofline_model::{GenerationConfig, ModelConfig, TensorPlan};

fuzz_target!(|text: &str| {
    let _ = GenerationConfig::from_json(text, "generation_config.json");
    let Ok(config) = ModelConfig::from_config_json(text, "config.json") else { return };
    // A plan is as long as the model is deep: a valid one may be too long to build a thousand times a second.
    if config.n_layers <= 8 {
        let plan = TensorPlan::hugging_face(&config);
        assert!(plan.weights() > 0 && plan.tensors.iter().all(|tensor| !tensor.sources.is_empty()));
    }
});
