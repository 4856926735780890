"""Golden values for the methods of virtual tokens, from tiny random models of tiny_bert.py and tiny_encoders.py.

    python oracle/virtual_tokens.py [--output crates/model/tests/golden]

Under BASE/METHOD lies an adapter as peft writes it, and beside it
  expected.json         count: numbers trained; options: what the method was told
  expected.safetensors  f32:
    start.NAME          what is trained before the first step, NAME as retune calls it
    logits              [rows, num_labels], and grad.NAME the gradient of the loss, with the adapter that lies there
    losses              [4], before each of three steps of SGD (rate 0.05) and after the last
    trained             [rows, num_labels], logits after them
The batch is that of BASE, each row cut to what fits behind the virtual tokens. peft knows no prefix for DistilBERT: its
reference is the attention of transformers with the rows put before keys and values by hand.
"""

import argparse
import json
import shutil
import warnings
from pathlib import Path

import numpy
import torch
from peft import PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import save_file
from tiny_bert import REPOSITORY, randomise, save_expected
from transformers import AutoModelForSequenceClassification
from transformers.models.distilbert.modeling_distilbert import DistilBertSelfAttention
from transformers.utils import logging

COUNT, HIDDEN, RATE = 4, 7, 0.05


def config(method, token_dim):
    common = {"task_type": "SEQ_CLS", "num_virtual_tokens": COUNT, "token_dim": token_dim}
    network = {"encoder_hidden_size": HIDDEN}
    return {
        "prefix-tuning": lambda: PrefixTuningConfig(**common, **network, prefix_projection=True),
        "p-tuning-v2": lambda: PrefixTuningConfig(**common),
        "prompt-tuning": lambda: PromptTuningConfig(**common),
        "p-tuning": lambda: PromptEncoderConfig(**common, **network),
    }[method]()


def own_name(name, method):
    """As retune calls a parameter of peft."""
    if name.startswith("prompt_encoder."):
        name = name.replace(".default.", ".")
        return name if method in ("prefix-tuning", "p-tuning") else "prompt_embeddings"
    return name.removeprefix("base_model.").replace(".modules_to_save.default", "")


def batch_of(base, longest):
    batch = json.loads((base / "expected.json").read_text())
    for key in ("input_ids", "token_type_ids"):
        batch[key] = [row[:longest] for row in batch[key]]
    return batch


def run(model, batch):
    """Logits and loss of the batch, one row at a time. No hidden states are asked for: peft takes them for a pooled
    output where RoBERTa and ELECTRA have none."""
    logits = []
    for ids, types in zip(batch["input_ids"], batch["token_type_ids"]):
        inputs = {"input_ids": torch.tensor([ids])}
        if hasattr(model.config, "type_vocab_size"):
            inputs["token_type_ids"] = torch.tensor([types])
        logits.append(model(**inputs).logits[0])
    logits = torch.stack(logits)
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(batch["labels"]))
    loss.backward()
    return {"logits": logits, "loss": loss}


def write(folder, model, batch, named, count, options):
    """`model` gives the expected values; `named` are its trained parameters by retune's names."""
    model.double().eval()
    expected = {f"start.{name}": parameter.detach().clone() for name, parameter in named}
    first = run(model, batch)
    expected |= {"logits": first["logits"]} | {f"grad.{name}": p.grad.clone() for name, p in named}
    losses = [first["loss"]]
    optimizer = torch.optim.SGD([parameter for _, parameter in named], lr=RATE)
    for _ in range(3):
        optimizer.step()
        optimizer.zero_grad()
        last = run(model, batch)
        losses.append(last["loss"])
    expected |= {"losses": torch.stack(losses), "trained": last["logits"]}
    save_expected(folder / "expected.safetensors", expected)
    (folder / "expected.json").write_text(json.dumps({"count": count, "options": options}) + "\n")


