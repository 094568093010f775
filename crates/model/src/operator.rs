//! The operations a forward pass is made of, and what one of them costs.
//!
//! The engine counts what it issued, `limits` predicts it; both speak in these two types. `docs/accounting.md` says what
//! counts.

use serde::{Deserialize, Serialize};

/// One operation of the forward pass, in the order a token meets them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // the variants are their names
pub enum Operator {
    Embed,
    AttentionNorm,
    Qkv,
    QkNorm,
    Rope,
    KvAppend,
    Attention,
    Wo,
    FfnNorm,
    Router,
    WGateUp,
    Activation,
    WDown,
    Experts,
    FinalNorm,
    OutputHead,
}

impl Operator {
    /// Number of operators; `operator as usize` is below it.
    pub const COUNT: usize = 16;

    /// Every operator, in the order of the forward pass.
    pub const ALL: [Operator; Operator::COUNT] = [
        Operator::Embed,
        Operator::AttentionNorm,
        Operator::Qkv,
        Operator::QkNorm,
        Operator::Rope,
        Operator::KvAppend,
        Operator::Attention,
        Operator::Wo,
        Operator::FfnNorm,
        Operator::Router,
        Operator::WGateUp,
        Operator::Activation,
        Operator::WDown,
        Operator::Experts,
        Operator::FinalNorm,
        Operator::OutputHead,
    ];

    /// Lower-case name, as `w_gate_up`.
    pub fn name(self) -> &'static str {
        match self {
            Operator::Embed => "embed",
            Operator::AttentionNorm => "attention_norm",
            Operator::Qkv => "qkv",
            Operator::QkNorm => "qk_norm",
            Operator::Rope => "rope",
            Operator::KvAppend => "kv_append",
            Operator::Attention => "attention",
            Operator::Wo => "wo",
            Operator::FfnNorm => "ffn_norm",
            Operator::Router => "router",
            Operator::WGateUp => "w_gate_up",
            Operator::Activation => "activation",
            Operator::WDown => "w_down",
            Operator::Experts => "experts",
            Operator::FinalNorm => "final_norm",
            Operator::OutputHead => "output_head",
        }
    }
}

impl std::fmt::Display for Operator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// What an operation moves and computes. Sums saturate: `u64::MAX` bytes is sixteen exabytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cost {
    /// Bytes of weights read.
    pub weight_bytes: u64,
    /// Bytes of keys and values read, and of what a cache policy reads beside them.
    pub kv_read_bytes: u64,
    /// Bytes of keys and values written.
    pub kv_write_bytes: u64,
    /// Floating-point operations of matrix products and attention, 2 per multiply-add.
    pub flops: u64,
}

impl Cost {
    /// All bytes moved.
    pub fn bytes(&self) -> u64 {
        self.weight_bytes.saturating_add(self.kv_read_bytes).saturating_add(self.kv_write_bytes)
    }
}

impl std::ops::AddAssign for Cost {
    fn add_assign(&mut self, other: Cost) {
        self.weight_bytes = self.weight_bytes.saturating_add(other.weight_bytes);
        self.kv_read_bytes = self.kv_read_bytes.saturating_add(other.kv_read_bytes);
        self.kv_write_bytes = self.kv_write_bytes.saturating_add(other.kv_write_bytes);
        self.flops = self.flops.saturating_add(other.flops);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_are_indexed_by_discriminant() {
        for (i, operator) in Operator::ALL.into_iter().enumerate() {
            assert_eq!(operator as usize, i);
            assert_eq!(serde_json::to_value(operator).unwrap(), operator.name());
        }
    }
}
