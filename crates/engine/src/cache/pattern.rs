//! DuoAttention's pattern file: which heads keep everything.

use super::spec::{CacheSpecError, Duo, Geometry};

/// For every lane whether it keeps everything: (n_layers, n_kv_heads).
///
/// The file is the one that DuoAttention publishes (`full_attention_heads.tsv`): a line per layer, a gate per KV head,
/// between blanks, tabs or commas.
///
/// # Errors
/// [`CacheSpecError::Unfit`] naming the file and the line: not readable, not numbers, or made for another model.
pub(super) fn full_lanes(duo: &Duo, geometry: &Geometry) -> Result<Vec<bool>, CacheSpecError> {
    let unfit = |why: String| CacheSpecError::Unfit { spec: format!("duo:pattern={}", duo.pattern), why };
    let text = std::fs::read_to_string(&duo.pattern).map_err(|error| {
        unfit(format!("{error}; a pattern is a text file with one line of gates per layer"))
    })?;
    let mut full = Vec::new();
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let shape = || format!("{} layers of {} KV heads", geometry.n_layers, geometry.n_kv_heads);
    if lines.len() != geometry.n_layers {
        return Err(unfit(format!("it has {} lines, the model has {}", lines.len(), shape())));
    }
    for (layer, line) in lines.iter().enumerate() {
        let gates: Vec<&str> =
            line.split([' ', '\t', ',']).map(str::trim).filter(|gate| !gate.is_empty()).collect();
        if gates.len() != geometry.n_kv_heads {
            return Err(unfit(format!(
                "line {} has {} gates, the model has {}",
                layer + 1,
                gates.len(),
                shape()
            )));
        }
        for gate in gates {
            match gate.parse::<f32>() {
                Ok(value) if value.is_finite() => full.push(value >= duo.threshold),
                _ => return Err(unfit(format!("line {}: `{gate}` is no gate between 0 and 1", layer + 1))),
            }
        }
    }
    Ok(full)
}
