"""Golden values of 4-bit NormalFloat with double quantisation, by numpy, and of int8 by rows, by bitsandbytes.

    python oracle/own_blocks.py [--output crates/tensor/tests/golden/own_blocks.safetensors]

`values`, f32 [13, 191], of several sizes, some of them 0; `nf4`, what is left of them in blocks of 16 with factors of 7 bits and a
sign; `int8`, the same of `int8_vectorwise_quant`. The places of NF4 are those of bitsandbytes. It prints how far NF4 is from the
values, and how far `quantize_4bit` (compress_statistics) would be in blocks as small, with 48 zeros behind each in one of 64.
"""

import argparse
from pathlib import Path

import bitsandbytes.functional as bnb
import numpy
import torch
from safetensors.torch import save_file

BLOCK = 16
REPOSITORY = Path(__file__).resolve().parent.parent


def normal_float(blocks):
    """Each block as one of its factor's two signs times the places nearest to what it is divided by it."""
    places = bnb.get_4bit_type("nf4", device="cpu").numpy()
    largest = numpy.abs(blocks).max(1)
    mean = numpy.float32(largest.astype(numpy.float64).mean())
    factors = numpy.empty_like(largest)
    for first in range(0, len(largest), 256):
        away = largest[first : first + 256] - mean
        most = numpy.abs(away).max()
        steps = numpy.round(away / most * numpy.float32(63))
        factors[first : first + 256] = numpy.maximum(steps / numpy.float32(63) * most + mean, 0)
    found = []
    for factor in (factors[:, None], -factors[:, None]):
        scaled = numpy.divide(blocks, factor, out=numpy.zeros_like(blocks), where=factor != 0)
        found.append(places[numpy.abs(scaled[:, :, None] - places).argmin(2)] * factor)
    missed = [((one - blocks) ** 2).sum(1) for one in found]
    return numpy.where((missed[1] < missed[0])[:, None], found[1], found[0])


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
    nf4 = torch.tensor(normal_float(blocks.numpy())).flatten()[: values.numel()].reshape(values.shape)
    packed, state = bnb.quantize_4bit(
        torch.nn.functional.pad(blocks, (0, 64 - BLOCK)), blocksize=64, compress_statistics=True, quant_type="nf4"
    )
    theirs = bnb.dequantize_4bit(packed, state).float()[:, :BLOCK].flatten()[: values.numel()].reshape(values.shape)
    for name, found in [("here", nf4), ("bitsandbytes", theirs)]:
        print(f"{name}: {float((found - values).norm() / values.norm()):.4f} of the values' norm apart")
    whole, stats, _ = bnb.int8_vectorwise_quant(values)
    int8 = whole.float() * (stats / 127).reshape(-1, 1)
    save_file({"values": values, "nf4": nf4.contiguous(), "int8": int8.contiguous()}, output)


if __name__ == "__main__":
    main()
