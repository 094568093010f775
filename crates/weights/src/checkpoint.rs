//! [`Checkpoint`]: the files of a model and the directory of their tensors.

use std::collections::HashMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::directory::{Entry, Stored};
use crate::mmap::{MemoryBytes, Source};
use crate::shards::ShardIndex;
use crate::{Format, WeightsError, gguf, safetensors};

/// Name of the single weight file of a Hugging Face folder.
const SINGLE: &str = "model.safetensors";
/// Name of the index of a sharded one.
const INDEX: &str = "model.safetensors.index.json";

/// One tensor: its name, number format, shape and bytes, none of them copied.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TensorView<'a> {
    /// Name in the file.
    pub name: &'a str,
    /// How each weight is stored.
    pub format: Format,
    /// Outermost dimension first (GGUF's are reversed to that); empty for a scalar.
    pub shape: &'a [usize],
    /// The weights, row by row. Not aligned to anything: safetensors data begin where the header ends.
    pub bytes: &'a [u8],
}

impl TensorView<'_> {
    /// Number of weights.
    pub fn weights(&self) -> usize {
        self.shape.iter().product()
    }
}

/// A model's weight files, mapped read-only, with one directory over all of them.
///
/// Opening reads and checks the headers; the weights are paged in when touched. The files must not be rewritten in
/// place while a checkpoint is open (replacing them by rename is fine).
#[derive(Debug)]
pub struct Checkpoint {
    sources: Vec<Source>,
    tensors: Vec<(usize, Entry)>, // (index into sources, entry), in file order
    by_name: HashMap<String, usize>,
    gguf: Option<gguf::Header>,
}

impl Checkpoint {
    /// A Hugging Face folder, a `.safetensors` file or a `.gguf` file, told apart by what is there.
    ///
    /// # Errors
    /// As [`Checkpoint::open_hf`], [`Checkpoint::open_gguf`], [`Checkpoint::open_safetensors`].
    pub fn open(path: impl AsRef<Path>) -> Result<Checkpoint, WeightsError> {
        let path = path.as_ref();
        if path.is_dir() {
            return Checkpoint::open_hf(path);
        }
        let source = Source::map(path)?;
        if source.bytes().starts_with(&gguf::MAGIC) || path.extension().is_none_or(|ext| ext != "safetensors")
        {
            Checkpoint::gguf_source(source)
        } else {
            Checkpoint::safetensors_sources(vec![source])
        }
    }

    /// A Hugging Face folder: `model.safetensors`, or the shards that `model.safetensors.index.json` lists.
    ///
    /// # Errors
    /// [`WeightsError`] naming the file, tensor and field that is missing or wrong.
    pub fn open_hf(dir: impl AsRef<Path>) -> Result<Checkpoint, WeightsError> {
        let dir = dir.as_ref();
        let single = dir.join(SINGLE);
        if single.is_file() {
            return Checkpoint::open_safetensors(single);
        }
        let index = dir.join(INDEX);
        if index.is_file() {
            return Checkpoint::open_sharded(dir, &index);
        }
        Err(WeightsError::NotACheckpoint { file: dir.display().to_string(), why: why_no_weights(dir) })
    }

    fn open_sharded(dir: &Path, index: &Path) -> Result<Checkpoint, WeightsError> {
        let index = ShardIndex::read(index)?;
        let shards: Vec<&str> = index.shards().collect();
        let sources = shards.iter().map(|shard| Source::map(&dir.join(shard))).collect::<Result<_, _>>()?;
        let checkpoint = Checkpoint::safetensors_sources(sources)?;
        index.check(|tensor| checkpoint.by_name.get(tensor).map(|&at| shards[checkpoint.tensors[at].0]))?;
        Ok(checkpoint)
    }

    /// One safetensors file.
    ///
    /// # Errors
    /// [`WeightsError`] naming the file, tensor and field that is wrong.
    pub fn open_safetensors(path: impl AsRef<Path>) -> Result<Checkpoint, WeightsError> {
        Checkpoint::safetensors_sources(vec![Source::map(path.as_ref())?])
    }

