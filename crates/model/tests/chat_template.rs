//! Chat templates against what transformers renders (`tools/golden_templates.py`), and what they say about stopping.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::{Duration, UNIX_EPOCH};

use roofline_model::ChatTemplate;
use roofline_model::chat_template::{Message, RenderOptions, TemplateError};
use serde_json::Value;

fn options(golden: &Value) -> RenderOptions {
    let mut extra = golden.as_object().unwrap().clone();
    let add_generation_prompt = extra.remove("add_generation_prompt").unwrap().as_bool().unwrap();
    RenderOptions {
        add_generation_prompt,
        bos_token: Some("<s>".to_string()),
        eos_token: Some("</s>".to_string()),
        extra,
        now: UNIX_EPOCH + Duration::from_secs(1_735_689_599),
    }
}

fn messages(golden: &Value) -> Vec<Message> {
    let text = |message: &Value, key: &str| message[key].as_str().unwrap().to_string();
    let list = golden.as_array().unwrap();
    list.iter().map(|message| Message::new(text(message, "role"), text(message, "content"))).collect()
}

#[test]
fn renders_as_transformers_does() {
    let goldens: Value = serde_json::from_str(include_str!("golden/templates.json")).unwrap();
    let (mut compared, mut wrong) = (0, Vec::new());
    for (name, template) in goldens["templates"].as_object().unwrap() {
        let template = ChatTemplate::new(template.as_str().unwrap()).unwrap();
        for (which, conversation) in goldens["conversations"].as_object().unwrap() {
            let golden = &goldens["rendered"][name][which];
            let rendered =
                template.render(&messages(&conversation["messages"]), &options(&conversation["options"]));
            match (golden["text"].as_str(), rendered) {
                (Some(expected), Ok(text)) if text == expected => {}
                (None, Err(TemplateError::Refused(message))) if message == golden["refused"] => {}
                (_, other) => {
                    wrong.push(format!("{name}, {which}: {other:?} where transformers has {golden}"))
                }
            }
            compared += 1;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(compared, 11 * 9);
}

#[test]
fn phi_3_ends_its_turn_with_its_own_token() {
    let Some(header) = support::shared_header("tokenizers/ggml-vocab-phi-3.gguf") else { return };
    let tokenizer = roofline_model::Tokenizer::from_gguf(&header.metadata).unwrap();
    let template = ChatTemplate::from_gguf(&header.metadata).unwrap().unwrap();
    let text = template.render(&[Message::new("user", "Hi")], &RenderOptions::of(&tokenizer)).unwrap();
    assert_eq!(text, "<s><|user|>\nHi<|end|>\n<|assistant|>\n");
    let end = template.end_of_turn(&tokenizer).unwrap();
    assert_eq!(end, tokenizer.id("<|end|>"));
    assert!(end.is_some() && tokenizer.end_of_turn_ids().contains(&end.unwrap()));
    assert!(tokenizer.end_of_turn_ids().contains(&tokenizer.eos().unwrap()));
    assert!(template.source().contains("<|assistant|>"));
}

#[test]
fn the_end_of_a_turn_is_what_follows_the_answer() {
    let Some(dir) = support::shared_data("configs/molmoe-1b/tokenizer") else { return };
    let tokenizer = roofline_model::Tokenizer::from_hf_dir(dir).unwrap();
    let end = |template: &str| ChatTemplate::new(template).unwrap().end_of_turn(&tokenizer).unwrap();
    let all = "{% for m in messages %}{{ '<im_start>' + m.role + ' ' + m.content }}";
    assert_eq!(end(&format!("{all}<im_end>\n{{% endfor %}}")), tokenizer.id("<im_end>"));
    assert_eq!(end(&format!("{all}    \n <im_end>{{% endfor %}}")), tokenizer.id("<im_end>"), "after blanks");
    assert_eq!(end(&format!("{all} {{{{ eos_token }}}}{{% endfor %}}<im_end>")), tokenizer.eos());
    assert_eq!(end(&format!("{all} User:<im_end>{{% endfor %}}")), None, "text comes first");
    assert_eq!(end(&format!("{all}{{% endfor %}}")), None);
    assert_eq!(end("{{ messages[0].content }}<im_end>"), None, "the answer is not in it");
}

#[test]
fn templates_come_from_every_place_they_are_kept() {
    let none = ChatTemplate::from_tokenizer_config(b"{\"chat_template\": null}").unwrap();
    assert!(none.is_none());
    assert!(ChatTemplate::from_tokenizer_config(b"{}").unwrap().is_none());
    let list =
        br#"{"chat_template": [{"name": "rag", "template": "R"}, {"name": "default", "template": "D"}]}"#;
    let template = ChatTemplate::from_tokenizer_config(list).unwrap().unwrap();
    assert_eq!((template.names().collect::<Vec<_>>(), template.source()), (vec!["rag", "default"], "D"));
    assert_eq!(template.clone().choose("rag").unwrap().source(), "R");
    assert!(template.choose("tool_use").unwrap_err().to_string().ends_with("it has rag, default"));

    let dir = std::env::temp_dir().join(format!("roofline-template-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    assert!(ChatTemplate::from_hf_dir(&dir).unwrap().is_none());
    std::fs::write(dir.join("tokenizer_config.json"), r#"{"chat_template": "config"}"#).unwrap();
    assert_eq!(ChatTemplate::from_hf_dir(&dir).unwrap().unwrap().source(), "config");
    std::fs::write(dir.join("chat_template.jinja"), "file").unwrap();
    assert_eq!(ChatTemplate::from_hf_dir(&dir).unwrap().unwrap().source(), "file");
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn templates_of_a_gguf_file_by_name() {
    use roofline_weights::gguf::{Array, Metadata, Value as Gguf};
    let mut metadata = Metadata::new("test");
    assert!(ChatTemplate::from_gguf(&metadata).unwrap().is_none());
    metadata.set("tokenizer.chat_template", Gguf::Str("D".to_string()));
    metadata.set("tokenizer.chat_templates", Gguf::Array(Array::Str(["tool_use"].into_iter().collect())));
    let error = ChatTemplate::from_gguf(&metadata).unwrap_err().to_string();
    assert!(error.contains("tokenizer.chat_template.tool_use"), "{error}");
    metadata.set("tokenizer.chat_template.tool_use", Gguf::Str("T".to_string()));
    let template = ChatTemplate::from_gguf(&metadata).unwrap().unwrap();
    assert_eq!(template.source(), "D");
    assert_eq!(template.choose("tool_use").unwrap().source(), "T");
}

#[test]
fn bad_templates_are_errors_with_their_line() {
    for bad in ["{% if %}", "{{ a", "{% endfor %}", "x\n{% generation %}", "{{ a b }}", "{% raw %}"] {
        let error = ChatTemplate::new(bad).unwrap_err();
        assert!(matches!(error, TemplateError::Syntax { line: 1.., .. }), "{bad}: {error:?}");
    }
    for bad in [&b"[]"[..], b"{", b"\xFF", b"{\"chat_template\": 3}", b"{\"chat_template\": [{\"name\": 1}]}"]
    {
        let result = ChatTemplate::from_tokenizer_config(bad);
        assert!(matches!(result, Err(TemplateError::Config(_)) | Ok(None)), "{bad:?}: {result:?}");
    }
}

/// A template is a program from somewhere: it may fail, it may not hang or take the process down.
#[test]
fn hostile_templates_end_in_an_error() {
    let options = options(&serde_json::json!({"add_generation_prompt": false}));
    for bad in [
        "{{ messages.x.y }}",
        "{{ messages[9].content.z }}",
        "{{ 1 // 0 }}",
        "{{ 'a' * 100000000000000 }}",
        "{{ range(100000000000) | length }}",
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% include 'default' %}",
        "{{ strftime_now('%Q') }}",
        "{{ missing | tojson }}",
        "{{ [1] | tojson(separators=['x']) }}",
        "{{ [1] | tojson(colour=1) }}",
        "{{ namespace | tojson }}",
    ] {
        let template = ChatTemplate::new(bad).unwrap();
        let result = template.render(&[Message::new("user", "Hi")], &options);
        assert!(matches!(result, Err(TemplateError::Render { .. })), "{bad}: {result:?}");
    }
}
