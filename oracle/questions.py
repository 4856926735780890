"""Extractive questions in transformers: the peer of `--task question-answering`, and fifty steps beside it.

    python oracle/questions.py split SQUAD.json DIR [--seed 0]
    python oracle/questions.py train --model DIR --train F.json --test F.json --lr 1e-4 --seed 1 [--output DIR]
    python oracle/questions.py steps --model DIR --train F.json --retune target/release/retune

`split` parts a file by article, 80 to 20, into DIR/train.json and DIR/test.json. `train` does what transformers' `run_qa.py` does
(windows of 384 tokens that share 128, the first answer learnt, 20 best starts and ends, answers of up to 30 tokens), and says
exact match and F1 on the test file in one line of JSON; with `--output` it leaves SQuAD's predictions there. `steps` trains both from one head on the same
rows in one order without dropout or padding: the losses of fifty steps agree within 1e-4, relative. What retune saves, whole and as a LoRA,
then opens in AutoModelForQuestionAnswering and in peft, where no answer is likelier than the best one by the same difference of
logits, within 1e-4, and the best answer is the same.
"""

import argparse
import json
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy
import torch
from peft import PeftModel
from retune_cli import Retune, step_losses
from same_training import decay_groups, fill
from squad_metrics import score, squad_tokens
from transformers import (
    AutoConfig,
    AutoModelForQuestionAnswering,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    get_linear_schedule_with_warmup,
)
from transformers.utils import logging

N_BEST, MAX_ANSWER_LENGTH, TOLERANCE = 20, 30, 1e-4


def read(path):
    """Questions in the order of the file: id, context, question, answers (text, start)."""
    return [
        (qa["id"], paragraph["context"], qa["question"], [(a["text"], a["answer_start"]) for a in qa["answers"]])
        for article in json.loads(Path(path).read_text(encoding="utf-8"))["data"]
        for paragraph in article["paragraphs"]
        for qa in paragraph["qas"]
    ]


def split(options):
    document = json.loads(options.file.read_text(encoding="utf-8"))
    articles = document["data"]
    order = list(range(len(articles)))
    random.Random(options.seed).shuffle(order)
    train = set(order[: round(0.8 * len(order))])
    options.folder.mkdir(parents=True, exist_ok=True)
    for name, wanted in [("train", True), ("test", False)]:
        part = [article for number, article in enumerate(articles) if (number in train) == wanted]
        path = options.folder / f"{name}.json"
        path.write_text(json.dumps({"version": "1.1", "data": part}), encoding="utf-8")
        print(f"{path}: {len(part)} articles, {len(read(path))} questions")


def encode(tokenizer, rows, options):
    return tokenizer(
        [question.lstrip() for _, _, question, _ in rows], [context for _, context, _, _ in rows],
        truncation="only_second", max_length=options.max_length, stride=options.doc_stride,
        return_overflowing_tokens=True, return_offsets_mapping=True,
    )  # fmt: skip


def features(tokenizer, rows, options):
    """Windows with their targets: the first token where the answer is not in them."""
    encoded = encode(tokenizer, rows, options)
    out = []
    for number, offsets in enumerate(encoded["offset_mapping"]):
        answers = rows[encoded["overflow_to_sample_mapping"][number]][3]
        parts = encoded.sequence_ids(number)
        first, last = parts.index(1), len(parts) - 1 - parts[::-1].index(1)
        start = end = 0
        if answers:
            text, begins = answers[0]
            ends = begins + len(text)
            if offsets[first][0] <= begins and offsets[last][1] >= ends:
                start, end = first, last
                while start <= last and offsets[start][0] <= begins:
                    start += 1
                while offsets[end][1] >= ends:
                    end -= 1
                start, end = start - 1, end + 1
        row = {key: encoded[key][number] for key in ("input_ids", "token_type_ids", "attention_mask") if key in encoded}
        out.append({**row, "start_positions": start, "end_positions": end})
    return out


@torch.no_grad()
def predict(model, tokenizer, rows, options):
    """The best answer of each question, as `postprocess_qa_predictions` finds it where every question has one."""
    model.eval()
    encoded = encode(tokenizer, rows, options)
    best = {}
    keys = [key for key in ("input_ids", "token_type_ids") if key in encoded]
    for number, offsets in enumerate(encoded["offset_mapping"]):
        out = model(**{key: torch.tensor([encoded[key][number]]) for key in keys})
        starts, ends = out.start_logits[0].numpy(), out.end_logits[0].numpy()
        parts = encoded.sequence_ids(number)
        identifier, context, _, _ = rows[encoded["overflow_to_sample_mapping"][number]]
        for start in numpy.argsort(starts)[-1 : -N_BEST - 1 : -1].tolist():
            for end in numpy.argsort(ends)[-1 : -N_BEST - 1 : -1].tolist():
                if parts[start] != 1 or parts[end] != 1 or end < start or end - start + 1 > MAX_ANSWER_LENGTH:
                    continue
                together = float(starts[start] + ends[end])
                if identifier not in best or together > best[identifier][0]:
                    best[identifier] = (together, context[offsets[start][0] : offsets[end][1]])
    return {identifier: best.get(identifier, (0.0, ""))[1] for identifier, _, _, _ in rows}


