//! A GGUF version 3 file, written from front to back: nothing is held but the part that is being written.

use std::collections::HashSet;
use std::io::Write;

use super::header::read_alignment;
use super::metadata::Metadata;
use super::value::{Array, Value};
use super::{MAGIC, MAX_DIMS};
use crate::{Format, WeightsError};

/// A tensor to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Name.
    pub name: String,
    /// How each weight is stored.
    pub format: Format,
    /// Outermost dimension first, one to four, none zero; the last fills whole blocks.
    pub shape: Vec<usize>,
}

/// Writes header and directory at once, then takes the data of the tensors in the order of the directory.
#[derive(Debug)]
pub struct Writer<W: Write> {
    file: String,
    out: W,
    alignment: u64,
    tensors: Vec<(String, u64)>, // (name, bytes)
    current: usize,              // index into tensors
    written: u64,                // bytes of the current tensor
}

impl<W: Write> Writer<W> {
    /// Writes the header. `file` names `out` in errors; `general.alignment` is honoured if `metadata` has it.
    ///
    /// # Errors
    /// A tensor that GGUF can't hold (named), a bad `general.alignment`, or what `out` says.
    pub fn new(
        file: impl Into<String>,
        mut out: W,
        metadata: &Metadata,
        tensors: &[TensorSpec],
    ) -> Result<Writer<W>, WeightsError> {
        let file = file.into();
        let alignment = read_alignment(&file, metadata)?;
        let mut header = Vec::new();
        header.extend_from_slice(&MAGIC);
        header.extend_from_slice(&3u32.to_le_bytes());
        put_size(&mut header, tensors.len());
        put_size(&mut header, metadata.len());
        for (key, value) in metadata.iter() {
            put_str(&mut header, key);
            header.extend_from_slice(&(value.value_type() as u32).to_le_bytes());
            put_value(&mut header, value);
        }
        let sizes = put_directory(&mut header, tensors, alignment)?;
        let padding = (header.len() as u64).next_multiple_of(alignment) - header.len() as u64;
        let io = |source| WeightsError::Io { file: file.clone(), action: "write", source };
        out.write_all(&header).map_err(io)?;
        pad(&mut out, padding).map_err(io)?;
        let tensors = tensors.iter().map(|tensor| tensor.name.clone()).zip(sizes).collect();
        Ok(Writer { file, out, alignment, tensors, current: 0, written: 0 })
    }

    /// Appends `bytes` to the data of `tensor`, which must be the next of the directory that is not complete. A tensor may
    /// come in any number of pieces.
    ///
    /// # Errors
    /// The wrong tensor, more bytes than it has, or what the output says.
    pub fn append(&mut self, tensor: &str, bytes: &[u8]) -> Result<(), WeightsError> {
        let wrong = |problem: String| Err(WeightsError::Writer { tensor: tensor.to_owned(), problem });
        let Some((name, size)) = self.tensors.get(self.current) else {
            return wrong("every tensor of the directory is complete".to_owned());
        };
        if name != tensor {
            return wrong(format!("its turn has not come or is over; the directory has {name:?} next"));
        }
        let left = size - self.written;
        if bytes.len() as u64 > left {
            return wrong(format!("{} bytes given, {left} of {size} are left", bytes.len()));
        }
        self.out.write_all(bytes).map_err(|source| self.io(source))?;
        self.written += bytes.len() as u64;
        if bytes.len() as u64 == left {
            let padding = self.written.next_multiple_of(self.alignment) - self.written;
            pad(&mut self.out, padding).map_err(|source| self.io(source))?;
            self.current += 1;
            self.written = 0;
        }
        Ok(())
    }

    /// Flushes and returns the output.
    ///
    /// # Errors
    /// A tensor that is not complete (named), or what the output says.
    pub fn finish(mut self) -> Result<W, WeightsError> {
        if let Some((name, size)) = self.tensors.get(self.current) {
            let problem = format!("only {} of {size} bytes were written", self.written);
            return Err(WeightsError::Writer { tensor: name.clone(), problem });
        }
        self.out.flush().map_err(|source| self.io(source))?;
        Ok(self.out)
    }

    fn io(&self, source: std::io::Error) -> WeightsError {
        WeightsError::Io { file: self.file.clone(), action: "write", source }
    }
}

