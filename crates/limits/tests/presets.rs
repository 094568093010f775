//! The accounting against the model crate's own counts, for every preset.
#![allow(clippy::unwrap_used, clippy::panic)] // a test may fail where it stands

use roofline_limits::accounting::{Accounting, Step, WeightFormats};
use roofline_limits::{KvFormat, Recipe};
use roofline_model::presets;
use roofline_model::tensor_plan::{Role, roles};
use roofline_weights::format::Format;

#[test]
fn parameters_are_those_of_the_model_crate() {
    for preset in presets::all() {
        let config = preset.config().unwrap();
        let f32s = WeightFormats::Recipe(Recipe::Uniform(Format::F32));
        let accounting = Accounting::new(&config, f32s, KvFormat::F16).unwrap();
        let ours = accounting.parameters();
        assert_eq!(ours.total, config.parameters().total(), "{}", preset.name);
        assert_eq!(accounting.resident_bytes(), 4 * ours.total, "{}", preset.name);
        assert_eq!(accounting.kv_elements_per_token(), config.kv_values_per_token(), "{}", preset.name);
    }
}

/// Priced role by role from the tensor plan, a file type weighs what the accounting says, and a step that touches every
/// expert reads it all but the embedding table, of which it reads a row.
#[test]
fn file_types_weigh_the_sum_of_their_tensors() {
    for preset in presets::all() {
        let config = preset.config().unwrap();
        for name in Recipe::names() {
            let recipe = Recipe::from_name(name).unwrap();
            let accounting = Accounting::new(&config, WeightFormats::Recipe(recipe), KvFormat::F16).unwrap();
            let mut bytes = 0u64;
            for (role, shape) in roles(&config) {
                let format = recipe.format_of(&config, role).unwrap();
                let len = shape.iter().product::<usize>();
                bytes += format.bytes_of(len).unwrap_or_else(|| panic!("{role:?} {format}")) as u64;
            }
            let rope_factors = match config.rope.scaling {
                roofline_model::config::RopeScaling::FrequencyFactors => 2 * config.rope.rotary_dim as u64,
                _ => 0,
            };
            assert_eq!(accounting.resident_bytes() + rope_factors, bytes, "{} {name}", preset.name);
            let touched =
                vec![config.n_experts() as u64; if config.n_experts() > 0 { config.n_layers } else { 0 }];
            let step = accounting.step(&Step::single(1, 0, 1).with_touched_experts(touched)).unwrap();
            let table = config.vocab_size * config.hidden_size;
            let embedding = recipe.format_of(&config, Role::TokenEmbedding).unwrap();
            let unread = if config.tied_embeddings { 0 } else { embedding.bytes_of(table).unwrap() as u64 };
            let row = embedding.bytes_of(config.hidden_size).unwrap() as u64;
            assert_eq!(
                step.total().weight_bytes + unread,
                accounting.resident_bytes() + row,
                "{} {name}",
                preset.name
            );
        }
    }
}
