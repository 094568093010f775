//! The Jinja environment that transformers runs chat templates in.

use std::collections::BTreeMap;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State, Value};
use minijinja_contrib::pycompat;

use super::{Message, RenderOptions, TemplateError, clock, json};

/// Steps that one rendering may take. A message costs 19 (ChatML) to 54 (Qwen3) of them, so this is enough for more than
/// a hundred thousand messages; a template that only loops is stopped within a second.
const STEPS: u64 = 10_000_000;

/// What `raise_exception` was called with, carried through minijinja's error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

/// An environment with `(name, text)` templates in it.
pub(super) fn with_templates(sources: &[(String, String)]) -> Result<Environment<'static>, TemplateError> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(STEPS));
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_unknown_method_callback(pycompat::unknown_method_callback);
    environment.set_formatter(write_as_python);
    environment.add_function("raise_exception", raise_exception);
    environment.add_filter("tojson", json::tojson);
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    let syntax = syntax.map_err(|error| syntax_error("syntax", &error))?;
    environment.set_syntax(syntax);
    for (name, text) in sources {
        let added = environment.add_template_owned(name.clone(), without_generation_tags(text));
        added.map_err(|error| syntax_error(name, &error))?;
    }
    Ok(environment)
}

/// The names that a template sees.
pub(super) fn context(messages: &[Message], options: &RenderOptions) -> Value {
    let mut names = vec![
        ("messages", Value::from_iter(messages)),
        ("add_generation_prompt", Value::from(options.add_generation_prompt)),
        // transformers always passes these two.
        ("tools", Value::from(())),
        ("documents", Value::from(())),
        ("strftime_now", Value::from_function(clock::at(options.now))),
    ];
    // A token the model lacks stays undefined, which prints as nothing.
    names.extend(options.bos_token.as_deref().map(|text| ("bos_token", Value::from(text))));
    names.extend(options.eos_token.as_deref().map(|text| ("eos_token", Value::from(text))));
    names.extend(options.extra.iter().map(|(name, value)| (name.as_str(), Value::from(Serde(value)))));
    Value::from(names.into_iter().collect::<BTreeMap<_, _>>())
}

/// The error of a rendering in this crate's terms.
pub(super) fn render_error(name: &str, error: &Error) -> TemplateError {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(cause) = source {
        if let Some(Raised(message)) = cause.downcast_ref() {
            return TemplateError::Refused(message.clone());
        }
        source = cause.source();
    }
    let (line, message) = place(error);
    TemplateError::Render { name: name.to_string(), line, message }
}

fn syntax_error(name: &str, error: &Error) -> TemplateError {
    let (line, message) = place(error);
    TemplateError::Syntax { name: name.to_string(), line, message }
}

fn place(error: &Error) -> (usize, String) {
    let detail = error.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
    (error.line().unwrap_or(0), format!("{}{detail}", error.kind()))
}

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Raised(message)))
}

/// `True`, `False` and `None`, where minijinja writes them small.
fn write_as_python(out: &mut Output, state: &mut State, value: &Value) -> Result<(), Error> {
    let word = match value.kind() {
        ValueKind::Bool if value.is_true() => "True",
        ValueKind::Bool => "False",
        ValueKind::None => "None",
        _ => return minijinja::escape_formatter(out, state, value),
    };
    out.write_str(word).map_err(Error::from)
}

/// Puts `{% with %}` … `{% endwith %}` in place of `{% generation %}` … `{% endgeneration %}`, which mark the
/// assistant's words for training and write nothing.
fn without_generation_tags(template: &str) -> String {
    let mut result = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(start) = rest.find("{%") {
        let open = start + 2;
        let Some(length) = rest[open..].find("%}") else { break };
        let close = open + length;
        let inside = &rest[open..close];
        let word = inside.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        let plain = match word {
            "generation" => Some("with"),
            "endgeneration" => Some("endwith"),
            _ => None,
        };
        result.push_str(&rest[..open]);
        match plain {
            Some(plain) => result.push_str(&inside.replace(word, plain)),
            None => result.push_str(inside),
        }
        result.push_str("%}");
        rest = &rest[close + 2..];
    }
    result.push_str(rest);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generation_tags_keep_their_white_space_control() {
        let template = "a {%- generation -%} b {% if generation %}c{% endif %}{% endgeneration +%} d {% open";
        let plain = "a {%- with -%} b {% if generation %}c{% endif %}{% endwith +%} d {% open";
        assert_eq!(without_generation_tags(template), plain);
    }

    #[test]
    fn a_tag_that_is_opened_and_closed_by_one_percent_sign() {
        assert_eq!(without_generation_tags("{%} x %} y"), "{%} x %} y");
        assert_eq!(without_generation_tags("{%}"), "{%}");
    }
}
