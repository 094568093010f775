//! `roofline limits` and `roofline devices`.
#![allow(clippy::unwrap_used)] // helpers outside of #[test] too

mod common;

use common::{complaint, json, roofline, scratch, stdout};

const CARD: [&str; 2] = ["--device", "rtx 4090"];

fn with_card<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [arguments, &CARD].concat()
}

/// 6.98 G + 0.53 G weights of two bytes over 1008 GB/s, with norms, one embedding row and the first token's K and V.
#[test]
fn decode_of_a_preset_is_its_bytes_over_bandwidth() {
    let answer = json(&with_card(&["limits", "llama-3.1-8b", "--json"]));
    let report = &answer["limits"][0]["report"];
    let weights = 2.0
        * (report["parameters"]["layers"].as_f64().unwrap() + report["parameters"]["head"].as_f64().unwrap());
    let b_ms = report["decode"]["b_ms"].as_f64().unwrap();
    let floor_ms = weights / 1008e9 * 1e3;
    assert!(b_ms > floor_ms && b_ms < floor_ms * 1.001, "B = {b_ms} ms, weights alone {floor_ms} ms");
    assert_eq!(report["parameters"]["total"], 8_030_261_248u64);
}

#[test]
fn every_format_holds_the_same_figures() {
    let arguments = with_card(&["limits", "qwen3-8b", "--precision", "w16a16,q4_k_m"]);
    let table = stdout(&arguments);
    let markdown = stdout(&[arguments.as_slice(), &["--format", "markdown"]].concat());
    let csv = stdout(&[arguments.as_slice(), &["--format", "csv"]].concat());
    for word in ["w16a16", "q4_k_m", "turning point, fine", "w_gate_up"] {
        assert!(table.contains(word) && markdown.contains(word), "{word}");
    }
    assert!(markdown.contains("| ---: |"));
    let mut lines = csv.lines();
    assert_eq!(lines.next(), Some("model,device,precision,group,figure,value,unit"));
    let per_precision = |label: &str| csv.lines().filter(|line| line.contains(&format!(",{label},"))).count();
    assert!(per_precision("w16a16") > 60);
    assert_eq!(per_precision("w16a16"), per_precision("q4_k_m"));
    assert!(lines.all(|line| line.starts_with("Qwen3-8B,RTX 4090,")));
    for word in ["NaN", "inf"] {
        assert!(!table.contains(word) && !csv.contains(word), "{word}");
    }
}

#[test]
fn the_explanation_puts_numbers_into_formulas() {
    let text = stdout(&with_card(&["limits", "pythia-1.4b", "--explain"]));
    assert!(text.contains("= layers·kv_heads·slot\n    = 24·16·512\n    = 196608 bytes"), "{text}");
    assert!(text.contains("vendor_units (on): "));
}

#[test]
fn the_paper_profile_has_its_own_units() {
    let b = |profile| {
        let answer = json(&with_card(&["limits", "Qwen1.5-7B", "--profile", profile, "--json"]));
        answer["limits"][0]["report"]["decode"]["b_ms"].as_f64().unwrap()
    };
    // 1008 · 2³⁰ against 1008 · 10⁹ bytes per second, and little else.
    let ratio = b("si") / b("paper");
    assert!((1.07..1.08).contains(&ratio), "{ratio}");
}

#[test]
fn questions_beyond_one_user_are_answered() {
    let arguments = [
        "limits",
        "llama-3.1-8b",
        "--speculate",
        "0.7",
        "--serve",
        "300",
        "--chunk",
        "256",
        "--policy",
        "quest",
    ];
    let text = stdout(&with_card(&arguments));
    for title in [
        "Speculation at acceptance 0.7",
        "Serving prompts of 1,000",
        "Prompt in chunks of 256",
        "quest:budget=1024",
    ] {
        assert!(text.contains(title), "{title}");
    }
    let answer = json(&[with_card(&arguments).as_slice(), &["--json"]].concat());
    assert_eq!(answer["limits"][0]["beyond"].as_array().unwrap().len(), 4);
}

#[test]
fn a_plot_is_drawn() {
    let path = scratch("limits.svg");
    let text = stdout(&with_card(&["limits", "olmoe-1b-7b", "--plot", path.to_str().unwrap()]));
    assert!(text.contains("Drawn in"));
    let svg = std::fs::read_to_string(path).unwrap();
    assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n") && svg.contains("experts"), "{svg}");
}

