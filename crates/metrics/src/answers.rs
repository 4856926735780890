//! Answers to questions, compared as texts: SQuAD's rules (Rajpurkar et al. 2016 and 2018, the official scripts of versions
//! 1.1 and 2.0), and MLQA's for Chinese (Lewis et al. 2020).

use std::collections::HashMap;

use crate::punctuation::is_punctuation;

/// What an answer is compared by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Segmentation {
    /// Words, less case, ASCII punctuation and English articles: SQuAD's.
    #[default]
    Words,
    /// Each Chinese character, and whatever stands between white space and these, less case and punctuation: MLQA's for
    /// Chinese.
    Characters,
}

/// How one prediction compares with what is right: each from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AnswerScore {
    /// 1 if they are equal.
    pub exact: f64,
    /// Of their tokens, as multisets.
    pub f1: f64,
}

impl Segmentation {
    /// What `text` is made of. Two answers are equal if these are.
    pub fn tokens(self, text: &str) -> Vec<String> {
        let lower = text.to_lowercase();
        match self {
            Segmentation::Words => {
                let bare: String = lower.chars().filter(|c| !c.is_ascii_punctuation()).collect();
                without_articles(&bare)
                    .split(is_space)
                    .filter(|word| !word.is_empty())
                    .map(str::to_string)
                    .collect()
            }
            Segmentation::Characters => {
                let mut tokens = Vec::new();
                let mut word = String::new();
                let bare = lower.chars().filter(|c| !c.is_ascii_punctuation() && !is_punctuation(*c));
                for character in bare {
                    // The published rule: those of the first Unicode, and not the rare ones beyond.
                    let chinese = ('\u{4e00}'..='\u{9fa5}').contains(&character);
                    if !chinese && !is_space(character) {
                        word.push(character);
                        continue;
                    }
                    if !word.is_empty() {
                        tokens.push(std::mem::take(&mut word));
                    }
                    if chinese {
                        tokens.push(character.into());
                    }
                }
                tokens.extend(Some(word).filter(|word| !word.is_empty()));
                tokens
            }
        }
    }

    /// The best of `predicted` beside each of `golds`, exact and F1 each on its own. Without golds the question has no
    /// answer, and the right prediction is none: `strict`, as version 2.0, counts golds that are only articles and
    /// punctuation for none either, and agreement of nothing with nothing for 1; version 1.1 has 0 for its F1.
    pub fn score(self, predicted: &str, golds: &[impl AsRef<str>], strict: bool) -> AnswerScore {
        let predicted = self.tokens(predicted);
        let mut golds: Vec<Vec<String>> = golds.iter().map(|gold| self.tokens(gold.as_ref())).collect();
        if strict {
            golds.retain(|gold| !gold.is_empty());
        }
        if golds.is_empty() {
            golds.push(Vec::new());
        }
        let nothing = if strict { 1.0 } else { 0.0 };
        golds.iter().fold(AnswerScore { exact: 0.0, f1: 0.0 }, |best, gold| AnswerScore {
            exact: best.exact.max(f64::from(u8::from(predicted == *gold))),
            f1: best.f1.max(f1(&predicted, gold, nothing)),
        })
    }
}

/// `nothing` is that of two that have no token.
fn f1(predicted: &[String], gold: &[String], nothing: f64) -> f64 {
    if predicted.is_empty() && gold.is_empty() {
        return nothing;
    }
    let mut left: HashMap<&str, usize> = HashMap::new();
    gold.iter().for_each(|token| *left.entry(token).or_default() += 1);
    let mut common = 0.0;
    for token in predicted {
        if let Some(count) = left.get_mut(token.as_str()).filter(|count| **count > 0) {
            *count -= 1;
            common += 1.0;
        }
    }
    if common == 0.0 {
        return 0.0;
    }
    let (precision, recall) = (common / predicted.len() as f64, common / gold.len() as f64);
    2.0 * precision * recall / (precision + recall)
}

/// `a`, `an` and `the` become a space where they are words: runs of what Python's `\w` matches.
fn without_articles(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let word = is_word(first);
        let end = rest.find(|c| is_word(c) != word).unwrap_or(rest.len());
        let (run, more) = rest.split_at(end);
        kept.push_str(if matches!(run, "a" | "an" | "the") { " " } else { run });
        rest = more;
    }
    kept
}

/// As Python's `\w`: letters and numbers. Rust's alphabetic characters hold marks as well, of which those that stand on
/// Latin letters, and letters in circles, are taken out; of other scripts' no article can be the neighbour.
fn is_word(character: char) -> bool {
    let no_letter =
        matches!(u32::from(character), 0x345 | 0x363..=0x36f | 0x24b6..=0x24e9 | 0x1f130..=0x1f189);
    character == '_' || (character.is_alphanumeric() && !no_letter)
}

/// As Python's `str.split`: Unicode's white space, and the separators of ASCII.
fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> String {
        Segmentation::Words.tokens(text).join("|")
    }

    #[test]
    fn words_lose_case_articles_and_punctuation() {
        assert_eq!(words("  The U.S.\u{a0}Army's a-team, an end "), "us|armys|ateam|end");
        assert_eq!(words("Them and “a” ’the’"), "them|and|“|”|’|’");
        assert_eq!(words("the\u{1f}a\tAn"), "");
        assert_eq!(words("a1 a\u{301} a_b"), "a1|\u{301}|ab");
    }

    #[test]
    fn chinese_is_compared_by_characters() {
        let tokens = |text| Segmentation::Characters.tokens(text).join("|");
        assert_eq!(tokens("《三国演义》，约1522 年"), "三|国|演|义|约|1522|年");
        assert_eq!(tokens("The A380（空客）"), "the|a380|空|客");
        let score = Segmentation::Characters.score("北京大学", &["北京", "清华大学"], true);
        assert_eq!((score.exact, score.f1), (0.0, 2.0 / 3.0));
    }

    #[test]
    fn nothing_is_right_where_there_is_no_answer() {
        let none: [&str; 0] = [];
        let score = |predicted, golds: &[&str], strict| {
            let AnswerScore { exact, f1 } = Segmentation::Words.score(predicted, golds, strict);
            (exact, f1)
        };
        assert_eq!(score("", &none, true), (1.0, 1.0));
        assert_eq!(score("x", &none, true), (0.0, 0.0));
        // Version 1.1 knows no questions without an answer.
        assert_eq!(score("the", &["%"], false), (1.0, 0.0));
        assert_eq!(score("the", &["%"], true), (1.0, 1.0));
        assert_eq!(score("x", &["%", "x y"], true), (0.0, 2.0 / 3.0));
    }
}
