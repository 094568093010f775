//! `roofline compare` beside peers that a shell script plays: found, missing, crashing, silent, talking nonsense.
#![cfg(unix)]
#![allow(clippy::unwrap_used)] // helpers outside of #[test] too

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use common::{complaint, model::golden, roofline, run, scratch, stdout};
use serde_json::Value;

/// A stand-in for Python: answers lines by what they ask for. Its arguments (`-u -c DRIVER`) mean nothing to it.
fn python(name: &str, hello: &str, load: &str, run: &str) -> String {
    let script = format!(
        "#!/bin/sh\nwhile read -r line; do\n  case \"$line\" in\n    *'\"do\":\"hello\"'*) {hello} ;;\n    \
         *'\"do\":\"load\"'*) {load} ;;\n    *) {run} ;;\n  esac\ndone\n"
    );
    let folder = scratch("compare");
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(name);
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

const HELLO: &str = r#"echo '{"version":"stand-in 1.0"}'"#;
const LOAD: &str = r#"echo '{"details":"a shell script"}'"#;
const RUN: &str = r#"echo '{"prefill_s":10.0,"steps_s":[5.0,5.0],"best":3}'"#;

/// A stand-in for llama-bench that answers each test by `answer`, in which `$p` and `$n` are what it was asked for.
fn llama_bench(name: &str, answer: &str) -> String {
    let script = format!(
        "#!/bin/sh\np=0; n=0\nwhile [ $# -gt 0 ]; do\n  case \"$1\" in -p) p=$2 ;; -n) n=$2 ;; --help) exit 0 ;; esac\n  \
         shift\ndone\n{answer}\n"
    );
    let folder = scratch("compare").join(name);
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("llama-bench");
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

const TESTED: &str = r#"echo "{\"build_commit\":\"abc\",\"build_number\":7,\"n_prompt\":$p,\"n_gen\":$n,\"n_batch\":2048,\"samples_ns\":[6000000000]}""#;

fn gguf() -> String {
    golden("gpt_neox_parallel").join("model.gguf").display().to_string()
}

fn folder() -> String {
    golden("gpt_neox_parallel").display().to_string()
}

/// The file of rows, not there yet.
fn rows(name: &str) -> PathBuf {
    let path = scratch("compare").join(name);
    let _ = std::fs::remove_file(&path); // of an earlier run
    path
}

fn arguments<'a>(model: &'a str, peers: &'a str, python: &'a str, output: &'a str) -> Vec<&'a str> {
    vec![
        "compare",
        model,
        "--with",
        peers,
        "--python",
        python,
        "-p",
        "4",
        "-n",
        "2",
        "-r",
        "6",
        "--warm-up",
        "1",
        "--threads",
        "1",
        "--timeout",
        "2",
        "-o",
        output,
    ]
}

#[test]
fn a_peer_runs_in_turn_and_the_report_draws_it() {
    let (model, python) = (gguf(), python("good", HELLO, LOAD, RUN));
    let path = rows("good.jsonl");
    let output = path.display().to_string();
    let text = stdout(&arguments(&model, "llama.cpp", &python, &output));
    // The stand-in claims ten seconds for four tokens.
    assert!(text.contains("times as fast as stand-in 1.0"), "{text}");
    assert!(text.contains("stand-in 1.0: a shell script"), "{text}");
    let lines: Vec<Value> = std::fs::read_to_string(&path)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let runs: Vec<&Value> = lines.iter().filter(|row| row["kind"] == "measurement").collect();
    let engines: Vec<&str> = runs.iter().map(|run| run["cell"]["engine"].as_str().unwrap()).collect();
    assert_eq!(engines.len(), 14, "one warm-up and six rounds of two engines");
    for pair in engines.chunks(2) {
        assert!(pair[0].starts_with("roofline ") && pair[1] == "stand-in 1.0", "A B A B: {engines:?}");
    }
    assert_eq!(runs.iter().filter(|run| run["warm_up"] == true).count(), 2);
    let hashes: Vec<&Value> = runs.iter().map(|run| &run["prompt_hash"]).collect();
    assert!(hashes.windows(2).all(|pair| pair[0] == pair[1]), "the same ids for both");
    assert_eq!(runs[1]["metrics"]["tpot"]["value"], 5.0);
    assert_eq!(lines.last().unwrap()["about"], "finished");
    assert!(complaint(&arguments(&model, "llama.cpp", &python, &output)).contains("stands there already"));

    let html = stdout(&["report", &output, "-o", "-"]);
    assert!(html.contains("stand-in 1.0") && html.contains("id=\"g1-decode-rate\""));
    let csv = stdout(&["report", &output, "--csv"]);
    assert_eq!(csv.lines().count(), 15);
}

#[test]
fn what_a_peer_does_wrong_is_one_line() {
    let model = gguf();
    let missing = r#"echo '{"missing":"No module named llama_cpp"}'"#;
    for (name, peer, words) in [
        ("missing", python("missing", missing, LOAD, RUN), "install it with `pip install llama-cpp-python`"),
        (
            "refuses",
            python("refuses", HELLO, r#"echo '{"error":"no such tensor"}'"#, RUN),
            "could not load the model: no such tensor",
        ),
        (
            "crashes",
            python("crashes", HELLO, LOAD, "echo out of memory >&2; exit 3"),
            "ended while it should run; its last words: out of memory",
        ),
        (
            "at_once",
            python("at_once", "exit 1", LOAD, RUN),
            "llama.cpp ended while it should say its version",
        ),
        ("silent", python("silent", HELLO, "sleep 60", RUN), "llama.cpp did not load the model within 2 s"),
        (
            "nonsense",
            python("nonsense", HELLO, LOAD, "echo hello"),
            "answered what cannot be understood when it should run: `hello`",
        ),
        (
            "short",
            python("short", HELLO, LOAD, r#"echo '{"prefill_s":1.0,"steps_s":[1.0],"best":3}'"#),
            "cannot be understood",
        ),
        (
            "negative",
            python("negative", HELLO, LOAD, r#"echo '{"prefill_s":-1.0,"steps_s":[1.0,1.0],"best":3}'"#),
            "cannot be understood",
        ),
        ("absent", "/no/such/python".to_string(), "no Python for llama.cpp: /no/such/python"),
    ] {
        let path = rows(&format!("{name}.jsonl"));
        let line = complaint(&arguments(&model, "llama.cpp", &peer, &path.display().to_string()));
        assert!(line.contains(words), "{name}: {line}");
    }
}

#[test]
fn llama_bench_runs_in_turn_and_tells_what_it_knows() {
    let (model, program) = (gguf(), llama_bench("tests", TESTED));
    let path = rows("llama_bench.jsonl");
    let output = path.display().to_string();
    let mut arguments = arguments(&model, "llama-bench", "/no/such/python", &output);
    arguments.extend(["--llama-bench", &program]);
    let text = stdout(&arguments);
    assert!(text.contains("times as fast as llama.cpp b7 (abc)") && text.contains("n_batch 2048"), "{text}");
    assert!(!text.contains("most probable token"), "it tells none: {text}");
    let lines = std::fs::read_to_string(&path).unwrap();
    let mut runs = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let run = runs.find(|row| row["cell"]["engine"] == "llama.cpp b7 (abc)").unwrap();
    let metrics = &run["metrics"];
    assert_eq!(
        (metrics["prefill"]["value"].as_f64(), metrics["tpot"]["value"].as_f64()),
        (Some(6.0), Some(3.0)),
        "six seconds for four tokens at once and for two one by one"
    );
    assert!(run["tokens"].as_array().is_none_or(Vec::is_empty), "no times that nobody told");
    assert!(stdout(&["report", &output, "-o", "-"]).contains("llama.cpp b7 (abc)"));
}

/// Where nobody names a Python and there is none, the program on the PATH runs, and the rows say so.
#[test]
fn llama_bench_stands_in_for_a_python_that_is_not_there() {
    let (model, program) = (gguf(), llama_bench("stands_in", TESTED));
    let path = rows("stands_in.jsonl");
    let output = path.display().to_string();
    let arguments: Vec<&str> = arguments(&model, "llama.cpp", "", &output);
    let without_python: Vec<&str> =
        arguments.iter().copied().filter(|one| !["--python", ""].contains(one)).collect();
    let folder = std::path::Path::new(&program).parent().unwrap();
    let run = |path: &std::path::Path| roofline(&without_python).env("PATH", path).output().unwrap();
    // The script itself needs a shell by its full name only.
    let found = run(folder);
    let text = String::from_utf8_lossy(&found.stdout);
    assert!(text.contains("times as fast as llama.cpp b7 (abc)"), "{found:?}");
    assert!(text.contains("llama-bench runs in place of llama_cpp, since no Python"), "{text}");
    std::fs::remove_file(&path).unwrap();
    let nothing = run(&scratch("compare"));
    let words = String::from_utf8_lossy(&nothing.stderr);
    assert!(nothing.status.code() == Some(2) && words.contains("no Python for llama.cpp"), "{words}");
}

#[test]
fn what_llama_bench_does_wrong_is_one_line() {
    let model = gguf();
    let other = TESTED.replace("$n", "9");
    for (name, program, words) in [
        (
            "bench_crashes",
            llama_bench("bench_crashes", "echo no memory >&2; exit 3"),
            "its last words: no memory",
        ),
        (
            "bench_nonsense",
            llama_bench("bench_nonsense", "echo hello"),
            "cannot be understood when it should load the model",
        ),
        ("bench_other", llama_bench("bench_other", &other), "cannot be understood"),
        (
            "bench_silent",
            llama_bench("bench_silent", "exec sleep 60"),
            "llama-bench did not load the model within 2 s",
        ),
        ("bench_absent", "/no/such/bench".to_string(), "put it on the PATH or name it with --llama-bench"),
    ] {
        let path = rows(&format!("{name}.jsonl"));
        let output = path.display().to_string();
        let mut arguments = arguments(&model, "llama-bench", "python3", &output);
        arguments.extend(["--llama-bench", &program]);
        let line = complaint(&arguments);
        assert!(line.contains(words), "{name}: {line}");
    }
}

/// What was measured before a peer failed stays, and the report says that it is not all.
#[test]
fn rows_before_a_crash_stay() {
    let counter = scratch("compare").join("calls");
    let _ = std::fs::remove_file(&counter);
    let run_twice =
        format!("echo x >> {0}; if [ $(wc -l < {0}) -gt 2 ]; then exit 1; fi; {RUN}", counter.display());
    let (model, python) = (gguf(), python("later", HELLO, LOAD, &run_twice));
    let path = rows("later.jsonl");
    let output = path.display().to_string();
    let line = complaint(&arguments(&model, "llama.cpp", &python, &output));
    assert!(line.contains("ended while it should run"), "{line}");
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().filter(|line| line.contains("\"kind\":\"measurement\"")).count(), 5);
    let html = stdout(&["report", &output, "-o", "-"]);
    assert!(html.contains("not complete: 3 of 12 runs"), "it says how far it went");
}

#[test]
fn models_that_a_peer_does_not_read_are_refused_with_the_way_out() {
    let (file, folder) = (gguf(), folder());
    for (arguments, words) in [
        (
            vec!["compare", &folder, "--with", "llama.cpp"],
            "it takes a .gguf file; make one with `roofline quantize ",
        ),
        (vec!["compare", &file, "--with", "transformers"], "it takes a Hugging Face folder"),
        (vec!["compare", "demo", "--with", "llama.cpp"], "the demo model is inside of the program"),
        (vec!["compare", "no.gguf", "--with", "llama.cpp"], "there is none of that name"),
        (
            vec!["compare", &file, "--with", "vllm"],
            "`vllm` is no peer; there are llama.cpp, llama-bench and transformers",
        ),
        (vec!["compare", &file, "--with", "llama.cpp,llama.cpp"], "llama.cpp is given twice"),
        (vec!["compare", &file, "--with", "llama.cpp", "-p", "0"], "-p 0 is not between 1 and"),
        (vec!["compare", &file, "--with", "llama.cpp", "-p", "x"], "-p: `x` is no whole number"),
        (vec!["compare", &file, "--with", "llama.cpp", "-r", "1"], "-r 1 is not between 2 and"),
        (vec!["compare", &file, "--with", "llama.cpp", "--kv-type", "q8"], "no format that all engines have"),
    ] {
        let line = complaint(&arguments);
        assert!(line.contains(words), "{arguments:?}: {line}");
    }
}

#[test]
fn reports_refuse_what_holds_no_rows() {
    let path = scratch("compare").join("empty.jsonl");
    std::fs::create_dir_all(scratch("compare")).unwrap();
    std::fs::write(&path, "").unwrap();
    let empty = path.display().to_string();
    assert!(complaint(&["report", &empty]).contains("no header"));
    assert!(complaint(&["report", "/no/such/rows.jsonl"]).contains("cannot read /no/such/rows.jsonl"));
    assert_eq!(run(&["report"]).status.code(), Some(2));
}
