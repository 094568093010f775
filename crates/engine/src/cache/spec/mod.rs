//! [`CacheSpec`]: a cache policy as a value with one text form, the same in every command, file and report.
//!
//! `name:key=value,key=value`; parameters left out have the defaults of the literature, and the text that is printed
//! names all of them. `A+quest:…` evicts by A and reads what remains by Quest.

mod check;
mod params;
mod text;

pub use check::Geometry;
pub use params::Budget;
pub use text::FORMS;

/// Which tokens the KV cache keeps, and which of them a decoded token reads.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum CacheSpec {
    /// Every token; pages are taken as the text grows.
    #[default]
    Full,
    /// Every token up to a capacity; all pages are reserved at the start, one token more is an error.
    Static {
        /// Tokens reserved, or the bytes of them.
        capacity: Budget,
    },
    /// Sinks and a window (StreamingLLM, Xiao et al. 2309.17453).
    Streaming(Streaming),
    /// A prompt is cut down to a budget when its last token is in; what is decoded afterwards stays.
    Compress(Compress),
    /// One token leaves for each that comes, once the budget is full (H2O, TOVA).
    Heavy(Heavy),
    /// Some heads keep everything, the others sinks and a window (DuoAttention, 2410.10819).
    Duo(Duo),
    /// Everything is kept; a decoded token reads the pages whose bounds promise most (Quest, 2406.10774).
    Quest(Quest),
    /// Eviction, and Quest on what remains.
    EvictThenQuest(Box<CacheSpec>, Quest),
}

// The parser lets no NaN in, and nothing else makes a policy unequal to itself.
impl Eq for CacheSpec {}

/// StreamingLLM. Evicts after the step, so that a query sees `sinks + window + 1` keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Streaming {
    /// First tokens, kept for good.
    pub sinks: usize,
    /// Last tokens kept.
    pub window: usize,
    /// Keys keep their true distance; otherwise the sinks lie right before the window, as in the paper.
    pub true_positions: bool,
}

/// Compression of a prompt: a score of each token, and a rule that makes budgets of lanes from the scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Compress {
    /// What a token is worth.
    pub scorer: Scorer,
    /// How the budget is split among lanes.
    pub split: Split,
    /// Tokens per lane, the window and the pinned prefix included.
    pub budget: Budget,
    /// Last tokens that always stay; for [`Scorer::Attention`] also the queries whose attention is the score.
    pub window: usize,
    /// First tokens that always stay.
    pub pinned: usize,
}

/// What a token of the prompt is worth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scorer {
    /// Attention that the last `window` queries give it, mean over the group, pooled over its neighbours (SnapKV,
    /// 2404.14469).
    Attention {
        /// Width of the pooling.
        kernel: usize,
        /// How neighbours are pooled.
        pool: Pool,
    },
    /// -‖k‖ (2406.11430).
    KeyNorm,
    /// -cos(k, mean of the normalized keys) (KeyDiff, 2504.15364).
    KeyDifference,
    /// Attention expected from queries of the next `future` positions, times ‖v‖ (ExpectedAttention, 2510.00636).
    Expected {
        /// Positions ahead.
        future: usize,
        /// Added to the probability before it is multiplied by ‖v‖.
        epsilon: f32,
    },
}

/// Pooling of scores over neighbouring positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pool {
    /// The mean; beyond the ends are zeros, which count.
    Average,
    /// The largest.
    Max,
}

/// How the budget of a layer is split among its lanes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Split {
    /// Every lane the same.
    Uniform,
    /// Less in deeper layers (PyramidKV, 2406.02069).
    Pyramid {
        /// How steep: the last layer gets about `budget / beta`.
        beta: usize,
    },
    /// Lanes of a layer compete (AdaKV, 2407.11550).
    Adaptive {
        /// Share of the budget that a lane gets in any case.
        alpha: f32,
    },
    /// Whole chunks of the positions, the same for all lanes of a layer (ChunkKV, 2502.00299).
    Chunks {
        /// Tokens of a chunk.
        chunk: usize,
    },
}

/// Policies that drop one token per decoded token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Heavy {
    /// Largest attention received from all queries so far, summed over the group, and the last tokens (H2O, 2306.14048).
    H2o {
        /// Heavy hitters kept.
        heavy: usize,
        /// Last tokens kept.
        recent: usize,
        /// First tokens that always stay.
        pinned: usize,
    },
    /// Largest attention from the last query, mean over all heads of the layer (TOVA, 2401.06104).
    Tova {
        /// Tokens kept.
        budget: Budget,
        /// First tokens that always stay.
        pinned: usize,
    },
}

