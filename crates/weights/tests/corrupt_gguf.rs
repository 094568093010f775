//! GGUF files with every field damaged: an error that names file and field, never a panic, never an allocation for a
//! made-up count.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::io::Write;

use common::Random;
use proptest::prelude::*;
use roofline_weights::{Checkpoint, WeightsError};

/// A file under construction that remembers where each field lies.
#[derive(Clone)]
struct Raw {
    version: u32,
    bytes: Vec<u8>,
    fields: BTreeMap<String, (usize, usize)>, // (offset, length)
}

impl Raw {
    fn put(&mut self, field: &str, bytes: &[u8]) {
        self.fields.insert(field.to_owned(), (self.bytes.len(), bytes.len()));
        self.bytes.extend_from_slice(bytes);
    }

    fn u32(&mut self, field: &str, value: u32) {
        self.put(field, &value.to_le_bytes());
    }

    fn u64(&mut self, field: &str, value: u64) {
        self.put(field, &value.to_le_bytes());
    }

    fn size(&mut self, field: &str, value: u64) {
        if self.version == 1 { self.u32(field, value as u32) } else { self.u64(field, value) }
    }

    fn text(&mut self, field: &str, text: &str) {
        self.size(&format!("{field} length"), text.len() as u64);
        self.put(field, text.as_bytes());
    }

    fn tensor(&mut self, name: &str, dims: &[u64], ggml_type: u32, offset: u64) {
        self.text(&format!("{name} name"), name);
        self.u32(&format!("{name} n_dims"), dims.len() as u32);
        for (i, &dim) in dims.iter().enumerate() {
            self.size(&format!("{name} dim {i}"), dim);
        }
        self.u32(&format!("{name} type"), ggml_type);
        self.u64(&format!("{name} offset"), offset);
    }

    /// The file with `field` overwritten by the low bytes of `value`.
    fn with(&self, field: &str, value: u64) -> Vec<u8> {
        let (offset, len) = self.fields[field];
        let mut bytes = self.bytes.clone();
        bytes[offset..offset + len].copy_from_slice(&value.to_le_bytes()[..len]);
        bytes
    }

    fn with_bytes(&self, field: &str, value: &[u8]) -> Vec<u8> {
        let (offset, len) = self.fields[field];
        let mut bytes = self.bytes.clone();
        bytes.splice(offset..offset + len, value.iter().copied());
        bytes
    }
}

/// Alignment 16, one array of strings, one of floats, tensors `aa` F32 (2, 4) and `bb` Q4_0 (1, 32).
fn small(version: u32) -> Raw {
    let mut raw = Raw { version, bytes: Vec::new(), fields: BTreeMap::new() };
    raw.put("magic", b"GGUF");
    raw.u32("version", version);
    raw.size("tensor count", 2);
    raw.size("key count", 5);
    raw.text("arch key", "general.architecture");
    raw.u32("arch type", 8);
    raw.text("arch", "llama");
    raw.text("alignment key", "general.alignment");
    raw.u32("alignment type", 4);
    raw.u32("alignment", 16);
    raw.text("tokens key", "tokens");
    raw.u32("tokens type", 9);
    raw.u32("tokens element", 8);
    raw.size("tokens count", 2);
    raw.text("token 0", "a");
    raw.text("token 1", "bc");
    raw.text("scores key", "scores");
    raw.u32("scores type", 9);
    raw.u32("scores element", 6);
    raw.size("scores count", 2);
    raw.put("scores", &[0; 8]);
    raw.text("flag key", "flag");
    raw.u32("flag type", 7);
    raw.put("flag", &[1]);
    raw.tensor("aa", &[4, 2], 0, 0);
    raw.tensor("bb", &[32, 1], 2, 32);
    raw.bytes.resize(raw.bytes.len().next_multiple_of(16), 0);
    raw.put("data", &[1; 32 + 18]);
    raw
}

