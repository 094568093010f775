//! The header of a GGUF file: version, metadata, tensor directory; all checked before any of it is believed.

use std::collections::HashSet;

use super::cursor::Cursor;
use super::metadata::Metadata;
use super::types::ggml_type_name;
use super::value::Value;
use super::{DEFAULT_ALIGNMENT, MAGIC, MAX_DIMS};
use crate::directory::{Entry, Stored};
use crate::{Format, WeightsError};

/// What a GGUF file says before its data.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// 1, 2 or 3.
    pub version: u32,
    /// Typed keys and values.
    pub metadata: Metadata,
    /// Alignment of tensor data, bytes (`general.alignment`, else 32).
    pub alignment: u64,
    /// The tensor directory, in file order.
    pub tensors: Vec<TensorInfo>,
    /// Where the data begins, bytes from the start of the file.
    pub data_start: u64,
}

/// One record of the tensor directory, as the file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name.
    pub name: String,
    /// Dimensions as ggml counts them: innermost (contiguous) first, one to four, none zero.
    pub dims: Vec<u64>,
    /// ggml type number.
    pub ggml_type: u32,
    /// Where its data begins, bytes from `data_start`.
    pub offset: u64,
}

impl Header {
    /// Parses the header of a whole file. `file` names it in errors.
    ///
    /// # Errors
    /// Whatever a truncated, corrupted or foreign file can be; the text names field, numbers and bounds.
    pub fn parse(file: &str, bytes: &[u8]) -> Result<Header, WeightsError> {
        let mut cursor = Cursor::new(file, bytes);
        check_magic(&mut cursor)?;
        let version = read_version(&mut cursor)?;
        if version == 1 {
            cursor.set_narrow();
        }
        // name length, n_dims, type, offset of a tensor; key length, type and one byte of a key
        let n_tensors = cursor.size("tensor count")?;
        let n_keys = cursor.count(cursor.size_width() + 4 + 1, "metadata count")?;
        cursor.check_count(n_tensors, cursor.size_width() + 4 + 4 + 8, "tensor count")?;
        let metadata = read_metadata(&mut cursor, n_keys)?;
        let alignment = read_alignment(file, &metadata)?;
        let n_tensors = cursor.check_count(n_tensors, cursor.size_width() + 4 + 4 + 8, "tensor count")?;
        let tensors = read_tensors(&mut cursor, n_tensors)?;
        let data_start = (cursor.position() as u64).checked_next_multiple_of(alignment).ok_or_else(|| {
            WeightsError::bad(file, "general.alignment", alignment, "an alignment inside 64 bits of file")
        })?;
        Ok(Header { version, metadata, alignment, tensors, data_start })
    }

    /// The directory as checked byte ranges of a file of `file_len` bytes.
    pub(crate) fn entries(&self, file: &str, file_len: usize) -> Result<Vec<Entry>, WeightsError> {
        let mut entries = Vec::with_capacity(self.tensors.len());
        for tensor in &self.tensors {
            entries.push(self.entry(file, tensor, file_len as u64)?);
        }
        check_overlap(file, &entries, self.data_start)?;
        Ok(entries)
    }

    fn entry(&self, file: &str, tensor: &TensorInfo, file_len: u64) -> Result<Entry, WeightsError> {
        let name = &tensor.name;
        if !tensor.offset.is_multiple_of(self.alignment) {
            let expected = format!("a multiple of the alignment {}", self.alignment);
            return Err(WeightsError::bad(
                file,
                format!("offset of tensor {name:?}"),
                tensor.offset,
                expected,
            ));
        }
        let shape = self.shape(file, tensor)?;
        let (stored, size) = match Format::from_ggml_type(tensor.ggml_type) {
            Some(format) => (Stored::Known(format), data_size(file, name, format, &shape)? as u64),
            None => (Stored::Other(type_name(tensor.ggml_type)), 0),
        };
        let available = file_len.saturating_sub(self.data_start);
        match tensor.offset.checked_add(size) {
            Some(end) if end <= available => {
                // Inside the file, which is a slice in memory: the numbers fit.
                let start = (self.data_start + tensor.offset) as usize;
                Ok(Entry { name: name.clone(), stored, shape, range: start..start + size as usize })
            }
            end => Err(WeightsError::TensorOutOfBounds {
                file: file.to_owned(),
                tensor: name.clone(),
                start: tensor.offset,
                end: end.unwrap_or(u64::MAX),
                available,
            }),
        }
    }

    /// Outermost dimension first.
    fn shape(&self, file: &str, tensor: &TensorInfo) -> Result<Vec<usize>, WeightsError> {
        let shape: Vec<usize> =
            tensor.dims.iter().rev().filter_map(|&dim| usize::try_from(dim).ok()).collect();
        let product = shape.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim));
        if shape.len() != tensor.dims.len() || product.is_none() {
            let field = format!("dimensions of tensor {:?}", tensor.name);
            let expected = "a product this machine can address";
            return Err(WeightsError::bad(file, field, format!("{:?}", tensor.dims), expected));
        }
        Ok(shape)
    }
}

