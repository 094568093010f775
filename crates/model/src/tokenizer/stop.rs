//! Tokens that end an answer, known by name.

use super::vocabulary::{TokenKind, Vocabulary};

/// End-of-turn and end-of-text tokens of the model families in circulation.
const NAMES: &[&str] = &[
    "<|im_end|>",
    "<im_end>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<|end|>",
    "<end_of_turn>",
    "<end_of_utterance>",
    "<|end_of_turn|>",
    "<|return|>",
    "<EOT>",
    "<｜end▁of▁sentence｜>",
];

/// `roles` and every token of [`NAMES`] that the vocabulary matches whole, ascending. A name that merely happens to
/// be an ordinary token ends nothing.
pub(super) fn ids(vocabulary: &Vocabulary, roles: impl IntoIterator<Item = Option<u32>>) -> Vec<u32> {
    let whole = |id: &u32| matches!(vocabulary.kind(*id), Some(TokenKind::Control | TokenKind::UserDefined));
    let named = NAMES.iter().filter_map(|name| vocabulary.id(name)).filter(whole);
    let mut ids: Vec<u32> = roles.into_iter().flatten().chain(named).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}