/// Opens and touches everything; the text of the error otherwise.
fn open(bytes: Vec<u8>) -> Result<(), String> {
    let touch = |checkpoint: &Checkpoint| -> Result<(), WeightsError> {
        for view in checkpoint.tensors() {
            assert_eq!(Some(view.bytes.len()), view.format.bytes_of(view.weights()));
            assert!(checkpoint.require(view.name)? == view);
        }
        for (name, _) in checkpoint.unsupported() {
            assert!(checkpoint.find(name).is_err() && checkpoint.tensor(name).is_none());
        }
        Ok(())
    };
    let opened = Checkpoint::from_gguf_bytes(bytes).and_then(|checkpoint| touch(&checkpoint));
    opened.map_err(|error| error.to_string())
}

#[track_caller]
fn refused(bytes: Vec<u8>, parts: &[&str]) {
    let error = open(bytes).unwrap_err();
    for part in ["GGUF in memory: "].iter().chain(parts) {
        assert!(error.contains(part), "{error:?} lacks {part:?}");
    }
}

#[test]
fn the_undamaged_files_open_in_every_version() {
    for version in 1..=3 {
        open(small(version).bytes).unwrap();
    }
}

#[test]
fn magic_and_version() {
    let raw = small(3);
    refused(raw.with_bytes("magic", b"GGML"), &["magic is \"GGML\"", "expected \"GGUF\""]);
    refused(raw.with_bytes("magic", b"tjgg"), &["a ggml file older than GGUF"]);
    refused(raw.with("version", 0), &["GGUF version 0; versions 1, 2 and 3 are read"]);
    refused(raw.with("version", 4), &["GGUF version 4"]);
    refused(raw.with("version", 0x0300_0000), &["big-endian GGUF (version 3)", "convert"]);
    refused(vec![], &["truncated: magic at byte 0 needs 4 bytes, 0 are left"]);
}

#[test]
fn counts_and_lengths_that_the_file_cannot_hold() {
    for huge in [1u64 << 60, u64::MAX, 1 << 32, i64::MAX as u64] {
        let raw = small(3);
        refused(raw.with("tensor count", huge), &["tensor count is ", "at most"]);
        refused(raw.with("key count", huge), &["metadata count is ", "at most"]);
        refused(raw.with("arch key length", huge), &["truncated: metadata key 0 at byte 32 needs"]);
        refused(raw.with("arch length", huge), &["value of metadata key \"general.architecture\"", "needs"]);
        refused(
            raw.with("tokens count", huge),
            &["length of value of metadata key \"tokens\" is ", "at most"],
        );
        refused(raw.with("token 1 length", huge), &["value of metadata key \"tokens\"", "needs"]);
        refused(raw.with("scores count", huge), &["length of value of metadata key \"scores\""]);
        refused(raw.with("aa name length", huge), &["name of tensor 0", "needs"]);
    }
    let raw = small(1);
    let huge = u64::from(u32::MAX);
    refused(raw.with("tensor count", huge), &["tensor count is 4294967295", "at most"]);
    refused(raw.with("tokens count", huge), &["\"tokens\" is 4294967295", "at most"]);
    refused(raw.with("bb name length", huge), &["name of tensor 1", "needs 4294967295 bytes"]);
}

/// 2³¹ tensors may begin in a file of 64 GiB. Room for all of them was asked for at once, and a system that had no 150 GB
/// to give ended the program.
#[test]
fn a_large_file_with_a_made_up_count_is_an_error_and_no_allocation() {
    let path = std::env::temp_dir().join(format!("roofline-made-up-count-{}.gguf", std::process::id()));
    let mut file = std::fs::File::create(&path).unwrap();
    let mut head = [0; 24]; // magic, version, tensor count, metadata count
    head[..4].copy_from_slice(b"GGUF");
    head[4] = 3;
    head[8..16].copy_from_slice(&(1u64 << 31).to_le_bytes());
    file.write_all(&head).unwrap();
    file.set_len(64 << 30).unwrap(); // a hole
    let error = Checkpoint::open_gguf(&path).unwrap_err().to_string();
    std::fs::remove_file(&path).unwrap();
    assert!(error.contains("number of dimensions"), "{error}");
}

