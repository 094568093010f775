//! Whether a policy fits a model, before anything is allocated.

use super::{Budget, CacheSpec, CacheSpecError, Compress, Heavy, Quest, Streaming};

/// What a policy has to fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Layers.
    pub n_layers: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads.
    pub n_kv_heads: usize,
    /// Tokens that the model takes.
    pub context_length: usize,
}

impl Geometry {
    /// (layer, KV head) pairs.
    pub fn lanes(&self) -> usize {
        self.n_layers * self.n_kv_heads
    }
}

impl Budget {
    /// Tokens per lane where a lane holds `len` and one token of all lanes takes `token_bytes`.
    pub fn tokens(self, len: usize, token_bytes: u64) -> usize {
        match self {
            Budget::Tokens(tokens) => tokens,
            Budget::Bytes(bytes) => usize::try_from(bytes / token_bytes.max(1)).unwrap_or(usize::MAX),
            Budget::Share(share) => (share * len as f64).floor() as usize,
        }
    }
}

impl CacheSpec {
    /// Refuses a policy that cannot do what it says on this model. `token_bytes`: K and V of one token in all lanes.
    ///
    /// # Errors
    /// [`CacheSpecError::Unfit`] with the reason and the way out.
    pub fn check(&self, geometry: &Geometry, token_bytes: u64) -> Result<(), CacheSpecError> {
        let unfit = |why: String| Err(CacheSpecError::Unfit { spec: self.to_string(), why });
        let context = geometry.context_length;
        match self {
            CacheSpec::Full | CacheSpec::Duo(_) => Ok(()),
            CacheSpec::Static { capacity } => match capacity.tokens(context, token_bytes) {
                0 => unfit(format!("one token takes {token_bytes} bytes, so nothing would fit")),
                _ => Ok(()),
            },
            CacheSpec::Streaming(Streaming { sinks, window, .. }) => {
                match sinks.checked_add(*window).and_then(|kept| kept.checked_add(1)) {
                    Some(seen) if seen <= context => Ok(()),
                    _ if *sinks + 2 > context => {
                        unfit(format!("sinks={sinks} leave no window in a context of {context}"))
                    }
                    _ => unfit(format!(
                        "a query would see sinks + window + 1 = {} tokens, the model was made for {context}; write \
                         window={} or less",
                        sinks.saturating_add(*window).saturating_add(1),
                        context - sinks - 1
                    )),
                }
            }
            CacheSpec::Compress(Compress { budget, window, pinned, .. }) => {
                let least = window + pinned + 1;
                within(self, "budget", *budget, geometry, token_bytes, least)
            }
            CacheSpec::Heavy(Heavy::H2o { heavy, recent, pinned }) => {
                let cap = heavy.saturating_add(*recent);
                if cap > context {
                    return unfit(format!(
                        "heavy + recent = {cap} is more than the model's context of {context}"
                    ));
                }
                if pinned > heavy {
                    return unfit(format!(
                        "pinned={pinned} tokens are counted as heavy ones; write heavy={pinned} or more"
                    ));
                }
                Ok(())
            }
            CacheSpec::Heavy(Heavy::Tova { budget, pinned }) => {
                within(self, "budget", *budget, geometry, token_bytes, pinned + 1)
            }
            CacheSpec::Quest(Quest { budget, page, .. }) => {
                within(self, "budget", *budget, geometry, token_bytes, *page)
            }
            CacheSpec::EvictThenQuest(evict, quest) => {
                evict.check(geometry, token_bytes)?;
                CacheSpec::Quest(*quest).check(geometry, token_bytes)
            }
        }
    }
}

/// A budget that the model's context can fill and that leaves the policy something to choose.
fn within(
    spec: &CacheSpec,
    key: &str,
    budget: Budget,
    geometry: &Geometry,
    token_bytes: u64,
    least: usize,
) -> Result<(), CacheSpecError> {
    let context = geometry.context_length;
    let tokens = budget.tokens(context, token_bytes);
    let unfit = |why: String| Err(CacheSpecError::Unfit { spec: spec.to_string(), why });
    if matches!(budget, Budget::Tokens(_)) && tokens > context {
        return unfit(format!(
            "{key}={budget} is more than the model's context of {context} tokens; write {key}={context} or less"
        ));
    }
    if tokens < least {
        return unfit(format!(
            "{key}={budget} is {tokens} tokens per lane at the model's context of {context}; it must be at least {least}"
        ));
    }
    Ok(())
}
