//! What can go wrong in this crate.

use roofline_weights::Format;

use crate::isa::Isa;

/// An error of the kernels. Each message names the offender and the way out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// A team of no threads was asked for.
    #[error("a thread team needs at least one thread, 0 were asked for")]
    NoThreads,
    /// The system refused a thread.
    #[error("could not start worker thread {worker} of {threads}: {source}; ask for fewer threads")]
    ThreadSpawn {
        /// Number of the worker that did not start, the calling thread being 0.
        worker: usize,
        /// Threads asked for.
        threads: usize,
        /// What the system said.
        source: std::io::Error,
    },
    /// An instruction set that this machine lacks was asked for.
    #[error("instruction set `{requested}` is not on this machine, which has {}", Isa::list_available())]
    IsaUnavailable {
        /// What was asked for.
        requested: Isa,
    },
    /// A name that is no instruction set.
    #[error("no instruction set is called `{name}`; this machine has {}", Isa::list_available())]
    IsaUnknown {
        /// The name given.
        name: String,
    },
    /// Rows of a quantized matrix must fill whole blocks.
    #[error("a row of {cols} weights does not fill {format} blocks of {}", .format.block_len())]
    PartialBlock {
        /// Format of the matrix.
        format: Format,
        /// Weights per row.
        cols: usize,
    },
    /// The bytes of one matrix row have the wrong length.
    #[error("row {row} of a {format} matrix has {got} bytes where {want} were expected")]
    RowBytes {
        /// Format of the matrix.
        format: Format,
        /// The row.
        row: usize,
        /// Bytes given.
        got: usize,
        /// Bytes that the shape asks for.
        want: usize,
    },
    /// A weight or a scale is NaN or infinite.
    #[error("the weights hold a NaN or an infinity at row {row}, in or near column {col}")]
    NotFinite {
        /// Row of the matrix.
        row: usize,
        /// First column of the offending block (the column itself for float formats).
        col: usize,
    },
    /// The same of a matrix that is packed as it is used.
    #[error(
        "tensor {name} holds a NaN or an infinity at row {row}, in or near column {col}; the checkpoint is damaged or was saved in a format too narrow for it"
    )]
    NotFiniteIn {
        /// What its file calls the matrix.
        name: String,
        /// Row of the matrix.
        row: usize,
        /// First column of the offending block (the column itself for float formats).
        col: usize,
    },
    /// No memory for the activations of a step.
    #[error("no memory for activations of {bytes} bytes; take fewer rows at a time")]
    ActivationMemory {
        /// Bytes that could not be had.
        bytes: u64,
    },
    /// No memory to pack groups of a mapped matrix in.
    #[error("no memory for {bytes} bytes to pack weights in on each of {threads} threads")]
    BandMemory {
        /// Bytes asked for, one thread.
        bytes: usize,
        /// Threads of the team.
        threads: usize,
    },
    /// A matrix does not fit the address space, or memory is short.
    #[error("no memory for a {rows} x {cols} {format} matrix")]
    TooLarge {
        /// Format of the matrix.
        format: Format,
        /// Output rows.
        rows: usize,
        /// Input columns.
        cols: usize,
    },
    /// Two shapes that must agree do not.
    #[error("{what}: {got} given, {want} expected")]
    Shape {
        /// What was measured.
        what: &'static str,
        /// What was given.
        got: usize,
        /// What the other operands ask for.
        want: usize,
    },
    /// The activations were not prepared for the format of a matrix that is to be multiplied.
    #[error("the activations were not prepared for {format} weights; name that format in `Activations::set`")]
    NotPrepared {
        /// Format of the matrix.
        format: Format,
    },
    /// Pages have a power of two of slots.
    #[error("a KV page of {slots} slots; a power of two from 16 to 256 is needed")]
    PageSlots {
        /// Slots asked for.
        slots: usize,
    },
    /// A head too wide for the attention kernels, or of no width.
    #[error("head_dim {head_dim} is not within 1..={}", crate::kv_page::PageLayout::MAX_HEAD_DIM)]
    HeadDim {
        /// Channels asked for.
        head_dim: usize,
    },
    /// Keys and values must fill the blocks of their format.
    #[error(
        "head_dim {head_dim} does not fill the blocks of 32 channels of the KV format {format}; i8 takes any"
    )]
    PartialKvBlock {
        /// Format of the keys or the values.
        format: crate::kv_page::KvFormat,
        /// Channels of a head.
        head_dim: usize,
    },
    /// A page that cannot be sealed.
    #[error(
        "a KV page of {slots} slots of {head_dim} channels cannot be sealed as {format}, which takes 32 slots at least \
         and 65536 numbers at most; use another page or i8"
    )]
    SealedPage {
        /// Format of the keys or the values.
        format: crate::kv_page::KvFormat,
        /// Slots of the page.
        slots: usize,
        /// Channels of a head.
        head_dim: usize,
    },
    /// Query heads must share KV heads evenly.
    #[error("{n_heads} query heads do not divide into {n_kv_heads} KV heads")]
    HeadGroups {
        /// Query heads.
        n_heads: usize,
        /// KV heads.
        n_kv_heads: usize,
    },
    /// A row is to see slots that its lane does not have.
    #[error("row {row} is to see {visible} slots of the lane of KV head {kv_head}, which holds {len}")]
    NotInLane {
        /// The row.
        row: usize,
        /// The KV head.
        kv_head: usize,
        /// Slots that the row is to see.
        visible: usize,
        /// Slots that the lane holds (or its pages can hold, if that is fewer).
        len: usize,
    },
    /// A band whose numbers are not in order.
    #[error(
        "row {row} is to see the slots 0..{} and {}..{} of KV head {kv_head}; a band needs sinks <= from <= to",
        .band.sinks, .band.from, .band.to
    )]
    BandOrder {
        /// The row.
        row: usize,
        /// The KV head.
        kv_head: usize,
        /// What it is to see.
        band: crate::attention::Band,
    },
    /// A call larger than the scratch was made for.
    #[error("the scratch was made for {what} up to {capacity}, not for {got}")]
    ScratchTooSmall {
        /// What was measured.
        what: &'static str,
        /// What the call asks for.
        got: usize,
        /// What the scratch was made for.
        capacity: usize,
    },
}