#[test]
fn metadata_of_unknown_type_or_form() {
    let raw = small(3);
    refused(raw.with("arch type", 13), &["type of metadata key \"general.architecture\" is 13", "0 to 12"]);
    refused(raw.with("tokens element", 77), &["element type of value of metadata key \"tokens\" is 77"]);
    refused(raw.with("flag", 2), &["value of metadata key \"flag\" is 2, expected a bool"]);
    refused(raw.with_bytes("arch", b"ll\xffma"), &["\"general.architecture\" is not UTF-8"]);
    refused(raw.with_bytes("tokens key", b"\xc3okens"), &["metadata key 2 is not UTF-8"]);
    refused(raw.with_bytes("scores key", b"tokens"), &["metadata key \"tokens\" occurs twice"]);
    let mut nested = small(3);
    let (at, len) = nested.fields["scores type"];
    let deep = [
        9u64.to_le_bytes()[..4].to_vec(),
        [&9u32.to_le_bytes()[..], &1u64.to_le_bytes()].concat().repeat(20),
    ];
    nested.bytes.splice(at..at + len, deep.concat());
    refused(nested.bytes, &["\"scores\" is nested deeper, expected 8 levels"]);
}

#[test]
fn alignment_that_is_none() {
    let raw = small(3);
    for bad in [0, 1, 4, 12, 31, u64::from(u32::MAX)] {
        refused(raw.with("alignment", bad), &["general.alignment is the u32", "a positive multiple of 8"]);
    }
    refused(raw.with("alignment type", 5), &["general.alignment is the i32 16"]);
    // The tensors do not lie where a coarser alignment would have them.
    refused(
        raw.with("alignment", 24),
        &["offset of tensor \"bb\" is 32, expected a multiple of the alignment 24"],
    );
    refused(
        raw.with("alignment", 0xffff_fff8),
        &["tensor \"aa\" occupies data bytes 0..32, the file holds 0"],
    );
}

#[test]
fn tensor_records() {
    let raw = small(3);
    refused(raw.with("aa n_dims", 0), &["number of dimensions of tensor \"aa\" is 0, expected 1 to 4"]);
    refused(raw.with("aa n_dims", 5), &["number of dimensions of tensor \"aa\" is 5"]);
    refused(raw.with("aa dim 1", 0), &["dimensions of tensor \"aa\" is [4, 0], expected no zero"]);
    refused(raw.with("aa dim 1", 1 << 61), &["dimensions of tensor \"aa\"", "a size in f32"]);
    refused(raw.with("aa dim 1", u64::MAX), &["dimensions of tensor \"aa\"", "a product"]);
    refused(
        raw.with("aa dim 1", 1 << 40),
        &["tensor \"aa\" occupies data bytes 0..17592186044416", "holds 50"],
    );
    refused(raw.with("bb dim 0", 33), &["tensor \"bb\" [1, 33] is stored as q4_0", "do not fill rows of 33"]);
    refused(raw.with("bb dim 1", 2), &["tensor \"bb\" occupies data bytes 32..68, the file holds 50"]);
    refused(
        raw.with("bb offset", 33),
        &["offset of tensor \"bb\" is 33, expected a multiple of the alignment 16"],
    );
    refused(raw.with("bb offset", 48), &["tensor \"bb\" occupies data bytes 48..66, the file holds 50"]);
    refused(
        raw.with("bb offset", u64::MAX - 15),
        &["tensor \"bb\" occupies data bytes 18446744073709551600.."],
    );
    refused(
        raw.with("bb offset", 16),
        &["\"bb\" begins at data byte 16 inside tensor \"aa\", which ends at 32"],
    );
    refused(raw.with_bytes("bb name", b"aa"), &["tensor \"aa\" occurs twice"]);
}

