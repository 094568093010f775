//! `roofline experiment` as a user meets it: the list, rows, what goes on, and one line for every mistake.
#![allow(clippy::unwrap_used)] // helpers outside of #[test] too

mod common;

use common::{complaint, json, roofline, scratch, stdout};

/// A tiny run of a preset into a file of its own.
fn tiny<'a>(name: &'a str, file: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments =
        vec!["experiment", name, "--set", "threads=1", "--repeats", "2", "--warm-up", "1", "-o", file];
    arguments.extend(more);
    arguments
}

fn fresh(name: &str) -> String {
    let path = scratch(name);
    let _ = std::fs::remove_file(&path); // of an earlier run
    path.display().to_string()
}

#[test]
fn the_list_names_questions_axes_and_times() {
    let text = stdout(&["experiment", "list"]);
    for words in ["output-tokens", "max-new-tokens", "noise", "cap 32,64", "about ", "with --quick", "?"] {
        assert!(text.contains(words), "{words} is missing in:\n{text}");
    }
    let list = json(&["experiment", "list", "--json"]);
    assert!(list["experiments"].as_array().unwrap().len() >= 9);
    assert_eq!(list["experiments"][0]["spec"]["axes"]["model"][0], "demo");
}

#[test]
fn rows_are_written_and_a_second_call_measures_nothing() {
    let file = fresh("cli_rows.jsonl");
    let arguments = tiny("output-tokens", &file, &["--set", "output=2,3", "--set", "prompt=5"]);
    let output = roofline(&arguments).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("4 runs are in ") && !stderr.contains('\r'), "{stderr}");
    let text = String::from_utf8(output.stdout).unwrap();
    for words in ["How does the time", "tpot", "quartiles", "of limit", "What follows"] {
        assert!(text.contains(words), "{words} is missing in:\n{text}");
    }
    let rows = std::fs::read_to_string(&file).unwrap();
    let header: serde_json::Value = serde_json::from_str(rows.lines().next().unwrap()).unwrap();
    assert_eq!(header["kind"], "header");
    assert_eq!(
        header["command"],
        "roofline experiment output-tokens --set threads=1 --set output=2,3 --set prompt=5 --repeats 2 --warm-up 1"
    );
    let again = roofline(&arguments).output().unwrap();
    assert!(String::from_utf8(again.stderr).unwrap().contains("was complete already: 4 runs"));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), rows);
    let mut arguments = arguments;
    arguments.push("--json");
    let object = json(&arguments);
    assert_eq!((&object["finished"], &object["measured_now"]), (&true.into(), &0.into()));
    assert_eq!(object["cells"].as_array().unwrap().len(), 2);
}

#[test]
fn a_grid_of_ones_own_runs_from_a_file() {
    let grid = scratch("mine.toml");
    std::fs::write(&grid, "repeats = 2\nwarm_up = 0\n[axes]\nthreads = 1\nprompt = [4, 6]\noutput = 2\n")
        .unwrap();
    let file = fresh("mine.jsonl");
    let object = json(&["experiment", grid.to_str().unwrap(), "-o", &file, "--json"]);
    assert_eq!(object["header"]["experiment"], "mine");
    assert_eq!(object["cells"].as_array().unwrap().len(), 2);
}

/// Ratios of several depths were one number: it was of no depth.
#[test]
fn policies_are_compared_apart_at_every_depth() {
    let grid = scratch("depths.toml");
    let axes = "cache = [\"full\", \"streaming:sinks=2,window=8\"]\ndepth = [8, 40]\nprompt = 1\noutput = 4\nthreads = 1\n";
    std::fs::write(&grid, format!("repeats = 5\nwarm_up = 1\nanalysis = \"cache-policy\"\n[axes]\n{axes}"))
        .unwrap();
    let file = fresh("cli_depths.jsonl");
    stdout(&["experiment", &grid.display().to_string(), "-o", &file]);
    let rows = std::fs::read_to_string(&file).unwrap();
    let rows = rows.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let found: Vec<serde_json::Value> =
        rows.filter(|row| row["name"] == "cache_streaming:sinks=2,window=8").collect();
    let depths: Vec<Option<u64>> = found.iter().map(|row| row["cell"]["depth"].as_u64()).collect();
    assert_eq!(depths, [Some(8), Some(40)]);
    assert!(
        found[1]["sentence"]
            .as_str()
            .unwrap()
            .starts_with("depth 40: cache streaming:sinks=2,window=8 against")
    );
    let kept = |row: &serde_json::Value| row["values"]["kv_live"]["value"].as_f64().unwrap();
    assert!(kept(&found[0]) > 0.5 && kept(&found[1]) < 0.3, "{found:?}");
}

