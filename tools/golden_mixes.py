#!/usr/bin/env python3
"""The format that llama.cpp's quantizer gives every matrix of many geometries, for crates/limits/tests/mixes.rs.

    python3 tools/golden_mixes.py --llama DIR        # writes crates/limits/tests/golden/mixes.json

DIR holds `llama-quantize`; its --dry-run names the formats. Needs gguf and numpy. The models are headers of the real sizes followed by a hole, which
a dry run never reads, so that 70B costs nothing. Of each geometry the file holds the config.json, and per type the formats layer by layer,
in runs ("q6_k*4 q4_k*2 ..."), with the kinds of matrix that have them; under TYPE+imatrix stand only the kinds in which an
importance matrix makes a difference.
"""

import argparse
import itertools
import json
import os
import pathlib
import re
import struct
import subprocess
import tempfile

import gguf
import numpy as np

OUT = pathlib.Path(__file__).resolve().parent.parent / "crates/limits/tests/golden/mixes.json"
TYPES = "q8_0 q6_k q5_k_m q5_k_s q5_1 q5_0 q4_k_m q4_k_s q4_1 q4_0 q3_k_l q3_k_m q3_k_s q2_k bf16 f16 f32".split()
LINE = re.compile(r"^\[ *\d+/ *\d+\] (\S+) +- \[.*\], type = +(\w+), size = [^(\n]*(?:\((\w+)\))?$", re.M)


def dense(kind, hidden, ff, layers, heads, kv_heads, vocab=32000, **more):
    eps = "layer_norm_eps" if kind == "gpt_neox" else "rms_norm_eps"
    sizes = dict(hidden_size=hidden, intermediate_size=ff, num_hidden_layers=layers, num_attention_heads=heads, vocab_size=vocab)
    return {"model_type": kind, **sizes, "num_key_value_heads": kv_heads, "max_position_embeddings": 2048, eps: 1e-5,
            "tie_word_embeddings": False, **more}


def experts(kind, hidden, ff, layers, heads, kv_heads, count, active=2):
    key = "num_local_experts" if kind == "mixtral" else "num_experts"
    return dense(kind, hidden, ff, layers, heads, kv_heads, **{key: count, "num_experts_per_tok": active})


def neox(hidden, layers, heads):
    model = dense("gpt_neox", hidden, 4 * hidden, layers, heads, heads, 50304, rotary_pct=0.25, rotary_emb_base=10000,
                  hidden_act="gelu", use_parallel_residual=True)
    del model["num_key_value_heads"]
    return model


GEOMETRIES = {
    "demo": dense("llama", 256, 768, 6, 8, 2, 4096, tie_word_embeddings=True),
    "Llama-3.2-1B": dense("llama", 2048, 8192, 16, 32, 8, 128256, tie_word_embeddings=True),
    "Llama-3.1-8B": dense("llama", 4096, 14336, 32, 32, 8, 128256),
    "Llama-2-7B": dense("llama", 4096, 11008, 32, 32, 32),
    "Llama-2-13B": dense("llama", 5120, 13824, 40, 40, 40),
    "Llama-65B": dense("llama", 8192, 22016, 80, 64, 64),
    "Llama-2-70B": dense("llama", 8192, 28672, 80, 64, 8),
    "one layer": dense("llama", 512, 1536, 1, 4, 2),
    "seven layers": dense("llama", 512, 1536, 7, 4, 1),
    "nine layers": dense("llama", 512, 1536, 9, 4, 4),
    "columns of 32": dense("llama", 288, 768, 6, 6, 6),
    "columns of 4": dense("llama", 64, 172, 5, 8, 4, 512),
    "rows of no block": dense("llama", 72, 200, 9, 4, 2, 500, tie_word_embeddings=True),
    "Qwen2.5-0.5B": dense("qwen2", 896, 4864, 24, 14, 2, 151936, tie_word_embeddings=True),
    "Qwen2.5-72B": dense("qwen2", 8192, 29568, 80, 64, 8, 152064),
    "Qwen3-0.6B": dense("qwen3", 1024, 3072, 28, 16, 8, 151936, head_dim=128, tie_word_embeddings=True),
    "Qwen3 of 80 layers": dense("qwen3", 5120, 25600, 80, 64, 8, 151936, head_dim=128),
    "pythia-70m": neox(512, 6, 8),
    "gpt-neox-20b": neox(6144, 44, 64),
    "GPT-NeoX of 80 layers": neox(288, 80, 4),
    "OLMoE-1B-7B": experts("olmoe", 2048, 1024, 16, 16, 16, 64, 8),
    "OLMoE of 80 layers": experts("olmoe", 2048, 1024, 80, 16, 4, 64, 8),
    "OLMoE of 8 experts": experts("olmoe", 1024, 512, 16, 16, 4, 8),
    "Mixtral-8x7B": experts("mixtral", 4096, 14336, 32, 32, 8, 8),
    "Mixtral-8x22B": experts("mixtral", 6144, 16384, 56, 48, 8, 8),
    "Mixtral of 80 layers": experts("mixtral", 4096, 14336, 80, 32, 8, 4),
}


