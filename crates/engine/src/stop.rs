//! Stop texts: what ends a generation by what it says, and the text that must wait until that is decided.

/// Watches a stream of text for the first of several texts.
#[derive(Debug, Clone, Default)]
pub(crate) struct StopTexts {
    stops: Vec<String>,
    held: String, // seen, and possibly the beginning of a stop text
    found: bool,
}

impl StopTexts {
    pub fn new(stops: &[String]) -> StopTexts {
        let stops = stops.iter().filter(|stop| !stop.is_empty()).cloned().collect();
        StopTexts { stops, held: String::new(), found: false }
    }

    /// Whether a stop text came.
    pub fn found(&self) -> bool {
        self.found
    }

    /// Takes `text` in and returns what is certain to be printed: everything before a stop text, or all but an end
    /// that may become one.
    pub fn push(&mut self, text: &str) -> String {
        if self.found {
            return String::new();
        }
        self.held.push_str(text);
        let first = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min();
        if let Some(at) = first {
            self.found = true;
            self.held.truncate(at);
            return std::mem::take(&mut self.held);
        }
        let rest = self.held.split_off(self.held.len() - self.undecided());
        std::mem::replace(&mut self.held, rest)
    }

    /// What was held back and no stop text claimed: call at the end.
    pub fn flush(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Bytes at the end of `held` that begin a stop text.
    fn undecided(&self) -> usize {
        let begins = |stop: &String| {
            let longest = self.held.len().min(stop.len() - 1);
            (1..=longest).rev().find(|&n| {
                self.held.is_char_boundary(self.held.len() - n)
                    && stop.as_bytes().starts_with(&self.held.as_bytes()[self.held.len() - n..])
            })
        };
        self.stops.iter().filter_map(begins).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let stops: Vec<String> = stops.iter().map(|stop| stop.to_string()).collect();
        let mut watch = StopTexts::new(&stops);
        let mut out: String = pieces.iter().map(|piece| watch.push(piece)).collect();
        out.push_str(&watch.flush());
        (out, watch.found())
    }

    #[test]
    fn a_stop_text_split_over_pieces_is_found_and_not_printed() {
        assert_eq!(run(&["END"], &["one E", "N", "D two"]), ("one ".into(), true));
        assert_eq!(run(&["END"], &["one E", "N", "d two"]), ("one ENd two".into(), false));
        assert_eq!(run(&["日本"], &["a日", "本b"]), ("a".into(), true));
        assert_eq!(run(&["aab"], &["a", "a", "a", "b"]), ("a".into(), true));
        assert_eq!(run(&["x", ""], &["abc"]), ("abc".into(), false));
    }

    proptest! {
        #[test]
        fn pieces_change_nothing(text in "[abé]{0,24}", stop in "[abé]{1,3}", cut in 0usize..24) {
            let cut = (0..=text.len()).filter(|&i| text.is_char_boundary(i)).nth(cut).unwrap_or(text.len());
            let (whole, found) = run(&[&stop], &[&text]);
            prop_assert_eq!(run(&[&stop], &[&text[..cut], &text[cut..]]), (whole.clone(), found));
            prop_assert_eq!(whole, text.split(stop.as_str()).next().unwrap_or("").to_string());
        }
    }
}