def with_peft(base, method, seed, positions):
    folder = base / method
    shutil.rmtree(folder, ignore_errors=True)
    model = AutoModelForSequenceClassification.from_pretrained(base, attn_implementation="eager")
    embeds = model.get_input_embeddings().embedding_dim
    width = model.config.hidden_size if method in ("prefix-tuning", "p-tuning-v2") else embeds
    model = get_peft_model(model, config(method, width))
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    randomise(trained, numpy.random.default_rng(seed))
    model.peft_config["default"].base_model_name_or_path = base.name
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    options = {"num-virtual-tokens": COUNT}
    if method in ("prefix-tuning", "p-tuning"):
        options["encoder-hidden-size"] = HIDDEN
    named = [(own_name(name, method), parameter) for name, parameter in trained]
    write(folder, model, batch_of(base, positions - COUNT), named, model.get_nb_trainable_parameters()[0], options)


class WithPrefix(torch.nn.Module):
    """DistilBERT's attention with rows before keys and values: what BERT's does with peft's cache."""

    def __init__(self, attention, key, value):
        super().__init__()
        self.attention, self.key, self.value = attention, key, value

    def forward(self, hidden_states, attention_mask=None, **_):
        attention = self.attention
        split = lambda x: x.view(*x.shape[:-1], attention.n_heads, -1).transpose(1, 2)
        query = split(attention.q_lin(hidden_states))
        key = split(torch.cat([self.key()[None], attention.k_lin(hidden_states)], 1))
        value = split(torch.cat([self.value()[None], attention.v_lin(hidden_states)], 1))
        weights = (query @ key.transpose(-1, -2) * attention.scaling).softmax(-1)
        found = (weights @ value).transpose(1, 2).reshape(hidden_states.shape)
        return attention.out_lin(found), weights


def distilbert(base, seed, positions):
    folder = base / "p-tuning-v2"
    shutil.rmtree(folder, ignore_errors=True)
    model = AutoModelForSequenceClassification.from_pretrained(base, attn_implementation="eager")
    blocks, width = model.config.n_layers, model.config.dim
    rows = torch.nn.Parameter(torch.empty(COUNT, blocks * 2 * width))
    head = [(name, p) for name, p in model.named_parameters() if "classifier" in name]
    named = [("prompt_embeddings", rows), *head]
    randomise(named, numpy.random.default_rng(seed))
    model.requires_grad_(False)
    for _, parameter in named:
        parameter.requires_grad_(True)
    folder.mkdir()
    saved = {"prompt_embeddings": rows} | {f"base_model.{name}": p for name, p in head}
    tensors = {name: p.detach().contiguous() for name, p in saved.items()}
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    written = config("p-tuning-v2", width)
    written.num_layers, written.num_attention_heads, written.num_transformer_submodules = blocks, model.config.n_heads, 1
    written.base_model_name_or_path, written.inference_mode = base.name, True
    written.modules_to_save = ["classifier", "pre_classifier"]
    written.save_pretrained(folder)

    model.register_parameter("rows", rows)
    for block, layer in enumerate(model.distilbert.transformer.layer):
        part = lambda index: lambda: model.rows[:, index * width : (index + 1) * width]
        assert isinstance(layer.attention, DistilBertSelfAttention)
        layer.attention = WithPrefix(layer.attention, part(2 * block), part(2 * block + 1))
    model.distilbert.embeddings.position_ids = model.distilbert.embeddings.position_ids[:, COUNT:].clone()
    count = sum(parameter.numel() for _, parameter in named)
    write(folder, model, batch_of(base, positions - COUNT), named, count, {"num-virtual-tokens": COUNT})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=REPOSITORY / "crates/model/tests/golden")
    output = parser.parse_args().output
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.simplefilter("ignore")
    methods = ["prefix-tuning", "p-tuning-v2", "prompt-tuning", "p-tuning"]
    # RoBERTa's first two positions are not for tokens.
    bases = [("bert-classifier", 23), ("roberta-classifier", 23), ("electra-classifier", 23)]
    for number, (base, positions) in enumerate(bases):
        for index, method in enumerate(methods):
            with_peft(output / base, method, 80 + 10 * number + index, positions)
    distilbert(output / "distilbert-classifier", 120, 23)


if __name__ == "__main__":
    main()
