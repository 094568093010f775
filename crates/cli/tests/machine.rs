//! `roofline machine`.

mod common;

use common::{complaint, json, scratch, stdout};

#[test]
fn a_quick_look_measures_and_keeps_nothing() {
    let report = json(&["machine", "--quick", "--threads", "1", "--json"]);
    let figures = report["machine"]["figures"].as_array().unwrap();
    let read = figures.iter().find(|f| f["what"] == "read_memory").unwrap();
    assert!(read["best"].as_f64().unwrap() >= read["median"].as_f64().unwrap());
    assert!(report["kept_at"].is_null());
    assert!(!scratch("config").join("roofline/machine.toml").exists());
}

#[test]
fn a_measured_machine_is_kept_where_it_is_asked_for() {
    let path = scratch("machine-output/laptop.toml");
    let text = stdout(&["machine", "--threads", "1", "--output", path.to_str().unwrap()]);
    for word in ["read memory", "read L1", "f32", "Kept as device `this`"] {
        assert!(text.contains(word), "{word} is missing in:\n{text}");
    }
    let kept = roofline_lab::machine::load(&path).unwrap();
    assert!(text.contains(if kept.noise.is_noisy() { "Noisy" } else { "Quiet" }));
}

#[test]
fn an_unwritable_file_is_named() {
    let blocked = scratch("blocked");
    std::fs::write(&blocked, "a file where a folder should be").unwrap();
    let path = blocked.join("machine.toml");
    assert!(
        complaint(&["machine", "--threads", "1", "--output", path.to_str().unwrap()])
            .contains("cannot write")
    );
}
