#!/usr/bin/env python3
"""A constructed llama that answers QUERY i with the value that once followed KEY i, however far back; and its test cases.

    python3 tools/retrieval_model.py [--out crates/engine/tests/golden/retrieval] [--check]

Needs numpy and safetensors. `--check` runs every case under the policies of policy_reference.py. Nothing is trained. How it works:

    layer 0  query head 0: a previous-token head. Its queries and keys are one constant vector, the queries turned back by one
             position, so the score is a sum of cosines that is highest one position back. It writes which KEY stood there.
    layer 2  query head 2 (KV head 1): QUERY i looks for a position whose previous token is KEY i, and copies that VALUE.
    others   random heads and feed-forwards that read and write only a corner of the residual stream which neither of the two
             reads, so that every lane attends to something and no lane's scores are all equal.

Every token carries a constant, which the head turns into a bias for the token UNKNOWN: a lost needle is answered by it.
Content sits in channels that RoPE barely turns (rope_theta 1e12, pairs 8 to 15 of 16: below 0.005 rad in 4096 positions).
"""

import argparse
import json
import math
import os
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from safetensors.numpy import save_file

N = 8  # keys, values, queries, kinds of filler
UNKNOWN, BEGIN, FILLER, KEY, VALUE, QUERY = 0, 1, 2, 2 + N, 2 + 2 * N, 2 + 3 * N
VOCAB = 2 + 4 * N
LAYERS, HEADS, KV_HEADS, HEAD_DIM, FF = 4, 4, 2, 32, 8
THETA, CONTEXT = 1e12, 8192

# The residual stream, dimension by dimension.
FILL, KEYS, VALUES, QUERIES, BEFORE, ANSWER = (slice(i * N, (i + 1) * N) for i in range(6))
CONSTANT, NOISE = 6 * N, slice(6 * N + 1, 7 * N)
HIDDEN = 7 * N
CORNER = [*range(FILL.start, FILL.stop), *range(NOISE.start, NOISE.stop)]  # what the random heads read

CONTENT = [*range(8, 16)]  # channels of a head, one per key; their pairs are 24..31
POSITION = [0, 1, 2, 3, 4, 5, 6, 7]  # rotating pairs
REACH = 60.0  # score of the previous token, less its rivals, in units of the first cosine
MATCH = 40.0  # score of a match


def filler(position):
    """The filler id at a position: three bits of a multiplicative hash."""
    return FILLER + ((position * 2654435761) % 2**32 >> 29)


def weights():
    rng = np.random.default_rng(7)
    w = {}
    embed = np.zeros((VOCAB, HIDDEN))
    embed[:, CONSTANT] = 1.0
    embed[BEGIN, NOISE] = 0.5
    for i in range(N):
        for first, part in ((FILLER, FILL), (KEY, KEYS), (VALUE, VALUES), (QUERY, QUERIES)):
            embed[first + i, part.start + i] = 1.0
        embed[FILLER + i, NOISE] = rng.uniform(-0.4, 0.4, N - 1)
    w["model.embed_tokens.weight"] = embed
    head = np.zeros((VOCAB, HIDDEN))
    head[UNKNOWN, CONSTANT] = 4.0
    for i in range(N):
        head[VALUE + i, ANSWER.start + i] = 16.0
    head[FILLER : FILLER + N, NOISE] = rng.uniform(-1, 1, (N, N - 1))
    w["lm_head.weight"] = head
    w["model.norm.weight"] = np.ones(HIDDEN)

    unit = math.sqrt(HIDDEN / 2.2)  # what RMSNorm makes of a 1 beside the constant and some noise
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        q, k = np.zeros((HEADS, HEAD_DIM, HIDDEN)), np.zeros((KV_HEADS, HEAD_DIM, HIDDEN))
        v, o = np.zeros((KV_HEADS, HEAD_DIM, HIDDEN)), np.zeros((HIDDEN, HEADS, HEAD_DIM))
        for h in range(HEADS):
            q[h][:, CORNER] = rng.normal(0, 0.35, (HEAD_DIM, len(CORNER)))
            o[NOISE, h] = rng.normal(0, 0.03, (N - 1, HEAD_DIM))
        for h in range(KV_HEADS):
            k[h][:, CORNER] = rng.normal(0, 0.35, (HEAD_DIM, len(CORNER)))
            v[h][8:, CORNER] = rng.normal(0, 0.35, (HEAD_DIM - 8, len(CORNER)))
        # channels 0..7 of the values are free of noise
        if layer == 0:
            previous_token_head(q[0], k[0], v[0], o[:, 0], unit)
            o[:, 1, :8] = 0  # its group sister reads the same values
        if layer == 2:
            retrieval_head(q[2], k[1], v[1], o[:, 2], unit)
            o[:, 3, :8] = 0
        w[at + "self_attn.q_proj.weight"] = q.reshape(-1, HIDDEN)
        w[at + "self_attn.k_proj.weight"] = k.reshape(-1, HIDDEN)
        w[at + "self_attn.v_proj.weight"] = v.reshape(-1, HIDDEN)
        w[at + "self_attn.o_proj.weight"] = o.reshape(HIDDEN, -1)
        for part in ("gate", "up"):
            w[at + f"mlp.{part}_proj.weight"] = np.zeros((FF, HIDDEN))
            w[at + f"mlp.{part}_proj.weight"][:, CORNER] = rng.normal(0, 0.2, (FF, len(CORNER)))
        w[at + "mlp.down_proj.weight"] = np.zeros((HIDDEN, FF))
        w[at + "mlp.down_proj.weight"][NOISE] = rng.normal(0, 0.05, (N - 1, FF))
        w[at + "input_layernorm.weight"] = np.ones(HIDDEN)
        w[at + "post_attention_layernorm.weight"] = np.ones(HIDDEN)
    return {name: value.astype(np.float16) for name, value in w.items()}