#[test]
fn every_preset_runs_in_its_smallest_form() {
    for (name, sets) in [
        ("max-new-tokens", vec!["cap=4", "item=0", "prompt=5"]),
        ("prompt-length", vec!["prompt=1,2,4,8"]),
        ("context-depth", vec!["depth=0,64", "output=3"]),
        ("cache-policy", vec!["cache=full,static:fit", "prompt=70", "output=3"]),
        ("streaming", vec!["cache=full,streaming:sinks=4,window=4092", "depth=20", "output=3"]),
        ("prompt-compression", vec!["model=demo", "cache=full,adakv:budget=40", "depth=70", "output=3"]),
        ("policy-depth", vec!["model=demo", "cache=full,tova:budget=16", "depth=20,40", "output=3"]),
        ("precision", vec!["precision=w16,w8", "prompt=5", "output=3"]),
        ("threads", vec!["prompt=5", "output=3"]),
        ("noise", vec!["prompt=5", "output=3"]),
    ] {
        let file = fresh(&format!("preset_{name}.jsonl"));
        let mut more: Vec<&str> = Vec::new();
        for set in &sets {
            more.extend(["--set", set]);
        }
        let text = stdout(&tiny(name, &file, &more));
        assert!(text.contains("What follows") || text.contains("To be known"), "{name}:\n{text}");
    }
}

#[test]
fn a_geometry_may_declare_a_longer_context() {
    let file = fresh("longer.jsonl");
    let set = ["--set", "depth=2100", "--set", "output=3", "--set"];
    let of = |model| [&set[..], &[model]].concat();
    stdout(&tiny("context-depth", &file, &of("model=Pythia-14M@2200")));
    let rows = std::fs::read_to_string(&file).unwrap();
    assert!(rows.contains("\"depth\":2100") && rows.contains("\"geometry\":\"Pythia-14M\""), "{rows}");
    let line = complaint(&tiny("context-depth", &fresh("worse.jsonl"), &of("model=Pythia-14M@far")));
    assert!(line.contains("behind the @ stands a context of 1 to"), "{line}");
}

#[test]
fn mistakes_are_one_line() {
    let good = scratch("good.toml");
    std::fs::write(&good, "[axes]\noutput = 2\n").unwrap();
    let bad = scratch("bad.toml");
    std::fs::write(&bad, "[axis]\noutput = 2\n").unwrap();
    let taken = scratch("taken.jsonl");
    std::fs::write(&taken, "not rows\n").unwrap();
    let taken = taken.display().to_string();
    let folder = scratch("no_such_folder").join("rows.jsonl").display().to_string();
    for (arguments, words) in [
        (vec!["experiment", "output-token"], "did you mean output-tokens"),
        (vec!["experiment", "noise", "--set", "thread=1"], "did you mean threads"),
        (vec!["experiment", "noise", "--set", "threads"], "no key=value"),
        (vec!["experiment", "noise", "--set", "threads=0"], "threads: `0` cannot be"),
        (vec!["experiment", "noise", "--set", "cache=lru"], "unknown cache policy"),
        (vec!["experiment", "noise", "--repeats", "0"], "repeats 0 is not between"),
        (vec!["experiment", "noise", "--repeats", "x"], "invalid value"),
        (vec!["experiment", "noise", "demo", "demo"], "demo is given twice"),
        (vec!["experiment", "noise", "no-such-model"], "no-such-model"),
        (vec!["experiment", "no-such-file.toml"], "cannot read no-such-file.toml"),
        (vec!["experiment", bad.to_str().unwrap()], "did you mean axes"),
        (vec!["experiment", good.to_str().unwrap(), "--quick"], "--quick belongs to"),
        (vec!["experiment", "noise", "-o", &taken], "taken.jsonl, line 1"),
        (vec!["experiment", "noise", "--quick", "-o", &folder], "cannot write"),
        (vec!["experiment"], "NAME"),
    ] {
        // Progress goes to stderr too, and comes before the complaint about a file.
        let output = roofline(&arguments).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
        let lines: Vec<&str> = stderr.lines().filter(|line| line.starts_with("roofline: ")).collect();
        assert!(lines.len() == 1 && lines[0].contains(words), "{arguments:?}: {stderr}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
    assert!(complaint(&["experiment", "noise", "--seed", "-1"]).contains("'-1'"));
}
