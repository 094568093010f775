//! A cursor over the header bytes that never reads past their end and says which field it was reading.

use std::str::Utf8Error;

use super::texts::Texts;
use super::value::{Array, Value, ValueType};
use crate::WeightsError;

/// Arrays of arrays deeper than this are refused; ggml itself writes none at all.
const MAX_DEPTH: usize = 8;

pub(super) struct Cursor<'a> {
    file: &'a str,
    bytes: &'a [u8],
    position: usize,
    wide: bool, // counts and lengths have 64 bits
}

impl<'a> Cursor<'a> {
    pub(super) fn new(file: &'a str, bytes: &'a [u8]) -> Self {
        Cursor { file, bytes, position: 0, wide: true }
    }

    /// Version 1: counts and lengths have 32 bits from here on.
    pub(super) fn set_narrow(&mut self) {
        self.wide = false;
    }

    pub(super) fn file(&self) -> &'a str {
        self.file
    }

    pub(super) fn position(&self) -> usize {
        self.position
    }

    fn remaining(&self) -> u64 {
        (self.bytes.len() - self.position) as u64
    }

    fn truncated(&self, field: &str, needed: u64) -> WeightsError {
        WeightsError::Truncated {
            file: self.file.to_owned(),
            field: field.to_owned(),
            offset: self.position as u64,
            needed,
            available: self.remaining(),
        }
    }

    fn take(&mut self, len: u64, field: &str) -> Result<&'a [u8], WeightsError> {
        if len > self.remaining() {
            return Err(self.truncated(field, len));
        }
        let end = self.position + len as usize;
        let taken = &self.bytes[self.position..end];
        self.position = end;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self, field: &str) -> Result<[u8; N], WeightsError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64, field)?);
        Ok(array)
    }

    pub(super) fn u32(&mut self, field: &str) -> Result<u32, WeightsError> {
        self.array(field).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, field: &str) -> Result<u64, WeightsError> {
        self.array(field).map(u64::from_le_bytes)
    }

    /// A count, length or dimension: as wide as the version has it.
    pub(super) fn size(&mut self, field: &str) -> Result<u64, WeightsError> {
        if self.wide { self.u64(field) } else { self.u32(field).map(u64::from) }
    }

    /// Bytes of a count, length or dimension.
    pub(super) fn size_width(&self) -> u64 {
        if self.wide { 8 } else { 4 }
    }

    /// A count of records of at least `min_bytes` each, refused when the rest of the file can't hold them: so nothing is
    /// ever allocated for a number that was made up.
    pub(super) fn count(&mut self, min_bytes: u64, field: &str) -> Result<usize, WeightsError> {
        let count = self.size(field)?;
        self.check_count(count, min_bytes, field)
    }

    pub(super) fn check_count(&self, count: u64, min_bytes: u64, field: &str) -> Result<usize, WeightsError> {
        let most = self.remaining() / min_bytes;
        if count > most {
            let expected = format!("at most {most}, since {} bytes are left", self.remaining());
            return Err(WeightsError::bad(self.file, field, count, expected));
        }
        Ok(count as usize)
    }

    pub(super) fn string(&mut self, field: &str) -> Result<String, WeightsError> {
        let bytes = self.counted(field)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(error) => Err(self.not_utf8(field, error)),
        }
    }

    fn texts(&mut self, count: usize, field: &str) -> Result<Texts, WeightsError> {
        let mut bytes = Vec::new();
        let mut ends = Vec::new();
        for _ in 0..count {
            bytes.extend_from_slice(self.counted(field)?);
            ends.push(bytes.len());
        }
        Texts::from_bytes(bytes, ends)
            .map_err(|(index, error)| self.not_utf8(&format!("string {index} of {field}"), error))
    }

    /// As many bytes as the length before them says.
    fn counted(&mut self, field: &str) -> Result<&'a [u8], WeightsError> {
        let len = self.size(field)?;
        self.take(len, field)
    }

    fn not_utf8(&self, field: &str, error: Utf8Error) -> WeightsError {
        WeightsError::bad(self.file, field, format!("not UTF-8 ({error})"), "UTF-8 text")
    }

    fn bool(&mut self, field: &str) -> Result<bool, WeightsError> {
        match self.array(field)? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(WeightsError::bad(self.file, field, other, "a bool, 0 or 1")),
        }
    }

    pub(super) fn value_type(&mut self, field: &str) -> Result<ValueType, WeightsError> {
        let number = self.u32(field)?;
        ValueType::from_number(number)
            .ok_or_else(|| WeightsError::bad(self.file, field, number, "a value type, 0 to 12"))
    }

    pub(super) fn value(&mut self, kind: ValueType, field: &str) -> Result<Value, WeightsError> {
        Ok(match kind {
            ValueType::U8 => Value::U8(u8::from_le_bytes(self.array(field)?)),
            ValueType::I8 => Value::I8(i8::from_le_bytes(self.array(field)?)),
            ValueType::U16 => Value::U16(u16::from_le_bytes(self.array(field)?)),
            ValueType::I16 => Value::I16(i16::from_le_bytes(self.array(field)?)),
            ValueType::U32 => Value::U32(self.u32(field)?),
            ValueType::I32 => Value::I32(i32::from_le_bytes(self.array(field)?)),
            ValueType::F32 => Value::F32(f32::from_le_bytes(self.array(field)?)),
            ValueType::Bool => Value::Bool(self.bool(field)?),
            ValueType::Str => Value::Str(self.string(field)?),
            ValueType::Array => Value::Array(self.array_value(field, 0)?),
            ValueType::U64 => Value::U64(self.u64(field)?),
            ValueType::I64 => Value::I64(i64::from_le_bytes(self.array(field)?)),
            ValueType::F64 => Value::F64(f64::from_le_bytes(self.array(field)?)),
        })
    }

    fn array_value(&mut self, field: &str, depth: usize) -> Result<Array, WeightsError> {
        if depth == MAX_DEPTH {
            return Err(WeightsError::bad(
                self.file,
                field,
                "nested deeper",
                format!("{MAX_DEPTH} levels of arrays"),
            ));
        }
        let kind = self.value_type(&format!("element type of {field}"))?;
        let min_bytes = match kind {
            ValueType::Str => self.size_width(),
            ValueType::Array => 4 + self.size_width(),
            scalar => scalar.scalar_bytes(),
        };
        let count = self.count(min_bytes, &format!("length of {field}"))?;
        Ok(match kind {
            ValueType::U8 => Array::U8(self.numbers(count, field, u8::from_le_bytes)?),
            ValueType::I8 => Array::I8(self.numbers(count, field, i8::from_le_bytes)?),
            ValueType::U16 => Array::U16(self.numbers(count, field, u16::from_le_bytes)?),
            ValueType::I16 => Array::I16(self.numbers(count, field, i16::from_le_bytes)?),
            ValueType::U32 => Array::U32(self.numbers(count, field, u32::from_le_bytes)?),
            ValueType::I32 => Array::I32(self.numbers(count, field, i32::from_le_bytes)?),
            ValueType::F32 => Array::F32(self.numbers(count, field, f32::from_le_bytes)?),
            ValueType::U64 => Array::U64(self.numbers(count, field, u64::from_le_bytes)?),
            ValueType::I64 => Array::I64(self.numbers(count, field, i64::from_le_bytes)?),
            ValueType::F64 => Array::F64(self.numbers(count, field, f64::from_le_bytes)?),
            ValueType::Bool => Array::Bool((0..count).map(|_| self.bool(field)).collect::<Result<_, _>>()?),
            ValueType::Str => Array::Str(self.texts(count, field)?),
            ValueType::Array => Array::Array(
                (0..count).map(|_| self.array_value(field, depth + 1)).collect::<Result<_, _>>()?,
            ),
        })
    }

    fn numbers<T, const N: usize>(
        &mut self,
        count: usize,
        field: &str,
        from: fn([u8; N]) -> T,
    ) -> Result<Vec<T>, WeightsError> {
        // `count` elements of N bytes were found to fit what is left, so the product doesn't overflow.
        let bytes = self.take((count * N) as u64, field)?;
        Ok(bytes.as_chunks::<N>().0.iter().map(|&chunk| from(chunk)).collect())
    }
}
