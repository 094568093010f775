//! `roofline bench` on the model inside of the program.
#![allow(clippy::unwrap_used)] // helpers outside of #[test] too

mod common;

use common::{complaint, json, stdout};

const SMALL: [&str; 12] =
    ["bench", "-p", "8", "-n", "2", "--depth", "0,5", "-r", "2", "--threads", "1", "--format"];

fn small(format: &str) -> String {
    stdout(&[&SMALL[..], &[format]].concat())
}

#[test]
fn json_holds_every_sample_and_the_environment() {
    let report = json(&[&SMALL[..], &["json"]].concat());
    let rows = report["rows"].as_array().unwrap();
    let tests: Vec<(&str, u64)> =
        rows.iter().map(|row| (row["test"].as_str().unwrap(), row["depth"].as_u64().unwrap())).collect();
    assert_eq!(tests, [("pp8", 0), ("tg2", 0), ("pp8", 5), ("tg2", 5)]);
    assert_eq!(report["order"], serde_json::json!([0, 1, 2, 3, 0, 1, 2, 3]));
    for row in rows {
        assert_eq!(row["samples"].as_array().unwrap().len(), 2);
        assert!(row["tokens_per_s"]["median"].as_f64().unwrap() > 0.0);
        assert!(row["bytes"].as_u64().unwrap() > 0 && row["flops"].as_u64().unwrap() > 0);
        assert!(row["roof"]["bandwidth"].as_f64().unwrap() > 0.0);
    }
    assert!(report["environment"]["cpu"]["architecture"].is_string());
    assert_eq!(report["probe_count"], 3);
}

/// Cells of one line without quoted commas inside.
fn cells(line: &str) -> Vec<&str> {
    line.split(',').collect()
}

#[test]
fn csv_has_a_head_and_a_line_per_row() {
    let text = small("csv");
    let lines: Vec<&str> = text.lines().collect();
    let head = cells(lines[0]);
    assert_eq!(lines.len(), 5);
    let column = |name| head.iter().position(|cell| *cell == name).unwrap();
    for line in &lines[1..] {
        let cells = cells(line);
        assert_eq!(cells.len(), head.len(), "{line}");
        assert_eq!(cells[column("model")], "demo");
        assert!(cells[column("tokens_per_s_median")].parse::<f64>().unwrap() > 0.0);
        assert!(cells[column("weight_bytes")].parse::<u64>().unwrap() > 1_000_000);
    }
}

/// Values of one `INSERT`, with strings in single quotes.
fn values(statement: &str) -> Vec<String> {
    let inside = statement.split_once("VALUES (").unwrap().1.strip_suffix(");").unwrap();
    let (mut all, mut value, mut quoted) = (Vec::new(), String::new(), false);
    for c in inside.chars() {
        match c {
            '\'' => quoted = !quoted,
            ',' if !quoted => all.push(std::mem::take(&mut value).trim().to_string()),
            c => value.push(c),
        }
    }
    assert!(!quoted, "{statement}");
    all.push(value.trim().to_string());
    all
}

#[test]
fn sql_creates_two_tables_and_fills_them() {
    let text = small("sql");
    let created =
        text.split("CREATE TABLE IF NOT EXISTS bench (").nth(1).unwrap().split(");").next().unwrap();
    let columns = created.lines().filter(|line| !line.trim().is_empty()).count();
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("INSERT INTO bench VALUES")).collect();
    let samples = text.lines().filter(|line| line.starts_with("INSERT INTO bench_sample VALUES"));
    assert_eq!((rows.len(), samples.clone().count()), (4, 8));
    for row in &rows {
        assert_eq!(values(row).len(), columns, "{row}");
    }
    let ids: Vec<String> = rows.iter().map(|row| values(row)[0].clone()).collect();
    for sample in samples {
        let values = values(sample);
        assert!(values.len() == 4 && ids.contains(&values[0]), "{sample}");
        assert!(values[2].parse::<f64>().unwrap() > 0.0);
    }
}

#[test]
fn tables_name_the_roof_and_the_spread() {
    for format in ["table", "markdown"] {
        let text = small(format);
        for words in ["pp8", "tg2", "quartiles", "MBU", "MFU", "Roof on 1 thread(s): reading", "3 probes"] {
            assert!(text.contains(words), "{words} is missing in:\n{text}");
        }
    }
}

#[test]
fn bad_input_is_refused_before_anything_runs() {
    for (arguments, words) in [
        (vec!["bench", "-p", "0"], "-p 0 is not between 1 and"),
        (vec!["bench", "-n", "x"], "-n: `x` is no whole number"),
        (vec!["bench", "-p", "5,5"], "-p: 5 is given twice"),
        (vec!["bench", "-p", "99999999999999999999"], "is no whole number"),
        (
            vec!["bench", "-p", "2048", "--depth", "1"],
            "pp2048 at depth 1 needs 2049 tokens of context; demo takes 2048",
        ),
        (vec!["bench", "-r", "0"], "-r 0 is not between"),
        (vec!["bench", "--threads", "0"], "--threads 0 is not between 1 and 4096"),
        (vec!["bench", "--kv-type", "q9"], "no format `q9`; did you mean"),
        (vec!["bench", "--kv-type", "f16,k=i8"], "`k=i8` is no storage format of the KV cache"),
        (vec!["bench", "--cache", "static:9"], "static:9 takes 9 tokens"),
        (vec!["bench", "--cache", "none"], "unknown cache policy"),
        (vec!["bench", "-p", "none", "-n", "none"], "give at least one test"),
        (vec!["bench", "no-such-model"], "no-such-model"),
    ] {
        let line = complaint(&arguments);
        assert!(line.contains(words), "{arguments:?}: {line}");
    }
}
