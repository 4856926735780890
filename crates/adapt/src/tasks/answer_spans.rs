//! From the scores of starts and ends to the best answers of a question, over all windows of its text.

use retune_data::TextWindow;

/// How answers are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerSearch {
    /// How many answers are kept, the best first.
    pub n_best: usize,
    /// The longest answer, in tokens.
    pub max_answer_length: usize,
}

/// A part of a text that may be the answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Span {
    /// The bytes where it begins and ends.
    pub bytes: [u32; 2],
    /// The logits of its start and its end, added.
    pub score: f32,
}

/// The answers to one question that were found so far.
#[derive(Debug, Clone)]
pub(super) struct Answers {
    search: AnswerSearch,
    /// The best, the likeliest first; none twice.
    pub spans: Vec<Span>,
    /// The score of no answer: the lowest of all windows, since where one of them sees an answer there is one.
    pub null_score: f32,
}

impl Answers {
    /// Nothing yet.
    pub fn new(search: AnswerSearch) -> Self {
        Answers { search, spans: Vec::new(), null_score: f32::INFINITY }
    }

    /// Looks at a window of `text` with these `logits`, `[tokens, 2]`: every span of its text that is not too long. No answer is the
    /// first token of the row, as start and as end.
    pub fn add(&mut self, text: &str, window: &TextWindow, logits: &[f32]) {
        let (pairs, _) = logits.as_chunks::<2>();
        if let Some([start, end]) = pairs.first() {
            self.null_score = self.null_score.min(start + end);
        }
        let pairs = pairs.get(window.begins..).unwrap_or_default();
        let tokens: Vec<_> = window.spans.iter().zip(pairs).collect();
        for (first, (begins, [start, _])) in tokens.iter().enumerate() {
            for (ends, [_, end]) in tokens.iter().skip(first).take(self.search.max_answer_length) {
                let score = start + end;
                if self.spans.len() < self.search.n_best
                    || self.spans.last().is_some_and(|worst| score >= worst.score)
                {
                    self.keep(text, Span { bytes: [begins[0], ends[1]], score });
                }
            }
        }
    }

    /// Puts a span in its place, unless the same text is there with a better score. White space at its ends is no part of
    /// it.
    fn keep(&mut self, text: &str, span: Span) {
        let [start, end] = span.bytes.map(|byte| byte as usize);
        let Some(text) = text.get(start..end) else { return };
        let inner = text.trim_start();
        let start = start + text.len() - inner.len();
        let end = start + inner.trim_end().len();
        if start == end {
            return;
        }
        let bytes = [start, end].map(|byte| u32::try_from(byte).unwrap_or(u32::MAX));
        let span = Span { bytes, ..span };
        if let Some(same) = self.spans.iter().position(|other| other.bytes == bytes) {
            if self.spans.get(same).is_some_and(|other| other.score >= span.score) {
                return;
            }
            self.spans.remove(same);
        }
        let place = self.spans.partition_point(|other| before(other, &span));
        self.spans.insert(place, span);
        self.spans.truncate(self.search.n_best);
    }
}

/// The likelier comes first; of equal ones that which begins earlier, and of these the shorter.
fn before(one: &Span, other: &Span) -> bool {
    one.score > other.score || (one.score >= other.score && one.bytes < other.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Čaj  came to 北京 in 1721 .";

    /// The tokens of a text: words, and each Chinese character; a blank token and an empty one among them.
    fn tokens() -> Vec<[u32; 2]> {
        let mut spans: Vec<[u32; 2]> = Vec::new();
        for (byte, character) in TEXT.char_indices() {
            let (byte, end) = (byte as u32, (byte + character.len_utf8()) as u32);
            let grows = character.is_alphanumeric() && character.is_ascii();
            match spans.last_mut() {
                Some(last)
                    if last[1] == byte
                        && grows
                        && TEXT[last[0] as usize..].starts_with(char::is_alphanumeric) =>
                {
                    last[1] = end;
                }
                _ => spans.push([byte, end]),
            }
        }
        spans.insert(1, [4, 4]);
        spans
    }

    /// All spans of all windows, sorted: slow and plain.
    fn plain(search: AnswerSearch, windows: &[(TextWindow, Vec<f32>)]) -> Vec<Span> {
        let mut all: Vec<Span> = Vec::new();
        for (window, logits) in windows {
            for first in 0..window.spans.len() {
                for last in first..window.spans.len().min(first + search.max_answer_length) {
                    let score = logits[2 * (window.begins + first)] + logits[2 * (window.begins + last) + 1];
                    let text = &TEXT[window.spans[first][0] as usize..window.spans[last][1] as usize];
                    let from = text.trim_start().as_ptr().addr() - TEXT.as_ptr().addr();
                    let bytes = [from as u32, (from + text.trim().len()) as u32];
                    match all.iter_mut().find(|span| span.bytes == bytes) {
                        Some(span) => span.score = span.score.max(score),
                        None if text.trim().is_empty() => {}
                        None => all.push(Span { bytes, score }),
                    }
                }
            }
        }
        all.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.bytes.cmp(&b.bytes)));
        all.truncate(search.n_best);
        all
    }

    #[test]
    fn the_best_answers_are_those_of_all_spans() {
        let spans = tokens();
        let mut random = retune_data::Random::new(5);
        for case in 0..300 {
            let search = AnswerSearch { n_best: 1 + case % 7, max_answer_length: 1 + case % 5 };
            let mut windows = Vec::new();
            for range in retune_data::windows(spans.len(), 5 + case % 9, 2 + case % 4) {
                let begins = 3 + case % 2;
                let length = begins + range.len() + 1;
                let window =
                    TextWindow { example: 0, length, last: true, begins, spans: spans[range].to_vec() };
                // Few values, so that many scores are equal.
                let logits: Vec<f32> = (0..2 * length).map(|_| random.below(9) as f32 / 2.0 - 1.0).collect();
                windows.push((window, logits));
            }
            let mut answers = Answers::new(search);
            windows.iter().for_each(|(window, logits)| answers.add(TEXT, window, logits));
            assert_eq!(answers.spans, plain(search, &windows), "case {case}");
            let null = windows.iter().map(|(_, logits)| logits[0] + logits[1]).fold(f32::INFINITY, f32::min);
            assert!((answers.null_score - null).abs() < 1e-6);
        }
    }

    #[test]
    fn a_text_without_tokens_has_no_answer() {
        let mut answers = Answers::new(AnswerSearch { n_best: 3, max_answer_length: 30 });
        for (length, spans) in [(4, Vec::new()), (5, vec![[0, 2]])] {
            let window = TextWindow { example: 0, length, last: true, begins: 3, spans };
            answers.add("  ", &window, &vec![0.5; 2 * length]);
        }
        assert_eq!((answers.spans.len(), answers.null_score), (0, 1.0));
    }
}
