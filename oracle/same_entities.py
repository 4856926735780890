"""Named entities trained in transformers and in retune from the same start: the losses of all steps agree within 1e-4, relative.

    python oracle/same_entities.py --model MINILM --train wnut17train.conll --retune target/release/retune

Both see the same sentences in one order, batches of 32, no dropout, the same random head and, for LoRA, the same A and B:
twenty steps. A word's label stands at its first token, as in transformers' own example. The results are then opened by the
other side: AutoModelForTokenClassification and peft give, for each word, the tag that retune wrote, and for each entity its
probability, within 1e-4.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from retune_cli import Retune, step_losses
from same_training import BATCH, DROPOUTS, LEARNING_RATES, TOLERANCE, decay_groups, fill
from transformers import (
    AutoConfig,
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    get_linear_schedule_with_warmup,
)
from transformers.utils import logging

STEPS, MAX_LENGTH = 20, 128


def read_conll(path):
    sentences, words = [], []
    for line in [*open(path, encoding="utf-8"), "\n"]:
        if line.strip():
            words.append(line.rstrip("\n").split("\t")[:2])
        elif words:
            sentences.append(words)
            words = []
    return sentences


def write_conll(path, sentences):
    with open(path, "w", encoding="utf-8") as file:
        for words in sentences:
            file.writelines(f"{word}\t{tag}\n" for word, tag in words)
            file.write("\n")


def prepare(base, labels, folder):
    rng = numpy.random.default_rng(1)
    config = AutoConfig.from_pretrained(
        base, num_labels=len(labels), id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
    )  # fmt: skip
    for name in DROPOUTS:
        if hasattr(config, name):
            setattr(config, name, 0.0)
    model = AutoModelForTokenClassification.from_pretrained(base, config=config, dtype=torch.float32)
    fill(model.classifier.parameters(), rng, 0.05)
    model.save_pretrained(folder / "model")
    AutoTokenizer.from_pretrained(base).save_pretrained(folder / "model")
    lora = LoraConfig(
        task_type="TOKEN_CLS", r=8, lora_alpha=16, lora_dropout=0.0, target_modules=["query", "value"],
        modules_to_save=["classifier"],
    )  # fmt: skip
    model = get_peft_model(AutoModelForTokenClassification.from_pretrained(folder / "model"), lora)
    fill([p for name, p in model.named_parameters() if ".lora_" in name], rng, 0.03)
    model.save_pretrained(folder / "adapter")
    return {"full": folder / "model", "lora": folder / "adapter"}


def load(starts, method, folder=None):
    base = folder if folder and method == "full" else starts["full"]
    model = AutoModelForTokenClassification.from_pretrained(base, dtype=torch.float32)
    if method == "lora":
        model = PeftModel.from_pretrained(model, folder or starts["lora"], is_trainable=folder is None)
    return model


def encode(tokenizer, sentences, label2id):
    rows = []
    for words in sentences:
        row = tokenizer([w for w, _ in words], truncation=True, max_length=MAX_LENGTH, is_split_into_words=True)
        labels, last = [], None
        for word in row.word_ids():
            labels.append(-100 if word is None or word == last else label2id[words[word][1]])
            last = word
        rows.append({**row, "labels": labels})
    return rows


def reference_losses(starts, method, sentences, rate):
    model = load(starts, method).train()
    tokenizer = AutoTokenizer.from_pretrained(starts["full"])
    rows = encode(tokenizer, sentences, model.config.label2id)
    collate = DataCollatorForTokenClassification(tokenizer)
    optimizer = torch.optim.AdamW(decay_groups(model), lr=rate, betas=(0.9, 0.999), eps=1e-8)
    schedule = get_linear_schedule_with_warmup(optimizer, 0, STEPS)
    losses = []
    for start in range(0, len(rows), BATCH):
        loss = model(**collate(rows[start : start + BATCH])).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@torch.no_grad()
def tags(model, tokenizer, sentences):
    """The tag of each word's first token and its probability; O where a word has none."""
    model.eval()
    all_tags = []
    for words in sentences:
        row = tokenizer([w for w, _ in words], return_tensors="pt", is_split_into_words=True)
        shares, best = model(**row).logits[0].softmax(-1).max(-1)
        named = {}
        for place, word in enumerate(row.word_ids()):
            if word is not None:
                named.setdefault(word, (model.config.id2label[best[place].item()], shares[place].item()))
        all_tags.append([named.get(word, ("O", 0.0)) for word in range(len(words))])
    return all_tags


