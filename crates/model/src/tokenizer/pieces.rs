//! Pre-tokenizers of byte-level BPE: where a text is cut before any merge.
//!
//! Each is a regular expression of its model's authors, written here as a scanner: no backtracking, no limit on
//! the length of a run, one look at every character. The tests hold them against the expressions themselves.

use std::sync::LazyLock;

/// Which rules cut the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PreTokenizer {
    /// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
    Gpt2,
    /// `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
    Llama3,
    /// As [`PreTokenizer::Llama3`] with single digits: `\p{N}` in place of `\p{N}{1,3}`.
    Qwen2,
    /// Single digits first (`\p{N}`), then [`PreTokenizer::Gpt2`] on what lies between.
    SmolLm,
    /// Files that say `default` or nothing: runs of `[\p{P}$+<=>^~|]` first, then [`PreTokenizer::Gpt2`], then runs of
    /// digits alone, in groups of three ASCII digits.
    Default,
}

/// Values of `tokenizer.ggml.pre` and the rules they stand for.
const NAMES: &[(&str, PreTokenizer)] = &[
    ("gpt-2", PreTokenizer::Gpt2),
    ("gpt-neox", PreTokenizer::Gpt2),
    ("mpt", PreTokenizer::Gpt2),
    ("olmo", PreTokenizer::Gpt2),
    ("llama-bpe", PreTokenizer::Llama3),
    ("llama3", PreTokenizer::Llama3),
    ("llama-v3", PreTokenizer::Llama3),
    ("qwen2", PreTokenizer::Qwen2),
    ("deepseek-r1-qwen", PreTokenizer::Qwen2),
    ("smollm", PreTokenizer::SmolLm),
    ("default", PreTokenizer::Default),
];

impl PreTokenizer {
    /// The rules a GGUF file names in `tokenizer.ggml.pre`.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, rules)| *rules)
    }

    /// Every name that [`PreTokenizer::from_name`] knows, for error messages.
    pub(crate) fn names() -> String {
        NAMES.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
    }

    /// Calls `piece` with each piece of `text` in order; together they are the text.
    pub(crate) fn split<'t>(self, text: &'t str, piece: &mut impl FnMut(&'t str)) {
        match self {
            Self::Gpt2 => each(text, gpt2, piece),
            Self::Llama3 => each(text, |rest| llama3(rest, 3), piece),
            Self::Qwen2 => each(text, |rest| llama3(rest, 1), piece),
            Self::SmolLm => each(text, single_number, &mut |part| match class_of(part) {
                Some(Class::Number) => piece(part),
                _ => each(part, gpt2, piece),
            }),
            Self::Default => each(text, punctuation_or_rest, &mut |part| {
                each(part, gpt2, &mut |word| {
                    each(word, digits_or_rest, &mut |run| each(run, three_digits, piece))
                });
            }),
        }
    }
}

/// What the expressions tell apart: `\p{L}`, `\p{N}`, `\s` and everything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    Letter,
    Number,
    Space,
    Other,
}

fn class(c: char) -> Class {
    match c {
        'a'..='z' | 'A'..='Z' => Class::Letter,
        '0'..='9' => Class::Number,
        '\t'..='\r' | ' ' => Class::Space,
        '\0'..='\x7F' => Class::Other,
        c if contains(&LETTERS, c) => Class::Letter,
        c if contains(&NUMBERS, c) => Class::Number,
        c if c.is_whitespace() => Class::Space,
        _ => Class::Other,
    }
}

fn class_of(text: &str) -> Option<Class> {
    text.chars().next().map(class)
}

/// A Unicode class as ascending ranges, from the tables of the regex crate, which the tokenizers crate uses too.
type Ranges = Vec<(char, char)>;

static LETTERS: LazyLock<Ranges> = LazyLock::new(|| ranges(r"\p{L}"));
static NUMBERS: LazyLock<Ranges> = LazyLock::new(|| ranges(r"\p{N}"));
static PUNCTUATION: LazyLock<Ranges> = LazyLock::new(|| ranges(r"[\p{P}$+<=>^~|]"));

fn ranges(expression: &str) -> Ranges {
    use regex_syntax::hir::{Class, HirKind};
    match regex_syntax::parse(expression).map(|hir| hir.into_kind()) {
        Ok(HirKind::Class(Class::Unicode(class))) => class.iter().map(|r| (r.start(), r.end())).collect(),
        // Only the three constants above come here, and a test looks at each.
        _ => Ranges::new(),
    }
}

fn contains(ranges: &Ranges, c: char) -> bool {
    let after = ranges.partition_point(|(start, _)| *start <= c);
    after > 0 && c <= ranges[after - 1].1
}

