//! Texts that end an answer.

/// Looks for the texts that end an answer in what comes, and holds back what may be the beginning of one.
#[derive(Debug, Clone)]
pub(super) struct Stops<'a> {
    stops: &'a [String],
    held: String,
}

impl<'a> Stops<'a> {
    pub fn new(stops: &'a [String]) -> Self {
        Stops { stops, held: String::new() }
    }

    /// What is sure to be of the answer now that `text` came, and whether it ends there.
    pub fn push(&mut self, text: &str) -> (String, bool) {
        self.held.push_str(text);
        if let Some(end) = self.stops.iter().filter_map(|stop| self.held.find(stop)).min() {
            self.held.truncate(end);
            return (self.end(), true);
        }
        let held = &self.held;
        let may_stop = |at: usize| self.stops.iter().any(|stop| stop.starts_with(&held[at..]));
        let sure = held.char_indices().map(|(at, _)| at).find(|at| may_stop(*at)).unwrap_or(held.len());
        (self.held.drain(..sure).collect(), false)
    }

    /// What was held back, as nothing more comes.
    pub fn end(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_a_stop_waits() {
        let stops = ["\nUser:".to_string(), "END".to_string()];
        let mut text = Stops::new(&stops);
        assert_eq!(text.push("one\n"), ("one".into(), false));
        assert_eq!(text.push("Us"), (String::new(), false));
        assert_eq!(text.push("es E"), ("\nUses ".into(), false));
        assert_eq!(text.push("é\nUser: EN"), ("Eé".into(), true));
        let mut text = Stops::new(&stops);
        assert_eq!(text.push("a EN"), ("a ".into(), false));
        assert_eq!(text.end(), "EN");
        // The first in the text, whatever their order.
        assert_eq!(Stops::new(&stops).push("xENDy\nUser:"), ("x".into(), true));
    }
}
