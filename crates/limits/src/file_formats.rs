//! The formats of a real file's tensors, by role, from what its header says.

use crate::accounting::WeightFormats;
use crate::error::LimitsError;
use crate::kv_format::KvFormats;
use crate::mix::Recipe;
use crate::precision::{Precision, nominal_bits};
use roofline_model::TensorPlan;
use roofline_model::tensor_plan::Role;
use roofline_weights::format::Format;
use std::collections::{BTreeMap, HashMap};

/// Which format each role has in a file.
#[derive(Debug, Clone, PartialEq)]
pub struct FileFormats {
    by_role: HashMap<Role, Format>,
    weights: BTreeMap<Format, u64>, // weights stored in each format
}

impl FileFormats {
    /// Matches a file's tensors (name, format, shape) with the plan of its configuration.
    ///
    /// # Errors
    /// [`LimitsError::Config`] with what is missing, strange or of another shape.
    pub fn new<'a>(
        plan: &TensorPlan,
        tensors: impl IntoIterator<Item = (&'a str, Format, &'a [usize])>,
    ) -> Result<FileFormats, LimitsError> {
        let mut shapes = Vec::new();
        let mut formats = HashMap::new();
        for (name, format, shape) in tensors {
            shapes.push((name, shape));
            formats.insert(name, format);
        }
        let sources = plan.check(shapes).map_err(|mismatch| LimitsError::Config(mismatch.to_string()))?;
        let mut found = FileFormats { by_role: HashMap::new(), weights: BTreeMap::new() };
        for (tensor, source) in plan.tensors.iter().zip(sources) {
            if let Some(&format) = formats.get(source.name.as_str()) {
                found.by_role.insert(tensor.role, format);
                let count = tensor.shape.iter().fold(1u64, |n, &side| n.saturating_mul(side as u64));
                let weights = found.weights.entry(format).or_default();
                *weights = weights.saturating_add(count);
            }
        }
        Ok(found)
    }

    /// The format of a role, if the file has it.
    pub fn get(&self, role: Role) -> Option<Format> {
        self.by_role.get(&role).copied()
    }

    /// The format that most weights are stored in.
    pub fn base(&self) -> Format {
        self.weights.iter().max_by_key(|(_, weights)| **weights).map_or(Format::F32, |(format, _)| *format)
    }

    /// The precision of running this file as it is: 8-bit arithmetic on quantized weights, otherwise that of the weights.
    pub fn precision(&self, kv: impl Into<KvFormats>) -> Precision {
        let kv = kv.into();
        let base = self.base();
        Precision {
            label: format!("file, mostly {base}"),
            weights: Recipe::Uniform(base),
            nominal_weight_bits: nominal_bits(base),
            arithmetic_bits: match base {
                Format::F32 => 32,
                Format::F16 | Format::Bf16 => 16,
                _ => 8,
            },
            nominal_kv_bits: kv.nominal_bits(),
            kv,
        }
    }

    /// Calls `f` with these formats as an [`Accounting`](crate::Accounting) takes them.
    pub fn with<T>(&self, f: impl FnOnce(WeightFormats<'_>) -> T) -> T {
        f(WeightFormats::Tensors(&|role| self.get(role)))
    }
}