/// Cuts `text` by asking `length` for the next piece's bytes until nothing is left.
fn each<'t>(mut text: &'t str, length: impl Fn(&str) -> usize, piece: &mut impl FnMut(&'t str)) {
    while !text.is_empty() {
        let (head, tail) = text.split_at(length(text));
        piece(head);
        text = tail;
    }
}

/// Bytes of the longest start of `text` whose characters all satisfy `accept`.
fn run(text: &str, accept: impl Fn(char) -> bool) -> usize {
    text.find(|c| !accept(c)).unwrap_or(text.len())
}

fn run_of(text: &str, wanted: Class) -> usize {
    run(text, |c| class(c) == wanted)
}

fn is_newline(c: char) -> bool {
    matches!(c, '\r' | '\n')
}

fn gpt2(text: &str) -> usize {
    if let Some(length) = contraction(text, |c| c) {
        return length;
    }
    let word = text.strip_prefix(' ').unwrap_or(text);
    match class_of(word) {
        Some(kind) if kind != Class::Space => text.len() - word.len() + run_of(word, kind),
        _ => white_space(text),
    }
}

fn llama3(text: &str, most_digits: usize) -> usize {
    // ſ folds to s, as a case-insensitive expression has it.
    if let Some(length) = contraction(text, |c| if c == 'ſ' { 's' } else { c.to_ascii_lowercase() }) {
        return length;
    }
    let mut chars = text.chars();
    let first = chars.next().map_or(Class::Other, class);
    let rest = chars.as_str();
    let lead = text.len() - rest.len();
    let may_lead = matches!(first, Class::Space | Class::Other) && !text.starts_with(is_newline);
    match first {
        Class::Letter => run_of(text, Class::Letter),
        Class::Number => text
            .chars()
            .take(most_digits)
            .take_while(|c| class(*c) == Class::Number)
            .map(char::len_utf8)
            .sum(),
        _ if may_lead && class_of(rest) == Some(Class::Letter) => lead + run_of(rest, Class::Letter),
        Class::Other => symbols(text),
        Class::Space if text.starts_with(' ') && class_of(rest) == Some(Class::Other) => lead + symbols(rest),
        Class::Space => newlines(text).unwrap_or_else(|| white_space(text)),
    }
}

/// `'s|'t|'re|'ve|'m|'ll|'d` at the start of `text`, after `fold` of its letters.
fn contraction(text: &str, fold: impl Fn(char) -> char) -> Option<usize> {
    let mut chars = text.strip_prefix('\'')?.chars();
    let first = chars.next()?;
    let length = 1 + first.len_utf8();
    match fold(first) {
        's' | 't' | 'm' | 'd' => Some(length),
        one @ ('r' | 'v' | 'l') => {
            let second = chars.next()?;
            let wanted = if one == 'l' { 'l' } else { 'e' };
            (fold(second) == wanted).then_some(length + second.len_utf8())
        }
        _ => None,
    }
}

/// `[^\s\p{L}\p{N}]+[\r\n]*`
fn symbols(text: &str) -> usize {
    let marks = run_of(text, Class::Other);
    marks + run(&text[marks..], is_newline)
}

/// `\s*[\r\n]+`: white space up to its last line end.
fn newlines(text: &str) -> Option<usize> {
    let spaces = &text[..run_of(text, Class::Space)];
    spaces.rfind(is_newline).map(|at| at + 1)
}

/// `\s+(?!\S)|\s+`: white space, leaving its last character to what follows it.
fn white_space(text: &str) -> usize {
    let spaces = run_of(text, Class::Space);
    let last = text[..spaces].chars().next_back().map_or(0, char::len_utf8);
    if spaces == text.len() || spaces == last { spaces } else { spaces - last }
}

fn single_number(text: &str) -> usize {
    match text.chars().next() {
        Some(c) if class(c) == Class::Number => c.len_utf8(),
        _ => run(text, |c| class(c) != Class::Number),
    }
}

fn punctuation_or_rest(text: &str) -> usize {
    let starts = text.starts_with(|c| contains(&PUNCTUATION, c));
    run(text, |c| contains(&PUNCTUATION, c) == starts)
}

fn digits_or_rest(text: &str) -> usize {
    let starts = class_of(text) == Some(Class::Number);
    run(text, |c| (class(c) == Class::Number) == starts)
}

