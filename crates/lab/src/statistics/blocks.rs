//! The mean of values that hang together with their neighbours, as the tokens of a text do.

use serde::{Deserialize, Serialize};

use super::student::two_sided;
use super::{Interval, StatisticsError, check};

/// Neighbours that are taken as one observation.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Block {
    /// Sum of its values.
    pub sum: f64,
    /// Their number, above 0.
    pub n: usize,
}

/// A mean and how far it can be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BlockMean {
    /// Mean over all values.
    pub mean: f64,
    /// Its standard error; none from a single block.
    pub standard_error: Option<f64>,
    /// Where it lies with the asked confidence; none from a single block.
    pub interval: Option<Interval>,
    /// Number of blocks.
    pub blocks: usize,
    /// Number of values.
    pub n: usize,
}

/// Mean of all values with the standard error of a ratio of block sums (Cochran, Sampling Techniques, 6.4): blocks are
/// taken as independent, the values inside of one are not. The interval is Student's with blocks − 1 degrees of freedom.
///
/// # Errors
/// No block, an empty one, a sum that is not finite, a confidence outside (0, 1).
pub fn block_mean(blocks: &[Block], confidence: f64) -> Result<BlockMean, StatisticsError> {
    let sums: Vec<f64> = blocks.iter().map(|block| block.sum).collect();
    check("a mean over blocks", 1, &sums)?;
    if blocks.iter().any(|block| block.n == 0) {
        return Err(StatisticsError::TooFew { method: "a block", needed: 1, got: 0 });
    }
    if !(confidence > 0.0 && confidence < 1.0) {
        return Err(StatisticsError::Fraction { what: "the confidence", value: confidence });
    }
    let n: usize = blocks.iter().map(|block| block.n).sum();
    let mean = sums.iter().sum::<f64>() / n as f64;
    let count = blocks.len() as f64;
    let squares: f64 = blocks.iter().map(|block| (block.sum - mean * block.n as f64).powi(2)).sum();
    let standard_error = (blocks.len() > 1).then(|| (count / (count - 1.0) * squares).sqrt() / n as f64);
    let interval = standard_error.map(|error| {
        let half = two_sided(confidence, count - 1.0) * error;
        Interval { low: mean - half, high: mean + half }
    });
    Ok(BlockMean { mean, standard_error, interval, blocks: blocks.len(), n })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::standard_deviation;

    #[test]
    fn equal_blocks_give_the_error_of_their_means() {
        let means = [1.0, 4.0, 2.0, 7.0];
        let blocks = means.map(|mean| Block { sum: 5.0 * mean, n: 5 });
        let found = block_mean(&blocks, 0.95).unwrap();
        assert_eq!((found.mean, found.blocks, found.n), (3.5, 4, 20));
        let expected = standard_deviation(&means).unwrap() / 2.0;
        assert!((found.standard_error.unwrap() - expected).abs() < 1e-12);
        let interval = found.interval.unwrap();
        assert!((interval.width() - 2.0 * 3.182446 * expected).abs() < 1e-5); // t(3) at 95 %
    }

    #[test]
    fn one_block_has_no_error_and_wrong_blocks_no_mean() {
        let found = block_mean(&[Block { sum: 3.0, n: 2 }], 0.95).unwrap();
        assert_eq!((found.mean, found.standard_error, found.interval), (1.5, None, None));
        assert!(block_mean(&[], 0.95).is_err());
        assert!(block_mean(&[Block { sum: 1.0, n: 0 }], 0.95).is_err());
        assert!(block_mean(&[Block { sum: f64::NAN, n: 1 }], 0.95).is_err());
        assert!(block_mean(&[Block { sum: 1.0, n: 1 }], 1.0).is_err());
    }
}
