//! `roofline ppl`.
#![allow(clippy::unwrap_used)] // helpers outside of #[test] too

mod common;

use std::fs;
use std::path::PathBuf;

use common::model::golden;
use common::{complaint, json, scratch, stdout};

const SENTENCE: &str = "It was the best of times, it was the worst of times, it was the age of wisdom.\n";

/// A file of this test's own.
fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let folder = scratch("ppl");
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join(name);
    fs::write(&path, bytes).unwrap();
    path
}

fn text(name: &str) -> String {
    file(name, SENTENCE.repeat(40).as_bytes()).to_str().unwrap().to_string()
}

#[test]
fn every_number_names_what_it_depends_on() {
    let text = text("names.txt");
    let shown = stdout(&["ppl", "demo", "--text", &text, "--context", "64"]);
    for words in [
        "names.txt: 3,160 bytes, 721 words,",
        "sha256 ",
        "half-chunk: llama.cpp's llama-perplexity",
        "none: the tokenizer adds none",
        "64 tokens, stride 64,",
        "tokens 33 to 63 of each window, 31 of 64",
        "that the scored tokens decode to",
        "full, f32",
        "token perplexity",
        "word perplexity",
        "byte perplexity",
        "bits per byte",
        "if tokens were independent",
        "tok/s",
        "live,",
        "33 to 36",
    ] {
        assert!(shown.contains(words), "{words} is missing in:\n{shown}");
    }
    assert!(!shown.contains("KL"), "{shown}");
}

#[test]
fn json_holds_the_plan_and_the_figures_of_every_convention() {
    let text = text("json.txt");
    for (convention, context, bos) in [
        ("half-chunk", 64, "none: the tokenizer adds none"),
        ("strided", 64, "none: the tokenizer adds none"),
        ("rolling-doc", 64, "<|endoftext|> (0) before each text, nothing else added"),
    ] {
        let report =
            json(&["ppl", "demo", "--text", &text, "--convention", convention, "--context", "64", "--json"]);
        assert_eq!(
            (report["convention"].as_str(), report["context"].as_u64()),
            (Some(convention), Some(context))
        );
        assert_eq!(report["bos_handling"], bos);
        assert_eq!(report["texts"][0]["whole"]["bytes"], 3160);
        assert_eq!(report["texts"][0]["sha256"].as_str().unwrap().len(), 64);
        assert!(report["reference"].is_null() && report["rows"].as_array().unwrap().len() == 1);
        let row = &report["rows"][0];
        let (token, nll) = (&row["perplexity"]["token"], &row["perplexity"]["nll"]);
        assert!((token["value"].as_f64().unwrap().ln() - nll["value"].as_f64().unwrap()).abs() < 1e-9);
        assert!(token["standard_error"].as_f64().unwrap() > 0.0);
        assert!(row["kv"]["live"].as_u64().unwrap() > 0 && row["against"].is_null());
        assert!(row["buckets"].as_array().unwrap().len() > 1);
    }
    let whole = json(&["ppl", "demo", "--text", &text, "--convention", "rolling-doc", "--json"]);
    assert_eq!(whole["rows"][0]["perplexity"]["tokens"], whole["texts"][0]["tokens"]);
    assert_eq!(whole["counts"], whole["texts"][0]["whole"]);
}

#[test]
fn a_text_is_cut_and_told_and_files_are_documents() {
    let text = text("cut.txt");
    let report = json(&["ppl", "demo", "--text", &text, "--tokens", "100", "--context", "50", "--json"]);
    assert_eq!((report["tokens"].as_u64(), report["windows"].as_u64()), (Some(100), Some(2)));
    let shown = stdout(&["ppl", "demo", "--text", &text, "--tokens", "100", "--context", "50"]);
    assert!(shown.contains("the first 100 of "), "{shown}");
    let rolling = ["ppl", "demo", "--convention", "rolling-doc", "--json", "--text", &text];
    let (one, two) = (json(&rolling), json(&[&rolling[..], &["--text", &text]].concat()));
    let nll = |report: &serde_json::Value| report["rows"][0]["perplexity"]["nll"]["value"].as_f64().unwrap();
    assert_eq!(two["texts"].as_array().unwrap().len(), 2);
    assert!((nll(&one) - nll(&two)).abs() < 1e-12);
}

#[test]
fn bos_replaces_the_first_token_of_each_window_where_the_tokenizer_adds_one() {
    let (text, model) = (text("bos.txt"), golden("llama_gqa_tied"));
    let report = json(&["ppl", model.to_str().unwrap(), "--text", &text, "--context", "32", "--json"]);
    assert_eq!(report["bos"], 0);
    assert_eq!(report["bos_handling"], "<|begin_of_text|> (0) replaces the first token of each window");
}

#[test]
fn against_pairs_token_by_token() {
    let text = text("against.txt");
    let base = ["ppl", "demo", "--text", &text, "--context", "64", "--json", "--against"];
    let same = json(&[&base[..], &["full", "--kv-type", "f16"]].concat());
    assert_eq!(same["rows"][0]["against"]["kl_max"], 0.0);
    let narrow = json(&[&base[..], &["f32", "--kv-type", "bf16", "--mode", "decode"]].concat());
    assert_eq!((narrow["mode"].as_str(), narrow["prompt"].as_u64()), (Some("decode"), Some(32)));
    assert_eq!(narrow["reference"]["kv_type"], "f32");
    let against = &narrow["rows"][0]["against"];
    assert!(against["kl"]["value"].as_f64().unwrap() > 0.0);
    assert!(against["same_top"].as_f64().unwrap() > 0.9);
    let shown = stdout(&[
        "ppl",
        "demo",
        "--text",
        &text,
        "--context",
        "64",
        "--against",
        "full",
        "--kv-type",
        "bf16",
    ]);
    assert!(shown.contains("reference") && shown.contains("Δ nats ± 95 %"), "{shown}");
}

