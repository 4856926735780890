"""Golden values for the tokenizer, from those of transformers over tiny vocabularies.

    python oracle/tokenizer.py [--output crates/model/tests/golden/tokenizer]

Each folder is a tokenizer as it may lie beside a checkpoint:
  uncased      as transformers saves it today, but with padding and truncation switched on in tokenizer.json
  cased-left   a tokenizer.json for lower case, whose tokenizer_config.json says otherwise, and cuts from the left
  old          vocab.txt, tokenizer_config.json and special_tokens_map.json alone; the lines end in CR LF
  distilbert   a BERT's, cased, under the name of another class: it gives no token types
  roberta      a byte-level BPE whose tokenizer_config.json asks for a space before the first word, its tokenizer.json not
  xlm-roberta  a Unigram
  modernbert   a byte-level BPE with the special tokens of a BERT, of no class of its own: it gives no token types
expected.json has for each folder its rows: text, pair (or null), max_length, input_ids, token_type_ids, and truncated, the tokens
that truncation=True took away.
"""

import argparse
import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoTokenizer,
    BertTokenizerFast,
    PreTrainedTokenizerFast,
    RobertaTokenizer,
    XLMRobertaTokenizer,
)
from transformers.utils import logging

REPOSITORY = Path(__file__).resolve().parent.parent

LETTERS = "abcdefghijklmnoprstuvwxyz"  # No q: words with it are unknown.
VOCAB = (
    ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    + list(LETTERS)
    + ["##" + letter for letter in LETTERS]
    + "the my card pay lost is not transfer money ##ment ##ing ##ed un ##able".split()
    + "é ##é ß ##ß Z ##Ü C Card É ##É с ч ##ч ##е ##т".split()
    + "中 国 ##国 卡 丢 了 ! ? . , - ' : 1 2 ##2 ##3 € 😀 豈".split(" ")
)

ROWS = [
    # text, pair, max_length
    ("", None, 16),
    (" \t\r\n ", None, 16),
    ("the card is lost", None, 16),
    ("The CARD is LOST!", None, 16),
    ("my payment is not transferable", None, 32),
    ("unpayable, repayed: un-paid?", None, 32),
    ("quick unquiet pay", None, 16),
    ("café Café CAFÉ cafe\u0301 CAFE\u0301", None, 40),
    ("Zürich, Straße, naïve ÀÉÎ", None, 40),
    ("İstanbul ǅ ﬁne Å Å", None, 40),
    ("счет Счёт СЧЕТ", None, 24),
    ("中国卡丢了", None, 16),
    ("my卡is丢了not中国。", None, 24),
    ("カード が lost です 카드", None, 40),
    ("𠀀 卡 豈", None, 16),
    ("😀 lost 😀😀 👩‍👩‍👧 🇨🇳", None, 32),
    ("€12 or $ 123.50", None, 24),
    ("zero\u200bwidth no\u00a0break soft\u00adhyphen \ufefftop", None, 48),
    ("null\x00in\x07control\x7f \ufffd end", None, 32),
    ("line\u2028separator\u0085next\u3000ideographic", None, 48),
    ("it's, um... -- 'quoted'?!", None, 32),
    ("[CLS] the [MASK] is [SEP] lost [PAD]", None, 32),
    ("[mask] [MASK][SEP]x[unused0] [ CLS ]", None, 32),
    ("##s s##s the ## # card", None, 32),
    ("a" * 100, None, 128),
    ("a" * 101, None, 128),
    ("é" * 101 + " card", None, 16),
    ("lost " * 3000, None, 512),
    ("a" * 90 + " b", None, 7),
    ("the card is lost my money is not", None, 10),
    ("the card is lost my money is not", None, 9),
    ("the card is lost", None, 3),
    ("the card is lost", None, 2),
    ("the card", "is lost", 16),
    ("", "", 16),
    ("", "Is the card lost?", 16),
    ("THE card [SEP] is", "卡丢了 😀", 24),
    ("the card is lost my money is not", "pay", 8),
    ("pay", "the card is lost my money is not", 8),
    ("the card is lost my money is not", "my card is not the money transfer", 11),
    ("the card is lost my money is not", "my card is not the money transfer", 12),
    ("the card is lost", "my card is", 9),
    ("lost " * 900, "é" * 700, 64),
    ("the card", "is lost", 4),
    ("the card", "is lost", 3),
    ("\u0301 combining first \u0301\u0301", "ẛ̣ ﷺ Ω K", 40),
    ("e̷x̷t̷r̷a̷ the C̄ard", None, 32),
]


def save_uncased(folder):
    BertTokenizerFast(vocab={token: i for i, token in enumerate(VOCAB)}).save_pretrained(folder)
    path = folder / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.enable_truncation(max_length=6)
    tokenizer.enable_padding(length=6, pad_id=0, pad_token="[PAD]")
    tokenizer.save(str(path))


