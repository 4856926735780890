"""Golden values for the methods of peft: tiny adapters on the tiny BERT of tiny_bert.py, and three steps of training.

    python oracle/tiny_methods.py [--output crates/model/tests/golden]

`bert-classifier/CASE/` holds an adapter as peft writes it, every trained tensor moved away from its start, and
  expected.safetensors  f32:
    logits, loss        of the batch of `bert-classifier`
    grad.NAME           for every trained tensor of adapter_model.safetensors, under its name there
    trainable           [1], how many numbers peft trains
    losses              [3], of three steps of AdamW (rate 0.01, no decay), before each
    trained.logits      after them
`pissa/expected.safetensors` has the last two alone, of a start that peft makes; `adalora-shared-out/` is what peft saves
after the three steps of `adalora`.

The sums run in float64 over the weights as stored.
"""

import argparse
import json
import warnings
from pathlib import Path

import numpy
import torch
from peft import (
    AdaLoraConfig,
    IA3Config,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    OFTConfig,
    VeraConfig,
    get_peft_model,
    get_peft_model_state_dict,
)
from tiny_bert import BERT_TARGETS, REPOSITORY, normal, save_expected
from transformers import AutoModelForSequenceClassification
from transformers.utils import logging

RATE = 0.01
CASES = {
    "dora": LoraConfig(r=3, lora_alpha=7, use_dora=True, target_modules=BERT_TARGETS),
    "adalora": AdaLoraConfig(
        init_r=4, target_r=2, lora_alpha=7, tinit=0, tfinal=1, total_step=4, orth_reg_weight=0.3,
        target_modules=BERT_TARGETS,
    ),
    "vera": VeraConfig(r=3, target_modules=BERT_TARGETS),
    "ia3": IA3Config(target_modules=["key", "value", "output.dense"], feedforward_modules=["output.dense"]),
    "loha": LoHaConfig(r=2, alpha=7, target_modules=BERT_TARGETS),
    "lokr": LoKrConfig(r=2, alpha=7, target_modules=BERT_TARGETS),
    "lokr-both": LoKrConfig(r=1, alpha=3, decompose_both=True, decompose_factor=4, target_modules=BERT_TARGETS),
    "oft": OFTConfig(oft_block_size=4, target_modules=BERT_TARGETS),
    "oft-exact": OFTConfig(oft_block_size=20, use_cayley_neumann=False, target_modules=["query", "value"]),
    "oft-block-share": OFTConfig(oft_block_size=5, block_share=True, target_modules=["query", "intermediate.dense"]),
}  # fmt: skip


def losses(model, batch):
    """Logits and loss, a row at a time; a method's penalty is part of the loss."""
    logits, penalty = [], 0.0
    for ids, types, label in zip(batch["input_ids"], batch["token_type_ids"], batch["labels"]):
        out = model(
            input_ids=torch.tensor([ids]), token_type_ids=torch.tensor([types]), labels=torch.tensor([label])
        )  # fmt: skip
        logits.append(out.logits[0])
        penalty = out.loss - torch.nn.functional.cross_entropy(out.logits, torch.tensor([label]))
    logits = torch.stack(logits)
    return logits, torch.nn.functional.cross_entropy(logits, torch.tensor(batch["labels"])), penalty


def trained(model):
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def three_steps(model, batch):
    optimizer = torch.optim.AdamW(trained(model), lr=RATE, weight_decay=0.0)
    seen = []
    for step in range(1, 4):
        _, loss, penalty = losses(model, batch)
        optimizer.zero_grad()
        (loss + penalty).backward()
        optimizer.step()
        seen.append(loss.detach())
        if hasattr(model.base_model, "update_and_allocate"):
            model.base_model.update_and_allocate(step)
    return {"losses": torch.stack(seen), "trained.logits": losses(model, batch)[0]}


def save(model, folder, base):
    config = model.peft_config["default"]
    config.base_model_name_or_path = base.name
    # A set is written in an order that changes from run to run.
    for key in ["target_modules", "feedforward_modules", "modules_to_save"]:
        if getattr(config, key, None):
            setattr(config, key, sorted(getattr(config, key)))
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink()


def opened(base, config):
    model = AutoModelForSequenceClassification.from_pretrained(base, attn_implementation="eager")
    config.task_type = "SEQ_CLS"
    return get_peft_model(model, config)


def write_case(base, folder, config, seed):
    rng = numpy.random.default_rng(seed)
    batch = json.loads((base / "expected.json").read_text())
    torch.manual_seed(seed)
    model = opened(base, config)
    with torch.no_grad():
        for parameter in trained(model):
            parameter += normal(rng, parameter.shape, 0.2)
    save(model, folder, base)

    model.double().eval()
    logits, loss, _ = losses(model, batch)
    loss.backward()
    expected = {"logits": logits, "loss": loss}
    values = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.grad if parameter.grad is not None else torch.zeros_like(parameter))
    # Saved through peft's own naming, so that gradients and values carry the same names.
    saved = get_peft_model_state_dict(model, save_embedding_layers=False)
    expected |= {f"grad.{name}": value.clone() for name, value in saved.items() if "vera_A" not in name and "vera_B" not in name}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(values[name])
            parameter.grad = None
    count = sum(parameter.numel() for parameter in trained(model))
    expected |= {"trainable": torch.tensor([float(count)])} | three_steps(model, batch)
    save_expected(folder / "expected.safetensors", expected)
    if config.peft_type == "ADALORA":
        model.float()
        shared_out = folder.with_name("adalora-shared-out")
        save(model, shared_out, base)
        save_expected(shared_out / "expected.safetensors", {"logits": expected["trained.logits"]})


def write_pissa(base, folder):
    batch = json.loads((base / "expected.json").read_text())
    config = LoraConfig(r=3, lora_alpha=7, init_lora_weights="pissa", target_modules=BERT_TARGETS)
    model = opened(base, config).double().eval()
    folder.mkdir(exist_ok=True)
    save_expected(folder / "expected.safetensors", three_steps(model, batch))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=REPOSITORY / "crates/model/tests/golden")
    base = parser.parse_args().output / "bert-classifier"
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.simplefilter("ignore")
    for number, (case, config) in enumerate(CASES.items()):
        write_case(base, base / case, config, 40 + number)
    write_pissa(base, base / "pissa")


if __name__ == "__main__":
    main()
