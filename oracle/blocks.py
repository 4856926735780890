"""Golden values of quantised blocks, by the `gguf` package.

    python oracle/blocks.py [--output crates/tensor/tests/golden/blocks.safetensors]

For each type: TYPE.blocks, the bytes of an odd number of blocks of random bits (their factors finite, some of them 0,
subnormal or negative), and TYPE.values, f32, what `gguf.quants.dequantize` makes of them.
"""

import argparse
from pathlib import Path

import numpy
from gguf import GGMLQuantizationType
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import dequantize
from safetensors.numpy import save_file

REPOSITORY = Path(__file__).resolve().parent.parent
# Where in a block the factors of 16 bits stand.
HALVES = {
    "Q4_0": [0],
    "Q4_1": [0, 2],
    "Q5_0": [0],
    "Q5_1": [0, 2],
    "Q8_0": [0],
    "Q4_K": [0, 2],
    "Q5_K": [0, 2],
    "Q6_K": [208],
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--output", type=Path, default=REPOSITORY / "crates/tensor/tests/golden/blocks.safetensors"
    )
    output = parser.parse_args().output
    draw = numpy.random.default_rng(7)
    tensors = {}
    for name, halves in HALVES.items():
        kind = GGMLQuantizationType[name]
        values, size = GGML_QUANT_SIZES[kind]
        blocks = draw.integers(0, 256, (1200 // values + 3, size), dtype=numpy.uint8)
        for place in halves:
            factors = draw.normal(0, 0.02, len(blocks)).astype(numpy.float16)
            factors[:3] = [0, 6e-8, -1.5]
            blocks[:, place : place + 2] = factors[:, None].view(numpy.uint8)
        flat = blocks.reshape(-1)
        tensors[f"{name}.blocks"] = flat
        tensors[f"{name}.values"] = dequantize(flat, kind).astype(numpy.float32)
    save_file(tensors, output)


if __name__ == "__main__":
    main()
