"""Reference values for answers to questions: crates/metrics/tests/golden/squad.json.

    python oracle/squad_metrics.py [--check squad_metrics.py]

The rules of the official scripts of SQuAD 1.1 and 2.0 and of MLQA (for Chinese), written down from what they publish.
`--check` holds them, over the same cases, to `squad_metrics.py` of transformers up to 4.57, which has 2.0's own code.

The 10,000 cases are made again by the test, from the fragments in the file and SplitMix64: a case draws how many fragments
its prediction has (0 to 5), which, and then 1 to 3 gold answers in the same way, each fragment of which is one of the
prediction's in half of the draws. What each scores is in squad.cases, as `random_cases.py` has it; some cases with names are
whole.
"""

import argparse
import collections
import json
import re
import string
import sys
import types
import unicodedata
from pathlib import Path

from random_cases import GOLDEN, SplitMix64, write

CASES = 10_000
FRAGMENTS = [
    "the", "The ", " a ", "an", "A", " ", "  ", "\t", "\u00a0", "\u001f", "\u3000", ",", ".", "-", "_", "'s", "’s", "“", "”", "–",
    "%", "$", "+", "U.S.", "50%", "3.5", "½", "x²", "٣", "cat", "Cat ", " dog", "dogs", "theory", "Ana", "a_b", "café", "cafe\u0301",
    "İstanbul", "ΟΔΟΣ", "ß", "ẞ", "straße", "ﬁ", "中", "国", "北京 ", "，", "。", "《", "》", "（", "）", "２０", "Ａ", "２０２４年", "カナ",
    "한국", " 1 ", "1990", "😀", "a\u0301", "Ⅳ", "Ⓐ", "\u200b", "\ufeff", "·", "㐀",
]  # fmt: skip


def squad_tokens(text):
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


PUNCTUATION = set(string.punctuation) | {
    chr(i) for i in range(sys.maxunicode) if unicodedata.category(chr(i)).startswith("P")
}


def mlqa_tokens(text):
    text = "".join(c for c in text.lower() if c not in PUNCTUATION)
    return re.sub(r"([\u4e00-\u9fa5])", r" \1 ", text).split()


def bag_f1(gold, predicted, nothing):
    if not gold and not predicted:
        return nothing
    common = sum((collections.Counter(gold) & collections.Counter(predicted)).values())
    if common == 0:
        return 0.0
    precision, recall = common / len(predicted), common / len(gold)
    return 2 * precision * recall / (precision + recall)


def score(tokens, predicted, golds, strict):
    """Version 1.1 without `strict`, version 2.0 with it: [exact, f1]."""
    predicted, golds = tokens(predicted), [tokens(gold) for gold in golds]
    if strict:
        golds = [gold for gold in golds if gold] or [[]]
    nothing = 1.0 if strict else 0.0
    return [
        max(float(gold == predicted) for gold in golds),
        max(float(bag_f1(gold, predicted, nothing)) for gold in golds),
    ]


def all_scores(predicted, golds):
    """Words of 1.1, words of 2.0, characters: six numbers."""
    words, strict = score(squad_tokens, predicted, golds, False), score(squad_tokens, predicted, golds, True)
    return [*words, *strict, *score(mlqa_tokens, predicted, golds, False)]


def random_case(random):
    predicted = [FRAGMENTS[random.below(len(FRAGMENTS))] for _ in range(random.below(6))]

    def fragment():
        fresh = random.below(2) == 0 or not predicted
        return FRAGMENTS[random.below(len(FRAGMENTS))] if fresh else predicted[random.below(len(predicted))]

    golds = ["".join(fragment() for _ in range(random.below(6))) for _ in range(1 + random.below(3))]
    return "".join(predicted), golds


NAMED = [
    ("equal but for article and case", "The Denver Broncos", ["Denver Broncos", "broncos"]),
    ("a part", "in the early 1990s", ["1990s"]),
    ("an article is not part of a word", "theory", ["the ory"]),
    ("punctuation joins", "U.S.-led", ["US led"]),
    ("only an article", "the", ["a"]),
    ("nothing", "", ["something"]),
    ("words that come twice", "to be or not to be", ["to be to be"]),
    ("characters", "北京大学", ["北京", "北京大学医学院"]),
    ("characters and words", "约２００万 people", ["２００万people", "约 200 万"]),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", type=Path, help="transformers/data/metrics/squad_metrics.py of 4.57 or before")
    options = parser.parse_args()
    random = SplitMix64(2016)
    cases = [random_case(random) for _ in range(CASES)]
    scores = [all_scores(*case) for case in cases]
    if options.check:
        check(options.check, cases, scores)
    write("squad.cases", scores)
    named = [{"name": n, "predicted": p, "golds": g, "scores": all_scores(p, g)} for n, p, g in NAMED]
    rows = ",\n".join("    " + json.dumps(row) for row in named)
    text = f'{{\n  "seed": 2016,\n  "fragments": {json.dumps(FRAGMENTS)},\n  "cases": [\n{rows}\n  ]\n}}\n'
    (GOLDEN / "squad.json").write_text(text, encoding="utf-8")


def check(path, cases, scores):
    source = path.read_text(encoding="utf-8").replace("from ...utils import logging", "import logging")
    module = types.ModuleType("squad_metrics")
    source = re.sub(r"from \.\.\.\S+ import .*", "BasicTokenizer = None", source)
    exec(compile(source.replace("logging.get_logger", "logging.getLogger"), str(path), "exec"), module.__dict__)
    for number, ((predicted, golds), ours) in enumerate(zip(cases, scores)):
        example = types.SimpleNamespace(qas_id="q", answers=[{"text": gold} for gold in golds])
        exact, f1 = module.get_raw_scores([example], {"q": predicted})
        theirs = [exact["q"], f1["q"]]
        if any(abs(a - b) > 1e-12 for a, b in zip(theirs, ours[2:4])):
            sys.exit(f"case {number}: {predicted!r} {golds!r}: {theirs}, written down here {ours[2:4]}")
    print(f"{len(cases)} cases equal {path}")


if __name__ == "__main__":
    main()
