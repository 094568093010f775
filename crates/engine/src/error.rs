//! What the engine can refuse or fail at.

use crate::cache::{CacheError, CacheSpecError};
use roofline_kernels::KernelError;
use roofline_model::tensor_plan::Role;

/// Errors of loading and of running a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// A file that does not hold what it should.
    #[error(transparent)]
    Weights(#[from] roofline_weights::WeightsError),
    /// A configuration, tokenizer or template that is not usable.
    #[error(transparent)]
    Model(#[from] roofline_model::ModelError),
    /// A tokenizer that is not usable, or that does not know an id.
    #[error(transparent)]
    Tokenizer(#[from] roofline_model::tokenizer::TokenizerError),
    /// A chat template that does not read or render.
    #[error(transparent)]
    Template(#[from] roofline_model::chat_template::TemplateError),
    /// A sampling option out of range, or logits that are no numbers.
    #[error(transparent)]
    Sampling(#[from] crate::sampling::SamplingError),
    /// A checkpoint that does not hold the tensors its configuration implies.
    #[error(transparent)]
    Plan(#[from] roofline_model::tensor_plan::PlanMismatch),
    /// A kernel refused.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The KV cache refused.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A cache policy that does not parse.
    #[error(transparent)]
    CacheSpec(#[from] CacheSpecError),
    /// A tensor that a kernel could not pack.
    #[error("tensor {name} ({role:?}): {source}")]
    Tensor {
        /// Name in the checkpoint.
        name: String,
        /// What it is for.
        role: Role,
        /// What the kernel said.
        source: KernelError,
    },
    /// A role without a tensor: the plan and the loader disagree, which is a defect of this program.
    #[error("no tensor is planned for {role:?}; please report this with the config.json of the model")]
    NotPlanned {
        /// The role.
        role: Role,
    },
    /// A vector with a value that is no number.
    #[error(
        "tensor {name} has a {value} at index {index}; the checkpoint is damaged or was saved in a format too narrow for it"
    )]
    NotFinite {
        /// Name in the checkpoint.
        name: String,
        /// NaN or infinity.
        value: f32,
        /// Which element.
        index: usize,
    },
    /// A path that is no model.
    #[error("{path}: {why}; a model is `demo`, a Hugging Face folder with config.json, or a .gguf file")]
    NotAModel {
        /// What was given.
        path: String,
        /// What is the matter with it.
        why: String,
    },
    /// No memory for a buffer.
    #[error(
        "no memory for {bytes} bytes of {what}; use a smaller model, a shorter context or a smaller chunk"
    )]
    Memory {
        /// Which buffer.
        what: &'static str,
        /// Its size.
        bytes: u64,
    },
    /// A token id the vocabulary does not have.
    #[error("token id {id} at position {index} is outside the vocabulary of {vocab_size}")]
    TokenId {
        /// The id.
        id: u32,
        /// Its index among the ids given.
        index: usize,
        /// Rows of the embedding table.
        vocab_size: usize,
    },
    /// No token to start from.
    #[error("the prompt is empty: give at least one token")]
    EmptyPrompt,
    /// More tokens than the context takes.
    #[error(
        "{wanted} tokens after the {seen} already seen exceed the context of {context}; shorten the prompt{}",
        if context < limit { format!(" or raise --context (the model takes {limit})") } else { String::new() }
    )]
    Context {
        /// Tokens in the cache.
        seen: usize,
        /// Tokens given.
        wanted: usize,
        /// Tokens this session takes.
        context: usize,
        /// Tokens the model takes.
        limit: usize,
    },
    /// A session context of nothing, or beyond the model.
    #[error("a context of {context} tokens is not possible: the model takes 1 to {limit}")]
    ContextOption {
        /// What was asked for.
        context: usize,
        /// Tokens the model takes.
        limit: usize,
    },
    /// An option that makes no sense.
    #[error("{option} {value} is not possible: {why}")]
    Option {
        /// Its name.
        option: &'static str,
        /// What was given.
        value: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Logits were asked for before a token was seen.
    #[error("there are no logits yet: prefill a prompt first (a rollback forgets them too)")]
    NoLogits,
    /// The model produced a value that is no number.
    #[error(
        "the logits after {seen} tokens hold a value that is not finite; the weights or the arithmetic overflow"
    )]
    LogitsNotFinite {
        /// Tokens seen.
        seen: usize,
    },
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
}
