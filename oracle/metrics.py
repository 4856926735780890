"""Reference values for crates/metrics, from scikit-learn and numpy.

Run `python oracle/metrics.py` at the repository's root: it rewrites
crates/metrics/tests/golden/classification.json, the same bytes each time.
"""

import json
import warnings
from pathlib import Path

import numpy as np
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    matthews_corrcoef,
    precision_recall_fscore_support,
    precision_score,
    recall_score,
)

OUT = Path(__file__).parent.parent / "crates/metrics/tests/golden/classification.json"
RESAMPLES = 100_000


def scores(name, classes, gold, predicted):
    gold, predicted = np.asarray(gold), np.asarray(predicted)
    labels = list(range(classes))
    per_class = precision_recall_fscore_support(gold, predicted, labels=labels, zero_division=0)
    f1 = {a: float(f1_score(gold, predicted, average=a, zero_division=0)) for a in ("macro", "micro", "weighted")}
    return {
        "name": name,
        "classes": classes,
        "gold": gold.tolist(),
        "predicted": predicted.tolist(),
        "counts": confusion_matrix(gold, predicted, labels=labels).tolist(),
        "accuracy": float(accuracy_score(gold, predicted)),
        "f1_macro": f1["macro"],
        "f1_micro": f1["micro"],
        "f1_weighted": f1["weighted"],
        "precision_macro": float(precision_score(gold, predicted, average="macro", zero_division=0)),
        "recall_macro": float(recall_score(gold, predicted, average="macro", zero_division=0)),
        "matthews": float(matthews_corrcoef(gold, predicted)),
        "per_class": dict(zip(("precision", "recall", "f1", "support"), (column.tolist() for column in per_class))),
    }


def random_case(random, classes, rows, right, present):
    """`right` of the rows are predicted as they are, the rest at will; only `present` classes occur, unevenly."""
    share = random.dirichlet(np.ones(len(present)))
    gold = random.choice(present, rows, p=share)
    predicted = np.where(random.random(rows) < right, gold, random.choice(present, rows))
    return scores(f"{classes} classes, {len(present)} of them met, {rows} rows, {right} right", classes, gold, predicted)


def classification_cases():
    random = np.random.default_rng(20261201)
    for classes in (2, 3, 5, 17):
        everything = np.arange(classes)
        for rows, right in ((7, 0.5), (61, 0.0), (61, 0.6), (149, 0.9)):
            yield random_case(random, classes, rows, right, everything)
    for classes in (3, 5, 17):
        yield random_case(random, classes, 41, 0.5, np.array([0, classes - 1]))
        yield random_case(random, classes, 41, 0.7, np.arange(1, classes))
    gold = np.arange(23) % 5
    yield scores("all right", 5, gold, gold)
    yield scores("all wrong", 5, gold, (gold + 1) % 5)
    yield scores("binary, all wrong", 2, gold % 2, 1 - gold % 2)
    for classes in (1, 2, 4):
        yield scores(f"a single row, right, {classes} classes", classes, [classes - 1], [classes - 1])
    yield scores("a single row, wrong", 3, [2], [0])
    yield scores("one class only", 1, [0] * 9, [0] * 9)
    yield scores("all of one class, all right", 3, [1] * 9, [1] * 9)
    yield scores("all of one class, some right", 3, [1] * 9, [1, 1, 2, 1, 0, 1, 1, 1, 2])
    yield scores("always the same prediction", 3, [0, 1, 2, 2, 1, 2, 2], [2] * 7)
    yield scores("always the same wrong prediction", 4, [0, 1, 2, 2, 1, 2, 2], [3] * 7)
    yield scores("a class predicted that is nowhere gold", 4, [0, 1, 2, 2, 1], [0, 3, 2, 3, 1])
    yield scores("a gold class that is never predicted", 4, [0, 1, 2, 3, 1], [0, 1, 2, 2, 1])
    yield scores("gold and predicted share no class", 4, [0, 1, 0, 1, 1], [2, 3, 3, 2, 2])
    yield scores("one rare class, missed", 2, [0] * 40 + [1], [0] * 41)
    yield scores("one rare class, found", 2, [0] * 40 + [1], [0] * 39 + [1, 1])


def f1_macro_of(tables):
    """[resamples, classes, classes] to [resamples], over the classes that occur in each."""
    correct = np.diagonal(tables, axis1=1, axis2=2)
    total = tables.sum(1) + tables.sum(2)
    f1 = 2 * correct / np.maximum(total, 1)
    return f1.sum(1) / (total > 0).sum(1)


def bootstrap_case(name, counts, confidence):
    random = np.random.default_rng(7)
    counts = np.asarray(counts)
    rows = int(counts.sum())
    tables = random.multinomial(rows, counts.ravel() / rows, RESAMPLES).reshape(-1, *counts.shape)
    f1_macro = f1_macro_of(tables)
    cells = np.indices(counts.shape).reshape(2, -1)
    for table, f1 in zip(tables[:20], f1_macro):
        gold, predicted = np.repeat(cells, table.ravel(), axis=1)
        assert abs(f1_score(gold, predicted, average="macro", zero_division=0) - f1) < 1e-12
    accuracy = np.trace(tables, axis1=1, axis2=2) / rows
    ends = [50 - 50 * confidence, 50 + 50 * confidence]
    return {
        "name": name,
        "counts": counts.tolist(),
        "confidence": confidence,
        "accuracy": np.percentile(accuracy, ends).tolist(),
        "f1_macro": np.percentile(f1_macro, ends).tolist(),
    }


def bootstrap_cases():
    yield bootstrap_case("binary", [[311, 42], [17, 130]], 0.95)
    yield bootstrap_case("binary, narrower", [[311, 42], [17, 130]], 0.8)
    yield bootstrap_case("three, one of them rare", [[90, 5, 1], [8, 77, 0], [1, 1, 2]], 0.95)
    yield bootstrap_case("five, one of them absent", np.diag([40, 30, 0, 21, 12]) + np.eye(5, k=3, dtype=int) * 6, 0.9)


def main():
    warnings.filterwarnings("ignore")  # Its warnings that a score is undefined are about the very cases wanted here.
    sections = {"classification": classification_cases(), "bootstrap": bootstrap_cases()}
    lines = []
    for section, cases in sections.items():
        body = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
        lines.append(f'"{section}":[\n{body}\n]')
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text("{" + ",\n".join(lines) + "}\n")


if __name__ == "__main__":
    main()
