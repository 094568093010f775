//! Safetensors files and folders with everything damaged that can be.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::{Path, PathBuf};

use common::{Random, safetensors};
use proptest::prelude::*;
use roofline_weights::{Checkpoint, Format};

const HEADER: &str = concat!(
    r#"{"__metadata__":{"format":"pt"},"#,
    r#""b":{"dtype":"F16","shape":[3],"data_offsets":[16,22]},"#,
    r#""a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"#,
    r#""c":{"dtype":"BF16","shape":[],"data_offsets":[22,24]}}  "#
);
const DATA: [u8; 24] = [7; 24];

fn open(bytes: Vec<u8>) -> Result<Checkpoint, String> {
    let checkpoint = Checkpoint::from_safetensors_bytes(bytes).map_err(|error| error.to_string())?;
    for view in checkpoint.tensors() {
        assert_eq!(Some(view.bytes.len()), view.format.bytes_of(view.weights()));
    }
    Ok(checkpoint)
}

#[track_caller]
fn refused(bytes: Vec<u8>, parts: &[&str]) {
    let error = open(bytes).unwrap_err();
    for part in ["safetensors in memory: "].iter().chain(parts) {
        assert!(error.contains(part), "{error:?} lacks {part:?}");
    }
}

/// The file with one piece of its header replaced.
#[track_caller]
fn edited(from: &str, to: &str) -> Vec<u8> {
    assert!(HEADER.contains(from));
    safetensors(&HEADER.replacen(from, to, 1), &DATA)
}

#[test]
fn the_undamaged_file_opens_in_the_order_of_its_data() {
    let checkpoint = open(safetensors(HEADER, &DATA)).unwrap();
    let names: Vec<&str> = checkpoint.tensors().map(|view| view.name).collect();
    assert_eq!(names, ["a", "b", "c"]);
    let b = checkpoint.require("b").unwrap();
    assert_eq!((b.format, b.shape, b.bytes), (Format::F16, &[3][..], &DATA[16..22]));
    assert_eq!(checkpoint.require("c").unwrap().shape, &[] as &[usize]);
    let error = checkpoint.require("d").unwrap_err().to_string();
    assert_eq!(error, "safetensors in memory: tensor \"d\" is missing");
}

#[test]
fn header_lengths() {
    let whole = safetensors(HEADER, &DATA);
    let with_length = |length: u64| [&length.to_le_bytes()[..], &whole[8..]].concat();
    refused(
        with_length(u64::MAX),
        &["header length is 18446744073709551615, expected at most 100000000 bytes"],
    );
    refused(with_length(100_000_001), &["header length is 100000001"]);
    refused(with_length(99_999_999), &["truncated: JSON header at byte 8 needs 99999999 bytes"]);
    refused(with_length(0), &["start of the JSON header is empty"]);
    refused(with_length(HEADER.len() as u64 - 3), &["JSON header is invalid"]);
    refused(with_length(HEADER.len() as u64 + 1), &["JSON header is invalid"]);
    refused(vec![1, 0, 0], &["truncated: header length at byte 0 needs 8 bytes, 3 are left"]);
    refused(safetensors(" {}", &[]), &["start of the JSON header is byte 0x20, expected '{'"]);
}

