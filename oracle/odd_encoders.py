"""Encoders that no one tried before: random shapes saved by transformers, trained by retune, and exchanged both ways.

    python oracle/odd_encoders.py --retune target/release/retune [--family roberta] [--count 10] [--seed 0]

For each model, the logits of `retune predict` and of transformers agree within 1e-4, as a share of the largest, on
  full     what retune trained whole
  back     the same, altered and saved by transformers
  lora     an adapter that retune trained, in peft
  peft     an adapter that peft made, on what retune trained
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy
import torch
from families import FAMILIES, random_rows
from peft import LoraConfig, PeftModel, get_peft_model
from retune_cli import Retune, reference_logits, relative, write_csv
from safetensors import safe_open
from tiny_bert import randomise
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging

TOLERANCE = 1e-4


def choose(rng, *values):
    return values[rng.integers(len(values))]


def random_model(family, rng):
    """A model, how many labels it will be trained for, and the size of its files."""
    heads, layers = int(rng.integers(1, 8)), int(rng.integers(1, 5))
    # LayerNorm of one channel is its bias: nothing could be learned.
    head_size = int(rng.integers(2 if heads == 1 else 1, 12)) * (2 if family.even_heads else 1)
    num_labels = int(rng.integers(2, 7))
    end = choose(rng, *family.saved_as)
    sizes = {
        "hidden_size": heads * head_size, "num_attention_heads": heads, "num_hidden_layers": layers,
        "intermediate_size": int(rng.integers(1, 90)),
        "vocab_size": family.smallest_vocabulary + int(rng.integers(0, 171)),
        "type_vocab_size": int(rng.integers(1, 5)),
        "max_position_embeddings": int(rng.integers(16, 71)) + family.counts_from,
        "hidden_act": choose(rng, "gelu", "gelu_new", "relu", "silu", "gelu_pytorch_tanh", "tanh"),
        "layer_norm_eps": choose(rng, 1e-12, 1e-5, 1e-3), "hidden_dropout_prob": choose(rng, 0.0, 0.1),
        "embedding_size": choose(rng, heads * head_size, int(rng.integers(2, 20))),
    }  # fmt: skip
    config = family.config(sizes, **({"num_labels": num_labels} if "Sequence" in end else {}))
    poolers = end == "Model" and family.classes not in ("DistilBert", "Electra", "ModernBert")
    options = {"add_pooling_layer": bool(rng.integers(2))} if poolers else {}
    model = family.named(end)(config, **options)
    randomise(model.named_parameters(), rng)
    dtype, shard = choose(rng, torch.float32, torch.float16, torch.bfloat16), choose(rng, "1GB", "5KB")
    return model.to(dtype), num_labels, shard


def stored_dtypes(folder):
    dtypes = set()
    for file in folder.glob("model*.safetensors"):
        with safe_open(file, "pt") as tensors:
            dtypes |= {tensors.get_slice(name).get_dtype() for name in tensors.keys()}
    return "/".join(sorted(dtypes))


@torch.no_grad()
def move(model, rng):
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter += torch.from_numpy(0.03 * rng.standard_normal(tuple(parameter.shape)))


def describe(seed, model, base):
    config = model.config
    shape = [config.hidden_size, config.num_attention_heads, config.num_hidden_layers]
    shape += [getattr(config, "intermediate_size", None) or config.hidden_dim]
    shape += [config.vocab_size, getattr(config, "type_vocab_size", 0), config.max_position_embeddings]
    names = ("hidden_act", "activation", "hidden_activation")
    activation = next(getattr(config, name) for name in names if hasattr(config, name))
    shards = len(list(base.glob("model*.safetensors")))
    print(
        f"{seed:4} {type(model).__name__:35} {'/'.join(map(str, shape)):24} {activation:17} {stored_dtypes(base):4} "
        f"{shards:3}", end=" ", flush=True,
    )  # fmt: skip


def try_one(retune, family, seed, work):
    """The differences, by what was exchanged."""
    rng = numpy.random.default_rng([seed, *family.classes.encode()])
    model, num_labels, shard = random_model(family, rng)
    base, run, back = work / "base", work / "run", work / "back"
    model.save_pretrained(base, max_shard_size=shard)
    family.tokenizer(model.config).save_pretrained(base)
    longest = model.config.max_position_embeddings - family.counts_from
    labels = sorted(f"label {i}" for i in range(num_labels))
    rows = random_rows(rng, labels, 40)
    write_csv(work / "rows.csv", ["text", "category"], rows)
    describe(seed, model, base)

    settings = {"epochs": 1, "batch_size": 7, "learning_rate": 5e-3, "max_length": longest, "seed": seed}
    texts = [text for text, _ in rows[:10]] + ["", "unknown Ω", "余 é", "<pad> a <pad>", "[PAD]"]

    def compare(model, folder, **flags):
        expected = reference_logits(model, AutoTokenizer.from_pretrained(base), texts, longest)
        ours, predicted = retune.predict(folder, texts, work / "predict", **flags)
        names = [model.config.id2label[i] for i in ours.argmax(1).tolist()]
        assert predicted == names, "labels do not follow the logits"
        return relative(ours, expected)

    def load(folder, **options):
        return AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32, **options)

    retune.train(base, work / "rows.csv", run, "full", **settings)
    trained = load(run)
    assert trained.config.architectures == [family.classes + "ForSequenceClassification"]
    differences = {"full": compare(trained, run)}
    move(trained, rng)
    trained.save_pretrained(back)
    AutoTokenizer.from_pretrained(run).save_pretrained(back)
    differences["back"] = compare(trained, back, max_length=longest)

    retune.train(base, work / "rows.csv", work / "lora", "lora", rank=3, alpha=7, **settings)
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    adapted = PeftModel.from_pretrained(load(base, **names), work / "lora")
    differences["lora"] = compare(adapted, work / "lora")

    lora = LoraConfig(task_type="SEQ_CLS", r=3, lora_alpha=7, target_modules=family.all_linear)
    adapter = get_peft_model(load(run), lora)
    move(adapter, rng)
    adapter.save_pretrained(work / "peft")
    differences["peft"] = compare(adapter, work / "peft", max_length=longest)
    return differences


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--retune", type=Path, required=True, help="the binary")
    parser.add_argument("--family", choices=FAMILIES, help="one of them alone")
    parser.add_argument("--count", type=int, default=10, help="models of each family")
    parser.add_argument("--seed", type=int, default=0, help="the first model's; the next one's is one more")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()

    print("sizes: hidden/heads/layers/intermediate/vocabulary/types/positions")
    print(f"seed {'saved as':35} {'sizes':24} {'activation':17} type files    full     back     lora     peft")
    tried = failures = 0
    for name in [options.family] if options.family else FAMILIES:
        for seed in range(options.seed, options.seed + options.count):
            tried += 1
            with tempfile.TemporaryDirectory() as temporary:
                try:
                    differences = try_one(Retune(options.retune), FAMILIES[name], seed, Path(temporary)).values()
                except (RuntimeError, AssertionError, OSError, ValueError) as error:
                    failures += 1
                    print(f"FAILED\n{error}")
                    continue
            # Written so that a NaN fails.
            agree = all(difference <= TOLERANCE for difference in differences)
            failures += not agree
            print(*(f"{difference:.2e}" for difference in differences), "ok" if agree else "FAILED", flush=True)
    print(f"{tried - failures} of {tried} agree")
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
