"""Golden values for the encoder families after BERT, from tiny random transformers and peft models.

    python oracle/tiny_encoders.py [--output crates/model/tests/golden]

Folders and files are those of tiny_bert.py, which says what is in them.
"""

import argparse
import warnings
from pathlib import Path

import torch
from tiny_bert import BERT_TARGETS, REPOSITORY, write_adapter, write_checkpoint
from transformers import (
    CamembertConfig,
    CamembertForSequenceClassification,
    DistilBertConfig,
    DistilBertForMaskedLM,
    DistilBertForSequenceClassification,
    DistilBertModel,
    ElectraConfig,
    ElectraForPreTraining,
    ElectraForSequenceClassification,
    ModernBertConfig,
    ModernBertForMaskedLM,
    ModernBertForSequenceClassification,
    ModernBertModel,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaForSequenceClassification,
    XLMRobertaConfig,
    XLMRobertaModel,
)
from transformers.utils import logging


def sizes(hidden, heads, layers, intermediate, vocabulary, positions, types, activation, eps):
    return {
        "hidden_size": hidden, "num_attention_heads": heads, "num_hidden_layers": layers,
        "intermediate_size": intermediate, "vocab_size": vocabulary, "max_position_embeddings": positions,
        "type_vocab_size": types, "hidden_act": activation, "layer_norm_eps": eps,
    }  # fmt: skip


def distilbert(dim, heads, layers, hidden, vocabulary, positions, activation, **others):
    return DistilBertConfig(
        dim=dim, n_heads=heads, n_layers=layers, hidden_dim=hidden, vocab_size=vocabulary,
        max_position_embeddings=positions, activation=activation, **others,
    )  # fmt: skip


def with_padding(padding):
    """A text may hold the padding token, which has no position of its own: first, twice in a row, last."""

    def change(batch):
        batch["input_ids"][1][2:4] = [padding, padding]
        batch["input_ids"][2][-1] = padding
        batch["input_ids"][4][0] = padding

    return change


def roberta(output):
    write_checkpoint(
        output / "roberta-classifier", RobertaForSequenceClassification,
        RobertaConfig(**sizes(12, 3, 2, 19, 41, 25, 1, "gelu", 1e-5), num_labels=3), num_labels=3, seed=31,
        change=with_padding(1),
    )  # fmt: skip
    write_adapter(output / "roberta-classifier", output / "roberta-classifier/lora", seed=32)
    write_checkpoint(
        output / "roberta-masked", RobertaForMaskedLM,
        RobertaConfig(**sizes(10, 2, 1, 23, 37, 21, 2, "gelu_new", 1e-12), pad_token_id=5, bos_token_id=3), num_labels=4,
        seed=33, dtype=torch.float16, change=with_padding(5),
    )  # fmt: skip
    write_checkpoint(
        output / "xlm-roberta-bare", XLMRobertaModel,
        XLMRobertaConfig(**sizes(8, 1, 1, 17, 43, 19, 1, "gelu", 1e-5)), num_labels=2, seed=34, dtype=torch.bfloat16,
        change=with_padding(1),
    )  # fmt: skip
    write_checkpoint(
        output / "camembert-classifier", CamembertForSequenceClassification,
        CamembertConfig(**sizes(9, 3, 1, 11, 31, 20, 1, "gelu", 1e-5), num_labels=5), num_labels=5, seed=35,
        change=with_padding(1),
    )  # fmt: skip


def distilberts(output):
    write_checkpoint(
        output / "distilbert-classifier", DistilBertForSequenceClassification,
        distilbert(12, 3, 2, 19, 41, 23, "gelu", sinusoidal_pos_embds=True, num_labels=3), num_labels=3, seed=41,
    )  # fmt: skip
    targets = ["q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"]
    write_adapter(output / "distilbert-classifier", output / "distilbert-classifier/lora", seed=42, targets=targets)
    write_checkpoint(
        output / "distilbert-masked", DistilBertForMaskedLM,
        distilbert(10, 2, 1, 23, 37, 19, "relu"), num_labels=4, seed=43, dtype=torch.float16,
    )  # fmt: skip
    write_checkpoint(
        output / "distilbert-bare", DistilBertModel,
        distilbert(8, 1, 1, 11, 31, 17, "gelu"), num_labels=2, seed=44, dtype=torch.bfloat16,
    )  # fmt: skip


def electra(output):
    write_checkpoint(
        output / "electra-classifier", ElectraForSequenceClassification,
        ElectraConfig(**sizes(12, 3, 2, 19, 41, 23, 2, "relu", 1e-12), embedding_size=7, num_labels=3), num_labels=3,
        seed=51,
    )  # fmt: skip
    write_adapter(
        output / "electra-classifier", output / "electra-classifier/lora", seed=52,
        targets=[*BERT_TARGETS, "embeddings_project"],
    )  # fmt: skip
    write_checkpoint(
        output / "electra-discriminator", ElectraForPreTraining,
        ElectraConfig(**sizes(10, 2, 1, 17, 37, 19, 3, "gelu", 1e-12), embedding_size=10), num_labels=4, seed=53,
        dtype=torch.float16,
    )  # fmt: skip


def modernberts(output):
    def config(hidden, heads, layers, intermediate, vocabulary, positions, window, **others):
        return ModernBertConfig(
            hidden_size=hidden, num_attention_heads=heads, num_hidden_layers=layers, intermediate_size=intermediate,
            vocab_size=vocabulary, max_position_embeddings=positions, local_attention=window, pad_token_id=0,
            bos_token_id=1, cls_token_id=1, eos_token_id=2, sep_token_id=2, **others,
        )  # fmt: skip

    def old_keys(keys):
        """As the published checkpoints have them."""
        del keys["layer_types"], keys["rope_parameters"]
        keys |= {"global_attn_every_n_layers": 2, "global_rope_theta": 90.0, "local_rope_theta": 17.0}

    # Its last block has a window, of which a classifier reads the first token alone.
    write_checkpoint(
        output / "modernbert-classifier", ModernBertForSequenceClassification,
        config(12, 3, 4, 7, 41, 23, 5, global_attn_every_n_layers=2, num_labels=3), num_labels=3, seed=61,
    )  # fmt: skip
    write_adapter(
        output / "modernbert-classifier", output / "modernbert-classifier/lora", seed=62,
        targets=["Wqkv", "attn.Wo", "Wi", "mlp.Wo"],
    )  # fmt: skip
    biases = dict.fromkeys(["norm_bias", "attention_bias", "mlp_bias", "classifier_bias"], True)
    write_checkpoint(
        output / "modernbert-masked", ModernBertForMaskedLM,
        config(10, 1, 3, 9, 37, 21, 6, classifier_pooling="mean", hidden_activation="silu", norm_eps=1e-3, **biases),
        num_labels=4, seed=63, dtype=torch.float16, rewrite=old_keys,
    )  # fmt: skip
    write_checkpoint(
        output / "modernbert-bare", ModernBertModel,
        config(
            8, 2, 2, 5, 31, 19, 4, layer_types=["sliding_attention", "full_attention"], classifier_activation="relu",
            classifier_bias=True, classifier_pooling="mean",
            rope_parameters={"full_attention": {"rope_theta": 55.0}, "sliding_attention": {"rope_theta": 7.0}},
        ),
        num_labels=2, seed=64, dtype=torch.bfloat16,
    )  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=REPOSITORY / "crates/model/tests/golden")
    output = parser.parse_args().output
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    warnings.simplefilter("ignore")
    roberta(output)
    distilberts(output)
    electra(output)
    modernberts(output)


if __name__ == "__main__":
    main()
