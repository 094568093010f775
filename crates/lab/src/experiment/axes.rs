//! The axes there are: what each means, which values it takes, and what it is when nobody says.

use roofline_engine::{CacheSpec, KvFormats};
use roofline_kernels::physical_cores;
use roofline_limits::Recipe;
use roofline_model::nearest::nearest;

use super::error::ExperimentError;
use super::rows::Value;

/// One axis.
#[derive(Debug, Clone, Copy)]
pub struct Axis {
    /// Name, as in `--set` and in files.
    pub name: &'static str,
    /// What it is, for people.
    pub meaning: &'static str,
    /// Reads one value.
    parse: fn(&str) -> Result<Value, String>,
    /// The value where none is given; `None` when the axis is absent then.
    default: fn() -> Option<Value>,
}

/// Caps that a task's name stands for (document 000, optimization 2).
pub const TASK_CAPS: [(&str, u64); 3] = [("vqa", 32), ("dialogue", 256), ("code", 1024)];

/// Weights as the files hold them.
pub const STORED: &str = "stored";

/// Nominal bits and the file types they stand for.
const PRECISIONS: [(&str, &str); 8] = [
    ("w32", "f32"),
    ("w16", "bf16"),
    ("w8", "q8_0"),
    ("w6", "q6_k"),
    ("w5", "q5_k_m"),
    ("w4", "q4_k_m"),
    ("w3", "q3_k_m"),
    ("w2", "q2_k"),
];

/// Larger than any context and any machine; a typing error.
const MOST: u64 = 1 << 30;

/// All axes, in the order in which a cell names them.
pub const AXES: [Axis; 13] = [
    Axis {
        name: "model",
        meaning: "`demo`, a Hugging Face folder, a .gguf file, or a geometry, whose weights are made up; GEOMETRY@TOKENS for a longer context",
        parse: text,
        default: || Some(Value::Text("demo".into())),
    },
    Axis {
        name: "precision",
        meaning: "`stored`, w32, w16, w8, w6, w5, w4, w3, w2 or a type of `roofline quantize`",
        parse: precision,
        default: || Some(Value::Text(STORED.into())),
    },
    Axis {
        name: "threads",
        meaning: "threads that work",
        parse: |t| count(t, 1, 4096),
        default: || Some(Value::Whole(physical_cores() as u64)),
    },
    Axis {
        name: "cache",
        meaning: "policy of the KV cache; `static:fit` reserves prompt and cap up front",
        parse: cache,
        default: || Some(Value::Text("full".into())),
    },
    Axis {
        name: "kv_type",
        meaning: "how the KV cache stores numbers",
        parse: kv_type,
        default: || Some(Value::Text("f16".into())),
    },
    Axis {
        name: "chunk",
        meaning: "prompt tokens per step",
        parse: |t| count(t, 1, MOST),
        default: || Some(Value::Whole(512)),
    },
    Axis {
        name: "depth",
        meaning: "tokens in the cache before the clock starts",
        parse: |t| count(t, 0, MOST),
        default: || Some(Value::Whole(0)),
    },
    Axis {
        name: "prompt",
        meaning: "tokens of the prompt",
        parse: |t| count(t, 1, MOST),
        default: || Some(Value::Whole(64)),
    },
    Axis {
        name: "item",
        meaning: "which passage the prompt is; the seed of the sampler follows it",
        parse: |t| count(t, 0, 9999),
        default: || Some(Value::Whole(0)),
    },
    Axis {
        name: "output",
        meaning: "tokens generated, exactly: end tokens are ignored",
        parse: |t| count(t, 1, MOST),
        default: || None,
    },
    Axis {
        name: "cap",
        meaning: "max_new_tokens: a number, or vqa (32), dialogue (256), code (1024)",
        parse: cap,
        default: || None,
    },
    Axis {
        name: "eos",
        meaning: "what ends an answer before the cap: `model` (its end tokens), `sentence` (. ! ?), `off`",
        parse: eos,
        default: || None,
    },
    Axis {
        name: "arm",
        meaning: "a label that changes nothing: the same thing against itself",
        parse: text,
        default: || None,
    },
];

/// The axis of that name.
///
/// # Errors
/// [`ExperimentError::Key`] with the nearest names.
pub fn find(name: &str) -> Result<&'static Axis, ExperimentError> {
    AXES.iter().find(|axis| axis.name == name).ok_or_else(|| ExperimentError::Key {
        key: name.to_string(),
        nearest: nearest(name, AXES.iter().map(|axis| axis.name), 2),
    })
}

impl Axis {
    /// Values written with commas between them; commas inside of a cache policy belong to it (see `split`).
    ///
    /// # Errors
    /// [`ExperimentError::AxisValue`] for a value that the axis does not take or that is given twice.
    pub fn values(&self, list: &str) -> Result<Vec<Value>, ExperimentError> {
        let mut values: Vec<Value> = Vec::new();
        for piece in split(self.name, list) {
            let value = self.value(&piece)?;
            if values.contains(&value) {
                return Err(
                    self.refuse(&piece, "it is given twice; every cell runs as often as --repeats says")
                );
            }
            values.push(value);
        }
        Ok(values)
    }

