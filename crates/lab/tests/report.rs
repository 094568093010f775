//! Reports: the same bytes for the same rows, numbers that agree wherever they stand, texts that stay texts.
#![allow(clippy::unwrap_used)] // helpers outside of #[test] too

mod report_support;

use report_support::*;
use roofline_lab::experiment::rows::*;
use roofline_lab::plot::{Mark, Scale};
use roofline_lab::report::page::{Block, Plot};
use roofline_lab::report::{Report, Source, csv_of, csv_of_stack};

fn source(name: &str, rows: &[Row]) -> Source {
    Source { name: name.into(), recording: recording(rows) }
}

fn report(rows: &[Row]) -> Report {
    Report::of(&[source("rows.jsonl", rows)])
}

/// Where `tools/report_browser_test.py` looks for pages.
fn keep(name: &str, html: &str) {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("report");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(name), html).unwrap();
}

/// Elements that HTML closes by itself.
const VOID: [&str; 4] = ["meta", "link", "br", "input"];

/// Names of the open elements when the text ends; panics where a tag closes another one.
fn assert_balanced(html: &str) {
    let mut open: Vec<String> = Vec::new();
    let mut rest = html.strip_prefix("<!DOCTYPE html>").unwrap();
    while let Some(start) = rest.find('<') {
        rest = &rest[start..];
        // Inside of a script or a style everything up to its end tag is text.
        if let Some(raw) = open.last().filter(|name| matches!(name.as_str(), "script" | "style")) {
            let end = rest.find(&format!("</{raw}")).unwrap();
            rest = &rest[end..];
        }
        let end = rest.find('>').unwrap();
        let tag = &rest[1..end];
        rest = &rest[end + 1..];
        assert!(tag.matches('"').count().is_multiple_of(2), "a quote is open in <{tag}>");
        match tag.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop().as_deref(), Some(name), "closes what is not open"),
            None => {
                let name = tag.split([' ', '/']).next().unwrap().to_string();
                if !tag.ends_with('/') && !VOID.contains(&name.as_str()) {
                    open.push(name);
                }
            }
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

/// Every `id` once, and every link inside of the page to one of them.
fn assert_links_lead_somewhere(html: &str) {
    let values = |attribute: &str| -> Vec<String> {
        let pieces = html.split(attribute).skip(1);
        pieces.map(|piece| piece.split('"').next().unwrap().to_string()).collect()
    };
    let ids = values(" id=\"");
    for id in &ids {
        assert_eq!(ids.iter().filter(|other| *other == id).count(), 1, "{id} is there twice");
    }
    for link in values(" href=\"#") {
        assert!(ids.contains(&link), "#{link} leads nowhere");
    }
}

#[test]
fn pages_are_whole_and_the_same_every_time() {
    for (name, rows) in [
        ("output-tokens", output_tokens()),
        ("cache-policy", cache_policy()),
        ("context-depth", depth_by_threads()),
    ] {
        let report = report(&rows);
        let html = report.html().unwrap();
        assert_eq!(html, self::report(&rows).html().unwrap());
        assert_balanced(&html);
        assert_links_lead_somewhere(&html);
        for outside in ["http://", "https://", "src=", "@import", "url(http"] {
            let found = html.replace("http://www.w3.org/2000/svg", "").contains(outside);
            assert!(!found, "{outside} in {name}");
        }
        keep(&format!("{name}.html"), &html);
    }
}

#[test]
fn every_curve_of_the_schema_is_drawn() {
    let page = report(&output_tokens());
    let plots: Vec<&str> = page.page().plots().map(|plot| plot.id.as_str()).collect();
    assert_eq!(plots, ["g1-e2e", "g1-tpot", "g1-share-of-limit", "r1-steps", "r1-distribution"]);
    let e2e = page.page().plots().next().unwrap();
    let names: Vec<(&str, &Mark)> =
        e2e.main.chart.series.iter().map(|s| (s.name.as_str(), &s.mark)).collect();
    let expected = [
        ("95 % interval", &Mark::Band),
        ("median", &Mark::Line),
        ("runs", &Mark::Dots),
        ("fit: parabola", &Mark::Dashed),
    ];
    assert_eq!(names, expected);
    assert!(
        e2e.main.chart.remarks[0].starts_with("fit: e2e = 0.01050 + 0.001660·x + 1.100e-7·x² s"),
        "{:?}",
        e2e.main.chart.remarks
    );
    assert_eq!(e2e.residuals.as_ref().unwrap().chart.series[0].points.len(), 40);
    let stacks: Vec<&str> = page.page().stacks().map(|stack| stack.id.as_str()).collect();
    assert_eq!(stacks, ["r1-stages", "r1-operators"]);

    let page = report(&cache_policy());
    let plots: Vec<&Plot> = page.page().plots().collect();
    let ids: Vec<&str> = plots.iter().map(|plot| plot.id.as_str()).collect();
    assert!(ids.contains(&"r1-pareto-bytes") && ids.contains(&"r1-pareto-time"), "{ids:?}");
    assert_eq!(plots[0].main.chart.y.names.len(), 5, "policies are names, not numbers");
}

#[test]
fn two_thread_counts_are_two_lines() {
    let report = report(&depth_by_threads());
    let tpot = report.page().plots().next().unwrap();
    let names: Vec<&str> = tpot.main.chart.series.iter().map(|series| series.name.as_str()).collect();
    assert!(names.contains(&"threads 1: median") && names.contains(&"threads 2: median"), "{names:?}");
}

/// A fit goes through the line it was fitted to; one that does not say which is drawn once, without residuals.
#[test]
fn fits_go_to_their_lines() {
    let with_cell = |cell: &[(&str, Value)]| {
        let mut rows = depth_by_threads();
        let finding = rows.iter_mut().find_map(|row| match row {
            Row::Finding(finding) => Some(finding),
            _ => None,
        });
        let finding = finding.unwrap();
        finding.cell = cell.iter().map(|(axis, value)| (*axis, value.clone())).collect();
        finding.fit = Some(Fit {
            form: Form::Line,
            x: "depth".into(),
            y: "tpot".into(),
            y_unit: "s".into(),
            coefficients: vec![0.0033, 4e-7],
            range: [0.0, 1984.0],
            residual_deviation: 0.0,
            n: 25,
        });
        let report = report(&rows);
        let tpot = report.page().plots().next().unwrap();
        let names = tpot.main.chart.series.iter().map(|series| series.name.clone());
        let fits: Vec<String> = names.filter(|name| name.contains("fit")).collect();
        (fits, tpot.residuals.as_ref().map(|panel| panel.chart.series[0].points.len()))
    };
    let (fits, residuals) = with_cell(&[]);
    assert_eq!((fits, residuals), (vec!["several lines together: fit: line".to_string()], None));
    let (fits, residuals) = with_cell(&[("threads", Value::Whole(1))]);
    assert_eq!((fits, residuals), (vec!["threads 1: fit: line".to_string()], Some(25)));
}

/// Numbers of an attribute that holds numbers.
fn numbers(text: &str) -> Vec<f64> {
    text.split([' ', ',']).map(|number| number.parse().unwrap()).collect()
}

fn attribute<'a>(element: &'a str, name: &str) -> &'a str {
    let start = element.find(&format!(" {name}=\"")).unwrap() + name.len() + 3;
    element[start..].split('"').next().unwrap()
}

