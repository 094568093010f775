//! The result for people.

use roofline_engine::{Model, ModelFiles};
use roofline_lab::quality::{Against, Convention, Estimate, Mode, Perplexity, Report, Row, Speed};
use roofline_lab::units::{bytes, grouped, si};

use crate::commands::run::runs_on;
use crate::output::{Align, Table};

/// Everything a figure depends on, then the figures.
pub fn text(report: &Report, files: &ModelFiles, model: &Model, bos: &str) -> String {
    let mut text = how(report, files, model, bos).to_text();
    let compared = report.reference.is_some();
    if let [row] = &report.rows[..] {
        text.push_str(&format!("\n{}", figures(report, row).to_text()));
        text.push_str(&format!("\n{}", positions(row).to_text()));
    }
    if compared {
        text.push_str(&format!("\n{}{}", comparison(report).to_text(), legend(report)));
    }
    text
}

fn how(report: &Report, files: &ModelFiles, model: &Model, bos: &str) -> Table {
    let mut table = Table::of_facts();
    let mut fact = |name: &str, value: String| table.row([name.to_string(), value]);
    fact("model", format!("{}, {}", files.name(), runs_on(model)));
    for source in &report.texts {
        fact(
            "text",
            format!(
                "{}: {} bytes, {} words, {} tokens, sha256 {}",
                source.name,
                grouped(source.whole.bytes),
                grouped(source.whole.words),
                grouped(source.tokens as u64),
                source.sha256
            ),
        );
    }
    let all: usize = report.texts.iter().map(|source| source.tokens).sum();
    if all > report.tokens {
        fact(
            "used",
            format!("the first {} of {} tokens", grouped(report.tokens as u64), grouped(all as u64)),
        );
    }
    fact("convention", format!("{}: {}", report.convention, report.reference_implementation));
    fact("BOS", bos.to_string());
    fact(
        "window",
        format!("{} tokens, stride {}, {} windows", report.context, report.stride, report.windows),
    );
    fact("scored", report.scored_range.clone());
    if let Some(counts) = report.counts {
        let (words, all_bytes) = (grouped(counts.words), grouped(counts.bytes));
        fact("normalizer", format!("{words} words, {all_bytes} bytes: {}", report.normalizer));
    }
    fact("mode", mode(report));
    fact(
        "errors",
        match report.blocks {
            1 => "none: one block of about 256 scored tokens has no neighbour to differ from".to_string(),
            blocks => format!("over {blocks} blocks of about 256 scored tokens; ranges hold 95 %"),
        },
    );
    table
}

fn mode(report: &Report) -> String {
    match (report.mode, report.prompt) {
        (Mode::Decode, Some(prompt)) => {
            format!("decode: a prompt of {prompt} tokens at once, then one token after the other")
        }
        _ => "parallel: many rows at once, each sees what it would see in a decode step".to_string(),
    }
}

fn figures(report: &Report, row: &Row) -> Table {
    let Perplexity { tokens, nll, token, word, byte, bits_per_byte, as_reference, standard_error_of_tokens } =
        &row.perplexity;
    let mut table = Table::of_facts();
    let mut fact = |name: &str, value: String| table.row([name.to_string(), value]);
    fact("cache", format!("{}, {}", row.cache, row.kv_type));
    fact("token perplexity", format!("{} over {} tokens", estimate(*token, 4), grouped(*tokens as u64)));
    if let (Convention::Strided, Some(reference)) = (report.convention, as_reference) {
        fact(
            "",
            format!(
                "{reference:.4} as the reference weights it: later windows count one token less than they score"
            ),
        );
    }
    if let Some(error) = standard_error_of_tokens {
        fact("", format!("± {error:.4} if tokens were independent, as llama-perplexity prints it"));
    }
    if let Some(word) = word {
        fact("word perplexity", estimate(*word, 3));
    }
    if let (Some(byte), Some(bits)) = (byte, bits_per_byte) {
        fact("byte perplexity", format!("{}, {bits:.4} bits per byte", estimate(*byte, 4)));
    }
    fact("mean −ln p", format!("{} nats per token", estimate(*nll, 5)));
    for (name, speed) in [("at once", row.at_once), ("one by one", row.one_by_one)] {
        if let Some(speed) = speed {
            fact(name, rate(speed));
        }
    }
    let kv = row.kv;
    fact(
        "KV cache",
        format!(
            "{} live, {} committed, {} peak, {} beside the pages",
            bytes(kv.live),
            bytes(kv.committed),
            bytes(kv.peak),
            bytes(kv.metadata)
        ),
    );
    table
}

