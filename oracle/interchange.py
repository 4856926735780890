"""Adapters and whole models in both directions: what one side saves, the other loads, and the logits agree: whole models
and LoRA within 1e-5 of the largest, the other methods within 1e-4.

    python oracle/interchange.py --retune target/release/retune --model MINILM
"""

import argparse
import sys
import tempfile
from pathlib import Path

import exchange_virtual_tokens
import numpy
import torch
from peft import (
    AdaLoraConfig,
    IA3Config,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    OFTConfig,
    PeftConfig,
    PeftModel,
    VeraConfig,
    get_peft_model,
)
from retune_cli import Records, Retune, reference_logits, relative, write_csv
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging

TOLERANCE, MAX_LENGTH = 1e-5, 96
# Every other method of peft: the tolerance, the settings of a run here, and of an adapter there.
EVERY_TOLERANCE = 1e-4
ALL = ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"]
METHODS = {
    "lora, pissa": ({"method": "lora", "init": "pissa", "rank": 4, "alpha": 6}, None),
    "lora, plus": ({"method": "lora", "loraplus_lr_ratio": 8}, None),
    "dora": ({"method": "dora", "rank": 3, "alpha": 7}, LoraConfig(use_dora=True, r=5, lora_alpha=12, target_modules=ALL)),
    "adalora": (
        {"method": "adalora", "rank": 3, "init_rank": 5, "alpha": 7},
        AdaLoraConfig(init_r=5, target_r=3, lora_alpha=7, total_step=10, target_modules=ALL),
    ),
    "vera": ({"method": "vera", "rank": 40}, VeraConfig(r=24, target_modules=ALL)),
    "ia3": (
        {"method": "ia3"},
        IA3Config(target_modules=["key", "value", "output.dense"], feedforward_modules=["output.dense"]),
    ),
    "loha": ({"method": "loha", "rank": 3, "alpha": 7}, LoHaConfig(r=5, alpha=12, target_modules=ALL)),
    "lokr": ({"method": "lokr", "rank": 3, "alpha": 7}, LoKrConfig(r=5, alpha=12, target_modules=ALL)),
    "lokr, both": (
        {"method": "lokr", "decompose_both": "true", "decompose_factor": 16, "rank": 3},
        LoKrConfig(r=5, alpha=12, decompose_both=True, decompose_factor=8, target_modules=ALL),
    ),
    "oft": ({"method": "oft"}, OFTConfig(target_modules=ALL)),
    "oft, exact": (
        {"method": "oft", "exact": "true", "block_size": 24},
        OFTConfig(r=6, oft_block_size=0, use_cayley_neumann=False, target_modules=ALL),
    ),
    "oft, shared": (None, OFTConfig(block_share=True, target_modules=["query", "output.dense"])),
}  # fmt: skip
# The labels do not sort as they come; one has a space, two are not ASCII.
SENTENCES = {
    "refund": ["I was charged twice, please send it back", "I want my money returned", "they owe me for that order"],
    "Überweisung": ["how do I wire money to Zürich?", "the transfer has not arrived", "send 50 € to my landlord"],
    "card lost": ["my card is gone", "someone took my wallet", "block it, I cannot find the card!!"],
    "余额": ["what is left on my account", "余额是多少", "show how much I have"],
}
LABELS = sorted(SENTENCES)
ROWS = [(text, label) for label, texts in SENTENCES.items() for text in texts] * 3
TEXTS = [text for text, _ in ROWS[:12]]
TEXTS += ["", "a", "naïve café 😀", 'quotes "inside", and commas', "two\nlines", "money " * 300]


