//! What a policy makes a query miss: the attention that the same query of a dense session gives to what the other one did not read.

use crate::error::EngineError;
use crate::session::Session;
use roofline_kernels as kernels;
use std::collections::HashSet;

/// What an observed session notes of its latest token.
#[derive(Default)]
pub(crate) struct Latest {
    /// Its queries: (n_layers, n_heads, head_dim).
    pub q: Vec<f32>,
    /// What each reader read, where it chose among pages: (n_layers, readers), page indices of its lane.
    pub pages: Vec<Vec<u32>>,
}

impl Session {
    /// From the next token on, notes what [`Session::missed_attention`] asks for. Costs a copy of the queries per layer.
    pub fn observe(&mut self) {
        self.observe_with(Some(Latest::default()));
    }

    /// The share of this session's attention, at the token it saw last, that went to positions which `other` did not read when it saw the same
    /// token: mean over layers and query heads. This session keeps everything ([`CacheSpec::Full`](crate::CacheSpec)) and both are observed.
    ///
    /// What `other` read is what its cache held before it evicted for the next token; a policy that drops one token per token
    /// counts as not having read the one it has just dropped.
    ///
    /// # Errors
    /// [`EngineError::Option`] when the sessions have not seen the same tokens or are not observed.
    pub fn missed_attention(&mut self, other: &Session) -> Result<f64, EngineError> {
        let refuse = |why| EngineError::Option {
            option: "missed_attention of",
            value: other.options().cache.to_string(),
            why,
        };
        if self.tokens() != other.tokens() || self.tokens().is_empty() {
            return Err(refuse("both sessions must have seen the same tokens"));
        }
        let config = self.model().config();
        let (layers, heads, row) = (config.n_layers, config.n_kv_heads, config.q_dim());
        let group = config.n_heads / heads;
        let seen = self.tokens().len();
        let (Some(latest), Some(_)) = (self.latest(), other.latest()) else {
            return Err(refuse("both sessions must be observed, before the token"));
        };
        if latest.q.len() != layers * row {
            return Err(refuse("the session must be observed before the token"));
        }
        let q = latest.q.clone();
        let mut weights = vec![0.0; config.n_heads * seen]; // (n_heads, seen)
        let mut missed = 0.0;
        for layer in 0..layers {
            self.weights_of(layer, &q[layer * row..][..row], &mut weights)?;
            for (head, weights) in weights.chunks_exact(seen).enumerate() {
                let read: HashSet<usize> =
                    other.read_positions(layer, head / group, head % group).into_iter().collect();
                let lost = weights.iter().enumerate().filter(|(position, _)| !read.contains(position));
                missed += lost.map(|(_, weight)| f64::from(*weight)).sum::<f64>();
            }
        }
        Ok(missed / (layers * group * heads) as f64)
    }

    /// Exact attention weights of a query over everything seen: (n_heads, seen).
    fn weights_of(&mut self, layer: usize, q: &[f32], out: &mut [f32]) -> Result<(), EngineError> {
        let (model, seen) = (self.model().clone(), self.tokens().len());
        let (cpu, shape) = (&model.cpu, model.attention_shape());
        let (cache, scratch) = self.cache_and_attention();
        kernels::attention_weights(
            &cpu.table,
            &shape,
            cache.layout(),
            &cache.layer(layer),
            q,
            seen,
            scratch,
            out,
        )?;
        Ok(())
    }

    /// Positions that the latest token read with a query head of a KV head.
    fn read_positions(&self, layer: usize, kv_head: usize, head: usize) -> Vec<usize> {
        let config = self.model().config();
        let group = config.n_heads / config.n_kv_heads;
        let chosen = self.latest().map(|latest| &latest.pages).filter(|pages| !pages.is_empty());
        let Some(pages) = chosen else { return self.cache_positions(layer, kv_head) };
        let readers = pages.len() / config.n_layers;
        let reader = if readers == config.n_heads { kv_head * group + head } else { kv_head };
        match pages[layer * readers + reader].as_slice() {
            [] => self.cache_positions(layer, kv_head),
            pages => self.page_positions(layer, kv_head, pages),
        }
    }
}