/// DuoAttention with a pattern of gates, one per (layer, KV head).
#[derive(Debug, Clone, PartialEq)]
pub struct Duo {
    /// The file of gates: `n_layers` lines of `n_kv_heads` numbers between 0 and 1.
    pub pattern: String,
    /// A head whose gate is at least this keeps everything.
    pub threshold: f32,
    /// First tokens that the other heads keep.
    pub sinks: usize,
    /// Last tokens that the other heads keep.
    pub recent: usize,
}

/// Quest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quest {
    /// Tokens read per lane.
    pub budget: Budget,
    /// Tokens of a page, a power of two.
    pub page: usize,
    /// First layers that read everything.
    pub dense_layers: usize,
    /// Who chooses pages.
    pub select: Select,
}

/// Who chooses pages for Quest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Select {
    /// The query heads of a lane together: the largest bound over the group.
    Lane,
    /// Each query head for itself.
    Head,
}

/// What a cache of this policy can take back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rollback {
    /// Any tokens.
    Any,
    /// Tokens since the prompt that was compressed last.
    SincePrompt,
    /// Tokens only until it has evicted one that would be seen again.
    UntilEviction,
    /// None: what a token has added to the scores of others stays.
    Never,
}

impl Rollback {
    /// In words.
    pub fn describe(self) -> &'static str {
        match self {
            Rollback::Any => "any tokens can be taken back",
            Rollback::SincePrompt => "tokens can be taken back as far as the end of the last prompt",
            Rollback::UntilEviction => "tokens can be taken back only while nothing has been evicted",
            Rollback::Never => "no token can be taken back",
        }
    }
}

impl CacheSpec {
    /// `static` with room for `tokens`.
    pub fn fixed(tokens: usize) -> CacheSpec {
        CacheSpec::Static { capacity: Budget::Tokens(tokens) }
    }

    /// The part that evicts.
    pub(crate) fn eviction(&self) -> &CacheSpec {
        match self {
            CacheSpec::EvictThenQuest(evict, _) => evict,
            other => other,
        }
    }

    /// The part that selects what is read.
    pub fn quest(&self) -> Option<&Quest> {
        match self {
            CacheSpec::Quest(quest) | CacheSpec::EvictThenQuest(_, quest) => Some(quest),
            _ => None,
        }
    }

    /// Whether something is evicted when a prompt is in: the prompt then passes one layer after the other.
    pub(crate) fn compresses_prompts(&self) -> bool {
        matches!(self.eviction(), CacheSpec::Compress(_) | CacheSpec::Heavy(_))
    }

    /// Whether keys are read at distances below `sinks + window` however long the text: it may then go on beyond the
    /// model's context.
    pub fn is_endless(&self) -> bool {
        matches!(self, CacheSpec::Streaming(Streaming { true_positions: false, .. }))
    }

    /// What a cache of this policy can take back.
    pub fn rollback(&self) -> Rollback {
        match self.eviction() {
            CacheSpec::Streaming(_) | CacheSpec::Heavy(Heavy::Tova { .. }) | CacheSpec::Duo(_) => {
                Rollback::UntilEviction
            }
            CacheSpec::Heavy(Heavy::H2o { .. }) => Rollback::Never,
            CacheSpec::Compress(_) => Rollback::SincePrompt,
            _ => Rollback::Any,
        }
    }
}

/// A cache text that names no policy, a parameter out of range, or a policy that does not fit the model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CacheSpecError {
    /// No such policy.
    #[error("unknown cache policy `{given}`; the nearest is {nearest}; available: {}", FORMS.join(" · "))]
    Unknown {
        /// What was written.
        given: String,
        /// What may have been meant.
        nearest: &'static str,
    },
    /// `static` without a usable capacity.
    #[error("`{given}` needs a capacity of at least 1 token, as in static:4096 or static:64MiB")]
    Capacity {
        /// What was written.
        given: String,
    },
    /// A parameter that the policy lacks, twice, or without a value.
    #[error("`{given}`: {why}; the form is {form}")]
    Parameter {
        /// What was written.
        given: String,
        /// What is wrong with it.
        why: String,
        /// The nearest valid form.
        form: &'static str,
    },
    /// Policies or storage that cannot work together.
    #[error("{one} and {other} do not go together: {why}")]
    Together {
        /// The first.
        one: String,
        /// The second.
        other: String,
        /// Why, and the way out.
        why: &'static str,
    },
    /// A policy that does not fit the model or the session.
    #[error("cache {spec}: {why}")]
    Unfit {
        /// The policy.
        spec: String,
        /// What does not fit, and the way out.
        why: String,
    },
}
