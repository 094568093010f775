#!/usr/bin/env python3
"""Tiny random models of every family with their golden logits, written by transformers.

    python3 tools/golden_models.py [--out crates/engine/tests/golden] [NAME ...]

Needs torch, transformers, tokenizers, safetensors and gguf (versions: the README beside the results). The results are
committed, so no test runs Python. Every model is seeded; a seed is rejected, and the next one tried, when the run would
be a bad oracle: logits of the wrong spread, a greedy or routing choice too close to call, a continuation that meets the
end token or says the same word over and over, or float32 rounding that is not far below the tolerance of the tests.
"""

import argparse
import json
import math
import shutil
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

from golden_gguf import write_gguf
from golden_tokenizer import write_tokenizer

CONTINUATION = 28  # greedy ids recorded per model
MIN_MARGIN = 2e-3  # least distance of the first from the second logit at a greedy step, and of router logits
MAX_ROUNDING = 1e-5  # largest accepted |float32 logits - float64 logits|

BASE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 72,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "tie_word_embeddings": False,
}
NEOX = {
    "model_type": "gpt_neox",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 72,
    "max_position_embeddings": 128,
    "layer_norm_eps": 1e-5,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "tie_word_embeddings": False,
    "use_parallel_residual": True,
    "hidden_act": "gelu",
    "attention_bias": True,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25},
}


def rope(theta=10000.0, **scaling):
    return {"rope_parameters": {"rope_type": "default", "rope_theta": theta, **scaling}}


LLAMA3 = rope(
    500.0,
    rope_type="llama3",
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=32,
)
OLMOE = {
    **BASE,
    "model_type": "olmoe",
    "intermediate_size": 12,
    "num_key_value_heads": 4,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "norm_topk_prob": False,
    **rope(),
}

# name -> configuration; the keys that start with "_" steer this script:
#   _prompt    prompt length
#   _dtype     storage type of the checkpoint (arithmetic stays float32)
#   _shard     largest shard in bytes
#   _old       "extra": also write the pre-5.0 spelling as config.old.json; "main": config.json itself is spelled so
#   _gguf      also write model.gguf
#   _tokenizer also write a byte-level BPE tokenizer (needs a vocabulary of at least 288)
VARIANTS = {
    "llama_mha": {**BASE, "model_type": "llama", "num_key_value_heads": 4, "_prompt": 17, **rope()},
    "llama_gqa_tied": {
        **BASE,
        "model_type": "llama",
        "vocab_size": 288,
        "hidden_size": 32,
        "tie_word_embeddings": True,
        "_gguf": True,
        "_tokenizer": True,
        "_prompt": 19,
        **rope(),
    },
    "llama_mqa": {**BASE, "model_type": "llama", "num_key_value_heads": 1, "num_hidden_layers": 3, "intermediate_size": 20, **rope(50000.0)},
    "llama_rope_llama3": {
        **BASE,
        "model_type": "llama",
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "_prompt": 40,
        "_old": "extra",
        "_gguf": True,
        **LLAMA3,
    },
    "llama_rope_linear": {
        **BASE,
        "model_type": "llama",
        "_prompt": 40,
        "_old": "extra",
        "_gguf": True,
        **rope(rope_type="linear", factor=4.0),
    },
    "llama_bias": {
        **BASE,
        "model_type": "llama",
        "attention_bias": True,
        "mlp_bias": True,
        "_gguf": True,
        **rope(),
    },
    "llama_head_dim": {**BASE, "model_type": "llama", "head_dim": 12, "rms_norm_eps": 1e-6, **rope()},
    "llama_gelu": {**BASE, "model_type": "llama", "hidden_act": "gelu_pytorch_tanh", "num_hidden_layers": 1, **rope()},
    "llama_sharded": {**BASE, "model_type": "llama", "_shard": 30_000, **rope()},
    "llama_bf16": {**BASE, "model_type": "llama", "_dtype": "bfloat16", **rope()},
    "llama_f16": {**BASE, "model_type": "llama", "_dtype": "float16", **rope()},
    "mistral": {**BASE, "model_type": "mistral", "sliding_window": None, "num_hidden_layers": 1, "_old": "main", **rope(1000000.0)},
    "mixtral": {
        **BASE,
        "model_type": "mixtral",
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "intermediate_size": 20,
        "num_hidden_layers": 1,
        "_gguf": True,
        **rope(1000000.0),
    },
    "qwen2": {**BASE, "model_type": "qwen2", "rms_norm_eps": 1e-6, "_gguf": True, "_old": "extra", **rope(1000000.0)},
    "qwen2_tied": {**BASE, "model_type": "qwen2", "tie_word_embeddings": True, "_dtype": "bfloat16", **rope(1000000.0)},
    "qwen3": {**BASE, "model_type": "qwen3", "head_dim": 16, "rms_norm_eps": 1e-6, "_gguf": True, **rope(1000000.0)},
    "qwen3_tied": {
        **BASE,
        "model_type": "qwen3",
        "head_dim": 12,
        "tie_word_embeddings": True,
        "rms_norm_eps": 1e-6,
        **rope(1000000.0),
    },
    "gpt_neox_parallel": {**NEOX, "_gguf": True, "_old": "extra"},
    "gpt_neox_sequential": {
        **NEOX,
        "use_parallel_residual": False,
        "hidden_size": 36,
        "intermediate_size": 56,
        "num_attention_heads": 3,
        "_gguf": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
    },
    "gpt_neox_full_rotary": {
        **NEOX,
        "hidden_act": "gelu_new",
        "attention_bias": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": 25000.0, "partial_rotary_factor": 1.0},
    },
    "olmoe": {**OLMOE, "_gguf": True},
    "olmoe_norm_topk": {**OLMOE, "norm_topk_prob": True, "num_hidden_layers": 1},
    "olmoe_clip_gqa": {**OLMOE, "num_key_value_heads": 2, "clip_qkv": 1.0, "num_hidden_layers": 1},
    "olmoe_64_experts": {
        **OLMOE,
        "hidden_size": 16,
        "intermediate_size": 6,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "num_hidden_layers": 1,
        "num_experts": 64,
        "num_experts_per_tok": 8,
    },
}


