"""BERTs that no one tried before: random shapes saved by transformers, trained by retune, read back by transformers.

    python oracle/odd_berts.py --retune target/release/retune [--count 25] [--seed 0]

The logits of `retune predict` and of transformers on the trained folder agree within 1e-4, as a share of the largest.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy
import torch
from retune_cli import Retune, reference_logits, relative, write_csv
from safetensors import safe_open
from tiny_bert import randomise
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertForSequenceClassification,
    BertModel,
    BertTokenizer,
)
from transformers.utils import logging

TOLERANCE = 1e-4
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
# Characters and their continuations, so that any word splits into known pieces; then whole words while there is room.
CHARACTERS = list("abcdeilnorstu")
PIECES = CHARACTERS + ["##" + c for c in CHARACTERS] + ["é", "余"]
TAILS = ["n", "st", "ral", "do", "tis", "lue"]
WORDS = [a + b + tail for a, b in zip("bcdlnrst" * 3, "aeiou" * 5) for tail in TAILS]


def choose(rng, *values):
    return values[rng.integers(len(values))]


def random_bert(rng):
    """A config, the class to save it as, and how to save it."""
    heads, layers = int(rng.integers(1, 8)), int(rng.integers(1, 5))
    # LayerNorm of one channel is its bias: nothing could be learned.
    head_size = int(rng.integers(2 if heads == 1 else 1, 12))
    num_labels = int(rng.integers(2, 7))
    model_class = choose(rng, BertForSequenceClassification, BertForPreTraining, BertForMaskedLM, BertModel)
    config = BertConfig(
        hidden_size=heads * head_size, num_attention_heads=heads, num_hidden_layers=layers,
        intermediate_size=int(rng.integers(1, 90)), vocab_size=int(rng.integers(30, 201)),
        type_vocab_size=int(rng.integers(1, 5)), max_position_embeddings=int(rng.integers(16, 71)),
        hidden_act=choose(rng, "gelu", "gelu_new", "relu", "silu", "gelu_pytorch_tanh", "tanh"),
        layer_norm_eps=choose(rng, 1e-12, 1e-5, 1e-3), hidden_dropout_prob=choose(rng, 0.0, 0.1),
        pad_token_id=0, **({"num_labels": num_labels} if model_class is BertForSequenceClassification else {}),
    )  # fmt: skip
    options = {"add_pooling_layer": bool(rng.integers(2))} if model_class is BertModel else {}
    dtype, shard = choose(rng, torch.float32, torch.float16, torch.bfloat16), choose(rng, "1GB", "5KB")
    return config, num_labels, model_class(config, **options).to(dtype), dtype, shard


def save_tokenizer(config, folder):
    vocabulary = {piece: i for i, piece in enumerate((SPECIAL + PIECES + WORDS)[: config.vocab_size])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    BertTokenizer(tokenizer_object=tokenizer, model_max_length=config.max_position_embeddings).save_pretrained(folder)


def random_rows(rng, labels, count=40):
    def text(index):
        words = rng.choice(CHARACTERS + WORDS[:40] + ["é", "余", "Dr", "?"], rng.integers(1, 25))
        return " ".join([WORDS[index % len(labels)], *words])

    return [(text(i), labels[i % len(labels)]) for i in range(count)]


def stored_dtypes(folder):
    dtypes = set()
    for file in folder.glob("model*.safetensors"):
        with safe_open(file, "pt") as tensors:
            dtypes |= {tensors.get_slice(name).get_dtype() for name in tensors.keys()}
    return "/".join(sorted(dtypes))


def try_one(retune, seed, work):
    rng = numpy.random.default_rng(seed)
    config, num_labels, model, dtype, shard = random_bert(rng)
    randomise(model.named_parameters(), rng)
    base = work / "base"
    model.save_pretrained(base, max_shard_size=shard)
    save_tokenizer(config, base)
    labels = sorted(f"label {i}" for i in range(num_labels))
    rows = random_rows(rng, labels)
    write_csv(work / "rows.csv", ["text", "category"], rows)

    shape = f"{config.hidden_size}/{config.num_attention_heads}/{config.num_hidden_layers}/{config.intermediate_size}"
    vocabulary = f"{config.vocab_size}/{config.type_vocab_size}/{config.max_position_embeddings}"
    name = type(model).__name__.removeprefix("Bert") + ("" if getattr(model, "pooler", 1) else " no pooler")
    shards = len(list(base.glob("model*.safetensors")))
    print(
        f"{seed:4} {name:26} {shape:12} {vocabulary:11} {config.hidden_act:17} {stored_dtypes(base):4} {shards:2}",
        end=" ", flush=True,
    )  # fmt: skip
    retune.train(
        base, work / "rows.csv", work / "run", "full", epochs=1, batch_size=7, learning_rate=5e-3,
        max_length=config.max_position_embeddings, seed=seed,
    )  # fmt: skip
    trained = AutoModelForSequenceClassification.from_pretrained(work / "run", dtype=torch.float32)
    texts = [text for text, _ in rows[:10]] + ["", "unknown Ω", "余 é"]
    tokenizer = AutoTokenizer.from_pretrained(work / "run")
    expected = reference_logits(trained, tokenizer, texts, config.max_position_embeddings)
    ours, predicted = retune.predict(work / "run", texts, work / "predict")
    assert predicted == [trained.config.id2label[i] for i in ours.argmax(1).tolist()], "labels do not follow the logits"
    return relative(ours, expected)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--retune", type=Path, required=True, help="the binary")
    parser.add_argument("--count", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0, help="the first model's; the next one's is one more")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()

    print("sizes: hidden/heads/layers/intermediate, then vocabulary/types/positions")
    print(f"seed {'saved as':26} {'sizes':24} {'activation':17} type files difference")
    failures = 0
    for seed in range(options.seed, options.seed + options.count):
        with tempfile.TemporaryDirectory() as temporary:
            try:
                difference = try_one(Retune(options.retune), seed, Path(temporary))
            except (RuntimeError, AssertionError, OSError, ValueError) as error:
                failures += 1
                print(f"FAILED\n{error}")
                continue
        # Written so that a NaN fails.
        failures += not difference <= TOLERANCE
        print(f"{difference:.2e} {'ok' if difference <= TOLERANCE else 'FAILED'}", flush=True)
    print(f"{options.count - failures} of {options.count} agree")
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