#[test]
fn header_texts() {
    refused(edited(r#""b":"#, r#""a":"#), &["\"a\" occurs twice"]);
    refused(edited(r#""dtype":"F16","#, ""), &["tensor \"b\": missing field `dtype`"]);
    refused(
        edited(r#""dtype":"F16""#, r#""dtype":"F16","dtype":"F16""#),
        &["tensor \"b\": duplicate field `dtype`"],
    );
    refused(
        edited(r#""dtype":"F16""#, r#""dtype":"F16","extra":1"#),
        &["tensor \"b\": unknown field `extra`"],
    );
    refused(edited(r#""dtype":"F16""#, r#""dtype":16"#), &["tensor \"b\": invalid type"]);
    refused(edited("[3]", "[-3]"), &["tensor \"b\": invalid value: integer `-3`"]);
    refused(edited("[3]", "[3.0]"), &["tensor \"b\": invalid type: floating point"]);
    refused(edited("[3]", "[99999999999999999999]"), &["tensor \"b\": invalid type: floating point"]);
    refused(edited("[16,22]", "[16]"), &["tensor \"b\": invalid length 1"]);
    refused(edited("[16,22]", "[16,22,22]"), &["tensor \"b\""]);
    refused(edited(r#"{"format":"pt"}"#, r#"{"format":1}"#), &["__metadata__: invalid type"]);
    let deep = "[".repeat(100_000);
    refused(edited("[3]", &deep), &["tensor \"b\""]);
    refused(safetensors("{\"a\":\"\u{fffd}", &[]), &["JSON header is invalid"]);
    let mut not_utf8 = safetensors(HEADER, &DATA);
    not_utf8[8 + 2] = 0xff;
    refused(not_utf8, &["JSON header is invalid"]);
}

#[test]
fn offsets_and_shapes() {
    refused(
        edited("[16,22]", "[22,16]"),
        &["data_offsets of tensor \"b\" is [22, 16], expected start ≤ end"],
    );
    refused(edited("[22,24]", "[22,25]"), &["tensor \"c\" occupies data bytes 22..25, the file holds 24"]);
    refused(
        edited("[22,24]", "[22,18446744073709551615]"),
        &["tensor \"c\" occupies data bytes 22..1844674407"],
    );
    refused(edited("[3]", "[4]"), &["length of tensor \"b\" is 6 bytes, expected 8 bytes for F16 [4]"]);
    refused(edited("\"F16\"", "\"F32\""), &["length of tensor \"b\" is 6 bytes, expected 12"]);
    refused(
        edited("[2,2]", "[9223372036854775808,2]"),
        &["shape of tensor \"a\"", "a product that fits 64 bits"],
    );
    refused(
        edited("[3],\"data_offsets\":[16,22]", "[2],\"data_offsets\":[18,22]"),
        &["16..18 before tensor \"b\""],
    );
    refused(
        edited("[3],\"data_offsets\":[16,22]", "[4],\"data_offsets\":[14,22]"),
        &["tensor \"b\" begins at data byte 14 inside tensor \"a\", which ends at 16"],
    );
    refused(
        safetensors(HEADER, &[7; 25]),
        &["data bytes 24..25 before the end of the file belong to no tensor"],
    );
}

#[test]
fn a_dtype_without_format_is_refused_only_when_used() {
    for (dtype, length) in [("I16", "[16,22]"), ("Q7_NEW", "[16,22]")] {
        let bytes = edited(
            r#""F16","shape":[3],"data_offsets":[16,22]"#,
            &format!(r#""{dtype}","shape":[3],"data_offsets":{length}"#),
        );
        let checkpoint = open(bytes).unwrap();
        assert_eq!(checkpoint.tensors().count(), 2);
        let error = checkpoint.require("b").unwrap_err().to_string();
        assert!(error.contains(&format!("tensor \"b\" has type {dtype}")), "{error}");
    }
}

#[test]
fn truncated_anywhere_and_every_byte_changed() {
    let whole = safetensors(HEADER, &DATA);
    for len in 0..whole.len() {
        let error = open(whole[..len].to_vec()).map(|_| ()).unwrap_err();
        assert!(error.starts_with("safetensors in memory: "), "{len} bytes: {error}");
    }
    for at in 0..whole.len() {
        for value in [0, b'"', b'0', b'9', b'}', 0x80, 0xff, whole[at] ^ 1] {
            let mut bytes = whole.clone();
            bytes[at] = value;
            let _ = open(bytes); // opens or not, but neither panics nor hangs
        }
    }
}

/// A folder that is removed at the end of the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("roofline-weights-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> &Self {
        std::fs::write(self.0.join(name), bytes).unwrap();
        self
    }

    fn index(&self, map: &str) -> &Self {
        self.file(
            "model.safetensors.index.json",
            format!(r#"{{"metadata":{{}},"weight_map":{map}}}"#).as_bytes(),
        )
    }

    #[track_caller]
    fn refused(&self, parts: &[&str]) {
        let error = Checkpoint::open(&self.0).unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part), "{error:?} lacks {part:?}");
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn shard(name: &str) -> Vec<u8> {
    safetensors(&format!(r#"{{"{name}":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}}}"#), &[0; 4])
}

#[test]
fn shards() {
    let folder = Folder::new("shards");
    folder.file("one.safetensors", &shard("x")).file("two.safetensors", &shard("y"));
    folder.index(r#"{"x":"one.safetensors","y":"two.safetensors"}"#);
    let checkpoint = Checkpoint::open(&folder.0).unwrap();
    assert_eq!(checkpoint.tensors().map(|view| view.name.to_owned()).collect::<Vec<_>>(), ["x", "y"]);
    assert_eq!(checkpoint.files().map(|(_, size)| size).sum::<u64>(), 2 * shard("x").len() as u64);

    folder.index(r#"{"x":"one.safetensors","y":"three.safetensors"}"#);
    folder.refused(&["index.json", "shard \"three.safetensors\" of tensor \"y\" is not in the folder"]);
    folder.index(r#"{"x":"two.safetensors","y":"two.safetensors"}"#);
    folder.refused(&["the index places tensor \"x\" in \"two.safetensors\", which does not hold it"]);
    folder.index(r#"{"x":"one.safetensors","y":"two.safetensors","z":"two.safetensors"}"#);
    folder.refused(&["the index places tensor \"z\" in \"two.safetensors\""]);
    folder.index(r#"{"x":"one.safetensors","y":"two.safetensors"}"#).file("two.safetensors", &shard("x"));
    folder.refused(&["two.safetensors: tensor \"x\" occurs twice"]);
    folder.file("two.safetensors", &shard("y")[..20]);
    folder.refused(&["two.safetensors: truncated: JSON header"]);
    folder.index("7");
    folder.refused(&["index.json: index is invalid"]);
}

#[test]
fn shard_names_that_lead_out_of_the_folder() {
    let folder = Folder::new("traversal");
    for name in ["../x.safetensors", "/etc/passwd", "sub/x", "..", ".", "", "a\\\\b", "C:x", "a/../b"] {
        folder.index(&format!(r#"{{"x":"{name}"}}"#));
        folder.refused(&["shard of tensor \"x\" is ", "a file name without a folder"]);
    }
}

#[test]
fn folders_and_files_that_hold_no_weights() {
    let folder = Folder::new("none");
    folder.refused(&["neither model.safetensors nor model.safetensors.index.json in this folder"]);
    folder.file("pytorch_model.bin", &[]).refused(&["convert them to safetensors"]);
    folder.file("other.safetensors", &[]).refused(&["rename", "other.safetensors"]);
    folder.file("q.gguf", &[]).refused(&["to open the GGUF file name it", "q.gguf"]);
    folder.file("model.safetensors", &[]).refused(&["model.safetensors: truncated: header length at byte 0"]);
    let missing = Checkpoint::open(Path::new("/nowhere/at all.gguf")).unwrap_err().to_string();
    assert!(missing.starts_with("/nowhere/at all.gguf: cannot open: "), "{missing}");
    let missing = Checkpoint::open_hf("/nowhere/at all").unwrap_err().to_string();
    assert_eq!(missing, "/nowhere/at all: no such folder");
    let folder_as_file = Checkpoint::open_gguf(&folder.0).unwrap_err().to_string();
    assert!(folder_as_file.contains("not a regular file"), "{folder_as_file}");
}

proptest! {
    #[test]
    fn random_bytes(seed in any::<u64>(), len in 0usize..200) {
        let mut random = Random(seed);
        let bytes: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
        let _ = open(bytes);
    }

    /// Random texts in the place of a header, of the characters headers are made of.
    #[test]
    fn random_headers(text in r#"\{["a-c{}\[\]:,0-9dtypeshapF32_ofs\\]{0,80}"#, data in 0usize..32) {
        if let Err(error) = open(safetensors(&text, &vec![0; data])) {
            prop_assert!(error.starts_with("safetensors in memory: "), "{error}");
        }
    }

    #[test]
    fn numbers_of_a_real_header_damaged_together(seed in any::<u64>(), times in 1usize..4) {
        let mut random = Random(seed);
        let mut header = HEADER.to_owned();
        for _ in 0..times {
            let digits: Vec<usize> = header.char_indices().filter(|(_, c)| c.is_ascii_digit()).map(|(i, _)| i).collect();
            let at = digits[random.next() as usize % digits.len()];
            header.replace_range(at..=at, &(random.next() >> (random.next() % 64)).to_string());
        }
        let _ = open(safetensors(&header, &DATA));
    }
}
