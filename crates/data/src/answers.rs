//! What is right for a question: texts, and where in the context each stands.

use serde_json::Value;

use crate::wording::excerpt;

/// An answer that a file gives to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoldAnswer {
    /// It, as the file has it.
    pub text: String,
    /// The byte of the context where it begins; none where that could not be found out.
    pub start: Option<usize>,
}

/// What became of the place that a file gives for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The text stands there.
    Right,
    /// It does not, and stands in one other place.
    Repaired,
    /// It stands nowhere.
    Nowhere,
    /// It stands in several other places.
    Ambiguous,
}

/// An answer as a file has it: its text, and the character of the context where it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WrittenAnswer {
    pub text: String,
    pub start: Option<i64>,
}

impl WrittenAnswer {
    /// Finds it in its context.
    pub fn find(self, context: &str) -> (GoldAnswer, Place) {
        let WrittenAnswer { text, start } = self;
        let there = start.and_then(|start| byte_of(context, start));
        if let Some(at) = there.filter(|at| !text.is_empty() && context[*at..].starts_with(&text)) {
            return (GoldAnswer { text, start: Some(at) }, Place::Right);
        }
        let (first, second) = {
            let mut places = places(context, &text);
            (places.next(), places.next())
        };
        let (found, place) = match (first, second) {
            (None, _) => (None, Place::Nowhere),
            // Where no place was given, nothing was wrong.
            (Some(only), None) if start.is_none() => (Some(only), Place::Right),
            (Some(only), None) => (Some(only), Place::Repaired),
            _ => (None, Place::Ambiguous),
        };
        (GoldAnswer { text, start: found }, place)
    }
}

/// The byte at which the character `number` begins.
fn byte_of(text: &str, number: i64) -> Option<usize> {
    let number = usize::try_from(number).ok()?;
    text.char_indices().map(|(byte, _)| byte).nth(number)
}

/// Where `part` begins in `text`; places may overlap.
fn places<'t>(text: &'t str, part: &'t str) -> impl Iterator<Item = usize> + 't {
    let mut from = 0;
    std::iter::from_fn(move || {
        let first = part.chars().next()?;
        let at = from + text.get(from..)?.find(part)?;
        from = at + first.len_utf8();
        Some(at)
    })
}

/// The answers that a field gives: none, one text, a list of texts, SQuAD's list of objects with `text` and `answer_start`,
/// or one object that has lists of both, as the `datasets` library writes it. Whether a field `is_json` its file says; one
/// that is not may be an answer with brackets. `start` is the field of another column. Errors with what was expected and
/// what came.
pub(crate) fn written_answers(
    field: Option<&str>,
    is_json: bool,
    start: Option<&str>,
) -> Result<Vec<WrittenAnswer>, String> {
    let field = field.unwrap_or_default();
    let trimmed = field.trim();
    if trimmed.is_empty() || trimmed == "null" {
        return Ok(Vec::new());
    }
    let parsed = match trimmed.as_bytes().first() {
        Some(b'{' | b'[') => serde_json::from_str::<Value>(trimmed).ok(),
        _ => None,
    };
    // `[1]` is an answer where nobody says that it is JSON.
    let parsed = parsed.filter(|value| is_json || are_answers(value));
    match parsed {
        None if looks_like_python(trimmed) => Err(format!(
            "expected answers as JSON, got Python's way to write them: `{}`: save the file with `json.dumps`, or give \
             the answer's text alone",
            excerpt(trimmed, 40)
        )),
        None => {
            let start = start.map(str::trim).filter(|start| !start.is_empty());
            let start = start.map(|start| whole_number(start).ok_or_else(|| no_place(start))).transpose()?;
            Ok(vec![WrittenAnswer { text: field.to_owned(), start }])
        }
        Some(Value::Array(answers)) => answers.iter().map(one).collect(),
        Some(Value::Object(both)) => match both.get("text") {
            Some(Value::Array(texts)) => {
                let starts = both.get("answer_start").and_then(Value::as_array);
                if let Some(starts) = starts.filter(|starts| starts.len() != texts.len()) {
                    return Err(format!(
                        "expected as many of `answer_start` as of `text`, got {} for {}",
                        starts.len(),
                        texts.len()
                    ));
                }
                let start = |at: usize| starts.and_then(|starts| starts.get(at));
                texts.iter().enumerate().map(|(at, text)| written(Some(text), start(at))).collect()
            }
            text => Ok(vec![written(text, both.get("answer_start"))?]),
        },
        Some(other) => one(&other).map(|answer| vec![answer]),
    }
}

/// Whether a value is one of those that answers are written as, whatever is in it.
fn are_answers(value: &Value) -> bool {
    value.as_array().is_none_or(|answers| answers.iter().all(|one| one.is_string() || one.is_object()))
}