/// Places of every mark of every series, read out of the SVG element.
fn places(svg: &str) -> Vec<Vec<(f64, f64)>> {
    let of_group = |group: &str| -> Vec<(f64, f64)> {
        let inside = group.split("<g class=\"ticks").next().unwrap();
        let mut places = Vec::new();
        for element in inside.split('<').skip(1).map(|element| format!(" {element}")) {
            if element.contains(" points=\"") {
                places
                    .extend(numbers(attribute(&element, "points")).chunks(2).map(|pair| (pair[0], pair[1])));
            } else if element.contains(" transform=\"translate(") {
                let pair =
                    attribute(&element, "transform").trim_start_matches("translate(").trim_end_matches(')');
                let pair = numbers(pair);
                places.push((pair[0], pair[1]));
            } else if element.starts_with(" line") {
                let at = |name| attribute(&element, name).parse::<f64>().unwrap();
                places.extend([(at("x1"), at("y1")), (at("x2"), at("y2"))]);
            }
        }
        places
    };
    svg.split("<g class=\"series\"").skip(1).map(of_group).collect()
}

/// The spans of the shown ticks, as (low, high, logarithmic) of x and y.
fn spans(svg: &str) -> [(f64, f64, bool); 2] {
    ["x", "y"].map(|axis| {
        let shown = format!("<g class=\"ticks\" data-axis=\"{axis}\"");
        let group = &svg[svg.find(&shown).unwrap()..];
        let tag = &group[..group.find('>').unwrap()];
        let ends = numbers(attribute(tag, "data-span"));
        (ends[0], ends[1], attribute(tag, "data-view") == "log")
    })
}

