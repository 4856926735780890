//! How names, counts and lists are put into sentences.

/// A name further away than this is no misspelling of the other.
const NEAR: f64 = 0.8;

/// The candidate that `name` is probably a misspelling of.
pub(crate) fn nearest<'c>(name: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let wanted = name.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&wanted, &candidate.to_lowercase()), candidate))
        .filter(|(likeness, _)| *likeness >= NEAR)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

/// ` (did you mean x?)`, or nothing where no candidate is near.
pub(crate) fn did_you_mean<'c>(name: &str, candidates: impl IntoIterator<Item = &'c str>) -> String {
    nearest(name, candidates).map(|near| format!(" (did you mean `{near}`?)")).unwrap_or_default()
}

/// `a`, `b` and 3 more: the first `most` names.
pub(crate) fn list<S: AsRef<str>>(names: &[S], most: usize) -> String {
    let shown: Vec<String> = names.iter().take(most).map(|name| format!("`{}`", name.as_ref())).collect();
    joined(&shown, names.len())
}

/// Lines 2, 5, 9 and 3 more.
pub(crate) fn lines(first: &[u64], total: usize) -> String {
    let shown: Vec<String> = first.iter().map(u64::to_string).collect();
    format!("{} {}", if total == 1 { "line" } else { "lines" }, joined(&shown, total))
}

fn joined(shown: &[String], total: usize) -> String {
    let more = total.saturating_sub(shown.len());
    let shown = shown.join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

/// `1 row`, `10,003 rows`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    let plural = match noun.strip_suffix('s') {
        _ if number == 1 => noun.to_owned(),
        Some(_) => format!("{noun}es"),
        None => format!("{noun}s"),
    };
    format!("{} {plural}", thousands(number))
}

/// `10,003`.
pub(crate) fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// At most `most` characters of `text` on one line, with `...` where more was there.
pub(crate) fn excerpt(text: &str, most: usize) -> String {
    let mut characters = text.chars();
    let mut shown: String =
        characters.by_ref().take(most).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if characters.next().is_some() {
        shown.push_str("...");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_read_as_english() {
        assert_eq!(count(1, "row"), "1 row");
        assert_eq!(count(0, "class"), "0 classes");
        assert_eq!(count(10_003, "row"), "10,003 rows");
        assert_eq!(thousands(1_234_567), "1,234,567");
        assert_eq!(thousands(100), "100");
    }

    #[test]
    fn lists_are_cut() {
        assert_eq!(list(&["a", "b", "c"], 2), "`a`, `b` and 1 more");
        assert_eq!(lines(&[4], 1), "line 4");
        assert_eq!(lines(&[2, 9], 7), "lines 2, 9 and 5 more");
        assert_eq!(excerpt("zwölf\nBoxkämpfer", 7), "zwölf B...");
    }

    #[test]
    fn near_misses_ignore_case_and_far_ones_are_silent() {
        assert_eq!(did_you_mean("Lable", ["text", "label"]), " (did you mean `label`?)");
        assert_eq!(did_you_mean("zzz", ["text", "label"]), "");
    }
}
