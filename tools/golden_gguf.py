"""F32 GGUF files of the golden models, by the conventions of llama.cpp's converter:

- architecture `llama` (Llama, Mistral, Mixtral): rows of wq and wk, and their biases, permuted so that RoPE's pairs are
  adjacent; Llama 3's stretching becomes the tensor `rope_freqs.weight`;
- `gptneox`: the per-head [q k v] interleaving becomes all q, all k, all v; no rope.freq_base is written;
- experts stacked into one tensor per matrix; tied output heads left out.
"""

import json
import math

import gguf
import numpy as np

from golden_tokenizer import MERGES, SPECIAL, TEMPLATE, vocabulary

ARCHITECTURE = {
    "llama": "llama",
    "mistral": "llama",
    "mixtral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "olmoe": "olmoe",
    "gpt_neox": "gptneox",
}
TOP = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
    "gpt_neox.embed_in.weight": "token_embd.weight",
    "gpt_neox.final_layer_norm.weight": "output_norm.weight",
    "gpt_neox.final_layer_norm.bias": "output_norm.bias",
    "embed_out.weight": "output.weight",  # GPT-NeoX before and after transformers renamed it
}
BLOCK = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate": "ffn_gate_inp",
    "attention.query_key_value": "attn_qkv",
    "attention.dense": "attn_output",
    "mlp.dense_h_to_4h": "ffn_up",
    "mlp.dense_4h_to_h": "ffn_down",
}


def adjacent_pairs(rows, n_heads):
    """(heads, 2, half, ...) -> (heads, half, 2, ...): pair (i, i + half) becomes (2i, 2i + 1)."""
    head = rows.shape[0] // n_heads
    return rows.reshape(n_heads, 2, head // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def split_qkv(rows, n_heads):
    """(heads, 3, head_dim, ...) -> (3, heads, head_dim, ...)"""
    head = rows.shape[0] // n_heads // 3
    return rows.reshape(n_heads, 3, head, *rows.shape[1:]).swapaxes(0, 1).reshape(rows.shape)


def convert(name, value, config):
    """GGUF tensors of one tensor of the loaded model (experts come fused: gate and up in one)."""
    if name in TOP:
        if TOP[name] != "output.weight" or not config["tie_word_embeddings"]:
            yield TOP[name], value
        return
    _, _, layer, rest = name.split(".", 3)
    block = f"blk.{layer}."
    if rest == "mlp.experts.gate_up_proj":
        gate, up = np.split(value, 2, axis=1)
        yield block + "ffn_gate_exps.weight", gate
        yield block + "ffn_up_exps.weight", up
    elif rest == "mlp.experts.down_proj":
        yield block + "ffn_down_exps.weight", value
    else:
        stem, kind = rest.rsplit(".", 1)
        if ARCHITECTURE[config["model_type"]] == "llama" and stem.endswith(("q_proj", "k_proj")):
            heads = config["num_attention_heads" if stem.endswith("q_proj") else "num_key_value_heads"]
            value = adjacent_pairs(value, heads)
        if stem == "attention.query_key_value":
            value = split_qkv(value, config["num_attention_heads"])
        yield f"{block}{BLOCK[stem]}.{kind}", value


def frequency_factors(config, head_dim):
    """Divisors of the RoPE frequencies that stand for Llama 3's stretching."""
    rope = config["rope_parameters"]
    factor, low, high = rope["factor"], rope["low_freq_factor"], rope["high_freq_factor"]
    context = rope["original_max_position_embeddings"]
    divisors = []
    for i in range(0, head_dim, 2):
        turns = context / (2 * math.pi * rope["rope_theta"] ** (i / head_dim))
        smooth = min(max((turns - low) / (high - low), 0.0), 1.0)
        divisors.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(divisors, dtype=np.float32)


def describe(writer, config):
    """Metadata; returns head_dim."""
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    rope = config["rope_parameters"]
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    if config["model_type"] == "gpt_neox":
        writer.add_rope_dimension_count(int(rope["partial_rotary_factor"] * head_dim))
        writer.add_parallel_residual(config["use_parallel_residual"])
        writer.add_layer_norm_eps(config["layer_norm_eps"])
        return head_dim
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    if config.get("head_dim"):
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    if ARCHITECTURE[config["model_type"]] == "llama":
        writer.add_vocab_size(config["vocab_size"])
        writer.add_rope_dimension_count(head_dim)
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    experts = config.get("num_experts") or config.get("num_local_experts")
    if experts:
        writer.add_expert_count(experts)
        writer.add_expert_used_count(config["num_experts_per_tok"])
    return head_dim


def describe_tokenizer(writer):
    tokens = vocabulary()
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list(tokens)
    writer.add_token_types([control if token in SPECIAL else normal for token in tokens])
    writer.add_token_merges([f"{left} {right}" for left, right in MERGES])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_add_bos_token(True)
    writer.add_chat_template(TEMPLATE)


def write_gguf(folder, state):
    """Writes model.gguf beside the checkpoint whose loaded weights are `state`."""
    config = json.loads((folder / "config.json").read_text())
    writer = gguf.GGUFWriter(folder / "model.gguf", ARCHITECTURE[config["model_type"]])
    head_dim = describe(writer, config)
    if (folder / "tokenizer.json").exists():
        describe_tokenizer(writer)
    else:
        writer.add_tokenizer_model("none")
    if config["rope_parameters"]["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", frequency_factors(config, head_dim))
    for name, value in state.items():
        for new_name, new_value in convert(name, value.numpy(), config):
            writer.add_tensor(new_name, np.ascontiguousarray(new_value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
