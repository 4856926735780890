"""Golden values for GGUF files, from tiny random transformers models, by the writer and the quantisers of the `gguf` package.

    python oracle/tiny_gguf.py [--output crates/model/tests/golden/gguf]

NAME.gguf is a language model as llama.cpp's converter would write it: its names, its rows of heads in turns, several types
of blocks. NAME.json has what transformers makes of it: `texts`, their `input_ids` by a tokenizer of the `tokenizers` library
with the same vocabulary (of the SentencePiece kind by transformers' own reader of GGUF), special tokens included, and
NAME.safetensors `hidden`, [tokens, hidden_size], the last hidden states of all texts one after another with the weights
dequantised.
"""

import argparse
import json
from pathlib import Path

import numpy
import torch
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import dequantize, quantize
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

REPOSITORY = Path(__file__).resolve().parent.parent
TEXTS = [
    "The shop has 48 clips, and 2024 of them are red.",
    "it's they'LL  café ñandú 中文 🙂\n\n  x\t y ",
    "<|end|>a<|user|> b",
    "",
    "$12.50 <= x^2 ~ |y| 1234567 ٣٤",
]
CORPUS = ["the shop sells red clips and blue clips in April and in May, it's so", "how many clips did she sell 12 345"] * 3
TEMPLATE = "{% for m in messages %}<|user|>{{ m['content'] }}<|end|>{% endfor %}"
QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")


def byte_level(kind):
    """A small tokenizer like that of the published models of this kind."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=kind == "llama-bpe"))
    byte, split = pre_tokenizers.ByteLevel, pre_tokenizers.Split
    tokenizer.pre_tokenizer = {
        "gpt-2": lambda: byte(add_prefix_space=False),
        "smollm": lambda: pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte(add_prefix_space=False)]),
        "qwen2": lambda: pre_tokenizers.Sequence(
            [split(Regex(QWEN2), "isolated"), byte(add_prefix_space=False, use_regex=False)]
        ),
        "llama-bpe": lambda: pre_tokenizers.Sequence(
            [split(Regex(LLAMA3), "isolated"), byte(add_prefix_space=False, use_regex=False)]
        ),
    }[kind]()  # fmt: skip
    if kind == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=300, special_tokens=["<|end|>", "<|user|>"], initial_alphabet=byte.alphabet(), show_progress=False
        ),
    )
    if kind == "llama-bpe":
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|user|> $A", pair="<|user|> $A <|user|> $B", special_tokens=[("<|user|>", 1)]
        )
    return tokenizer


def write_byte_level(writer, kind, tokenizer):
    whole = json.loads(tokenizer.to_str())
    tokens = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(kind)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token.startswith("<|") else 1 for token in tokens])
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in whole["model"]["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(0)
    writer.add_chat_template(TEMPLATE)
    if kind != "llama-bpe":
        writer.add_add_bos_token(False)
    return len(tokens)


def write_pieces(writer):
    blank = "\u2581"
    words = [blank, "e", "t", "h", "a", "s", "l", "r", "i", "n", "d", "o", "c", "p"]
    words += [blank + "t", "he", blank + "the", "in", "an", blank + "a", "and", blank + "and", "cl", "clip", "ips", "clips", "re", "red"]
    words += ["ip", "cli", "ps", "sh", "op", blank + "sh", blank + "shop"]
    tokens = ["<unk>", "<s>", "</s>", *[f"<0x{byte:02X}>" for byte in range(256)], *words]
    scores = [0.0] * 259 + [-float(place) for place in range(len(words))]
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types([2, 3, 3] + [6] * 256 + [1] * len(words))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(True)
    return len(tokens)


def permute(values, heads):
    return values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)


LLAMA_NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output", "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
GPT2_NAMES = {
    "transformer.wte": "token_embd", "transformer.wpe": "position_embd", "transformer.ln_f": "output_norm", "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "ln_2": "ffn_norm", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down",
}  # fmt: skip


def in_gguf(name, names):
    module, kind = name.rsplit(".", 1)
    if module in names:
        return f"{names[module]}.{kind}"
    _, block, part = module.replace("transformer.h.", "model.layers.").replace("model.layers.", "blk.").split(".", 2)
    return f"blk.{block}.{names[part]}.{kind}"


def factors(scaling, theta, size):
    """By what llama.cpp's converter has each frequency divided where positions are stretched as `llama3`."""
    frequencies = 1.0 / theta ** (torch.arange(0, size, 2, dtype=torch.float32) / size)
    original, out = scaling["original_max_position_embeddings"], []
    longest, shortest = original / scaling["low_freq_factor"], original / scaling["high_freq_factor"]
    for wavelength in (2 * torch.pi / frequencies).tolist():
        if wavelength < shortest:
            out.append(1.0)
        elif wavelength > longest:
            out.append(scaling["factor"])
        else:
            smooth = (original / wavelength - scaling["low_freq_factor"]) / (
                scaling["high_freq_factor"] - scaling["low_freq_factor"]
            )
            out.append(1 / ((1 - smooth) / scaling["factor"] + smooth))
    return numpy.array(out, dtype=numpy.float32)


