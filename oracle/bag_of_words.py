"""The baseline a fine-tuned model has to beat: TF-IDF over words and word pairs, then logistic regression.

    python oracle/bag_of_words.py TRAIN.csv TEST.csv --text-column text --label-column intent

Prints one JSON line with accuracy and macro F1 on the test file. Needs scikit-learn.
"""

import argparse
import csv
import json

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.pipeline import make_pipeline


def read(path, text_column, label_column):
    # utf-8-sig drops the byte order mark that spreadsheets write; newline="" keeps line breaks inside fields.
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        for column in (text_column, label_column):
            if column not in (reader.fieldnames or []):
                raise SystemExit(f"{path}: no column `{column}`, there are: {reader.fieldnames}")
        rows = list(reader)
    return [row[text_column] for row in rows], [row[label_column] for row in rows]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train")
    parser.add_argument("test")
    parser.add_argument("--text-column", default="text")
    parser.add_argument("--label-column", default="label")
    args = parser.parse_args()

    train_texts, train_labels = read(args.train, args.text_column, args.label_column)
    test_texts, test_labels = read(args.test, args.text_column, args.label_column)

    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        LogisticRegression(C=10.0, max_iter=2000),
    )
    predicted = model.fit(train_texts, train_labels).predict(test_texts)
    print(json.dumps({
        "accuracy": round(accuracy_score(test_labels, predicted), 4),
        "f1_macro": round(f1_score(test_labels, predicted, average="macro"), 4),
        "train_rows": len(train_texts),
        "test_rows": len(test_texts),
    }))


if __name__ == "__main__":
    main()