/// The next match of `[0-9][0-9][0-9]`, or all that comes before it.
fn three_digits(text: &str) -> usize {
    let at = text.as_bytes().windows(3).position(|three| three.iter().all(u8::is_ascii_digit));
    match at {
        Some(0) => 3,
        Some(before) => before,
        None => text.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
    use tokenizers::tokenizer::{OffsetReferential, OffsetType, PreTokenizedString};
    use tokenizers::{PreTokenizer as _, SplitDelimiterBehavior};

    fn split(rules: PreTokenizer, text: &str) -> Vec<&str> {
        let mut pieces = Vec::new();
        rules.split(text, &mut |piece| pieces.push(piece));
        pieces
    }

    #[test]
    fn the_unicode_tables_are_there() {
        assert!(LETTERS.len() > 500 && NUMBERS.len() > 100 && PUNCTUATION.len() > 100);
        assert_eq!(class('é'), Class::Letter);
        assert_eq!(class('½'), Class::Number);
        assert_eq!(class('\u{3000}'), Class::Space);
        assert_eq!(class('ி'), Class::Other, "a combining vowel sign is a mark, not a letter");
    }

    /// The expressions, to be run one after the other by the tokenizers crate.
    struct Expressions(Vec<Split>);

    impl Expressions {
        fn new(expressions: &[&str]) -> Self {
            let pattern = |expression: &&str| SplitPattern::Regex(expression.to_string());
            let split = |expression| Split::new(pattern(expression), SplitDelimiterBehavior::Isolated, false);
            Self(expressions.iter().map(|expression| split(expression).unwrap()).collect())
        }

        fn pieces(&self, text: &str) -> Vec<String> {
            let mut pieces = PreTokenizedString::from(text);
            self.0.iter().for_each(|split| split.pre_tokenize(&mut pieces).unwrap());
            let pieces = pieces.get_splits(OffsetReferential::Original, OffsetType::Byte);
            pieces.iter().map(|(piece, ..)| piece.to_string()).filter(|piece| !piece.is_empty()).collect()
        }
    }

    /// Each rule with its expressions, as its model's authors wrote them.
    const EXPRESSIONS: &[(PreTokenizer, &[&str])] = &[
        (PreTokenizer::Gpt2, &[GPT2]),
        (
            PreTokenizer::Llama3,
            &[
                r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
            ],
        ),
        (
            PreTokenizer::Qwen2,
            &[
                r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
            ],
        ),
        (PreTokenizer::SmolLm, &[r"\p{N}", GPT2]),
        (PreTokenizer::Default, &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"]),
    ];

    const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

    fn text() -> impl Strategy<Value = String> {
        let telling =
            "asTdlemRVſéK世ーி12½٣Ⅷ'' .+_“🚀$ \t\n\r\u{a0}\u{3000}\u{85}".chars().collect::<Vec<_>>();
        let any = prop_oneof![8 => prop::sample::select(telling), 2 => Just('\''), 1 => any::<char>()];
        prop::collection::vec(any, 0..40).prop_map(String::from_iter)
    }

    #[test]
    fn pieces_are_those_of_the_expressions() {
        for (rules, expressions) in EXPRESSIONS {
            let expressions = Expressions::new(expressions);
            proptest!(ProptestConfig::with_cases(4000), |(text in text())| {
                prop_assert_eq!(split(*rules, &text), expressions.pieces(&text), "{:?}", rules);
            });
        }
    }

    #[test]
    fn the_last_space_of_a_run_goes_with_the_word() {
        assert_eq!(split(PreTokenizer::Gpt2, "a   b\t\tc  "), ["a", "  ", " b", "\t", "\t", "c", "  "]);
        assert_eq!(split(PreTokenizer::Llama3, "a   b\t\tc  "), ["a", "  ", " b", "\t", "\tc", "  "]);
    }

    #[test]
    fn digits_by_three_by_one_and_all() {
        assert_eq!(split(PreTokenizer::Llama3, "x12345"), ["x", "123", "45"]);
        assert_eq!(split(PreTokenizer::Qwen2, "x123"), ["x", "1", "2", "3"]);
        assert_eq!(split(PreTokenizer::Gpt2, "x 12345"), ["x", " 12345"]);
        assert_eq!(split(PreTokenizer::Default, "x 12½345"), ["x", " ", "12½", "345"]);
        assert_eq!(split(PreTokenizer::SmolLm, "a  12b"), ["a", "  ", "1", "2", "b"]);
    }

    #[test]
    fn contractions_and_line_ends() {
        assert_eq!(split(PreTokenizer::Gpt2, "we'll'S"), ["we", "'ll", "'", "S"]);
        assert_eq!(split(PreTokenizer::Llama3, "we'LL'S"), ["we", "'LL", "'S"]);
        assert_eq!(split(PreTokenizer::Llama3, "a !\r\n\n \n  b"), ["a", " !\r\n\n", " \n", " ", " b"]);
    }
}
