"""Two sides that are trained on the same rows, in turns: what `benches/entities` and `benches/questions` have in common.

Each side is trained with each rate and the first seed, and scored on rows that are there to choose by; its best rate is then
trained with every seed, and scored once on the test rows. A run is one line of JSON in WORK/runs.jsonl, appended when it is
done: what is there is not made again, so a bench can be stopped at any time. Sides take turns, one run at a time, so that a
machine that slows down slows both.
"""

import json
import statistics
import subprocess
from pathlib import Path

import numpy

ROOT = Path(__file__).resolve().parent.parent
DRAWS = 10_000


def arguments(parser):
    parser.add_argument("--model", type=Path, required=True, help="the pretrained model, a folder")
    parser.add_argument("--retune", type=Path, required=True, help="the binary")
    parser.add_argument("--work", type=Path, required=True, help="a folder for runs.jsonl and predictions")
    parser.add_argument("--seeds", default="1,2,3,4,5")
    parser.add_argument("--rates", default="5e-5,1e-4,3e-4")
    parser.add_argument("--epochs", default="3")
    parser.add_argument("--threads", default="2")
    parser.add_argument("--phase", default="all", choices=["choose", "all"], help="choose the rates only, or go on")


def run(*words, **flags):
    """Runs a command to its end and returns what it prints."""
    words = [str(word) for word in words]
    for name, value in flags.items():
        words += ["--" + name.replace("_", "-"), str(value)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(words)}\nexit {done.returncode}\n{done.stderr[-4000:]}")
    return done.stdout


def report(*words, **flags):
    """The same, of which the JSON: the whole, or the last line."""
    printed = run(*words, **flags).strip()
    return json.loads(printed if printed.startswith("{\n") else printed.splitlines()[-1])


def compare(options, sides, choose, test, units, score, margin, **also):
    """`sides` are (name, train) with `train(phase, rate, seed, folder)`, which leaves its predictions in `folder` and returns what is
    to be remembered, `score` among it. `units(phase, folder)` are the counts of each row, [rows, n], and `score` makes a score
    of their sums, [..., n]. `choose` and `test` name the rows; `also` are settings that tell runs apart as well."""
    options.work.mkdir(parents=True, exist_ok=True)
    runs = options.work / "runs.jsonl"

    def once(side, train, phase, rate, seed):
        key = {"side": side, "rows": phase, "rate": rate, "seed": seed, "epochs": options.epochs, **also}
        for line in runs.read_text().splitlines() if runs.exists() else []:
            line = json.loads(line)
            # A setting that a line does not have yet was none.
            if all(line.get(name, "0") == value for name, value in key.items()):
                return line
        folder = options.work / "-".join(key.values())
        folder.mkdir(exist_ok=True)
        line = {**key, **train(phase, rate, seed, folder), "folder": folder.name}
        with open(runs, "a") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)
        return line

    rates, seeds, best = options.rates.split(","), options.seeds.split(","), {}
    for rate in rates:
        for side, train in sides:
            line = once(side, train, choose, rate, seeds[0])
            if side not in best or line["score"] > best[side]["score"]:
                best[side] = line
    if options.phase == "choose":
        return True
    done = {side: [] for side, _ in sides}
    for seed in seeds:
        for side, train in sides:
            done[side].append(once(side, train, test, best[side]["rate"], seed))
    print(f"{'side':14} {'rate':>6} {'mean':>7} {'deviation':>9} {'seconds':>8}  each seed")
    for side, lines in done.items():
        found = [line["score"] for line in lines]
        spread = statistics.stdev(found) if len(found) > 1 else 0.0
        seconds = statistics.median(line["train_seconds"] for line in lines)
        each = " ".join(f"{one:.4f}" for one in found)
        print(f"{side:14} {best[side]['rate']:>6} {statistics.mean(found):7.4f} {spread:9.4f} {seconds:8.1f}  {each}")
    (ours, here), (theirs, there) = done.items()
    times = [statistics.median(line["train_seconds"] for line in lines) for lines in (here, there)]
    print(f"time of {ours} / {theirs}: {times[0] / times[1]:.2f}")
    counts = [[numpy.asarray(units(test, options.work / line["folder"]), float) for line in lines] for lines in (here, there)]
    rows = len(counts[0][0])
    if any(len(one) != rows for side in counts for one in side):
        raise SystemExit("the sides have not predicted the same rows")
    # Rows are drawn anew, for both sides and all seeds alike: the paired bootstrap of Koehn (2004).
    draw = numpy.random.default_rng(0)
    weights = draw.multinomial(rows, [1 / rows] * rows, size=DRAWS)

    def mean(weights, side):
        return numpy.mean([score(weights @ seed) for seed in side], axis=0)

    whole = numpy.ones((1, rows))
    difference = float(mean(whole, counts[0])[0] - mean(whole, counts[1])[0])
    drawn = mean(weights, counts[0]) - mean(weights, counts[1])
    low, high = numpy.quantile(drawn, [0.025, 0.975])
    below = float(numpy.mean(drawn >= 0))
    print(
        f"{ours} - {theirs}: {difference:+.4f} ({low:+.4f} to {high:+.4f} in 95 of 100 draws of the {rows} rows); "
        f"p of being below by chance alone: {below:.4f}"
    )
    good = below >= 0.05 and difference >= -margin
    print(f"not below at p < 0.05 and at most {margin:.3f} under it: {'yes' if good else 'NO'}")
    return good
