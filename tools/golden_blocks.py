"""Golden files of the block formats, made with the `gguf` package (its NumPy code is checked bit for bit against ggml's C).

    pip install gguf numpy && python3 tools/golden_blocks.py

Writes crates/weights/tests/golden/NAME.decode (blocks and what they decode to) and NAME.encode (values and the blocks
ggml's reference quantizer makes of them, where the package has one). Layout of both: u32 count of blocks, all blocks,
all f32 values; little-endian. Same seed, same files.
"""

import pathlib

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T

FOLDER = pathlib.Path(__file__).parent.parent / "crates/weights/tests/golden"
DECODED = [T.F16, T.BF16, T.Q8_0, T.Q6_K, T.Q5_K, T.Q4_K, T.Q3_K, T.Q2_K, T.Q5_0, T.Q5_1, T.Q4_0, T.Q4_1]
ENCODED = [T.F16, T.BF16, T.Q8_0, T.Q5_0, T.Q5_1, T.Q4_0, T.Q4_1]

# Byte offsets of the f16 scales in a block.
SCALES = {
    T.Q8_0: [0], T.Q6_K: [208], T.Q5_K: [0, 2], T.Q4_K: [0, 2], T.Q3_K: [108], T.Q2_K: [80, 82],
    T.Q5_0: [0], T.Q5_1: [0, 2], T.Q4_0: [0], T.Q4_1: [0, 2],
}  # fmt: skip
# Zero of both signs, subnormals, the smallest normal, ordinary ones, the largest, infinity, NaN.
EXTREMES = [0x0000, 0x8000, 0x0001, 0x83FF, 0x0400, 0x3C00, 0xB555, 0x7BFF, 0xFBFF, 0x7C00, 0xFE00]


def write(name, blocks, values):
    count = np.array([len(blocks)], dtype="<u4").tobytes()
    (FOLDER / name).write_bytes(count + blocks.tobytes() + values.astype("<f4").tobytes())


def random_blocks(rng, qtype):
    block_len, block_bytes = gguf.GGML_QUANT_SIZES[qtype]
    count = {1: 256, 32: 32}.get(block_len, 22)
    blocks = rng.integers(0, 256, (count, block_bytes), dtype=np.uint8)
    for place, at in enumerate(SCALES.get(qtype, [])):
        scales = rng.normal(0, 0.02, count).astype("<f2").view(np.uint16)
        shifted = EXTREMES[place:] + EXTREMES[:place]
        scales[: len(EXTREMES)] = shifted
        blocks[:, at : at + 2] = scales.astype("<u2").view(np.uint8).reshape(count, 2)
    return blocks


def rows(rng):
    """Rows of 32 values: ordinary, outliers, constants, ties of both signs, halves to round, tiny and large."""
    normal = rng.normal(0, 0.05, (16, 32))
    outlier = rng.normal(0, 0.05, (4, 32))
    outlier[np.arange(4), [0, 7, 20, 31]] = [3, -3, 0.5, -8]
    tied = rng.choice([-1.0, 1.0, 0.5, -0.5], (4, 32))
    # No block of -0.0 alone: there the package and ggml's C differ in the sign of the zero scale.
    constant = np.repeat([[0.0], [-1e-30], [1.5], [-1.5]], 32, axis=1)
    grid = np.stack([np.arange(32) - 15.5, np.arange(32) / 8, np.arange(32) * -0.25 + 2])
    scaled = rng.normal(0, 1, (6, 32)) * np.array([[1e-7], [1e-5], [1e-4], [1e2], [1e3], [6e3]])
    return np.concatenate([normal, outlier, tied, constant, grid, scaled]).astype(np.float32)


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(20240)
    for qtype in DECODED:
        blocks = random_blocks(rng, qtype)
        with np.errstate(all="ignore"):
            values = np.stack([gguf.dequantize(block, qtype) for block in blocks])
        write(f"{qtype.name.lower()}.decode", blocks, values)
    for qtype in ENCODED:
        values = rows(rng).reshape(-1, gguf.GGML_QUANT_SIZES[qtype][0])
        blocks = gguf.quantize(values, qtype).view(np.uint8)
        write(f"{qtype.name.lower()}.encode", blocks, values)


main()