    /// One value.
    ///
    /// # Errors
    /// As [`Axis::values`].
    pub fn value(&self, text: &str) -> Result<Value, ExperimentError> {
        (self.parse)(text.trim()).map_err(|why| self.refuse(text, &why))
    }

    /// The value where none is given.
    pub fn default(&self) -> Option<Value> {
        (self.default)()
    }

    fn refuse(&self, value: &str, why: &str) -> ExperimentError {
        ExperimentError::AxisValue { axis: self.name, value: value.to_string(), why: why.to_string() }
    }
}

/// Pieces between commas. A cache policy has parameters with commas of their own (`streaming:sinks=4,window=60`): there a
/// piece that is `name=value` without a policy in front continues the one before. So does the `v=` of `k=q8_0,v=f16`.
fn split(axis: &str, list: &str) -> Vec<String> {
    if axis == "kv_type" {
        return roofline_model::kv_text::pieces(list).into_iter().map(str::to_string).collect();
    }
    let mut pieces: Vec<String> = Vec::new();
    for piece in list.split(',') {
        let continues = match axis {
            "cache" => piece.contains('=') && !piece.contains(':'),
            "kv_type" => piece.trim_start().starts_with("v="),
            _ => false,
        };
        match pieces.last_mut().filter(|_| continues) {
            Some(last) => {
                last.push(',');
                last.push_str(piece);
            }
            None => pieces.push(piece.to_string()),
        }
    }
    pieces
}

/// The file type that a precision stands for; `None` for the weights as they are.
///
/// # Errors
/// What it is not, in words.
pub fn recipe(precision: &str) -> Result<Option<Recipe>, String> {
    if precision == STORED {
        return Ok(None);
    }
    let name = PRECISIONS.iter().find(|(bits, _)| *bits == precision).map_or(precision, |(_, name)| name);
    Recipe::from_name(name).map(Some).map_err(|error| error.to_string())
}

fn text(text: &str) -> Result<Value, String> {
    if text.is_empty() { Err("it is empty".into()) } else { Ok(Value::Text(text.to_string())) }
}

fn precision(text: &str) -> Result<Value, String> {
    let lower = text.to_ascii_lowercase();
    recipe(&lower).map(|_| Value::Text(lower))
}

fn count(text: &str, least: u64, most: u64) -> Result<Value, String> {
    match text.parse::<u64>() {
        Ok(n) if (least..=most).contains(&n) => Ok(Value::Whole(n)),
        _ => Err(format!("it takes whole numbers from {least} to {most}")),
    }
}

fn cap(text: &str) -> Result<Value, String> {
    match TASK_CAPS.iter().find(|(task, _)| *task == text) {
        Some((_, tokens)) => Ok(Value::Whole(*tokens)),
        None => count(text, 1, MOST).map_err(|why| format!("{why}, or vqa, dialogue, code")),
    }
}

fn cache(text: &str) -> Result<Value, String> {
    if text == FIT {
        return Ok(Value::Text(FIT.to_string()));
    }
    text.parse::<CacheSpec>().map(|spec| Value::Text(spec.to_string())).map_err(|error| error.to_string())
}

/// A fixed cache of exactly the tokens that a run may need.
pub const FIT: &str = "static:fit";

fn kv_type(text: &str) -> Result<Value, String> {
    text.parse::<KvFormats>()
        .map(|formats| Value::Text(formats.to_string()))
        .map_err(|error| error.to_string())
}

fn eos(text: &str) -> Result<Value, String> {
    match text {
        "model" | "sentence" | "off" => Ok(Value::Text(text.to_string())),
        _ => Err("it takes model, sentence, off".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_with_the_commas_of_policies_left_alone() {
        assert_eq!(
            split("cache", "full,streaming:sinks=4,window=60,static:9"),
            ["full", "streaming:sinks=4,window=60", "static:9"]
        );
        assert_eq!(split("kv_type", "f16,k=i8,v=f16"), ["f16", "k=i8,v=f16"]);
        assert_eq!(split("kv_type", "f16,k=q8_0,v=f16"), ["f16", "k=q8_0,v=f16"]);
        let caps = find("cap").unwrap().values("vqa,64").unwrap();
        assert_eq!(caps, [Value::Whole(32), Value::Whole(64)]);
    }

    #[test]
    fn wrong_values_and_names_are_refused_with_a_way_out() {
        for (axis, list, words) in [
            ("threads", "0", "whole numbers from 1 to 4096"),
            ("output", "8,8", "given twice"),
            ("output", "x", "whole numbers"),
            ("precision", "w7", "w7"),
            ("cache", "nonsense", "unknown cache policy"),
            ("kv_type", "f99", "available: f32"),
            ("eos", "on", "model, sentence, off"),
            ("model", "", "empty"),
        ] {
            let error = find(axis).unwrap().values(list).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains(axis), "{error}");
        }
        assert!(find("outputs").unwrap_err().to_string().contains("did you mean output"));
    }
}
