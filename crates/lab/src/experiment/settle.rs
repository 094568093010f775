//! When a warm-up may end: when a round takes as long as the one before.

use crate::statistics::Sorted;

/// Rounds whose runs took this much as long as in the round before have settled: median over the cells of the relative
/// change. Twice the spread of a quiet machine; a busy one ends at the cap, and that is said.
pub const SETTLED: f64 = 0.05;

/// Watches the wall times of warm-up rounds.
#[derive(Debug, Default)]
pub struct Settling {
    before: Option<Vec<f64>>, // (cells) seconds
}

impl Settling {
    /// Takes in the seconds of every cell of a round; the median relative change since the round before, once there was
    /// one.
    pub fn hear(&mut self, seconds: Vec<f64>) -> Option<f64> {
        let changes = self.before.as_ref().map(|before| {
            let change = |(now, then): (&f64, &f64)| (now / then - 1.0).abs();
            seconds.iter().zip(before).map(change).collect::<Vec<f64>>()
        });
        self.before = Some(seconds);
        Sorted::new(&changes?).ok().map(|sorted| sorted.median())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_change_is_told_from_the_second_round_on() {
        let mut settling = Settling::default();
        assert_eq!(settling.hear(vec![2.0, 4.0, 8.0]), None);
        let change = settling.hear(vec![1.0, 4.0, 8.8]).unwrap();
        assert!((change - 0.1).abs() < 1e-12, "{change}");
        assert_eq!(settling.hear(vec![1.0, 4.0, 8.8]), Some(0.0));
    }
}
