#!/usr/bin/env python3
"""Golden runs of every cache policy on tiny random models; definitions and file formats in the README beside the results.

    python3 tools/golden_policies.py [--out crates/engine/tests/golden/policies] [NAME ...]

Needs numpy and safetensors; torch and transformers to make the models and to check the NumPy forward pass against them
(versions: the README). Token ids are seeded per case; a seed is rejected, and the next one tried, when the case would be a
bad oracle: a choice too close to call in float32, a run that cannot be told from `full`, or one that cannot be told from
what a plausible mistake (a `trap` of policy_reference.py) would give.
"""

import argparse
import json
import math
import os
import shutil
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from safetensors.numpy import save_file

import policy_reference as reference
from policy_model import Model

SEEDS = 200  # token ids tried per case
MIN_GAP = 2e-4  # least relative distance between the last kept and the first dropped
MIN_ROUTING = 1e-3  # least distance of router logits at the choice of experts
MAX_ROUNDING = 4e-5  # largest accepted |float32 logits - float64 logits| of the reference itself
MIN_DIFFERENCE = 0.02  # logits: from `full`, and from a trap where sets say nothing
CONTEXT, VOCAB = 512, 64

BASE = {"vocab_size": VOCAB, "max_position_embeddings": CONTEXT, "bos_token_id": 0, "eos_token_id": 1, "tie_word_embeddings": False}


def rope(theta, share=1.0):
    kind = {"rope_type": "default", "rope_theta": theta}
    return {"rope_parameters": kind if share == 1.0 else {**kind, "partial_rotary_factor": share}}


MODELS = {
    "llama": {
        **BASE, "model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4,
        "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 16, "rms_norm_eps": 1e-5, **rope(10000.0),
    },
    "gpt_neox": {
        **BASE, "model_type": "gpt_neox", "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 3,
        "num_attention_heads": 4, "layer_norm_eps": 1e-5, "use_parallel_residual": True, "hidden_act": "gelu",
        "attention_bias": True, **rope(10000.0, 0.25),
    },
    "qwen3": {
        **BASE, "model_type": "qwen3", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "rms_norm_eps": 1e-6, **rope(1000000.0),
    },
    "olmoe": {
        **BASE, "model_type": "olmoe", "hidden_size": 64, "intermediate_size": 16, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "num_experts": 4, "num_experts_per_tok": 2,
        "norm_topk_prob": False, **rope(10000.0),
    },
}  # fmt: skip

# (spec, prompt, total, traps that must show)
LONG, SHORT = (150, 190), (40, 100)
STREAMING = ("streaming:sinks=4,window=60", *LONG, ["true positions"])
STREAMING_TRUE = ("streaming:sinks=4,window=60,positions=true", *LONG, [])
QUEST = ("quest:budget=64,page=16,dense_layers=1", *LONG, ["mean of the group", "last page competes"])
QUEST_HEAD = ("quest:budget=64,page=16,dense_layers=1,select=head", 150, 166, [])
SNAPKV = ("snapkv:budget=64,window=16,kernel=7,pool=max", *LONG, ["pool before the mean", "maximum of the group"])
SNAPKV_AVG = ("snapkv:budget=64,window=16,kernel=5,pool=avg", *LONG, ["maximum of the group"])
PYRAMIDKV = ("pyramidkv:budget=64,window=8,kernel=7,pool=max,beta=20", *LONG, ["uniform"])
ADAKV = ("adakv:budget=64,window=16,kernel=7,pool=max,alpha=0.2", *LONG, [])
ADAKV_HALF = ("adakv:budget=64,window=16,kernel=7,pool=max,alpha=0.5", *LONG, ["round half up"])
H2O = ("h2o:heavy=24,recent=24", *LONG, ["last query only", "no accumulation"])
TOVA = ("tova:budget=48", *LONG, ["last stays", "per lane"])
KNORM = ("knorm:budget=64", *LONG, ["last competes"])
KEYDIFF = ("keydiff:budget=64", *LONG, ["mean of the keys"])
CHUNKKV = ("chunkkv:budget=64,window=16,chunk=20", *LONG, ["pooled"])
EXPECTED = ("expected:budget=64", *LONG, ["rotated queries", "no covariance"])
DUO = ("duo:pattern={name}.tsv,sinks=4,recent=32", *LONG, [])


def per_group(case):
    """Without the traps that need groups of more than one query head."""
    grouped = {"mean of the group", "maximum of the group", "pool before the mean"}
    return (*case[:3], [trap for trap in case[3] if trap not in grouped])


