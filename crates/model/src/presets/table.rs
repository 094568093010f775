//! The geometries themselves, as the `config.json` of each repository states them (checked by the weight count that its page shows).

use super::{Preset, Series};

/// What the models of one series share.
const QWEN15: Series = Series {
    model_type: "qwen2",
    context: 32_768,
    norm_eps: 1e-6,
    rest: r#""rope_theta": 1000000.0, "bos_token_id": 151643, "eos_token_id": 151643"#,
};
const QWEN25: Series = Series {
    model_type: "qwen2",
    context: 32_768,
    norm_eps: 1e-6,
    rest: r#""rope_theta": 1000000.0, "bos_token_id": 151643, "eos_token_id": [151643, 151645]"#,
};
const QWEN3: Series = Series {
    model_type: "qwen3",
    context: 40_960,
    norm_eps: 1e-6,
    rest: r#""rope_theta": 1000000.0, "bos_token_id": 151643, "eos_token_id": [151643, 151645]"#,
};
const LLAMA2: Series =
    Series { model_type: "llama", context: 4_096, norm_eps: 1e-5, rest: r#""rope_theta": 10000.0"# };
const LLAMA3: Series = Series {
    model_type: "llama",
    context: 8_192,
    norm_eps: 1e-5,
    rest: r#""rope_theta": 500000.0, "bos_token_id": 128000, "eos_token_id": 128001"#,
};
const LLAMA31: Series = Series {
    model_type: "llama",
    context: 131_072,
    norm_eps: 1e-5,
    rest: r#""rope_theta": 500000.0, "bos_token_id": 128000, "eos_token_id": 128001, "rope_scaling": {"rope_type": "llama3",
    "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}"#,
};
const LLAMA32: Series = Series {
    rest: r#""rope_theta": 500000.0, "bos_token_id": 128000, "eos_token_id": 128001, "rope_scaling": {"rope_type": "llama3",
    "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}"#,
    ..LLAMA31
};
const PYTHIA: Series = Series {
    model_type: "gpt_neox",
    context: 2_048,
    norm_eps: 1e-5,
    rest: r#""rotary_pct": 0.25, "rotary_emb_base": 10000, "hidden_act": "gelu", "use_parallel_residual": true,
    "bos_token_id": 0, "eos_token_id": 0"#,
};
const OLMOE: Series = Series {
    model_type: "olmoe",
    context: 4_096,
    norm_eps: 1e-5,
    rest: r#""rope_theta": 10000.0, "num_experts": 64, "num_experts_per_tok": 8, "norm_topk_prob": false, "eos_token_id": 50279"#,
};
const MOLMO_D: Series = Series { context: 4_096, ..QWEN15 };
const MISTRAL_V01: Series = Series {
    model_type: "mistral",
    context: 4_096,
    norm_eps: 1e-5,
    rest: r#""rope_theta": 10000.0, "sliding_window": 4096"#,
};
const MISTRAL: Series = Series {
    model_type: "mistral",
    context: 32_768,
    norm_eps: 1e-5,
    rest: r#""rope_theta": 1000000.0, "sliding_window": null"#,
};
const MIXTRAL: Series = Series {
    model_type: "mixtral",
    context: 32_768,
    norm_eps: 1e-5,
    rest: r#""rope_theta": 1000000.0, "num_local_experts": 8, "num_experts_per_tok": 2"#,
};
const MIXTRAL_22: Series = Series { context: 65_536, ..MIXTRAL };

const WITHOUT_GQA: &str = "not a released model: the same without grouped-query attention, as document 003 (section 5.1) computes it";
const WINDOW: &str =
    "context 32768 in the repository, with a sliding window of 4096; here the 4096 that need no window";
const MORE_ROWS: &str = "text part; 128 more embedding rows for image tokens are kept apart and not counted";

/// What `row` lists after the sizes.
const TIED: bool = true;
const OWN_HEAD: bool = false;

#[rustfmt::skip] // one model a line
pub(super) const PRESETS: [Preset; 51] = [
    //   name                   repository                     series       hidden L   heads kv  dim  ff     vocab   head      weights
    row("Qwen1.5-0.5B",         "Qwen/Qwen1.5-0.5B",           &QWEN15,     [1024, 24, 16, 16, 64,  2816,  151936], TIED,     463_987_712),
    row("Qwen1.5-1.8B",         "Qwen/Qwen1.5-1.8B",           &QWEN15,     [2048, 24, 16, 16, 128, 5504,  151936], OWN_HEAD, 1_836_828_672),
    row("Qwen1.5-4B",           "Qwen/Qwen1.5-4B",             &QWEN15,     [2560, 40, 20, 20, 128, 6912,  151936], OWN_HEAD, 3_950_369_280),
    row("Qwen1.5-7B",           "Qwen/Qwen1.5-7B",             &QWEN15,     [4096, 32, 32, 32, 128, 11008, 151936], OWN_HEAD, 7_721_324_544),
    row("Qwen1.5-14B",          "Qwen/Qwen1.5-14B",            &QWEN15,     [5120, 40, 40, 40, 128, 13696, 152064], OWN_HEAD, 14_167_290_880),
    row("Qwen1.5-32B",          "Qwen/Qwen1.5-32B",            &QWEN15,     [5120, 64, 40, 8,  128, 27392, 152064], OWN_HEAD, 32_512_218_112),
    row("Qwen1.5-72B",          "Qwen/Qwen1.5-72B",            &QWEN15,     [8192, 80, 64, 64, 128, 24576, 152064], OWN_HEAD, 72_287_920_128),
    row("Qwen1.5-110B",         "Qwen/Qwen1.5-110B",           &QWEN15,     [8192, 80, 64, 8,  128, 49152, 152064], OWN_HEAD, 111_209_914_368),
    row("Qwen1.5-32B-noGQA",    "Qwen/Qwen1.5-32B",            &QWEN15,     [5120, 64, 40, 40, 128, 27392, 152064], OWN_HEAD, 0).noted(WITHOUT_GQA),
    row("Qwen1.5-110B-noGQA",   "Qwen/Qwen1.5-110B",           &QWEN15,     [8192, 80, 64, 64, 128, 49152, 152064], OWN_HEAD, 0).noted(WITHOUT_GQA),
    row("Qwen2.5-0.5B",         "Qwen/Qwen2.5-0.5B-Instruct",  &QWEN25,     [896,  24, 14, 2,  64,  4864,  151936], TIED,     494_032_768),
    row("Qwen2.5-1.5B",         "Qwen/Qwen2.5-1.5B-Instruct",  &QWEN25,     [1536, 28, 12, 2,  128, 8960,  151936], TIED,     1_543_714_304),
    row("Qwen2.5-3B",           "Qwen/Qwen2.5-3B-Instruct",    &QWEN25,     [2048, 36, 16, 2,  128, 11008, 151936], TIED,     3_085_938_688),
    row("Qwen2.5-7B",           "Qwen/Qwen2.5-7B-Instruct",    &QWEN25,     [3584, 28, 28, 4,  128, 18944, 152064], OWN_HEAD, 7_615_616_512),
    row("Qwen2.5-14B",          "Qwen/Qwen2.5-14B-Instruct",   &QWEN25,     [5120, 48, 40, 8,  128, 13824, 152064], OWN_HEAD, 14_770_033_664),
    row("Qwen2.5-32B",          "Qwen/Qwen2.5-32B-Instruct",   &QWEN25,     [5120, 64, 40, 8,  128, 27648, 152064], OWN_HEAD, 32_763_876_352),
    row("Qwen2.5-72B",          "Qwen/Qwen2.5-72B-Instruct",   &QWEN25,     [8192, 80, 64, 8,  128, 29568, 152064], OWN_HEAD, 72_706_203_648),
    row("Qwen3-0.6B",           "Qwen/Qwen3-0.6B",             &QWEN3,      [1024, 28, 16, 8,  128, 3072,  151936], TIED,     596_049_920),
    row("Qwen3-1.7B",           "Qwen/Qwen3-1.7B",             &QWEN3,      [2048, 28, 16, 8,  128, 6144,  151936], TIED,     1_720_574_976),
    row("Qwen3-4B",             "Qwen/Qwen3-4B",               &QWEN3,      [2560, 36, 32, 8,  128, 9728,  151936], TIED,     4_022_468_096),
    row("Qwen3-8B",             "Qwen/Qwen3-8B",               &QWEN3,      [4096, 36, 32, 8,  128, 12288, 151936], OWN_HEAD, 8_190_735_360),
    row("Qwen3-14B",            "Qwen/Qwen3-14B",              &QWEN3,      [5120, 40, 40, 8,  128, 17408, 151936], OWN_HEAD, 14_768_307_200),
    row("Qwen3-32B",            "Qwen/Qwen3-32B",              &QWEN3,      [5120, 64, 64, 8,  128, 25600, 151936], OWN_HEAD, 32_762_123_264),
    row("Llama-2-7B",           "meta-llama/Llama-2-7b-hf",    &LLAMA2,     [4096, 32, 32, 32, 128, 11008, 32000],  OWN_HEAD, 6_738_415_616),
    row("Llama-2-13B",          "meta-llama/Llama-2-13b-hf",   &LLAMA2,     [5120, 40, 40, 40, 128, 13824, 32000],  OWN_HEAD, 13_015_864_320),
    row("Llama-2-70B",          "meta-llama/Llama-2-70b-hf",   &LLAMA2,     [8192, 80, 64, 8,  128, 28672, 32000],  OWN_HEAD, 68_976_648_192),
    row("Llama-3-8B",           "meta-llama/Meta-Llama-3-8B",  &LLAMA3,     [4096, 32, 32, 8,  128, 14336, 128256], OWN_HEAD, 8_030_261_248),
    row("Llama-3-70B",          "meta-llama/Meta-Llama-3-70B", &LLAMA3,     [8192, 80, 64, 8,  128, 28672, 128256], OWN_HEAD, 70_553_706_496),
    row("Llama-3.1-8B",         "meta-llama/Llama-3.1-8B",     &LLAMA31,    [4096, 32, 32, 8,  128, 14336, 128256], OWN_HEAD, 8_030_261_248),
    row("Llama-3.1-70B",        "meta-llama/Llama-3.1-70B",    &LLAMA31,    [8192, 80, 64, 8,  128, 28672, 128256], OWN_HEAD, 70_553_706_496),
    row("Llama-3.1-405B",       "meta-llama/Llama-3.1-405B",   &LLAMA31,    [16384, 126, 128, 8, 128, 53248, 128256], OWN_HEAD, 405_853_388_800),
    row("Llama-3.2-1B",         "meta-llama/Llama-3.2-1B",     &LLAMA32,    [2048, 16, 32, 8,  64,  8192,  128256], TIED,     1_235_814_400),
    row("Llama-3.2-3B",         "meta-llama/Llama-3.2-3B",     &LLAMA32,    [3072, 28, 24, 8,  128, 8192,  128256], TIED,     3_212_749_824),
    row("Pythia-14M",           "EleutherAI/pythia-14m",       &PYTHIA,     [128,  6,  4,  4,  32,  512,   50304],  OWN_HEAD, 14_067_712),
    row("Pythia-31M",           "EleutherAI/pythia-31m",       &PYTHIA,     [256,  6,  8,  8,  32,  1024,  50304],  OWN_HEAD, 30_494_720),
    row("Pythia-70M",           "EleutherAI/pythia-70m",       &PYTHIA,     [512,  6,  8,  8,  64,  2048,  50304],  OWN_HEAD, 70_426_624),
    row("Pythia-160M",          "EleutherAI/pythia-160m",      &PYTHIA,     [768,  12, 12, 12, 64,  3072,  50304],  OWN_HEAD, 162_322_944),
    row("Pythia-410M",          "EleutherAI/pythia-410m",      &PYTHIA,     [1024, 24, 16, 16, 64,  4096,  50304],  OWN_HEAD, 405_334_016),
    row("Pythia-1B",            "EleutherAI/pythia-1b",        &PYTHIA,     [2048, 16, 8,  8,  256, 8192,  50304],  OWN_HEAD, 1_011_781_632),
    row("Pythia-1.4B",          "EleutherAI/pythia-1.4b",      &PYTHIA,     [2048, 24, 16, 16, 128, 8192,  50304],  OWN_HEAD, 1_414_647_808),
    row("Pythia-2.8B",          "EleutherAI/pythia-2.8b",      &PYTHIA,     [2560, 32, 32, 32, 80,  10240, 50304],  OWN_HEAD, 2_775_208_960),
    row("Pythia-6.9B",          "EleutherAI/pythia-6.9b",      &PYTHIA,     [4096, 32, 32, 32, 128, 16384, 50432],  OWN_HEAD, 6_857_302_016),
    row("Pythia-12B",           "EleutherAI/pythia-12b",       &PYTHIA,     [5120, 36, 40, 40, 128, 20480, 50688],  OWN_HEAD, 11_846_072_320),
    row("OLMoE-1B-7B",          "allenai/OLMoE-1B-7B-0924",    &OLMOE,      [2048, 16, 16, 16, 128, 1024,  50304],  OWN_HEAD, 6_919_161_856),
    row("MolmoE-1B",            "allenai/MolmoE-1B-0924",      &OLMOE,      [2048, 16, 16, 16, 128, 1024,  50304],  OWN_HEAD, 0).noted(MORE_ROWS),
    row("Molmo-7B-D",           "allenai/Molmo-7B-D-0924",     &MOLMO_D,    [3584, 28, 28, 4,  128, 18944, 152064], OWN_HEAD, 0).noted(MORE_ROWS),
    row("Mistral-7B-v0.1",      "mistralai/Mistral-7B-v0.1",   &MISTRAL_V01, [4096, 32, 32, 8, 128, 14336, 32000],  OWN_HEAD, 7_241_732_096).noted(WINDOW),
    row("Mistral-7B-v0.2",      "mistralai/Mistral-7B-Instruct-v0.2", &MISTRAL, [4096, 32, 32, 8, 128, 14336, 32000], OWN_HEAD, 7_241_732_096),
    row("Mistral-7B-v0.3",      "mistralai/Mistral-7B-v0.3",   &MISTRAL,    [4096, 32, 32, 8,  128, 14336, 32768],  OWN_HEAD, 7_248_023_552),
    row("Mixtral-8x7B",         "mistralai/Mixtral-8x7B-v0.1", &MIXTRAL,    [4096, 32, 32, 8,  128, 14336, 32000],  OWN_HEAD, 46_702_792_704),
    row("Mixtral-8x22B",        "mistralai/Mixtral-8x22B-v0.1", &MIXTRAL_22, [6144, 56, 48, 8, 128, 16384, 32000],  OWN_HEAD, 140_620_634_112),
];

/// `weights` is the count on the repository's page (a head stored beside the tied table left out), 0 where there is none.
const fn row(
    name: &'static str,
    repository: &'static str,
    series: &'static Series,
    sizes: [usize; 7],
    tied: bool,
    weights: u64,
) -> Preset {
    let [hidden, layers, heads, kv_heads, head_dim, ff, vocab] = sizes;
    let published = if weights == 0 { None } else { Some(weights) };
    Preset {
        name,
        repository,
        series,
        hidden,
        layers,
        heads,
        kv_heads,
        head_dim,
        ff,
        vocab,
        tied,
        published,
        note: None,
    }
}

impl Preset {
    const fn noted(mut self, note: &'static str) -> Preset {
        self.note = Some(note);
        self
    }
}