#[test]
fn a_configuration_is_enough() {
    let folder = scratch("config-only");
    std::fs::create_dir_all(&folder).unwrap();
    let config = r#"{"model_type": "llama", "hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 4,
        "num_attention_heads": 8, "num_key_value_heads": HEADS, "vocab_size": 1000, "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5, "tie_word_embeddings": true}"#;
    let path = folder.join("config.json");
    std::fs::write(&path, config.replace("HEADS", "4")).unwrap();
    for model in [&folder, &path] {
        assert!(stdout(&with_card(&["limits", model.to_str().unwrap()])).contains("config-only on RTX 4090"));
    }
    std::fs::write(&path, config.replace("HEADS", "3")).unwrap();
    let refused = complaint(&with_card(&["limits", folder.to_str().unwrap()]));
    assert!(refused.contains('8') && refused.contains('3'), "{refused}");
}

#[test]
fn stored_formats_count_where_there_are_weights() {
    let Some(demo) = shared("models/demo") else { return };
    let answer = json(&with_card(&["limits", demo.to_str().unwrap(), "--json"]));
    let report = &answer["limits"][0]["report"];
    assert!(report["precision"]["label"].as_str().unwrap().starts_with("as stored: "), "{report}");
    let per_weight =
        report["memory"]["weight_bytes"].as_f64().unwrap() / report["parameters"]["total"].as_f64().unwrap();
    assert!((1.9..4.1).contains(&per_weight), "{per_weight} bytes per weight");
}

/// Data that is not part of the project.
fn shared(path: &str) -> Option<std::path::PathBuf> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data").join(path);
    if !path.exists() {
        println!("skipped: no {}", path.display());
        return None;
    }
    Some(path)
}

#[test]
fn nonsense_is_refused_with_what_would_do() {
    for (arguments, word) in [
        (vec!["limits", "llama-3.1-8"], "Llama-3.1-8B"),
        (vec!["limits", "llama-3.1-8b", "--device", "rtx 4091"], "RTX 4090"),
        (vec!["limits", "no/such/folder"], "there is no file or folder"),
        (vec!["limits", "llama-3.1-8b", "--device", "4090", "--batch", "0"], "--batch is 0"),
        (vec!["limits", "llama-3.1-8b", "--device", "4090", "--context=-1"], "--context is -1"),
        (vec!["limits", "llama-3.1-8b", "--device", "4090", "--prompt", "1e9"], "whole number"),
        (vec!["limits", "llama-3.1-8b", "--device", "4090", "--precision", "w5b"], "w4a16kv8"),
        (vec!["limits", "llama-3.1-8b", "--device", "4090", "--speculate", "2"], "acceptance"),
        (
            vec!["limits", "llama-3.1-8b", "--device", "4090", "--policy", "snap"],
            "unknown cache policy `snap`",
        ),
        (vec!["limits"], "<MODEL>"),
        (vec!["devices", "rtx 9999"], "RTX"),
        (vec!["devices", "--devices", "/no/such.toml"], "/no/such.toml"),
    ] {
        let said = complaint(&arguments);
        assert!(said.contains(word), "{arguments:?}: {said}");
    }
}

#[test]
fn the_device_table_names_sources() {
    let page = stdout(&["devices", "NVIDIA GeForce RTX 4090"]);
    assert!(page.contains("bf16, f32 accumulate") && page.contains("[1] "), "{page}");
    let all = json(&["devices", "--json"]);
    assert!(all["devices"].as_array().unwrap().len() > 50);
}

#[test]
fn users_add_their_own_devices() {
    let own = scratch("own-config");
    let folder = own.join("roofline");
    std::fs::create_dir_all(&folder).unwrap();
    let card = "[[device]]\nname = \"Workshop card\"\nmemory_gib = [24]\nbandwidth_gb_s = 900\npeak_tflops = { f32 = 40 }\n";
    std::fs::write(folder.join("devices.toml"), card).unwrap();
    let output = roofline(&["devices", "workshop card"]).env("XDG_CONFIG_HOME", &own).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("900 GB/s") && text.contains("user's file"), "{text}");
    std::fs::write(folder.join("devices.toml"), card.replace("900", "-900")).unwrap();
    let output =
        roofline(&["limits", "qwen3-8b", "--device", "4090"]).env("XDG_CONFIG_HOME", &own).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("Workshop card"));
}

#[test]
fn this_machine_can_be_asked_about_before_it_was_measured() {
    let output = roofline(&["limits", "pythia-70m", "--json"])
        .env("XDG_CONFIG_HOME", scratch("empty-config"))
        .output()
        .unwrap();
    assert!(output.status.success());
    assert!(String::from_utf8(output.stderr).unwrap().contains("never measured"));
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["device"]["bandwidth"]["confidence"], "Probe");
}
