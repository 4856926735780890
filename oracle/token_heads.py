"""Reference values for heads over tokens and over spans, by transformers: crates/adapt/tests/golden/token_heads.safetensors.

    python oracle/token_heads.py

For each family the tiny model of tiny_bert.py, tiny_encoders.py or tiny_decoders.py is opened as ...ForTokenClassification
and, if it is an encoder, as ...ForQuestionAnswering, its last layer is filled from a seed, and the rows of that folder are read one at a time, so that no
padding takes part. Kept are that layer, the logits of all tokens, one row's after the other's, and, of the mean cross-entropy
against targets that are made of the token ids, the loss and the gradients of that layer's weight and of the word embeddings.
"""

import inspect
import json
from pathlib import Path

import numpy
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForQuestionAnswering, AutoModelForTokenClassification
from transformers.utils import logging

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "crates/model/tests/golden"
CASES = ["bert-classifier", "roberta-classifier", "camembert-classifier", "distilbert-classifier", "electra-classifier", "modernbert-classifier"]
DECODERS = ["gpt2-classifier", "llama-classifier"]
HEADS = {"token": (AutoModelForTokenClassification, 3), "question": (AutoModelForQuestionAnswering, 2)}


def main():
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    tensors = {}
    for case in CASES + DECODERS:
        rows = json.loads((GOLDEN / case / "expected.json").read_text())
        for head, (auto, outputs) in HEADS.items():
            if case in DECODERS and head == "question":
                continue
            config = AutoConfig.from_pretrained(GOLDEN / case, num_labels=outputs)
            model = auto.from_pretrained(GOLDEN / case, config=config, dtype=torch.float32, ignore_mismatched_sizes=True).eval()
            last = next(getattr(model, name) for name in ("qa_outputs", "classifier", "score") if hasattr(model, name))
            rng = numpy.random.default_rng(5)
            with torch.no_grad():
                for parameter in last.parameters():
                    parameter.copy_(torch.from_numpy(rng.standard_normal(tuple(parameter.shape)) * 0.3))
            logits, targets = [], []
            # GPT-2 takes types for words.
            takes_types = "token_type_ids" in inspect.signature(model.forward).parameters and case not in DECODERS
            for ids, types in zip(rows["input_ids"], rows["token_type_ids"]):
                given = {"input_ids": torch.tensor([ids])}
                if takes_types:
                    given["token_type_ids"] = torch.tensor([types])
                out = model(**given)
                row = out.logits[0] if head == "token" else torch.stack([out.start_logits[0], out.end_logits[0]], -1)
                logits.append(row)
                targets += [(7 * i + 3) % outputs for i in ids]
            logits = torch.cat(logits)
            loss = torch.nn.functional.cross_entropy(logits, torch.tensor(targets))
            loss.backward()
            words = model.get_input_embeddings().weight
            for name, value in {
                "weight": last.weight, "bias": last.bias, "logits": logits, "loss": loss.reshape(1),
                "grad.weight": last.weight.grad, "grad.words": words.grad,
            }.items():  # fmt: skip
                tensors[f"{case}.{head}.{name}"] = value.detach().float().contiguous()
    out = ROOT / "crates/adapt/tests/golden/token_heads.safetensors"
    save_file(tensors, out)
    print(f"{len(tensors)} tensors, {out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
