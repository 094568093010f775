//! Importance matrices in both containers: what they change, and every way of being wrong.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests

mod convert_support;

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use convert_support::{GOLDEN, folder, options, quantized};
use roofline_lab::convert::{ConvertError, Quantized, quantize};
use roofline_weights::gguf::{Metadata, TensorSpec, Value, Writer};
use roofline_weights::{Checkpoint, Format, blocks};

type Entries<'a> = &'a [(&'a str, Vec<f32>)];

/// The older container; sums are the means times the calls.
fn legacy(entries: Entries<'_>, calls: i32, tail: bool) -> Vec<u8> {
    let mut bytes = (entries.len() as i32).to_le_bytes().to_vec();
    for (name, means) in entries {
        bytes.extend((name.len() as i32).to_le_bytes());
        bytes.extend(name.as_bytes());
        bytes.extend(calls.to_le_bytes());
        bytes.extend((means.len() as i32).to_le_bytes());
        means.iter().for_each(|mean| bytes.extend((mean * calls as f32).to_le_bytes()));
    }
    if tail {
        bytes.extend(7i32.to_le_bytes());
        bytes.extend(8i32.to_le_bytes());
        bytes.extend(b"wiki.txt");
    }
    bytes
}

/// The newer container; `columns` of each matrix, `count` tokens each.
fn gguf(entries: Entries<'_>, columns: usize, count: f32) -> Vec<u8> {
    let mut metadata = Metadata::new("imatrix");
    metadata.set("general.type", Value::Str("imatrix".to_owned()));
    metadata.set("imatrix.chunk_count", Value::U32(7));
    let spec = |name: String, shape: Vec<usize>| TensorSpec { name, format: Format::F32, shape };
    let specs: Vec<TensorSpec> = entries
        .iter()
        .flat_map(|(name, means)| {
            let matrices = means.len() / columns;
            [
                spec(format!("{name}.in_sum2"), vec![matrices, columns]),
                spec(format!("{name}.counts"), vec![matrices, 1]),
            ]
        })
        .collect();
    let mut writer = Writer::new("imatrix", Vec::new(), &metadata, &specs).unwrap();
    let bytes =
        |values: &mut dyn Iterator<Item = f32>| values.flat_map(f32::to_le_bytes).collect::<Vec<u8>>();
    for (name, means) in entries {
        writer
            .append(&format!("{name}.in_sum2"), &bytes(&mut means.iter().map(|mean| mean * count)))
            .unwrap();
        let counts = &mut std::iter::repeat_n(count, means.len() / columns);
        writer.append(&format!("{name}.counts"), &bytes(counts)).unwrap();
    }
    writer.finish().unwrap()
}

fn with(model: &Path, kind: &str, matrix: PathBuf, output: &Path) -> Result<Quantized, ConvertError> {
    let mut options = options(kind);
    (options.importance, options.force) = (Some(matrix), true);
    quantize(model, output, &options, |_| ControlFlow::Continue(()))
}

fn file(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, bytes).unwrap();
    path
}

/// Powers of two, so that dividing by the calls gives them back exactly.
fn means(columns: usize) -> Vec<f32> {
    (0..columns).map(|i| [0.25, 1.0, 4.0, 0.0625][i % 4]).collect()
}

#[test]
fn both_containers_guide_the_encoder_alike() {
    let out = folder("importance");
    let model = GOLDEN.join("llama_mha");
    let exact = quantized(&model, "f32", &out.join("exact.gguf"));
    let name = "blk.0.attn_q.weight";
    let entries = [(name, means(32))];
    let view = exact.tensor(name).unwrap();
    let mut values = vec![0.0; view.weights()];
    blocks::decode(view.format, view.bytes, &mut values).unwrap();
    let mut expected = Vec::new();
    blocks::encode(Format::Q4_0, &values, Some(&means(32)), &mut expected).unwrap();
    for (container, bytes) in [
        ("gguf", gguf(&entries, 32, 8.0)),
        ("dat", legacy(&entries, 4, true)),
        ("old", legacy(&entries, 4, false)),
    ] {
        let path = out.join(format!("{container}.gguf"));
        let report = with(&model, "q4_0", file(&out, container, &bytes), &path).unwrap();
        let made = Checkpoint::open_gguf(&path).unwrap();
        assert!(made.tensor(name).unwrap().bytes == expected, "{container}");
        let guided: Vec<&str> = report
            .tensors
            .iter()
            .filter(|tensor| tensor.importance)
            .map(|tensor| tensor.name.as_str())
            .collect();
        assert_eq!(guided, [name]);
        let note = report.notes.iter().find(|note| note.contains("no entry for")).unwrap();
        assert!(note.contains("token_embd.weight") && !note.contains(name), "{note}");
        let metadata = &made.gguf().unwrap().metadata;
        assert_eq!(metadata.u64("quantize.imatrix.entries_count").unwrap(), 1);
        assert_eq!(metadata.get("quantize.imatrix.chunks_count").is_some(), container != "old");
    }
}

#[test]
fn stacked_experts_have_a_row_each_and_an_idle_one_weighs_all_alike() {
    let out = folder("importance-experts");
    let model = GOLDEN.join("mixtral");
    let name = "blk.0.ffn_gate_exps.weight"; // (4, 20, 32)
    let exact = quantized(&model, "f32", &out.join("exact.gguf"));
    let view = exact.tensor(name).unwrap();
    assert_eq!(view.shape, [4, 20, 32]);
    let mut values = vec![0.0; view.weights()];
    blocks::decode(view.format, view.bytes, &mut values).unwrap();
    let rows: Vec<Vec<f32>> =
        (0..4).map(|e| means(32).iter().map(|mean| mean * (e + 1) as f32).collect()).collect();
    let matrix = file(&out, "m", &gguf(&[(name, rows.concat())], 32, 2.0));
    let path = out.join("m.gguf");
    with(&model, "q4_0", matrix, &path).unwrap();
    let mut expected = Vec::new();
    for (expert, row) in values.chunks_exact(20 * 32).zip(&rows) {
        blocks::encode(Format::Q4_0, expert, Some(row), &mut expected).unwrap();
    }
    assert!(Checkpoint::open_gguf(&path).unwrap().tensor(name).unwrap().bytes == expected);

    let matrix = file(&out, "idle", &gguf(&[(name, rows.concat())], 32, 0.0));
    with(&model, "q4_0", matrix, &path).unwrap();
    let mut expected = Vec::new();
    blocks::encode(Format::Q4_0, &values, Some(&[1.0; 32]), &mut expected).unwrap();
    assert!(Checkpoint::open_gguf(&path).unwrap().tensor(name).unwrap().bytes == expected);
}

#[test]
fn damaged_matrices_are_named_and_nothing_is_written() {
    let out = folder("importance-bad");
    let output = out.join("m.gguf");
    let model = GOLDEN.join("llama_mha");
    let complaint = |name: &str, bytes: &[u8]| {
        let error = with(&model, "q4_0", file(&out, name, bytes), &output).unwrap_err().to_string();
        assert!(error.contains(name) && !output.exists(), "{error}");
        error
    };
    let name = "blk.0.attn_q.weight";
    let good = legacy(&[(name, means(32))], 4, true);
    // Without its tail, or with the chunks and no text, it is an older file; cut anywhere else it is none.
    let whole = legacy(&[(name, means(32))], 4, false).len();
    for length in (0..good.len()).filter(|length| ![whole, whole + 4].contains(length)) {
        let error = complaint("cut", &good[..length]);
        assert!(error.contains("are left"), "{length}: {error}");
    }
    assert!(complaint("zero", &0i32.to_le_bytes()).contains("no entries"));
    assert!(complaint("less", &(-3i32).to_le_bytes()).contains("-3"));
    assert!(complaint("short", &legacy(&[(name, means(16))], 1, false)).contains("16 values"));
    assert!(complaint("nan", &legacy(&[(name, vec![f32::NAN; 32])], 1, false)).contains("NaN"));
    assert!(complaint("minus", &legacy(&[(name, vec![-1.0; 32])], 1, false)).contains("-1"));
    let twice = [(name, means(32)), (name, means(32))];
    assert!(complaint("twice", &legacy(&twice, 1, false)).contains("twice"));
    let mut no_type = gguf(&[(name, means(32))], 32, 1.0);
    let at = no_type.windows(7).position(|bytes| bytes == b"imatrix").unwrap();
    no_type[at..at + 7].copy_from_slice(b"adapter");
    assert!(complaint("type", &no_type).contains("adapter"));
    let model_file = fs::read(GOLDEN.join("qwen2/model.gguf")).unwrap();
    assert!(complaint("model", &model_file).contains("general.type"));
}

#[test]
fn a_matrix_that_would_guide_nothing_is_refused() {
    let out = folder("importance-unused");
    let output = out.join("m.gguf");
    let model = GOLDEN.join("llama_mha");
    let refused = |kind: &str, entry: &str| {
        let matrix = file(&out, "foreign.dat", &legacy(&[(entry, means(32))], 1, false));
        let error = with(&model, kind, matrix, &output).unwrap_err();
        assert!(matches!(error, ConvertError::ImportanceUnused { .. }) && !output.exists(), "{error}");
        error.to_string()
    };
    let foreign = refused("q4_0", "blk.0.attn_qkv.weight");
    assert!(foreign.contains("foreign.dat") && foreign.contains("another model"), "{foreign}");
    assert!(refused("f16", "blk.0.attn_q.weight").contains("leave the importance matrix out"));
}

#[test]
fn a_cut_gguf_matrix_is_named() {
    let out = folder("importance-cut");
    let bytes = gguf(&[("blk.0.attn_q.weight", means(32))], 32, 1.0);
    let matrix = file(&out, "cut.gguf", &bytes[..bytes.len() - 40]);
    let error = with(&GOLDEN.join("llama_mha"), "q4_0", matrix, &out.join("m.gguf")).unwrap_err().to_string();
    assert!(error.contains("cut.gguf") && error.contains("in_sum2"), "{error}");
}
