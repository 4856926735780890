"""The golden files as made again beside those committed: an edit by hand, or a change of torch, shows here.

    python oracle/compare_goldens.py COMMITTED REMADE

Numbers agree within 1e-5, a tensor's as a share of its largest, a gradient's as a share of the file's largest gradient.
Everything else agrees exactly, but for the version of the library that wrote a file.
"""

import json
import math
import sys
from pathlib import Path

from safetensors.torch import load_file

TOLERANCE = 1e-5
VERSIONS = ("transformers_version", "peft_version")


def json_differences(old, new, place=""):
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted((old.keys() | new.keys()) - set(VERSIONS)):
            yield from json_differences(old.get(key), new.get(key), f"{place}.{key}")
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for i, (a, b) in enumerate(zip(old, new)):
            yield from json_differences(a, b, f"{place}[{i}]")
    elif isinstance(old, float) and isinstance(new, float) and math.isclose(old, new, rel_tol=TOLERANCE):
        return
    elif old != new:
        yield f"{place}: {str(old)[:60]} became {str(new)[:60]}"


def tensor_differences(old, new):
    for name in sorted(old.keys() ^ new.keys()):
        yield f"{name}: on one side only"
    # Some gradients are zero but for rounding, and so have no digits of their own to compare.
    gradients = max((t.abs().max().item() for name, t in old.items() if name.startswith("grad.")), default=0.0)
    for name in sorted(old.keys() & new.keys()):
        if (old[name].shape, old[name].dtype) != (new[name].shape, new[name].dtype):
            yield f"{name}: shape or type changed"
            continue
        a, b = old[name].double(), new[name].double()
        scale = gradients if name.startswith("grad.") else a.abs().max().item()
        difference = (a - b).abs().max().item()
        # Written so that a NaN shows.
        if not difference <= TOLERANCE * scale:
            yield f"{name}: differs by {difference:.3e} at a scale of {scale:.3e}"


def differences(committed, remade):
    if not (committed.exists() and remade.exists()):
        return ["made again, not committed" if remade.exists() else "committed, made by no script"]
    if committed.suffix == ".safetensors":
        return list(tensor_differences(load_file(committed), load_file(remade)))
    if committed.suffix == ".json":
        return list(json_differences(*(json.loads(path.read_text("utf-8")) for path in (committed, remade))))
    return [] if committed.read_bytes() == remade.read_bytes() else ["other bytes"]


def main():
    committed, remade = map(Path, sys.argv[1:])
    sides = (committed, remade)
    names = sorted({path.relative_to(side) for side in sides for path in side.rglob("*") if path.is_file() and path.suffix != ".rs"})
    failed = False
    for name in names:
        for line in differences(committed / name, remade / name):
            failed = True
            print(f"{committed / name}: {line}")
    print(f"{committed}: {len(names)} files, {'DIFFERENT' if failed else 'as made again'}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
