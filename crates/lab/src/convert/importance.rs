//! llama.cpp's importance matrices: for each weight matrix the mean square of the activations that meet its columns.
//!
//! Two containers hold them. The older (`.dat`): i32 count of entries; per entry i32 length and name, i32 calls, i32 count and f32
//! sums; then, unless the file is older still, i32 chunks, i32 length and name of the text. The newer is a GGUF with
//! `general.type` = `imatrix` and two F32 tensors per entry, `NAME.in_sum2` (n, columns) and `NAME.counts` (n, 1), n the experts of
//! a stacked tensor and 1 otherwise.

use std::collections::HashMap;
use std::path::Path;

use roofline_weights::{Checkpoint, Format, blocks, gguf};

use super::error::ConvertError;

/// Mean squares by tensor name.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Importance {
    /// As given, for errors and metadata.
    pub file: String,
    /// Texts it was computed on.
    pub datasets: Vec<String>,
    /// Chunks of text it was computed on, where the file says.
    pub chunks: Option<u64>,
    entries: HashMap<String, Vec<f32>>, // (matrices · columns)
}

impl Importance {
    /// Reads either container.
    pub fn read(path: &Path) -> Result<Importance, ConvertError> {
        let bytes = std::fs::read(path).map_err(|source| ConvertError::File {
            action: "read",
            path: path.to_path_buf(),
            source,
        })?;
        let file = path.display().to_string();
        if bytes.starts_with(&gguf::MAGIC) {
            from_gguf(&file, &Checkpoint::open_gguf(path)?)
        } else {
            from_legacy(&file, &bytes)
        }
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The means for `tensor`, one row of `columns` for each of `matrices`; `None` when the file has no entry.
    pub fn of(
        &self,
        tensor: &str,
        matrices: usize,
        columns: usize,
    ) -> Result<Option<Vec<&[f32]>>, ConvertError> {
        let Some(values) = self.entries.get(tensor) else { return Ok(None) };
        if values.len() == matrices * columns {
            return Ok(Some(values.chunks_exact(columns).collect()));
        }
        Err(ConvertError::ImportanceSize {
            file: self.file.clone(),
            tensor: tensor.to_owned(),
            found: values.len(),
            wanted: format!("{columns} columns in each of {matrices} matrices"),
        })
    }

    fn insert(&mut self, name: &str, means: Vec<f32>) -> Result<(), ConvertError> {
        if let Some(bad) = means.iter().find(|mean| !(mean.is_finite() && **mean >= 0.0)) {
            return Err(wrong(
                &self.file,
                format!("the entry of {name:?} holds {bad}, a mean of squares cannot"),
            ));
        }
        match self.entries.insert(name.to_owned(), means) {
            None => Ok(()),
            Some(_) => Err(wrong(&self.file, format!("the entry of {name:?} occurs twice"))),
        }
    }
}

fn wrong(file: &str, why: impl Into<String>) -> ConvertError {
    ConvertError::Importance { file: file.to_owned(), why: why.into() }
}

fn from_gguf(file: &str, checkpoint: &Checkpoint) -> Result<Importance, ConvertError> {
    let Some(header) = checkpoint.gguf() else { return Err(wrong(file, "not a GGUF")) };
    let metadata = &header.metadata;
    match metadata.optional::<&str>("general.type")? {
        Some("imatrix") => {}
        found => return Err(wrong(file, format!("general.type is {found:?}, not \"imatrix\""))),
    }
    let datasets = metadata.optional::<&gguf::Texts>("imatrix.datasets")?;
    let datasets = datasets.into_iter().flat_map(gguf::Texts::iter).map(str::to_owned).collect();
    let chunks = metadata.optional("imatrix.chunk_count")?;
    let mut importance = Importance { file: file.to_owned(), datasets, chunks, entries: HashMap::new() };
    for sums in checkpoint.tensors() {
        let Some(name) = sums.name.strip_suffix(".in_sum2") else { continue };
        let counts = checkpoint.require(&format!("{name}.counts"))?;
        let (values, counts) = (decoded(file, &sums)?, decoded(file, &counts)?);
        let columns = match counts.len() {
            0 => 0,
            n if values.len().is_multiple_of(n) => values.len() / n,
            _ => 0,
        };
        if columns == 0 {
            let why = format!("the entry of {name:?} has {} sums and {} counts", values.len(), counts.len());
            return Err(wrong(file, why));
        }
        // An expert that no token visited counts all its columns alike, as in llama.cpp.
        let means = values.chunks_exact(columns).zip(&counts).flat_map(|(sums, count)| {
            sums.iter().map(move |sum| if *count > 0.0 { sum / count } else { 1.0 })
        });
        importance.insert(name, means.collect())?;
    }
    match importance.len() {
        0 => Err(wrong(file, "it has no entry NAME.in_sum2")),
        _ => Ok(importance),
    }
}

fn decoded(file: &str, view: &roofline_weights::TensorView<'_>) -> Result<Vec<f32>, ConvertError> {
    if view.format != Format::F32 {
        return Err(wrong(file, format!("tensor {:?} is {}, not f32", view.name, view.format)));
    }
    let mut values = vec![0.0; view.weights()];
    blocks::decode(view.format, view.bytes, &mut values)?;
    Ok(values)
}

/// Takes numbers from the front of the bytes.
struct Cursor<'a> {
    file: &'a str,
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize, what: &str) -> Result<&'a [u8], ConvertError> {
        let Some((head, rest)) = self.rest.split_at_checked(length) else {
            let why = format!("{what} needs {length} bytes, {} are left", self.rest.len());
            return Err(wrong(self.file, why));
        };
        self.rest = rest;
        Ok(head)
    }

    fn i32(&mut self, what: &str) -> Result<i32, ConvertError> {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(self.take(4, what)?);
        Ok(i32::from_le_bytes(bytes))
    }

    fn size(&mut self, what: &str) -> Result<usize, ConvertError> {
        let size = self.i32(what)?;
        usize::try_from(size).map_err(|_| wrong(self.file, format!("{what} is {size}")))
    }

    fn text(&mut self, what: &str) -> Result<String, ConvertError> {
        let length = self.size(&format!("length of {what}"))?;
        let bytes = self.take(length, what)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| wrong(self.file, format!("{what} is not UTF-8")))
    }
}

fn from_legacy(file: &str, bytes: &[u8]) -> Result<Importance, ConvertError> {
    let mut cursor = Cursor { file, rest: bytes };
    let count = cursor.size("number of entries")?;
    if count == 0 {
        return Err(wrong(file, "it has no entries"));
    }
    let mut importance =
        Importance { file: file.to_owned(), datasets: Vec::new(), chunks: None, entries: HashMap::new() };
    for i in 0..count {
        let name = cursor.text(&format!("name of entry {i}"))?;
        let calls = cursor.i32(&format!("calls of {name:?}"))?;
        let length = cursor.size(&format!("number of values of {name:?}"))?;
        if length == 0 {
            return Err(wrong(file, format!("the entry of {name:?} has no values")));
        }
        let bytes = cursor.take(length.saturating_mul(4), &format!("values of {name:?}"))?;
        let divisor = if calls > 0 { calls as f32 } else { 1.0 };
        let values = bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes) / divisor);
        importance.insert(&name, values.collect())?;
    }
    if !cursor.rest.is_empty() {
        importance.chunks = u64::try_from(cursor.i32("number of chunks")?).ok();
        if !cursor.rest.is_empty() {
            importance.datasets.push(cursor.text("name of the text")?);
        }
    }
    Ok(importance)
}
