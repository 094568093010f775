#!/usr/bin/env python3
"""Files of `roofline quantize` beside those of llama.cpp's quantizer: formats, weight error and perplexity, type by type.

    python3 tools/quantizer_quality.py --llama DIR --text BOOK.txt [--text ...] [--imatrix-text TEXT] [--model MODEL]
        [--roofline target/release/roofline] [--types q4_k_m,...] [--peer-ppl] [--json OUT]

DIR holds llama.cpp's `llama-quantize`, with --imatrix-text `llama-imatrix`, with --peer-ppl `llama-perplexity`. Needs numpy and
gguf (whose own decoders measure the weight error). MODEL is a folder or a GGUF file in F32; by default the demo model.

Both quantizers start from the same F32 file. Perplexity is `roofline ppl --exact` for both files, so that they differ by
their weights alone. The run fails where a tensor has another format than in llama.cpp's file, or where a perplexity is more
than --bound (1 %) above that of llama.cpp's file.

An exact tie of formats and bytes is told too: `alike` is the share of tensors whose bytes are equal.
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import gguf
import numpy as np
from gguf.quants import dequantize

ROOT = pathlib.Path(__file__).resolve().parent.parent
TYPES = "q8_0 q6_k q5_k_m q5_k_s q5_1 q5_0 q4_k_m q4_k_s q4_1 q4_0 q3_k_l q3_k_m q3_k_s q2_k bf16 f16".split()


def run(*command, env=None):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=env, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stderr[-2000:]}")
    return done.stdout + done.stderr


def tensors(path):
    return {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}


def decoded(tensor):
    if tensor.tensor_type.name in ("F32", "F16"):
        return np.asarray(tensor.data, dtype=np.float32)
    return dequantize(tensor.data, tensor.tensor_type)


def compare_weights(original, ours, theirs):
    """Formats that differ; share of tensors with equal bytes; relative RMS error of all matrices in either file."""
    source, ours, theirs = tensors(original), tensors(ours), tensors(theirs)
    differ, equal = [], 0
    error, power = np.zeros(2), 0.0
    for name in source.keys() | ours.keys() | theirs.keys():
        formats = [file[name].tensor_type.name if name in file else "absent" for file in (ours, theirs)]
        if formats[0] != formats[1] or "absent" in formats:
            differ.append(f"{name}: {formats[0]}, llama.cpp {formats[1]}")
            continue
        equal += ours[name].data.tobytes() == theirs[name].data.tobytes()
        value = decoded(source[name]).astype(np.float64)
        if value.ndim > 1:
            power += (value**2).sum()
            error += [((decoded(file[name]).reshape(value.shape) - value) ** 2).sum() for file in (ours, theirs)]
    return differ, equal / len(source), np.sqrt(error / power)


def perplexity(roofline, model, text):
    out = run(roofline, "ppl", model, "--text", text, "--exact", "--json")
    return json.loads(out[out.index("{"):])["rows"][0]["perplexity"]["token"]["value"]


def peer_perplexity(peer, model, text, env):
    for _ in range(5):  # now and then it exits before its log has written the last line
        out = run(peer / "llama-perplexity", "-m", model, "-f", text, "-c", 512, "-t", os.cpu_count(), env=env)
        found = re.search(r"Final estimate: PPL = ([\d.]+)", out)
        if found:
            return float(found[1])
    sys.exit(f"llama-perplexity gives no estimate:\n{out[-2000:]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--llama", type=pathlib.Path, required=True, help="folder of llama.cpp's programs")
    parser.add_argument("--roofline", type=pathlib.Path, default=ROOT / "target/release/roofline")
    parser.add_argument("--model", type=pathlib.Path, default=ROOT / "crates/cli/demo")
    parser.add_argument("--text", type=pathlib.Path, action="append", required=True)
    parser.add_argument("--imatrix-text", type=pathlib.Path, help="also with the importance matrix of this text")
    parser.add_argument("--peer-ppl", action="store_true", help="llama.cpp's perplexity of our file, and ours in its arithmetic")
    parser.add_argument("--types", default=",".join(TYPES))
    parser.add_argument("--bound", type=float, default=1.0, help="percent")
    parser.add_argument("--json", type=pathlib.Path, help="write the rows here too")
    arguments = parser.parse_args()
    env = {**os.environ, "LD_LIBRARY_PATH": str(arguments.llama)}
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(arguments, pathlib.Path(folder), env)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    bad = [row for row in rows if row["differ"] or max(row["percent"], default=0.0) > arguments.bound]
    for row in bad:
        print(f"{row['type']}{' with importance' if row['importance'] else ''}: above the bound or of other formats", *row["differ"], sep="\n  ")
    sys.exit(1 if bad else 0)


def measure(arguments, folder, env):
    original, ours, theirs = folder / "f32.gguf", folder / "ours.gguf", folder / "theirs.gguf"
    run(arguments.roofline, "quantize", arguments.model, original, "--type", "f32")
    matrices = [None]
    if arguments.imatrix_text:
        matrix = folder / "imatrix.gguf"
        run(arguments.llama / "llama-imatrix", "-m", original, "-f", arguments.imatrix_text, "-o", matrix, "-t", os.cpu_count(), env=env)
        matrices.append(matrix)
    base = [perplexity(arguments.roofline, original, text) for text in arguments.text]
    print("f32:", " ".join(f"{value:.4f}" for value in base))
    names = [text.stem for text in arguments.text]
    print("| type | imatrix | formats | alike | rms error, ours | llama.cpp |", *(f"{n}, ours | llama.cpp | % |" for n in names))
    rows = []
    for kind in arguments.types.split(","):
        for matrix in matrices if kind not in ("f16", "bf16") else [None]:
            guide = ["--imatrix", matrix] if matrix else []
            run(arguments.roofline, "quantize", original, ours, "--type", kind, "--force", *guide)
            run(arguments.llama / "llama-quantize", *guide, original, theirs, kind.upper(), env=env)
            differ, alike, error = compare_weights(original, ours, theirs)
            ppl = [[perplexity(arguments.roofline, file, text) for file in (ours, theirs)] for text in arguments.text]
            row = {
                "type": kind, "importance": bool(matrix), "differ": differ, "alike": alike, "rms": list(error),
                "perplexity": ppl, "percent": [100 * (a / b - 1) for a, b in ppl],
            }
            if arguments.peer_ppl:
                row["peer"] = [peer_perplexity(arguments.llama, file, arguments.text[0], env) for file in (ours, theirs)]
            rows.append(row)
            cells = " | ".join(f"{a:.3f} | {b:.3f} | {100 * (a / b - 1):+.2f}" for a, b in ppl)
            peer = f" llama.cpp reads ours: {row['peer'][0]:.3f}, its own: {row['peer'][1]:.3f}" if arguments.peer_ppl else ""
            print(
                f"| {kind} | {'yes' if matrix else 'no'} | {'equal' if not differ else len(differ)} | {alike:.0%} | "
                f"{error[0]:.5f} | {error[1]:.5f} | {cells} |{peer}", flush=True,
            )
    return rows


if __name__ == "__main__":
    main()
