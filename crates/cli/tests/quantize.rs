//! `roofline quantize`.
#![allow(clippy::unwrap_used)] // helpers outside of #[test] too

mod common;

use std::path::{Path, PathBuf};

use common::{complaint, json, scratch, stdout};

fn golden(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/golden").join(name);
    path.display().to_string()
}

/// A file of this name that is not there yet.
fn output(name: &str) -> PathBuf {
    let folder = scratch("quantize");
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(name);
    let _ = std::fs::remove_file(&path);
    path
}

#[test]
fn a_folder_becomes_a_file_and_the_table_says_how() {
    let (input, path) = (golden("llama_gqa_tied"), output("table.gguf"));
    let path = path.to_str().unwrap();
    let text = stdout(&["quantize", &input, path, "--type", "q4_k_m", "--threads", "2"]);
    for word in
        ["token_embd.weight", "attn_v.weight", "q5_0", "q4_k", "rms error", "exact", "bits per weight"]
    {
        assert!(text.contains(word), "{word} is missing in:\n{text}");
    }
    assert!(complaint(&["quantize", &input, path, "--type", "q4_k_m"]).contains("--force replaces it"));
    stdout(&["quantize", &input, path, "--type", "q8_0", "--force"]);
    assert!(complaint(&["quantize", path, path, "--type", "q4_0", "--force"]).contains("--requantize"));
}

#[test]
fn json_and_csv_hold_every_tensor() {
    let (input, path) = (golden("olmoe"), output("rows.gguf"));
    let path = path.to_str().unwrap();
    let report = json(&["quantize", &input, path, "--type", "bf16", "--json"]);
    let tensors = report["tensors"].as_array().unwrap();
    assert_eq!((report["type"].as_str(), report["architecture"].as_str()), (Some("bf16"), Some("olmoe")));
    let router = tensors.iter().find(|tensor| tensor["name"] == "blk.0.ffn_gate_inp.weight").unwrap();
    assert_eq!((router["to"].as_str(), router["largest_error"].as_f64()), (Some("f32"), Some(0.0)));
    let csv = stdout(&["quantize", &input, path, "--type", "bf16", "--format", "csv", "--force"]);
    assert_eq!(csv.lines().count(), 1 + tensors.len());
}

#[test]
fn what_cannot_be_done_is_one_line() {
    let (input, path) = (golden("llama_mha"), output("bad.gguf"));
    let path_text = path.to_str().unwrap();
    let wrong = complaint(&["quantize", &input, path_text, "--type", "q4km"]);
    assert!(wrong.contains("q4_k_m"), "{wrong}");
    assert!(
        complaint(&["quantize", "absent-model", path_text, "--type", "q8_0"])
            .contains("cannot read absent-model")
    );
    let folder = scratch("quantize").join("absent/model.gguf");
    let folder = folder.to_str().unwrap();
    assert!(complaint(&["quantize", &input, folder, "--type", "q8_0"]).contains("cannot write"));
    let matrix = complaint(&[
        "quantize",
        &input,
        path_text,
        "--type",
        "q8_0",
        "--imatrix",
        &format!("{input}/config.json"),
    ]);
    assert!(matrix.contains("is no importance matrix"), "{matrix}");
    assert!(!path.exists());
}
