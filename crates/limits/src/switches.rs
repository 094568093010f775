//! The points in which physics departs from the paper's definitions, each with a name.

use serde::{Deserialize, Serialize};

/// One departure from the paper profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Switch {
    /// G and T of a data sheet are 10^9 and 10^12, not 2^30 and 2^40.
    VendorUnits,
    /// The peak of the matrix units for the number type, not the f32 rate of the vector units.
    MatrixPeak,
    /// A weight takes its format's bits, scales included, tensor by tensor, not a round number.
    RealBits,
    /// K and V have a width of their own, not that of the activations.
    KvWidth,
    /// Attention multiplies every visible (query, key) pair: n(n+1)/2 of them, not 2n − 1.
    CausalAttention,
    /// A chunk writes its rows and reads every visible one: 2n token slots, not 2n − 1.
    KvTraffic,
    /// Norms and embedding rows are read too.
    EveryTensor,
    /// A bias is no matrix product: it is read, and adds no FLOPs.
    MatrixFlops,
    /// Only the experts that the rows visit are read and multiplied.
    ActiveExperts,
    /// The embedding table and the norms lie in memory too.
    ResidentTensors,
    /// Activations of a chunk and logits lie in memory too.
    Scratch,
    /// A step whose bytes fit in a cache is limited by that cache, not by memory.
    CacheLevels,
}

impl Switch {
    /// Every switch, in the order of the pages that explain them.
    pub const ALL: [Switch; 12] = [
        Switch::VendorUnits,
        Switch::MatrixPeak,
        Switch::RealBits,
        Switch::KvWidth,
        Switch::CausalAttention,
        Switch::KvTraffic,
        Switch::EveryTensor,
        Switch::MatrixFlops,
        Switch::ActiveExperts,
        Switch::ResidentTensors,
        Switch::Scratch,
        Switch::CacheLevels,
    ];

    /// Lower-case name, as `vendor_units`.
    pub fn name(self) -> &'static str {
        match self {
            Switch::VendorUnits => "vendor_units",
            Switch::MatrixPeak => "matrix_peak",
            Switch::RealBits => "real_bits",
            Switch::KvWidth => "kv_width",
            Switch::CausalAttention => "causal_attention",
            Switch::KvTraffic => "kv_traffic",
            Switch::EveryTensor => "every_tensor",
            Switch::MatrixFlops => "matrix_flops",
            Switch::ActiveExperts => "active_experts",
            Switch::ResidentTensors => "resident_tensors",
            Switch::Scratch => "scratch",
            Switch::CacheLevels => "cache_levels",
        }
    }

    /// What it changes, in one line.
    pub fn meaning(self) -> &'static str {
        match self {
            Switch::VendorUnits => {
                "GB/s and TFLOPS are 10^9 and 10^12, as vendors mean them; off: 2^30 and 2^40"
            }
            Switch::MatrixPeak => {
                "the matrix units' dense peak for the number type; off: the f32 rate of the vector units"
            }
            Switch::RealBits => {
                "stored bits per weight, scales included, tensor by tensor; off: the round number in the name"
            }
            Switch::KvWidth => "K and V at their own width; off: at the width of the activations",
            Switch::CausalAttention => "attention multiplies n(n+1)/2 visible pairs; off: 2n-1",
            Switch::KvTraffic => "a chunk writes n slots and reads all visible ones; off: 2n-1 slots in all",
            Switch::EveryTensor => {
                "norms and embedding rows are read; off: projections, biases and head only"
            }
            Switch::MatrixFlops => "FLOPs of matrix products only; off: a bias counts as a column of weights",
            Switch::ActiveExperts => "experts that the rows visit are read and multiplied; off: all experts",
            Switch::ResidentTensors => {
                "embedding table and norms take memory; off: projections, biases and head only"
            }
            Switch::Scratch => {
                "activations of a chunk and logits take memory; off: nothing beside weights and KV"
            }
            Switch::CacheLevels => {
                "a step that fits in a cache is limited by that cache; off: by memory always"
            }
        }
    }
}

/// A set of switches; serialised as the list of those that are on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "Vec<Switch>", into = "Vec<Switch>")]
pub struct Switches(u16);

impl From<Vec<Switch>> for Switches {
    fn from(on: Vec<Switch>) -> Switches {
        Switches(on.into_iter().fold(0, |bits, switch| bits | 1 << switch as u16))
    }
}

impl From<Switches> for Vec<Switch> {
    fn from(set: Switches) -> Vec<Switch> {
        Switch::ALL.into_iter().filter(|switch| set.has(*switch)).collect()
    }
}

impl Switches {
    /// All off: the paper's definitions.
    pub const PAPER: Switches = Switches(0);
    /// All on: SI units and everything that physics asks for.
    pub const SI: Switches = Switches((1 << Switch::ALL.len()) - 1);

    /// Whether `switch` is on.
    pub fn has(self, switch: Switch) -> bool {
        self.0 & (1 << switch as u16) != 0
    }

    /// The set with `switch` turned the other way.
    pub fn toggled(self, switch: Switch) -> Switches {
        Switches(self.0 ^ (1 << switch as u16))
    }
}

/// A named set of switches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// SI units and all that physics asks for.
    #[default]
    Si,
    /// The definitions of the paper that the tables come from.
    Paper,
}

impl Profile {
    /// The profile's switches.
    pub fn switches(self) -> Switches {
        match self {
            Profile::Si => Switches::SI,
            Profile::Paper => Switches::PAPER,
        }
    }

    /// Lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            Profile::Si => "si",
            Profile::Paper => "paper",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_switch_has_its_bit() {
        for (i, switch) in Switch::ALL.into_iter().enumerate() {
            assert_eq!(switch as usize, i);
            assert!(Switches::SI.has(switch) && !Switches::PAPER.has(switch));
            assert!(!Switches::SI.toggled(switch).has(switch));
            assert_eq!(serde_json::to_value(switch).unwrap(), switch.name());
            let without = Switches::SI.toggled(switch);
            let text = serde_json::to_string(&without).unwrap();
            assert_eq!(serde_json::from_str::<Switches>(&text).unwrap(), without, "{text}");
        }
    }
}