def change_settings(folder, **changes):
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(settings, indent=2) + "\n")


def save_cased_left(folder):
    BertTokenizerFast(vocab={token: i for i, token in enumerate(VOCAB)}).save_pretrained(folder)
    change_settings(folder, do_lower_case=False, truncation_side="left")


def save_old(folder):
    special = {
        "unk_token": "[UNK]",
        "sep_token": "[SEP]",
        "pad_token": "[PAD]",
        "cls_token": "[CLS]",
        "mask_token": "[MASK]",
    }
    settings = {"do_lower_case": False, "strip_accents": True, "tokenize_chinese_chars": False}
    settings |= {"tokenizer_class": "BertTokenizer"}
    (folder / "vocab.txt").write_bytes("".join(token + "\r\n" for token in VOCAB).encode())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n")


def save_distilbert(folder):
    BertTokenizerFast(vocab={token: i for i, token in enumerate(VOCAB)}).save_pretrained(folder)
    change_settings(folder, tokenizer_class="DistilBertTokenizer", do_lower_case=False)


MERGES = ["t h", "th e", "Ġ th", "Ġth e", "l o", "lo s", "los t", "Ġ lost", "c a", "r d", "ca rd", "Ġ card", "Ã ©"]


def byte_level(special, last):
    """Ids of a vocabulary, and the merges."""
    tokens = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet()), *(merge.replace(" ", "") for merge in MERGES), *last]
    return {token: i for i, token in enumerate(tokens)}, [tuple(merge.split(" ")) for merge in MERGES]


def save_roberta(folder):
    vocab, merges = byte_level(["<s>", "<pad>", "</s>", "<unk>"], ["<mask>"])
    RobertaTokenizer(vocab=vocab, merges=merges).save_pretrained(folder)
    change_settings(folder, add_prefix_space=True)


def save_xlm_roberta(folder):
    pieces = ["▁", *LETTERS, "▁the", "▁card", "▁is", "▁lost", "lo", "st", "é", "卡", "丢", "了", "▁my", "money"]
    pieces += ["😀", "!"]
    vocab = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    vocab += [(piece, -2.0 - 0.125 * i) for i, piece in enumerate(pieces)] + [("<mask>", 0.0)]
    XLMRobertaTokenizer(vocab=vocab).save_pretrained(folder)


def save_modernbert(folder):
    vocab, merges = byte_level([], ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"])
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [(token, vocab[token]) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", special)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]",
        mask_token=AddedToken("[MASK]", lstrip=True), model_input_names=["input_ids", "attention_mask"],
    ).save_pretrained(folder)  # fmt: skip


def expected_rows(tokenizer, rows):
    for text, pair, max_length in rows:
        # As a batch of one: a call with bare strings takes an empty pair for none, a batch does not.
        inputs = [[text]] if pair is None else [[text], [pair]]
        whole = tokenizer(*inputs)
        row = tokenizer(*inputs, truncation=True, max_length=max_length)
        yield {
            "text": text,
            "pair": pair,
            "max_length": max_length,
            "input_ids": row["input_ids"][0],
            # A model that is given none takes all for 0.
            "token_type_ids": row["token_type_ids"][0] if "token_type_ids" in row else [0] * len(row["input_ids"][0]),
            "truncated": len(whole["input_ids"][0]) - len(row["input_ids"][0]),
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=REPOSITORY / "crates/model/tests/golden/tokenizer")
    output = parser.parse_args().output
    logging.set_verbosity_error()
    assert len(VOCAB) == len(set(VOCAB))

    expected = {}
    berts = {"uncased": save_uncased, "cased-left": save_cased_left, "old": save_old}
    others = {"distilbert": save_distilbert, "roberta": save_roberta, "xlm-roberta": save_xlm_roberta}
    others |= {"modernbert": save_modernbert}
    # The longest rows tell about the settings of BERT alone.
    short = [(text, pair, most) for text, pair, most in ROWS if len(text) < 100 and most < 40]
    short += [("<s> the <pad> card</s>", "<mask> lost", 32), ("the card", "is lost", 5), ("the  card", None, 20)]
    for name, save in (berts | others).items():
        folder = output / name
        folder.mkdir(parents=True, exist_ok=True)
        save(folder)
        rows = ROWS if name in berts else [row for row in short if row[2] >= 4]
        expected[name] = list(expected_rows(AutoTokenizer.from_pretrained(folder), rows))
    folders = [
        f"{json.dumps(name)}: [\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]"
        for name, rows in expected.items()
    ]
    (output / "expected.json").write_text("{\n" + ",\n".join(folders) + "\n}\n")


if __name__ == "__main__":
    main()
