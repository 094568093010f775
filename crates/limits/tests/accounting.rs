//! The integer accounting against counts written out by hand.
#![allow(clippy::unwrap_used, clippy::panic)] // a test may fail where it stands

mod common;

use common::*;
use proptest::prelude::*;
use roofline_limits::accounting::{Accounting, AttentionWork, Segment, Step, WeightFormats, step_cost};
use roofline_limits::{KvFormat, LimitsError, Recipe};
use roofline_model::ModelConfig;
use roofline_model::operator::{Cost, Operator};
use roofline_model::tensor_plan::{LayerRole, Role};
use roofline_weights::format::Format;

const BF16: WeightFormats<'static> = WeightFormats::Recipe(Recipe::Uniform(Format::Bf16));

fn tiny() -> ModelConfig {
    llama(Sizes { layers: 2, hidden: 64, heads: 4, kv_heads: 2, head_dim: 32, ff: 96, vocab: 100 })
}

#[test]
fn a_llama_step_counted_by_hand() {
    let cost = step_cost(&tiny(), BF16, KvFormat::F32, &Step::single(3, 5, 1)).unwrap();
    let weights = |weight_bytes, flops| Cost { weight_bytes, flops, ..Cost::default() };
    assert_eq!(cost.get(Operator::Embed), weights(3 * 64 * 2, 0));
    assert_eq!(cost.get(Operator::AttentionNorm), weights(2 * 64 * 4, 0));
    // q is 4·32 = 128 wide, k and v 2·32 = 64 each
    assert_eq!(cost.get(Operator::Qkv), weights(2 * 64 * 256 * 2, 2 * 2 * 3 * 64 * 256));
    assert_eq!(cost.get(Operator::QkNorm), Cost::default());
    assert_eq!(cost.get(Operator::Rope), Cost::default());
    let slot = 2 * 32 * 4; // K and V of one head, f32
    assert_eq!(cost.get(Operator::KvAppend), Cost { kv_write_bytes: 2 * 3 * 2 * slot, ..Cost::default() });
    let pairs = 6 + 7 + 8; // each row sees what came before it and itself
    assert_eq!(
        cost.get(Operator::Attention),
        Cost { kv_read_bytes: 2 * 8 * 2 * slot, flops: 2 * 4 * 32 * 4 * pairs, ..Cost::default() }
    );
    assert_eq!(cost.get(Operator::Wo), weights(2 * 128 * 64 * 2, 2 * 2 * 3 * 128 * 64));
    assert_eq!(cost.get(Operator::WGateUp), weights(2 * 2 * 64 * 96 * 2, 2 * 2 * 3 * 2 * 64 * 96));
    assert_eq!(cost.get(Operator::Activation), Cost::default());
    assert_eq!(cost.get(Operator::WDown), weights(2 * 64 * 96 * 2, 2 * 2 * 3 * 64 * 96));
    assert_eq!(cost.get(Operator::FinalNorm), weights(64 * 4, 0));
    assert_eq!(cost.get(Operator::OutputHead), weights(100 * 64 * 2, 2 * 100 * 64));
}

#[test]
fn biases_layer_norms_and_a_plain_ffn_counted_by_hand() {
    let cost = step_cost(&pythia_410m(), BF16, KvFormat::F16, &Step::single(1, 0, 1)).unwrap();
    let h = 1024u64;
    assert_eq!(cost.get(Operator::AttentionNorm).weight_bytes, 24 * 2 * h * 4);
    assert_eq!(cost.get(Operator::FfnNorm).weight_bytes, 24 * 2 * h * 4);
    assert_eq!(cost.get(Operator::Qkv).weight_bytes, 24 * (3 * h * h * 2 + 3 * h * 4));
    assert_eq!(cost.get(Operator::Wo).weight_bytes, 24 * (h * h * 2 + h * 4));
    assert_eq!(cost.get(Operator::WGateUp).weight_bytes, 24 * (4 * h * h * 2 + 4 * h * 4));
    assert_eq!(cost.get(Operator::WDown).weight_bytes, 24 * (4 * h * h * 2 + h * 4));
    assert_eq!(cost.get(Operator::WGateUp).flops, 24 * 2 * 4 * h * h);
}

