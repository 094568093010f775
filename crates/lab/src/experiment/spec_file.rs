//! An experiment of one's own, as a TOML file.

use std::path::Path;

use roofline_model::nearest::nearest;
use toml::{Table, Value as Toml};

use super::axes;
use super::error::ExperimentError;
use super::ordered::Ordered;
use super::presets::{SEED, WARM_UP};
use super::rows::Value;
use super::spec::{Analysis, Prompts, Spec};
use crate::error::LabError;

const KEYS: [&str; 9] =
    ["question", "analysis", "repeats", "warm_up", "prompts", "temperature", "quality", "seed", "axes"];

/// Longest file that is read; a grid is a few lines.
const MOST_BYTES: u64 = 1 << 20;

impl Spec {
    /// Reads a specification; its name is the file's.
    ///
    /// # Errors
    /// No such file, or what is wrong in it: unknown keys with the nearest name, values out of range.
    pub fn read(path: &Path) -> Result<Spec, LabError> {
        let failed = |source| LabError::File { action: "read", path: path.to_path_buf(), source };
        let bytes = std::fs::metadata(path).map_err(failed)?.len();
        let wrong = |why: String| ExperimentError::SpecFile { path: path.to_path_buf(), why };
        if bytes > MOST_BYTES {
            return Err(wrong(format!("{bytes} bytes are no specification")).into());
        }
        let text = std::fs::read_to_string(path).map_err(failed)?;
        let name = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy();
        Spec::from_toml(&text, &name).map_err(|error| wrong(error.to_string()).into())
    }

    /// The same from text.
    ///
    /// # Errors
    /// As [`Spec::read`].
    pub fn from_toml(text: &str, name: &str) -> Result<Spec, ExperimentError> {
        let bad = |why: String| ExperimentError::Spec(why);
        let table: Table =
            text.parse().map_err(|error: toml::de::Error| bad(one_line(&error.to_string())))?;
        if let Some(key) = table.keys().find(|key| !KEYS.contains(&key.as_str())) {
            return Err(unknown(key, &KEYS));
        }
        let mut spec = Spec {
            name: name.to_string(),
            question: "What do these cells measure?".to_string(),
            analysis: Analysis::Plain,
            axes: Ordered::default(),
            repeats: 5,
            warm_up: WARM_UP,
            prompts: Prompts::Text,
            temperature: 0.0,
            quality: false,
            seed: SEED,
        };
        if let Some(value) = table.get("question") {
            spec.question = text_of("question", value)?.to_string();
        }
        if let Some(value) = table.get("analysis") {
            spec.analysis = choice("analysis", value)?;
        }
        if let Some(value) = table.get("prompts") {
            spec.prompts = choice("prompts", value)?;
        }
        if let Some(value) = table.get("repeats") {
            spec.repeats = count("repeats", value)? as usize;
        }
        if let Some(value) = table.get("warm_up") {
            spec.warm_up = count("warm_up", value)? as usize;
        }
        if let Some(value) = table.get("seed") {
            spec.seed = count("seed", value)?;
        }
        if let Some(value) = table.get("temperature") {
            let number = value.as_float().or_else(|| value.as_integer().map(|n| n as f64));
            spec.temperature = number.ok_or_else(|| bad(format!("temperature: `{value}` is no number")))?;
        }
        if let Some(value) = table.get("quality") {
            spec.quality =
                value.as_bool().ok_or_else(|| bad(format!("quality: `{value}` is not true or false")))?;
        }
        let axes = table.get("axes").and_then(Toml::as_table);
        for (axis, values) in axes.ok_or_else(|| bad("there is no table [axes]".into()))? {
            spec.axes.set(axis, values_of(axis, values)?);
        }
        spec.expand();
        spec.cells()?;
        Ok(spec)
    }

    /// Sets an axis or `temperature` from `key=v1,v2`, as on the command line.
    ///
    /// # Errors
    /// No `=`, an unknown key, a value that the axis does not take.
    pub fn set(&mut self, assignment: &str) -> Result<(), ExperimentError> {
        let Some((key, list)) = assignment.split_once('=') else {
            return Err(ExperimentError::Spec(format!("`{assignment}` is no key=value")));
        };
        if key == "temperature" {
            let number = list.parse::<f64>();
            self.temperature =
                number.map_err(|_| ExperimentError::Spec(format!("temperature: `{list}` is no number")))?;
            return Ok(());
        }
        let values = axes::find(key)?.values(list)?;
        // The two ways of giving a length exclude each other: the later one stands.
        match key {
            "output" => ["cap", "eos"].iter().for_each(|axis| self.axes.remove(axis)),
            "cap" => self.axes.remove("output"),
            _ => {}
        }
        self.axes.set(key, values);
        Ok(())
    }
}

