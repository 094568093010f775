//! What the writer writes, the reader reads; what GGUF can't hold, the writer refuses.
#![allow(clippy::unwrap_used)]

mod common;

use common::{metadata_of_every_type, tensors_of_every_format, write_gguf};
use roofline_weights::gguf::{Metadata, TensorSpec, Value, Writer};
use roofline_weights::{Checkpoint, Format};

#[test]
fn every_value_type_and_format_round_trips() {
    let tensors = tensors_of_every_format();
    for alignment in [None, Some(8), Some(64), Some(24)] {
        let mut metadata = metadata_of_every_type();
        if let Some(alignment) = alignment {
            metadata.set("general.alignment", Value::U32(alignment));
        }
        let checkpoint = Checkpoint::from_gguf_bytes(write_gguf(&metadata, &tensors)).unwrap();
        let header = checkpoint.gguf().unwrap();
        assert_eq!((header.version, header.alignment), (3, u64::from(alignment.unwrap_or(32))));
        assert!(header.metadata.iter().eq(metadata.iter()));
        assert_eq!(checkpoint.tensors().count(), tensors.len());
        for (view, (spec, bytes)) in checkpoint.tensors().zip(&tensors) {
            assert_eq!(
                (view.name, view.format, view.shape),
                (spec.name.as_str(), spec.format, &spec.shape[..])
            );
            assert_eq!(view.bytes, bytes);
        }
    }
}

#[test]
fn pieces_of_a_tensor_make_the_same_file() {
    let tensors = tensors_of_every_format();
    let specs: Vec<TensorSpec> = tensors.iter().map(|(spec, _)| spec.clone()).collect();
    let mut writer = Writer::new("test", Vec::new(), &Metadata::new(""), &specs).unwrap();
    for (spec, bytes) in &tensors {
        for piece in bytes.chunks(100) {
            writer.append(&spec.name, piece).unwrap();
        }
    }
    assert_eq!(writer.finish().unwrap(), write_gguf(&Metadata::new(""), &tensors));
}

fn spec(name: &str, format: Format, shape: &[usize]) -> TensorSpec {
    TensorSpec { name: name.to_owned(), format, shape: shape.to_vec() }
}

fn refusal(specs: &[TensorSpec]) -> String {
    Writer::new("test", Vec::new(), &Metadata::new(""), specs).unwrap_err().to_string()
}

#[test]
fn tensors_that_gguf_cannot_hold_are_refused_by_name() {
    let a = spec("a", Format::F32, &[2]);
    assert!(refusal(&[a.clone(), a]).contains("\"a\" of the GGUF being written: the name occurs twice"));
    assert!(refusal(&[spec("a", Format::F32, &[])]).contains("one to 4 dimensions"));
    assert!(refusal(&[spec("a", Format::F32, &[1, 1, 1, 1, 1])]).contains("one to 4 dimensions"));
    assert!(refusal(&[spec("a", Format::F32, &[2, 0])]).contains("none zero"));
    assert!(
        refusal(&[spec("a", Format::Q4K, &[256, 32])]).contains("rows of 32 weights do not fill q4_k blocks")
    );
    assert!(refusal(&[spec("a", Format::F32, &[usize::MAX, 2])]).contains("too large"));
    let mut metadata = Metadata::new("");
    metadata.set("general.alignment", Value::U32(12));
    let error = Writer::new("out.gguf", Vec::new(), &metadata, &[]).unwrap_err().to_string();
    assert_eq!(
        error,
        "out.gguf: general.alignment is the u32 12, expected a u32 that is a positive multiple of 8"
    );
}

#[test]
fn data_out_of_order_too_long_or_missing_is_refused() {
    let specs = [spec("a", Format::F32, &[2]), spec("b", Format::F32, &[1])];
    let writer = || Writer::new("test", Vec::new(), &Metadata::new(""), &specs).unwrap();
    let error = writer().append("b", &[0; 4]).unwrap_err().to_string();
    assert!(error.contains("the directory has \"a\" next"), "{error}");
    let error = writer().append("a", &[0; 9]).unwrap_err().to_string();
    assert!(error.contains("9 bytes given, 8 of 8 are left"), "{error}");
    let mut partial = writer();
    partial.append("a", &[0; 8]).unwrap();
    partial.append("b", &[0; 3]).unwrap();
    let error = partial.finish().unwrap_err().to_string();
    assert!(error.contains("\"b\"") && error.contains("only 3 of 4 bytes"), "{error}");
    let mut full = writer();
    full.append("a", &[0; 8]).unwrap();
    full.append("b", &[0; 4]).unwrap();
    assert!(full.append("b", &[0]).unwrap_err().to_string().contains("is complete"));
}
