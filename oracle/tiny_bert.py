"""Golden values for the BERT family, from tiny random transformers and peft models.

    python oracle/tiny_bert.py [--output crates/model/tests/golden]

Each folder is a checkpoint as transformers writes it, and beside it
  expected.json         rows: input_ids, token_type_ids, labels; num_labels
  expected.safetensors  f32:
    logits              [rows, num_labels]
    hidden              [tokens, hidden_size], last hidden states, rows one after another
    loss                [], mean cross entropy over the rows
    grad.NAME           gradient of the loss, NAME as in the family's class for sequence classification
    init.NAME           values of the head (BERT's pooler included) used where the checkpoint has none
`bert-classifier/lora*/` holds an adapter as peft writes it, with expected.safetensors: logits, loss, hidden, and grad.NAME
for every tensor of adapter_model.safetensors, under its name there. The batch is that of `bert-classifier`.

The sums run in float64 over the weights as stored, so that a golden value owes nothing to one machine's rounding.
The gradient of every key bias is zero but for rounding: softmax does not see a constant added to a row's scores.
"""

import argparse
import json
import shutil
import warnings
from pathlib import Path

import numpy
import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForPreTraining,
    BertForSequenceClassification,
    BertModel,
)
from transformers.utils import logging

REPOSITORY = Path(__file__).resolve().parent.parent


def normal(rng, shape, scale):
    # numpy's stream is the same on every machine; torch's depends on the vector instructions at hand.
    return torch.from_numpy(rng.standard_normal(tuple(shape)) * scale).float()


@torch.no_grad()
def randomise(named_parameters, rng):
    """Weights far from their initial values: no bias is zero, no LayerNorm weight is one, no gradient vanishes."""
    for name, parameter in named_parameters:
        if name.lower().replace("_", "").endswith("norm.weight") or (".ln_" in name and name.endswith(".weight")):
            value = 1.0 + normal(rng, parameter.shape, 0.3)
        elif "_embeddings." in name:
            value = normal(rng, parameter.shape, 0.8)
        elif ".lora_B." in name:
            # Small enough that attention does not saturate, where f32 could not follow the gradients.
            value = normal(rng, parameter.shape, 0.15)
        elif parameter.dim() == 2:
            value = normal(rng, parameter.shape, 1.3 / parameter.shape[1] ** 0.5)
        else:
            value = normal(rng, parameter.shape, 0.3)
        parameter.copy_(value)


def stored_names(folder):
    names = set()
    for file in folder.glob("model*.safetensors"):
        with safe_open(file, "pt") as tensors:
            names.update(tensors.keys())
    return names


def make_batch(config, num_labels, rng, longest):
    lengths = [1, 7, 2, longest, 11]
    # Id 0 is padding: torch gives its embedding no gradient, which is not a matter for these values.
    return {
        "input_ids": [rng.integers(1, config.vocab_size, n).tolist() for n in lengths],
        "token_type_ids": [rng.integers(0, getattr(config, "type_vocab_size", 1), n).tolist() for n in lengths],
        "labels": rng.integers(0, num_labels, len(lengths)).tolist(),
        "num_labels": num_labels,
    }


def run(model, batch):
    """Logits, hidden states and loss of the batch, one row at a time: no padding and no mask is involved."""
    logits, hidden = [], []
    for ids, types in zip(batch["input_ids"], batch["token_type_ids"]):
        inputs = {"input_ids": torch.tensor([ids])}
        if hasattr(model.config, "type_vocab_size"):
            inputs["token_type_ids"] = torch.tensor([types])
        out = model(**inputs, output_hidden_states=True)
        logits.append(out.logits[0])
        hidden.append(out.hidden_states[-1][0])
    logits = torch.stack(logits)
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(batch["labels"]))
    loss.backward()
    return {"logits": logits, "hidden": torch.cat(hidden), "loss": loss}


def save_expected(path, tensors):
    save_file({name: tensor.detach().float().contiguous() for name, tensor in tensors.items()}, path)


