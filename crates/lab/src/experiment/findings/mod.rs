//! From rows to conclusions.

use super::recording::Recording;
use super::rows::Finding;

/// x
pub fn findings(recording: &Recording) -> Vec<Finding> {
    let _ = recording;
    Vec::new()
}
