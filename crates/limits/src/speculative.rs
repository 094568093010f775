//! The limit of speculative decoding: a draft proposes γ tokens, one step of the target checks them.
//!
//! Leviathan et al. (2211.17192): with acceptance α a round gives (1 − α^(γ+1)) / (1 − α) tokens on average. Their speed-up
//! divides by (c·γ + 1), as if checking γ + 1 tokens cost what one costs; here it costs what the prefill curve says.

use crate::accounting::Accounting;
use crate::error::{LimitsError, count_in_range, in_range};
use crate::forecast::{Forecast, Rates, Shape};
use crate::report::{MOST_TOKENS, Request, decode_shape, ms};
use serde::Serialize;

/// Most drafted tokens considered.
pub const MOST_DRAFTED: u64 = 32;

/// What drafting a token costs.
#[derive(Clone, Copy)]
pub enum Draft<'a> {
    /// A smaller model, on its own device or the same one.
    Model(&'a Request<'a>),
    /// A fixed share of the target's step, 0 for a lookup in the text.
    Cost(f64),
}

/// A round of γ drafted tokens and one check.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Round {
    /// γ
    pub drafted: u64,
    /// Tokens a round gives on average, the target's own one included.
    pub expected_tokens: f64,
    /// Milliseconds of drafting.
    pub draft_ms: f64,
    /// Milliseconds of the target's step over γ + 1 rows.
    pub verify_ms: f64,
    /// Milliseconds per token.
    pub per_token_ms: f64,
    /// Against plain decode at this position.
    pub speedup: f64,
    /// The published formula, with the check for free.
    pub speedup_free_check: f64,
}

/// The limit over all draft lengths.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Speculation {
    /// Acceptance α of one drafted token.
    pub acceptance: f64,
    /// Position at which steps are timed.
    pub position: u64,
    /// Plain decode, milliseconds per token.
    pub plain_ms: f64,
    /// Drafting one token as a share of a plain step.
    pub draft_share: f64,
    /// γ = 0 … [`MOST_DRAFTED`].
    pub rounds: Vec<Round>,
    /// The γ with the least time per token.
    pub best: u64,
}

/// Tokens that a round of γ drafted ones gives when each is accepted with probability α.
pub fn expected_tokens(acceptance: f64, drafted: u64) -> f64 {
    // summed, so that α = 1 needs no special case
    (0..=drafted).fold((0.0, 1.0), |(sum, power), _| (sum + power, power * acceptance)).0
}

/// The limit of speculation for `request`'s model, at one position, with its batch.
pub fn speculation(
    request: &Request<'_>,
    draft: Draft<'_>,
    acceptance: f64,
    position: u64,
) -> Result<Speculation, LimitsError> {
    in_range("the acceptance", acceptance, 0.0, 1.0)?;
    count_in_range("a position", position, 1, MOST_TOKENS)?;
    let step = |request: &Request<'_>, rows: u64| -> Result<f64, LimitsError> {
        let accounting = Accounting::new(request.config, request.formats, request.precision.kv)?;
        let rates = Rates::new(request.hardware, request.precision, request.switches)?;
        let forecast = Forecast::new(&accounting, request.precision, request.switches);
        let batch =
            count_in_range("the batch", request.workload.batch, 1, crate::report::LARGEST_BATCH)? as f64;
        let rows = rows as f64;
        let shape = Shape { rows, head_rows: rows * batch, ..decode_shape(position, batch) };
        Ok(forecast.time(shape, &rates).limit_s())
    };
    let plain = step(request, 1)?;
    let draft_s = match draft {
        Draft::Model(model) => step(model, 1)?,
        Draft::Cost(share) => plain * in_range("the draft's share of a step", share, 0.0, 1e6)?,
    };
    let mut rounds = Vec::new();
    for drafted in 0..=MOST_DRAFTED {
        let expected = expected_tokens(acceptance, drafted);
        let drafting = draft_s * drafted as f64;
        let verify = step(request, drafted + 1)?;
        rounds.push(Round {
            drafted,
            expected_tokens: expected,
            draft_ms: ms(drafting),
            verify_ms: ms(verify),
            per_token_ms: ms((drafting + verify) / expected),
            speedup: expected * plain / (drafting + verify),
            speedup_free_check: expected / (draft_s / plain * drafted as f64 + 1.0),
        });
    }
    let best =
        rounds.iter().min_by(|a, b| a.per_token_ms.total_cmp(&b.per_token_ms)).map_or(0, |r| r.drafted);
    Ok(Speculation { acceptance, position, plain_ms: ms(plain), draft_share: draft_s / plain, rounds, best })
}
