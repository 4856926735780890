"""Training of language models in transformers and in retune from the same start: the losses of all steps agree within 1e-4.

    python oracle/same_language_training.py --retune target/release/retune [--family llama]
    python oracle/same_language_training.py --retune target/release/retune --model SMOLLM2 --train GSM8K.jsonl

Both see the same prompts and completions in one order, no dropout, for LoRA the same A and B, and learn completions with the end of
the text: twenty steps of a small random model of each family, or a hundred of a model and rows that are given (columns question
and answer; LoRA alone), within 1e-3. Of the latter the adapter that retune made then says the same in peft, likeliest token by likeliest
token, and the one that peft made says the same here.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from retune_cli import Retune, step_losses
from same_training import decay_groups, fill
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    get_linear_schedule_with_warmup,
)
from transformers.utils import logging

WORDS, NEW = 150, 64
SIZES = {
    "vocab_size": WORDS + 2, "hidden_size": 40, "intermediate_size": 67, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.15, "bos_token_id": 1, "eos_token_id": 1,
}  # fmt: skip
FAMILIES = {
    "gpt2": (
        GPT2Config(
            vocab_size=WORDS + 2, n_embd=40, n_layer=3, n_head=4, n_positions=64, initializer_range=0.15, resid_pdrop=0.0,
            embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=1, eos_token_id=1,
        ),
        ["c_attn", "c_proj", "c_fc"],
    ),
    "llama": (LlamaConfig(**SIZES, tie_word_embeddings=True), ["q_proj", "v_proj"]),
    "mistral": (MistralConfig(**SIZES, sliding_window=9), ["q_proj", "v_proj", "down_proj"]),
    "qwen2": (Qwen2Config(**SIZES), ["q_proj", "k_proj", "o_proj"]),
    "qwen3": (Qwen3Config(**SIZES, head_dim=12), ["q_proj", "up_proj"]),
}  # fmt: skip


def random_base(config, folder):
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    vocabulary = {"<unk>": 0, "</s>": 1} | {f"w{index}": index + 2 for index in range(WORDS)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", eos_token="</s>").save_pretrained(folder)
    return folder


def random_rows(rng, count):
    def text(most):
        return " ".join(f"w{index}" for index in rng.integers(0, WORDS, rng.integers(1, most)))

    return [(text(25), text(20)) for _ in range(count)]


def encode(tokenizer, prompt, completion, max_length):
    """As transformers' trainers do: what begins behind the prompt is learnt, and the end of the text."""
    text = f"{prompt}\n{completion}"
    tokens = tokenizer(text, return_offsets_mapping=True)
    ids = tokens["input_ids"] + [tokenizer.eos_token_id]
    learnt = [end > len(prompt) + 1 for _, end in tokens["offset_mapping"]] + [True]
    return ids[:max_length], [i if take else -100 for i, take in zip(ids, learnt)][:max_length]


def reference_losses(model, tokenizer, rows, batch, max_length, rate):
    optimizer = torch.optim.AdamW(decay_groups(model), lr=rate, betas=(0.9, 0.999), eps=1e-8)
    schedule = get_linear_schedule_with_warmup(optimizer, 0, len(rows) // batch)
    losses = []
    for start in range(0, len(rows), batch):
        encoded = [encode(tokenizer, *row, max_length) for row in rows[start : start + batch]]
        longest = max(len(ids) for ids, _ in encoded)
        pad = lambda values, filler: torch.tensor([value + [filler] * (longest - len(value)) for value in values])  # noqa: E731
        ids, labels = pad([ids for ids, _ in encoded], 0), pad([labels for _, labels in encoded], -100)
        mask = pad([[1] * len(ids) for ids, _ in encoded], 0)
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def compare(options, work, base, targets, rows, batch, max_length, rates, tolerance):
    work.mkdir(parents=True, exist_ok=True)
    (work / "rows.jsonl").write_text("".join(json.dumps({"prompt": p, "completion": c}) + "\n" for p, c in rows))
    # AutoTokenizer would take Qwen2's own class, by the configuration beside it.
    tokenizer = PreTrainedTokenizerFast.from_pretrained(base)
    lora = LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, lora_dropout=0.0, target_modules=targets)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), lora)
    fill([p for name, p in model.named_parameters() if ".lora_" in name], numpy.random.default_rng(1), 0.03)
    model.save_pretrained(work / "adapter", save_embedding_layers=False)
    starts, failed = {"full": base, "lora": work / "adapter"}, False
    for method, rate in rates.items():
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        if method == "lora":
            model = PeftModel.from_pretrained(model, starts["lora"], is_trainable=True)
        theirs = reference_losses(model.train(), tokenizer, rows, batch, max_length, rate)
        if method == "lora":
            model.save_pretrained(work / "theirs", save_embedding_layers=False)
        output = work / f"run-{method}"
        Retune(options.retune)(
            "train", model=starts[method], task="causal-lm", train=work / "rows.jsonl", text_column="prompt",
            label_column="completion", chat_template="none", eval_split=0, method=method, output=output, learning_rate=rate, epochs=1,
            batch_size=batch, shuffle="false", schedule="linear", warmup=0, weight_decay=0.01, max_grad_norm=1.0,
            max_length=max_length,
        )  # fmt: skip
        ours = step_losses(output)
        if len(ours) != len(theirs):
            sys.exit(f"{method}: expected {len(theirs)} steps in events.jsonl, got {len(ours)}")
        difference = max(abs(a - b) / abs(b) for a, b in zip(ours, theirs))
        failed |= not difference <= tolerance
        verdict = f"{difference:.2e} {'ok' if difference <= tolerance else 'TOO LARGE'}"
        print(f"{Path(base).name:10} {method:8} {theirs[0]:12.6f} {theirs[-1]:12.6f} {verdict:>28}", flush=True)
    return failed


