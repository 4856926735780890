"""A GGUF file in retune and the same weights dequantised in transformers: perplexities of answers agree within 0.5%.

    python oracle/same_gguf.py --retune target/release/retune --model MODEL.gguf --data ROWS.jsonl [--rows 200]

Rows have the columns question and answer; both sides write them by the file's own chat template and measure the tokens of the
answers with the mark that ends them. What retune is told is one command, `evaluate --model MODEL.gguf`.
"""

import argparse
import json
import math
import sys
import tempfile
from pathlib import Path

import torch
from retune_cli import Retune
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging


def reference(model, tokenizer, rows):
    """The sum of the answers' surprises, and how many tokens they are."""
    total, count = 0.0, 0
    for row in rows:
        turns = [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}]
        before = tokenizer.apply_chat_template(turns[:1], tokenize=False, add_generation_prompt=True)
        whole = tokenizer.apply_chat_template(turns, tokenize=False)
        if not whole.startswith(before):
            sys.exit("the template writes a question otherwise once it is answered")
        # A line's end behind the mark is no part of the answer.
        whole = whole.rstrip("\n")
        first = len(tokenizer(before, add_special_tokens=False)["input_ids"])
        ids = torch.tensor([tokenizer(whole, add_special_tokens=False)["input_ids"]])
        logits = model(input_ids=ids).logits[0, first - 1 : -1]
        total += torch.nn.functional.cross_entropy(logits.double(), ids[0, first:], reduction="sum").item()
        count += ids.shape[1] - first
    return total, count


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--retune", type=Path, required=True, help="the binary")
    parser.add_argument("--model", type=Path, required=True, help="a GGUF file")
    parser.add_argument("--data", type=Path, required=True, help="JSONL with question and answer")
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--base-precision", nargs="*", default=[], help="measured too, and not held to anything")
    options = parser.parse_args()
    logging.set_verbosity_error()
    lines = options.data.read_text(encoding="utf-8").splitlines()[: options.rows]
    with tempfile.TemporaryDirectory() as work, torch.no_grad():
        rows = Path(work) / "rows.jsonl"
        rows.write_text("\n".join(lines) + "\n", encoding="utf-8")
        ours = Retune(options.retune)("evaluate", model=options.model, data=rows)["metrics"]["loss"]
        others = {
            name: Retune(options.retune)("evaluate", model=options.model, data=rows, base_precision=name)["metrics"]["loss"]
            for name in options.base_precision
        }
        place = {"pretrained_model_name_or_path": options.model.parent, "gguf_file": options.model.name}
        tokenizer = AutoTokenizer.from_pretrained(**place)
        model = AutoModelForCausalLM.from_pretrained(**place, dtype=torch.float32).eval()
        total, count = reference(model, tokenizer, [json.loads(line) for line in lines])
    theirs = math.exp(total / count)
    difference = abs(math.exp(ours) / theirs - 1)
    print(f"{len(lines)} rows, {count} tokens: perplexity {math.exp(ours):.6f} here, {theirs:.6f} there, apart {difference:.2e}")
    for name, loss in others.items():
        print(f"--base-precision {name}: {math.exp(loss):.6f}")
    if not difference <= 0.005:
        sys.exit("TOO LARGE")


if __name__ == "__main__":
    main()