def write(output, name, arch, model, types, pre):
    config = model.config
    # Norms and biases that are no ones and zeros, and matrices that are not all alike.
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(0.15 * noise if parameter.dim() > 1 else 0.8 + 0.2 * noise)
    path = output / f"{name}.gguf"
    writer = GGUFWriter(path, arch)
    tokenizer = byte_level(pre) if pre != "pieces" else None
    count = write_byte_level(writer, pre, tokenizer) if tokenizer else write_pieces(writer)
    assert count == config.vocab_size, count
    if arch == "gpt2":
        writer.add_context_length(config.n_positions)
        writer.add_embedding_length(config.n_embd)
        writer.add_feed_forward_length(4 * config.n_embd)
        writer.add_block_count(config.n_layer)
        writer.add_head_count(config.n_head)
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
    else:
        writer.add_context_length(config.max_position_embeddings)
        writer.add_embedding_length(config.hidden_size)
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_block_count(config.num_hidden_layers)
        writer.add_head_count(config.num_attention_heads)
        writer.add_head_count_kv(config.num_key_value_heads)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
        if getattr(config, "head_dim", None) and config.head_dim * config.num_attention_heads != config.hidden_size:
            writer.add_key_length(config.head_dim)
            writer.add_value_length(config.head_dim)
        if config.rope_parameters["rope_type"] == "llama3":
            scaling = config.rope_parameters
            writer.add_tensor("rope_freqs.weight", factors(scaling, scaling["rope_theta"], config.head_dim))
    tied = config.tie_word_embeddings
    state = model.state_dict()
    place = 0
    for key, value in state.items():
        if key == "lm_head.weight" and tied or key.endswith((".attn.bias", ".masked_bias")):
            continue
        values = value.numpy().copy()
        transposed = arch == "gpt2" and values.ndim == 2 and "h." in key
        heads = None
        if arch == "llama" and key.endswith(("q_proj.weight", "q_proj.bias")):
            heads = config.num_attention_heads
        if arch == "llama" and key.endswith(("k_proj.weight", "k_proj.bias")):
            heads = config.num_key_value_heads
        if transposed:
            values = numpy.ascontiguousarray(values.T)
        if heads:
            values = permute(values, heads)
        kind = GGMLQuantizationType.F32
        if values.ndim == 2:
            kind = types[place % len(types)]
            place += 1
        raw = quantize(numpy.ascontiguousarray(values, dtype=numpy.float32), kind)
        writer.add_tensor(in_gguf(key, LLAMA_NAMES if arch != "gpt2" else GPT2_NAMES), raw, raw_dtype=kind)
        back = dequantize(raw, kind).reshape(values.shape)
        if heads:
            back = back.reshape(heads, back.shape[0] // heads // 2, 2, *back.shape[1:]).swapaxes(1, 2).reshape(back.shape)
        state[key] = torch.tensor(numpy.ascontiguousarray(back.T if transposed else back))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if tied:
        state["lm_head.weight"] = state["model.embed_tokens.weight" if arch != "gpt2" else "transformer.wte.weight"]
    model.load_state_dict(state)
    if tokenizer:
        ids = [tokenizer.encode(text).ids for text in TEXTS]
    else:
        theirs = AutoTokenizer.from_pretrained(output, gguf_file=path.name)
        ids = [theirs(text)["input_ids"] for text in TEXTS]
    hidden = [
        model(input_ids=torch.tensor([row]), output_hidden_states=True).hidden_states[-1][0] for row in ids if len(row) > 0
    ]
    (output / f"{name}.json").write_text(json.dumps({"texts": TEXTS, "input_ids": ids}) + "\n", encoding="utf-8")
    save_file({"hidden": torch.cat(hidden).contiguous()}, output / f"{name}.safetensors")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=REPOSITORY / "crates/model/tests/golden/gguf")
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 128, "rope_theta": 5000.0, "rms_norm_eps": 1e-5,
    }  # fmt: skip
    kind = GGMLQuantizationType
    mixed = [kind.Q8_0, kind.Q4_0, kind.Q4_1, kind.Q5_0, kind.Q5_1, kind.F16, kind.BF16]
    with torch.no_grad():
        llama = LlamaForCausalLM(LlamaConfig(vocab_size=294, **sizes, tie_word_embeddings=False)).eval()
        write(output, "llama-pieces", "llama", llama, mixed, "pieces")
        llama = LlamaForCausalLM(LlamaConfig(vocab_size=300, **sizes, tie_word_embeddings=True, attention_bias=True)).eval()
        write(output, "llama-bytes", "llama", llama, [kind.Q4_1, kind.Q8_0], "llama-bpe")
        # Three frequencies of eight are stretched, one of them in part.
        stretched = {
            "rope_type": "llama3", "rope_theta": 50000.0, "factor": 16.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        }  # fmt: skip
        own = {**sizes, "rope_parameters": stretched, "head_dim": 16, "max_position_embeddings": 131072}
        del own["rope_theta"]
        llama = LlamaForCausalLM(LlamaConfig(vocab_size=300, **own, tie_word_embeddings=True)).eval()
        write(output, "llama3", "llama", llama, [kind.Q8_0, kind.Q5_1], "llama-bpe")
        smol = LlamaForCausalLM(LlamaConfig(vocab_size=300, **sizes, tie_word_embeddings=True)).eval()
        write(output, "smollm", "llama", smol, [kind.Q8_0, kind.Q4_0], "smollm")
        qwen2 = Qwen2ForCausalLM(Qwen2Config(vocab_size=300, **sizes, tie_word_embeddings=True)).eval()
        write(output, "qwen2", "qwen2", qwen2, [kind.Q5_1, kind.F16], "qwen2")
        qwen3 = Qwen3ForCausalLM(Qwen3Config(vocab_size=300, **sizes, head_dim=16, tie_word_embeddings=False)).eval()
        write(output, "qwen3", "qwen3", qwen3, [kind.BF16, kind.Q5_0], "qwen2")
        gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=300, n_embd=32, n_layer=2, n_head=4, n_positions=128)).eval()
        write(output, "gpt2", "gpt2", gpt2, [kind.Q8_0, kind.F32, kind.Q4_1], "gpt-2")


if __name__ == "__main__":
    main()
