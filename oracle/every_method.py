"""`benches/every-method` in PyTorch: what transformers and peft reach on the same rows by the same choices.

    python oracle/every_method.py MODEL TRAIN.csv TEST.csv METHOD [METHOD ...] >> FILE.jsonl

Three learning rates with seed 1, the best by the rows held back, seeds 2 and 3 at it; then the three are tested. One
line of JSON for each training and each test. The recipe is `retune train`'s: AdamW, linear schedule with 6% warm-up,
weight decay 0.01 off biases and norms, gradients cut to norm 1, batches of 16, 3 epochs, the best epoch by the rows
held back, the pooler trained with the head, and both at 0.003 or the rate where that is higher. Which rows those are and all random numbers differ.
"""

import copy
import csv
import json
import random
import sys
import time

import peft
import torch
import transformers

RATES = {
    "head": (3e-3, 1e-3, 9e-3),
    "ia3": (1e-2, 3.3e-3, 3e-2),
    "vera": (1e-2, 3.3e-3, 3e-2),
    "prompt-tuning": (1e-2, 3.3e-3, 3e-2),
    "p-tuning": (1e-2, 3.3e-3, 3e-2),
    "p-tuning-v2": (1e-2, 3.3e-3, 3e-2),
    "prefix-tuning": (1e-3, 3.3e-4, 3e-3),
    "lokr": (5e-3, 1.7e-3, 1.5e-2),
    "loha": (5e-3, 1.7e-3, 1.5e-2),
    "adalora": (5e-3, 1.7e-3, 1.5e-2),
    "lora": (2e-3, 6.7e-4, 6e-3),
    "oft": (2e-3, 6.7e-4, 6e-3),
}
LINEAR = ["query", "key", "value", "dense"]
TASK = {"task_type": "SEQ_CLS", "modules_to_save": ["pooler"]}
HEAD_RATE = 3e-3
BATCH, EPOCHS, LENGTH = 16, 3, 128
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def wrapped(model, method, words, steps):
    """The method with retune's defaults."""
    if method == "head":
        for name, parameter in model.named_parameters():
            parameter.requires_grad = "pooler" in name or "classifier" in name
        return model
    blocks = r"bert\.encoder\..*\.(query|key|value|dense)"
    config = {
        "ia3": lambda: peft.IA3Config(
            **TASK,
            target_modules=r"bert\.encoder\..*(\.key|\.value|layer\.\d+\.output\.dense)",
            feedforward_modules=r"bert\.encoder\.layer\.\d+\.output\.dense",
        ),
        "vera": lambda: peft.VeraConfig(**TASK, r=256, target_modules=blocks),
        "lora": lambda: peft.LoraConfig(**TASK, r=8, lora_alpha=16, lora_dropout=0.1, target_modules=blocks),
        "adalora": lambda: peft.AdaLoraConfig(
            **TASK,
            init_r=12,
            target_r=8,
            lora_alpha=32,
            lora_dropout=0.1,
            tinit=steps // 10,
            tfinal=3 * steps // 10,
            orth_reg_weight=0.1,
            total_step=steps,
            target_modules=blocks,
        ),
        "loha": lambda: peft.LoHaConfig(**TASK, r=8, alpha=16, target_modules=blocks),
        "lokr": lambda: peft.LoKrConfig(**TASK, r=8, alpha=16, target_modules=blocks),
        "oft": lambda: peft.OFTConfig(**TASK, oft_block_size=32, target_modules=blocks),
        "prompt-tuning": lambda: peft.PromptTuningConfig(**TASK, num_virtual_tokens=20),
        "p-tuning": lambda: peft.PromptEncoderConfig(**TASK, num_virtual_tokens=20, encoder_hidden_size=128),
        "p-tuning-v2": lambda: peft.PrefixTuningConfig(**TASK, num_virtual_tokens=20),
        "prefix-tuning": lambda: peft.PrefixTuningConfig(
            **TASK, num_virtual_tokens=20, prefix_projection=True, encoder_hidden_size=512
        ),
    }[method]()
    base = model.get_input_embeddings().weight
    result = peft.get_peft_model(model, config)
    if method == "prompt-tuning":
        # Random words of the vocabulary, as retune begins and Lester et al. advise.
        with torch.no_grad():
            rows = torch.tensor(random.sample(range(words), 20))
            result.prompt_encoder["default"].embedding.weight.copy_(base[rows])
    return result


def rows_of(path):
    with open(path, newline="") as file:
        return [(row["text"], row["category"]) for row in csv.DictReader(file)]


