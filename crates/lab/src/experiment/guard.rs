//! The guard that document 000 asks for: a word when a cap is far too large for its answers, or cuts them off.

use std::collections::HashMap;

use super::rows::Measurement;

/// Answers shorter than this share of the cap leave most of it unused.
const UNUSED: f64 = 0.3;
/// Share of answers that may end at the cap before it is said to cut them off.
const CUT_OFF: f64 = 0.01;
/// Answers before anything is said.
const ENOUGH: usize = 10;

/// Answers so far per cap.
#[derive(Debug, Default)]
pub struct Guard {
    seen: HashMap<u64, Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    lengths: Vec<usize>,
    at_cap: usize,
    said: bool,
}

impl Guard {
    /// Hears of a counted run; says what is wrong with its cap, once per cap.
    pub fn hear(&mut self, run: &Measurement) -> Option<String> {
        let cap = run.cell.get("cap").and_then(|cap| cap.number())? as u64;
        // Without an end token every answer is as long as the cap, whatever the cap.
        if run.warm_up || run.cell.get("eos").is_some_and(|eos| eos.to_string() == "off") {
            return None;
        }
        let seen = self.seen.entry(cap).or_default();
        seen.lengths.push(run.tokens.len());
        seen.at_cap += usize::from(run.finish.as_deref() == Some("length"));
        if seen.said || seen.lengths.len() < ENOUGH {
            return None;
        }
        let words = verdict(cap, &seen.lengths, seen.at_cap);
        seen.said = words.is_some();
        words
    }
}

/// What is wrong with `cap` for answers of these lengths, `at_cap` of which ended at it.
pub fn verdict(cap: u64, lengths: &[usize], at_cap: usize) -> Option<String> {
    let n = lengths.len();
    let longest = lengths.iter().copied().max()?;
    if at_cap as f64 > CUT_OFF * n as f64 {
        return Some(format!("a cap of {cap} ended {at_cap} of {n} answers: raise it, or they are cut off"));
    }
    if (longest as f64) < UNUSED * cap as f64 {
        return Some(format!(
            "a cap of {cap} is more than three times the longest of {n} answers ({longest} tokens): a lower one would \
             catch a missing end token sooner"
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::verdict;

    #[test]
    fn caps_are_too_large_or_too_small_or_right() {
        assert!(verdict(128, &[9; 20], 0).unwrap().contains("three times"));
        assert!(verdict(16, &[16; 20], 1).unwrap().contains("ended 1 of 20"));
        assert_eq!(verdict(16, &[9; 200], 2), None);
        assert_eq!(verdict(32, &[10; 20], 0), None);
        assert_eq!(verdict(32, &[], 0), None);
    }
}
