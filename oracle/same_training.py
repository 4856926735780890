"""Fifty training steps in transformers and in retune from the same start: the losses agree within 1e-4, relative.

    python oracle/same_training.py --model MINILM --train banking77/train.csv --retune target/release/retune
    python oracle/same_training.py --model MINILM --train banking77/train.csv --only-reference

Both see 1,600 rows in one order, batches of 32, no dropout, the same random head and, for LoRA, the same A and B.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from retune_cli import Retune, read_csv, step_losses, write_csv
from transformers import AutoTokenizer, BertForSequenceClassification, get_linear_schedule_with_warmup
from transformers.utils import logging

STEPS, BATCH, MAX_LENGTH, TOLERANCE = 50, 32, 128, 1e-4
LEARNING_RATES = {"full": 1e-4, "lora": 1e-3}


@torch.no_grad()
def fill(parameters, rng, scale):
    for parameter in parameters:
        parameter.copy_(torch.from_numpy(rng.standard_normal(tuple(parameter.shape)) * scale))


def prepare(base, rows, folder):
    """The start of both trainers: a model folder for `full`, and an adapter on it for `lora`."""
    rng = numpy.random.default_rng(1)
    labels = sorted({label for _, label in rows})
    model = BertForSequenceClassification.from_pretrained(
        base, dtype=torch.float32, num_labels=len(labels), hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        id2label=dict(enumerate(labels)), label2id={label: i for i, label in enumerate(labels)},
    )  # fmt: skip
    fill(model.classifier.parameters(), rng, 0.05)
    model.save_pretrained(folder / "model")
    AutoTokenizer.from_pretrained(base).save_pretrained(folder / "model")

    lora = LoraConfig(
        task_type="SEQ_CLS", r=8, lora_alpha=16, lora_dropout=0.0, target_modules=["query", "value"],
        modules_to_save=["classifier"],
    )  # fmt: skip
    model = get_peft_model(BertForSequenceClassification.from_pretrained(folder / "model"), lora)
    # peft starts B at zero, where a wrong scale or a swapped A and B would not show in the first steps.
    fill([p for name, p in model.named_parameters() if ".lora_" in name], rng, 0.03)
    model.save_pretrained(folder / "adapter")
    return {"full": folder / "model", "lora": folder / "adapter"}


def load(method, starts):
    model = BertForSequenceClassification.from_pretrained(starts["full"], dtype=torch.float32)
    return PeftModel.from_pretrained(model, starts["lora"], is_trainable=True) if method == "lora" else model


def decay_groups(model):
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    plain = [p for name, p in trained if name.endswith("bias") or "LayerNorm" in name]
    decayed = [p for name, p in trained if not (name.endswith("bias") or "LayerNorm" in name)]
    return [{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}]


def reference_losses(method, starts, rows):
    model = load(method, starts).train()
    tokenizer = AutoTokenizer.from_pretrained(starts["full"])
    optimizer = torch.optim.AdamW(decay_groups(model), lr=LEARNING_RATES[method], betas=(0.9, 0.999), eps=1e-8)
    schedule = get_linear_schedule_with_warmup(optimizer, 0, STEPS)
    label2id = model.config.label2id
    losses = []
    for start in range(0, STEPS * BATCH, BATCH):
        texts, labels = zip(*rows[start : start + BATCH])
        batch = tokenizer(list(texts), padding=True, truncation=True, max_length=MAX_LENGTH, return_tensors="pt")
        loss = model(**batch, labels=torch.tensor([label2id[label] for label in labels])).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def retune_losses(retune, method, starts, rows_csv, output):
    retune.train(
        starts[method], rows_csv, output, method, learning_rate=LEARNING_RATES[method], epochs=1, batch_size=BATCH,
        shuffle="false", schedule="linear", warmup=0, weight_decay=0.01, max_grad_norm=1.0, max_length=MAX_LENGTH,
    )  # fmt: skip
    return step_losses(output)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="all-MiniLM-L6-v2, a folder")
    parser.add_argument("--train", type=Path, required=True, help="CSV with the columns text and category")
    parser.add_argument("--retune", type=Path, help="the binary")
    parser.add_argument("--only-reference", action="store_true", help="the transformers half alone")
    parser.add_argument("--work", type=Path, help="an empty folder to keep; a temporary one otherwise")
    options = parser.parse_args()
    if not (options.retune or options.only_reference):
        parser.error("--retune PATH or --only-reference is needed")
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()

    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        rows = read_csv(options.train)
        order = numpy.random.default_rng(0).permutation(len(rows))[: STEPS * BATCH]
        rows = [rows[i] for i in order]
        write_csv(work / "rows.csv", ["text", "category"], rows)
        starts = prepare(options.model, rows, work)

        print(f"{'method':8} {'first loss':>12} {'last loss':>12} {'largest relative difference':>28}")
        failed = False
        for method in LEARNING_RATES:
            theirs = reference_losses(method, starts, rows)
            (work / f"reference-{method}.json").write_text(json.dumps(theirs) + "\n")
            verdict = "-"
            if options.retune:
                ours = retune_losses(Retune(options.retune), method, starts, work / "rows.csv", work / f"run-{method}")
                if len(ours) != STEPS:
                    sys.exit(f"{method}: expected {STEPS} steps in events.jsonl, got {len(ours)}")
                difference = max(abs(a - b) / abs(b) for a, b in zip(ours, theirs))
                # Written so that a NaN fails.
                failed |= not difference <= TOLERANCE
                verdict = f"{difference:.2e} {'ok' if difference <= TOLERANCE else 'TOO LARGE'}"
            print(f"{method:8} {theirs[0]:12.6f} {theirs[-1]:12.6f} {verdict:>28}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
