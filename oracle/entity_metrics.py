"""Reference values for named entities, by seqeval itself: crates/metrics/tests/golden/entities.json.

    python oracle/entity_metrics.py

The 20,000 cases are made again by the test, from SplitMix64: a case draws its sentences (1 to 4) and for each its words
(1 to 8); each word draws its gold tag, and whether the prediction has the same (half of the draws) or draws another. Tags
are drawn without regard for any scheme, so most sequences are broken. The first 10,000 have the prefixes of IOB2, the
others those of IOBES. What each scores is in entities.cases, as `random_cases.py` has it; some cases with names are whole.
"""

import json
import math
import warnings

from seqeval.metrics import accuracy_score, f1_score, precision_score, recall_score
from seqeval.scheme import IOB2, IOBES

from random_cases import GOLDEN, SplitMix64, write

CASES, SEED = 10_000, 17
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
    each = []
    for scheme, (_, prefixes) in SCHEMES.items():
        tags = ["O"] + [f"{prefix}-{name}" for prefix in prefixes for name in TYPES]
        for _ in range(CASES):
            gold, predicted = [], []
            for _ in range(1 + random.below(4)):
                words = 1 + random.below(8)
                gold.append([tags[random.below(len(tags))] for _ in range(words)])
                predicted.append([tag if random.below(2) else tags[random.below(len(tags))] for tag in gold[-1]])
            each.append(scores(gold, predicted, scheme))
    write("entities.cases", each)
    cases = []
    for name, (scheme, gold, predicted) in NAMED.items():
        gold, predicted = gold.split(), predicted.split()
        found = [float(x) for x in scores([gold], [predicted], scheme)]
        cases.append({"name": name, "scheme": scheme, "gold": gold, "predicted": predicted, "scores": found})
    named = {"seed": SEED, "types": TYPES, "cases": cases}
    (GOLDEN / "entities.json").write_text(json.dumps(named) + "\n")


if __name__ == "__main__":
    main()