fn check_magic(cursor: &mut Cursor<'_>) -> Result<(), WeightsError> {
    let magic: [u8; 4] = cursor.array("magic")?;
    if magic == MAGIC {
        return Ok(());
    }
    let value = match &magic {
        b"lmgg" | b"fmgg" | b"tjgg" | b"algg" => "that of a ggml file older than GGUF".to_owned(),
        other => format!("\"{}\"", other.escape_ascii()),
    };
    Err(WeightsError::bad(cursor.file(), "magic", value, "\"GGUF\""))
}

fn read_version(cursor: &mut Cursor<'_>) -> Result<u32, WeightsError> {
    let version = cursor.u32("version")?;
    let file = cursor.file().to_owned();
    match version {
        1..=3 => Ok(version),
        _ if (1..=3).contains(&version.swap_bytes()) => {
            Err(WeightsError::BigEndian { file, version: version.swap_bytes() })
        }
        _ => Err(WeightsError::GgufVersion { file, version }),
    }
}

fn read_metadata(cursor: &mut Cursor<'_>, count: usize) -> Result<Metadata, WeightsError> {
    let mut metadata = Metadata::new(cursor.file());
    for i in 0..count {
        let key = cursor.string(&format!("metadata key {i}"))?;
        if key.is_empty() {
            return Err(WeightsError::bad(cursor.file(), format!("metadata key {i}"), "empty", "a name"));
        }
        let kind = cursor.value_type(&format!("type of metadata key {key:?}"))?;
        let value = cursor.value(kind, &format!("value of metadata key {key:?}"))?;
        if metadata.get(&key).is_some() {
            return Err(WeightsError::Duplicate {
                file: cursor.file().to_owned(),
                what: "metadata key",
                name: key,
            });
        }
        metadata.set(key, value);
    }
    Ok(metadata)
}

/// `general.alignment` is a multiple of 8 by the specification; llama.cpp asks for a power of two besides, which
/// nothing here needs.
pub(super) fn read_alignment(file: &str, metadata: &Metadata) -> Result<u64, WeightsError> {
    let Some(value) = metadata.get("general.alignment") else { return Ok(DEFAULT_ALIGNMENT) };
    match value {
        Value::U32(alignment) if *alignment != 0 && alignment.is_multiple_of(8) => Ok(u64::from(*alignment)),
        other => {
            let expected = "a u32 that is a positive multiple of 8";
            Err(WeightsError::bad(file, "general.alignment", other.describe(), expected))
        }
    }
}

fn read_tensors(cursor: &mut Cursor<'_>, count: usize) -> Result<Vec<TensorInfo>, WeightsError> {
    // Not with the capacity that the file claims: a record here is three times as long as it must be in the file.
    let mut tensors = Vec::new();
    let mut names = HashSet::new();
    for i in 0..count {
        let name = cursor.string(&format!("name of tensor {i}"))?;
        if !names.insert(name.clone()) {
            return Err(WeightsError::Duplicate { file: cursor.file().to_owned(), what: "tensor", name });
        }
        let n_dims = cursor.u32(&format!("number of dimensions of tensor {name:?}"))?;
        if n_dims == 0 || n_dims > MAX_DIMS {
            let field = format!("number of dimensions of tensor {name:?}");
            return Err(WeightsError::bad(cursor.file(), field, n_dims, format!("1 to {MAX_DIMS}")));
        }
        let field = format!("dimensions of tensor {name:?}");
        let dims = (0..n_dims).map(|_| cursor.size(&field)).collect::<Result<Vec<_>, _>>()?;
        if dims.contains(&0) {
            return Err(WeightsError::bad(cursor.file(), field, format!("{dims:?}"), "no zero"));
        }
        let ggml_type = cursor.u32(&format!("type of tensor {name:?}"))?;
        let offset = cursor.u64(&format!("offset of tensor {name:?}"))?;
        tensors.push(TensorInfo { name, dims, ggml_type, offset });
    }
    Ok(tensors)
}

/// Bytes of a tensor; its rows must fill whole blocks.
fn data_size(file: &str, name: &str, format: Format, shape: &[usize]) -> Result<usize, WeightsError> {
    let columns = shape.last().copied().unwrap_or(1);
    if !columns.is_multiple_of(format.block_len()) {
        return Err(WeightsError::RaggedRows {
            file: file.to_owned(),
            tensor: name.to_owned(),
            shape: shape.to_vec(),
            format,
            block: format.block_len(),
            columns,
        });
    }
    // The product was found to fit.
    format.bytes_of(shape.iter().product()).ok_or_else(|| {
        let expected = format!("a size in {format} that this machine can address");
        WeightsError::bad(file, format!("dimensions of tensor {name:?}"), format!("{shape:?}"), expected)
    })
}

fn check_overlap(file: &str, entries: &[Entry], data_start: u64) -> Result<(), WeightsError> {
    let mut order: Vec<&Entry> = entries.iter().collect();
    order.sort_by_key(|entry| (entry.range.start, entry.range.end));
    for pair in order.windows(2) {
        if pair[1].range.start < pair[0].range.end {
            return Err(WeightsError::TensorsOverlap {
                file: file.to_owned(),
                tensor: pair[1].name.clone(),
                start: pair[1].range.start as u64 - data_start,
                other: pair[0].name.clone(),
                end: pair[0].range.end as u64 - data_start,
            });
        }
    }
    Ok(())
}

fn type_name(number: u32) -> String {
    ggml_type_name(number).map_or_else(|| format!("ggml type {number}"), str::to_owned)
}
