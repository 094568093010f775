"""A plain NumPy forward pass of the tiny models, one layer at a time, with the attention left open.

`qkv` gives queries and keys before RoPE, `rope` rotates them at any positions, `finish` takes what attention returned. So a
cache policy can be written by its definition, between the two. Families: llama, qwen3, olmoe, gpt_neox.
"""

import json
import math
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def silu(x):
    return x / (1 + np.exp(-x))


def gelu(x):
    return 0.5 * x * (1 + np.vectorize(math.erf, otypes=[x.dtype])(x / math.sqrt(2)))


class Model:
    """Weights of a folder in `dtype`. RoPE angles are float64 products of float64 frequencies; `hf_angles` rounds both to
    float32 as transformers does, for the comparison with it."""

    def __init__(self, folder, dtype=np.float64, hf_angles=False):
        self.config = json.loads((Path(folder) / "config.json").read_text())
        self.w = {name: value.astype(dtype) for name, value in load_file(Path(folder) / "model.safetensors").items()}
        c = self.config
        self.dtype, self.hf_angles = dtype, hf_angles
        self.neox = c["model_type"] == "gpt_neox"
        self.n_layers, self.n_heads = c["num_hidden_layers"], c["num_attention_heads"]
        self.n_kv_heads = c.get("num_key_value_heads") or self.n_heads
        self.group = self.n_heads // self.n_kv_heads
        self.head_dim = c.get("head_dim") or c["hidden_size"] // self.n_heads
        self.eps = c["layer_norm_eps" if self.neox else "rms_norm_eps"]
        rope = c["rope_parameters"]
        self.rotary = int(self.head_dim * rope.get("partial_rotary_factor", 1.0))
        half = np.arange(0, self.rotary, 2) / self.rotary
        self.frequencies = 1.0 / rope["rope_theta"] ** half  # (rotary / 2)
        self.routing_margin = math.inf

    # -- parts ---------------------------------------------------------------------------------------------------------

    def norm(self, x, name):
        if self.neox:
            x = x - x.mean(axis=-1, keepdims=True)
            x = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + self.eps)
            return x * self.w[name + ".weight"] + self.w[name + ".bias"]
        return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + self.eps) * self.w[name + ".weight"]

    def linear(self, x, name):
        y = x @ self.w[name + ".weight"].T
        return y + self.w[name + ".bias"] if name + ".bias" in self.w else y

    def angles(self, positions):
        positions = np.asarray(positions, dtype=np.float64)[:, None]
        if self.hf_angles:
            return (positions.astype(np.float32) * self.frequencies.astype(np.float32)).astype(np.float64)
        return positions * self.frequencies

    def rope(self, x, positions):
        """x (n, heads, head_dim) rotated at `positions` (n): channel i with channel i + rotary/2, the rest as they are."""
        angle = self.angles(positions)[:, None, :]
        cos, sin = np.cos(angle).astype(self.dtype), np.sin(angle).astype(self.dtype)
        half = self.rotary // 2
        a, b = x[..., :half], x[..., half : self.rotary]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin, x[..., self.rotary :]], axis=-1)

    def mean_rotation(self, positions):
        """Mean of the rotation matrices of `positions`: (head_dim, head_dim)."""
        matrix, half = np.eye(self.head_dim), self.rotary // 2
        angle = self.angles(positions)
        cos, sin = np.cos(angle).mean(axis=0), np.sin(angle).mean(axis=0)
        for i in range(half):
            matrix[i, i] = matrix[i + half, i + half] = cos[i]
            matrix[i, i + half], matrix[i + half, i] = -sin[i], sin[i]
        return matrix.astype(self.dtype)

    # -- the pass ------------------------------------------------------------------------------------------------------

    def embed(self, ids):
        return self.w["gpt_neox.embed_in.weight" if self.neox else "model.embed_tokens.weight"][np.asarray(ids)]

    def qkv(self, layer, x):
        """Before RoPE: q (n, n_heads, head_dim), k and v (n, n_kv_heads, head_dim)."""
        n, d = x.shape[0], self.head_dim
        if self.neox:
            at = f"gpt_neox.layers.{layer}."
            fused = self.linear(self.norm(x, at + "input_layernorm"), at + "attention.query_key_value")
            fused = fused.reshape(n, self.n_heads, 3, d)
            return fused[:, :, 0], fused[:, :, 1], fused[:, :, 2]
        at = f"model.layers.{layer}."
        x = self.norm(x, at + "input_layernorm")
        q, k, v = (self.linear(x, at + f"self_attn.{part}_proj") for part in "qkv")
        if self.config["model_type"] == "olmoe":  # over the full width
            q, k = self.norm(q, at + "self_attn.q_norm"), self.norm(k, at + "self_attn.k_norm")
        q, k, v = q.reshape(n, -1, d), k.reshape(n, -1, d), v.reshape(n, -1, d)
        if self.config["model_type"] == "qwen3":  # per head
            q, k = self.norm(q, at + "self_attn.q_norm"), self.norm(k, at + "self_attn.k_norm")
        return q, k, v

    def finish(self, layer, x, context):
        """The rest of the layer after attention's context (n, n_heads, head_dim)."""
        context = context.reshape(x.shape[0], -1)
        if self.neox:
            at = f"gpt_neox.layers.{layer}."
            attention = self.linear(context, at + "attention.dense")
            parallel = self.config["use_parallel_residual"]
            y = self.norm(x if parallel else x + attention, at + "post_attention_layernorm")
            y = self.linear(gelu(self.linear(y, at + "mlp.dense_h_to_4h")), at + "mlp.dense_4h_to_h")
            return x + attention + y
        at = f"model.layers.{layer}."
        x = x + self.linear(context, at + "self_attn.o_proj")
        y = self.norm(x, at + "post_attention_layernorm")
        if self.config["model_type"] == "olmoe":
            return x + self.experts(y, at + "mlp.")
        return x + self.gated(y, at + "mlp.")

    def gated(self, x, at):
        return self.linear(silu(self.linear(x, at + "gate_proj")) * self.linear(x, at + "up_proj"), at + "down_proj")

    def experts(self, x, at):
        active, out = self.config["num_experts_per_tok"], np.zeros_like(x)
        logits = self.linear(x, at + "gate")
        weights = softmax(logits)
        for row in range(x.shape[0]):
            order = np.argsort(-logits[row], kind="stable")
            self.routing_margin = min(self.routing_margin, logits[row, order[active - 1]] - logits[row, order[active]])
            chosen = weights[row, order[:active]]
            if self.config["norm_topk_prob"]:
                chosen = chosen / chosen.sum()
            for weight, expert in zip(chosen, order[:active]):
                out[row] += weight * self.gated(x[row : row + 1], f"{at}experts.{expert}.")[0]
        return out

    def head(self, x):
        if self.neox:
            return self.linear(self.norm(x, "gpt_neox.final_layer_norm"), "embed_out")
        return self.linear(self.norm(x, "model.norm"), "lm_head")
