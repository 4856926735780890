"""Golden values of 4-bit NormalFloat with double quantisation and of int8 by rows, by bitsandbytes.

    python oracle/own_blocks.py [--output crates/tensor/tests/golden/own_blocks.safetensors]

`values`, f32 [13, 191], of several sizes, some of them 0; `nf4`, what is left of them after `quantize_4bit` (compress_statistics)
and `dequantize_4bit`, in blocks of 16: the library has none so small, so each block has 48 zeros behind it in one of 64; `int8`, the same
of `int8_vectorwise_quant`.
"""

import argparse
from pathlib import Path

import bitsandbytes.functional as bnb
import numpy
import torch
from safetensors.torch import save_file

BLOCK = 16
REPOSITORY = Path(__file__).resolve().parent.parent


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=REPOSITORY / "crates/tensor/tests/golden/own_blocks.safetensors")
    output = parser.parse_args().output
    draw = numpy.random.default_rng(11)
    values = draw.normal(0, 0.05, (13, 191)) * numpy.exp(draw.normal(0, 0.5, (13, 1)))
    values[3, :70] = 0
    # Halves, so that whatever is computed in these is computed alike.
    values = torch.tensor(values, dtype=torch.float16).float()
    blocks = torch.nn.functional.pad(values.flatten(), (0, -values.numel() % BLOCK)).reshape(-1, BLOCK)
    packed, state = bnb.quantize_4bit(
        torch.nn.functional.pad(blocks, (0, 64 - BLOCK)), blocksize=64, compress_statistics=True, quant_type="nf4"
    )
    nf4 = bnb.dequantize_4bit(packed, state).float()[:, :BLOCK].flatten()[: values.numel()].reshape(values.shape)
    whole, stats, _ = bnb.int8_vectorwise_quant(values)
    int8 = whole.float() * (stats / 127).reshape(-1, 1)
    save_file({"values": values, "nf4": nf4.contiguous(), "int8": int8.contiguous()}, output)


if __name__ == "__main__":
    main()
