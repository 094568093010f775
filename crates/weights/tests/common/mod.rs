//! Small files and reproducible numbers, shared by the tests.
#![allow(dead_code, clippy::unwrap_used)] // each test binary uses its part

use roofline_weights::gguf::{Array, Metadata, TensorSpec, Value, Writer};
use roofline_weights::{Format, blocks};

/// SplitMix64 and the distributions the tests need; the same numbers on every machine.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn normal(&mut self) -> f64 {
        (-2.0 * (1.0 - self.uniform()).ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }

    pub fn normals(&mut self, len: usize, deviation: f64) -> Vec<f32> {
        (0..len).map(|_| (deviation * self.normal()) as f32).collect()
    }
}

/// One value of every metadata type, nested arrays included.
pub fn metadata_of_every_type() -> Metadata {
    let mut metadata = Metadata::new("test");
    metadata.set("general.architecture", Value::Str("llama".into()));
    metadata.set("t.u8", Value::U8(200));
    metadata.set("t.i8", Value::I8(-100));
    metadata.set("t.u16", Value::U16(60_000));
    metadata.set("t.i16", Value::I16(-30_000));
    metadata.set("t.u32", Value::U32(4_000_000_000));
    metadata.set("t.i32", Value::I32(-2_000_000_000));
    metadata.set("t.u64", Value::U64(u64::MAX));
    metadata.set("t.i64", Value::I64(i64::MIN));
    metadata.set("t.f32", Value::F32(1.5e-5));
    metadata.set("t.f64", Value::F64(std::f64::consts::PI));
    metadata.set("t.yes", Value::Bool(true));
    metadata.set("t.no", Value::Bool(false));
    metadata.set("t.empty", Value::Array(Array::U32(vec![])));
    metadata.set("t.texts", Value::Array(Array::Str(["", "▁the", "\u{1F980}"].into_iter().collect())));
    metadata.set("t.u8s", Value::Array(Array::U8(vec![0, 255])));
    metadata.set("t.i8s", Value::Array(Array::I8(vec![-128, 127])));
    metadata.set("t.u16s", Value::Array(Array::U16(vec![1, 2])));
    metadata.set("t.i16s", Value::Array(Array::I16(vec![-1, 2])));
    metadata.set("t.u32s", Value::Array(Array::U32(vec![1, u32::MAX])));
    metadata.set("t.i32s", Value::Array(Array::I32(vec![1, -5])));
    metadata.set("t.u64s", Value::Array(Array::U64(vec![u64::MAX])));
    metadata.set("t.i64s", Value::Array(Array::I64(vec![-1])));
    metadata.set("t.f32s", Value::Array(Array::F32(vec![0.5, -1.0])));
    metadata.set("t.f64s", Value::Array(Array::F64(vec![1e300])));
    metadata.set("t.bools", Value::Array(Array::Bool(vec![true, false])));
    let nested = vec![
        Array::I32(vec![1]),
        Array::Str(["x"].into_iter().collect()),
        Array::Array(vec![Array::U8(vec![7])]),
    ];
    metadata.set("t.nested", Value::Array(Array::Array(nested)));
    metadata
}

/// One tensor of every format, (2, 256) each, and their bytes.
pub fn tensors_of_every_format() -> Vec<(TensorSpec, Vec<u8>)> {
    let mut random = Random(1);
    let tensor = |format: Format| {
        let mut bytes = Vec::new();
        blocks::encode(format, &random.normals(512, 0.1), None, &mut bytes).unwrap();
        (TensorSpec { name: format!("blk.{format}"), format, shape: vec![2, 256] }, bytes)
    };
    Format::ALL.map(tensor).to_vec()
}

pub fn write_gguf(metadata: &Metadata, tensors: &[(TensorSpec, Vec<u8>)]) -> Vec<u8> {
    let specs: Vec<TensorSpec> = tensors.iter().map(|(spec, _)| spec.clone()).collect();
    let mut writer = Writer::new("test", Vec::new(), metadata, &specs).unwrap();
    for (spec, bytes) in tensors {
        writer.append(&spec.name, bytes).unwrap();
    }
    writer.finish().unwrap()
}

/// A safetensors file of a header text and data.
pub fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(data);
    file
}