fn unknown(key: &str, known: &[&str]) -> ExperimentError {
    ExperimentError::Key { key: key.to_string(), nearest: nearest(key, known.iter().copied(), 2) }
}

/// One value or a list of them; each is read as it would be on the command line.
fn values_of(axis: &str, values: &Toml) -> Result<Vec<Value>, ExperimentError> {
    let axis = axes::find(axis)?;
    let single = std::slice::from_ref(values);
    let mut all = Vec::new();
    for value in values.as_array().map_or(single, Vec::as_slice) {
        let text = match value {
            Toml::String(text) => text.clone(),
            Toml::Integer(n) => n.to_string(),
            other => {
                return Err(ExperimentError::AxisValue {
                    axis: axis.name,
                    value: other.to_string(),
                    why: "it takes whole numbers and texts".into(),
                });
            }
        };
        let value = axis.value(&text)?;
        if all.contains(&value) {
            let why = "it is given twice".to_string();
            return Err(ExperimentError::AxisValue { axis: axis.name, value: text, why });
        }
        all.push(value);
    }
    Ok(all)
}

fn text_of<'t>(key: &str, value: &'t Toml) -> Result<&'t str, ExperimentError> {
    value.as_str().ok_or_else(|| ExperimentError::Spec(format!("{key}: `{value}` is no text")))
}

fn count(key: &str, value: &Toml) -> Result<u64, ExperimentError> {
    let number = value.as_integer().and_then(|n| u64::try_from(n).ok());
    number.ok_or_else(|| ExperimentError::Spec(format!("{key}: `{value}` is no whole number")))
}

/// One of an enumeration's names, as serde writes them.
fn choice<T: serde::de::DeserializeOwned>(key: &str, value: &Toml) -> Result<T, ExperimentError> {
    let text = text_of(key, value)?;
    let named = serde::de::value::StrDeserializer::<serde::de::value::Error>::new(text);
    T::deserialize(named).map_err(|error| ExperimentError::Spec(format!("{key}: {error}")))
}

/// The reason of a TOML error without its drawing of the place.
fn one_line(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    match lines.as_slice() {
        [first, .., last] => format!("{first}: {last}"),
        _ => lines.concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "question = \"q?\"\nrepeats = 3\nseed = 7\n[axes]\nthreads = [1, 2]\noutput = 16\ncache = \
                        [\"full\", \"static:99\"]\n";

    #[test]
    fn a_file_becomes_a_spec_with_its_defaults() {
        let spec = Spec::from_toml(GOOD, "mine").unwrap();
        assert_eq!((spec.name.as_str(), spec.repeats, spec.seed), ("mine", 3, 7));
        assert_eq!(spec.axes.get("threads").unwrap(), &[Value::Whole(1), Value::Whole(2)]);
        assert_eq!(spec.axes.get("model").unwrap(), &[Value::Text("demo".into())]);
        assert_eq!(spec.cells().unwrap().len(), 4);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, words) in [
            ("", "no table [axes]"),
            ("x = [", "TOML parse error"),
            ("repeat = 3\n[axes]\noutput = 1", "did you mean repeats"),
            ("[axes]\noutputs = 1", "did you mean output"),
            ("[axes]\noutput = 1.5", "whole numbers and texts"),
            ("[axes]\noutput = [1, 1]", "twice"),
            ("[axes]\nthreads = 2", "give output"),
            ("analysis = \"magic\"\n[axes]\noutput = 1", "unknown variant `magic`"),
            ("repeats = -1\n[axes]\noutput = 1", "no whole number"),
            ("repeats = 0\n[axes]\noutput = 1", "repeats 0"),
            ("temperature = \"hot\"\n[axes]\noutput = 1", "no number"),
        ] {
            let error = Spec::from_toml(text, "x").unwrap_err().to_string();
            assert!(error.contains(words) && error.lines().count() == 1, "{text:?}: {error}");
        }
    }

    #[test]
    fn settings_of_the_command_line_replace_values() {
        let mut spec = Spec::from_toml(GOOD, "x").unwrap();
        spec.set("cap=vqa,64").unwrap();
        spec.set("temperature=0.5").unwrap();
        spec.expand();
        assert_eq!(spec.axes.get("cap").unwrap(), &[Value::Whole(32), Value::Whole(64)]);
        assert_eq!((spec.axes.get("output"), spec.temperature), (None, 0.5));
        assert_eq!(spec.axes.get("eos").unwrap(), &[Value::Text("model".into())]);
        spec.set("output=4").unwrap();
        assert_eq!((spec.axes.get("cap"), spec.axes.get("eos")), (None, None));
        assert!(spec.set("threads").unwrap_err().to_string().contains("no key=value"));
    }
}
