//! A line of comma-separated values per setup.

use std::io::Write;
use std::path::Path;

use roofline_lab::quality::{Against, Estimate, Report, Row};

use crate::failure::Failure;
use crate::output::{WholeFile, csv_line};

/// (name, value)
type Column = (&'static str, fn(&str, &Report, &Row) -> String);

const COLUMNS: [Column; 49] = [
    ("measured_at", |_, report, _| report.measured_at.clone()),
    ("model", |model, _, _| model.to_string()),
    ("texts", |_, report, _| joined(report.texts.iter().map(|text| text.name.clone()))),
    ("text_sha256", |_, report, _| joined(report.texts.iter().map(|text| text.sha256.clone()))),
    ("text_bytes", |_, report, _| report.texts.iter().map(|text| text.whole.bytes).sum::<u64>().to_string()),
    ("text_tokens", |_, report, _| report.tokens.to_string()),
    ("convention", |_, report, _| report.convention.name().to_string()),
    ("context", |_, report, _| report.context.to_string()),
    ("stride", |_, report, _| report.stride.to_string()),
    ("bos", |_, report, _| report.bos.map_or(String::new(), |id| id.to_string())),
    ("scored_range", |_, report, _| report.scored_range.clone()),
    ("normalizer", |_, report, _| report.normalizer.to_string()),
    ("mode", |_, report, _| report.mode.name().to_string()),
    ("prompt", |_, report, _| report.prompt.map_or(String::new(), |tokens| tokens.to_string())),
    ("windows", |_, report, _| report.windows.to_string()),
    ("blocks", |_, report, _| report.blocks.to_string()),
    ("cache", |_, _, row| row.cache.clone()),
    ("kv_type", |_, _, row| row.kv_type.clone()),
    ("tokens", |_, _, row| row.perplexity.tokens.to_string()),
    ("nll", |_, _, row| row.perplexity.nll.value.to_string()),
    ("nll_standard_error", |_, _, row| error(Some(row.perplexity.nll))),
    ("token_perplexity", |_, _, row| row.perplexity.token.value.to_string()),
    ("token_perplexity_standard_error", |_, _, row| error(Some(row.perplexity.token))),
    ("token_perplexity_as_reference", |_, _, row| optional(row.perplexity.as_reference)),
    ("word_perplexity", |_, _, row| optional(row.perplexity.word.map(|word| word.value))),
    ("word_perplexity_standard_error", |_, _, row| error(row.perplexity.word)),
    ("byte_perplexity", |_, _, row| optional(row.perplexity.byte.map(|byte| byte.value))),
    ("byte_perplexity_standard_error", |_, _, row| error(row.perplexity.byte)),
    ("bits_per_byte", |_, _, row| optional(row.perplexity.bits_per_byte)),
    ("tokens_per_s_at_once", |_, _, row| optional(row.at_once.map(|speed| speed.per_second))),
    ("tokens_per_s_one_by_one", |_, _, row| optional(row.one_by_one.map(|speed| speed.per_second))),
    ("kv_live_bytes", |_, _, row| row.kv.live.to_string()),
    ("kv_committed_bytes", |_, _, row| row.kv.committed.to_string()),
    ("kv_peak_bytes", |_, _, row| row.kv.peak.to_string()),
    ("kv_metadata_bytes", |_, _, row| row.kv.metadata.to_string()),
    ("against_cache", |_, report, _| {
        report.reference.as_ref().map_or(String::new(), |row| row.cache.clone())
    }),
    ("against_kv_type", |_, report, _| {
        report.reference.as_ref().map_or(String::new(), |row| row.kv_type.clone())
    }),
    ("nll_difference", |_, _, row| against(row, |against| against.nll_difference.value)),
    ("nll_difference_standard_error", |_, _, row| {
        error(row.against.as_ref().map(|against| against.nll_difference))
    }),
    ("nll_difference_low", |_, _, row| end(row, |low, _| low)),
    ("nll_difference_high", |_, _, row| end(row, |_, high| high)),
    ("token_perplexity_difference", |_, _, row| against(row, |against| against.difference)),
    ("kl_mean", |_, _, row| against(row, |against| against.kl.value)),
    ("kl_standard_error", |_, _, row| error(row.against.as_ref().map(|against| against.kl))),
    ("kl_median", |_, _, row| against(row, |against| against.kl_median)),
    ("kl_p99", |_, _, row| against(row, |against| against.kl_p99)),
    ("kl_max", |_, _, row| against(row, |against| against.kl_max)),
    ("same_top", |_, _, row| against(row, |against| against.same_top)),
    ("missed_attention", |_, _, row| {
        let missed = row.against.as_ref().and_then(|against| against.missed_attention);
        optional(missed.map(|missed| missed.value))
    }),
];

fn joined(all: impl Iterator<Item = String>) -> String {
    all.collect::<Vec<_>>().join(" ")
}

fn optional(value: Option<f64>) -> String {
    value.map_or(String::new(), |value| value.to_string())
}

fn error(estimate: Option<Estimate>) -> String {
    optional(estimate.and_then(|estimate| estimate.standard_error))
}

fn against(row: &Row, figure: fn(&Against) -> f64) -> String {
    optional(row.against.as_ref().map(figure))
}

fn end(row: &Row, pick: fn(f64, f64) -> f64) -> String {
    let interval = row.against.as_ref().and_then(|against| against.nll_difference.interval);
    optional(interval.map(|interval| pick(interval.low, interval.high)))
}

/// A head, the reference if there is one, and every setup.
pub fn write(path: &Path, model: &str, report: &Report) -> Result<(), Failure> {
    let mut text = csv_line(&COLUMNS.map(|(name, _)| name));
    for row in report.reference.iter().chain(&report.rows) {
        let cells = COLUMNS.map(|(_, value)| value(model, report, row));
        text.push_str(&csv_line(&cells.each_ref().map(String::as_str)));
    }
    let written = WholeFile::create(path).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.finish()
    });
    written.map_err(|error| Failure::new(format_args!("--csv {}: {error}", path.display())))
}
