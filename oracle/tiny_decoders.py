"""Golden values for the decoder families, from tiny random transformers and peft models.

    python oracle/tiny_decoders.py [--output crates/model/tests/golden]

Folders and files are those of tiny_bert.py, with a head for sequence classification on every checkpoint. Checkpoints of
language models have beside these
  language.json         rows: input_ids, and labels: the token itself where it is to be learnt, else -100
  language.safetensors  f32:
    logits              [tokens, vocab_size], rows one after another
    hidden              [tokens, hidden_size], last hidden states
    loss                [], mean cross entropy over the tokens that are to be learnt, each told by those before it
    grad.NAME           gradient of the loss, NAME as in the family's class for language models
and `lora-language/` an adapter as peft writes it for them, with expected.safetensors as in tiny_bert.py.
"""

import argparse
import json
import warnings
from pathlib import Path

import numpy
import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from tiny_bert import REPOSITORY, randomise, save_expected, write_adapter, write_checkpoint
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    GPT2Model,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.utils import logging


def run_language(model, rows):
    """Logits, hidden states and loss, one row at a time: no padding and no mask is involved."""
    logits, hidden, losses = [], [], []
    for ids, labels in zip(rows["input_ids"], rows["labels"]):
        out = model(input_ids=torch.tensor([ids]), output_hidden_states=True)
        logits.append(out.logits[0])
        hidden.append(out.hidden_states[-1][0])
        losses.append(
            torch.nn.functional.cross_entropy(
                out.logits[0, :-1], torch.tensor(labels)[1:], ignore_index=-100, reduction="sum"
            )
        )
    count = sum(label != -100 for labels in rows["labels"] for label in labels[1:])
    loss = torch.stack(losses).sum() / count
    loss.backward()
    return {"logits": torch.cat(logits), "hidden": torch.cat(hidden), "loss": loss}


def write_language(folder, seed):
    """What the language model in `folder` makes of random rows, of which some tokens are to be learnt."""
    rng = numpy.random.default_rng(seed)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    config = model.config
    ids = [rng.integers(0, config.vocab_size, n).tolist() for n in [1, 7, 2, config.max_position_embeddings, 11]]
    labels = [[token if rng.random() < 0.6 else -100 for token in row] for row in ids]
    rows = {"input_ids": ids, "labels": labels}
    model.double().eval()
    expected = run_language(model, rows)
    expected |= {f"grad.{name}": parameter.grad for name, parameter in model.named_parameters()}
    save_expected(folder / "language.safetensors", expected)
    (folder / "language.json").write_text(json.dumps(rows) + "\n")


def write_language_adapter(base, seed, targets):
    rng = numpy.random.default_rng(seed)
    folder = base / "lora-language"
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager")
    config = LoraConfig(task_type="CAUSAL_LM", r=3, lora_alpha=7, lora_dropout=0.0, target_modules=targets)
    model = get_peft_model(model, config)
    randomise([(name, value) for name, value in model.named_parameters() if value.requires_grad], rng)
    model.peft_config["default"].base_model_name_or_path = base.name
    model.peft_config["default"].target_modules = targets
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink()

    model.double().eval()
    expected = run_language(model, json.loads((base / "language.json").read_text()))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.grad if parameter.grad is not None else torch.zeros_like(parameter))
    saved = get_peft_model_state_dict(model, save_embedding_layers=False)
    expected |= {f"grad.{name}": value for name, value in saved.items()}
    save_expected(folder / "expected.safetensors", expected)


def ends_with(padding):
    """Rows that end with the padding token are read before it; one that is nothing else, where it begins."""

    def change(batch):
        batch["input_ids"][0] = [padding]
        batch["input_ids"][1][-2:] = [padding, padding]
        batch["input_ids"][3][4] = padding

    return change


