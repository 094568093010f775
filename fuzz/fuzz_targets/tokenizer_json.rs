//! A `tokenizer.json`: reading it refuses, or what it gives encodes and decodes, streamed as at once.
//!
//! The library turns panics of the tokenizers crate into errors, so only one that comes through ends the run.
#![no_main]

use libfuzzer_sys::fuzz_target;
use roofline_model::tokenizer::{StreamDecoder, Tokenizer};

static QUIET: std::sync::Once = std::sync::Once::new();

fuzz_target!(|file: &[u8]| {
    // libFuzzer's own hook aborts before anything can be caught.
    QUIET.call_once(|| std::panic::set_hook(Box::new(|_| {})));
    let Ok(tokenizer) = Tokenizer::from_tokenizer_json(file, None) else { return };
    for parse_special in [false, true] {
        let Ok(ids) = tokenizer.encode("a b  12\n<s>é", true, parse_special) else { continue };
        // A post-processor may name ids that the vocabulary lacks.
        let Ok(text) = tokenizer.decode(&ids, parse_special) else { continue };
        let mut decoder = StreamDecoder::new(parse_special);
        let mut streamed = String::new();
        for id in ids {
            streamed += decoder.push(&tokenizer, id).expect("decoded just now");
        }
        assert_eq!(streamed + decoder.finish(), text);
    }
});