#[test]
fn experts_are_read_as_touched_and_multiplied_as_visited() {
    let config = olmoe();
    let step = Step::single(5, 0, 0).with_touched_experts((0..16).map(|layer| 8 + layer).collect());
    let cost =
        step_cost(&config, WeightFormats::Recipe(Recipe::from_name("q4_0").unwrap()), KvFormat::F16, &step)
            .unwrap();
    let expert = 3 * 2048 * 1024 / 32 * 18;
    let touched: u64 = (0..16).map(|layer| 8 + layer).sum();
    assert_eq!(cost.get(Operator::Experts).weight_bytes, touched * expert);
    assert_eq!(cost.get(Operator::Experts).flops, 16 * 2 * 5 * 8 * 3 * 2048 * 1024);
    assert_eq!(cost.get(Operator::Router).weight_bytes, 16 * 64 * 2048 * 4);
    assert_eq!(cost.get(Operator::Router).flops, 16 * 2 * 5 * 64 * 2048);
    assert_eq!(cost.get(Operator::QkNorm).weight_bytes, 16 * 2 * 2048 * 4);
    assert_eq!(cost.get(Operator::OutputHead), Cost::default());
    assert_eq!(cost.get(Operator::FinalNorm), Cost::default());
    let error = step_cost(&config, BF16, KvFormat::F16, &Step::single(5, 0, 0)).unwrap_err();
    assert!(matches!(error, LimitsError::TouchedExperts { layers: 16, given: 0 }), "{error}");
}

#[test]
fn a_tied_head_reads_the_embedding_table() {
    let mut config = tiny();
    config.tied_embeddings = true;
    let formats = |role| Some(if role == Role::TokenEmbedding { Format::Q8_0 } else { Format::F32 });
    let cost =
        step_cost(&config, WeightFormats::Tensors(&formats), KvFormat::F16, &Step::single(2, 0, 2)).unwrap();
    assert_eq!(cost.get(Operator::OutputHead).weight_bytes, 100 * 64 / 32 * 34);
    assert_eq!(cost.get(Operator::OutputHead).flops, 2 * 2 * 100 * 64);
    assert_eq!(cost.get(Operator::Embed).weight_bytes, 2 * 64 / 32 * 34);
}

#[test]
fn a_policy_states_what_attention_read() {
    let work = AttentionWork { slots_read: 7, pairs: 11, watched_pairs: 0, metadata_bytes: 3 };
    let step = Step { attention: Some(work), ..Step::single(1, 1000, 1) };
    let cost = step_cost(&tiny(), BF16, KvFormat::I8, &step).unwrap().get(Operator::Attention);
    assert_eq!(cost.kv_read_bytes, 7 * 2 * (32 + 2) + 3);
    assert_eq!(cost.flops, 4 * 32 * 11);
}

#[test]
fn parameters_of_public_models_are_the_published_ones() {
    let total = |config: &ModelConfig| Accounting::new(config, BF16, KvFormat::F16).unwrap().parameters();
    assert_eq!(total(&llama2_7b()).total, 6_738_415_616);
    assert_eq!(total(&llama3_8b()).total, 8_030_261_248);
    assert_eq!(total(&llama2_70b()).total, 68_976_648_192);
    assert_eq!(total(&pythia_410m()).total, 405_334_016);
    assert_eq!(total(&olmoe()).total, 6_919_161_856);
    assert_eq!(total(&olmoe()).layers_active + total(&olmoe()).head, 1_178_861_568); // "1B active" without the embedding
}