CASES = {
    "llama": [
        ("full", *LONG, []),
        STREAMING,
        STREAMING_TRUE,
        ("streaming:sinks=0,window=32", *LONG, []),
        ("streaming:sinks=4,window=60", *SHORT, ["true positions"]),
        QUEST,
        QUEST_HEAD,
        ("quest:budget=64,page=16,dense_layers=1", *SHORT, ["mean of the group"]),
        SNAPKV,
        SNAPKV_AVG,
        ("snapkv:budget=64,window=16,kernel=7,pool=max,pinned=4", *LONG, []),
        ("snapkv:budget=64,window=16,kernel=7,pool=max", 64, 80, None),
        PYRAMIDKV,
        ("pyramidkv:budget=64,window=8,kernel=7,pool=max,beta=20", 115, 135, ["uniform"]),
        ("pyramidkv:budget=64,window=8,kernel=7,pool=max,beta=20", 100, 120, []),
        ADAKV,
        ADAKV_HALF,
        H2O,
        ("h2o:heavy=24,recent=24,pinned=4", *LONG, []),
        ("h2o:heavy=24,recent=24", *SHORT, ["no accumulation"]),
        TOVA,
        ("tova:budget=48", *SHORT, ["last stays"]),
        KNORM,
        KEYDIFF,
        CHUNKKV,
        EXPECTED,
        DUO,
    ],
    "gpt_neox": [
        ("full", *LONG, []),
        STREAMING, STREAMING_TRUE, per_group(QUEST), per_group(SNAPKV), ADAKV, H2O, TOVA, KNORM, KEYDIFF, EXPECTED, DUO,
    ],
    "qwen3": [
        ("full", *LONG, []),
        STREAMING, QUEST, QUEST_HEAD, SNAPKV_AVG, PYRAMIDKV, ADAKV, H2O, TOVA, KEYDIFF, CHUNKKV, EXPECTED, DUO,
    ],
    "olmoe": [("full", *LONG, []), STREAMING, QUEST, SNAPKV, H2O, TOVA, KEYDIFF],
}  # fmt: skip


# -- models ------------------------------------------------------------------------------------------------------------


def make_model(name, folder):
    """A random model whose heads are unlike each other, saved by transformers; fails unless the NumPy pass equals it."""
    import torch
    import transformers
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    settings = dict(MODELS[name])
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for key, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in key and key.endswith("weight"):
                sharp = 1.5 if "q_norm" in key or "k_norm" in key else 1.0
                parameter.copy_(sharp + 0.2 * noise)
            elif key.endswith("bias"):
                parameter.copy_(0.2 * noise)
            elif "embed" in key and "embed_out" not in key:
                parameter.copy_(noise)
            else:
                parameter.copy_(noise / math.sqrt(parameter.shape[-1]))
                if "q_proj" in key or "k_proj" in key or "query_key_value" in key:
                    parameter.mul_(torch.linspace(1.0, 1.8, parameter.shape[0])[:, None])  # flat heads first
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)

    ids = token_ids(0, LONG[1])
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float64, attn_implementation="eager", experts_implementation="eager"
    ).eval()
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].numpy()
    ours = Model(folder, hf_angles=True)
    got, _, _ = reference.run(ours, reference.policy(ours, "full"), ids, 1)
    difference = np.abs(got - expected).max()
    assert difference < 1e-5, f"{name}: the NumPy pass is {difference} away from transformers"
    print(f"{name}: {difference:.1e} from transformers, logits of spread {expected.std():.2f}", flush=True)


# -- cases -------------------------------------------------------------------------------------------------------------