def matrices(config):
    """(name, shape outermost first) of every matrix, as llama.cpp's converter names them."""
    hidden, ff, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    head = config.get("head_dim", hidden // heads)
    q, kv = heads * head, config.get("num_key_value_heads", heads) * head
    count = config.get("num_experts") or config.get("num_local_experts")
    yield "token_embd.weight", (config["vocab_size"], hidden)
    if not config["tie_word_embeddings"]:
        yield "output.weight", (config["vocab_size"], hidden)
    for layer in range(config["num_hidden_layers"]):
        block = f"blk.{layer}."
        if config["model_type"] == "gpt_neox":
            yield block + "attn_qkv.weight", (3 * q, hidden)
        else:
            yield block + "attn_q.weight", (q, hidden)
            yield block + "attn_k.weight", (kv, hidden)
            yield block + "attn_v.weight", (kv, hidden)
        yield block + "attn_output.weight", (hidden, q)
        if count:
            yield block + "ffn_gate_inp.weight", (count, hidden)
            yield block + "ffn_gate_exps.weight", (count, ff, hidden)
            yield block + "ffn_up_exps.weight", (count, ff, hidden)
            yield block + "ffn_down_exps.weight", (count, hidden, ff)
        else:
            if config["model_type"] != "gpt_neox":
                yield block + "ffn_gate.weight", (ff, hidden)
            yield block + "ffn_up.weight", (ff, hidden)
            yield block + "ffn_down.weight", (hidden, ff)


def write_model(config, path):
    """A header in F16, routers in F32, and a hole."""
    arch = {"gpt_neox": "gptneox", "mixtral": "llama"}.get(config["model_type"], config["model_type"])
    writer = gguf.GGUFWriter(path, arch)
    heads = config["num_attention_heads"]
    head = config.get("head_dim", config["hidden_size"] // heads)
    sizes = {
        "vocab_size": config["vocab_size"], "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"], "block_count": config["num_hidden_layers"],
        "feed_forward_length": config["intermediate_size"], "attention.head_count": heads,
        "attention.head_count_kv": config.get("num_key_value_heads", heads), "attention.key_length": head,
        "attention.value_length": head, "rope.dimension_count": head // 4 if arch == "gptneox" else head,
        "expert_count": config.get("num_experts") or config.get("num_local_experts"),
        "expert_used_count": config.get("num_experts_per_tok"),
    }
    for key, size in sizes.items():
        if size is not None:
            writer.add_uint32(f"{arch}.{key}", size)
    if arch == "gptneox":
        writer.add_float32(f"{arch}.attention.layer_norm_epsilon", 1e-5)
        writer.add_bool(f"{arch}.use_parallel_residual", True)
    else:
        writer.add_float32(f"{arch}.attention.layer_norm_rms_epsilon", 1e-5)
    end = 0
    for name, shape in matrices(config):
        router = "gate_inp" in name
        count = 1
        for size in shape:
            count *= size
        size = count * (4 if router else 2)
        kind = gguf.GGMLQuantizationType.F32 if router else gguf.GGMLQuantizationType.F16
        writer.add_tensor_info(name, shape, np.dtype("float32" if router else "float16"), size, raw_dtype=kind)
        end += size + -size % 32
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    os.truncate(path, path.stat().st_size + 32 + end)


def write_importance(path):
    """The smallest importance matrix: only that there is one changes formats."""
    name = b"blk.0.ffn_down.weight"
    path.write_bytes(struct.pack("<ii", 1, len(name)) + name + struct.pack("<iif", 1, 1, 1.0))


def formats(binary, model, kind, importance, env):
    """{name: format} of a dry run."""
    guide = ["--imatrix", importance] if importance else []
    command = [binary, "--dry-run", *guide, model, kind.upper()]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=env, check=True)
    return {name: (new or old).lower() for name, old, new in LINE.findall(done.stdout + done.stderr)}


def in_runs(config, found):
    """{kind: formats layer by layer, in runs}"""
    columns = {}
    for name, _ in matrices(config):
        columns.setdefault(re.sub(r"^blk\.\d+\.", "", name).removesuffix(".weight"), []).append(found.pop(name))
    assert not found, found
    runs = lambda column: " ".join(f"{value}*{len(list(same))}" for value, same in itertools.groupby(column))
    return {kind: runs(column) for kind, column in columns.items()}


def by_runs(kinds):
    """{runs: "kind kind ..."}"""
    groups = {}
    for kind, runs in kinds.items():
        groups.setdefault(runs, []).append(kind)
    return {runs: " ".join(names) for runs, names in groups.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--llama", type=pathlib.Path, required=True, help="folder of llama.cpp's programs")
    arguments = parser.parse_args()
    env = {**os.environ, "LD_LIBRARY_PATH": str(arguments.llama)}
    cases = {}
    with tempfile.TemporaryDirectory() as folder:
        model, importance = pathlib.Path(folder) / "model.gguf", pathlib.Path(folder) / "matrix.dat"
        write_importance(importance)
        for name, config in GEOMETRIES.items():
            write_model(config, model)
            case = cases[name] = {"config": config, "types": {}}
            for kind in TYPES:
                plain = in_runs(config, formats(arguments.llama / "llama-quantize", model, kind, None, env))
                guided = in_runs(config, formats(arguments.llama / "llama-quantize", model, kind, importance, env))
                case["types"][kind] = plain
                case["types"][kind + "+imatrix"] = {key: runs for key, runs in guided.items() if runs != plain[key]}
            print(name, flush=True)
    lines = ",\n".join(
        f' {json.dumps(name)}: {{"config": {json.dumps(case["config"])}, "types": {{\n'
        + ",\n".join(f"  {json.dumps(kind)}: {json.dumps(by_runs(kinds))}" for kind, kinds in case["types"].items() if kinds) + "}}"
        for name, case in cases.items()
    )
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text("{\n" + lines + "\n}\n")


if __name__ == "__main__":
    main()
