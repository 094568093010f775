//! A whole GGUF file: opening refuses or every tensor it offers can be read and decoded.
#![no_main]

use libfuzzer_sys::fuzz_target;
use roofline_weights::{Checkpoint, blocks};

fuzz_target!(|file: &[u8]| {
    let Ok(checkpoint) = Checkpoint::from_gguf_bytes(file.to_vec()) else { return };
    for view in checkpoint.tensors() {
        let mut decoded = vec![0.0; view.weights()];
        assert!(blocks::decode(view.format, view.bytes, &mut decoded).is_ok(), "{}", view.name);
    }
});