def held_back(rows, seed):
    """A tenth of each label's rows, at least one where it has two."""
    by_label = {}
    for row in rows:
        by_label.setdefault(row[1], []).append(row)
    draw = random.Random(seed)
    train, back = [], []
    for _, group in sorted(by_label.items()):
        draw.shuffle(group)
        count = max(1, round(len(group) / 10)) if len(group) > 1 else 0
        back += group[:count]
        train += group[count:]
    return train, back


class Rows:
    def __init__(self, rows, labels, tokenizer):
        self.ids = tokenizer([text for text, _ in rows], truncation=True, max_length=LENGTH - 20)["input_ids"]
        self.labels = [labels[label] for _, label in rows]

    def batches(self, order, size, pad):
        for start in range(0, len(order), size):
            part = order[start : start + size]
            longest = max(len(self.ids[at]) for at in part)
            ids = [self.ids[at] + [pad] * (longest - len(self.ids[at])) for at in part]
            mask = [[1] * len(self.ids[at]) + [0] * (longest - len(self.ids[at])) for at in part]
            tensors = (torch.tensor(ids), torch.tensor(mask), torch.tensor([self.labels[at] for at in part]))
            yield [tensor.to(DEVICE) for tensor in tensors]


@torch.no_grad()
def accuracy(model, rows, pad):
    model.eval()
    order = sorted(range(len(rows.ids)), key=lambda at: len(rows.ids[at]))
    right = 0
    for ids, mask, labels in rows.batches(order, 128, pad):
        right += (model(input_ids=ids, attention_mask=mask).logits.argmax(-1) == labels).sum().item()
    return right / len(order)


def trained(folder, all_rows, labels, tokenizer, method, rate, seed):
    random.seed(seed)
    torch.manual_seed(seed)
    train, back = held_back(list(all_rows), seed)
    train, back = Rows(train, labels, tokenizer), Rows(back, labels, tokenizer)
    steps = EPOCHS * -(-len(train.ids) // BATCH)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=len(labels))
    model = wrapped(model, method, len(tokenizer), steps).to(DEVICE)
    free = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups = []
    for name, parameter in free:
        own = max(rate, HEAD_RATE) if method != "head" and ("pooler" in name or "classifier" in name) else rate
        groups.append({"params": [parameter], "lr": own, "weight_decay": 0.01 if parameter.ndim > 1 else 0.0})
    optimizer = torch.optim.AdamW(groups, lr=rate)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, round(0.06 * steps), steps)
    best, kept, step = -1.0, None, 0
    for _ in range(EPOCHS):
        model.train()
        order = list(range(len(train.ids)))
        random.shuffle(order)
        for ids, mask, targets in train.batches(order, BATCH, tokenizer.pad_token_id):
            loss = model(input_ids=ids, attention_mask=mask, labels=targets).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_([p for _, p in free], 1.0)
            optimizer.step()
            schedule.step()
            step += 1
            if method == "adalora":
                model.base_model.update_and_allocate(step)
            optimizer.zero_grad()
        found = accuracy(model, back, tokenizer.pad_token_id)
        if found > best:
            best, kept = found, copy.deepcopy({name: p.detach() for name, p in free})
    with torch.no_grad():
        for name, parameter in free:
            parameter.copy_(kept[name])
    return model, best


def say(**line):
    print(json.dumps(line), flush=True)


def main():
    folder, train, test, *methods = sys.argv[1:]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    rows, tests = rows_of(train), rows_of(test)
    labels = {label: at for at, label in enumerate(sorted({label for _, label in rows}))}
    tests = Rows(tests, labels, tokenizer)
    for method in methods:
        candidates = {}
        for rate in RATES[method]:
            begun = time.time()
            model, found = trained(folder, rows, labels, tokenizer, method, rate, 1)
            candidates[rate] = found, model.cpu()
            say(what="train", method=method, learning_rate=rate, seed=1, held_back_accuracy=found, seconds=time.time() - begun)
        rate = max(candidates, key=lambda rate: candidates[rate][0])
        for seed in (1, 2, 3):
            model = candidates[rate][1].to(DEVICE)
            if seed > 1:
                model, found = trained(folder, rows, labels, tokenizer, method, rate, seed)
                say(what="train", method=method, learning_rate=rate, seed=seed, held_back_accuracy=found)
            found = accuracy(model, tests, tokenizer.pad_token_id)
            free = sum(p.numel() for p in model.parameters() if p.requires_grad)
            say(what="test", method=method, learning_rate=rate, seed=seed, accuracy=found, trainable_parameters=free)


if __name__ == "__main__":
    main()
