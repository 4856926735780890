"""Golden values of 4-bit NormalFloat with double quantisation, by numpy, and of int8 by rows, by bitsandbytes.

    python oracle/own_blocks.py [--output crates/tensor/tests/golden/own_blocks.safetensors]

`values`, f32 [13, 191], of several sizes, some of them 0; `nf4`, what is left of them where each 8 share a factor of 5 bits and a sign,
a part of the largest magnitude of 2,048; `int8`, the same of `int8_vectorwise_quant`. The places of NF4 are those of bitsandbytes. It
prints how far NF4 is from the values, and how far `quantize_4bit` (compress_statistics) would be in its own blocks of 64, and in
blocks of 8, with 56 zeros behind each in one of 64.
"""

import argparse
from pathlib import Path

import bitsandbytes.functional as bnb
import numpy
import torch
from safetensors.torch import save_file

SHARE = 8
GROUP = 2048
REPOSITORY = Path(__file__).resolve().parent.parent


def normal_float(values):
    """Of all factors that are near the largest magnitude, the one by which eight values lose least, times the nearest places."""
    places = bnb.get_4bit_type("nf4", device="cpu").numpy()
    found = []
    for group in (values[first : first + GROUP] for first in range(0, len(values), GROUP)):
        most = numpy.abs(group).max()
        for share in group.reshape(-1, SHARE):
            middle = numpy.clip(numpy.round(numpy.abs(share).max() / most * 32), 1, 32)
            steps = [step for step in range(int(middle) - 9, int(middle) + 4) if 1 <= step <= 32]
            factors = numpy.array([sign * step for step in steps for sign in (1, -1)], numpy.float32) / 32 * most
            scaled = share / factors[:, None]
            tried = places[numpy.abs(scaled[:, :, None] - places).argmin(2)] * factors[:, None]
            found.append(tried[((tried - share) ** 2).sum(1).argmin()])
    return numpy.concatenate(found)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=REPOSITORY / "crates/tensor/tests/golden/own_blocks.safetensors")
    output = parser.parse_args().output
    draw = numpy.random.default_rng(11)
    values = draw.normal(0, 0.05, (13, 191)) * numpy.exp(draw.normal(0, 0.5, (13, 1)))
    values[3, :70] = 0
    # Halves, so that whatever is computed in these is computed alike.
    values = torch.tensor(values, dtype=torch.float16).float()
    flat = torch.nn.functional.pad(values.flatten(), (0, -values.numel() % SHARE))
    here = torch.tensor(normal_float(flat.numpy()))

    def theirs(values):
        packed, state = bnb.quantize_4bit(values, blocksize=64, compress_statistics=True, quant_type="nf4")
        return bnb.dequantize_4bit(packed, state).float()

    alone = theirs(torch.nn.functional.pad(flat.reshape(-1, SHARE), (0, 64 - SHARE)))[:, :SHARE].flatten()
    for name, found in [("here", here), ("bitsandbytes", theirs(flat)), ("bitsandbytes, eight by eight", alone)]:
        print(f"{name}: {float((found - flat).norm() / flat.norm()):.4f} of the values' norm apart")
    nf4 = here[: values.numel()].reshape(values.shape)
    whole, stats, _ = bnb.int8_vectorwise_quant(values)
    int8 = whole.float() * (stats / 127).reshape(-1, 1)
    save_file({"values": values, "nf4": nf4.contiguous(), "int8": int8.contiguous()}, output)


if __name__ == "__main__":
    main()