    /// One GGUF file, version 1, 2 or 3.
    ///
    /// # Errors
    /// [`WeightsError`] naming the file, tensor and field that is wrong.
    pub fn open_gguf(path: impl AsRef<Path>) -> Result<Checkpoint, WeightsError> {
        Checkpoint::gguf_source(Source::map(path.as_ref())?)
    }

    /// A GGUF file in memory. Errors call it `GGUF in memory`.
    ///
    /// # Errors
    /// As [`Checkpoint::open_gguf`].
    pub fn from_gguf_bytes(bytes: impl Into<MemoryBytes>) -> Result<Checkpoint, WeightsError> {
        Checkpoint::gguf_source(Source::memory("GGUF in memory", bytes.into()))
    }

    /// A safetensors file in memory. Errors call it `safetensors in memory`.
    ///
    /// # Errors
    /// As [`Checkpoint::open_safetensors`].
    pub fn from_safetensors_bytes(bytes: impl Into<MemoryBytes>) -> Result<Checkpoint, WeightsError> {
        Checkpoint::safetensors_sources(vec![Source::memory("safetensors in memory", bytes.into())])
    }

    fn gguf_source(source: Source) -> Result<Checkpoint, WeightsError> {
        let header = gguf::Header::parse(&source.name, source.bytes())?;
        refuse_split(&source.name, &header.metadata)?;
        let entries = header.entries(&source.name, source.bytes().len())?;
        Checkpoint::assemble(vec![(source, entries)], Some(header))
    }

    fn safetensors_sources(sources: Vec<Source>) -> Result<Checkpoint, WeightsError> {
        let mut files = Vec::with_capacity(sources.len());
        for source in sources {
            let entries = safetensors::read_directory(&source.name, source.bytes())?;
            files.push((source, entries));
        }
        Checkpoint::assemble(files, None)
    }

    fn assemble(
        files: Vec<(Source, Vec<Entry>)>,
        gguf: Option<gguf::Header>,
    ) -> Result<Checkpoint, WeightsError> {
        let mut checkpoint =
            Checkpoint { sources: Vec::new(), tensors: Vec::new(), by_name: HashMap::new(), gguf };
        for (source, entries) in files {
            for entry in entries {
                if checkpoint.by_name.insert(entry.name.clone(), checkpoint.tensors.len()).is_some() {
                    return Err(WeightsError::Duplicate {
                        file: source.name,
                        what: "tensor",
                        name: entry.name,
                    });
                }
                checkpoint.tensors.push((checkpoint.sources.len(), entry));
            }
            checkpoint.sources.push(source);
        }
        Ok(checkpoint)
    }

