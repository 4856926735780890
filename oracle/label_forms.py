"""Several labels a row, and a number for a pair of texts: the same training as transformers, and files both ways.

    python oracle/label_forms.py --retune target/release/retune --model MINILM

Twenty steps from the same start give the same losses within 1e-4, relative; what either side saves, the other loads, with
the same problem type and logits within 1e-5; metrics are scikit-learn's and scipy's.
"""

import argparse
import csv
import json
import sys
import tempfile
from pathlib import Path

import numpy
import scipy.stats
import torch
from peft import AutoPeftModelForSequenceClassification
from retune_cli import Retune, relative, step_losses
from sklearn.metrics import f1_score, hamming_loss, r2_score
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertForSequenceClassification,
    get_linear_schedule_with_warmup,
)
from transformers.utils import logging

STEPS, BATCH, MAX_LENGTH, RATE = 20, 16, 64, 1e-4
# By bytes, as retune orders them.
LABELS = ["Zürich", "card", "money", "余额"]
WORDS = {"Zürich": "in Zürich", "card": "my card", "money": "the money", "余额": "余额是多少"}
OTHERS = ["where is", "I lost", "please send", "nobody told me about", "ok,", "is it late:", "why"]


def texts(rng, count):
    """Texts of very different lengths, with the labels that are in them."""
    rows = []
    for _ in range(count):
        labels = [label for label in LABELS if rng.random() < 0.4]
        parts = [WORDS[label] for label in labels] + list(rng.choice(OTHERS, rng.integers(1, 12)))
        rng.shuffle(parts)
        # Some labels are forgotten, so that no score is 1.
        rows.append((" ".join(parts), [label for label in labels if rng.random() < 0.85]))
    return rows


class MultiLabel:
    """Rows with any number of labels, none included."""

    problem_type, label_names = "multi_label_classification", LABELS

    def rows(self, rng, count):
        return [{"text": text, "labels": json.dumps(labels)} for text, labels in texts(rng, count)]

    def pair(self, row):
        return None

    def target(self, row):
        return [float(label in json.loads(row["labels"])) for label in LABELS]

    def metrics(self, logits, targets, thresholds):
        predicted = torch.sigmoid(logits.double()).numpy() >= numpy.array(thresholds or [0.5] * len(LABELS))
        gold = targets.numpy()
        f1 = {a: f1_score(gold, predicted, average=a, zero_division=0) for a in ("micro", "macro", "samples")}
        return {f"f1_{a}": value for a, value in f1.items()} | {"hamming_loss": hamming_loss(gold, predicted)}


class Regression:
    """Pairs of texts with a number: how many labels they share, and a little."""

    problem_type, label_names = "regression", ["LABEL_0"]

    def rows(self, rng, count):
        rows = []
        for (first, a), (second, b) in zip(texts(rng, count), texts(rng, count)):
            score = round(len(set(a) & set(b)) + 0.2 * rng.random(), 3)
            rows.append({"sentence1": first, "sentence2": second, "score": score})
        return rows

    def pair(self, row):
        return row["sentence2"]

    def target(self, row):
        return float(row["score"])

    def metrics(self, logits, targets, thresholds):
        gold, predicted = targets.double().numpy(), logits.squeeze(1).double().numpy()
        return {
            "pearson": scipy.stats.pearsonr(gold, predicted).statistic,
            "spearman": scipy.stats.spearmanr(gold, predicted).statistic,
            "r2": r2_score(gold, predicted),
            "mse": ((gold - predicted) ** 2).mean(),
        }


def encode(tokenizer, form, rows):
    pairs = [form.pair(row) for row in rows]
    return tokenizer(
        [next(iter(row.values())) for row in rows], pairs if pairs[0] is not None else None,
        padding=True, truncation=True, max_length=MAX_LENGTH, return_tensors="pt",
    )  # fmt: skip


@torch.no_grad()
def logits_of(model, tokenizer, form, rows):
    """One row at a time, so that no padding takes part."""
    model.eval()
    return torch.cat([model(**encode(tokenizer, form, [row])).logits for row in rows]).float()


def prepare(base, form, folder):
    """The start of both trainers: the same head, no dropout."""
    rng = numpy.random.default_rng(1)
    names = form.label_names
    model = BertForSequenceClassification.from_pretrained(
        base, dtype=torch.float32, num_labels=len(names), hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        problem_type=form.problem_type, id2label=dict(enumerate(names)), label2id={n: i for i, n in enumerate(names)},
    )  # fmt: skip
    with torch.no_grad():
        for parameter in model.classifier.parameters():
            parameter.copy_(torch.from_numpy(rng.standard_normal(tuple(parameter.shape)) * 0.05))
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)


def reference_losses(form, start, rows):
    model = BertForSequenceClassification.from_pretrained(start, dtype=torch.float32).train()
    tokenizer = AutoTokenizer.from_pretrained(start)
    named = list(model.named_parameters())
    plain = [p for name, p in named if name.endswith("bias") or "LayerNorm" in name]
    decayed = [p for name, p in named if not (name.endswith("bias") or "LayerNorm" in name)]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE)
    schedule = get_linear_schedule_with_warmup(optimizer, 0, STEPS)
    losses = []
    for first in range(0, STEPS * BATCH, BATCH):
        batch = rows[first : first + BATCH]
        targets = torch.tensor([form.target(row) for row in batch])
        loss = model(**encode(tokenizer, form, batch), labels=targets).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