#[test]
fn sweeps_multiply_and_the_reference_stands_first() {
    let (text, csv) = (text("sweep.txt"), scratch("ppl-sweep.csv"));
    let arguments = [
        "ppl",
        "demo",
        "--text",
        &text,
        "--context",
        "64",
        "--sweep",
        "cache=full,static:64",
        "--sweep",
        "kv-type=f32,f16",
        "--csv",
        csv.to_str().unwrap(),
    ];
    let report = json(&[&arguments[..], &["--json"]].concat());
    let rows: Vec<(&str, &str)> = (report["rows"].as_array().unwrap().iter())
        .map(|row| (row["cache"].as_str().unwrap(), row["kv_type"].as_str().unwrap()))
        .collect();
    assert_eq!(rows, [("full", "f16"), ("static:64", "f32"), ("static:64", "f16")]);
    assert_eq!(report["rows"][1]["against"]["kl_max"], 0.0);
    assert_eq!(report["reference"]["kv_type"], "f32");

    let table = stdout(&arguments);
    assert_eq!(table.matches("static:64").count(), 2, "{table}");
    let lines = fs::read_to_string(&csv).unwrap();
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!(lines.len(), 5);
    // The words of the scored range are in quotes; no other cell has a comma.
    let cells = |line: &str| line.split('"').step_by(2).collect::<String>().split(',').count();
    assert!(lines.iter().all(|line| cells(line) == cells(lines[0])), "{lines:?}");
}

#[test]
fn bad_input_is_one_line() {
    let text = text("bad.txt");
    let (empty, short) = (file("empty.txt", b""), file("short.txt", b"It was"));
    let latin = file("latin.txt", b"caf\xe9 noir");
    let nowhere = scratch("ppl").join("nowhere").join("x.csv");
    let plain = golden("gpt_neox_sequential");
    let path = |path: &PathBuf| path.to_str().unwrap().to_string();
    for (arguments, words) in [
        (vec!["--text", &path(&empty)], "empty.txt is empty"),
        (vec!["--text", &path(&short)], "is too short: half-chunk needs at least 512, one window"),
        (
            vec!["--text", &path(&short), "--convention", "strided", "--tokens", "1"],
            "strided needs at least 2",
        ),
        (vec!["--text", &path(&latin)], "the byte at 3 begins no UTF-8 character"),
        (vec!["--text", "no-such-file"], "--text no-such-file: "),
        (vec![], "--text"),
        (vec!["--text", &text, "--stride", "0", "--convention", "strided"], "--stride 0 is not possible"),
        (
            vec!["--text", &text, "--stride", "65", "--context", "64", "--convention", "strided"],
            "--stride 65",
        ),
        (vec!["--text", &text, "--stride", "32", "--context", "64"], "windows of half-chunk do not overlap"),
        (vec!["--text", &text, "--context", "0"], "--context 0 is not possible"),
        (vec!["--text", &text, "--tokens", "0"], "--tokens 0 is not possible"),
        (vec!["--text", &text, "--tokens", "x"], "invalid value 'x'"),
        (vec!["--text", &text, "--convention", "half-chnk"], "did you mean half-chunk?"),
        (vec!["--text", &text, "--convention", "rolling"], "did you mean rolling-doc?"),
        (vec!["--text", &text, "--cache", "ful"], "unknown cache policy `ful`"),
        (vec!["--text", &text, "--kv-type", "q9"], "no format `q9`"),
        (vec!["--text", &text, "--against", "half"], "invalid value 'half'"),
        (vec!["--text", &text, "--sweep", "cach=full"], "`cach` is no axis"),
        (vec!["--text", &text, "--sweep", "cache="], "a value is missing"),
        (vec!["--text", &text, "--sweep", "cache=full"], "names only the reference itself"),
        (vec!["--text", &text, "--sweep", "kv-type=f16,f17"], "no format `f17`"),
        (vec!["--text", &text, "--sweep", "cache=full", "--cache", "static:9"], "were both given"),
        (vec!["--text", &text, "--buckets", "0"], "--buckets 0 is not possible: it takes 1 to 1000"),
        (vec!["--text", &text, "--prompt", "9"], "--prompt is for decode mode"),
        (vec!["--text", &text, "--mode", "decode", "--prompt", "0", "--context", "64"], "--prompt 0"),
        (vec!["--text", &text, "--context", "64", "--cache", "static:9"], "static:9 is full"),
        (vec!["--text", &text, "--context", "64", "--csv", &path(&nowhere)], "--csv "),
        (vec!["--text", &text, "--threads", "0"], "--threads 0"),
    ] {
        let line = complaint(&[&["ppl", "demo"], &arguments[..]].concat());
        assert!(line.contains(words), "{arguments:?}: {line}");
    }
    let long = file("long.txt", SENTENCE.repeat(120).as_bytes());
    let line = complaint(&["ppl", "demo", "--text", &path(&long), "--context", "2049"]);
    assert!(line.contains("longer than the model's context of 2048"), "{line}");
    let endless = ["--context", "18446744073709551615", "--convention"];
    for convention in ["strided", "rolling-doc"] {
        let line =
            complaint(&[&["ppl", "demo", "--text", &path(&long)], &endless[..], &[convention]].concat());
        assert!(line.contains("longer than the model's context of 2048"), "{line}");
    }
    let line = complaint(&["ppl", plain.to_str().unwrap(), "--text", &text]);
    assert!(line.contains("has no tokenizer"), "{line}");
}
