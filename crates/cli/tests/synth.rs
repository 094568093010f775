//! `roofline synth`.
#![allow(clippy::unwrap_used)] // helpers outside of #[test] too

mod common;

use common::{complaint, json, scratch, stdout};

#[test]
fn a_preset_becomes_a_file_that_quantize_reads() {
    let folder = scratch("synth");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let (made, quantized) = (folder.join("pythia.gguf"), folder.join("q4.gguf"));
    let (made, quantized) = (made.to_str().unwrap(), quantized.to_str().unwrap());
    let text = stdout(&["synth", "pythia-14m", "--format", "f16", "-o", made, "--context", "512"]);
    for word in ["Pythia-14M (gpt_neox)", "14,067,712", "seed 0", "512", "byte-level BPE of 50,304"] {
        assert!(text.contains(word), "{word} is missing in:\n{text}");
    }
    let report = json(&["quantize", made, quantized, "--type", "q4_0", "--json"]);
    assert_eq!(report["weights"].as_u64(), Some(14_067_712));
    assert!(complaint(&["synth", "pythia-14m", "-o", made]).contains("--force replaces it"));
    let fast = json(&["synth", "pythia-14m", "-f", "q4_k_m", "--fast", "-o", made, "--force", "--json"]);
    assert_eq!((fast["blocks"].as_str(), fast["tensors"].as_u64()), (Some("random"), Some(76)));
}

#[test]
fn what_cannot_be_made_is_one_line() {
    let output = scratch("synth-bad.gguf");
    let output = output.to_str().unwrap();
    assert!(complaint(&["synth", "lama-3.1-8b", "-o", output]).contains("Llama-3.1-8B"));
    assert!(complaint(&["synth", "pythia-14m", "-o", output, "--format", "q4"]).contains("q4_0"));
    assert!(
        complaint(&["synth", "pythia-14m", "-o", output, "--context", "0"])
            .contains("max_position_embeddings")
    );
    assert!(complaint(&["synth", "pythia-14m", "-o", output, "--shard", "0"]).contains("--shard 0"));
}
