"""Every method that peft or adapters has, both directions, as one table of the largest logit difference.

    python oracle/interchange_report.py --retune target/release/retune --model MINILM \
        --peft PYTHON --adapters PYTHON

The two libraries want different versions of transformers, so each has an environment of its own: PYTHON is its interpreter
(that of `oracle/requirements.txt`, and that of `oracle/tiny_bottlenecks.py`). It runs `oracle/interchange.py` and
`oracle/interchange_adapters.py`, which tell every case, and exits with 1 if one of them fails, a difference is not below 1e-4,
or a method that leaves an adapter was not exchanged in both directions.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

HERE, TOLERANCE = Path(__file__).resolve().parent, 1e-4


def run(python, script, records, *arguments):
    command = [python, HERE / script, *arguments, "--records", records]
    print(f"$ {script} {' '.join(map(str, arguments))}", file=sys.stderr, flush=True)
    done = subprocess.run(list(map(str, command)), stdout=sys.stderr)
    return done.returncode == 0


def table(records):
    """Rows of cells: a method, its library, the bases, and for each direction the largest difference over how many cases."""
    methods = {}
    for record in records:
        # `lora, pissa` is a lora.
        methods.setdefault(record["method"].split(",")[0], []).append(record)
    yield ["method", "library", "models", "retune to library", "library to retune", "largest logit"]
    for method, cases in methods.items():
        cells = [method, cases[0]["library"], ", ".join(dict.fromkeys(case["base"] for case in cases))]
        for to_library in (True, False):
            those = [case["difference"] for case in cases if case["to_library"] == to_library]
            count = f"{len(those)} case{'s' if len(those) > 1 else ''}"
            cells.append(f"{max(those):.1e} ({count})" if those else "NEVER")
        yield [*cells, f"{max(case['largest'] for case in cases):.2f}"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--retune", type=Path, required=True, help="the binary")
    parser.add_argument("--model", type=Path, required=True, help="a BERT folder with its tokenizer")
    parser.add_argument("--peft", type=Path, required=True, help="Python with peft")
    parser.add_argument("--adapters", type=Path, required=True, help="Python with adapters")
    options = parser.parse_args()
    retune = options.retune.resolve()
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "records.jsonl"
        sound = [
            run(options.peft, "interchange.py", file, "--retune", retune, "--model", options.model),
            run(options.adapters, "interchange_adapters.py", file, "--retune", retune),
        ]
        records = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    rows = list(table(records))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    # Those that leave a whole model have no file of either library.
    registry = json.loads(subprocess.run([retune, "methods", "--json"], check=True, capture_output=True, text=True).stdout)
    wanted = [m["name"] for m in registry["methods"] if m["why_not"] != "its result is a whole model already"]
    both = {row[0] for row in rows[1:] if "NEVER" not in row}
    missing = [name for name in wanted if name not in both]
    # Written so that a NaN fails.
    far = [record for record in records if not record["difference"] < TOLERANCE]
    for record in far:
        print(f"TOO FAR: {record}")
    if missing:
        print(f"NOT IN BOTH DIRECTIONS: {', '.join(missing)}")
    cases, below = len(records), "not all" if far else "all"
    print(f"{len(both & set(wanted))} of {len(wanted)} methods in both directions, {cases} cases, {below} below {TOLERANCE:.0e}")
    sys.exit(bool(far or missing or not all(sound)))


if __name__ == "__main__":
    main()