fn looks_like_python(field: &str) -> bool {
    field.starts_with("{'") || field.starts_with("[{'") || field.starts_with("['")
}

fn one(answer: &Value) -> Result<WrittenAnswer, String> {
    match answer {
        Value::Object(fields) => written(fields.get("text"), fields.get("answer_start")),
        text => written(Some(text), None),
    }
}

fn written(text: Option<&Value>, start: Option<&Value>) -> Result<WrittenAnswer, String> {
    let Some(Value::String(text)) = text else {
        let got = text.map_or("none".to_owned(), |other| format!("`{}`", excerpt(&other.to_string(), 40)));
        return Err(format!("expected the text of an answer, got {got}"));
    };
    let start = match start {
        None | Some(Value::Null) => None,
        Some(number) => {
            let whole = number.as_i64().or_else(|| number.as_str().and_then(whole_number));
            Some(whole.ok_or_else(|| no_place(&number.to_string()))?)
        }
    };
    Ok(WrittenAnswer { text: text.clone(), start })
}

fn whole_number(text: &str) -> Option<i64> {
    // Tables with gaps have their whole numbers with decimals.
    text.strip_suffix(".0").unwrap_or(text).parse().ok()
}

fn no_place(got: &str) -> String {
    format!(
        "expected the number of the character where the answer begins, counted from 0, got `{}`",
        excerpt(got, 40)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str, start: Option<i64>) -> WrittenAnswer {
        WrittenAnswer { text: text.into(), start }
    }

    #[test]
    fn answers_are_found_by_characters() {
        let context = "Čím víc aa aaa, tím — víc. 北京是首都";
        for (text, start, expected, place) in [
            ("víc", Some(4), Some(6), Place::Right),
            ("víc", Some(22), Some(28), Place::Right),
            ("víc", Some(5), None, Place::Ambiguous),
            ("北京", Some(0), Some(34), Place::Repaired),
            ("北京", None, Some(34), Place::Right),
            ("首都", Some(-1), Some(43), Place::Repaired),
            ("首都", Some(900), Some(43), Place::Repaired),
            // Overlapping places are several.
            ("aa", Some(0), None, Place::Ambiguous),
            ("上海", Some(27), None, Place::Nowhere),
            ("", Some(0), None, Place::Nowhere),
        ] {
            let (found, how) = answer(text, start).find(context);
            assert_eq!((found.start, how), (expected, place), "{text} {start:?}");
        }
    }

    #[test]
    fn every_way_to_write_answers() {
        let two = vec![answer("a", Some(3)), answer("b c", Some(0))];
        for (field, expected) in [
            ("", vec![]),
            ("null", vec![]),
            ("[]", vec![]),
            (r#"{"text": [], "answer_start": []}"#, vec![]),
            (r#"[{"text": "a", "answer_start": 3}, {"text": "b c", "answer_start": 0}]"#, two.clone()),
            (r#"{"text": ["a", "b c"], "answer_start": [3, "0"]}"#, two),
            (r#"{"text": "a", "answer_start": 3, "more": 1}"#, vec![answer("a", Some(3))]),
            (r#"["a", "b"]"#, vec![answer("a", None), answer("b", None)]),
            (" [1] and more", vec![answer(" [1] and more", None)]),
            ("[sic]", vec![answer("[sic]", None)]),
            ("[1]", vec![answer("[1]", None)]),
            (r#"[["a"], "b"]"#, vec![answer(r#"[["a"], "b"]"#, None)]),
        ] {
            assert_eq!(written_answers(Some(field), false, None), Ok(expected), "{field}");
        }
        assert_eq!(written_answers(Some("a"), false, Some("7.0")), Ok(vec![answer("a", Some(7))]));
        assert_eq!(written_answers(Some("[1]"), false, Some("7")), Ok(vec![answer("[1]", Some(7))]));
        for (field, start, words) in [
            (r#"{"text": ["a"], "answer_start": []}"#, None, "got 0 for 1"),
            (r#"{"answer_start": [1]}"#, None, "expected the text of an answer, got none"),
            (r#"[{"text": 5, "answer_start": 1}]"#, None, "got `5`"),
            (r#"[{"text": "a", "answer_start": 1.5}]"#, None, "got `1.5`"),
            ("[[\"a\"]]", None, "got `[\"a\"]`"),
            ("[1]", None, "got `1`"),
            ("a", Some("two"), "got `two`"),
            ("{'text': array(['a'], dtype=object)}", None, "Python's way"),
        ] {
            let error = written_answers(Some(field), true, start).unwrap_err();
            assert!(error.contains(words), "{field}: {error}");
        }
    }
}
