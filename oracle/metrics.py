"""Reference values for crates/metrics, from scikit-learn, scipy and numpy.

Run `python oracle/metrics.py` at the repository's root: it rewrites classification.json, multi_label.json and
regression.json in crates/metrics/tests/golden, the same bytes each time; and files of the same names that end in .cases, with
what each of 10,000 random cases scores, which the tests make again: see `random_cases.py`.
"""

import json
import warnings

import numpy as np
import scipy.stats
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    hamming_loss,
    matthews_corrcoef,
    mean_absolute_error,
    mean_squared_error,
    precision_recall_curve,
    precision_recall_fscore_support,
    precision_score,
    r2_score,
    recall_score,
)

import random_cases

OUT = random_cases.GOLDEN
RESAMPLES = 100_000
CASES, SEED = 10_000, 20_261_207


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


def multi_label_scores(name, gold, predicted):
    """[rows, labels] of 0 and 1, both."""
    f1 = {
        f"f1_{a}": float(f1_score(gold, predicted, average=a, zero_division=0))
        for a in ("micro", "macro", "weighted", "samples")
    }
    per_label = precision_recall_fscore_support(gold, predicted, average=None, zero_division=0)
    return {
        "name": name,
        "gold": gold.tolist(),
        "predicted": predicted.tolist(),
        **f1,
        "precision_micro": float(precision_score(gold, predicted, average="micro", zero_division=0)),
        "recall_micro": float(recall_score(gold, predicted, average="micro", zero_division=0)),
        "subset_accuracy": float(accuracy_score(gold, predicted)),
        "hamming_loss": float(hamming_loss(gold, predicted)),
        "per_label": dict(zip(("precision", "recall", "f1", "support"), (column.tolist() for column in per_label))),
    }


def multi_label_cases():
    random = np.random.default_rng(20261202)
    for labels, rows, share, wrong in ((2, 7, 0.5, 0.5), (3, 61, 0.3, 0.1), (9, 40, 0.1, 0.05), (5, 33, 0.8, 0.9)):
        gold = (random.random((rows, labels)) < share).astype(int)
        predicted = np.where(random.random(gold.shape) < wrong, 1 - gold, gold)
        yield multi_label_scores(f"{labels} labels, {rows} rows, {share} given, {wrong} wrong", gold, predicted)
    gold = (random.random((21, 4)) < 0.4).astype(int)
    gold[:, 2] = 0
    yield multi_label_scores("a label that is nowhere", gold, gold)
    yield multi_label_scores("all right", np.eye(4, dtype=int), np.eye(4, dtype=int))
    yield multi_label_scores("nothing predicted", gold, np.zeros_like(gold))
    yield multi_label_scores("everything predicted", gold, np.ones_like(gold))
    yield multi_label_scores("nothing there, nothing predicted", np.zeros((5, 3), int), np.zeros((5, 3), int))


def threshold_cases():
    """The highest F1 that any threshold gives, from the precision-recall curve."""
    random = np.random.default_rng(20261203)
    for rows, share, grid in ((5, 0.5, None), (60, 0.2, None), (60, 0.2, 8), (200, 0.05, 32), (200, 0.6, 4)):
        gold = random.random(rows) < share
        gold[0] = True
        scores = np.clip(random.normal(0.35 + 0.2 * gold, 0.2), 0.01, 0.99)
        # Few distinct scores: many are equal.
        scores = (scores if grid is None else np.round(scores * grid) / grid).astype(np.float32)
        precision, recall, _ = precision_recall_curve(gold, scores)
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
        yield {"scores": scores.tolist(), "gold": gold.astype(int).tolist(), "f1": float(f1.max())}


def regression_scores(name, gold, predicted):
    return {
        "name": name,
        "gold": gold.tolist(),
        "predicted": predicted.tolist(),
        "pearson": float(scipy.stats.pearsonr(gold, predicted).statistic),
        "spearman": float(scipy.stats.spearmanr(gold, predicted).statistic),
        "mse": float(mean_squared_error(gold, predicted)),
        "mae": float(mean_absolute_error(gold, predicted)),
        "r2": float(r2_score(gold, predicted)),
    }


def regression_cases():
    random = np.random.default_rng(20261204)
    for rows, noise in ((3, 1.0), (7, 0.1), (101, 0.5), (101, 5.0)):
        gold = random.normal(2.5, 1.5, rows)
        yield regression_scores(f"{rows} rows, noise {noise}", gold, gold + random.normal(0.3, noise, rows))
    gold = np.round(random.uniform(0, 5, 80) * 5) / 5
    yield regression_scores("many equal", gold, np.round(gold + random.normal(0, 1, 80)))
    yield regression_scores("against each other", np.arange(9.0), -np.arange(9.0) ** 3)
    yield regression_scores("far from zero", 1e8 + random.random(40), 1e8 + random.random(40))
    yield regression_scores("exact", gold, gold)