    /// The tensor of that name, `None` when there is none.
    ///
    /// # Errors
    /// [`WeightsError::UnsupportedFormat`] when it is there, in a format this crate can't decode.
    pub fn find(&self, name: &str) -> Result<Option<TensorView<'_>>, WeightsError> {
        let Some(&at) = self.by_name.get(name) else { return Ok(None) };
        let (source, entry) = &self.tensors[at];
        match &entry.stored {
            Stored::Known(format) => Ok(Some(self.view(*source, entry, *format))),
            Stored::Other(found) => Err(WeightsError::UnsupportedFormat {
                file: self.sources[*source].name.clone(),
                tensor: name.to_owned(),
                found: found.clone(),
            }),
        }
    }

    /// The tensor of that name.
    ///
    /// # Errors
    /// [`WeightsError::MissingTensor`], [`WeightsError::UnsupportedFormat`].
    pub fn require(&self, name: &str) -> Result<TensorView<'_>, WeightsError> {
        self.find(name)?
            .ok_or_else(|| WeightsError::MissingTensor { file: self.name(), tensor: name.to_owned() })
    }

    /// The tensor of that name if it is there in a format this crate decodes. [`Checkpoint::find`] tells the two
    /// absences apart.
    pub fn tensor(&self, name: &str) -> Option<TensorView<'_>> {
        self.find(name).ok().flatten()
    }

    /// Where the tensor of that name is, for [`tensor_at`](Self::tensor_at): a name costs a hash each time.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// The tensor at [`position`](Self::position), in a format this crate decodes.
    pub fn tensor_at(&self, position: usize) -> Option<TensorView<'_>> {
        let (source, entry) = self.tensors.get(position)?;
        match entry.stored {
            Stored::Known(format) => Some(self.view(*source, entry, format)),
            Stored::Other(_) => None,
        }
    }

    /// Lets go of the memory that reading this tensor took: call it when the bytes have been copied elsewhere and are
    /// not needed soon. They stay readable, from disk. Does nothing for bytes that are not mapped.
    pub fn release(&self, name: &str) {
        self.release_part(name, 0..usize::MAX);
    }

    /// The same for bytes `part` of the tensor, as far as it has them. Pages that it shares with other bytes stay.
    pub fn release_part(&self, name: &str, part: Range<usize>) {
        if let Some(&at) = self.by_name.get(name) {
            let (source, entry) = &self.tensors[at];
            let end = entry.range.start.saturating_add(part.end).min(entry.range.end);
            self.sources[*source].release(entry.range.start.saturating_add(part.start).min(end)..end);
        }
    }

    /// The readable tensors, in file order.
    pub fn tensors(&self) -> impl Iterator<Item = TensorView<'_>> {
        self.tensors.iter().filter_map(|(source, entry)| match entry.stored {
            Stored::Known(format) => Some(self.view(*source, entry, format)),
            Stored::Other(_) => None,
        })
    }

    /// Names and types of the tensors in formats this crate can't decode, in file order.
    pub fn unsupported(&self) -> impl Iterator<Item = (&str, &str)> {
        self.tensors.iter().filter_map(|(_, entry)| match &entry.stored {
            Stored::Known(_) => None,
            Stored::Other(found) => Some((entry.name.as_str(), found.as_str())),
        })
    }

    /// The header, of a checkpoint that is a GGUF file.
    pub fn gguf(&self) -> Option<&gguf::Header> {
        self.gguf.as_ref()
    }

    /// Name and size in bytes of each file, in reading order.
    pub fn files(&self) -> impl Iterator<Item = (&str, u64)> {
        self.sources.iter().map(|source| (source.name.as_str(), source.bytes().len() as u64))
    }

    fn view<'a>(&'a self, source: usize, entry: &'a Entry, format: Format) -> TensorView<'a> {
        // The range was checked against this source when it was opened, and a source never changes its length.
        let bytes = &self.sources[source].bytes()[entry.range.clone()];
        TensorView { name: &entry.name, format, shape: &entry.shape, bytes }
    }

    fn name(&self) -> String {
        match self.sources.as_slice() {
            [] => "checkpoint without files".to_owned(),
            [one] => one.name.clone(),
            [first, .., last] => format!("{} … {}", first.name, last.name),
        }
    }
}

/// Files of a split GGUF would each open as a model with most tensors missing.
fn refuse_split(file: &str, metadata: &gguf::Metadata) -> Result<(), WeightsError> {
    match metadata.optional::<u64>("split.count")? {
        Some(count) if count > 1 => Err(WeightsError::NotACheckpoint {
            file: file.to_owned(),
            why: format!("one of {count} parts of a split GGUF; join them first (llama-gguf-split --merge)"),
        }),
        _ => Ok(()),
    }
}

/// Says what a folder without safetensors holds instead.
fn why_no_weights(dir: &Path) -> String {
    let wanted = format!("neither {SINGLE} nor {INDEX}");
    let names: Vec<PathBuf> =
        std::fs::read_dir(dir).map(|dir| dir.flatten().map(|e| e.path()).collect()).unwrap_or_default();
    let with = |ext: &str| names.iter().find(|path| path.extension().is_some_and(|e| e == ext));
    let dangling = names.iter().find(|path| path.is_symlink() && !path.exists());
    if !dir.is_dir() {
        "no such folder".to_owned()
    } else if let Some(link) = dangling {
        format!(
            "{wanted} in this folder; {} links to a file that is not there: download it again",
            link.display()
        )
    } else if let Some(gguf) = with("gguf") {
        format!("{wanted} in this folder; to open the GGUF file name it: {}", gguf.display())
    } else if let Some(other) = with("safetensors") {
        format!("{wanted} in this folder; rename {} or name the file itself", other.display())
    } else if with("bin").is_some() || with("pt").is_some() || with("pth").is_some() {
        format!("{wanted} in this folder; PyTorch pickles are not read, convert them to safetensors")
    } else {
        format!("{wanted} in this folder")
    }
}
