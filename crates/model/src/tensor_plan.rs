//! [`TensorPlan`]: every tensor a configuration implies, by role, with the names it has in a checkpoint.
//!
//! The plan drives loading (which bytes become which matrix) and limits (how many weights a token touches).

/// What a tensor is for. Matrices are (rows = outputs, cols = inputs).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)] // the shapes say it
pub enum Role {
    /// (vocab_size, hidden_size)
    TokenEmbedding,
    /// (hidden_size)
    FinalNorm,
    /// (hidden_size)
    FinalNormBias,
    /// (vocab_size, hidden_size); absent when the embeddings are tied.
    OutputHead,
    /// (rotary_dim / 2)
    RopeFactors,
    /// One tensor of block `.0`.
    Layer(usize, LayerRole),
}

/// What a tensor of one block is for. q = n_heads·head_dim, kv = n_kv_heads·head_dim, ff = intermediate_size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)] // the shapes say it
pub enum LayerRole {
    AttentionNorm,     // (hidden)
    AttentionNormBias, // (hidden)
    Wq,                // (q, hidden)
    Wk,                // (kv, hidden)
    Wv,                // (kv, hidden)
    Bq,                // (q)
    Bk,                // (kv)
    Bv,                // (kv)
    QNorm,             // (head_dim) per head, (q) full width
    KNorm,             // (head_dim) per head, (kv) full width
    Wo,                // (hidden, q)
    Bo,                // (hidden)
    FfnNorm,           // (hidden)
    FfnNormBias,       // (hidden)
    Router,            // (n_experts, hidden)
    WGate,             // (ff, hidden)
    WUp,               // (ff, hidden)
    WDown,             // (hidden, ff)
    BUp,               // (ff)
    BDown,             // (hidden)
    ExpertGate(usize), // (ff, hidden)
    ExpertUp(usize),   // (ff, hidden)
    ExpertDown(usize), // (hidden, ff)
}

/// Which rows of a checkpoint tensor, seen as (product of the leading dimensions, last dimension), form the planned
/// one. Covers fused and stacked tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    /// The whole tensor.
    All,
    /// `count` runs of `run` rows, the first at `start`, `stride` rows apart.
    Runs {
        /// First row.
        start: usize,
        /// Rows taken at a time.
        run: usize,
        /// Rows from one run's start to the next.
        stride: usize,
        /// Number of runs.
        count: usize,
    },
}

/// One place where a planned tensor may be found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Name in the checkpoint.
    pub name: String,
    /// Shape it must have there, outermost dimension first.
    pub shape: Vec<usize>,
    /// The rows that are ours.
    pub rows: Rows,
}

/// One tensor the model needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedTensor {
    /// What it is for.
    pub role: Role,
    /// (rows, cols) of a matrix, (len) of a vector.
    pub shape: Vec<usize>,
    /// Where to look, the usual place first; the first name present in the checkpoint counts.
    pub sources: Vec<Source>,
}

/// All tensors of a model, in the order a forward pass meets them, and the names that may be present and are unused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorPlan {
    /// What must be there.
    pub tensors: Vec<PlannedTensor>,
    /// Names (or suffixes, starting with a dot) that old checkpoints carry and no forward pass needs.
    pub ignored: Vec<String>,
}
