"""Bottleneck adapters in both directions: what one side saves, the other loads, and the logits agree within 1e-4.

    python oracle/interchange_adapters.py --retune target/release/retune [--seed 0]

It runs in the environment of tiny_bottlenecks.py, on random models of odd sizes.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import adapters
import numpy
import torch
from adapters import CompacterConfig, DoubleSeqBnConfig, ParBnConfig, SeqBnConfig
from retune_cli import Records, Retune, reference_logits, write_csv
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    ElectraConfig,
    ElectraModel,
    ModernBertConfig,
    ModernBertModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
)
from transformers.utils import logging

TOLERANCE, LONGEST = 1e-4, 21
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
WORDS = ["a", "card", "was", "lost", "money", "wire", "zürich", "余", "额", "now", "please", "send", "##s", "!", "my"]
LABELS = ["refund", "Überweisung", "card lost", "余额"]
METHODS = {
    "houlsby": (DoubleSeqBnConfig(reduction_factor=3), {"bottleneck_size": 4, "non_linearity": "tanh"}),
    "pfeiffer": (SeqBnConfig(reduction_factor=5), {"bottleneck_size": 7, "scaling": 0.5}),
    "parallel-adapter": (ParBnConfig(reduction_factor=2), {}),
    "compacter": (CompacterConfig(reduction_factor=3, phm_dim=2), {"bottleneck_size": 6, "phm_dim": 2}),
}


def tokenizer():
    """Whole words, by their order above."""
    words = {word: i for i, word in enumerate(SPECIAL + WORDS)}
    fast = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
    fast.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
    fast.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    fast.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=fast, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip


def bases():
    """Pretrained models, without a head."""
    common = {"vocab_size": len(SPECIAL + WORDS), "pad_token_id": 0}
    sizes = {
        "hidden_size": 18, "num_attention_heads": 3, "num_hidden_layers": 3, "intermediate_size": 29,
        "max_position_embeddings": 31,
    }  # fmt: skip
    yield "bert", BertModel(BertConfig(**sizes, **common))
    yield "bert without pooler", BertModel(BertConfig(**sizes, **common), add_pooling_layer=False)
    yield "roberta", RobertaModel(RobertaConfig(**sizes, **common, type_vocab_size=1), add_pooling_layer=False)
    yield "electra", ElectraModel(ElectraConfig(**sizes, **common, embedding_size=11))
    distil = DistilBertConfig(**common, dim=18, n_heads=3, n_layers=2, hidden_dim=25, max_position_embeddings=31)
    yield "distilbert", DistilBertModel(distil)
    # Without these biases the library gives it random ones.
    modern = ModernBertConfig(
        **sizes, **common, local_attention=6, attention_bias=True, bos_token_id=2, eos_token_id=3, cls_token_id=2,
        sep_token_id=3,
    )  # fmt: skip
    yield "modernbert", ModernBertModel(modern)


@torch.no_grad()
def move(parameters, rng, scale):
    for parameter in parameters:
        parameter += torch.from_numpy(scale * rng.standard_normal(tuple(parameter.shape))).float()


def random_rows(rng, count):
    texts = [" ".join(rng.choice(WORDS, rng.integers(1, 30))) for _ in range(count)]
    return [(text, LABELS[i % 4]) for i, text in enumerate(texts)]


class Interchange:
    def __init__(self, retune, work, rng, records):
        self.retune, self.work, self.rng, self.records, self.failed = retune, work, rng, records, False
        rows = random_rows(rng, 40)
        self.texts = [text for text, _ in rows[:12]] + ["", "unknown Ω", "余额 now!"]
        write_csv(work / "rows.csv", ["text", "category"], rows)
        print(f"{'base':20} {'method':18} {'from -> to':22} {'logit difference':>17}")

    def compare(self, base, method, direction, folder, model):
        model.eval()
        expected = reference_logits(model, tokenizer(), self.texts, LONGEST)
        ours, predicted = self.retune.predict(folder, self.texts, self.work / "predict", max_length=LONGEST)
        difference = (ours - expected).abs().max().item()
        self.records.add("adapters", method, direction.startswith("retune"), base, ours, expected)
        named = [model.config.id2label[i] for i in expected.argmax(1).tolist()]
        ok = difference < TOLERANCE and named == predicted
        self.failed |= not ok
        note = "ok" if ok else "FAILED" if named == predicted else "FAILED: other labels"
        print(f"{base:20} {method:18} {direction:22} {difference:17.2e} {note}", flush=True)

    def from_retune(self, name, base, method, flags):
        folder = self.work / f"{name} {method}"
        self.retune.train(
            base, self.work / "rows.csv", folder, method, epochs=2, batch_size=7, learning_rate=2e-2,
            max_length=LONGEST, **flags,
        )  # fmt: skip
        model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=4)
        adapters.init(model)
        report = {}
        model.load_adapter(str(folder), use_safetensors=True, set_active=True, loading_info=report)
        assert not report.get("missing_keys"), report
        self.compare(name, method, "retune -> adapters", folder, model)

    def from_adapters(self, name, base, method, config):
        folder = self.work / f"theirs {name} {method}"
        model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=4)
        # In no order, which the head's file knows.
        model.config.id2label = dict(enumerate(LABELS))
        model.config.label2id = {label: i for i, label in enumerate(LABELS)}
        adapters.init(model)
        model.add_adapter("theirs", config=config)
        model.train_adapter("theirs")
        move([p for p in model.parameters() if p.requires_grad], self.rng, 0.3)
        model.save_adapter(str(folder), "theirs", use_safetensors=True, with_head=True)
        assert json.loads((folder / "adapter_config.json").read_text())["model_name"] == str(base)
        self.compare(name, method, "adapters -> retune", folder, model)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--retune", type=Path, required=True, help="the binary")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--records", type=Path, help="a file for what was exchanged")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    torch.manual_seed(options.seed)
    with tempfile.TemporaryDirectory() as temporary:
        work, rng = Path(temporary), numpy.random.default_rng(options.seed)
        interchange = Interchange(Retune(options.retune), work, rng, Records(options.records))
        for name, model in bases():
            base = work / name
            # The weights of a new model are so small that nothing depends on the text.
            move(model.parameters(), rng, 0.2)
            model.save_pretrained(base)
            tokenizer().save_pretrained(base)
            for method, (config, flags) in METHODS.items():
                interchange.from_retune(name, base, method, flags)
                # Its pooler would be random, and the library saves none.
                if name != "bert without pooler":
                    interchange.from_adapters(name, base, method, config)
    sys.exit(interchange.failed)


if __name__ == "__main__":
    main()
