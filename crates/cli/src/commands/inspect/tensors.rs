//! The tensor table: every tensor, or those of all layers in one line.

use roofline_lab::units::bytes;
use roofline_weights::{Checkpoint, Format};
use serde_json::{Value, json};

use crate::output::{Align, Table};

/// Tensors that differ in their numbers only.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// The name, with `*` for numbers when there are several.
    pub name: String,
    /// How many.
    pub count: usize,
    pub format: Format,
    /// Of each.
    pub shape: Vec<usize>,
    /// Of all.
    pub weights: u64,
    /// Of all.
    pub bytes: u64,
}

impl Group {
    pub fn to_json(&self) -> Value {
        json!({
            "name": self.name, "format": self.format.name(), "shape": self.shape, "bytes": self.bytes,
            "bits_per_weight": super::bits(self.bytes, self.weights),
        })
    }
}

/// In file order; with `fold`, tensors of one pattern, format and shape become one.
pub fn groups(checkpoint: &Checkpoint, fold: bool) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for view in checkpoint.tensors() {
        let name = if fold { pattern(view.name) } else { view.name.to_string() };
        let (weights, bytes) = (view.weights() as u64, view.bytes.len() as u64);
        let same = |g: &&mut Group| g.name == name && g.format == view.format && g.shape == view.shape;
        match groups.iter_mut().find(same).filter(|_| fold) {
            Some(group) => {
                group.count += 1;
                group.weights += weights;
                group.bytes += bytes;
            }
            None => groups.push(Group {
                name,
                count: 1,
                format: view.format,
                shape: view.shape.to_vec(),
                weights,
                bytes,
            }),
        }
    }
    groups
}

/// `model.layers.7.mlp.experts.3.up.weight` is `model.layers.*.mlp.experts.*.up.weight`.
fn pattern(name: &str) -> String {
    let part = |part: &str| {
        let is_number = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if is_number { "*".to_string() } else { part.to_string() }
    };
    name.split('.').map(part).collect::<Vec<_>>().join(".")
}

pub fn table(groups: &[Group]) -> Table {
    let mut table = Table::new(&[
        ("tensor", Align::Left),
        ("count", Align::Right),
        ("format", Align::Left),
        ("shape", Align::Right),
        ("bits per weight", Align::Right),
        ("size of all", Align::Right),
    ]);
    for group in groups {
        let shape: Vec<String> = group.shape.iter().map(usize::to_string).collect();
        table.row([
            super::super::tokenize::shown(&group.name),
            group.count.to_string(),
            group.format.to_string(),
            shape.join(" × "),
            format!("{:.4}", super::bits(group.bytes, group.weights)),
            bytes(group.bytes),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_between_dots_are_folded() {
        assert_eq!(pattern("blk.12.ffn_up.weight"), "blk.*.ffn_up.weight");
        assert_eq!(pattern("model.layers.0.experts.3.w2"), "model.layers.*.experts.*.w2");
        assert_eq!(pattern("token_embd.weight"), "token_embd.weight");
    }
}
