"""Reference values for every task, by transformers: crates/adapt/tests/golden/every_task.

    python oracle/every_task.py

One tiny random BERT, and for each task a file of rows, a head that is filled from a seed, and what transformers' class for that
task says: the logits of each row (read alone, so that no padding takes part) and the loss over all of them. Labels are set as
transformers' own examples do: a class, several of 0 and 1, a number, a tag at the first token of each word, and the tokens of an
answer in windows of its text.
"""

import json
import shutil
from pathlib import Path

import numpy
import torch
from question_windows import windows
from safetensors.torch import save_file
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    BertConfig,
    BertModel,
)
from transformers.utils import logging

ROOT = Path(__file__).resolve().parent.parent
TOKENIZER = ROOT / "crates/model/tests/golden/tokenizer/uncased"
OUT = ROOT / "crates/adapt/tests/golden/every_task"
MAX_LENGTH, STRIDE = 30, 6

SINGLE = [
    ("my card is lost", "lost"), ("transfer my money", "pay"), ("is the card not lost?", "lost"), ("pay!", "pay"),
    ("the 中国 card", "other"), ("not my card, not my money.", "other"), ("unpayable transfer", "pay"),
]  # fmt: skip
MULTI = [
    ("my card is lost", ["card", "lost"]), ("transfer my money", ["money"]), ("is it not?", []), ("money lost!", ["lost", "money"]),
    ("card", ["card"]), ("pay by card. lost", ["card", "lost", "money"]),
]  # fmt: skip
NUMBERS = [("my card is lost", 1.5), ("transfer my money", -0.25), ("pay", 4.0), ("the card, the money", 2.125)]
# A word of several tokens, one without a token of its own, two that the tokenizer takes apart.
WORDS = [
    (["my", "unpayable", "transfer", "is", "lost"], ["O", "B-act", "I-act", "O", "O"]),
    (["pay", "!", "中国", "not"], ["B-act", "O", "B-land", "O"]),
    (["中", "国", "Card", "un-paid"], ["B-land", "I-land", "O", "B-act"]),
    (["the"], ["O"]),
    (["a", "transfer", "B", "unpaying", "cards", "."], ["O", "I-act", "B-land", "B-act", "I-act", "O"]),
]  # fmt: skip
TEXT = "the card is not lost. my payment is lost, and the transfer is not."
QUESTIONS = [
    ("is my card lost?", TEXT, "payment", 25), ("is my card lost?", TEXT, None, None), ("lost", "my card is lost", "card", 3),
    ("my 卡?", "中国卡丢了, the card is not", "中国", 0),
]  # fmt: skip


def single(tokenizer, model):
    labels = ["lost", "other", "pay"]
    for text, label in SINGLE:
        yield tokenizer(text, return_tensors="pt"), {"labels": torch.tensor([labels.index(label)])}


def multi(tokenizer, model):
    labels = ["card", "lost", "money"]
    for text, chosen in MULTI:
        yield tokenizer(text, return_tensors="pt"), {"labels": torch.tensor([[float(name in chosen) for name in labels]])}


def number(tokenizer, model):
    for text, value in NUMBERS:
        yield tokenizer(text, return_tensors="pt"), {"labels": torch.tensor([value])}


def words(tokenizer, model):
    labels = ["B-act", "B-land", "I-act", "I-land", "O"]
    for tokens, tags in WORDS:
        row = tokenizer(tokens, is_split_into_words=True, return_tensors="pt")
        target, last = [], None
        for word in row.word_ids():
            target.append(-100 if word is None or word == last else labels.index(tags[word]))
            last = word
        yield row, {"labels": torch.tensor([target])}


def questions(tokenizer, model):
    for question, text, answer, start in QUESTIONS:
        for window in windows(tokenizer, question, text, answer and (answer, start), MAX_LENGTH, STRIDE):
            row = {key: torch.tensor([window[key]]) for key in ("input_ids", "token_type_ids")}
            first, last = window["target"]
            yield row, {"start_positions": torch.tensor([first]), "end_positions": torch.tensor([last])}


def jsonl(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


# By the name of a task's form: the class, its outputs, its problem type, the rows of the file, and their targets.
TASKS = {
    "single-label": (
        AutoModelForSequenceClassification, 3, "single_label_classification", jsonl({"text": t, "label": x} for t, x in SINGLE), single,
    ),
    "multi-label": (
        AutoModelForSequenceClassification, 3, "multi_label_classification", jsonl({"text": t, "label": x} for t, x in MULTI), multi,
    ),
    "regression": (AutoModelForSequenceClassification, 1, "regression", jsonl({"text": t, "label": x} for t, x in NUMBERS), number),
    "token-classification": (
        AutoModelForTokenClassification, 5, None, jsonl({"tokens": t, "tags": x} for t, x in WORDS), words,
    ),
    "question-answering": (
        AutoModelForQuestionAnswering, 2, None,
        jsonl(
            {"question": q, "context": c, "answers": [] if a is None else [{"text": a, "answer_start": s}]} for q, c, a, s in QUESTIONS
        ),
        questions,
    ),
}  # fmt: skip


def main():
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.manual_seed(7)
    shutil.rmtree(OUT, ignore_errors=True)
    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20,
        max_position_embeddings=48, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1, initializer_range=0.4,
    )  # fmt: skip
    BertModel(config).save_pretrained(OUT / "model")
    tensors = {}
    for name, (auto, outputs, problem_type, rows, targets) in TASKS.items():
        (OUT / f"{name}.jsonl").write_text(rows, encoding="utf-8")
        kind = {"problem_type": problem_type} if problem_type else {}
        model = auto.from_pretrained(OUT / "model", num_labels=outputs, dtype=torch.float32, **kind).eval()
        last = model.qa_outputs if hasattr(model, "qa_outputs") else model.classifier
        rng = numpy.random.default_rng(5)
        logits, losses = [], []
        with torch.no_grad():
            for parameter in last.parameters():
                parameter.copy_(torch.from_numpy(rng.standard_normal(tuple(parameter.shape)) * 0.8))
            for row, target in targets(tokenizer, model):
                out = model(**row, **target)
                logits.append(out.logits[0] if "logits" in out else torch.stack([out.start_logits[0], out.end_logits[0]], -1))
                # transformers' mean is over words; that of a file is over all of its words.
                weight = int((target["labels"] != -100).sum()) if name == "token-classification" else 1
                losses.append((out.loss, weight))
        loss = sum(one * weight for one, weight in losses) / sum(weight for _, weight in losses)
        for what, value in {
            "weight": last.weight, "bias": last.bias, "loss": loss.reshape(1),
            "logits": torch.cat([row.reshape(-1) for row in logits]),
        }.items():  # fmt: skip
            tensors[f"{name}.{what}"] = value.detach().float().contiguous()
    save_file(tensors, OUT / "expected.safetensors")


if __name__ == "__main__":
    main()
