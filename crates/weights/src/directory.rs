//! What the readers of both file kinds produce: one [`Entry`] per tensor, every range checked against its file.

use std::ops::Range;

use crate::Format;

/// How a tensor is stored: in a format this crate decodes, or in another, by its name in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stored {
    Known(Format),
    Other(String),
}

/// One tensor of a file. `range` lies inside the file; for [`Stored::Other`] its length is what the directory says or
/// zero where that cannot be known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) stored: Stored,
    pub(crate) shape: Vec<usize>, // outermost first
    pub(crate) range: Range<usize>,
}
