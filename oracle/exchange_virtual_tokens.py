"""Prefixes and prompts in both directions: what one side saves, the other loads, on random models of four families.

    python oracle/exchange_virtual_tokens.py --retune target/release/retune

`oracle/interchange.py` runs it too. Logits agree within 1e-4, as a share of the largest.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy
import torch
from families import FAMILIES, random_rows
from peft import PeftModel, get_peft_model
from retune_cli import Records, Retune, reference_logits, relative, write_csv
from tiny_bert import randomise
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging
from virtual_tokens import config

TOLERANCE, COUNT, HIDDEN, LONGEST = 1e-4, 4, 7, 48
METHODS = ["prefix-tuning", "p-tuning-v2", "prompt-tuning", "p-tuning"]
LABELS = ["blue", "green", "red"]


def peft_config(method, model):
    """DistilBERT's configuration has no names that peft knows sizes by."""
    sizes = model.config
    prefix = method in ("prefix-tuning", "p-tuning-v2")
    made = config(method, sizes.hidden_size if prefix else model.get_input_embeddings().embedding_dim)
    made.num_layers, made.num_attention_heads = sizes.num_hidden_layers, sizes.num_attention_heads
    return made


def exchange(retune, family, work, row, records):
    """`row` is told each case and its difference."""
    name, family = family, FAMILIES[family]
    rng = numpy.random.default_rng(list(name.encode()))
    sizes = {
        "hidden_size": 24, "num_attention_heads": 4, "num_hidden_layers": 3, "intermediate_size": 37, "vocab_size": 300,
        "type_vocab_size": 2, "max_position_embeddings": LONGEST + family.counts_from, "hidden_act": "gelu",
        "layer_norm_eps": 1e-12, "embedding_size": 10,
    }  # fmt: skip
    names = {"id2label": dict(enumerate(LABELS)), "label2id": {label: i for i, label in enumerate(LABELS)}}
    model = family.named("ForSequenceClassification")(family.config(sizes, **names))
    randomise(model.named_parameters(), rng)
    base, longest = work / name, LONGEST - COUNT
    model.save_pretrained(base)
    family.tokenizer(model.config).save_pretrained(base)
    tokenizer = AutoTokenizer.from_pretrained(base)
    rows = random_rows(rng, LABELS, 40)
    write_csv(work / "rows.csv", ["text", "category"], rows)
    texts = [text for text, _ in rows[:10]] + ["", "unknown Ω", "a " * 99]

    def compare(method, to_peft, model, folder, **flags):
        ours, _ = retune.predict(folder, texts, work / "predict", **flags)
        theirs = reference_logits(model, tokenizer, texts, longest)
        case = f"retune {method} -> peft" if to_peft else f"peft {method} -> retune predict"
        row(f"{name}: {case}", relative(ours, theirs))
        records.add("peft", method, to_peft, name, ours, theirs)

    def load():
        return AutoModelForSequenceClassification.from_pretrained(base, dtype=torch.float32)

    for method in METHODS:
        if name == "distilbert" and method in ("prefix-tuning", "p-tuning-v2"):
            continue  # peft has none, as its model in transformers keeps no keys.
        run, flags = work / f"{name}-{method}", {"num_virtual_tokens": COUNT}
        if method in ("prefix-tuning", "p-tuning"):
            flags["encoder_hidden_size"] = HIDDEN
        retune.train(
            base, work / "rows.csv", run, method, epochs=2, batch_size=7, learning_rate=1e-2, max_length=longest, **flags
        )
        compare(method, True, PeftModel.from_pretrained(load(), run), run)
        model = get_peft_model(load(), peft_config(method, load()))
        randomise([(n, p) for n, p in model.named_parameters() if p.requires_grad], rng)
        model.save_pretrained(work / f"{name}-{method}-peft", save_embedding_layers=False)
        compare(method, False, model, work / f"{name}-{method}-peft", max_length=longest)


def all_families(retune, work, row, records):
    for family in ("bert", "roberta", "electra", "distilbert"):
        exchange(retune, family, work, row, records)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--retune", type=Path, required=True, help="the binary")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    failed = []

    def row(case, difference):
        ok = difference <= TOLERANCE
        failed.extend([] if ok else [case])
        print(f"{case:62} {difference:10.2e} {'ok' if ok else 'FAILED'}", flush=True)

    with tempfile.TemporaryDirectory() as temporary:
        all_families(Retune(options.retune), Path(temporary), row, Records(None))
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