def initialise(model, seed):
    """Weights that keep every branch visible: activations of order one, attention scores and logits of spread ~1."""
    generator = torch.Generator().manual_seed(seed)
    tied = model.config.tie_word_embeddings
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name and name.endswith("weight"):
                parameter.copy_(1.0 + 0.2 * noise)
            elif name.endswith("bias"):
                parameter.copy_(0.2 * noise)
            elif "embed" in name and "embed_out" not in name:
                parameter.copy_(noise / math.sqrt(parameter.shape[1]) if tied else noise)
            else:
                sharp = any(part in name for part in ("q_proj", "k_proj", "query_key_value", "gate.weight"))
                parameter.copy_((1.5 if sharp else 1.0) * noise / math.sqrt(parameter.shape[-1]))


def router_margin(model, ids):
    """Least distance between the last chosen and the first rejected router logit; infinite without experts."""
    margins = [math.inf]

    def see(module, _inputs, output):
        top = output[0].topk(module.top_k + 1, dim=-1).values
        margins.append((top[..., -2] - top[..., -1]).min().item())

    hooks = [m.register_forward_hook(see) for m in model.modules() if type(m).__name__.endswith("TopKRouter")]
    run(model, ids)
    for hook in hooks:
        hook.remove()
    return min(margins)


def run(model, ids):
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]


def load(folder, dtype=torch.float32):
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation="eager", experts_implementation="eager"
    ).eval()


def golden(folder, variant, seed):
    """Prompt, greedy continuation and logits of the checkpoint in `folder`; or a string saying why the seed is bad."""
    model = load(folder)
    generator = torch.Generator().manual_seed(seed + 1_000_000)
    prompt = torch.randint(2, variant["vocab_size"], (variant.get("_prompt", 24),), generator=generator).tolist()
    ids, margin = list(prompt), math.inf
    for _ in range(CONTINUATION):
        top = run(model, ids)[-1].topk(2)
        margin = min(margin, (top.values[0] - top.values[1]).item())
        ids.append(top.indices[0].item())
    continuation = ids[len(prompt) :]
    logits = run(model, ids)
    if variant["eos_token_id"] in continuation:
        return "the continuation meets the end token"
    if len(set(continuation)) < 10:
        return f"only {len(set(continuation))} different ids in the continuation"
    if margin < MIN_MARGIN:
        return f"greedy margin {margin:.1e}"
    if (routing := router_margin(model, ids)) < MIN_MARGIN:
        return f"routing margin {routing:.1e}"
    if not 0.7 < (spread := logits.std().item()) < 1.6:
        return f"logits of spread {spread:.2f}"
    rounding = (run(model.double(), ids) - logits.double()).abs().max().item()
    if rounding > MAX_ROUNDING:
        return f"float32 is {rounding:.1e} away from float64"
    # The rows that chose continuation[0], [1], ...: the last prompt row, then one per fed-back id.
    rows = {"logits": logits[: len(prompt)], "continuation_logits": logits[len(prompt) - 1 : -1]}
    facts = {
        "prompt": prompt,
        "continuation": continuation,
        "seed": seed,
        "logits_std": round(spread, 3),
        "greedy_margin": round(margin, 5),
        "routing_margin": None if routing == math.inf else round(routing, 5),
        "float64_difference": float(f"{rounding:.1e}"),
    }
    return rows, facts


