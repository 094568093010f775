//! The header of a safetensors file: the first two bytes say how much data follows it, the rest is the JSON.
#![no_main]

use libfuzzer_sys::fuzz_target;
use roofline_weights::{Checkpoint, blocks};

fuzz_target!(|input: &[u8]| {
    let Some((data, header)) = input.split_first_chunk::<2>() else { return };
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header);
    file.resize(file.len() + usize::from(u16::from_le_bytes(*data)), 0);
    let Ok(checkpoint) = Checkpoint::from_safetensors_bytes(file) else { return };
    for view in checkpoint.tensors() {
        let mut decoded = vec![0.0; view.weights()];
        assert!(blocks::decode(view.format, view.bytes, &mut decoded).is_ok(), "{}", view.name);
    }
});
