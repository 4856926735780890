//! Files with rows that are broken, in every format: each is refused with exit 2 and its place, and nothing is written.
//!
//! A new format adds its cases to the table.

use std::path::Path;

use crate::command::retune;
use crate::tiny::Tiny;

/// A broken file: its name, its bytes, flags beside, and what is said of it behind its name.
struct Case {
    name: &'static str,
    bytes: Vec<u8>,
    flags: &'static [&'static str],
    said: &'static str,
}

fn case(name: &'static str, bytes: impl AsRef<[u8]>, said: &'static str) -> Case {
    Case { name, bytes: bytes.as_ref().to_vec(), flags: &[], said }
}

fn flagged(case: Case, flags: &'static [&'static str]) -> Case {
    Case { flags, ..case }
}

fn golden(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/tests/golden/tables");
    std::fs::read(folder.join(name)).unwrap()
}

/// `bytes` with the one at `place` changed; from the end where that is negative.
fn changed(mut bytes: Vec<u8>, place: isize) -> Vec<u8> {
    let place = place.rem_euclid(bytes.len() as isize) as usize;
    bytes[place] ^= 0x55;
    bytes
}

fn cut(bytes: &[u8], share: f64) -> &[u8] {
    &bytes[..(bytes.len() as f64 * share) as usize]
}

/// A gzip file of one stored block (RFC 1952, 1951).
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
    }
    let length = u16::try_from(bytes.len()).unwrap();
    [
        &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 1][..],
        &length.to_le_bytes(),
        &(!length).to_le_bytes(),
        bytes,
        &(!crc).to_le_bytes(),
        &u32::from(length).to_le_bytes(),
    ]
    .concat()
}

