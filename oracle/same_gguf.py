"""A GGUF file in retune and the same weights dequantised in transformers: perplexities of answers agree within 0.5%, and what each
says to some of the questions is the same, token by token.

    python oracle/same_gguf.py --retune target/release/retune --model MODEL.gguf --data ROWS.jsonl [--rows 200] [--answered 20]

Rows have the columns question and answer; both sides write them by the file's own chat template and measure the tokens of the
answers with the mark that ends them. What retune is told is `evaluate --model MODEL.gguf`, and `generate --input` of conversations for 64 of the
likeliest tokens, in f32.
"""

import argparse
import json
import math
import sys
import tempfile
from pathlib import Path

import torch
from retune_cli import Retune
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.utils import logging

NEW = 64


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


def said(model, tokenizer, questions):
    """The likeliest tokens that follow each question, and by how much the likeliest leads where it leads least."""
    out, lead = [], float("inf")
    for question in questions:
        turns = [{"role": "user", "content": question}]
        asked = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        config = GenerationConfig(
            max_new_tokens=NEW, do_sample=False, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.eos_token_id,
            output_logits=True, return_dict_in_generate=True,
        )  # fmt: skip
        made = model.generate(**asked, generation_config=config)
        two = torch.stack(made.logits).topk(2).values
        lead = min(lead, float((two[..., 0] - two[..., 1]).min()))
        out.append(made.sequences[0, asked["input_ids"].shape[1] :].tolist())
    return out, lead


def answered(options, rows, model, tokenizer, work):
    """How many of the rows are answered otherwise."""
    questions = [row["question"] for row in rows]
    path = work / "asked.jsonl"
    turns = [{"messages": [{"role": "user", "content": question}]} for question in questions]
    path.write_text("".join(json.dumps(turn) + "\n" for turn in turns), encoding="utf-8")
    Retune(options.retune)(
        "generate", model=options.model, input=path, output=work / "said.jsonl", max_new_tokens=NEW, temperature=0,
        precision="f32",
    )  # fmt: skip
    ours = [json.loads(line) for line in (work / "said.jsonl").read_text(encoding="utf-8").splitlines()]
    model.generation_config = GenerationConfig()
    theirs, lead = said(model, tokenizer, questions)
    other = 0
    for one, ids in zip(ours, theirs, strict=True):
        text = tokenizer.decode(ids, skip_special_tokens=True)
        if (one["text"], one["tokens"]) != (text, len(ids)):
            other += 1
            print(f"row {one['row']}: {one['text']!r} here, {text!r} there")
    tokens = sum(map(len, theirs))
    print(f"{len(ours)} questions, {tokens} likeliest tokens: {other} answers differ; the least lead of a token is {lead:.1e}")
    return other


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--retune", type=Path, required=True, help="the binary")
    parser.add_argument("--model", type=Path, required=True, help="a GGUF file")
    parser.add_argument("--data", type=Path, required=True, help="JSONL with question and answer")
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--answered", type=int, default=20, help="rows whose questions are answered")
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
        parsed = [json.loads(line) for line in lines]
        total, count = reference(model, tokenizer, parsed)
        other = answered(options, parsed[: options.answered], model, tokenizer, Path(work))
    theirs = math.exp(total / count)
    difference = abs(math.exp(ours) / theirs - 1)
    print(f"{len(lines)} rows, {count} tokens: perplexity {math.exp(ours):.6f} here, {theirs:.6f} there, apart {difference:.2e}")
    for name, loss in others.items():
        print(f"--base-precision {name}: {math.exp(loss):.6f}")
    if not difference <= 0.005 or other:
        sys.exit("TOO LARGE")


if __name__ == "__main__":
    main()
