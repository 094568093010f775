#!/usr/bin/env python3
"""Perplexity by three conventions on given logits, for crates/lab/src/quality/golden.rs.

    python3 tools/golden_perplexity.py            # writes crates/lab/tests/golden/perplexity.json
    python3 tools/golden_perplexity.py --whole llama|transformers MODEL TEXT    # a whole text; see docs/quality.md

Needs numpy; --whole needs llama-cpp-python or transformers and torch. Nothing here shares code with the project: each
convention is written from what its reference implementation does (llama.cpp tools/perplexity, the page "Perplexity of
fixed-length models" of Hugging Face, lm-evaluation-harness loglikelihood_rolling), in its own order of steps.

The logits are a hash of every token fed before, so that a window that begins, ends or is led in differently gives other
numbers.
"""

import json
import math
import pathlib
import re
import sys

import numpy as np

MASK = (1 << 64) - 1


def logits_after(fed, vocab):
    """(vocab): 24 bits of splitmix64(FNV-1a of the fed ids + v), as a number in [-4, 4) that float32 holds exactly."""
    state = 0xCBF29CE484222325
    for token in fed:
        state = ((state ^ token) * 0x100000001B3) & MASK
    row = []
    for v in range(vocab):
        z = (state + v + 0x9E3779B97F4A7C15) & MASK
        z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ z >> 27) * 0x94D049BB133111EB) & MASK
        row.append(((z ^ z >> 31) >> 40) / 2**24 * 8 - 4)
    return np.array(row, dtype=np.float64)


def forward(ids, vocab):
    """(len(ids), vocab): the logits after each token of one pass."""
    return np.stack([logits_after(ids[: i + 1], vocab) for i in range(len(ids))])


