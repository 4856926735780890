"""Golden values for weighted sums of LoRAs: `add_weighted_adapter` of peft on the two of `bert-classifier`.

    python oracle/combine.py [--output crates/model/tests/golden]

`bert-classifier/combined.safetensors`, f32, for each COMBINATION:
  COMBINATION.logits  of the batch of `bert-classifier`, with the head of the first adapter
  COMBINATION.change  the first rows of what is added to the weight of one layer

What DARE drops is drawn as retune draws it: its generator is Philox4x32-10, which is written out below.
"""

import argparse
import json
import tempfile
import warnings
from pathlib import Path

import torch
from peft import PeftModel
from peft.tuners.lora.model import LoraModel
from peft.utils import merge_utils
from safetensors.torch import load_file, save_file
from tiny_bert import REPOSITORY, save_expected
from tiny_methods import losses
from transformers import AutoModelForSequenceClassification
from transformers.utils import logging

ADAPTERS, WEIGHTS, SEED = ["lora", "lora-rslora"], [0.75, -0.5], 5
SITE, ROWS = "bert.encoder.layer.1.attention.output.dense", 3
# Name: what peft is told. The share 0.3 of an odd number of values is rounded down.
COMBINATIONS = {
    "linear": {},
    "cat": {},
    "svd": {"svd_rank": 5},
    "ties": {"density": 0.6},
    "ties_svd": {"density": 0.3, "svd_rank": 5, "majority_sign_method": "frequency"},
    "dare_linear": {"density": 0.7},
    "dare_linear_svd": {"density": 0.6, "svd_rank": 5},
    "dare_ties": {"density": 0.6},
    "dare_ties_svd": {"density": 0.6, "svd_rank": 5},
    "magnitude_prune": {"density": 0.3},
    "magnitude_prune_svd": {"density": 0.3, "svd_rank": 5},
}
MASK = 2**64 - 1


def mix(word):
    """The finaliser of SplitMix64."""
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 & MASK
    word = (word ^ word >> 27) * 0x94D049BB133111EB & MASK
    return word ^ word >> 31


class Key:
    def __init__(self, word):
        self.word = mix(word)

    def part(self, part):
        return Key(self.word ^ mix(part + 0x9E3779B97F4A7C15 & MASK))

    def name(self, name):
        hash = 0xCBF29CE484222325
        for byte in name.encode():
            hash = (hash ^ byte) * 0x100000001B3 & MASK
        return self.part(hash)

    def block(self, counter):
        """Philox4x32-10 (Salmon et al. 2011)."""
        words, key = [counter & 0xFFFFFFFF, counter >> 32, 0, 0], [self.word & 0xFFFFFFFF, self.word >> 32]
        for _ in range(10):
            left, right = 0xD2511F53 * words[0], 0xCD9E8D57 * words[2]
            words = [right >> 32 ^ words[1] ^ key[0], right & 0xFFFFFFFF, left >> 32 ^ words[3] ^ key[1], left & 0xFFFFFFFF]
            key = [key[0] + 0x9E3779B9 & 0xFFFFFFFF, key[1] + 0xBB67AE85 & 0xFFFFFFFF]
        return words

    def uniform(self, count):
        words = [word for block in range((count + 3) // 4) for word in self.block(block)]
        return torch.tensor([(word >> 8) / 2**24 for word in words[:count]])


class Draws:
    """Takes the place of peft's `random_pruning`, which does not know whose numbers it prunes."""

    def __init__(self, sites):
        self.sites, self.site, self.calls = sites, None, 0

    def at(self, method):
        def wrapped(model, combination, adapters, weights, *others, **more):
            # The next argument but for ranks is the layer.
            target = next(other for other in others if id(other) in self.sites)
            self.site, self.calls = self.sites[id(target)], 0
            return method(model, combination, adapters, weights, *others, **more)

        return wrapped

    def prune(self, tensor, density, rescale):
        part, adapter = divmod(self.calls, len(ADAPTERS))
        self.calls += 1
        name = self.site
        if tensor.shape != self.shapes[self.site]:
            name = f"base_model.model.{self.site}.{'lora_A' if part == 0 else 'lora_B'}.weight"
        draws = Key(SEED).name("dare").name(name).part(adapter).uniform(tensor.numel()).reshape(tensor.shape)
        return torch.where(draws < density, tensor / density, torch.zeros_like(tensor))


def plain(folder, to):
    """The adapter without its head: peft adds none that have one."""
    config = json.loads((folder / "adapter_config.json").read_text())
    config["modules_to_save"] = None
    # A task type brings the head back.
    config["task_type"] = None
    to.mkdir()
    (to / "adapter_config.json").write_text(json.dumps(config))
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file({name: value for name, value in tensors.items() if ".lora_" in name}, to / "adapter_model.safetensors")
    return {name.split("model.", 2)[-1]: value for name, value in tensors.items() if ".lora_" not in name}


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=REPOSITORY / "crates/model/tests/golden")
    options = parser.parse_args()
    logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    base = options.output / "bert-classifier"
    batch = json.loads((base / "expected.json").read_text())
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        heads = [plain(base / name, work / name) for name in ADAPTERS]
        model = AutoModelForSequenceClassification.from_pretrained(base, attn_implementation="eager")
        unused = model.load_state_dict(heads[0], strict=False).unexpected_keys
        assert not unused, unused
        first, *others = ADAPTERS
        model = PeftModel.from_pretrained(model, work / first, adapter_name=first)
        for name in others:
            model.load_adapter(work / name, adapter_name=name)
    modules = {name.removeprefix("base_model.model."): module for name, module in model.named_modules()}
    layers = {name: module for name, module in modules.items() if hasattr(module, "lora_A")}
    draws = Draws({id(module): name for name, module in layers.items()})
    draws.shapes = {name: module.weight.shape for name, module in layers.items()}
    merge_utils.random_pruning = draws.prune
    for method in ["_generalized_task_arithmetic_weighted_adapter", "_svd_generalized_task_arithmetic_weighted_adapter"]:
        setattr(LoraModel, method, draws.at(getattr(LoraModel, method)))

    expected = {}
    for name, more in COMBINATIONS.items():
        model.add_weighted_adapter(ADAPTERS, WEIGHTS, name, combination_type=name, **more)
        model.set_adapter(name)
        expected[f"{name}.logits"] = losses(model.eval(), batch)[0]
        expected[f"{name}.change"] = modules[SITE].get_delta_weight(name)[:ROWS]
    save_expected(base / "combined.safetensors", expected)


if __name__ == "__main__":
    main()
