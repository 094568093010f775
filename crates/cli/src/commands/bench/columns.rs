//! A row as named values: the columns of CSV and SQL.

use roofline_lab::bench::{Report, Row};

use crate::output::csv_line;

/// A value of a table.
enum Value {
    Text(String),
    Whole(u64),
    Real(f64),
    Missing,
}

impl Value {
    fn csv(&self) -> String {
        match self {
            Value::Text(text) => text.clone(),
            Value::Whole(n) => n.to_string(),
            Value::Real(x) => x.to_string(),
            Value::Missing => String::new(),
        }
    }

    fn sql(&self) -> String {
        match self {
            Value::Text(text) => format!("'{}'", text.replace('\'', "''")),
            Value::Missing => "NULL".to_string(),
            number => number.csv(),
        }
    }
}

/// (name, SQL type, value)
type Column = (&'static str, &'static str, fn(&Report, &Row) -> Value);

const TEXT: &str = "TEXT";
const WHOLE: &str = "INTEGER";
const REAL: &str = "REAL";

const COLUMNS: [Column; 47] = [
    ("measured_at", TEXT, |report, _| Value::Text(report.measured_at.clone())),
    ("build_version", TEXT, |report, _| Value::Text(report.environment.engine.version.clone())),
    ("build_commit", TEXT, |report, _| optional(report.environment.engine.commit.clone())),
    ("cpu", TEXT, |report, _| optional(report.environment.cpu.name.clone())),
    ("kernel", TEXT, |report, _| optional(report.environment.kernel.clone())),
    ("model", TEXT, |_, row| Value::Text(row.model.clone())),
    ("formats", TEXT, |_, row| Value::Text(row.formats.clone())),
    ("weight_bytes", WHOLE, |_, row| Value::Whole(row.weight_bytes)),
    ("parameters", WHOLE, |_, row| Value::Whole(row.parameters)),
    ("packing", TEXT, |_, row| Value::Text(row.packing.to_string())),
    ("isa", TEXT, |_, row| Value::Text(row.isa.to_string())),
    ("threads", WHOLE, |_, row| Value::Whole(row.threads as u64)),
    ("kv_type", TEXT, |_, row| Value::Text(row.kv_type.to_string())),
    ("cache", TEXT, |_, row| Value::Text(row.cache.clone())),
    ("chunk", WHOLE, |_, row| Value::Whole(row.chunk as u64)),
    ("seed", TEXT, |report, _| Value::Text(report.seed.to_string())),
    ("test", TEXT, |_, row| Value::Text(row.test.clone())),
    ("tokens", WHOLE, |_, row| Value::Whole(row.tokens as u64)),
    ("depth", WHOLE, |_, row| Value::Whole(row.depth as u64)),
    ("n", WHOLE, |_, row| Value::Whole(row.n as u64)),
    ("tokens_per_s_median", REAL, |_, row| Value::Real(row.tokens_per_s.median)),
    ("tokens_per_s_quartile_low", REAL, |_, row| Value::Real(row.tokens_per_s.quartile_low)),
    ("tokens_per_s_quartile_high", REAL, |_, row| Value::Real(row.tokens_per_s.quartile_high)),
    ("tokens_per_s_min", REAL, |_, row| Value::Real(row.tokens_per_s.min)),
    ("tokens_per_s_max", REAL, |_, row| Value::Real(row.tokens_per_s.max)),
    ("bytes", WHOLE, |_, row| Value::Whole(row.bytes)),
    ("flops", WHOLE, |_, row| Value::Whole(row.flops)),
    ("bytes_per_s", REAL, |_, row| Value::Real(row.bytes_per_s)),
    ("flops_per_s", REAL, |_, row| Value::Real(row.flops_per_s)),
    ("overhead_s_per_token", REAL, |_, row| Value::Real(row.overhead_s_per_token)),
    ("roof_level", TEXT, |_, row| Value::Text(row.roof.level.clone())),
    ("roof_bytes_per_s", REAL, |_, row| Value::Real(row.roof.bandwidth)),
    ("roof_usual_bytes_per_s", REAL, |_, row| Value::Real(row.roof.usual_bandwidth)),
    ("roof_flops_per_s", REAL, |_, row| Value::Real(row.roof.peak)),
    ("roof_arithmetic", TEXT, |_, row| Value::Text(row.roof.peak_type.to_string())),
    ("mbu", REAL, |_, row| Value::Real(row.mbu)),
    ("mbu_usual", REAL, |_, row| Value::Real(row.mbu_usual)),
    ("mfu", REAL, |_, row| Value::Real(row.mfu)),
    ("above_limit", TEXT, |_, row| Value::Text(row.above_limit.join(" "))),
    ("kv_bytes", WHOLE, |_, row| Value::Whole(row.kv_bytes)),
    ("kv_committed_bytes", WHOLE, |_, row| Value::Whole(row.kv_committed_bytes)),
    ("peak_rss_bytes", WHOLE, |_, row| row.peak_rss_bytes.map_or(Value::Missing, Value::Whole)),
    ("probes", WHOLE, |report, _| Value::Whole(report.probe_count as u64)),
    ("noisy", WHOLE, |report, row| Value::Whole(u64::from(noisy(report, row)))),
    ("compiler", TEXT, |report, _| optional(report.environment.engine.compiler.clone())),
    ("profile", TEXT, |report, _| optional(report.environment.engine.profile.clone())),
    ("seconds", REAL, |report, _| Value::Real(report.seconds)),
];

fn optional(text: Option<String>) -> Value {
    text.map_or(Value::Missing, Value::Text)
}

/// Whether the probes of the row's thread count met others on the machine.
fn noisy(report: &Report, row: &Row) -> bool {
    let of_row = |probe: &&roofline_lab::machine::Machine| {
        probe.figures.iter().any(|figure| figure.threads == row.threads)
    };
    report.probes.iter().find(of_row).is_some_and(|probe| probe.noise.is_noisy())
}

/// A head and a line per row.
pub fn csv(report: &Report) -> String {
    let mut text = csv_line(&COLUMNS.map(|(name, _, _)| name));
    for row in &report.rows {
        let cells = COLUMNS.map(|(_, _, value)| value(report, row).csv());
        text.push_str(&csv_line(&cells.each_ref().map(String::as_str)));
    }
    text
}

/// Two tables: a row each, and every sample with the row it belongs to.
pub fn sql(report: &Report) -> String {
    let columns: Vec<String> = COLUMNS.iter().map(|(name, kind, _)| format!("  {name} {kind}")).collect();
    let mut text =
        format!("CREATE TABLE IF NOT EXISTS bench (\n  id TEXT PRIMARY KEY,\n{}\n);\n", columns.join(",\n"));
    text.push_str(
        "CREATE TABLE IF NOT EXISTS bench_sample (\n  bench_id TEXT REFERENCES bench (id),\n  position INTEGER,\n  \
         seconds REAL,\n  operator_seconds REAL\n);\n",
    );
    for (index, row) in report.rows.iter().enumerate() {
        let id = Value::Text(format!("{} {index}", report.measured_at)).sql();
        let values = COLUMNS.map(|(_, _, value)| value(report, row).sql());
        text.push_str(&format!("INSERT INTO bench VALUES ({id}, {});\n", values.join(", ")));
        for sample in &row.samples {
            text.push_str(&format!(
                "INSERT INTO bench_sample VALUES ({id}, {}, {}, {});\n",
                sample.position, sample.seconds, sample.operator_seconds
            ));
        }
    }
    text
}