class Interchange:
    def __init__(self, retune, base, work, records):
        self.retune, self.base, self.work, self.records, self.failed = retune, base, work, records, False
        self.rows_csv = work / "rows.csv"
        write_csv(self.rows_csv, ["text", "category"], ROWS)
        print(f"{'case':62} {'difference':>10}")

    def row(self, case, difference, tolerance=TOLERANCE):
        # Written so that a NaN fails.
        ok = difference <= tolerance
        self.failed |= not ok
        print(f"{case:62} {difference:10.2e} {'ok' if ok else 'FAILED'}", flush=True)

    def compare(self, case, folder, model, tokenizer, labels, tolerance=TOLERANCE, record=None, **flags):
        """retune's predictions from `folder` beside those of a model in transformers; `record` is the method of an adapter of
        peft, and whether it went there."""
        expected = reference_logits(model, tokenizer, TEXTS, MAX_LENGTH)
        ours, predicted = self.retune.predict(folder, TEXTS, self.work / "predict", **flags)
        self.row(f"{case}: logits", relative(ours, expected), tolerance)
        if record:
            self.records.add("peft", *record, "MiniLM", ours, expected)
        names = [labels[i] for i in expected.argmax(1).tolist()]
        self.row(f"{case}: labels that differ", float(sum(a != b for a, b in zip(names, predicted))), 0.0)

    def from_retune(self):
        """retune trains; peft and the Auto classes load, by what the folder says it is."""
        runs = {
            "lora": {"method": "lora", "rank": 3, "alpha": 7},
            "lora, rslora, query and value": {
                "method": "lora", "rank": 5, "alpha": 12, "rslora": "true", "target_modules": "query,value"
            },
            "lora, and norms beside": {"method": "lora", "rank": 3, "alpha": 7, "train_also": "norms"},
            "lora, and biases of one block beside": {
                "method": "lora", "rank": 3, "alpha": 7, "target_modules": "query,value",
                "train_also": "layer.1.*.dense.bias,word_embeddings",
            },
            "full": {"method": "full"},
            "top-layers": {"method": "top-layers", "layers": 2},
            "norms": {"method": "norms"},
            "head": {"method": "head"},
            "bitfit": {"method": "bitfit"},
        }  # fmt: skip
        for number, (case, flags) in enumerate(runs.items()):
            folder = self.work / f"retune-{number}"
            rate = 1e-4 if case == "full" else 1e-3
            self.retune.train(
                self.base, self.rows_csv, folder, epochs=2, batch_size=5, learning_rate=rate, max_length=MAX_LENGTH,
                **flags,
            )  # fmt: skip
            if (folder / "adapter_config.json").exists():
                model = AutoModelForSequenceClassification.from_pretrained(self.base, num_labels=len(LABELS))
                model = PeftModel.from_pretrained(model, folder)
                reader = "peft"
            else:
                model = AutoModelForSequenceClassification.from_pretrained(folder)
                reader = "AutoModelForSequenceClassification"
                names = dict(enumerate(LABELS))
                right = model.config.id2label == names and model.config.label2id == {v: k for k, v in names.items()}
                self.row(f"retune {case}: label maps that differ", float(not right), 0.0)
            if flags["method"] == "lora":
                config = PeftConfig.from_pretrained(folder)
                read = (config.peft_type, config.task_type, config.r, config.lora_alpha, config.use_rslora)
                asked = ("LORA", "SEQ_CLS", flags["rank"], flags["alpha"], "rslora" in flags)
                self.row(f"retune {case}: settings that differ", float(read != asked), 0.0)
                idle = sum(not p.any() for name, p in model.named_parameters() if ".lora_B." in name)
                self.row(f"retune {case}: B left at zero", float(idle), 0.0)
            self.compare(
                f"retune {case} -> {reader}", folder, model, AutoTokenizer.from_pretrained(folder), LABELS,
                record=(case, True) if reader == "peft" else None,
            )  # fmt: skip

    def from_transformers(self):
        """A whole model fine-tuned in transformers. Its labels are not in sorted order."""
        labels = LABELS[::-1]
        torch.manual_seed(3)
        model = AutoModelForSequenceClassification.from_pretrained(
            self.base, num_labels=len(labels), id2label=dict(enumerate(labels)),
            label2id={label: i for i, label in enumerate(labels)},
        )  # fmt: skip
        tokenizer = AutoTokenizer.from_pretrained(self.base)
        batch = tokenizer([text for text, _ in ROWS], padding=True, return_tensors="pt")
        targets = torch.tensor([labels.index(label) for _, label in ROWS])
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
        for _ in range(5):
            model(**batch, labels=targets).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        folder = self.work / "transformers"
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        self.compare("transformers -> retune predict", folder, model, tokenizer, labels, max_length=MAX_LENGTH)

        # Every third label is made wrong, so that the accuracy is neither 0 nor 1.
        rows = [(text, LABELS[i % 4] if i % 3 == 0 else label) for i, (text, label) in enumerate(ROWS)]
        write_csv(self.work / "evaluate.csv", ["text", "category"], rows)
        best = reference_logits(model, tokenizer, [text for text, _ in rows], MAX_LENGTH).argmax(1).tolist()
        accuracy = sum(labels[i] == label for i, (_, label) in zip(best, rows)) / len(rows)
        result = self.retune(
            "evaluate", model=folder, data=self.work / "evaluate.csv", text_column="text", label_column="category"
        )
        difference = abs(result["metrics"]["accuracy"] - accuracy)
        self.row(f"transformers -> retune evaluate: accuracy ({accuracy:.3f})", difference, 1e-6)
        return folder, labels

    def from_peft(self, tuned, labels):
        """Adapters made by peft, every trained tensor moved away from its start."""
        plain = {"target_modules": ["query", "value"]}
        pooler = {"target_modules": ["key", "intermediate.dense"], "modules_to_save": ["pooler", "classifier"]}
        default_names = [f"LABEL_{i}" for i in range(len(labels))]
        cases = [
            ("query and value", tuned, labels, plain),
            ("rslora", tuned, labels, plain | {"use_rslora": True}),
            ("all-linear", tuned, labels, {"target_modules": "all-linear"}),
            ("modules_to_save with pooler", tuned, labels, pooler),
            ("the base has no classifier", self.base, default_names, plain),
        ]
        for number, (case, base, names, setting) in enumerate(cases):
            model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=len(names))
            config = LoraConfig(task_type="SEQ_CLS", r=5, lora_alpha=12, lora_dropout=0.1, **setting)
            model = get_peft_model(model, config)
            rng = numpy.random.default_rng(number)
            with torch.no_grad():
                for parameter in model.parameters():
                    if parameter.requires_grad:
                        parameter += torch.from_numpy(0.03 * rng.standard_normal(tuple(parameter.shape)))
            folder = self.work / f"peft-{number}"
            model.save_pretrained(folder)
            tokenizer = AutoTokenizer.from_pretrained(base)
            self.compare(
                f"peft, {case} -> retune predict", folder, model, tokenizer, names, record=(f"lora, {case}", False),
                max_length=MAX_LENGTH,
            )  # fmt: skip

    def every_method(self, tuned, labels):
        """The methods of peft, each trained here and read there, and made there and read here."""
        for number, (case, (flags, config)) in enumerate(METHODS.items()):
            if flags:
                folder = self.work / f"method-{number}"
                self.retune.train(
                    self.base, self.rows_csv, folder, epochs=2, batch_size=5, learning_rate=3e-3, max_length=MAX_LENGTH,
                    **flags,
                )  # fmt: skip
                model = AutoModelForSequenceClassification.from_pretrained(self.base, num_labels=len(LABELS))
                model = PeftModel.from_pretrained(model, folder)
                tokenizer = AutoTokenizer.from_pretrained(folder)
                self.compare(
                    f"retune {case} -> peft", folder, model, tokenizer, LABELS, EVERY_TOLERANCE, record=(case, True)
                )
            if config:
                torch.manual_seed(number)
                model = AutoModelForSequenceClassification.from_pretrained(tuned, num_labels=len(labels))
                config.task_type = "SEQ_CLS"
                model = get_peft_model(model, config)
                rng = numpy.random.default_rng(number)
                with torch.no_grad():
                    for parameter in model.parameters():
                        if parameter.requires_grad:
                            parameter += torch.from_numpy(0.03 * rng.standard_normal(tuple(parameter.shape)))
                folder = self.work / f"peft-method-{number}"
                model.save_pretrained(folder)
                tokenizer = AutoTokenizer.from_pretrained(tuned)
                self.compare(
                    f"peft {case} -> retune", folder, model, tokenizer, labels, EVERY_TOLERANCE, record=(case, False),
                    max_length=MAX_LENGTH,
                )  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--retune", type=Path, required=True, help="the binary")
    parser.add_argument("--model", type=Path, required=True, help="a BERT folder with its tokenizer")
    parser.add_argument("--methods-only", action="store_true", help="leave whole models and plain LoRA out")
    parser.add_argument("--records", type=Path, help="a file for what was exchanged")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()

    with tempfile.TemporaryDirectory() as temporary:
        records = Records(options.records)
        interchange = Interchange(Retune(options.retune), options.model.resolve(), Path(temporary), records)
        tuned = interchange.from_transformers()
        if not options.methods_only:
            interchange.from_retune()
            interchange.from_peft(*tuned)
        interchange.every_method(*tuned)
        small = lambda case, difference: interchange.row(case, difference, exchange_virtual_tokens.TOLERANCE)
        exchange_virtual_tokens.all_families(interchange.retune, interchange.work, small, records)
    sys.exit(interchange.failed)


if __name__ == "__main__":
    main()
