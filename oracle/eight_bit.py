"""Reference values of AdamW with 8-bit moments, from bitsandbytes.

  python oracle/eight_bit.py [--output FILE]

bitsandbytes (MIT) is the authors' own implementation of "8-bit Optimizers via Block-wise Quantization" (2022). Its scales are
taken, and a training by its optimiser. On the processor that looks up the place of a small value in a coarse table, and often
gives one that is not the nearest; so there is a second training, by the paper's words, with the nearest places. In that one a
second moment above 0 has never the place 0, as in ours.

  signed, unsigned                 [256]        the places on the two scales
  values.{x,codes,largest}         [700]        nearest places in blocks of 256, of the signed scale
  adamw.{start,grads,rates}        [700], [12, 700], [12]
  adamw.bitsandbytes               [700]        at the end
  adamw.params                     [2, 700]     after the first step, and at the end
  adamw.{m,v}.{codes,largest}                   at the end
"""

import argparse
from pathlib import Path

import bitsandbytes
import numpy
import torch
from bitsandbytes import functional
from safetensors.torch import save_file

REPOSITORY = Path(__file__).resolve().parent.parent


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=REPOSITORY / "crates/tensor/tests/golden/eight_bit.safetensors")
    output = parser.parse_args().output
    torch.set_num_threads(1)
    rng = numpy.random.default_rng(8)
    normal = lambda *shape: torch.tensor(rng.standard_normal(shape), dtype=torch.float32)
    signed, unsigned = functional.create_dynamic_map(signed=True), functional.create_dynamic_map(signed=False)
    # Magnitudes over many decades.
    x = normal(700) * 10 ** (-6 * torch.tensor(rng.random(700), dtype=torch.float32))
    codes, state = functional.quantize_blockwise(x, code=signed, blocksize=256)
    out = {"signed": signed, "unsigned": unsigned}
    out |= {"values.x": x, "values.codes": codes.float(), "values.largest": state.absmax.float()}

    size, steps = 700, 12
    start, grads = normal(size), normal(steps, size) * 10 ** (-2 * torch.tensor(rng.random(size), dtype=torch.float32))
    rates = torch.tensor([1e-3 * (step + 1) if step < 3 else 3e-3 * (steps - step) / 9 for step in range(steps)])
    parameter = torch.nn.Parameter(start.clone())
    optimizer = bitsandbytes.optim.AdamW8bit([parameter], betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1, min_8bit_size=1)
    for grad, rate in zip(grads, rates):
        optimizer.param_groups[0]["lr"] = rate.item()
        parameter.grad = grad.clone()
        optimizer.step()
    out |= {"adamw.start": start, "adamw.grads": grads, "adamw.rates": rates, "adamw.bitsandbytes": parameter.detach()}

    places = {"m": signed.double(), "v": unsigned.double()}
    weight, moments, trace = start.double(), {name: torch.zeros(size, dtype=torch.float64) for name in "mv"}, []
    for step, (grad, rate) in enumerate(zip(grads.double(), rates.double()), 1):
        moments["m"] = 0.9 * moments["m"] + (1 - 0.9) * grad
        moments["v"] = 0.999 * moments["v"] + (1 - 0.999) * grad**2
        root = (moments["v"] / (1 - 0.999**step)).sqrt() + 1e-8
        weight = (1 - 0.1 * rate) * weight - rate / (1 - 0.9**step) * moments["m"] / root
        trace.append(weight)
        for name, values in moments.items():
            largest = torch.stack([block.abs().max() for block in values.split(256)])
            shares = values / largest.repeat_interleave(256)[:size]
            codes = torch.searchsorted((places[name][1:] + places[name][:-1]) / 2, shares)
            if name == "v":
                codes = torch.maximum(codes, (values > 0).long())
            moments[name] = places[name][codes] * largest.repeat_interleave(256)[:size]
            out |= {f"adamw.{name}.codes": codes.float(), f"adamw.{name}.largest": largest.float()}
    out["adamw.params"] = torch.stack([trace[0], trace[-1]]).float()
    save_file({name: tensor.contiguous() for name, tensor in out.items()}, output)
    print(f"{output}: {len(out)} tensors, bitsandbytes {bitsandbytes.__version__}")


if __name__ == "__main__":
    main()
