#!/usr/bin/env python3
"""Golden distributions of the `hf` sampling chain, written by transformers' own logits processors.

    python3 tools/golden_sampling.py

writes crates/engine/tests/golden/sampling.json: logit vectors, token sequences, and cases (options in the text form of
SamplerConfig, which logits, which sequence) with the tokens left and their probabilities.
"""

import json
from pathlib import Path

import torch
import transformers
from transformers.generation import logits_process as processors

VOCAB = 48
# In the order of GenerationMixin._get_logits_processor.
ORDER = {
    "logit_bias": lambda v: processors.SequenceBiasLogitsProcessor({(t,): b for t, b in v.items()}),
    "repetition_penalty": processors.RepetitionPenaltyLogitsProcessor,
    "no_repeat_ngram": processors.NoRepeatNGramLogitsProcessor,
    "temperature": processors.TemperatureLogitsWarper,
    "top_k": processors.TopKLogitsWarper,
    "top_p": processors.TopPLogitsWarper,
    "min_p": processors.MinPLogitsWarper,
    "typical_p": processors.TypicalLogitsWarper,
}
SINGLE = [
    {"temperature": 0.3},
    {"temperature": 1.7},
    {"top_k": 1},
    {"top_k": 7},
    {"top_k": 47},
    {"top_p": 0.1},
    {"top_p": 0.5},
    {"top_p": 0.95},
    {"min_p": 0.02},
    {"min_p": 0.3},
    {"typical_p": 0.2},
    {"typical_p": 0.6},
    {"typical_p": 0.95},
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 0.7},
    {"no_repeat_ngram": 1},
    {"no_repeat_ngram": 2},
    {"no_repeat_ngram": 3},
    {"logit_bias": {3: 2.5, 11: -4.0, 40: 0.75}},
]
COMBINED = [
    {"temperature": 0.8, "top_k": 20, "top_p": 0.9},
    {"temperature": 1.4, "top_p": 0.8, "min_p": 0.05},
    {"repetition_penalty": 1.2, "no_repeat_ngram": 2, "temperature": 0.7, "top_k": 12, "typical_p": 0.7},
    {"logit_bias": {0: 1.0, 47: 3.0}, "repetition_penalty": 1.5, "temperature": 0.9, "top_p": 0.97, "min_p": 0.01},
    {
        "repetition_penalty": 1.1,
        "no_repeat_ngram": 3,
        "temperature": 1.1,
        "top_k": 40,
        "top_p": 0.9,
        "min_p": 0.02,
        "typical_p": 0.9,
    },
]


def text_form(options):
    parts = []
    for key, value in options.items():
        if key == "logit_bias":
            value = "+".join(f"{token}:{bias}" for token, bias in value.items())
        parts.append(f"{key}={value}")
    return ",".join(parts)


def process(options, logits, history):
    scores = torch.tensor([logits])
    ids = torch.tensor([history])
    for key, make in ORDER.items():
        if key in options:
            scores = make(options[key])(ids, scores)
    # The softmax in float64, so that only the processors' own float32 rounding is in the file.
    probabilities = scores.double().softmax(-1)[0]
    kept = [i for i in range(VOCAB) if scores[0, i] > -torch.inf]
    return kept, [float(f"{probabilities[i].item():.9g}") for i in kept]


def main():
    generator = torch.Generator().manual_seed(20)
    logits = [
        torch.randn(VOCAB, generator=generator) * 2.0,  # as a small model's
        torch.randn(VOCAB, generator=generator) * 6.0 - 3.0,  # peaked, mostly negative
        torch.randn(VOCAB, generator=generator) * 0.1,  # nearly flat
    ]
    logits = [[float(f"{x.item():.6g}") for x in row] for row in logits]
    sequences = [
        [5],
        [1, 2, 3, 9, 1, 2, 3, 4, 1, 2],
        [int(i) for i in torch.randint(0, VOCAB, (60,), generator=generator)],
    ]
    cases = []
    for options in SINGLE + COMBINED:
        for which, row in enumerate(logits):
            uses_sequence = "repetition_penalty" in options or "no_repeat_ngram" in options
            for at, sequence in enumerate(sequences if uses_sequence else sequences[:1]):
                kept, probabilities = process(options, row, sequence)
                if not kept:
                    continue
                case = {"options": text_form(options), "logits": which, "sequence": at}
                cases.append({**case, "kept": kept, "probabilities": probabilities})
    body = ",\n".join("    " + json.dumps(case, separators=(",", ":")) for case in cases)
    head = {"transformers": transformers.__version__, "vocab_size": VOCAB, "logits": logits, "sequences": sequences}
    lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in head.items())
    path = Path(__file__).parent.parent / "crates/engine/tests/golden/sampling.json"
    path.write_text("{\n" + lines + ',\n  "cases": [\n' + body + "\n  ]\n}\n")
    print(f"{len(cases)} cases, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
