//! The tokenizer and the chat templates in a GGUF file's metadata: refused, or able to do their work.
#![no_main]

use libfuzzer_sys::fuzz_target;
use roofline_model::chat_template::{Message, RenderOptions};
use roofline_model::{ChatTemplate, Tokenizer};
use roofline_weights::gguf::Header;

fuzz_target!(|file: &[u8]| {
    let Ok(header) = Header::parse("fuzz", file) else { return };
    let Ok(tokenizer) = Tokenizer::from_gguf(&header.metadata) else { return };
    for parse_special in [false, true] {
        if let Ok(ids) = tokenizer.encode("a b  12\n<s>é", true, parse_special) {
            assert!(tokenizer.decode(&ids, false).is_ok());
        }
    }
    if let Ok(Some(template)) = ChatTemplate::from_gguf(&header.metadata) {
        let _ = template.render(&[Message::new("user", "Hi")], &RenderOptions::of(&tokenizer));
        let _ = template.end_of_turn(&tokenizer);
    }
});