def log_softmax(logits):
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def half_chunk(tokens, context, bos, model):
    """llama-perplexity: whole chunks, BOS in place of the first token, rows context/2 .. context-2 scored."""
    losses = []
    for chunk in range(len(tokens) // context):
        part = list(tokens[chunk * context : (chunk + 1) * context])
        fed = ([bos] + part[1:]) if bos is not None else part
        logp = log_softmax(model(fed))
        for i in range(context // 2, context - 1):
            losses.append(-logp[i, part[i + 1]])
    losses = np.array(losses)
    mean = losses.mean()
    spread = max((losses**2).mean() - mean**2, 0)
    error = math.exp(mean) * math.sqrt(spread / (len(losses) - 1)) if len(losses) > 1 else None
    return {"perplexity": math.exp(mean), "count": len(losses), "nll": losses.sum(), "error": error}


def strided(tokens, context, stride, model):
    """Hugging Face: labels of what was scored before masked, cross entropy averaged over the shifted labels, windows
    weighted by their valid labels less one."""
    total, weight, before, count, plain = 0.0, 0, 0, 0, 0.0
    for begin in range(0, len(tokens), stride):
        end = min(begin + context, len(tokens))
        new = end - before
        labels = list(tokens[begin:end])
        labels[: len(labels) - new] = [-100] * (len(labels) - new)
        logp = log_softmax(model(list(tokens[begin:end])))
        losses = [-logp[i, label] for i, label in enumerate(labels[1:]) if label != -100]
        valid = sum(label != -100 for label in labels)
        if losses:
            total += np.mean(losses) * (valid - 1)
            weight += valid - 1
            count += len(losses)
            plain += sum(losses)
        before = end
        if end == len(tokens):
            break
    return {"perplexity": math.exp(total / weight), "count": count, "nll": plain}


def rolling(tokens, context, prefix, model):
    """lm-eval: the sequence prefix + tokens, predicted context tokens at a time; a pass takes context tokens, and one that
    has fewer to predict sees as many more of those before them."""
    sequence = [prefix] + list(tokens)
    total, done = 0.0, 0
    while done < len(tokens):
        predict = min(context, len(tokens) - done)
        last = done + predict  # index in `sequence` of the last predicted token
        fed = sequence[max(0, last - context) : last]
        logp = log_softmax(model(fed))[-predict:]
        total += -sum(logp[i, sequence[done + 1 + i]] for i in range(predict))
        done += predict
    return {"perplexity": math.exp(total / len(tokens)), "count": len(tokens), "nll": total}


def cases():
    rng = np.random.default_rng(5)
    vocab = 17
    for length in [1, 2, 5, 16, 33, 50, 64, 101]:
        tokens = [int(t) for t in rng.integers(0, vocab, length)]
        case = {"vocab": vocab, "tokens": tokens}
        model = lambda fed: forward(fed, vocab)
        for context in [3, 8, 9, 16, 32]:
            for bos in [None, 3]:
                if length >= context:
                    yield {**case, "convention": "half-chunk", "context": context, "stride": context, "bos": bos,
                           **half_chunk(tokens, context, bos, model)}
            for stride in sorted({1, 2, context // 2, context - 1, context}):
                if length >= 2 and context >= 2:
                    yield {**case, "convention": "strided", "context": context, "stride": stride, "bos": None,
                           **strided(tokens, context, stride, model)}
            yield {**case, "convention": "rolling-doc", "context": context, "stride": context, "bos": 3,
                   **rolling(tokens, context, 3, model)}


def divergences():
    """KL(p || q), its quantile and top-1 agreement of 40 pairs of rows, float32 in, float64 throughout."""
    pairs = [(logits_after([1, i], 17), logits_after([1, i], 17) + 0.3 * logits_after([2, i], 17)) for i in range(40)]
    pairs = [(p.astype(np.float32).astype(np.float64), q.astype(np.float32).astype(np.float64)) for p, q in pairs]
    kl = []
    for p, q in pairs:
        p, q = log_softmax(p), log_softmax(q)
        kl.append(float((np.exp(p) * (p - q)).sum()))
    return {
        "reference": [p.tolist() for p, _ in pairs],
        "policy": [q.tolist() for _, q in pairs],
        "kl": kl,
        "p99": float(np.quantile(kl, 0.99)),
        "same_top": float(np.mean([p.argmax() == q.argmax() for p, q in pairs])),
    }


def counts():
    texts = ["", "word", "two words", " = Title = \n\n A line , and more .\n", "tab\tand\r\nline", "a\u00a0b\u2003c\u3000d",
             "x\x1cy\x1dz\x1e\x1fw", "Größe \U0001f600 end", "\n\n\n"]
    return [{"text": t, "words": len(re.split(r"\s+", t)), "bytes": len(t.encode("utf-8"))} for t in texts]


def whole(engine, model_path, text_path, limit=None):
    """All three conventions on a whole text by another engine in float32."""
    text = pathlib.Path(text_path).read_text(encoding="utf-8")
    if engine == "llama":
        import llama_cpp

        llama = llama_cpp.Llama(model_path, n_ctx=2048, n_batch=2048, logits_all=True, verbose=False,
                                type_k=llama_cpp.GGML_TYPE_F32, type_v=llama_cpp.GGML_TYPE_F32, flash_attn=False)
        adds = bool(llama_cpp.llama_vocab_get_add_bos(llama_cpp.llama_model_get_vocab(llama._model.model)))
        bos = llama.token_bos() if adds else None
        prefix = llama.token_bos() if llama.token_bos() >= 0 else llama.token_eos()
        framed = llama.tokenize(text.encode(), add_bos=adds, special=False)
        bare = llama.tokenize(text.encode(), add_bos=False, special=True)

        def model(fed):
            llama.reset()
            llama.eval(fed)
            return np.array(llama.scores[: len(fed)], dtype=np.float64)

        limit = llama.n_ctx()
        limit = min(limit, int(llama.metadata.get("llama.context_length", limit)))
    else:
        import torch
        import transformers

        tokenizer = transformers.AutoTokenizer.from_pretrained(model_path)
        network = transformers.AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32).eval()
        framed = tokenizer(text)["input_ids"]
        bare = tokenizer(text, add_special_tokens=False)["input_ids"]
        bos = tokenizer.bos_token_id if framed != bare else None
        # A folder without tokenizer_config.json names its ends in config.json alone.
        ends = [tokenizer.bos_token_id, tokenizer.eos_token_id, network.config.bos_token_id, network.config.eos_token_id]
        prefix = next(end for end in ends if end is not None)
        limit = network.config.max_position_embeddings

        def model(fed):
            with torch.no_grad():
                return network(torch.tensor([fed])).logits[0].double().numpy()

    half = min(512, limit)
    print("half-chunk", half, half_chunk(framed, half, bos, model))
    print("strided", limit, min(512, limit), strided(framed, limit, min(512, limit), model))
    print("strided", half, half // 2, strided(framed, half, half // 2, model))
    result = rolling(bare, limit, prefix, model)
    words, size = len(re.split(r"\s+", text)), len(text.encode())
    print("rolling-doc", limit, result)
    print("  word", math.exp(result["nll"] / words), "byte", math.exp(result["nll"] / size),
          "bits per byte", result["nll"] / size / math.log(2))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--whole"]:
        whole(*sys.argv[2:5])
        sys.exit()
    out = pathlib.Path(__file__).parents[1] / "crates/lab/tests/golden/perplexity.json"
    golden = {"cases": list(cases()), "divergences": divergences(), "counts": counts()}
    out.write_text(json.dumps(golden, separators=(",", ":")) + "\n")
    print(f"{len(golden['cases'])} cases, {out.stat().st_size} bytes")
