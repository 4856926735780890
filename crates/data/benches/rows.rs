//! Reading rows and making tokens of them, beside the tokenizer's own batch call on texts that are in memory already.
//!
//!     cargo bench -p retune-data --bench rows -- MODEL FILE.csv
//!
//! One line of JSON: rows, rows a second of both, their ratio, and the resident bytes that the rows have left behind. The two take
//! turns, three times each, and the medians count.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench may stop at the first surprise, and prints"
)]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use retune_data::{
    Columns, Examples, LabelReading, ProblemType, ReadOptions, Table, Tokens, Wanted, choose_wanted_columns,
    read_table,
};
use retune_model::tokenizer::Tokenizer;

const MAX_LENGTH: usize = 128;

fn main() {
    // Cargo adds a flag of its own.
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let (Some(model), Some(file)) =
        (arguments.next().map(PathBuf::from), arguments.next().map(PathBuf::from))
    else {
        return println!("rows: give a model's folder and a file with rows");
    };
    let tokenizer = Tokenizer::open(&model).unwrap();
    let before = resident();
    let (examples, tokens, first) = read(&tokenizer, &file);
    let held = resident().saturating_sub(before);
    let rows = tokens.len();
    drop((tokens, examples));
    let texts = texts(&file);
    let (mut ours, mut theirs) = (vec![first], Vec::new());
    for round in 0..3 {
        if round > 0 {
            ours.push(read(&tokenizer, &file).2);
        }
        let start = Instant::now();
        for chunk in texts.chunks(2048) {
            let pairs: Vec<_> = chunk.iter().map(|text| (text.as_str(), None)).collect();
            std::hint::black_box(tokenizer.encode_batch(&pairs, MAX_LENGTH).unwrap());
        }
        theirs.push(start.elapsed().as_secs_f64());
    }
    let median = |seconds: &mut Vec<f64>| {
        seconds.sort_by(f64::total_cmp);
        rows as f64 / seconds[seconds.len() / 2]
    };
    let (ours, theirs) = (median(&mut ours), median(&mut theirs));
    println!(
        "{{\"rows\": {rows}, \"rows_per_second\": {ours:.0}, \"tokenizer_rows_per_second\": {theirs:.0}, \"ratio\": {:.3}, \
         \"bytes_per_row\": {:.1}}}",
        ours / theirs,
        held as f64 / rows as f64
    );
}

/// From the file to tokens, and the seconds that it took.
fn read(tokenizer: &Tokenizer, file: &std::path::Path) -> (Examples, Tokens, f64) {
    let start = Instant::now();
    let table = Arc::new(read_table(file, &ReadOptions::default()).unwrap());
    let columns = columns(&table);
    let reading = LabelReading { problem_type: ProblemType::SingleLabel, separator: None };
    let examples = Examples::labelled(table, &columns, &reading).unwrap();
    let tokens = Tokens::new(tokenizer, &examples, MAX_LENGTH).unwrap();
    (examples, tokens, start.elapsed().as_secs_f64())
}

fn columns(table: &Table) -> Columns {
    choose_wanted_columns(table, &Wanted::default()).unwrap()
}

fn texts(file: &std::path::Path) -> Vec<String> {
    let table = Arc::new(read_table(file, &ReadOptions::default()).unwrap());
    let columns = columns(&table);
    Examples::unlabelled(table, &columns).iter().map(|example| example.unwrap().text).collect()
}

/// The bytes of this process that are in memory.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok()).unwrap_or_default() * 1024
}