@torch.no_grad()
def said(base, adapter, tokenizer, prompts):
    """The likeliest text behind each prompt, in peft."""
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), adapter).eval()
    model.generation_config = GenerationConfig()
    config = GenerationConfig(
        max_new_tokens=NEW, do_sample=False, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.eos_token_id
    )
    texts = []
    for prompt in prompts:
        asked = tokenizer(prompt + "\n", return_tensors="pt", return_token_type_ids=False)
        made = model.generate(**asked, generation_config=config)[0, asked["input_ids"].shape[1] :]
        texts.append((tokenizer.decode(made, skip_special_tokens=True), len(made)))
    return texts


def exchanged(options, work, base, rows):
    """How many prompts are answered otherwise by the other's library, of each one's adapter."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(base)
    (work / "asked.jsonl").write_text("".join(json.dumps({"prompt": p, "completion": c}) + "\n" for p, c in rows))
    other = 0
    for made, folder in [("here", work / "run-lora"), ("in peft", work / "theirs")]:
        Retune(options.retune)(
            "generate", model=folder, input=work / "asked.jsonl", output=work / "said.jsonl", text_column="prompt",
            label_column="completion", chat_template="none", max_new_tokens=NEW, temperature=0, precision="f32", overwrite=True,
        )  # fmt: skip
        ours = [json.loads(line) for line in (work / "said.jsonl").read_text(encoding="utf-8").splitlines()]
        ours = [(one["text"], one["tokens"]) for one in ours]
        theirs = said(base, folder, tokenizer, [prompt for prompt, _ in rows])
        differ = [(a, b) for a, b in zip(ours, theirs, strict=True) if a != b]
        for a, b in differ:
            print(f"{a} here, {b} in peft")
        print(f"the adapter made {made}: {len(ours)} prompts, {sum(n for _, n in theirs)} tokens, {len(differ)} texts differ", flush=True)
        other += len(differ)
    return other


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--retune", type=Path, required=True, help="the binary")
    parser.add_argument("--family", choices=FAMILIES, help="one alone")
    parser.add_argument("--model", type=Path, help="a language model's folder, instead of random ones")
    parser.add_argument("--train", type=Path, help="JSONL with question and answer")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    failed = False
    print(f"{'model':10} {'method':8} {'first loss':>12} {'last loss':>12} {'largest relative difference':>28}")
    with tempfile.TemporaryDirectory() as temporary:
        work, rng = Path(temporary), numpy.random.default_rng(0)
        if options.model:
            rows = [json.loads(line) for line in options.train.read_text().splitlines()]
            rows = [(row["question"], row["answer"]) for row in rows]
            rows = [rows[i] for i in rng.permutation(len(rows))[: options.steps * 2]]
            failed = compare(options, work, options.model, ["q_proj", "v_proj"], rows, 2, 512, {"lora": 1e-3}, 1e-3)
            failed |= exchanged(options, work, options.model, rows[:10]) > 0
        for name, (config, targets) in {} if options.model else FAMILIES.items():
            if options.family in (None, name):
                base = random_base(config, work / name)
                rows = random_rows(rng, 20 * 16)
                failed |= compare(
                    options, work / f"{name}-runs", base, targets, rows, 16, 40, {"full": 3e-3, "lora": 1e-2}, 1e-4
                )
    sys.exit(failed)


if __name__ == "__main__":
    main()
