//! One row of logits against the token that came, and against another row: float32 in, float64 throughout.

/// A row of logits with its normalizer, ready to be asked.
#[derive(Debug, Clone, Copy)]
pub struct Scored<'a> {
    logits: &'a [f32], // (vocab_size)
    log_sum: f64,      // ln Σ exp(logit)
}

impl<'a> Scored<'a> {
    /// Normalizes a row; `None` when it is empty or holds NaN or an infinity.
    pub fn new(logits: &'a [f32]) -> Option<Scored<'a>> {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|&logit| (f64::from(logit) - f64::from(max)).exp()).sum();
        let log_sum = f64::from(max) + sum.ln();
        // A NaN makes the sum NaN; an infinity the largest, or (below) one of the terms zero.
        let finite = log_sum.is_finite() && logits.iter().all(|logit| logit.is_finite());
        finite.then_some(Scored { logits, log_sum })
    }

    /// A row whose normalizer is known.
    pub(super) fn normalized(logits: &'a [f32], log_sum: f64) -> Scored<'a> {
        Scored { logits, log_sum }
    }

    /// The row.
    pub(super) fn logits(&self) -> &'a [f32] {
        self.logits
    }

    /// Its normalizer.
    pub(super) fn log_sum(&self) -> f64 {
        self.log_sum
    }

    /// −ln p(token), in nats.
    pub fn nll(&self, token: u32) -> f64 {
        self.log_sum - f64::from(self.logits[token as usize])
    }

    /// The most probable token; the lowest id of several.
    pub fn top(&self) -> usize {
        let mut top = 0;
        for (id, logit) in self.logits.iter().enumerate() {
            if *logit > self.logits[top] {
                top = id;
            }
        }
        top
    }

    /// KL(self ‖ other) = Σ p·(ln p − ln q), in nats.
    pub fn divergence(&self, other: &Scored<'_>) -> f64 {
        let between = |(&p, &q): (&f32, &f32)| {
            let (p, q) = (f64::from(p) - self.log_sum, f64::from(q) - other.log_sum);
            p.exp() * (p - q)
        };
        self.logits.iter().zip(other.logits).map(between).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uniform_row_costs_the_logarithm_of_its_length() {
        for shift in [-1e4, 0.0, 1e4] {
            let row = [shift; 8];
            assert!((Scored::new(&row).unwrap().nll(3) - 8f64.ln()).abs() < 1e-11);
        }
    }

    #[test]
    fn divergence_is_that_of_the_textbook() {
        let (p, q) = ([0.5f64, 0.25, 0.25], [0.25f64, 0.5, 0.25]);
        let logits = |probs: [f64; 3]| probs.map(|p| p.ln() as f32 + 3.0);
        let (p_row, q_row) = (logits(p), logits(q));
        let (p_row, q_row) = (Scored::new(&p_row).unwrap(), Scored::new(&q_row).unwrap());
        let expected: f64 = p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum();
        assert!((p_row.divergence(&q_row) - expected).abs() < 1e-6);
        assert_eq!(p_row.divergence(&p_row), 0.0);
        assert_eq!((p_row.top(), q_row.top()), (0, 1));
    }

    #[test]
    fn what_is_no_number_has_no_score() {
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(Scored::new(&[0.0, wrong, 1.0]).is_none());
        }
        assert!(Scored::new(&[]).is_none());
    }
}