#[test]
fn file_sizes_of_the_mixes_are_the_published_ones() {
    let gib = |config: &ModelConfig, recipe: &str| {
        let formats = WeightFormats::Recipe(Recipe::from_name(recipe).unwrap());
        Accounting::new(config, formats, KvFormat::F16).unwrap().resident_bytes() as f64 / (1u64 << 30) as f64
    };
    // llama.cpp prints the tensor bytes of Llama-2-7B in GiB with two decimals
    for (recipe, size) in [("f16", 12.55), ("q8_0", 6.67), ("q6_k", 5.15), ("q4_0", 3.56), ("q4_1", 3.95)] {
        assert_eq!(format!("{:.2}", gib(&llama2_7b(), recipe)), format!("{size:.2}"), "{recipe}");
    }
    for (recipe, size) in [("q5_k_m", 4.45), ("q4_k_m", 3.80), ("q3_k_m", 3.07), ("q2_k", 2.36)] {
        let ours = gib(&llama2_7b(), recipe);
        assert!((ours - size).abs() < 0.015, "{recipe}: {ours}");
    }
    // 8B: 4.58 GiB is the file size llama.cpp gives for Q4_K_M of Llama-3-8B
    assert!((gib(&llama3_8b(), "q4_k_m") - 4.58).abs() < 0.01);
}

#[test]
fn what_cannot_be_priced_is_refused_by_name() {
    let none = |_| None;
    let error =
        step_cost(&tiny(), WeightFormats::Tensors(&none), KvFormat::F16, &Step::single(1, 0, 1)).unwrap_err();
    assert!(matches!(error, LimitsError::NoFormat { .. }), "{error}");
    let q4k = |_| Some(Format::Q4K);
    let error =
        step_cost(&tiny(), WeightFormats::Tensors(&q4k), KvFormat::F16, &Step::single(1, 0, 1)).unwrap_err();
    assert!(matches!(error, LimitsError::Blocks { .. }), "{error}");
    let uneven = |role| {
        let special = role == Role::Layer(3, LayerRole::ExpertUp(5));
        Some(if special { Format::F32 } else { Format::Bf16 })
    };
    let error = Accounting::new(&olmoe(), WeightFormats::Tensors(&uneven), KvFormat::F16).unwrap_err();
    assert!(matches!(error, LimitsError::UnevenExperts { layer: 3 }), "{error}");
    let huge = Step::single(u64::MAX, u64::MAX, 1);
    assert!(matches!(step_cost(&tiny(), BF16, KvFormat::F16, &huge), Err(LimitsError::Overflow { .. })));
    for break_it in [
        |c: &mut ModelConfig| c.n_heads = 0,
        |c: &mut ModelConfig| c.n_kv_heads = 3,
        |c: &mut ModelConfig| c.hidden_size = usize::MAX,
        |c: &mut ModelConfig| c.n_layers = usize::MAX,
    ] {
        let mut config = tiny();
        break_it(&mut config);
        let error = Accounting::new(&config, BF16, KvFormat::F16).unwrap_err();
        assert!(matches!(error, LimitsError::Config(_)), "{error}");
    }
}

proptest! {
    /// Chunks of a prompt compute the same FLOPs and write the same K and V as the prompt in one step.
    #[test]
    fn chunks_compute_what_the_whole_prompt_does(chunks in proptest::collection::vec(1u64..50, 1..6)) {
        let accounting = Accounting::new(&llama3_8b(), BF16, KvFormat::Bf16).unwrap();
        let total: u64 = chunks.iter().sum();
        let whole = accounting.step(&Step::single(total, 0, 0)).unwrap().total();
        let mut sum = Cost::default();
        let mut before = 0;
        for rows in chunks {
            sum += accounting.step(&Step::single(rows, before, 0)).unwrap().total();
            before += rows;
        }
        prop_assert_eq!(sum.flops, whole.flops);
        prop_assert_eq!(sum.kv_write_bytes, whole.kv_write_bytes);
        prop_assert!(sum.kv_read_bytes >= whole.kv_read_bytes);
    }

    /// The parts are the total, and one segment of a batch costs what it costs alone, but for the weights.
    #[test]
    fn parts_sum_to_the_total(rows in 1u64..100, before in 0u64..5000, batch in 1usize..5, head in 0u64..3) {
        let accounting = Accounting::new(&llama2_7b(), BF16, KvFormat::F16).unwrap();
        let one = accounting.step(&Step::single(rows, before, head)).unwrap();
        let mut sum = Cost::default();
        one.iter().for_each(|(_, cost)| sum += cost);
        prop_assert_eq!(sum, one.total());
        let segments = vec![Segment { rows, kv_before: before }; batch];
        let many = accounting.step(&Step { segments, head_rows: head * batch as u64, ..Step::default() }).unwrap().total();
        prop_assert_eq!(many.flops, one.total().flops * batch as u64);
        prop_assert_eq!(many.kv_read_bytes, one.total().kv_read_bytes * batch as u64);
        prop_assert!(many.weight_bytes <= one.total().weight_bytes * batch as u64);
    }
}