/// Fields of a line without quoted commas.
fn unquoted(line: &str) -> Vec<String> {
    let (mut cells, mut cell, mut quoted) = (Vec::new(), String::new(), false);
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => cells.push(std::mem::take(&mut cell)),
            c => cell.push(c),
        }
    }
    cells.push(cell);
    cells
}

#[test]
fn what_is_drawn_is_what_the_csv_says() {
    for rows in [output_tokens(), cache_policy(), depth_by_threads()] {
        let report = report(&rows);
        let html = report.html().unwrap();
        for plot in report.page().plots() {
            let start = html.find(&format!("id=\"{}-main\"", plot.id)).unwrap();
            let svg = &html[start..start + html[start..].find("</svg>").unwrap()];
            let frame = numbers(attribute(svg, "data-frame"));
            let [x_span, y_span] = spans(svg);
            let place = |(low, high, log): (f64, f64, bool), value: f64| match log {
                true => (value / low).ln() / (high / low).ln(),
                false => (value - low) / (high - low),
            };
            let drawn = places(svg);
            let mut counts = vec![0; drawn.len()];
            let csv = csv_of(plot);
            for line in csv.lines().skip(1).map(unquoted).filter(|cells| cells[0] == "main") {
                let series: usize = line[1].parse().unwrap();
                let value = |names: &[String], cell: &String| {
                    names
                        .iter()
                        .position(|name| name == cell)
                        .map_or_else(|| cell.parse().unwrap(), |i| i as f64)
                };
                let x: f64 = value(&plot.main.chart.x.names, &line[4]);
                let y: f64 = value(&plot.main.chart.y.names, &line[5]);
                let (left, top) = drawn[series][counts[series]];
                counts[series] += 1;
                let want =
                    (frame[0] + place(x_span, x) * frame[2], frame[1] + (1.0 - place(y_span, y)) * frame[3]);
                assert!(
                    (left - want.0).abs() < 0.02 && (top - want.1).abs() < 0.02,
                    "{}: {line:?} at {left} {top}, not {want:?}",
                    plot.id
                );
                assert!(
                    line[6].is_empty() || html.contains(&format!("id=\"{}\"", line[6])),
                    "row {} is not there",
                    line[6]
                );
            }
            let all: Vec<usize> = drawn.iter().map(Vec::len).collect();
            assert_eq!(counts, all, "{}: points without a line of CSV", plot.id);
            let encoded = html.matches(&format!("download=\"{}.csv\"", plot.id)).count();
            assert_eq!(encoded, 1);
        }
        for stack in report.page().stacks() {
            let csv = csv_of_stack(stack);
            assert_eq!(csv.lines().count(), 1 + stack.stack.bars.len() * stack.stack.parts.len());
            for cells in csv.lines().skip(1).map(unquoted) {
                let share: f64 = cells[3].parse().unwrap();
                assert!((0.0..=100.0).contains(&share), "{cells:?}");
            }
        }
    }
}

