"""The same rows in every format that tables come in, written by others: Python's own writers, pyarrow, zstandard.

    python oracle/tables.py [--output crates/data/tests/golden/tables]

It needs pyarrow and zstandard, which nothing else here does: see oracle/requirements-tables.txt. All files hold the rows of rows.jsonl:
  rows.csv            text and label alone, quoted where that is needed
  rows.json           one array over many lines
  *.gz, *.zst         the same, packed; rows.two.csv.gz in two parts, rows.two.csv.zst in two frames with one to be skipped
  rows-*.parquet      by codec and by version of the data pages; three groups of rows; dictionaries in all but rows-plain
"""

import argparse
import csv
import gzip
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

TEXTS = [
    "where is my card",
    'it said "no", twice',
    "two\nlines",
    "我的卡还没有到",
    "é ß 🦀",
    " white space ",
    "a;b|c\td",
    "{\"not\": \"json\"}",
    "",
]


def rows():
    for number in range(45):
        row = {
            "text": f"{TEXTS[number % len(TEXTS)]} {number // len(TEXTS)}",
            "label": ["card", "pay", "转账"][number * number % 3],
            "count": number * 1_000_003 - 7,
            "score": number / 8 - 1.5,
            "good": number % 2 == 0,
            "tags": [["a", "b c"], [], ["é\"x"]][number % 3],
            "meta": {"page": number, "source": "web" if number % 4 else None},
        }
        if number % 5 == 3:
            row["score"] = None
        yield row


SCHEMA = pa.schema(
    [
        ("text", pa.string()),
        ("label", pa.dictionary(pa.int32(), pa.string())),
        ("count", pa.int64()),
        ("score", pa.float64()),
        ("good", pa.bool_()),
        ("tags", pa.list_(pa.string())),
        ("meta", pa.struct([("page", pa.int32()), ("source", pa.large_string())])),
    ]
)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("crates/data/tests/golden/tables"))
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    table = list(rows())

    jsonl = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table).encode()
    array = json.dumps(table, ensure_ascii=False, indent=1).encode()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["text", "label"])
    writer.writerows([row["text"], row["label"]] for row in table)
    plain = text.getvalue().encode()
    for name, content in [("rows.jsonl", jsonl), ("rows.json", array), ("rows.csv", plain)]:
        (output / name).write_bytes(content)
        (output / f"{name}.gz").write_bytes(gzip.compress(content, mtime=0))
        (output / f"{name}.zst").write_bytes(zstandard.ZstdCompressor(write_checksum=True).compress(content))
    half = len(plain) // 2
    parts = [gzip.compress(part, mtime=0) for part in (plain[:half], plain[half:])]
    (output / "rows.two.csv.gz").write_bytes(b"".join(parts))
    pack = zstandard.ZstdCompressor(level=19, write_checksum=True).compress
    skipped = b"\x5a\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"aside"
    (output / "rows.two.csv.zst").write_bytes(pack(plain[:half]) + skipped + pack(plain[half:]))

    arrow = pa.Table.from_pylist(table, schema=SCHEMA)
    for codec in ["none", "snappy", "gzip", "zstd", "lz4"]:
        for version in ["1.0", "2.0"]:
            pq.write_table(
                arrow,
                output / f"rows-{codec}-v{version[0]}.parquet",
                compression=codec,
                data_page_version=version,
                row_group_size=20,
                data_page_size=256,
            )
    # Every encoding that a writer may choose for texts and numbers.
    encodings = {"text": "DELTA_BYTE_ARRAY", "label": "DELTA_LENGTH_BYTE_ARRAY", "count": "DELTA_BINARY_PACKED", "score": "BYTE_STREAM_SPLIT"}
    flat = arrow.set_column(1, "label", arrow["label"].cast(pa.string()))
    pq.write_table(flat, output / "rows-plain.parquet", use_dictionary=False, column_encoding=encodings, row_group_size=20, compression="zstd")
    pq.write_table(arrow, output / "rows-brotli.parquet", compression="brotli")


if __name__ == "__main__":
    main()