def token_ids(seed, n):
    """Random ids, an eighth of which repeat what stood a few places before."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(2, VOCAB, LONG[1])
    for i in np.flatnonzero(rng.random(LONG[1]) < 0.125):
        if i >= 8:
            ids[i] = ids[i - rng.integers(2, 8)]
    return ids[:n].tolist()


def attempt(models, folder, name, case, seed):
    """One case on the ids of one seed; or a string saying why they are bad."""
    spec, prompt, total, traps = case
    spec = spec.format(name=name)
    ids = token_ids(seed, total)
    double, single = models
    double.routing_margin = math.inf
    policy = reference.policy(double, spec, folder)
    policy.least_gap = MIN_GAP
    try:
        logits, after, end = reference.run(double, policy, ids, prompt)
    except reference.CloseCall as gap:
        return f"gap {gap}"
    if double.routing_margin < MIN_ROUTING:
        return f"routing margin {double.routing_margin:.1e}"
    rough, *sets = reference.run(single, reference.policy(single, spec, folder), ids, prompt)
    if sets != [after, end]:
        return "float32 chooses otherwise"
    if (rounding := np.abs(rough - logits).max()) > MAX_ROUNDING:
        return f"float32 is {rounding:.1e} away"
    dense = dense_logits(double, seed, prompt, total)
    difference = float(np.abs(dense - logits).max())
    if traps is None:
        assert difference < 1e-9, f"{spec} at {prompt} is not `full`: {difference}"
    elif spec != "full" and difference < MIN_DIFFERENCE:
        return f"only {difference:.1e} from full"
    for trap in traps or []:
        other, *sets = reference.run(double, reference.policy(double, spec, folder, trap), ids, prompt)
        if sets == [after, end] and np.abs(other - logits).max() < MIN_DIFFERENCE:
            return f"the trap `{trap}` does not show"
    facts = {
        "gap": None if policy.gap == math.inf else float(f"{policy.gap:.2g}"),
        "float32_difference": float(f"{rounding:.1e}"),
        "from_full": float(f"{difference:.2g}"),
    }
    return ids, logits, after, end, facts


DENSE = {}


def dense_logits(model, seed, prompt, total):
    """What `full` says, computed once per model and seed."""
    if (model, seed) not in DENSE:
        DENSE[model, seed], *_ = reference.run(model, reference.policy(model, "full"), token_ids(seed, LONG[1]), 1)
    return DENSE[model, seed][prompt - 1 : total]


def ranges(positions):
    """[0, 1, 2, 5] as "0-2,5"."""
    parts = []
    for position in positions:
        if parts and parts[-1][1] == position - 1:
            parts[-1][1] = position
        else:
            parts.append([position, position])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def make_cases(name, out):
    models = Model(out / name), Model(out / name, np.float32)
    gates = np.random.default_rng(3).random((models[0].n_layers, models[0].n_kv_heads)).round(2)
    gates[:, 0], gates[:, 1] = 1 - gates[:, 1], gates[:, 1]  # a full and a streaming lane in every layer
    if any(case[0].startswith("duo") for case in CASES[name]):
        (out / f"{name}.tsv").write_text("".join("\t".join(map(str, row)) + "\n" for row in gates))
    cases, tensors, all_ids = [], {}, {}
    for number, case in enumerate(CASES[name]):
        spec, prompt, total = case[0].format(name=name), *case[1:3]
        reasons = {}
        for seed in range(SEEDS):
            found = attempt(models, out, name, case, seed)
            if not isinstance(found, str):
                break
            reason = " ".join(word for word in found.split() if not word[0].isdigit())
            reasons[reason] = reasons.get(reason, 0) + 1
        else:
            raise SystemExit(f"{name} {spec}: no seed is good: {reasons}")
        ids, logits, after, end, facts = found
        key = f"seed {seed}"
        if len(all_ids.get(key, [])) < total:
            all_ids[key] = ids
        tensor = f"{number:02} {spec.split(':')[0]}"
        tensors[tensor] = logits.astype(np.float32)
        sets = {kind: [[ranges(lane) for lane in layer] for layer in kept] for kind, kept in (("after_prompt", after), ("at_end", end))}
        cases.append({"spec": spec, "ids": key, "prompt": prompt, "total": total, "logits": tensor, **facts, **sets})
        print(f"{name}: {spec} {prompt}+{total - prompt}: seed {seed}, {facts} {reasons}", flush=True)
    save_file(tensors, out / f"{name}.safetensors")
    rows = [f'  "ids": {{\n' + ",\n".join(f"    {json.dumps(key)}: {json.dumps(ids)}" for key, ids in all_ids.items()) + "\n  }"]
    rows.append('  "cases": [\n' + ",\n".join("    " + json.dumps(case) for case in cases) + "\n  ]")
    (out / f"{name}.json").write_text("{\n" + ",\n".join(rows) + "\n}\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "crates/engine/tests/golden/policies")
    parser.add_argument("--keep-models", action="store_true", help="only the cases, on the models that are there")
    parser.add_argument("names", nargs="*", help="models; all by default")
    options = parser.parse_args()
    for name in options.names or MODELS:
        if not options.keep_models:
            make_model(name, options.out / name)
        make_cases(name, options.out)


if __name__ == "__main__":
    main()