/// The median of the rows is the median that is drawn and the one of the table.
#[test]
fn medians_agree_with_the_rows() {
    let rows = output_tokens();
    let mut walls: Vec<f64> = rows
        .iter()
        .filter_map(|row| match row {
            Row::Measurement(one) if !one.warm_up && one.cell.get("output") == Some(&Value::Whole(64)) => {
                Some(one.wall_s)
            }
            _ => None,
        })
        .collect();
    walls.sort_by(f64::total_cmp);
    let report = report(&rows);
    let e2e = report.page().plots().next().unwrap();
    let line = e2e.main.chart.series.iter().find(|series| series.name == "median").unwrap();
    let drawn = line.points.iter().find(|point| point.0 == 64.0).unwrap().1;
    assert_eq!(e2e.main.chart.y.label, "end-to-end time (E2E) (s)");
    assert!((drawn - walls[2]).abs() < 1e-12, "{drawn} {walls:?}");
    let exact = format!("median {} s", walls[2]);
    assert!(report.html().unwrap().contains(&exact), "{exact} is in no table");
}

/// From a finding to its numbers, from a number to its cell, from the cell's median to a run.
#[test]
fn every_number_of_a_finding_leads_to_the_cells_it_stands_on() {
    let rows = output_tokens();
    let html = report(&rows).html().unwrap();
    let begin = html.find("Numbers of the findings").unwrap();
    let table = &html[begin..begin + html[begin..].find("</table>").unwrap()];
    let links = table.matches("class=\"row\" href=\"#r1-c1\"").count();
    let Some(Row::Finding(finding)) = rows.iter().rev().find(|row| matches!(row, Row::Finding(_))) else {
        panic!("no finding")
    };
    let told = |q: &Quantity| 1 + usize::from(q.low.is_some()) + usize::from(q.high.is_some());
    let numbers: usize = finding.values.iter().map(|(_, quantity)| told(quantity)).sum();
    assert!(numbers > 0 && links == numbers, "{links} of {numbers}: {table}");
}

#[test]
fn texts_of_rows_stay_texts() {
    let evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"' onload='x";
    let mut rows = output_tokens();
    for row in &mut rows {
        match row {
            Row::Header(header) => {
                header.experiment = evil.into();
                header.question = evil.into();
                header.command = evil.into();
                header.environment.cpu.name = Some(evil.into());
                header.view.y.push(evil.into());
                header.view.by = Some("model".into());
            }
            Row::Measurement(one) => {
                one.model.name = evil.into();
                let name = if one.order.is_multiple_of(2) { evil } else { "<script>" };
                one.cell.set("model", Value::Text(name.into()));
                one.metrics.set(evil, Metric::new(1.0, evil));
                one.stages.set(evil, 0.001);
                one.decode_operators.set(evil, 0.001);
                one.finish = Some(evil.into());
                one.output_hash = Some(evil.into());
            }
            Row::Finding(finding) => {
                finding.name = evil.into();
                finding.sentence = evil.into();
                finding
                    .values
                    .set(evil, Quantity { value: 1.0, unit: evil.into(), low: None, high: None, n: None });
            }
            Row::Note(note) => note.text = evil.into(),
            Row::Quality(_) | Row::Unknown => {}
        }
    }
    let report = Report::of(&[source(evil, &rows)]);
    let html = report.html().unwrap();
    assert_balanced(&html);
    assert_links_lead_somewhere(&html);
    assert_eq!(html.matches("<script>").count(), 1, "one script, our own");
    assert!(!html.contains("<img") && !html.contains("\"' onload"));
    keep("hostile.html", &html);
    let markdown = report.markdown(Some("pictures"));
    // Between fences everything is text.
    let outside: String = markdown.split("```").step_by(2).collect();
    assert!(!outside.contains("<script>") && outside.contains("\\<script\\>"));
    for (_, svg) in report.svgs().unwrap() {
        assert!(!svg.contains("<script"));
    }
}

#[test]
fn the_policy_names_exactly_our_style_and_script() {
    let html = report(&output_tokens()).html().unwrap();
    let policy =
        html.split("Content-Security-Policy\" content=\"").nth(1).unwrap().split('"').next().unwrap();
    assert!(
        policy.starts_with("default-src 'none'; style-src 'sha256-") && !policy.contains("unsafe"),
        "{policy}"
    );
    assert!(
        !html.contains(" style=\"") && !html.contains(" onclick="),
        "inline styles and handlers would be refused"
    );
}