def write_checkpoint(
    folder, model_class, config, num_labels, seed, dtype=torch.float32, shard="1GB", change=None, rewrite=None,
    **model_kwargs,
):  # fmt: skip
    """`change` alters the batch, which is otherwise random rows of up to the longest length; `rewrite` the keys of
    config.json, before transformers reads them back."""
    shutil.rmtree(folder, ignore_errors=True)
    rng = numpy.random.default_rng(seed)
    model = model_class(config, **model_kwargs)
    randomise(model.named_parameters(), rng)
    model.to(dtype).save_pretrained(folder, max_shard_size=shard)
    if rewrite:
        keys = json.loads((folder / "config.json").read_text())
        rewrite(keys)
        (folder / "config.json").write_text(json.dumps(keys, indent=2) + "\n")

    model = AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=num_labels, dtype=torch.float32, attn_implementation="eager"
    )
    stored = stored_names(folder)
    missing = [
        (name, parameter)
        for name, parameter in model.named_parameters()
        if name not in stored and name.removeprefix(model.base_model_prefix + ".") not in stored
    ]
    randomise(missing, rng)
    expected = {f"init.{name}": parameter.detach().clone() for name, parameter in missing}

    # RoBERTa counts positions from behind the padding token's number.
    counted_from = config.pad_token_id + 1 if "roberta" in model.base_model_prefix else 0
    batch = make_batch(config, num_labels, rng, config.max_position_embeddings - counted_from)
    if change:
        change(batch)
    model.double().eval()
    expected |= run(model, batch)
    expected |= {f"grad.{name}": parameter.grad for name, parameter in model.named_parameters()}
    save_expected(folder / "expected.safetensors", expected)
    (folder / "expected.json").write_text(json.dumps(batch) + "\n")


BERT_TARGETS = ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"]


def write_adapter(base, folder, seed, use_rslora=False, targets=BERT_TARGETS):
    rng = numpy.random.default_rng(seed)
    model = AutoModelForSequenceClassification.from_pretrained(base, attn_implementation="eager")
    config = LoraConfig(
        task_type="SEQ_CLS", r=3, lora_alpha=7, lora_dropout=0.0, target_modules=targets, use_rslora=use_rslora
    )
    model = get_peft_model(model, config)
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    randomise(trained, rng)
    model.peft_config["default"].base_model_name_or_path = base.name
    # A set is written in an order that changes from run to run.
    model.peft_config["default"].target_modules = targets
    # The base is named, not a place: peft would look it up for its vocabulary size.
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink()

    model.double().eval()
    expected = run(model, json.loads((base / "expected.json").read_text()))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.grad if parameter.grad is not None else torch.zeros_like(parameter))
    # Saved through peft's own naming, so that gradients and values carry the same names.
    saved = get_peft_model_state_dict(model, save_embedding_layers=False)
    expected |= {f"grad.{name}": value for name, value in saved.items()}
    save_expected(folder / "expected.safetensors", expected)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=REPOSITORY / "crates/model/tests/golden")
    output = parser.parse_args().output
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.simplefilter("ignore")

    def config(hidden, heads, layers, intermediate, vocabulary, positions, types, activation, eps, **others):
        return BertConfig(
            hidden_size=hidden, num_attention_heads=heads, num_hidden_layers=layers, intermediate_size=intermediate,
            vocab_size=vocabulary, max_position_embeddings=positions, type_vocab_size=types, hidden_act=activation,
            layer_norm_eps=eps, **others,
        )  # fmt: skip

    write_checkpoint(
        output / "bert-classifier", BertForSequenceClassification,
        config(20, 4, 3, 37, 61, 23, 3, "gelu", 1e-12, num_labels=5), num_labels=5, seed=11,
    )  # fmt: skip
    write_adapter(output / "bert-classifier", output / "bert-classifier/lora", seed=16, use_rslora=False)
    write_adapter(output / "bert-classifier", output / "bert-classifier/lora-rslora", seed=17, use_rslora=True)
    write_checkpoint(
        output / "bert-bare", BertModel,
        config(12, 2, 2, 17, 43, 19, 2, "gelu_new", 1e-5), num_labels=4, seed=12, dtype=torch.float16,
        add_pooling_layer=False,
    )  # fmt: skip
    write_checkpoint(
        output / "bert-bare-pooler-bf16", BertModel,
        config(14, 2, 1, 29, 37, 17, 1, "relu", 1e-12), num_labels=3, seed=13, dtype=torch.bfloat16,
    )  # fmt: skip
    write_checkpoint(
        output / "bert-sharded", BertForSequenceClassification,
        config(16, 4, 2, 31, 53, 21, 2, "gelu", 1e-3, num_labels=2), num_labels=2, seed=14, shard="8KB",
    )  # fmt: skip
    write_checkpoint(
        output / "bert-pretraining", BertForPreTraining,
        config(8, 1, 1, 19, 41, 13, 2, "silu", 1e-12), num_labels=3, seed=15,
    )  # fmt: skip


if __name__ == "__main__":
    main()
