//! What a benchmark refuses before anything runs.

use roofline_engine::CacheSpec;

/// Settings that no run can honour.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BenchError {
    /// A count outside of its range.
    #[error("{what} {given} is not between {least} and {most}")]
    Count {
        /// Which setting.
        what: &'static str,
        /// What was given.
        given: usize,
        /// Smallest that makes sense.
        least: usize,
        /// Largest that makes sense.
        most: usize,
    },
    /// A list with nothing in it.
    #[error("nothing to measure: give at least one {what}")]
    Nothing {
        /// What is missing.
        what: &'static str,
    },
    /// A test that ends past the model's context.
    #[error("{test} at depth {depth} needs {wanted} tokens of context; {model} takes {limit}")]
    Context {
        /// The model.
        model: String,
        /// As `pp512`.
        test: String,
        /// Tokens before it.
        depth: usize,
        /// Tokens at its end.
        wanted: usize,
        /// The model's context.
        limit: usize,
    },
    /// A test that does not fit a fixed cache, or a cache that does not fit the context.
    #[error("--cache {cache} takes {capacity} tokens: {why}")]
    Capacity {
        /// The cache.
        cache: CacheSpec,
        /// Its tokens.
        capacity: usize,
        /// What does not fit.
        why: String,
    },
    /// More rows than anybody reads.
    #[error("{rows} rows are asked for; at most {most} run at once: measure fewer combinations")]
    Rows {
        /// Rows that the lists multiply to.
        rows: usize,
        /// Most that are run.
        most: usize,
    },
    /// Everything together exceeds the memory there is.
    #[error(
        "weights and caches of all rows take {wanted} bytes, {available} are available: measure fewer at once"
    )]
    Memory {
        /// Bytes of weights and caches.
        wanted: u64,
        /// Bytes free.
        available: u64,
    },
}