def scores_apart(path, sentences, named):
    """How far the scores of the entities in `path` are from the mean probability of their words, and how many there are."""
    apart, count = 0.0, 0
    for line, words, tags in zip(path.read_text(encoding="utf-8").splitlines(), sentences, named, strict=True):
        ends = numpy.cumsum([len(word) + 1 for word, _ in words]) - 1
        for entity in json.loads(line)["entities"]:
            inside = [tag[1] for tag, end in zip(tags, ends) if entity["start"] < end <= entity["end"]]
            apart = max(apart, abs(sum(inside) / len(inside) - entity["score"]))
            count += 1
    return apart, count


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="all-MiniLM-L6-v2, a folder")
    parser.add_argument("--train", type=Path, required=True, help="a file in CoNLL's form, with tabs")
    parser.add_argument("--retune", type=Path, required=True, help="the binary")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    failed = False
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        sentences = read_conll(options.train)
        order = numpy.random.default_rng(0).permutation(len(sentences))
        chosen = [sentences[i] for i in order[: STEPS * BATCH]]
        write_conll(work / "train.conll", chosen)
        labels = sorted({tag for words in chosen for _, tag in words})
        starts = prepare(options.model, labels, work)
        retune = Retune(options.retune)
        print(
            f"{'method':8} {'first loss':>12} {'last loss':>12} {'largest relative difference':>28} {'tags that differ':>18} "
            f"{'scores apart':>22}"
        )
        for method, rate in LEARNING_RATES.items():
            theirs = reference_losses(starts, method, chosen, rate)
            output = work / f"run-{method}"
            retune(
                "train", model=starts[method], task="token-classification", train=work / "train.conll", eval_split=0,
                method=method, output=output, learning_rate=rate, epochs=1, batch_size=BATCH, shuffle="false",
                schedule="linear", warmup=0, weight_decay=0.01, max_grad_norm=1.0, max_length=MAX_LENGTH,
            )  # fmt: skip
            ours = step_losses(output)
            if len(ours) != STEPS:
                sys.exit(f"{method}: expected {STEPS} steps in events.jsonl, got {len(ours)}")
            difference = max(abs(a - b) / abs(b) for a, b in zip(ours, theirs))
            some = chosen[:100]
            write_conll(work / "some.conll", some)
            predicted = work / f"predicted-{method}.conll"
            retune("predict", model=output, input=work / "some.conll", output=predicted)
            scored = work / f"scored-{method}.jsonl"
            retune("predict", model=output, input=work / "some.conll", output=scored)
            lines = [line.split("\t") for line in predicted.read_text(encoding="utf-8").splitlines() if line]
            model = load(starts, method, output)
            by_sentence = tags(model, AutoTokenizer.from_pretrained(output), some)
            apart, entities = scores_apart(scored, some, by_sentence)
            named = [tag for words in by_sentence for tag, _ in words]
            differ = sum(line[2] != tag for line, tag in zip(lines, named, strict=True))
            good = difference <= TOLERANCE and differ == 0 and apart <= TOLERANCE and entities > 0
            failed |= not good
            verdict = f"{difference:.2e} {'ok' if difference <= TOLERANCE else 'TOO LARGE'}"
            print(f"{method:8} {theirs[0]:12.6f} {theirs[-1]:12.6f} {verdict:>28} {differ:>9} of {len(named)} {apart:>9.2e} of {entities}", flush=True)
            if method == "lora":
                kind = json.loads((output / "adapter_config.json").read_text())["task_type"]
                failed |= kind != "TOKEN_CLS"
    sys.exit(failed)


if __name__ == "__main__":
    main()