def previous_token_head(q, k, v, o, unit):
    """Key: a constant vector; query: the same vector as one position earlier would rotate it."""
    q[:], k[:], v[:], o[:] = 0, 0, 0, 0
    size = math.sqrt(REACH * math.sqrt(HEAD_DIM)) / unit
    for i in POSITION:
        angle = THETA ** (-2 * i / HEAD_DIM)
        weight = 3.0 if i in (1, 2) else 1.0  # the second and third cosine tell neighbours of whole turns apart
        k[i, CONSTANT] = size
        q[i, CONSTANT], q[i + HEAD_DIM // 2, CONSTANT] = weight * size * math.cos(angle), -weight * size * math.sin(angle)
    for i in range(N):
        v[i, KEYS.start + i] = 1.0
        o[BEFORE.start + i, i] = 1.0 / unit


def retrieval_head(q, k, v, o, unit):
    q[:], k[CONTENT], v[:8], o[:] = 0, 0, 0, 0
    for i in range(N):
        q[CONTENT[i], QUERIES.start + i] = MATCH * math.sqrt(HEAD_DIM) / unit**2
        k[CONTENT[i], BEFORE.start + i] = 1.0
        v[i, VALUES.start + i] = 1.0
        o[ANSWER.start + i, i] = 1.0 / unit


CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "float16", "hidden_act": "silu", "vocab_size": VOCAB,
    "hidden_size": HIDDEN, "intermediate_size": FF, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS, "head_dim": HEAD_DIM, "max_position_embeddings": CONTEXT, "rms_norm_eps": 1e-6,
    "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": False, "bos_token_id": BEGIN, "eos_token_id": UNKNOWN,
    "rope_parameters": {"rope_type": "default", "rope_theta": THETA},
}  # fmt: skip


# -- cases -------------------------------------------------------------------------------------------------------------

QUESTION = 12  # the prompt's question stands this many tokens before its end: inside any observation window


def cases():
    """length × depth of the asked needle; two distractors each. `needles`: [position of the key, key, value]."""
    rng = np.random.default_rng(11)
    made = []
    for length in (512, 1024, 2048, 4080):
        for depth in (0.02, 0.1, 0.25, 0.5, 0.75, 0.9):
            key, *others = (int(i) for i in rng.permutation(N)[:3])
            at = int(depth * (length - 140)) + 8
            needles = [[at, key, int(rng.integers(N))]]
            for other in others:
                while any(abs((place := int(rng.integers(8, length - 140))) - needle[0]) < 8 for needle in needles):
                    pass
                needles.append([place, other, int((needles[0][2] + rng.integers(1, N)) % N)])
            made.append({"length": length, "depth": depth, "needles": needles, "ask": key, "answer": VALUE + needles[0][2]})
    return made


def prompt(case):
    ids = [BEGIN] + [filler(p) for p in range(1, case["length"])]
    for at, key, value in case["needles"]:
        ids[at], ids[at + 1] = KEY + key, VALUE + value
    ids[case["length"] - QUESTION] = QUERY + case["ask"]
    return ids


def decoded(case):
    """Asked again: three fillers, the query."""
    return [filler(case["length"] + i) for i in range(3)] + [QUERY + case["ask"]]


def check(out, made):
    """Every case by the reference: who finds the needle."""
    import policy_reference as reference
    from policy_model import Model

    model = Model(out, np.float32)
    finds = ["full", "quest:budget=256,page=16,dense_layers=2", "snapkv:budget=128,window=32,kernel=7,pool=max",
             "adakv:budget=128,window=32,kernel=7,pool=max,alpha=0.2"]  # fmt: skip
    for case in made:
        ids, answer, line = prompt(case) + decoded(case), case["answer"], []
        for spec in [*finds, "streaming:sinks=4,window=60"]:
            rows, kept, _ = reference.run(model, reference.policy(model, spec), ids, case["length"])
            order = np.argsort(-rows[-1])
            right = order[0] == answer
            assert right == (spec in finds), (case, spec, order[:3], rows[-1][order[:3]])
            if not right:
                assert order[0] == UNKNOWN, (case, spec, order[:3])
            line.append(f"{rows[-1][order[0]] - rows[-1][order[1]]:.1f}")
        print(case["length"], case["depth"], "margins (logits):", *line, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "crates/engine/tests/golden/retrieval")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--lengths", type=int, nargs="*", help="check only these")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    save_file(weights(), options.out / "model.safetensors", metadata={"format": "pt"})
    (options.out / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    made = cases()
    rows = ",\n".join("    " + json.dumps(case) for case in made)
    ids = {"unknown": UNKNOWN, "begin": BEGIN, "filler": FILLER, "key": KEY, "value": VALUE, "query": QUERY, "question": QUESTION}
    (out := options.out / "cases.json").write_text('{\n  "ids": ' + json.dumps(ids) + ',\n  "cases": [\n' + rows + "\n  ]\n}\n")
    size = sum(file.stat().st_size for file in out.parent.iterdir())
    print(f"{len(made)} cases, {size / 1000:.0f} kB")
    if options.check:
        check(options.out, [case for case in made if not options.lengths or case["length"] in options.lengths])


if __name__ == "__main__":
    main()