def train(options):
    torch.manual_seed(options.seed)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForQuestionAnswering.from_pretrained(options.model, dtype=torch.float32)
    rows = features(tokenizer, read(options.train), options)
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, per_device_train_batch_size=options.batch_size, learning_rate=options.lr,
            num_train_epochs=options.epochs, seed=options.seed, report_to=[], weight_decay=0.01, save_strategy="no",
            logging_strategy="no", disable_tqdm=True, use_cpu=True, lr_scheduler_type="linear",
            warmup_steps=options.warmup,
        )  # fmt: skip
        trainer = Trainer(
            model=model, args=arguments, train_dataset=rows, data_collator=DataCollatorWithPadding(tokenizer)
        )
        begin = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - begin
    test = read(options.test)
    answers = predict(model, tokenizer, test, options)
    scores = [score(squad_tokens, answers[row[0]], [text for text, _ in row[3]], False) for row in test]
    exact, f1 = (sum(column) / len(test) for column in zip(*scores))
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / "predictions.json").write_text(json.dumps(answers), encoding="utf-8")
    tokens = sum(len(row["input_ids"]) for row in rows)
    print(json.dumps({
        "lr": options.lr, "epochs": options.epochs, "seed": options.seed, "exact_match": exact, "f1": f1,
        "train_seconds": round(seconds, 1), "real_tokens_per_second": round(tokens * options.epochs / seconds),
        "windows": len(rows), "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }))  # fmt: skip


def steps(options):
    """The losses of both, step by step."""
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        config = AutoConfig.from_pretrained(options.model)
        config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
        model = AutoModelForQuestionAnswering.from_pretrained(options.model, config=config, dtype=torch.float32)
        fill(model.qa_outputs.parameters(), numpy.random.default_rng(1), 0.05)
        model.save_pretrained(work / "model")
        tokenizer = AutoTokenizer.from_pretrained(options.model)
        tokenizer.save_pretrained(work / "model")

        questions = read(options.train)
        # A question is a window at least, so these are enough.
        order = numpy.random.default_rng(0).permutation(len(questions)).tolist()[: options.steps * options.batch_size]
        paragraphs = [
            {"context": context, "qas": [{"id": i, "question": question, "answers": [
                {"text": text, "answer_start": start} for text, start in answers]}]}
            for i, context, question, answers in (questions[number] for number in order)
        ]  # fmt: skip
        shuffled = work / "rows.json"
        shuffled.write_text(json.dumps({"data": [{"title": "all", "paragraphs": paragraphs}]}), encoding="utf-8")
        optimizer = torch.optim.AdamW(decay_groups(model), lr=options.lr, betas=(0.9, 0.999), eps=1e-8)
        collate = DataCollatorWithPadding(tokenizer)
        rows = features(tokenizer, read(shuffled), options)
        batches = [rows[start : start + options.batch_size] for start in range(0, len(rows), options.batch_size)]
        total = -(-options.steps // len(batches)) * len(batches)
        schedule = get_linear_schedule_with_warmup(optimizer, 0, total)
        theirs = []
        model.train()
        for step in range(options.steps):
            # A row at a time: in a padded batch transformers lets padding compete for the places of answers.
            loss = 0.0
            batch = batches[step % len(batches)]
            for row in batch:
                share = model(**collate([row])).loss / len(batch)
                share.backward()
                loss += share.item()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            theirs.append(loss)
        print(f"transformers: {theirs[0]:.6f} to {theirs[-1]:.6f} in {len(theirs)} steps", flush=True)

        Retune(options.retune)(
            "train", model=work / "model", task="question-answering", train=shuffled, eval_split=0, method="full",
            output=work / "run", learning_rate=options.lr, epochs=total // len(batches), batch_size=options.batch_size,
            shuffle="false", schedule="linear", warmup=0, weight_decay=0.01, max_grad_norm=1.0,
            max_length=options.max_length, doc_stride=options.doc_stride, save_every="never",
        )  # fmt: skip
        ours = step_losses(work / "run")[: options.steps]
        if len(ours) != options.steps:
            sys.exit(f"expected {options.steps} steps in events.jsonl, got {len(ours)}")
        difference = max(abs(a - b) / abs(b) for a, b in zip(ours, theirs))
        print(f"largest relative difference of {options.steps} losses: {difference:.2e}", flush=True)
        Retune(options.retune)(
            "train", model=work / "model", task="question-answering", train=shuffled, eval_split=0, method="lora",
            output=work / "lora", limit=64, epochs=1, batch_size=options.batch_size, max_length=options.max_length,
            doc_stride=options.doc_stride, save_every="never",
        )  # fmt: skip
        apart = [opened(options, work, "run"), opened(options, work, "lora")]
        # Written so that a NaN fails.
        sys.exit(not (difference <= TOLERANCE and max(apart) <= TOLERANCE))


@torch.no_grad()
def opened(options, work, run):
    """The largest difference of logits between what retune saved, as transformers and peft open it, and what retune says."""
    if (work / run / "adapter_config.json").exists():
        base = AutoModelForQuestionAnswering.from_pretrained(work / "model", dtype=torch.float32)
        peft = PeftModel.from_pretrained(base, work / run)
        kind = peft.peft_config["default"].task_type
        if kind != "QUESTION_ANS":
            sys.exit(f"{run}: expected an adapter of task QUESTION_ANS, got {kind}")
        # What peft puts around it for questions leaves token types out (0.21: PeftModelForQuestionAnswering.forward).
        model = peft.base_model
    else:
        model, loaded = AutoModelForQuestionAnswering.from_pretrained(
            work / run, dtype=torch.float32, output_loading_info=True
        )  # fmt: skip
        odd = {key: names for key, names in loaded.items() if names}
        if odd:
            sys.exit(f"{run}: transformers finds {odd}")
    model.eval()
    tokenizer = AutoTokenizer.from_pretrained(work / run)
    rows = read(work / "rows.json")[:60]
    asked = [{"id": i, "context": context, "question": question} for i, context, question, _ in rows]
    (work / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked), encoding="utf-8")
    Retune(options.retune)(
        "predict", model=work / run, input=work / "asked.jsonl", output=work / "said.jsonl", overwrite=True
    )
    said = [json.loads(line) for line in (work / "said.jsonl").read_text(encoding="utf-8").splitlines()]
    nothing, best = {}, {}
    encoded = encode(tokenizer, rows, options)
    for number, offsets in enumerate(encoded["offset_mapping"]):
        out = model(**{key: torch.tensor([encoded[key][number]]) for key in ("input_ids", "token_type_ids") if key in encoded})
        starts, ends = out.start_logits[0].double(), out.end_logits[0].double()
        parts = encoded.sequence_ids(number)
        row = encoded["overflow_to_sample_mapping"][number]
        nothing[row] = min(nothing.get(row, float("inf")), float(starts[0] + ends[0]))
        text = [place for place, part in enumerate(parts) if part == 1]
        for start in text:
            for end in (place for place in text if start <= place < start + MAX_ANSWER_LENGTH):
                score = float(starts[start] + ends[end])
                if score > best.get(row, (-float("inf"), None))[0]:
                    best[row] = (score, rows[row][1][offsets[start][0] : offsets[end][1]].strip())
    apart = max(abs(one["null_odds"] - (nothing[row] - best[row][0])) for row, one in enumerate(said))
    other = sum(one["answer"] != best[row][1] for row, one in enumerate(said))
    print(f"{run}: {len(said)} questions, logits {apart:.2e} apart, {other} other answers", flush=True)
    return float("inf") if other else apart


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(required=True)
    verb = verbs.add_parser("split")
    verb.add_argument("file", type=Path)
    verb.add_argument("folder", type=Path)
    verb.add_argument("--seed", type=int, default=0)
    verb.set_defaults(run=split)
    for name, run in [("train", train), ("steps", steps)]:
        verb = verbs.add_parser(name)
        verb.add_argument("--model", type=Path, required=True)
        verb.add_argument("--train", type=Path, required=True)
        verb.add_argument("--lr", type=float, default=1e-4)
        verb.add_argument("--batch-size", type=int, default=16)
        verb.add_argument("--max-length", type=int, default=384)
        verb.add_argument("--doc-stride", type=int, default=128)
        verb.add_argument("--threads", type=int, default=torch.get_num_threads())
        verb.set_defaults(run=run)
        if run is train:
            verb.add_argument("--test", type=Path, required=True)
            verb.add_argument("--epochs", type=int, default=3)
            verb.add_argument("--warmup", type=float, default=0, help="steps, or below 1 a share of them")
            verb.add_argument("--seed", type=int, default=1)
            verb.add_argument("--output", type=Path)
        else:
            verb.add_argument("--steps", type=int, default=50)
            verb.add_argument("--retune", type=Path, required=True)
    options = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if hasattr(options, "threads"):
        torch.set_num_threads(options.threads)
    options.run(options)


if __name__ == "__main__":
    main()