class Check:
    def __init__(self, retune, base, work):
        self.retune, self.base, self.work, self.failed = retune, base, work, False

    def row(self, case, difference, tolerance):
        # Written so that a NaN fails.
        ok = difference <= tolerance
        self.failed |= not ok
        print(f"{case:76} {difference:10.2e} {'ok' if ok else 'FAILED'}", flush=True)

    def write(self, name, rows):
        with open(self.work / name, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)
        return self.work / name

    def compare(self, case, form, folder, model, rows, data, thresholds):
        """retune's predictions and evaluation of a folder beside those of a model in transformers."""
        tokenizer = AutoTokenizer.from_pretrained(folder)
        expected = logits_of(model, tokenizer, form, rows)
        output = self.work / "predictions.jsonl"
        output.unlink(missing_ok=True)
        self.retune("predict", model=folder, input=data, output=output, logits=True, max_length=MAX_LENGTH)
        lines = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
        ours = torch.tensor([line["logits"] for line in lines])
        self.row(f"{case}: logits", relative(ours, expected), 1e-5)
        if form.problem_type == "regression":
            self.row(f"{case}: scores are the logits", relative(torch.tensor([[x["predicted_score"]] for x in lines]), ours), 0)
        else:
            at = numpy.array(thresholds or [0.5] * len(LABELS))
            given = [[n for n, yes in zip(LABELS, row) if yes] for row in torch.sigmoid(ours).numpy() >= at]
            self.row(f"{case}: rows with other labels", sum(a != x["predicted_labels"] for a, x in zip(given, lines)), 0)

        targets = torch.tensor([form.target(row) for row in rows])
        with torch.no_grad():
            batch = encode(tokenizer, form, rows)
            loss = model(**batch, labels=targets).loss.item()
        result = self.retune("evaluate", model=folder, data=data, max_length=MAX_LENGTH)
        self.row(f"{case}: loss of the evaluation", abs(result["loss"] - loss) / loss, 1e-5)
        for name, value in form.metrics(expected, targets, thresholds).items():
            self.row(f"{case}: {name} ({value:.4f})", abs(result["metrics"][name] - value), 1e-4)

    def form(self, form):
        name = form.problem_type
        rng = numpy.random.default_rng(5)
        rows, held = form.rows(rng, STEPS * BATCH), form.rows(rng, 60)
        train, dev = self.write(f"{name}.csv", rows), self.write(f"{name}-dev.csv", held)
        start, folder = self.work / f"{name}-start", self.work / f"{name}-run"
        prepare(self.base, form, start)
        theirs = reference_losses(form, start, rows)
        settings = dict(
            batch_size=BATCH, epochs=1, warmup=0, weight_decay=0.01, max_grad_norm=1.0, max_length=MAX_LENGTH,
        )  # fmt: skip
        document = self.retune(
            "train", model=start, train=train, eval=dev, output=folder, method="full", learning_rate=RATE,
            shuffle="false", schedule="linear", **settings,
        )  # fmt: skip
        self.row(f"{name}: problem type that differs", float(document["problem_type"] != name), 0)
        ours = step_losses(folder)
        difference = max(abs(a - b) / abs(b) for a, b in zip(ours, theirs, strict=True))
        self.row(f"{name}: {STEPS} losses, {theirs[0]:.4f} to {theirs[-1]:.4f}", difference, 1e-4)

        model = AutoModelForSequenceClassification.from_pretrained(folder)
        read = (model.config.problem_type, model.config.id2label, model.config.num_labels)
        told = (name, dict(enumerate(form.label_names)), len(form.label_names))
        self.row(f"{name}: configuration that differs", float(read != told), 0)
        thresholds = json.loads((folder / "retune.json").read_text(encoding="utf-8")).get("thresholds")
        self.row(f"{name}: no thresholds", float((thresholds is None) != (name == "regression")), 0)
        self.compare(f"{name}: retune -> Auto", form, folder, model, held, dev, thresholds)
        # transformers' own folder, which has no card.
        theirs = BertForSequenceClassification.from_pretrained(start)
        self.compare(f"{name}: transformers -> retune", form, start, theirs, held, dev, None)

        folder = self.work / f"{name}-lora"
        self.retune(
            "train", model=self.base, train=train, eval_split=0, output=folder, method="lora", rank=3, alpha=7,
            learning_rate=2e-3, **settings,
        )  # fmt: skip
        model = AutoPeftModelForSequenceClassification.from_pretrained(
            folder, num_labels=len(form.label_names), problem_type=name
        )
        self.compare(f"{name}: retune lora -> peft", form, folder, model, held, dev, None)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--retune", type=Path, required=True, help="the binary")
    parser.add_argument("--model", type=Path, required=True, help="a BERT folder with its tokenizer")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as temporary:
        check = Check(Retune(options.retune), options.model.resolve(), Path(temporary))
        for form in (MultiLabel(), Regression()):
            check.form(form)
    sys.exit(check.failed)


if __name__ == "__main__":
    main()
