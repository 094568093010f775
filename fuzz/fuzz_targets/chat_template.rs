//! A chat template: compiles or not, renders or not, but comes to an end.
#![no_main]

use std::time::UNIX_EPOCH;

use libfuzzer_sys::fuzz_target;
use roofline_model::ChatTemplate;
use roofline_model::chat_template::{Message, RenderOptions};

fuzz_target!(|template: &str| {
    let Ok(template) = ChatTemplate::new(template) else { return };
    let options = RenderOptions {
        add_generation_prompt: true,
        bos_token: Some("<s>".to_string()),
        eos_token: None,
        extra: serde_json::Map::new(),
        now: UNIX_EPOCH,
    };
    let _ = template.render(&[Message::new("system", "x"), Message::new("user", "Hi")], &options);
});
