"""Runs the retune binary the way its users do, and reads what it writes."""

import csv
import json
import subprocess

import torch


class Retune:
    def __init__(self, binary):
        self.binary = str(binary)

    def __call__(self, verb, *paths, **flags):
        """`retune VERB --flag value ... --json`; a flag that is True stands alone. Returns the JSON document."""
        command = [self.binary, verb, *map(str, paths), "--json"]
        for name, value in flags.items():
            command.append("--" + name.replace("_", "-"))
            if value is not True:
                command.append(str(value))
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}\nexit {done.returncode}\n{done.stderr[-4000:]}")
        return json.loads(done.stdout)

    def train(self, model, rows, output, method, **flags):
        """Trains on a CSV `text,category`."""
        return self(
            "train", model=model, task="text-classification", train=rows, text_column="text", label_column="category",
            eval_split=0, method=method, output=output, **flags,
        )  # fmt: skip

    def predict(self, model, texts, folder, **flags):
        """Logits [rows, labels] and the label names predicted."""
        folder.mkdir(parents=True, exist_ok=True)
        lines = [json.dumps({"text": text}) + "\n" for text in texts]
        (folder / "input.jsonl").write_text("".join(lines), encoding="utf-8")
        output = folder / "predictions.jsonl"
        # A file left from the last call must not pass for this one's.
        output.unlink(missing_ok=True)
        self("predict", model=model, input=folder / "input.jsonl", output=output, logits=True, **flags)
        rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
        return torch.tensor([row["logits"] for row in rows]), [row["label"] for row in rows]


class Records:
    """What was exchanged, a JSON line each, for `interchange_report.py`; nothing is written without a file."""

    def __init__(self, path):
        self.path = path

    def add(self, library, method, to_library, base, ours, theirs):
        """Logits here and there, of an adapter that retune made where it goes `to_library`."""
        if self.path:
            difference = (ours - theirs).abs().max().item() if ours.shape == theirs.shape else float("inf")
            record = {
                "library": library, "method": method, "to_library": to_library, "base": base, "difference": difference,
                "largest": theirs.abs().max().item(),
            }  # fmt: skip
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")


def step_losses(run):
    """The loss of every step of a run folder, in order."""
    events = [json.loads(line) for line in (run / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [(event["step"], event["loss"]) for event in events if event["event"] == "step"]
    return [loss for _, loss in sorted(steps)]


def read_csv(path):
    with open(path, newline="", encoding="utf-8") as file:
        return [(row["text"], row["category"]) for row in csv.DictReader(file)]


def write_csv(path, header, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


@torch.no_grad()
def reference_logits(model, tokenizer, texts, max_length):
    """One text at a time, so that no padding takes part."""
    model.eval()
    rows = [
        model(**tokenizer(text, truncation=True, max_length=max_length, return_tensors="pt")).logits[0]
        for text in texts
    ]
    return torch.stack(rows).float()


def relative(ours, theirs):
    """The largest difference, as a share of the largest reference value; infinite where the shapes differ."""
    if ours.shape != theirs.shape:
        return float("inf")
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()
