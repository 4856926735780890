"""Training in transformers and in retune from the same start: the losses of all steps agree within 1e-4, relative.

    python oracle/same_training.py --model MINILM --train banking77/train.csv --retune target/release/retune
    python oracle/same_training.py --model MINILM --train banking77/train.csv --only-reference
    python oracle/same_training.py --family roberta --retune target/release/retune

Both see the same rows in one order, batches of 32, no dropout, the same random head and, for LoRA, the same A and B: fifty
steps of a model and rows that are given, twenty of a small random model of a family on rows made up for it.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy
import torch
from families import FAMILIES, random_rows
from peft import LoraConfig, PeftModel, get_peft_model
from retune_cli import Retune, read_csv, step_losses, write_csv
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    get_linear_schedule_with_warmup,
)
from transformers.utils import logging

BATCH, TOLERANCE = 32, 1e-4
DROPOUTS = ["hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"]
DROPOUTS += ["dropout", "attention_dropout", "seq_classif_dropout", "embedding_dropout", "mlp_dropout"]
# A random model has further to go than a pretrained one.
LEARNING_RATES, RANDOM_LEARNING_RATES = {"full": 1e-4, "lora": 1e-3}, {"full": 3e-3, "lora": 1e-2}


@torch.no_grad()
def fill(parameters, rng, scale):
    for parameter in parameters:
        parameter.copy_(torch.from_numpy(rng.standard_normal(tuple(parameter.shape)) * scale))


def random_base(family, folder):
    """A small model as it comes from pretraining: no head, odd sizes."""
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 90 if family.even_heads else 45, "num_attention_heads": 5, "num_hidden_layers": 3, "intermediate_size": 101,
        "vocab_size": family.smallest_vocabulary + 170, "type_vocab_size": 2, "layer_norm_eps": 1e-5,
        "max_position_embeddings": 50 + family.counts_from, "embedding_size": 31, "hidden_act": "gelu",
    }  # fmt: skip
    # Wide enough that tokens differ and attention chooses.
    config = family.config(sizes, initializer_range=0.15)
    family.named("ForMaskedLM")(config).save_pretrained(folder)
    family.tokenizer(config).save_pretrained(folder)
    return folder


def prepare(base, rows, folder, targets):
    """The start of both trainers: a model folder for `full`, and an adapter on it for `lora`."""
    rng = numpy.random.default_rng(1)
    labels = sorted({label for _, label in rows})
    config = AutoConfig.from_pretrained(
        base, num_labels=len(labels), id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
    )  # fmt: skip
    for name in DROPOUTS:
        if hasattr(config, name):
            setattr(config, name, 0.0)
    model = AutoModelForSequenceClassification.from_pretrained(base, config=config, dtype=torch.float32)
    fill(model.classifier.parameters(), rng, 0.05)
    model.save_pretrained(folder / "model")
    AutoTokenizer.from_pretrained(base).save_pretrained(folder / "model")

    lora = LoraConfig(
        task_type="SEQ_CLS", r=8, lora_alpha=16, lora_dropout=0.0, target_modules=targets, modules_to_save=["classifier"]
    )
    model = get_peft_model(AutoModelForSequenceClassification.from_pretrained(folder / "model"), lora)
    # peft starts B at zero, where a wrong scale or a swapped A and B would not show in the first steps.
    fill([p for name, p in model.named_parameters() if ".lora_" in name], rng, 0.03)
    model.save_pretrained(folder / "adapter")
    return {"full": folder / "model", "lora": folder / "adapter"}


def load(method, starts):
    model = AutoModelForSequenceClassification.from_pretrained(starts["full"], dtype=torch.float32)
    return PeftModel.from_pretrained(model, starts["lora"], is_trainable=True) if method == "lora" else model


def decay_groups(model):
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    bare = {name for name, _ in trained if name.endswith("bias") or "norm." in name.lower()}
    plain = [p for name, p in trained if name in bare]
    decayed = [p for name, p in trained if name not in bare]
    return [{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}]


def reference_losses(method, starts, rows, max_length, rate):
    model = load(method, starts).train()
    tokenizer = AutoTokenizer.from_pretrained(starts["full"])
    optimizer = torch.optim.AdamW(decay_groups(model), lr=rate, betas=(0.9, 0.999), eps=1e-8)
    schedule = get_linear_schedule_with_warmup(optimizer, 0, len(rows) // BATCH)
    label2id = model.config.label2id
    losses = []
    for start in range(0, len(rows), BATCH):
        texts, labels = zip(*rows[start : start + BATCH])
        batch = tokenizer(list(texts), padding=True, truncation=True, max_length=max_length, return_tensors="pt")
        loss = model(**batch, labels=torch.tensor([label2id[label] for label in labels])).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def retune_losses(retune, method, starts, rows_csv, output, max_length, rate):
    retune.train(
        starts[method], rows_csv, output, method, learning_rate=rate, epochs=1, batch_size=BATCH,
        shuffle="false", schedule="linear", warmup=0, weight_decay=0.01, max_grad_norm=1.0, max_length=max_length,
    )  # fmt: skip
    return step_losses(output)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="all-MiniLM-L6-v2, a folder")
    parser.add_argument("--train", type=Path, help="CSV with the columns text and category")
    parser.add_argument("--family", choices=FAMILIES, help="a small random model of it, instead of the two")
    parser.add_argument("--retune", type=Path, help="the binary")
    parser.add_argument("--only-reference", action="store_true", help="the transformers half alone")
    parser.add_argument("--work", type=Path, help="an empty folder to keep; a temporary one otherwise")
    options = parser.parse_args()
    if not (options.retune or options.only_reference):
        parser.error("--retune PATH or --only-reference is needed")
    if options.family is None and not (options.model and options.train):
        parser.error("--model DIR and --train FILE are needed, or --family NAME")
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()

    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        rng = numpy.random.default_rng(0)
        if options.family:
            family, steps, max_length, rates = FAMILIES[options.family], 20, 40, RANDOM_LEARNING_RATES
            rows = random_rows(rng, ["a", "b", "c", "d", "e"], steps * BATCH)
            base, targets = random_base(family, work / "base"), family.all_linear
        else:
            steps, max_length, rates, rows = 50, 128, LEARNING_RATES, read_csv(options.train)
            base, targets = options.model, ["query", "value"]
        rows = [rows[i] for i in rng.permutation(len(rows))[: steps * BATCH]]
        write_csv(work / "rows.csv", ["text", "category"], rows)
        starts = prepare(base, rows, work, targets)

        print(f"{'method':8} {'first loss':>12} {'last loss':>12} {'largest relative difference':>28}")
        failed = False
        for method, rate in rates.items():
            theirs = reference_losses(method, starts, rows, max_length, rate)
            (work / f"reference-{method}.json").write_text(json.dumps(theirs) + "\n")
            verdict = "-"
            if options.retune:
                output = work / f"run-{method}"
                ours = retune_losses(
                    Retune(options.retune), method, starts, work / "rows.csv", output, max_length, rate
                )
                if len(ours) != steps:
                    sys.exit(f"{method}: expected {steps} steps in events.jsonl, got {len(ours)}")
                difference = max(abs(a - b) / abs(b) for a, b in zip(ours, theirs))
                # Written so that a NaN fails.
                failed |= not difference <= TOLERANCE
                verdict = f"{difference:.2e} {'ok' if difference <= TOLERANCE else 'TOO LARGE'}"
            print(f"{method:8} {theirs[0]:12.6f} {theirs[-1]:12.6f} {verdict:>28}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