#[test]
fn a_type_without_decoder_is_refused_only_when_used() {
    for (number, name) in
        [(16, "IQ2_XXS"), (39, "MXFP4"), (31, "Q4_0_4_4 (removed"), (1000, "ggml type 1000")]
    {
        let checkpoint = Checkpoint::from_gguf_bytes(small(3).with("bb type", number)).unwrap();
        assert!(checkpoint.require("aa").is_ok());
        assert_eq!(checkpoint.unsupported().count(), 1);
        let error = checkpoint.require("bb").unwrap_err().to_string();
        assert!(error.contains("tensor \"bb\" has type ") && error.contains(name), "{error}");
        assert!(error.contains("supported are f32, f16"), "{error}");
    }
}

#[test]
fn a_part_of_a_split_model_is_refused() {
    let mut metadata = common::metadata_of_every_type();
    metadata.set("split.count", roofline_weights::gguf::Value::U16(3));
    refused(common::write_gguf(&metadata, &[]), &["one of 3 parts of a split GGUF", "--merge"]);
}

#[test]
fn truncated_anywhere() {
    for version in 1..=3 {
        let whole = small(version).bytes;
        for len in 0..whole.len() {
            let error = open(whole[..len].to_vec()).expect_err("a part of a file");
            let named =
                ["truncated: ", " is ", " occupies data bytes "].iter().any(|part| error.contains(part));
            assert!(
                error.starts_with("GGUF in memory: ") && named,
                "version {version}, {len} bytes: {error}"
            );
        }
    }
}

#[test]
fn every_field_with_hostile_numbers() {
    let hostile =
        [0, 1, 2, 3, 7, 9, 12, 255, 1 << 15, 1 << 31, (1 << 31) - 1, 1 << 32, 1 << 60, 1 << 63, u64::MAX];
    for version in 1..=3 {
        let raw = small(version);
        for (field, &(offset, len)) in raw.fields.iter().filter(|(_, (_, len))| *len <= 8) {
            let mut original = [0; 8];
            original[..len].copy_from_slice(&raw.bytes[offset..offset + len]);
            let original = u64::from_le_bytes(original);
            let near = [
                original.wrapping_sub(1),
                original.wrapping_add(1),
                original.wrapping_mul(2),
                original.swap_bytes(),
            ];
            for value in hostile.into_iter().chain(near) {
                if let Err(error) = open(raw.with(field, value)) {
                    assert!(error.starts_with("GGUF in memory: "), "{field} = {value}: {error}");
                }
            }
        }
    }
}

#[test]
fn every_byte_changed() {
    let whole = small(3).bytes;
    for at in 0..whole.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff, whole[at] ^ 0x10] {
            let mut bytes = whole.clone();
            bytes[at] = value;
            let _ = open(bytes); // opens or not, but neither panics nor hangs
        }
    }
}

proptest! {
    #[test]
    fn random_bytes_after_the_magic(version in 1u32..4, seed in any::<u64>(), len in 0usize..400, small_numbers: bool) {
        let mut random = Random(seed);
        let mut bytes = b"GGUF".to_vec();
        bytes.extend_from_slice(&version.to_le_bytes());
        let byte = |random: &mut Random| match random.next() % 4 {
            0 if small_numbers => random.next() as u8 % 16,
            1 | 2 if small_numbers => 0,
            _ => random.next() as u8,
        };
        bytes.extend((0..len).map(|_| byte(&mut random)));
        if let Err(error) = open(bytes) {
            prop_assert!(error.starts_with("GGUF in memory: "), "{error}");
        }
    }

    /// Several fields damaged at once.
    #[test]
    fn fields_of_a_real_file_damaged_together(version in 1u32..4, seed in any::<u64>(), times in 1usize..5) {
        let mut random = Random(seed);
        let raw = small(version);
        let fields: Vec<&(usize, usize)> = raw.fields.values().filter(|(_, len)| *len <= 8).collect();
        let mut bytes = raw.bytes.clone();
        for _ in 0..times {
            let &(offset, len) = fields[random.next() as usize % fields.len()];
            let value = (random.next() >> (random.next() % 64)).to_le_bytes();
            bytes[offset..offset + len].copy_from_slice(&value[..len]);
        }
        if let Err(error) = open(bytes) {
            prop_assert!(error.starts_with("GGUF in memory: "), "{error}");
        }
    }
}
