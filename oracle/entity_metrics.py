"""Reference values for named entities, by seqeval itself: crates/metrics/tests/golden/entities.json.

    python oracle/entity_metrics.py

The 20,000 cases are made again by the test, from SplitMix64: a case draws its sentences (1 to 4) and for each its words
(1 to 8); each word draws its gold tag, and whether the prediction has the same (half of the draws) or draws another. Tags
are drawn without regard for any scheme, so most sequences are broken. The first 10,000 have the prefixes of IOB2, the
others those of IOBES. The file has the sums of each hundred cases, and some cases with names, whole.
"""

import json
import math
import warnings
from pathlib import Path

from seqeval.metrics import accuracy_score, f1_score, precision_score, recall_score
from seqeval.scheme import IOB2, IOBES

OUT = Path(__file__).parent.parent / "crates/metrics/tests/golden/entities.json"
CASES, BLOCK, SEED = 10_000, 100, 17
TYPES = ["a", "b", "c"]
SCHEMES = {"IOB2": (IOB2, "BI"), "IOBES": (IOBES, "BIES")}
NAMED = {
    "inside after nothing": ("IOB2", "O I-a I-a O", "O B-a I-a O"),
    "another type inside": ("IOB2", "B-a I-b I-b", "B-a I-a I-b"),
    "two that touch": ("IOB2", "B-a B-a I-a", "B-a I-a I-a"),
    "all broken": ("IOBES", "I-a E-a E-a S-b I-b", "B-a E-a E-a S-b B-b"),
    "no end": ("IOBES", "B-a I-a O S-a", "B-a E-a O S-a"),
    "begins in an end": ("IOBES", "E-a E-b", "E-a S-b"),
    "none": ("IOB2", "O O", "O O"),
}


class SplitMix64:
    def __init__(self, seed):
        self.state = seed

    def below(self, bound):
        mask = (1 << 64) - 1
        self.state = (self.state + 0x9E3779B97F4A7C15) & mask
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        return ((z ^ (z >> 31)) * bound) >> 64


def scores(gold, predicted, scheme):
    strict = {"mode": "strict", "scheme": SCHEMES[scheme][0]}
    macro = f1_score(gold, predicted, average="macro")
    return [
        f1_score(gold, predicted),
        precision_score(gold, predicted),
        recall_score(gold, predicted),
        # The mean of no types is no number there, and 0 here as all else of nothing.
        0.0 if math.isnan(macro) else macro,
        f1_score(gold, predicted, **strict),
        precision_score(gold, predicted, **strict),
        recall_score(gold, predicted, **strict),
        accuracy_score(gold, predicted),
    ]


def main():
    warnings.simplefilter("ignore")
    random = SplitMix64(SEED)
    blocks = []
    for scheme, (_, prefixes) in SCHEMES.items():
        tags = ["O"] + [f"{prefix}-{name}" for prefix in prefixes for name in TYPES]
        for case in range(CASES):
            gold, predicted = [], []
            for _ in range(1 + random.below(4)):
                words = 1 + random.below(8)
                gold.append([tags[random.below(len(tags))] for _ in range(words)])
                predicted.append([tag if random.below(2) else tags[random.below(len(tags))] for tag in gold[-1]])
            if case % BLOCK == 0:
                blocks.append([0.0] * 8)
            blocks[-1] = [float(a + b) for a, b in zip(blocks[-1], scores(gold, predicted, scheme))]
    cases = []
    for name, (scheme, gold, predicted) in NAMED.items():
        gold, predicted = gold.split(), predicted.split()
        found = [float(x) for x in scores([gold], [predicted], scheme)]
        cases.append({"name": name, "scheme": scheme, "gold": gold, "predicted": predicted, "scores": found})
    OUT.write_text(json.dumps({"seed": SEED, "types": TYPES, "cases": cases, "blocks": blocks}) + "\n")


if __name__ == "__main__":
    main()
