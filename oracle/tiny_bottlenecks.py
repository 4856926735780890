"""Golden values for the bottleneck adapters, from tiny random models and the `adapters` library.

    python oracle/tiny_bottlenecks.py [--golden crates/model/tests/golden]

It runs in an environment of its own, since `adapters` pins an older transformers: `adapters==1.3.0`, torch, safetensors.
BASE/CASE holds an adapter as the library writes it in its safetensors form, head included, and expected.safetensors, f32:
    logits, loss        of the batch of BASE/expected.json
    grad.NAME           gradient of the loss, NAME as in the adapter's files
    steps.loss          [3], losses of three steps of plain gradient descent at RATE, from the saved values
    steps.logits        logits after them

The sums run in float64 over the weights as stored.
"""

import argparse
import json
import shutil
from pathlib import Path

import adapters
import numpy
import torch
from adapters import CompacterConfig, CompacterPlusPlusConfig, DoubleSeqBnConfig, ParBnConfig, SeqBnConfig
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForSequenceClassification
from transformers.utils import logging

REPOSITORY = Path(__file__).resolve().parent.parent
RATE = 0.05
CASES = {
    "houlsby": DoubleSeqBnConfig(reduction_factor=3),
    "pfeiffer": SeqBnConfig(reduction_factor=3),
    "parallel-adapter": ParBnConfig(reduction_factor=3, scaling=3.0),
    "compacter": CompacterConfig(reduction_factor=5, phm_dim=2, phm_rank=2),
}
# What the library can say and no method here says by itself; the second is of every block but one, and another in each.
VARIANTS = {
    "bottleneck-norm": DoubleSeqBnConfig(
        reduction_factor=5, ln_after=True, adapter_residual_before_ln=True, non_linearity="gelu_new"
    ),
    "bottleneck-blocks": SeqBnConfig(
        reduction_factor={"0": 2, "default": 6}, leave_out=[1], residual_before_ln="post_add", mh_adapter=True,
        non_linearity="tanh", scaling=0.5,
    ),
    "bottleneck-behind": SeqBnConfig(
        reduction_factor=4, residual_before_ln=False, ln_after=True, non_linearity="gelu", is_parallel=False
    ),
    "compacter-plus-plus": CompacterPlusPlusConfig(reduction_factor=5, phm_dim=4),
}  # fmt: skip
BASES = {
    "bert-classifier": CASES | VARIANTS,
    "roberta-classifier": CASES,
    "electra-classifier": CASES,
    "distilbert-classifier": CASES,
    "modernbert-classifier": CASES,
}


@torch.no_grad()
def randomise(model, rng):
    """Far from the start, where nothing would be seen of an adapter."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            if name.endswith("norm_after.weight"):
                scale, shift = 0.3, 1.0
            elif name.endswith("phm_rule"):
                scale, shift = 0.7, 0.0
            elif parameter.dim() > 1:
                scale, shift = 0.9 / parameter.shape[-1] ** 0.5, 0.0
            else:
                scale, shift = 0.2, 0.0
            # numpy's stream is the same on every machine; torch's depends on the vector instructions at hand.
            value = shift + scale * rng.standard_normal(tuple(parameter.shape))
            parameter.copy_(torch.from_numpy(value))


def run(model, batch):
    """Logits and loss of the batch, one row at a time: no padding and no mask is involved."""
    logits = []
    for ids, types in zip(batch["input_ids"], batch["token_type_ids"]):
        inputs = {"input_ids": torch.tensor([ids])}
        if hasattr(model.config, "type_vocab_size"):
            inputs["token_type_ids"] = torch.tensor([types])
        logits.append(model(**inputs).logits[0])
    logits = torch.stack(logits)
    return logits, torch.nn.functional.cross_entropy(logits, torch.tensor(batch["labels"]))


def open_base(folder):
    """A model of transformers 5 in the older transformers, which knows positions of ModernBERT by other keys."""
    config = AutoConfig.from_pretrained(folder)
    if hasattr(config, "rope_parameters"):
        config.global_attn_every_n_layers = config.layer_types.index("full_attention", 1)
        config.global_rope_theta = config.rope_parameters["full_attention"]["rope_theta"]
        config.local_rope_theta = config.rope_parameters["sliding_attention"]["rope_theta"]
    model = AutoModelForSequenceClassification.from_pretrained(folder, config=config, attn_implementation="eager")
    with safe_open(folder / "expected.safetensors", "pt") as file:
        expected = file.get_tensor("logits")
    model.double().eval()
    logits, _ = run(model, json.loads((folder / "expected.json").read_text()))
    assert (logits - expected).abs().max() < 1e-5, folder
    return model.float()


def write(base, folder, config, seed):
    shutil.rmtree(folder, ignore_errors=True)
    model = open_base(base)
    there = set(model.state_dict())
    adapters.init(model)
    # `adapters` 1.3 gives ModernBERT's Wqkv a random bias where it has none.
    for name, parameter in model.named_parameters():
        if name not in there:
            torch.nn.init.zeros_(parameter)
    model.add_adapter("tuned", config=config)
    model.train_adapter("tuned")
    randomise(model, numpy.random.default_rng(seed))
    model.save_adapter(str(folder), "tuned", use_safetensors=True, with_head=True)
    for name in ["adapter_config.json", "head_config.json"]:
        saved = json.loads((folder / name).read_text())
        # The base is named, not a place.
        saved["model_name"] = base.name
        (folder / name).write_text(json.dumps(saved, indent=2, sort_keys=True) + "\n")
    names = set()
    for name in ["adapter.safetensors", "model_head.safetensors"]:
        with safe_open(folder / name, "pt") as file:
            names |= set(file.keys())

    model.double().eval()
    batch = json.loads((base / "expected.json").read_text())
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    # RoBERTa's head among them, all of which is saved.
    trained |= {name: p.requires_grad_() for name, p in model.named_parameters() if name in names}
    assert set(trained) == names, set(trained) ^ names
    expected, losses = {}, []
    for step in range(4):
        logits, loss = run(model, batch)
        if step == 3:
            expected["steps.logits"] = logits
            break
        loss.backward()
        losses.append(loss.detach())
        if step == 0:
            expected |= {"logits": logits, "loss": loss}
            expected |= {f"grad.{name}": p.grad.clone() for name, p in trained.items()}
        with torch.no_grad():
            for parameter in trained.values():
                parameter -= RATE * parameter.grad
        model.zero_grad()
    expected["steps.loss"] = torch.stack(losses)
    expected = {name: tensor.detach().float().contiguous() for name, tensor in expected.items()}
    save_file(expected, folder / "expected.safetensors")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--golden", type=Path, default=REPOSITORY / "crates/model/tests/golden")
    golden = parser.parse_args().golden
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    for number, (base, cases) in enumerate(BASES.items()):
        for index, (case, config) in enumerate(cases.items()):
            write(golden / base, golden / base / case, config, seed=100 * number + index)


if __name__ == "__main__":
    main()