def old_spelling(config):
    """The same configuration as transformers before 5.0 wrote it."""
    config = dict(config)
    parameters = dict(config.pop("rope_parameters"))
    kind = parameters.pop("rope_type")
    theta = parameters.pop("rope_theta")
    share = parameters.pop("partial_rotary_factor", None)
    if config["model_type"] == "gpt_neox":
        config |= {"rotary_emb_base": theta, "rotary_pct": share}
    else:
        config["rope_theta"] = theta
    # Llama 3 files say rope_type, older linear ones say type.
    config["rope_scaling"] = None if kind == "default" else {"type" if kind == "linear" else "rope_type": kind, **parameters}
    config["torch_dtype"] = config.pop("dtype")
    config.pop("layer_types", None)
    config["transformers_version"] = "4.46.0"
    return config


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2) + "\n")


def respell(folder, how):
    """Writes the old spelling and checks that transformers reads the same model from it."""
    config = json.loads((folder / "config.json").read_text())
    old = old_spelling(config)
    probe = list(range(2, 34))
    new_logits = run(load(folder), probe)
    write_json(folder / "config.json", old)
    assert torch.equal(new_logits, run(load(folder), probe)), f"{folder}: the two spellings are two models"
    if how == "extra":
        write_json(folder / "config.json", config)
        write_json(folder / "config.old.json", old)


def make(name, variant, out):
    settings = {key: value for key, value in variant.items() if not key.startswith("_")}
    model_type = settings.pop("model_type")
    dtype = getattr(torch, variant.get("_dtype", "float32"))
    folder = out / name
    for seed in range(1, 2000):
        shutil.rmtree(folder, ignore_errors=True)
        config = AutoConfig.for_model(model_type, **settings)
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32).eval()
        initialise(model, seed)
        model.generation_config = transformers.GenerationConfig(bos_token_id=0, eos_token_id=1)
        model.to(dtype).save_pretrained(folder, max_shard_size=variant.get("_shard", "1GB"))
        found = golden(folder, variant, seed)
        if not isinstance(found, str):
            break
    else:
        raise SystemExit(f"{name}: no seed is good, last: {found}")
    rows, facts = found
    facts["versions"] = {"transformers": transformers.__version__, "torch": torch.__version__.split("+")[0]}
    save_file({key: value.clone() for key, value in rows.items()}, folder / "golden.safetensors")
    if variant.get("_tokenizer"):
        facts["texts"] = write_tokenizer(folder, variant["vocab_size"])
    if variant.get("_gguf"):
        write_gguf(folder, load(folder).state_dict())
    if how := variant.get("_old"):
        respell(folder, how)
    lists = {key: facts.pop(key) for key in ("prompt", "continuation")}
    body = json.dumps(facts, indent=2)[2:]
    ids = "".join(f'  "{key}": {json.dumps(value)},\n' for key, value in lists.items())
    (folder / "golden.json").write_text("{\n" + ids + body + "\n")
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{name}: seed {seed}, {size / 1000:.0f} kB, {facts}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "crates/engine/tests/golden")
    parser.add_argument("names", nargs="*", help="variants to write; all by default")
    options = parser.parse_args()
    torch.set_num_threads(1)  # a fixed order of summation
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    for name in options.names or VARIANTS:
        make(name, VARIANTS[name], options.out)


if __name__ == "__main__":
    main()
