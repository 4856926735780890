//! The words of a text: what a tagger gives a tag.

use std::ops::Range;
use std::sync::Arc;

/// A word and its tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// The byte of the text where it begins.
    pub start: u32,
    /// Behind its last byte.
    pub end: u32,
    /// Its tag, in the scheme that is learnt for the file's; none where the file has none.
    pub tag: Option<Arc<str>>,
}

impl Word {
    /// Its bytes in the text.
    pub fn range(&self) -> Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// Parts a text that nobody has parted: at white space, before and behind punctuation and symbols, and around each
/// character of a script that is written without blanks.
pub fn split_words(text: &str) -> Vec<Range<usize>> {
    let mut words: Vec<Range<usize>> = Vec::new();
    let mut open = false;
    for (place, c) in text.char_indices() {
        let joins = (c.is_alphanumeric() || c == '_' || is_mark(c)) && !is_unspaced(c);
        if c.is_whitespace() {
            open = false;
        } else if joins && open {
            if let Some(word) = words.last_mut() {
                word.end = place + c.len_utf8();
            }
        } else {
            words.push(place..place + c.len_utf8());
            open = joins;
        }
    }
    words
}

/// The text of words: one blank between two, and none between characters of a script that is written without.
pub(crate) fn join_words<S: AsRef<str>>(words: &[S]) -> (String, Vec<Word>) {
    let (mut text, mut joined) = (String::new(), Vec::with_capacity(words.len()));
    for word in words {
        let word = word.as_ref();
        let unspaced = |c: Option<char>| c.is_some_and(|c| is_unspaced(c) || is_full_width(c));
        let close = unspaced(text.chars().next_back()) && unspaced(word.chars().next());
        if !text.is_empty() && !close {
            text.push(' ');
        }
        let narrow = |place: usize| u32::try_from(place).unwrap_or(u32::MAX);
        let start = narrow(text.len());
        text.push_str(word);
        joined.push(Word { start, end: narrow(text.len()), tag: None });
    }
    (text, joined)
}

/// Whether it belongs to the letter before it.
fn is_mark(c: char) -> bool {
    matches!(c, '\u{300}'..='\u{36F}' | '\u{483}'..='\u{487}' | '\u{591}'..='\u{5BD}' | '\u{610}'..='\u{61A}'
        | '\u{64B}'..='\u{65F}' | '\u{93C}'..='\u{94D}' | '\u{200C}' | '\u{200D}' | '\u{FE00}'..='\u{FE0F}')
}

/// Han, kana and other characters that stand for themselves.
fn is_unspaced(c: char) -> bool {
    matches!(c, '\u{2E80}'..='\u{2FDF}' | '\u{3005}'..='\u{3007}' | '\u{3021}'..='\u{3029}' | '\u{3040}'..='\u{30FF}'
        | '\u{31F0}'..='\u{31FF}' | '\u{3400}'..='\u{4DBF}' | '\u{4E00}'..='\u{9FFF}' | '\u{F900}'..='\u{FAFF}'
        | '\u{FF66}'..='\u{FF9F}' | '\u{20000}'..='\u{3FFFF}' | '\u{E00}'..='\u{EFF}' | '\u{1780}'..='\u{17FF}'
        | '\u{1000}'..='\u{109F}')
}

/// Punctuation and forms that stand among them.
fn is_full_width(c: char) -> bool {
    matches!(c, '\u{3000}'..='\u{303F}' | '\u{FF00}'..='\u{FFEF}' | '“' | '”' | '‘' | '’' | '…' | '—' | '·')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_parted_at_blanks_punctuation_and_han() {
        let words =
            |text: &str| split_words(text).into_iter().map(|w| text[w].to_string()).collect::<Vec<_>>();
        assert_eq!(
            words("Mr. O'Neil  (né_x) 3.5"),
            ["Mr", ".", "O", "'", "Neil", "(", "né_x", ")", "3", ".", "5"]
        );
        assert_eq!(words("在GPT4上，ｏｋ"), ["在", "GPT4", "上", "，", "ｏｋ"]);
        assert_eq!(words("e\u{301}t 😀😀"), ["e\u{301}t", "😀", "😀"]);
        assert!(words(" \t").is_empty());
    }

    #[test]
    fn words_are_joined_as_their_script_is_written() {
        let joined = |words: &[&str]| {
            let (text, joined) = join_words(words);
            for (word, place) in words.iter().zip(joined) {
                assert_eq!(&text[place.range()], *word);
            }
            text
        };
        assert_eq!(joined(&["EU", "rejects", "."]), "EU rejects .");
        assert_eq!(joined(&["北", "京", "，", "在", "GPT", "4"]), "北京，在 GPT 4");
        assert_eq!(joined(&[]), "");
    }
}