fn pad(out: &mut impl Write, mut bytes: u64) -> std::io::Result<()> {
    const ZEROS: [u8; 64] = [0; 64];
    while bytes > 0 {
        let now = bytes.min(ZEROS.len() as u64);
        out.write_all(&ZEROS[..now as usize])?;
        bytes -= now;
    }
    Ok(())
}

/// Appends the directory and returns the bytes of each tensor.
fn put_directory(
    header: &mut Vec<u8>,
    tensors: &[TensorSpec],
    alignment: u64,
) -> Result<Vec<u64>, WeightsError> {
    let mut names = HashSet::new();
    let mut offset = 0u64;
    let mut sizes = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        let wrong = |problem: String| WeightsError::Writer { tensor: tensor.name.clone(), problem };
        if !names.insert(&tensor.name) {
            return Err(wrong("the name occurs twice".to_owned()));
        }
        let size = size_of(tensor).map_err(wrong)?;
        put_str(header, &tensor.name);
        header.extend_from_slice(&(tensor.shape.len() as u32).to_le_bytes());
        for &dim in tensor.shape.iter().rev() {
            put_size(header, dim);
        }
        header.extend_from_slice(&tensor.format.ggml_type().to_le_bytes());
        header.extend_from_slice(&offset.to_le_bytes());
        offset = offset
            .checked_add(size)
            .and_then(|end| end.checked_next_multiple_of(alignment))
            .ok_or_else(|| wrong("the file would be larger than 2^64 bytes".to_owned()))?;
        sizes.push(size);
    }
    Ok(sizes)
}

fn size_of(tensor: &TensorSpec) -> Result<u64, String> {
    let TensorSpec { shape, format, .. } = tensor;
    let columns = match shape.as_slice() {
        [.., columns] if shape.len() <= MAX_DIMS as usize && !shape.contains(&0) => *columns,
        _ => return Err(format!("shape {shape:?}; one to {MAX_DIMS} dimensions, none zero, can be written")),
    };
    if !columns.is_multiple_of(format.block_len()) {
        let block = format.block_len();
        return Err(format!("rows of {columns} weights do not fill {format} blocks of {block}"));
    }
    let weights = shape.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim));
    let bytes = weights.and_then(|weights| format.bytes_of(weights));
    bytes.map(|bytes| bytes as u64).ok_or_else(|| format!("shape {shape:?} is too large"))
}

fn put_size(out: &mut Vec<u8>, size: usize) {
    out.extend_from_slice(&(size as u64).to_le_bytes());
}

fn put_str(out: &mut Vec<u8>, text: &str) {
    put_size(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::I8(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::U16(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::I16(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::U32(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::I32(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::F32(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::Bool(v) => out.push(u8::from(*v)),
        Value::Str(v) => put_str(out, v),
        Value::Array(v) => put_array(out, v),
        Value::U64(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::I64(v) => out.extend_from_slice(&v.to_le_bytes()),
        Value::F64(v) => out.extend_from_slice(&v.to_le_bytes()),
    }
}

fn put_array(out: &mut Vec<u8>, array: &Array) {
    out.extend_from_slice(&(array.element_type() as u32).to_le_bytes());
    put_size(out, array.len());
    match array {
        Array::U8(v) => out.extend_from_slice(v),
        Array::I8(v) => v.iter().for_each(|v| out.extend_from_slice(&v.to_le_bytes())),
        Array::U16(v) => v.iter().for_each(|v| out.extend_from_slice(&v.to_le_bytes())),
        Array::I16(v) => v.iter().for_each(|v| out.extend_from_slice(&v.to_le_bytes())),
        Array::U32(v) => v.iter().for_each(|v| out.extend_from_slice(&v.to_le_bytes())),
        Array::I32(v) => v.iter().for_each(|v| out.extend_from_slice(&v.to_le_bytes())),
        Array::F32(v) => v.iter().for_each(|v| out.extend_from_slice(&v.to_le_bytes())),
        Array::Bool(v) => out.extend(v.iter().map(|&v| u8::from(v))),
        Array::Str(v) => v.iter().for_each(|v| put_str(out, v)),
        Array::Array(v) => v.iter().for_each(|v| put_array(out, v)),
        Array::U64(v) => v.iter().for_each(|v| out.extend_from_slice(&v.to_le_bytes())),
        Array::I64(v) => v.iter().for_each(|v| out.extend_from_slice(&v.to_le_bytes())),
        Array::F64(v) => v.iter().for_each(|v| out.extend_from_slice(&v.to_le_bytes())),
    }
}
