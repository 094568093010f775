//! The safetensors header: u64 length (little-endian), a JSON directory of that length, then the data without holes.
//!
//! Source: the format description of huggingface/safetensors. Limits kept here: header ≤ 100 MB (as there), JSON
//! nesting as `serde_json` limits it (128).

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserializer, Error as _, MapAccess, Visitor};

use crate::directory::{Entry, Stored};
use crate::{Format, WeightsError};

/// Longest header accepted, in bytes.
pub const MAX_HEADER: u64 = 100_000_000;

/// Bits per element of the dtypes that files may hold; those that no [`Format`] reads are refused when used.
const DTYPE_BITS: [(&str, u64); 21] = [
    ("F32", 32),
    ("F16", 16),
    ("BF16", 16),
    ("F64", 64),
    ("I64", 64),
    ("U64", 64),
    ("C64", 64),
    ("I32", 32),
    ("U32", 32),
    ("I16", 16),
    ("U16", 16),
    ("BOOL", 8),
    ("U8", 8),
    ("I8", 8),
    ("F8_E4M3", 8),
    ("F8_E5M2", 8),
    ("F8_E8M0", 8),
    ("F8_E4M3FNUZ", 8),
    ("F8_E5M2FNUZ", 8),
    ("F6_E2M3", 6),
    ("F4", 4),
];

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTensor {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// The JSON object in file order, names unique.
struct Directory(Vec<(String, RawTensor)>);

impl<'de> serde::Deserialize<'de> for Directory {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(DirectoryVisitor)
    }
}

struct DirectoryVisitor;

impl<'de> Visitor<'de> for DirectoryVisitor {
    type Value = Directory;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Directory, A::Error> {
        let mut tensors = Vec::new();
        let mut names = std::collections::HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if !names.insert(name.clone()) {
                return Err(A::Error::custom(format!("{name:?} occurs twice")));
            }
            if name == "__metadata__" {
                map.next_value::<Option<BTreeMap<String, String>>>()
                    .map_err(|e| A::Error::custom(format!("__metadata__: {e}")))?;
                continue;
            }
            let tensor = map.next_value().map_err(|e| A::Error::custom(format!("tensor {name:?}: {e}")))?;
            tensors.push((name, tensor));
        }
        Ok(Directory(tensors))
    }
}

/// Parses and checks the header of `bytes` (a whole file called `file`). Tensors come in the order of their data.
pub(crate) fn read_directory(file: &str, bytes: &[u8]) -> Result<Vec<Entry>, WeightsError> {
    let header = header_bytes(file, bytes)?;
    let Directory(mut raw) = serde_json::from_slice(header).map_err(|e| {
        WeightsError::bad(file, "JSON header", format!("invalid ({e})"), "a tensor directory")
    })?;
    raw.sort_by_key(|(_, tensor)| tensor.data_offsets);

    let data_start = 8 + header.len();
    let data_len = (bytes.len() - data_start) as u64;
    let mut entries = Vec::with_capacity(raw.len());
    let mut end = 0;
    let mut previous = String::new();
    for (name, tensor) in raw {
        check_offsets(file, &name, &tensor, data_len)?;
        let (start, tensor_end) = tensor.data_offsets;
        if start > end {
            let before = format!("tensor {name:?}");
            return Err(WeightsError::Hole { file: file.to_owned(), start: end, end: start, before });
        }
        if start < end {
            let (file, other) = (file.to_owned(), previous);
            return Err(WeightsError::TensorsOverlap { file, tensor: name, start, other, end });
        }
        end = tensor_end;
        previous.clone_from(&name);
        entries.push(entry(file, name, &tensor, data_start)?);
    }
    if end != data_len {
        let before = "the end of the file".to_owned();
        return Err(WeightsError::Hole { file: file.to_owned(), start: end, end: data_len, before });
    }
    Ok(entries)
}

fn header_bytes<'a>(file: &str, bytes: &'a [u8]) -> Result<&'a [u8], WeightsError> {
    let truncated = |field: &str, offset, needed, available| WeightsError::Truncated {
        file: file.to_owned(),
        field: field.to_owned(),
        offset,
        needed,
        available,
    };
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(truncated("header length", 0, 8, bytes.len() as u64));
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER {
        return Err(WeightsError::bad(file, "header length", length, format!("at most {MAX_HEADER} bytes")));
    }
    let available = rest.len() as u64;
    if length > available {
        return Err(truncated("JSON header", 8, length, available));
    }
    let header = &rest[..length as usize];
    if header.first() != Some(&b'{') {
        let found = header.first().map_or("empty".to_owned(), |byte| format!("byte {byte:#04x}"));
        return Err(WeightsError::bad(file, "start of the JSON header", found, "'{'"));
    }
    Ok(header)
}

/// Offsets in order, inside the data, and as long as dtype and shape say.
fn check_offsets(file: &str, name: &str, tensor: &RawTensor, data_len: u64) -> Result<(), WeightsError> {
    let (start, end) = tensor.data_offsets;
    if end < start {
        let field = format!("data_offsets of tensor {name:?}");
        return Err(WeightsError::bad(file, field, format!("[{start}, {end}]"), "start ≤ end"));
    }
    if end > data_len {
        let (file, tensor) = (file.to_owned(), name.to_owned());
        return Err(WeightsError::TensorOutOfBounds { file, tensor, start, end, available: data_len });
    }
    let Some(&(_, bits)) = DTYPE_BITS.iter().find(|(dtype, _)| *dtype == tensor.dtype) else {
        return Ok(()); // a dtype of the future: its length means nothing to us, and using it is an error
    };
    let size = tensor.shape.iter().try_fold(bits, |size, &dim| size.checked_mul(dim));
    let Some(size) = size.filter(|size| size % 8 == 0).map(|size| size / 8) else {
        let field = format!("shape of tensor {name:?}");
        let expected = "a product that fits 64 bits in whole bytes";
        return Err(WeightsError::bad(file, field, format!("{:?}", tensor.shape), expected));
    };
    if size != end - start {
        let field = format!("length of tensor {name:?}");
        let expected = format!("{size} bytes for {} {:?}", tensor.dtype, tensor.shape);
        return Err(WeightsError::bad(file, field, format!("{} bytes", end - start), expected));
    }
    Ok(())
}

fn entry(file: &str, name: String, tensor: &RawTensor, data_start: usize) -> Result<Entry, WeightsError> {
    let stored = match tensor.dtype.as_str() {
        "F32" => Stored::Known(Format::F32),
        "F16" => Stored::Known(Format::F16),
        "BF16" => Stored::Known(Format::Bf16),
        other => Stored::Other(other.to_owned()),
    };
    let shape: Result<Vec<usize>, _> = tensor.shape.iter().map(|&dim| usize::try_from(dim)).collect();
    let shape = shape.map_err(|_| {
        let field = format!("shape of tensor {name:?}");
        WeightsError::bad(file, field, format!("{:?}", tensor.shape), "dimensions this machine can address")
    })?;
    // Both ends are at most the length of a slice, so they fit and do not overflow.
    let (start, end) = tensor.data_offsets;
    let range = data_start + start as usize..data_start + end as usize;
    Ok(Entry { name, stored, shape, range })
}
