//! A byte-level BPE tokenizer of any size: the 256 bytes, then pairs, triples and quadruples of letters with and without a space before
//! them. It reads every text, and English in fewer tokens than letters.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::convert::vocabulary::Vocabulary;

const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const UNUSED: i32 = 5;

/// The tokenizer of a vocabulary of `size`, with control tokens at these ids; `None` when the bytes alone do not fit.
pub(super) fn synthetic(size: usize, bos: Option<u32>, ends: &[u32]) -> Option<Vocabulary> {
    let control: BTreeSet<usize> = bos.iter().chain(ends).map(|id| *id as usize).collect();
    if control.last().is_some_and(|id| *id >= size) || size < 256 + control.len() {
        return None;
    }
    let mut vocabulary = Vocabulary {
        pre: "gpt-2".to_owned(),
        bos,
        ends: ends.iter().copied().take(3).collect(),
        add_bos: Some(bos.is_some()),
        ..Vocabulary::default()
    };
    let mut pieces = (0..=255).map(|byte| (char_of_byte(byte).to_string(), None)).chain(merged());
    for id in 0..size {
        if control.contains(&id) {
            vocabulary.tokens.push(if bos == u32::try_from(id).ok() && !ends.contains(&(id as u32)) {
                "<|begin|>".to_owned()
            } else if ends.first().is_some_and(|end| *end as usize == id) {
                "<|endoftext|>".to_owned()
            } else {
                format!("<|control_{id}|>")
            });
            vocabulary.types.push(CONTROL);
            continue;
        }
        match pieces.next() {
            Some((token, merge)) => {
                vocabulary.tokens.push(token);
                vocabulary.types.push(NORMAL);
                vocabulary.merges.extend(merge);
            }
            None => {
                vocabulary.tokens.push(format!("[PAD{id}]"));
                vocabulary.types.push(UNUSED);
            }
        }
    }
    Some(vocabulary)
}

/// Tokens with the merge that makes each, its halves before it.
fn merged() -> impl Iterator<Item = (String, Option<String>)> {
    let letters = || 'a'..='z';
    let pairs = move || letters().flat_map(move |a| letters().map(move |b| format!("{a}{b}")));
    let triples = move || pairs().flat_map(move |ab| letters().map(move |c| (ab.clone(), c.to_string())));
    let both = |left: String, right: String| (format!("{left}{right}"), Some(format!("{left} {right}")));
    let split = move |pair: String| both(pair[..1].to_owned(), pair[1..].to_owned());
    let space = 'Ġ'.to_string();
    let after_space = move |word: String| both(space.clone(), word);
    let words = after_space.clone();
    let more = after_space.clone();
    pairs()
        .map(split)
        .chain(letters().map(move |letter| after_space(letter.to_string())))
        .chain(pairs().map(words))
        .chain(triples().map(move |(ab, c)| both(ab, c)))
        .chain(triples().map(move |(ab, c)| more(format!("{ab}{c}"))))
        .chain(pairs().flat_map(move |ab| pairs().map(move |cd| both(ab.clone(), cd))))
}

/// GPT-2's printable stand-in for a byte: itself where it prints in Latin-1, U+0100… in order otherwise.
fn char_of_byte(byte: u8) -> char {
    let prints = |byte: u8| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    if prints(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|other| !prints(*other)).count() as u32;
    char::from_u32(0x100 + before).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The same as the text of tokenizer.json and of tokenizer_config.json.
pub(super) fn files(vocabulary: &Vocabulary) -> [(&'static str, String); 2] {
    let ids = || vocabulary.tokens.iter().zip(&vocabulary.types).enumerate();
    let normal = ids().filter(|(_, (_, kind))| **kind == NORMAL);
    let vocab: Map<String, Value> = normal.map(|(id, (token, _))| (token.clone(), json!(id))).collect();
    let control = ids().filter(|(_, (_, kind))| **kind == CONTROL);
    let added: Vec<Value> = control
        .map(|(id, (token, _))| {
            json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true})
        })
        .collect();
    let vocab_with_added = ids()
        .filter(|(_, (_, kind))| **kind == CONTROL)
        .map(|(id, (token, _))| (token.clone(), json!(id)))
        .chain(vocab)
        .collect::<Map<_, _>>();
    let level =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let merges: Vec<Vec<&str>> = vocabulary.merges.iter().map(|merge| merge.split(' ').collect()).collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": level, "post_processor": null, "decoder": level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab_with_added, "merges": merges},
    });
    let token = |id: Option<&u32>| id.and_then(|id| vocabulary.tokens.get(*id as usize));
    let settings = json!({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": token(vocabulary.bos.as_ref()),
        "eos_token": token(vocabulary.ends.first()), "add_bos_token": vocabulary.add_bos});
    [("tokenizer.json", tokenizer.to_string()), ("tokenizer_config.json", settings.to_string())]
}

#[cfg(test)]
mod tests {
    use super::*;
    use roofline_model::Tokenizer;
    use roofline_weights::gguf::Metadata;

    #[test]
    fn both_spellings_are_one_tokenizer_that_reads_everything() {
        for (size, bos, ends) in
            [(259, Some(0), vec![1, 2]), (50_304, None, vec![50_279]), (151_936, Some(9), vec![9])]
        {
            let vocabulary = synthetic(size, bos, &ends).unwrap();
            assert_eq!((vocabulary.tokens.len(), vocabulary.types.len()), (size, size));
            let distinct: BTreeSet<&String> = vocabulary.tokens.iter().collect();
            assert_eq!(distinct.len(), size);
            let mut metadata = Metadata::new("test");
            vocabulary.write(&mut metadata);
            let gguf = Tokenizer::from_gguf(&metadata).unwrap();
            let [(_, tokenizer), (_, settings)] = files(&vocabulary);
            let hf = Tokenizer::from_tokenizer_json(tokenizer.as_bytes(), Some(settings.as_bytes())).unwrap();
            assert_eq!((gguf.bos(), gguf.eos()), (hf.bos(), hf.eos()));
            for text in ["It was the best of times, 1859.\n\n\tnaïve — 日本語", "", "zzzzz the"] {
                let ids = gguf.encode(text, true, false).unwrap();
                assert_eq!(ids, hf.encode(text, true, false).unwrap(), "{size}: {text:?}");
                assert_eq!(gguf.decode(&ids, true).unwrap(), text);
            }
        }
    }

    #[test]
    fn a_vocabulary_too_small_for_the_bytes_has_none() {
        assert_eq!(synthetic(256, Some(0), &[]), None);
        assert_eq!(synthetic(400, Some(400), &[]), None);
        assert!(synthetic(257, Some(0), &[]).is_some());
    }
}
