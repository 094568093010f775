"""Write crates/model/tests/golden/plans.json: what transformers saves for a tiny random model of each family.

For each case: the config.json as `save_pretrained` wrote it, and every tensor name with its shape, read back from the
safetensors header (so renames on save are seen). No weights are kept. Needs: torch, transformers, safetensors.

    python3 tools/golden_plans.py
"""

import json
import struct
import tempfile
from pathlib import Path

import transformers
from transformers import AutoModelForCausalLM

OUT = Path(__file__).resolve().parent.parent / "crates/model/tests/golden/plans.json"

TINY = dict(vocab_size=40, hidden_size=24, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=64)
GATED = dict(intermediate_size=20, num_key_value_heads=2)
A_THIRD = dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=0.34)  # of 6: 2 rotated dimensions

CASES = {
    "llama": ("LlamaConfig", dict(**TINY, **GATED)),
    "llama_tied_biased_wide_heads": (
        "LlamaConfig",
        dict(**TINY, **GATED, tie_word_embeddings=True, attention_bias=True, mlp_bias=True, head_dim=8),
    ),
    "llama3_rope": (
        "LlamaConfig",
        dict(**TINY, **GATED, rope_parameters=dict(rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0,
             high_freq_factor=4.0, original_max_position_embeddings=32)),
    ),
    "llama_linear_rope": (
        "LlamaConfig",
        dict(**TINY, **GATED, rope_parameters=dict(rope_type="linear", rope_theta=10000.0, factor=2.0)),
    ),
    "mistral": ("MistralConfig", dict(**TINY, **GATED, sliding_window=None)),
    "qwen2": ("Qwen2Config", dict(**TINY, **GATED, tie_word_embeddings=True)),
    "qwen2_untied": ("Qwen2Config", dict(**TINY, **GATED)),
    "qwen3": ("Qwen3Config", dict(**TINY, **GATED, head_dim=10)),
    "gpt_neox": ("GPTNeoXConfig", dict(**TINY, intermediate_size=32, rope_parameters=A_THIRD)),
    "gpt_neox_sequential_unbiased_tied": (
        "GPTNeoXConfig",
        dict(**TINY, intermediate_size=32, rope_parameters=A_THIRD, use_parallel_residual=False, attention_bias=False,
             tie_word_embeddings=True, hidden_act="gelu_new"),
    ),
    "olmoe": ("OlmoeConfig", dict(**TINY, **GATED, num_experts=3, num_experts_per_tok=2, clip_qkv=8.0)),
    "olmoe_full_heads": (
        "OlmoeConfig",
        dict(**TINY, intermediate_size=20, num_experts=4, num_experts_per_tok=1, norm_topk_prob=True),
    ),
    "mixtral": ("MixtralConfig", dict(**TINY, **GATED, num_local_experts=3)),
}


def header(path: Path) -> dict[str, list[int]]:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        entries = json.loads(file.read(length))
    return {name: entry["shape"] for name, entry in sorted(entries.items()) if name != "__metadata__"}


def main() -> None:
    out = {"transformers": transformers.__version__, "cases": {}}
    for case, (config_class, options) in CASES.items():
        model = AutoModelForCausalLM.from_config(getattr(transformers, config_class)(**options))
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            out["cases"][case] = {
                "config": json.loads((Path(folder) / "config.json").read_text()),
                "parameters": model.num_parameters(),
                "tensors": header(Path(folder) / "model.safetensors"),
            }
    text = json.dumps(out, indent=1)
    OUT.write_text(text + "\n")


if __name__ == "__main__":
    main()
