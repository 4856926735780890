"""Windows of questions over texts, from the tokenizers of transformers: crates/data/tests/golden/question_windows.json.

    python oracle/question_windows.py [--output FILE]

What the `prepare_train_features` of transformers' `run_qa.py` does, over the tiny tokenizers of `oracle/tokenizer.py`: the question
is kept, the text is parted with an overlap, and a window that does not hold the whole first answer has its target at the first
token. For each folder and each of its questions the windows: input_ids, token_type_ids, where the text begins, the characters
that each token of it stands for, and the target.
"""

import argparse
import json
from pathlib import Path

from transformers import AutoTokenizer
from transformers.utils import logging

GOLDEN = Path(__file__).resolve().parent.parent / "crates"
TOKENIZERS = ["uncased", "cased-left", "old", "distilbert", "roberta", "xlm-roberta", "modernbert"]

# question, text, first answer (its text and character; none where there is none), max_length, stride
QUESTIONS = [
    ("is my card lost?", "the card is not lost. my payment is lost, and the transfer is not.", ("payment", 25), 34, 4),
    ("is my card lost?", "the card is not lost. my payment is lost, and the transfer is not.", None, 34, 6),
    ("  my pay", "Café money transferable; É unpayable Ünpaid: the card  \n is lost 123.", ("É unpayable", 25), 32, 3),
    ("丢了?", "my卡is丢了not中国。中国卡丢了，the卡 is not 丢了 １２３", ("中国", 13), 26, 5),
    ("lost", "lost", ("lost", 0), 20, 2),
    ("pay? 😀", "😀 lost 😀😀 ‍card 👩‍👩‍👧 is the card e\u0301 not lost", ("card", 11), 30, 7),
    ("the", "the card's pay-ment is un-paid", ("s pay", 9), 64, 8),
    ("not", " \t my  card", ("my  card", 3), 18, 1),
]


def windows(tokenizer, question, text, answer, max_length, stride):
    rows = tokenizer(
        question.lstrip(), text, truncation="only_second", max_length=max_length, stride=stride,
        return_overflowing_tokens=True, return_offsets_mapping=True,
    )  # fmt: skip
    for number, offsets in enumerate(rows["offset_mapping"]):
        parts = rows.sequence_ids(number)
        first = parts.index(1)
        last = len(parts) - 1 - parts[::-1].index(1)
        target = [0, 0]
        if answer is not None:
            start, end = answer[1], answer[1] + len(answer[0])
            if offsets[first][0] <= start and offsets[last][1] >= end:
                begins, ends = first, last
                while begins <= last and offsets[begins][0] <= start:
                    begins += 1
                while offsets[ends][1] >= end:
                    ends -= 1
                target = [begins - 1, ends + 1]
        yield {
            "input_ids": rows["input_ids"][number],
            "token_type_ids": rows["token_type_ids"][number] if "token_type_ids" in rows else [0] * len(parts),
            "text_begins": first,
            "spans": [list(offsets[i]) for i in range(first, last + 1)],
            "target": target,
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=GOLDEN / "data/tests/golden/question_windows.json")
    output = parser.parse_args().output
    logging.set_verbosity_error()
    lines = []
    for name in TOKENIZERS:
        tokenizer = AutoTokenizer.from_pretrained(GOLDEN / "model/tests/golden/tokenizer" / name)
        # Windows are counted from the left, whichever side a classifier's text loses.
        tokenizer.truncation_side = "right"
        for question, text, answer, max_length, stride in QUESTIONS:
            if answer:
                assert text[answer[1] :].startswith(answer[0]), (text, answer)
            case = {
                "tokenizer": name, "question": question, "text": text, "answer": answer, "max_length": max_length,
                "stride": stride, "windows": list(windows(tokenizer, question, text, answer, max_length, stride)),
            }  # fmt: skip
            lines.append(json.dumps(case))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