fn estimate(Estimate { value, standard_error, interval }: Estimate, decimals: usize) -> String {
    match (standard_error, interval) {
        (Some(error), Some(interval)) => {
            format!(
                "{value:.decimals$} ± {error:.decimals$} ({:.decimals$} to {:.decimals$})",
                interval.low, interval.high
            )
        }
        _ => format!("{value:.decimals$} (one block: no error)"),
    }
}

fn rate(speed: Speed) -> String {
    let (tokens, seconds) = (grouped(speed.tokens as u64), speed.seconds);
    format!("{tokens} tokens in {seconds:.2} s, {} (scoring not counted)", si(speed.per_second, "tok/s"))
}

fn positions(row: &Row) -> Table {
    let mut table = Table::new(&[
        ("tokens before", Align::Right),
        ("scored", Align::Right),
        ("perplexity", Align::Right),
    ]);
    for bucket in &row.buckets {
        let range = format!("{} to {}", bucket.first, bucket.last);
        table.row([range, grouped(bucket.tokens as u64), format!("{:.4}", bucket.perplexity)]);
    }
    table
}

/// A line per setup, the reference first.
fn comparison(report: &Report) -> Table {
    let columns = [
        ("cache", Align::Left),
        ("kv", Align::Left),
        ("perplexity", Align::Right),
        ("±", Align::Right),
        ("Δ", Align::Right),
        ("Δ nats ± 95 %", Align::Right),
        ("KL", Align::Right),
        ("KL p99", Align::Right),
        ("top-1", Align::Right),
        ("missed", Align::Right),
        ("live", Align::Right),
        ("peak", Align::Right),
        ("tok/s", Align::Right),
    ];
    let mut table = Table::new(&columns);
    for row in report.reference.iter().chain(&report.rows) {
        let token = row.perplexity.token;
        let mut cells = vec![
            row.cache.clone(),
            row.kv_type.clone(),
            format!("{:.4}", token.value),
            token.standard_error.map_or("-".to_string(), |error| format!("{error:.4}")),
        ];
        cells.extend(match &row.against {
            Some(against) => differences(against),
            None => ["reference", "", "", "", "", ""].map(str::to_string),
        });
        let speed = row.one_by_one.or(row.at_once).map_or(0.0, |speed| speed.per_second);
        cells.extend([bytes(row.kv.live + row.kv.metadata), bytes(row.kv.peak), si(speed, "")]);
        table.row(cells);
    }
    table
}

fn differences(against: &Against) -> [String; 6] {
    let nats = against.nll_difference;
    let half = nats.interval.map_or(String::new(), |ends| format!(" ± {:.5}", ends.width() / 2.0));
    [
        format!("{:+.4}", against.difference),
        format!("{:+.5}{half}", nats.value),
        format!("{:.2e}", against.kl.value),
        format!("{:.2e}", against.kl_p99),
        format!("{:.2} %", 100.0 * against.same_top),
        against.missed_attention.map_or(String::new(), |missed| format!("{:.2} %", 100.0 * missed.value)),
    ]
}

fn legend(report: &Report) -> String {
    let speed = match report.mode {
        Mode::Parallel => "rows at once",
        Mode::Decode => "decode steps",
    };
    let missed = match report.mode {
        Mode::Parallel => "",
        Mode::Decode => "missed: share of the full cache's attention to what the setup did not read. ",
    };
    format!(
        "Δ: perplexity less the reference's. Δ nats: mean difference of −ln p, paired token by token. KL: of the setup from \
         the reference, nats per token.\ntop-1: same most probable token. {missed}live: slots in use, with the bytes \
         beside the pages. tok/s: {speed}, all setups in turn on the same tokens.\n"
    )
}