#[test]
fn interrupted_files_are_read_as_far_as_they_go() {
    let whole = jsonl(&output_tokens());
    // After the header, in the middle of a line, before the findings.
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    let upto = |n: usize| lines[..n].concat();
    for (text, words) in [
        (upto(1), "There is no counted run"),
        (upto(12), "not complete: 3 of 40 runs"),
        (format!("{}{}", upto(20), &lines[20][..40]), "was not written to its end"),
        (upto(lines.len() - 2), "not complete: 40 of 40 runs"),
    ] {
        let recording = roofline_lab::experiment::Recording::parse(text.as_bytes(), "cut").unwrap();
        let report = Report::of(&[Source { name: "cut.jsonl".into(), recording }]);
        let html = report.html().unwrap();
        assert_balanced(&html);
        assert_links_lead_somewhere(&html);
        assert!(html.contains(words), "{words}");
    }
}

#[test]
fn stages_that_do_not_add_up_are_said_first() {
    let mut rows = output_tokens();
    let bad = rows.iter_mut().filter_map(|row| match row {
        Row::Measurement(one) if !one.warm_up => Some(one),
        _ => None,
    });
    for one in bad.take(2) {
        one.adds_up = false;
        one.unaccounted = 0.0734;
    }
    let report = report(&rows);
    let warning = &report.page().warnings[0];
    assert!(
        warning.text.contains("In 2 of 40 counted runs") && warning.text.contains("7.34 %"),
        "{}",
        warning.text
    );
    assert_eq!(warning.links.len(), 2);
    assert!(self::report(&output_tokens()).page().warnings.is_empty());
}

#[test]
fn several_runs_share_their_plots() {
    let report =
        Report::of(&[source("before.jsonl", &output_tokens()), source("after.jsonl", &output_tokens())]);
    let html = report.html().unwrap();
    assert_balanced(&html);
    assert_links_lead_somewhere(&html);
    keep("two.html", &html);
    let plots: Vec<&str> = report.page().plots().map(|plot| plot.id.as_str()).collect();
    assert_eq!(plots.iter().filter(|id| **id == "g1-e2e").count(), 1, "{plots:?}");
    let names: Vec<&str> =
        report.page().plots().next().unwrap().main.chart.series.iter().map(|s| s.name.as_str()).collect();
    assert!(names.contains(&"before.jsonl: median") && names.contains(&"after.jsonl: median"), "{names:?}");
}

#[test]
fn csv_has_a_line_per_run_and_markdown_every_table() {
    let rows = cache_policy();
    let report = report(&rows);
    let runs = rows.iter().filter(|row| matches!(row, Row::Measurement(_))).count();
    let lines: Vec<Vec<String>> = report.csv().lines().map(unquoted).collect();
    assert_eq!(lines.len(), 1 + runs);
    assert!(lines.iter().all(|cells| cells.len() == lines[0].len()));
    let column = lines[0].iter().position(|name| name == "tpot [s]").unwrap();
    let of_row = rows.iter().find_map(|row| match row {
        Row::Measurement(one) => one.metrics.get("tpot"),
        _ => None,
    });
    assert_eq!(lines[1][column].parse::<f64>().unwrap(), of_row.unwrap().value);
    let markdown = report.markdown(Some("pictures"));
    let tables = report.page().sections.iter().flat_map(|s| &s.blocks);
    let tables = tables.filter(|block| matches!(block, Block::Table(_) | Block::Folded(_))).count();
    assert_eq!(markdown.lines().filter(|line| line.starts_with("| ---")).count(), tables);
}

/// A logarithmic axis is only offered where it can show everything.
#[test]
fn zero_keeps_an_axis_linear() {
    let report = report(&depth_by_threads());
    let tpot = report.page().plots().next().unwrap();
    assert_eq!(tpot.main.chart.x.scale, Scale::Linear);
    let html = report.html().unwrap();
    let figure = &html[html.find("<figure class=\"plot\" id=\"g1-tpot\"").unwrap()..];
    let figure = &figure[..figure.find("</figure>").unwrap()];
    assert!(!figure.contains("data-toggle=\"log-x\"") && figure.contains("data-toggle=\"log-y\""));
}
