//! Every block format on every instruction set that the machine has: the kernels that read stored blocks against the
//! same weights decoded to F32.
#![allow(clippy::unwrap_used, clippy::panic)] // tests

mod support;
#[path = "support/synthetic.rs"]
mod synthetic;

use roofline_engine::{Arithmetic, Isa};
use roofline_weights::Format;
use std::path::PathBuf;

/// 8-bit activations, rounded per block of 32, leave 0.5 % per product: 1.2 % of the logits of two random layers.
const TOLERANCE: f64 = 0.02;
/// What 16-bit activations leave is two orders less.
const EXACT_TOLERANCE: f64 = 1e-4;

fn write(name: &str, bytes: &[u8]) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn relative_rms(a: &[f32], b: &[f32]) -> f64 {
    let square = |x: f64| x * x;
    let difference: f64 = a.iter().zip(b).map(|(x, y)| square(f64::from(x - y))).sum();
    (difference / b.iter().map(|y| square(f64::from(*y))).sum::<f64>()).sqrt()
}

fn rows(logits: &[f32]) -> impl Iterator<Item = &[f32]> {
    logits.chunks_exact(synthetic::VOCAB)
}

/// The same token comes first, or one that ties with it within the tolerance.
fn check_token(found: &[f32], expected: &[f32], what: &str) {
    let (found, best) = (support::argmax(found) as usize, support::argmax(expected) as usize);
    let size = (expected.iter().map(|x| f64::from(x * x)).sum::<f64>() / expected.len() as f64).sqrt();
    let behind = f64::from(expected[best] - expected[found]) / size;
    assert!(
        behind <= 4.0 * TOLERANCE,
        "{what}: {found} instead of {best}, {behind:.4} of the logits' size behind"
    );
}

fn check(architecture: &str, format: Format) {
    let pair = synthetic::pair(architecture, format, 17);
    let stored = write(&format!("{architecture}-{format}.gguf"), &pair.stored);
    let decoded = write(&format!("{architecture}-{format}-decoded.gguf"), &pair.decoded);
    let ids: Vec<u32> = (0..21).map(|i| (i * 97 + 5) % synthetic::VOCAB as u32).collect();
    let run = |path: &PathBuf, isa, arithmetic| {
        let mut session = support::session(&support::load_for(path, 2, Some(isa), arithmetic));
        support::all_logits(&mut session, &ids)
    };
    let expected = run(&decoded, Isa::Scalar, Arithmetic::Exact);
    for isa in Isa::available() {
        for (arithmetic, tolerance) in [(Arithmetic::Fast, TOLERANCE), (Arithmetic::Exact, EXACT_TOLERANCE)] {
            let found = run(&stored, isa, arithmetic);
            let error = relative_rms(&found, &expected);
            let what = format!("{architecture} in {format} on {isa}, {arithmetic} arithmetic");
            println!("{what}: {error:.2e}");
            assert!(error <= tolerance, "{what}: relative RMS {error:.2e}");
            for (row, (found, expected)) in rows(&found).zip(rows(&expected)).enumerate() {
                check_token(found, expected, &format!("{what}, token {row}"));
            }
        }
    }
    std::fs::remove_file(stored).unwrap();
    std::fs::remove_file(decoded).unwrap();
}

#[test]
fn stored_blocks_give_the_logits_of_their_decoded_values() {
    for format in Format::ALL {
        check("llama", format);
        check("qwen2", format);
    }
}
