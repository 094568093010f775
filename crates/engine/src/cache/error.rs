//! What a cache can refuse.

use super::CacheSpec;

/// Errors of a cache in use.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CacheError {
    /// A fixed capacity is used up.
    #[error("the cache {spec} is full: {seen} tokens are in it, {wanted} more were to come")]
    Full {
        /// The policy that set the cap.
        spec: CacheSpec,
        /// Tokens in the cache.
        seen: usize,
        /// Tokens the step would have added.
        wanted: usize,
    },
    /// The allocator had no page left.
    #[error(
        "no memory for the KV cache: {committed} bytes are held and {wanted} more were asked for; use a shorter \
         context or a narrower --kv-type"
    )]
    Memory {
        /// Bytes held.
        committed: u64,
        /// Bytes asked for.
        wanted: u64,
    },
    /// More tokens were to be taken back than are there.
    #[error("cannot roll back {wanted} tokens: only {seen} were seen")]
    Rollback {
        /// Tokens in the cache.
        seen: usize,
        /// Tokens to take back.
        wanted: usize,
    },
    /// Tokens were to be taken back that the policy has made room for by evicting others.
    #[error(
        "cannot roll back {wanted} tokens: the cache {spec} has evicted what they saw, only the last {possible} can be taken \
         back; use --cache full"
    )]
    Evicted {
        /// The policy.
        spec: CacheSpec,
        /// Tokens to take back.
        wanted: usize,
        /// Tokens that could be.
        possible: usize,
    },
    /// Tokens were to be taken back out of a sealed page.
    #[error(
        "cannot roll back {wanted} tokens: the cache stores older ones as {formats}, in pages that cannot be opened \
         again, only the last {possible} can be taken back; use --kv-type f16 or i8"
    )]
    Sealed {
        /// Storage formats.
        formats: String,
        /// Tokens to take back.
        wanted: usize,
        /// Tokens that could be.
        possible: usize,
    },
    /// A budget that is a share or bytes came out too small for this prompt.
    #[error(
        "the cache {spec} leaves {tokens} tokens per lane of a prompt of {len}: it needs at least {least}; raise the budget"
    )]
    Budget {
        /// The policy.
        spec: CacheSpec,
        /// Tokens per lane that the budget comes to.
        tokens: usize,
        /// Tokens in the lane.
        len: usize,
        /// Least that the policy can work with.
        least: usize,
    },
}
