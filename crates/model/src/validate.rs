//! The rules that make a [`ModelConfig`] one that can be computed. Every size that comes from a file passes here once; what
//! passes cannot overflow a product of sizes later.

use crate::config::{Ffn, ModelConfig, RopeScaling};
use crate::error::ModelError;

/// Largest accepted sizes. The largest published models stay at least 5 times below each.
const MOST_LAYERS: usize = 1 << 12;
const MOST_EXPERTS: usize = 1 << 14;
const MOST_EXPERTS_IN_ALL: usize = 1 << 17; // each is three entries of the tensor plan
const MOST_WIDTH: usize = 1 << 22;
const MOST_VOCABULARY: usize = 1 << 25;
const MOST_CONTEXT: usize = 1 << 31;
const MOST_WEIGHTS: u128 = 1 << 53; // exact in an f64, and in bytes far from the end of a u64

/// Collects the context of an error: the file and the field.
struct Rules<'a> {
    file: &'a str,
}

impl Rules<'_> {
    fn broken(&self, field: &'static str, value: impl ToString, rule: impl Into<String>) -> ModelError {
        ModelError::Invalid {
            file: self.file.to_string(),
            field,
            value: value.to_string(),
            rule: rule.into(),
        }
    }

    fn size(&self, field: &'static str, value: usize, most: usize) -> Result<(), ModelError> {
        if (1..=most).contains(&value) {
            return Ok(());
        }
        Err(self.broken(field, value, format!("it must lie between 1 and {most}")))
    }

    fn positive(&self, field: &'static str, value: f64) -> Result<(), ModelError> {
        if value.is_finite() && value > 0.0 {
            return Ok(());
        }
        Err(self.broken(field, value, "it must be a positive finite number"))
    }
}

impl ModelConfig {
    /// Checks every rule a forward pass relies on: sizes within bounds, heads that divide, a rotary part that is even and fits the
    /// head, no more active experts than there are, numbers that are finite and positive. `file` names the origin in the error.
    ///
    /// # Errors
    /// [`ModelError::Invalid`] with the first field that breaks a rule.
    pub fn validate(&self, file: &str) -> Result<(), ModelError> {
        let rules = Rules { file };
        rules.size("hidden_size", self.hidden_size, MOST_WIDTH)?;
        rules.size("n_layers", self.n_layers, MOST_LAYERS)?;
        rules.size("vocab_size", self.vocab_size, MOST_VOCABULARY)?;
        rules.size("context_length", self.context_length, MOST_CONTEXT)?;
        rules.size("intermediate_size", self.ffn.intermediate_size(), MOST_WIDTH)?;
        self.validate_heads(&rules)?;
        self.validate_rope(&rules)?;
        self.validate_ffn(&rules)?;
        rules.positive("norm eps", f64::from(self.norm.eps))?;
        if let Some(clip) = self.clip_qkv {
            rules.positive("clip_qkv", f64::from(clip))?;
        }
        self.validate_weights(&rules)
    }

    fn validate_heads(&self, rules: &Rules<'_>) -> Result<(), ModelError> {
        rules.size("n_heads", self.n_heads, MOST_WIDTH)?;
        rules.size("n_kv_heads", self.n_kv_heads, MOST_WIDTH)?;
        rules.size("head_dim", self.head_dim, MOST_WIDTH)?;
        if !self.n_heads.is_multiple_of(self.n_kv_heads) {
            let rule = format!("it must be a multiple of n_kv_heads = {}", self.n_kv_heads);
            return Err(rules.broken("n_heads", self.n_heads, rule));
        }
        let width = self.n_heads.saturating_mul(self.head_dim);
        if width > MOST_WIDTH {
            let rule = format!("it must be at most {MOST_WIDTH}");
            return Err(rules.broken("n_heads * head_dim", width, rule));
        }
        Ok(())
    }

    fn validate_rope(&self, rules: &Rules<'_>) -> Result<(), ModelError> {
        let rope = &self.rope;
        rules.positive("rope theta", rope.theta)?;
        let fits = (2..=self.head_dim).contains(&rope.rotary_dim) && rope.rotary_dim.is_multiple_of(2);
        if !fits {
            let rule = format!("it must be even, at least 2 and at most head_dim = {}", self.head_dim);
            return Err(rules.broken("rotary_dim", rope.rotary_dim, rule));
        }
        let at_least_one = |field, factor: f64| match factor.is_finite() && factor >= 1.0 {
            true => Ok(()),
            false => Err(rules.broken(field, factor, "it must be a finite number of at least 1")),
        };
        match rope.scaling {
            RopeScaling::None | RopeScaling::FrequencyFactors => Ok(()),
            RopeScaling::Linear { factor } => at_least_one("rope scaling factor", factor),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
                at_least_one("rope scaling factor", factor)?;
                rules.positive("low_freq_factor", low_freq_factor)?;
                rules.positive("high_freq_factor", high_freq_factor)?;
                rules.size("original_max_position_embeddings", original_context, MOST_CONTEXT)?;
                if high_freq_factor <= low_freq_factor {
                    let rule = format!("it must be greater than low_freq_factor = {low_freq_factor}");
                    return Err(rules.broken("high_freq_factor", high_freq_factor, rule));
                }
                Ok(())
            }
        }
    }

    fn validate_ffn(&self, rules: &Rules<'_>) -> Result<(), ModelError> {
        let Ffn::Experts { n_experts, n_active, .. } = self.ffn else { return Ok(()) };
        rules.size("n_experts", n_experts, MOST_EXPERTS)?;
        if n_experts * self.n_layers > MOST_EXPERTS_IN_ALL {
            let rule =
                format!("over {} layers it must be at most {MOST_EXPERTS_IN_ALL} in all", self.n_layers);
            return Err(rules.broken("n_experts", n_experts, rule));
        }
        if n_active == 0 || n_active > n_experts {
            let rule = format!("it must lie between 1 and n_experts = {n_experts}");
            return Err(rules.broken("n_active experts", n_active, rule));
        }
        if self.bias.ffn {
            return Err(rules.broken("bias on experts", true, "experts are run without biases"));
        }
        Ok(())
    }

    /// The sizes are bounded by now, so the terms of [`ModelConfig::parameters`] fit; their sum may not.
    fn validate_weights(&self, rules: &Rules<'_>) -> Result<(), ModelError> {
        let experts = self.n_experts() as u128;
        let layer = u128::from(self.layer_without_experts()) + experts * u128::from(self.one_expert());
        let tables = 2 * self.vocab_size as u128 * self.hidden_size as u128;
        let weights = self.n_layers as u128 * layer + tables;
        if weights > MOST_WEIGHTS {
            let rule = format!("at most {MOST_WEIGHTS} are accepted");
            return Err(rules.broken("number of weights", weights, rule));
        }
        Ok(())
    }
}