def gpt2(output):
    def config(width, heads, layers, vocabulary, positions, **others):
        return GPT2Config(
            n_embd=width, n_head=heads, n_layer=layers, vocab_size=vocabulary, n_positions=positions,
            bos_token_id=1, eos_token_id=1, **others,
        )  # fmt: skip

    write_checkpoint(
        output / "gpt2-classifier", GPT2ForSequenceClassification,
        config(12, 3, 2, 41, 23, pad_token_id=5, num_labels=3), num_labels=3, seed=71, change=ends_with(5),
    )  # fmt: skip
    targets = ["c_attn", "c_proj", "c_fc"]
    write_adapter(output / "gpt2-classifier", output / "gpt2-classifier/lora", seed=72, targets=targets)
    write_checkpoint(
        output / "gpt2-causal", GPT2LMHeadModel,
        config(10, 2, 3, 37, 19, n_inner=23, scale_attn_by_inverse_layer_idx=True, layer_norm_epsilon=1e-3),
        num_labels=4, seed=73,
    )  # fmt: skip
    write_language(output / "gpt2-causal", seed=74)
    write_language_adapter(output / "gpt2-causal", seed=75, targets=["c_attn", "mlp.c_proj"])
    write_checkpoint(
        output / "gpt2-bare", GPT2Model, config(8, 1, 1, 31, 17, activation_function="relu"), num_labels=2, seed=76,
        dtype=torch.bfloat16,
    )  # fmt: skip


def sizes(hidden, heads, kv_heads, layers, intermediate, vocabulary, positions):
    return {
        "hidden_size": hidden, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
        "num_hidden_layers": layers, "intermediate_size": intermediate, "vocab_size": vocabulary,
        "max_position_embeddings": positions,
    }  # fmt: skip


def llama(output):
    write_checkpoint(
        output / "llama-classifier", LlamaForSequenceClassification,
        LlamaConfig(**sizes(12, 3, 3, 2, 19, 41, 23), pad_token_id=5, num_labels=3), num_labels=3, seed=81,
        change=ends_with(5),
    )  # fmt: skip
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    write_adapter(output / "llama-classifier", output / "llama-classifier/lora", seed=82, targets=targets)
    # As Llama 3.2 and SmolLM2: tied, fewer key heads, stretched positions.
    llama3 = {"rope_type": "llama3", "rope_theta": 90.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 3.0,
              "original_max_position_embeddings": 20}  # fmt: skip
    write_checkpoint(
        output / "llama-causal", LlamaForCausalLM,
        LlamaConfig(**sizes(16, 4, 2, 2, 21, 43, 29), tie_word_embeddings=True, rope_parameters=llama3), num_labels=4,
        seed=83,
    )  # fmt: skip
    write_language(output / "llama-causal", seed=84)
    write_language_adapter(output / "llama-causal", seed=85, targets=["q_proj", "v_proj"])

    def old_keys(keys):
        """As older versions of transformers wrote them."""
        scaling = keys.pop("rope_parameters")
        keys |= {"rope_theta": scaling.pop("rope_theta"), "rope_scaling": scaling}

    yarn = {"rope_type": "yarn", "rope_theta": 40.0, "factor": 3.0, "original_max_position_embeddings": 11}
    write_checkpoint(
        output / "llama-biased", LlamaForCausalLM,
        LlamaConfig(**sizes(12, 2, 1, 1, 17, 37, 31), head_dim=8, attention_bias=True, mlp_bias=True, rms_norm_eps=1e-3,
                    rope_parameters=yarn, hidden_act="gelu_new"),
        num_labels=3, seed=86, dtype=torch.float16, rewrite=old_keys,
    )  # fmt: skip
    write_language(output / "llama-biased", seed=87)
    write_checkpoint(
        output / "mistral-causal", MistralForCausalLM,
        MistralConfig(**sizes(12, 6, 2, 2, 19, 41, 27), sliding_window=4), num_labels=3, seed=88, dtype=torch.bfloat16,
    )  # fmt: skip
    write_language(output / "mistral-causal", seed=89)


def qwen(output):
    linear = {"rope_type": "linear", "rope_theta": 60.0, "factor": 2.0}
    write_checkpoint(
        output / "qwen2-causal", Qwen2ForCausalLM,
        Qwen2Config(**sizes(12, 2, 1, 3, 17, 41, 25), use_sliding_window=True, sliding_window=5, max_window_layers=1,
                    rope_parameters=linear, tie_word_embeddings=True),
        num_labels=3, seed=91,
    )  # fmt: skip
    write_language(output / "qwen2-causal", seed=92)
    write_checkpoint(
        output / "qwen3-causal", Qwen3ForCausalLM,
        Qwen3Config(**sizes(10, 4, 2, 2, 17, 37, 23), head_dim=6), num_labels=4, seed=93,
    )  # fmt: skip
    write_language(output / "qwen3-causal", seed=94)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=REPOSITORY / "crates/model/tests/golden")
    output = parser.parse_args().output
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.simplefilter("ignore")
    gpt2(output)
    llama(output)
    qwen(output)


if __name__ == "__main__":
    main()
