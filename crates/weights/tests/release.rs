//! Released bytes come back as they were.
#![allow(clippy::unwrap_used)] // a test fails by panicking

use roofline_weights::Checkpoint;

#[test]
fn released_tensors_read_the_same_again() {
    let values: Vec<u8> = (0..1_200_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let header = r#"{"a":{"dtype":"F32","shape":[150000],"data_offsets":[0,600000]},"b":{"dtype":"F32","shape":[150000],"data_offsets":[600000,1200000]}}"#;
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(&values);
    let path = std::env::temp_dir().join(format!("roofline-release-{}.safetensors", std::process::id()));
    std::fs::write(&path, file).unwrap();
    let checkpoint = Checkpoint::open_safetensors(&path).unwrap();
    for _ in 0..2 {
        let (a, b) = (checkpoint.require("a").unwrap(), checkpoint.require("b").unwrap());
        assert!(a.bytes == &values[..600_000] && b.bytes == &values[600_000..]);
        checkpoint.release("a");
        checkpoint.release_part("a", 70_000..400_000);
        checkpoint.release_part("b", 599_999..usize::MAX);
        assert!(b.bytes == &values[600_000..]);
    }
    checkpoint.release("no such tensor");
    std::fs::remove_file(&path).unwrap();
}