/// The rules that one size cannot show: eight experts, models of 80 layers, few shared heads, rows that do not fill 256.
#[test]
fn mixes_follow_the_quantizers_exceptions() {
    let format = |config: &ModelConfig, recipe: &str, layer: usize, role: LayerRole| {
        Recipe::from_name(recipe).unwrap().format_of(config, Role::Layer(layer, role)).unwrap()
    };
    let eight = roofline_model::presets::find("Mixtral-8x7B").unwrap().config().unwrap();
    assert_eq!(format(&eight, "q4_k_m", 9, LayerRole::Wv), Format::Q8_0);
    assert_eq!(format(&eight, "q4_k_m", 9, LayerRole::Wk), Format::Q8_0);
    assert_eq!(format(&eight, "q4_k_m", 9, LayerRole::Wo), Format::Q5K);
    assert_eq!(format(&eight, "q4_k_m", 9, LayerRole::Router), Format::F32);
    let large = llama2_70b();
    assert_eq!(format(&large, "q4_k_m", 11, LayerRole::Wv), Format::Q5K); // 80 layers that share heads: not Q4_K
    assert_eq!(format(&large, "q4_k_m", 12, LayerRole::Wv), Format::Q6K); // every third keeps more bits
    assert_eq!(format(&large, "q2_k", 12, LayerRole::Wv), Format::Q5K);
    assert_eq!(format(&llama2_7b(), "q2_k", 12, LayerRole::Wv), Format::Q3K);
    assert_eq!(format(&llama3_8b(), "q2_k", 12, LayerRole::Wv), Format::Q4K); // four query heads to a KV head
    assert_eq!(format(&llama3_8b(), "q3_k_m", 0, LayerRole::WDown), Format::Q5K);
    assert_eq!(format(&llama3_8b(), "q3_k_m", 2, LayerRole::WDown), Format::Q4K);
    assert_eq!(format(&llama3_8b(), "q4_k_s", 3, LayerRole::Wv), Format::Q5K);
    // the fused q, k, v of GPT-NeoX is one tensor, so its parts have one format
    for role in [LayerRole::Wq, LayerRole::Wk, LayerRole::Wv] {
        assert_eq!(format(&pythia_410m(), "q4_k_m", 0, role), Format::Q6K);
    }
    // Qwen2.5-0.5B is 896 wide, which blocks of 256 do not fill; its w_down has 4864 columns, which they do
    let narrow = roofline_model::presets::find("Qwen2.5-0.5B").unwrap().config().unwrap();
    assert_eq!(format(&narrow, "q4_k_m", 5, LayerRole::Wq), Format::Q5_0);
    assert_eq!(format(&narrow, "q6_k", 5, LayerRole::Wq), Format::Q8_0);
    assert_eq!(format(&narrow, "q2_k", 5, LayerRole::Wq), Format::Q4_0);
    assert_eq!(format(&narrow, "q6_k", 5, LayerRole::WDown), Format::Q6K);
    let head = Recipe::from_name("q4_k_m").unwrap();
    assert_eq!(head.format_of(&narrow, Role::TokenEmbedding).unwrap(), Format::Q8_0); // tied: it is the head
    assert_eq!(head.format_of(&llama3_8b(), Role::OutputHead).unwrap(), Format::Q6K);
    assert_eq!(head.format_of(&llama3_8b(), Role::TokenEmbedding).unwrap(), Format::Q4K);
    assert_eq!(head.format_of(&llama3_8b(), Role::FinalNorm).unwrap(), Format::F32);
}