/// A Zstandard frame of one raw block (RFC 8878).
fn zstd(bytes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(bytes.len()).unwrap();
    let block = (u32::from(length) << 3 | 1).to_le_bytes();
    [&[0x28, 0xb5, 0x2f, 0xfd, 0x20, length][..], &block[..3], bytes].concat()
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

const MULTI: &[&str] = &["--problem-type", "multi-label"];
const NUMBERS: &[&str] = &["--problem-type", "regression"];
const ENTITIES: &[&str] = &["--task", "token-classification"];
const CONLL: &[&str] = &["--task", "token-classification", "--format", "conll"];
const QUESTIONS: &[&str] = &["--task", "question-answering"];

fn delimited() -> Vec<Case> {
    vec![
        case("empty.csv", "", "the file is empty"),
        case("header.csv", "text,label\n", "line 1: expected records below the header"),
        case("open.csv", "text,label\na,x\n\"b,y\nc,z\n", "line 3: expected a closing quote"),
        case("closed.csv", "text,label\n\"a\"b,x\n", "line 2: expected `,` or the end of the line"),
        case("wide.csv", "text,label\na,x\nb,c,y\n", "line 3: expected 2 fields"),
        case("narrow.csv", "text,label\na,x\nb\n", "line 3: expected 2 fields"),
        case("twice.csv", "text,text\na,x\n", "line 1: expected different names in the header"),
        case("unnamed.csv", ",text,label\n0,a,x\n", "line 1: expected a name for every column"),
        case("half.csv", b"text,label\na,x\ncaf\xc3", "line 3, byte 18: expected UTF-8 text"),
        case("latin.csv", b"text,label\nverloren \xe9,x\n", "line 2, byte 20: expected UTF-8 text"),
        case("nul.csv", b"text,label\na\0b,x\n", "line 2, byte 12: expected text, got a NUL byte"),
        case("utf16.csv", utf16("text,label\na,x\n"), "line 1, byte 1: expected text, got a NUL byte"),
        case(
            "half16.csv",
            [&b"\xff\xfe"[..], &utf16("text,label\na,x\n"), b"b"].concat(),
            "line 3, byte 32: expected",
        ),
        flagged(
            case("half.sjis.csv", b"text,label\n\x83J\x83\n", "line 2, byte 13: expected shift_jis text"),
            &["--encoding", "shift_jis"],
        ),
        // What should be labels are texts, and the other way round.
        case(
            "swapped.csv",
            "text,label\nx,where is my card\ny,I lost it today\nx,who are you then\n",
            "expected labels that repeat in column `label`",
        ),
        case(
            "unlabelled.csv",
            "text,label\na,x\nb,\nc,y\nd,\n",
            "2 rows have nothing in column `label` (lines 3, 5)",
        ),
        case("textless.csv", "text,label\na,x\n  ,y\n", "1 row has nothing in column `text` (line 3)"),
        case("one.csv", "text,label\na,x\nb,x\nc,x\n", "expected at least two classes in column `label`"),
        case(
            "object.csv",
            "text,label\na,x\nb,\"{\"\"y\"\": 1}\"\n",
            "line 3: column `label`: expected the name of a class, got a JSON object",
        ),
        case(
            "comma.csv",
            "text;label\na;0,5\nb;1,5\nc;2,5\n",
            "line 2: column `label`: expected numbers with a point",
        ),
        flagged(
            case(
                "list.csv",
                "text,label\na,\"[\"\"x\"\"]\"\nb,\"['y']\"\n",
                "line 3: column `label`: expected a JSON list",
            ),
            MULTI,
        ),
        flagged(
            case("word.csv", "text,label\na,1.5\nb,two\n", "line 3: column `label`: expected a number"),
            NUMBERS,
        ),
        case("wide.tsv", "text\tlabel\na\tx\nb\tc\ty\n", "line 3: expected 2 fields"),
        case("open.tsv", "text\tlabel\n\"a\"\tx\n\"b\"\ty\n\"c\ty\n", "line 4: expected a closing quote"),
        flagged(
            case("column.csv", "text,label\na,x\n", "no column `txet` for the text"),
            &["--text-column", "txet"],
        ),
        flagged(
            case("rename.csv", "text,label\na,x\n", "no column `lable` to be renamed"),
            &["--rename", "lable=class"],
        ),
    ]
}

fn json() -> Vec<Case> {
    vec![
        case(
            "cut.jsonl",
            "{\"text\": \"a\", \"label\": \"x\"}\n{\"text\": \"b\", \"la",
            "line 2, column 17: expected a JSON object on this line",
        ),
        case(
            "comma.jsonl",
            "{\"text\": \"a\", \"label\": \"x\",}\n",
            "line 1, column 28: expected a JSON object on this line",
        ),
        case("twice.jsonl", "{\"text\": \"a\", \"text\": \"b\"}\n", "line 1: expected each key once"),
        case("number.jsonl", "{\"text\": \"a\", \"label\": \"x\"}\n17\n", "line 2: expected a JSON object"),
        case(
            "list.jsonl",
            "{\"text\": \"a\", \"label\": \"x\"}\n[\"b\", \"y\"]\n",
            "line 2: expected a JSON object",
        ),
        case(
            "surrogate.jsonl",
            "{\"text\": \"a\", \"label\": \"x\"}\n{\"text\": \"\\ud83d!\", \"label\": \"x\"}\n",
            "line 2, column",
        ),
        case(
            "nan.jsonl",
            "{\"text\": \"a\", \"label\": NaN}\n",
            "line 1, column 24: expected a JSON object on this line",
        ),
        case(
            "quotes.jsonl",
            "{\"text\": \"a\", \"label\": \"x\"}\n{'text': 'b'}\n",
            "line 2, column 2: expected a JSON object on this line",
        ),
        case(
            "pretty.jsonl",
            "{\n  \"text\": \"a\"\n}\n",
            "line 1, column 1: expected a JSON object on this line",
        ),
        case("empty.jsonl", "{}\n{}\n", "expected objects with keys"),
        case("half.jsonl", b"{\"text\": \"\xe8\xbd\"}\n", "line 1, byte 10: expected UTF-8 text"),
        // What the text is lies deeper than a column.
        case(
            "nested.jsonl",
            "{\"row\": {\"text\": \"a\", \"label\": \"x\"}}\n{\"row\": {\"text\": \"b\", \"label\": \"y\"}}\n",
            "no column stands out as the label",
        ),
        case(
            "label.jsonl",
            "{\"text\": \"a\", \"label\": \"x\"}\n{\"text\": \"b\", \"label\": {\"y\": 1}}\n",
            "line 2: column `label`: expected the name of a class, got a JSON object",
        ),
        case(
            "cut.json",
            "[{\"text\": \"a\", \"label\": \"x\"},\n{\"text\": \"b\"",
            "line 2: expected the end of the array",
        ),
        case("open.json", "[{\"text\": \"a\", \"label\": \"x\"}\n", "line 2: expected the end of the array"),
        case(
            "comma.json",
            "[{\"text\": \"a\", \"label\": \"x\"},\n]",
            "line 2, column 1: expected an object after the comma",
        ),
        case(
            "joined.json",
            "[{\"text\": \"a\"}\n {\"text\": \"b\"}]",
            "line 2, column 2: expected a comma or the end of the array",
        ),
        case("scalar.json", "[{\"text\": \"a\"},\n \"b\"]", "line 2, column 2: expected an array of objects"),
        case(
            "behind.json",
            "[{\"text\": \"a\", \"label\": \"x\"}]\n[]",
            "line 2, column 1: expected nothing behind the array",
        ),
        case("none.json", "[]", "the file is empty"),
        case("escape.json", "[{\"text\":\n \"\\x41\"}]", "line 2, column"),
        case("twice.json", "[\n{\"text\": \"a\", \"text\": \"b\"}]", "line 2: expected each key once"),
        flagged(
            case("object.json", "{\"rows\": []}", "line 1, column 1: expected an array of objects"),
            &["--format", "json"],
        ),
        case(
            "squad.json",
            "{\"version\": \"1.1\", \"data\": [{\"title\": \"t\",\n\"paragraphs\": [{\"context\": \"a\", \"qas\": [",
            "line 2, column",
        ),
    ]
}

fn sentences() -> Vec<Case> {
    let conll = |name, text: &str, said| flagged(case(name, text, said), CONLL);
    let lists = |name, text: &str, said| flagged(case(name, text, said), ENTITIES);
    vec![
        conll("blank.conll", "-DOCSTART- -X- O\n\n\t\n", "the file has no words"),
        conll("narrow.conll", "EU\tB-org\nrejects\n", "line 2: expected 2 columns, as on line 1, got 1"),
        conll("wide.conll", "EU B-org\n\nthe NN O\n", "line 3: expected 2 columns, as on line 1, got 3"),
        conll("wordless.conll", "EU\tB-org\n\tO\n", "line 2: expected a word before its tag"),
        conll(
            "tag.conll",
            "EU\tB-org\ncall\tVB\n",
            "line 2: column `2`: expected O or a tag such as B-person",
        ),
        conll(
            "swapped.conll",
            "B-org\tEU\nO\trejects\n",
            "line 1: column `2`: expected O or a tag such as B-person",
        ),
        // Nobody has said what it is, but its name.
        case(
            "named.conll",
            "B-org\tEU\nO\trejects\n",
            "line 1: column `2`: expected O or a tag such as B-person",
        ),
        conll(
            "mixed.conll",
            "EU\tB-org\nUN\tM-org\nit\tI-org\n",
            "line 3: column `2`: expected tags of one scheme, got the prefixes `M`, `I`",
        ),
        flagged(
            case(
                "scheme.conll",
                "EU\tB-org\n\nUN\tB-org\nlaw\tE-org\n",
                "line 4: column `2`: expected tags of iob2, as --tag-scheme says",
            ),
            &["--task", "token-classification", "--format", "conll", "--tag-scheme", "iob2"],
        ),
        conll("outside.conll", "EU\tO\n\nUN\tO\n", "expected entities, got none in all 2 rows"),
        flagged(
            case("half.conll", b"EU\tB-org\n\xe4\xbd\tO\n", "line 2, byte 9: expected UTF-8 text"),
            CONLL,
        ),
        // One line of many is broken: it is CoNLL's form all the same.
        case(
            "one.conll",
            format!("{}EU\n{}", "EU\tB-org\n".repeat(30), "UN\tO\n".repeat(30)),
            "line 31: expected 2 columns, as on line 1, got 1",
        ),
        lists(
            "short.jsonl",
            "{\"tokens\": [\"EU\", \"law\"], \"tags\": [\"O\"]}\n",
            "line 1: column `tags`: expected a tag for each of 2 words, got 1",
        ),
        lists(
            "untagged.jsonl",
            "{\"tokens\": [\"EU\"], \"tags\": [\"B-org\"]}\n{\"tokens\": [\"UN\"]}\n",
            "line 2: column `tags`: expected a list of tags, got nothing",
        ),
        lists(
            "nested.tokens.jsonl",
            "{\"tokens\": [\"EU\"], \"tags\": [\"B-org\"]}\n{\"tokens\": [[\"UN\"]], \"tags\": [\"O\"]}\n",
            "line 2: column `tokens`: expected a JSON list of words",
        ),
        lists(
            "numbers.jsonl",
            "{\"tokens\": [\"EU\"], \"tags\": [3]}\n",
            "line 1: column `tags`: expected a JSON list of tags, got `3` in it",
        ),
        lists(
            "entityless.jsonl",
            "{\"text\": \"EU\", \"entities\": [[0, 2, \"org\"]]}\n{\"text\": \"UN law\"}\n",
            "line 2: column `entities`: expected a list of entities, got nothing",
        ),
        lists(
            "null.entities.jsonl",
            "{\"text\": \"EU\", \"entities\": [[0, 2, \"org\"]]}\n{\"text\": \"UN law\", \"entities\": null}\n",
            "line 2: column `entities`: expected a list of entities, got nothing",
        ),
        lists(
            "textless.jsonl",
            "{\"text\": \"EU\", \"entities\": [[0, 2, \"org\"]]}\n{\"entities\": []}\n",
            "line 2: column `text`: expected a text, got nothing",
        ),
        lists(
            "null.text.jsonl",
            "{\"text\": \"EU\", \"entities\": [[0, 2, \"org\"]]}\n{\"text\": null, \"entities\": []}\n",
            "line 2: column `text`: expected a text, got nothing",
        ),
        lists(
            "object.text.jsonl",
            "{\"text\": \"EU\", \"entities\": [[0, 2, \"org\"]]}\n{\"text\": {\"a\": 1}, \"entities\": []}\n",
            "line 2: column `text`: expected a text, got `{",
        ),
        lists(
            "beyond.jsonl",
            "{\"text\": \"EU\", \"entities\": [[0, 3, \"org\"]]}\n",
            "line 1: column `entities`: expected an entity within the 2 characters of its text",
        ),
        lists(
            "order.jsonl",
            "{\"text\": \"EU law\", \"entities\": [[0, 2, \"org\"], [6, 3, \"law\"]]}\n",
            "line 1: column `entities`: expected an entity within the 6 characters of its text, got 6 to 3",
        ),
        lists(
            "kindless.jsonl",
            "{\"text\": \"EU\", \"entities\": [{\"start\": 0, \"end\": 2}]}\n",
            "line 1: column `entities`: expected a JSON list of entities",
        ),
    ]
}

fn squad(paragraph: &str) -> String {
    format!("{{\"version\": \"1.1\", \"data\": [{{\"title\": \"t\",\n\"paragraphs\": [{paragraph}]}}]}}")
}

fn questions() -> Vec<Case> {
    let one = |name, questions: &str, said| {
        let paragraph = format!("{{\"context\": \"my card is lost\",\n\"qas\": [{questions}]}}");
        flagged(case(name, squad(&paragraph), said), QUESTIONS)
    };
    let table = |name, text: &str, said| flagged(case(name, text, said), QUESTIONS);
    vec![
        one("none.squad.json", "", "expected questions in `data`, `paragraphs`, `qas`, got none"),
        one(
            "id.squad.json",
            "{\"id\": null, \"question\": \"q\", \"answers\": []}",
            "line 3: `id`: expected a string, got null",
        ),
        one("asked.squad.json", "{\"id\": \"1\",\n\"answers\": []}", "line 4, column"),
        one(
            "twice.squad.json",
            "{\"id\": \"1\", \"question\": \"q\", \"answers\": []},\n{\"id\": \"1\", \"question\": \"r\", \"answers\": []}",
            "line 4: expected an id of its own for each question, got `1` twice",
        ),
        one(
            "list.squad.json",
            "{\"id\": \"1\", \"question\": \"q\",\n\"answers\": {\"text\": \"card\"}}",
            "line 4, column",
        ),
        one(
            "start.squad.json",
            "{\"id\": \"1\", \"question\": \"q\", \"answers\": [{\"text\": \"card\", \"answer_start\": 3.5}]}",
            "line 3: column `answers`: expected",
        ),
        one(
            "text.squad.json",
            "{\"id\": \"1\", \"question\": \"q\", \"answers\": [{\"answer_start\": 3}]}",
            "line 3: column `answers`: expected the text of an answer, got none",
        ),
        one(
            "both.squad.json",
            "{\"id\": \"1\", \"question\": \"q\", \"answers\": [{\"text\": \"card\", \"answer_start\": 3}], \"is_impossible\": true}",
            "line 3: column `answers`: expected no answer where `is_impossible` is true",
        ),
        one(
            "unanswered.squad.json",
            "{\"id\": \"1\", \"question\": \"q\"}",
            "1 row has nothing in column `answers` (line 3)",
        ),
        flagged(
            case("context.squad.json", squad("{\"qas\": []}"), "line 2, column 26: expected SQuAD's JSON"),
            QUESTIONS,
        ),
        flagged(
            case(
                "half.squad.json",
                [&b"{\"data\": [{\"paragraphs\": [{\"context\": \""[..], b"\xe5\x8d", b"\"}]}]}"].concat(),
                "line 1, byte 39: expected UTF-8 text",
            ),
            QUESTIONS,
        ),
        table("context.csv", "question,answer\nwhere?,here\n", "no column stands out as the context"),
        table(
            "python.csv",
            "context,question,answers\nmy card,what?,\"{'text': ['card'], 'answer_start': [3]}\"\n",
            "line 2: column `answers`: expected answers as JSON, got Python's way to write them",
        ),
        table(
            "starts.jsonl",
            "{\"context\": \"a b\", \"question\": \"q\", \"answers\": {\"text\": [\"a\"], \"answer_start\": [0, 2]}}\n",
            "line 1: column `answers`: expected as many of `answer_start` as of `text`, got 2 for 1",
        ),
        table(
            "gap.csv",
            "context,question,answer\na b,q,a\n,r,b\n",
            "1 row has nothing in column `context` (line 3)",
        ),
    ]
}

fn packed() -> Vec<Case> {
    let (gz, zst) = (golden("rows.csv.gz"), golden("rows.csv.zst"));
    vec![
        case("cut.csv.gz", cut(&gz, 0.7), ": the gzip data ends too early"),
        case("head.csv.gz", &gz[..6], "the gzip data ends too early"),
        case("crc.csv.gz", changed(gz.clone(), -6), ": the gzip data is damaged"),
        case("damaged.csv.gz", changed(gz.clone(), 11), "the gzip data is damaged"),
        case("behind.csv.gz", [&gz[..], b"and something more behind"].concat(), ": the gzip data is damaged"),
        case("wide.csv.gz", gzip(b"text,label\na,x\nb,c,y\n"), "line 3: expected 2 fields"),
        case("half.csv.gz", gzip(b"text,label\na,\xe4\xbd\n"), "line 2, byte 13: expected UTF-8 text"),
        case("cut.csv.zst", cut(&zst, 0.7), "the zstd data ends too early"),
        case("garbage.csv.zst", [&zst[..4], &[0x9d; 60][..]].concat(), "the zstd data"),
        case("checksum.csv.zst", changed(zst.clone(), -2), ": the zstd data is damaged"),
        case("behind.csv.zst", [&zst[..], b"and more"].concat(), ": the zstd data is damaged"),
        case("aside.csv.zst", b"\x50\x2a\x4d\x18\x02\0\0\0ab", "the file is empty"),
        case(
            "comma.json.zst",
            zstd(b"[{\"text\": \"a\"},\n]"),
            "line 2, column 1: expected an object after the comma",
        ),
        case("twice.gz", gzip(&gzip(b"text,label\na,x\n")), "expected"),
    ]
}

fn binary() -> Vec<Case> {
    let (plain, zstd) = (golden("rows-none-v1.parquet"), golden("rows-zstd-v2.parquet"));
    vec![
        case("magic.parquet", b"PAR1", "expected the footer of a Parquet file"),
        case("cut.parquet", cut(&plain, 0.5), "expected the footer of a Parquet file"),
        case("end.parquet", &plain[..plain.len() - 2], "expected the footer of a Parquet file"),
        case("footer.parquet", changed(plain.clone(), -7), "cut short or damaged"),
        case("page.parquet", changed(plain.clone(), 6), "row group 0"),
        case("packed.parquet", changed(zstd, 60), "row group 0"),
        case(
            "brotli.parquet",
            golden("rows-brotli.parquet"),
            "row group 0: column `text` is packed with Brotli",
        ),
        case("cut.parquet.gz", gzip(cut(&plain, 0.5)), "expected the footer of a Parquet file"),
        flagged(
            case("rows.csv", "text,label\na,x\n", "byte 0: expected a Parquet file"),
            &["--format", "parquet"],
        ),
        flagged(
            case("rows.parquet", &plain, "byte 0: expected csv, got a Parquet file"),
            &["--format", "csv"],
        ),
        case(
            "book.csv",
            b"PK\x03\x04\x14\0\x06\0",
            "byte 0: expected text, got a zip archive or an Excel workbook",
        ),
        case("base.csv", b"SQLite format 3\0", "byte 0: expected text, got a SQLite database"),
    ]
}

#[test]
fn every_broken_file_is_refused_at_its_place() {
    let tiny = Tiny::new();
    let (model, result) =
        (tiny.path("base").display().to_string(), tiny.path("result").display().to_string());
    let cases: Vec<Case> =
        [delimited(), json(), sentences(), questions(), packed(), binary()].into_iter().flatten().collect();
    assert!(cases.len() >= 60, "{}", cases.len());
    let before = |name: &str| {
        let mut names = tiny.names("");
        names.retain(|known| known != name);
        names
    };
    let mut wrong = Vec::new();
    for Case { name, bytes, flags, said } in cases {
        let rows = tiny.write(name, bytes).display().to_string();
        let there = before(name);
        let arguments = ["train", "--model", &model, "--train", &rows, "--output", &result];
        let done = retune(&[&arguments[..], flags].concat());
        let refused = done.code == 2 && done.stdout.is_empty() && done.stderr.contains("\nerror: ");
        if !(refused && done.stderr.contains(&format!("{name}: ")) && done.stderr.contains(said)) {
            wrong.push(format!("{name}: expected `{said}`, got {} and {}", done.code, done.stderr));
        }
        assert_eq!(before(name), there, "{name}: something was written");
        std::fs::remove_file(tiny.path(name)).unwrap();
    }
    assert!(wrong.is_empty(), "{} of the files:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn of_several_files_the_broken_one_is_named() {
    let tiny = Tiny::new();
    let (model, result) =
        (tiny.path("base").display().to_string(), tiny.path("result").display().to_string());
    std::fs::create_dir(tiny.path("rows")).unwrap();
    tiny.write("rows/a.csv", "text,label\nmy card,pay\nis lost,lost\n");
    tiny.write("rows/b.jsonl", "{\"text\": \"b\", \"label\": \"x\"}\n{\"text\": 7, \"label\"}\n");
    tiny.write("rows/readme.md", "no rows");
    let path = |name: &str| tiny.path(name).display().to_string();
    let on = |named: &[&str]| {
        let named: Vec<String> = named.iter().map(|name| path(name)).collect();
        let flags = named.iter().flat_map(|name| ["--train", name]);
        let arguments = ["train", "--model", &model, "--output", &result];
        retune(&arguments.into_iter().chain(flags).collect::<Vec<_>>())
    };
    on(&["rows"]).refused("rows/b.jsonl: line 2, column 20: ");
    on(&["rows/a.csv", "rows/b.jsonl"]).refused("rows/b.jsonl: line 2, column 20: ");
    on(&["rows/*.jsonl"]).refused("rows/b.jsonl: line 2, column 20: ");
    on(&["rows/*.tsv"]).refused("rows/*.tsv: no file fits this pattern");
    on(&["rows/a.csv", "rows/?.csv"]).refused("rows/a.csv: the file is named twice");
    on(&["rows/a.csv", "rows/c.csv"]).refused("rows/c.csv: the file cannot be read");
    std::fs::remove_file(tiny.path("rows/a.csv")).unwrap();
    std::fs::remove_file(tiny.path("rows/b.jsonl")).unwrap();
    on(&["rows"]).refused("rows: the folder has no file that ends in .csv").refused("`readme.md`");
    assert!(!tiny.path("result").exists());
}

#[test]
fn several_files_are_learnt_from_and_remembered() {
    let tiny = Tiny::new();
    let (one, two) = (tiny.path("one.csv"), tiny.path("two.jsonl"));
    let rows = std::fs::read_to_string(tiny.path("train.csv")).unwrap();
    let lines: Vec<&str> = rows.lines().collect();
    std::fs::write(&one, lines[..31].join("\n").replacen("text,label", "say,label", 1)).unwrap();
    let objects = lines[31..].iter().map(|line| {
        let (text, label) = line.rsplit_once(',').unwrap();
        serde_json::json!({"label": label.trim_matches('"'), "text": text.trim_matches('"')}).to_string()
    });
    std::fs::write(&two, objects.collect::<Vec<_>>().join("\n")).unwrap();
    let run = tiny.write(
        "run.toml",
        format!(
            "model = {:?}\ntrain = [{one:?}, {two:?}]\noutput = {:?}\nrename = {{ say = \"text\" }}\nepochs = 1\n",
            tiny.path("base"),
            tiny.path("result")
        ),
    );
    let run = run.display().to_string();
    let done = retune(&["train", &run, "--method", "head", "--json"]).succeeded();
    assert_eq!(done.json()["train_rows"].as_u64().unwrap() + done.json()["eval_rows"].as_u64().unwrap(), 72);
    let card: serde_json::Value =
        serde_json::from_slice(&std::fs::read(tiny.path("result/retune.json")).unwrap()).unwrap();
    assert_eq!(card["train"]["files"].as_array().unwrap().len(), 2);
    assert_eq!(card["settings"]["rename"]["say"], "text");
    // The finished run is known by these files, and by their bytes.
    retune(&["train", &run, "--resume"]).succeeded();
    std::fs::write(&two, "{\"text\": \"a\", \"label\": \"pay\"}\n").unwrap();
    retune(&["train", &run, "--resume"]).refused("--resume: ");
    // The same by flags; a folder's files are the result of the day.
    let path = |name: &str| tiny.path(name).display().to_string();
    let (base, other) = (path("base"), path("other"));
    let flags = ["--train", &path("one.csv"), "--train", &path("train.csv"), "--rename", "say=text"];
    let arguments = ["train", "--model", &base, "--output", &other, "--method", "head", "--epochs", "1"];
    retune(&[&arguments[..], &flags].concat()).succeeded();
    let result = path("result");
    retune(&["evaluate", "--model", &result, "--data", &path("train.csv"), "--data", &path("test.csv")])
        .succeeded();
    let output = path("out.jsonl");
    let arguments = ["predict", "--model", &result, "--input", &path("t*.csv"), "--output", &output];
    retune(&arguments).succeeded();
    assert_eq!(std::fs::read_to_string(&output).unwrap().lines().count(), 72 + 31);
}
