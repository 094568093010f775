//! Tokens that are matched whole, before any merging: control and user-defined ones.

use super::vocabulary::{TokenKind, Vocabulary};

/// A stretch of text, or a token found in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fragment<'t> {
    Text(&'t str),
    Token(u32),
}

/// Finds whole tokens in a text, leftmost first and of those the longest.
pub(crate) struct SpecialTokens {
    by_first_byte: Vec<Vec<Entry>>, // (256), longest first
}

struct Entry {
    text: Box<str>,
    id: u32,
    control: bool,
}

impl SpecialTokens {
    pub(crate) fn new(vocabulary: &Vocabulary) -> Self {
        let mut by_first_byte: Vec<Vec<Entry>> = (0..256).map(|_| Vec::new()).collect();
        let whole = [TokenKind::Control, TokenKind::Unknown, TokenKind::UserDefined];
        for (id, text, kind) in vocabulary.of_kinds(&whole) {
            let control = kind != TokenKind::UserDefined;
            if let Some(first) = text.bytes().next() {
                by_first_byte[usize::from(first)].push(Entry { text: text.into(), id, control });
            }
        }
        for bucket in &mut by_first_byte {
            bucket.sort_by_key(|entry| std::cmp::Reverse(entry.text.len()));
        }
        Self { by_first_byte }
    }

    /// Cuts `text` at its whole tokens; control tokens count only with `parse_special`.
    pub(crate) fn split<'t>(&self, text: &'t str, parse_special: bool) -> Vec<Fragment<'t>> {
        let mut fragments = Vec::new();
        let (mut start, mut at) = (0, 0);
        while at < text.len() {
            let Some(entry) = self.at(&text.as_bytes()[at..], parse_special) else {
                at += 1;
                continue;
            };
            // A token begins with a whole character, so `at` is a character boundary where one matches.
            if start < at {
                fragments.push(Fragment::Text(&text[start..at]));
            }
            fragments.push(Fragment::Token(entry.id));
            at += entry.text.len();
            start = at;
        }
        if start < text.len() {
            fragments.push(Fragment::Text(&text[start..]));
        }
        fragments
    }

    fn at(&self, rest: &[u8], parse_special: bool) -> Option<&Entry> {
        self.by_first_byte[usize::from(*rest.first()?)]
            .iter()
            .find(|entry| (parse_special || !entry.control) && rest.starts_with(entry.text.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::vocabulary::Spelling;
    use super::*;

    #[test]
    fn leftmost_longest_and_control_only_on_request() {
        let tokens = [
            (0, "<s>", TokenKind::Control),
            (1, "  ", TokenKind::UserDefined),
            (2, "   ", TokenKind::UserDefined),
            (3, "é", TokenKind::UserDefined),
            (4, "x", TokenKind::Normal),
        ];
        let tokens = tokens.map(|(id, text, kind)| (id, text.to_string(), kind));
        let special = SpecialTokens::new(&Vocabulary::new(tokens, Spelling::ByteLevel).unwrap());
        use Fragment::{Text, Token};
        assert_eq!(
            special.split("x     <s>éx", true),
            [Text("x"), Token(2), Token(1), Token(0), Token(3), Text("x")]
        );
        assert_eq!(special.split("è<s>é", false), [Text("è<s>"), Token(3)]);
        assert_eq!(special.split("", true), []);
    }
}