def drawn(rows):
    """[resamples, rows]: the rows of each resample."""
    return np.random.default_rng(7).integers(0, rows, (RESAMPLES // 5, rows))


def ends(scores, confidence):
    return {name: np.percentile(all, [50 - 50 * confidence, 50 + 50 * confidence]).tolist() for name, all in scores.items()}


def multi_label_bootstrap(rows, labels, share, wrong, confidence):
    random = np.random.default_rng(20261205)
    gold = (random.random((rows, labels)) < share).astype(int)
    predicted = np.where(random.random(gold.shape) < wrong, 1 - gold, gold)
    scores = {name: [] for name in ("f1_micro", "f1_macro", "f1_samples", "subset_accuracy")}
    for sample in drawn(rows):
        both, given, has = gold[sample] & predicted[sample], predicted[sample], gold[sample]
        f1 = lambda axis: 2 * both.sum(axis) / np.maximum(given.sum(axis) + has.sum(axis), 1)
        found = (f1(None), f1(0).mean(), f1(1).mean(), (given == has).all(1).mean())
        if len(scores["f1_micro"]) < 20:
            for average, value in zip(("micro", "macro", "samples"), found):
                assert abs(f1_score(has, given, average=average, zero_division=0) - value) < 1e-12
        for all, value in zip(scores.values(), found):
            all.append(value)
    case = {"rows": rows, "confidence": confidence, "gold": gold.tolist(), "predicted": predicted.tolist()}
    return {**case, "ends": ends(scores, confidence)}


def regression_bootstrap(rows, noise, confidence):
    random = np.random.default_rng(20261206)
    gold = np.round(random.normal(2.5, 1.5, rows), 1)
    predicted = np.round(gold + random.normal(0.3, noise, rows), 2)
    scores = {name: [] for name in ("pearson", "spearman", "mse", "mae", "r2")}
    for sample in drawn(rows):
        g, p = gold[sample], predicted[sample]
        error, spread = p - g, ((g - g.mean()) ** 2).sum()
        ranks = scipy.stats.rankdata(g), scipy.stats.rankdata(p)
        found = (np.corrcoef(g, p)[0, 1], np.corrcoef(*ranks)[0, 1], (error**2).mean(), np.abs(error).mean(), 1 - (error**2).sum() / spread)
        if len(scores["r2"]) < 20:
            assert abs(r2_score(g, p) - found[4]) < 1e-9 and abs(scipy.stats.spearmanr(g, p).statistic - found[1]) < 1e-9
        for all, value in zip(scores.values(), found):
            all.append(value)
    case = {"rows": rows, "confidence": confidence, "gold": gold.tolist(), "predicted": predicted.tolist()}
    return {**case, "ends": ends(scores, confidence)}


def each_classification():
    """1 to 5 classes and 1 to 12 rows; of a row the class, and whether it is predicted, or which other draw."""
    random = random_cases.SplitMix64(SEED)
    for _ in range(CASES):
        classes = 1 + random.below(5)
        gold, predicted = [], []
        for _ in range(1 + random.below(12)):
            gold.append(random.below(classes))
            predicted.append(gold[-1] if random.below(2) else random.below(classes))
        precision, recall, f1, _ = precision_recall_fscore_support(gold, predicted, average="macro", zero_division=0)
        others = [f1_score(gold, predicted, average=a, zero_division=0) for a in ("micro", "weighted")]
        yield accuracy_score(gold, predicted), f1, *others, precision, recall, matthews_corrcoef(gold, predicted)


def each_multi_label():
    """2 to 5 labels and 1 to 8 rows; of each label whether it is right, and whether the prediction is drawn, and what."""
    random = random_cases.SplitMix64(SEED + 1)
    for _ in range(CASES):
        labels = 2 + random.below(4)
        shape = 1 + random.below(8), labels
        gold, predicted = np.zeros(shape, int), np.zeros(shape, int)
        for cell in np.ndindex(shape):
            gold[cell] = random.below(2)
            predicted[cell] = gold[cell] if random.below(2) else random.below(2)
        scores = multi_label_scores("", gold, predicted)
        yield [score for score in scores.values() if isinstance(score, float)]


def each_regression():
    """3 to 12 rows of whole numbers from 0 to 8, of which not all are equal: else the first is one more."""
    random = random_cases.SplitMix64(SEED + 2)
    for _ in range(CASES):
        rows = 3 + random.below(10)
        gold, predicted = ([random.below(9) for _ in range(rows)] for _ in range(2))
        for numbers in (gold, predicted):
            numbers[0] += len(set(numbers)) == 1
        scores = regression_scores("", np.asarray(gold, float), np.asarray(predicted, float))
        yield [score for score in scores.values() if isinstance(score, float)]


def write(name, sections):
    lines = []
    for section, cases in sections.items():
        body = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
        lines.append(f'"{section}":[\n{body}\n]')
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / name).write_text("{" + ",\n".join(lines) + "}\n")


def main():
    warnings.filterwarnings("ignore")  # Its warnings that a score is undefined are about the very cases wanted here.
    write("classification.json", {"classification": classification_cases(), "bootstrap": bootstrap_cases()})
    several = [multi_label_bootstrap(*case) for case in ((61, 3, 0.3, 0.1, 0.95), (40, 5, 0.15, 0.2, 0.8))]
    write("multi_label.json", {"multi_label": multi_label_cases(), "threshold": threshold_cases(), "bootstrap": several})
    random_cases.write("classification.cases", each_classification())
    random_cases.write("multi_label.cases", each_multi_label())
    random_cases.write("regression.cases", each_regression())
    numbers = [regression_bootstrap(*case) for case in ((83, 0.7, 0.95), (47, 2.0, 0.8))]
    write("regression.json", {"regression": regression_cases(), "bootstrap": numbers})


if __name__ == "__main__":
    main()
