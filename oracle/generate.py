"""What transformers generates with the tiny random language models, and how it changes logits before it draws.

    python oracle/generate.py [--output crates/model/tests/golden]

Beside each checkpoint of a language model
  generate.json   prompts, of uneven lengths, and greedy: what `generate` makes of all of them in one batch, padded at the left
and `sampling.json`: for each of `cases` the settings, the tokens seen, the logits and what the logits processors make of them, null
where a token is left out.
"""

import argparse
import json
from pathlib import Path

import numpy
import torch
from tiny_bert import REPOSITORY
from transformers import AutoModelForCausalLM, GenerationConfig
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

MODELS = ["gpt2-causal", "llama-causal", "llama-biased", "mistral-causal", "qwen2-causal", "qwen3-causal"]
LENGTHS = [1, 6, 3, 8]
NEW = 9


def greedy(model, prompts):
    """Of a batch that is padded at the left, and by how much the likeliest token leads where it leads least."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    config = GenerationConfig(
        max_new_tokens=NEW, do_sample=False, pad_token_id=0, eos_token_id=None, output_scores=True,
        return_dict_in_generate=True,
    )  # fmt: skip
    model.generation_config = GenerationConfig()
    out = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
    top = torch.stack(out.scores).topk(2).values
    return out.sequences[:, longest:].tolist(), float((top[..., 0] - top[..., 1]).min())


def write_greedy(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    for seed in range(100):
        rng = numpy.random.default_rng(seed)
        prompts = [rng.integers(0, model.config.vocab_size, length).tolist() for length in LENGTHS]
        made, lead = greedy(model, prompts)
        # No token may hang on a rounding, and tokens that all are one would show nothing.
        if lead > 1e-3 and all(len(set(row)) > 1 for row in made):
            break
    else:
        raise SystemExit(f"{folder}: no prompts whose tokens are sure")
    (folder / "generate.json").write_text(json.dumps({"prompts": prompts, "greedy": made}) + "\n")


def case(rng, **settings):
    logits = torch.tensor(rng.normal(0, 3, 30), dtype=torch.float32)[None]
    seen = rng.integers(0, 30, 12).tolist()
    scores = logits.clone()
    # In the order in which `generate` has them.
    for name, processor in [
        ("repetition_penalty", RepetitionPenaltyLogitsProcessor), ("temperature", TemperatureLogitsWarper),
        ("top_k", TopKLogitsWarper), ("top_p", TopPLogitsWarper), ("min_p", MinPLogitsWarper),
    ]:  # fmt: skip
        if name in settings:
            scores = processor(settings[name])(torch.tensor([seen]), scores)
    expected = [None if score == -torch.inf else score for score in scores[0].tolist()]
    return {"settings": settings, "seen": seen, "logits": logits[0].tolist(), "scores": expected}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=Path, default=REPOSITORY / "crates/model/tests/golden")
    output = parser.parse_args().output
    for name in MODELS:
        write_greedy(output / name)
    rng = numpy.random.default_rng(5)
    cases = [
        case(rng, temperature=1.0), case(rng, temperature=0.3), case(rng, temperature=1.7, repetition_penalty=1.3),
        case(rng, temperature=1.0, repetition_penalty=0.8), case(rng, temperature=1.0, top_k=5),
        case(rng, temperature=2.0, top_k=100), case(rng, temperature=1.0, top_p=0.9), case(rng, temperature=3.0, top_p=0.5),
        case(rng, temperature=1.0, top_p=0.01), case(rng, temperature=1.0, min_p=0.05), case(rng, temperature=4.0, min_p=0.3),
        case(rng, temperature=1.0, min_p=1.0),
        case(rng, temperature=2.5, repetition_penalty=1.2, top_k=20, top_p=0.95, min_p=0.02),
    ]  # fmt: skip
    (output / "sampling.json").write_text(json.dumps({"cases": cases}) + "\n")


if __name__ == "__main__":
    main()
