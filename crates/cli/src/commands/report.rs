//! `roofline report`: rows of experiments as a page, a document, a table or pictures.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use roofline_lab::experiment::Recording;
use roofline_lab::report::{self, Source};

use crate::failure::Failure;
use crate::output::{WholeFile, print, say};

/// Turn the rows of experiments into a page that one can show
///
/// One HTML file with tables and plots; it fetches nothing and opens from disk. Points lead to their rows, every plot
/// holds its numbers as CSV, and the same rows make the same bytes. Several files stand side by side; those that ask
/// along the same axis share their plots. A file whose writer was interrupted is read as far as it goes, and the page
/// says so.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  roofline report output-tokens.jsonl\n  \
    roofline report before.jsonl after.jsonl -o both.html\n  \
    roofline report run.jsonl --markdown --svg pictures > run.md\n  \
    roofline report run.jsonl --csv > run.csv")]
pub struct Report {
    /// Files that `roofline experiment` or `roofline compare` wrote
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// Where to write; - is stdout [default: beside the first RUN, with the ending html; stdout for text]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Sentences and tables as Markdown
    #[arg(long)]
    markdown: bool,
    /// A line per run as comma-separated values
    #[arg(long, conflicts_with = "markdown")]
    csv: bool,
    /// Every plot as a file in this folder
    #[arg(long, value_name = "DIR")]
    svg: Option<PathBuf>,
}

impl Report {
    pub fn run(&self) -> Result<(), Failure> {
        let report = report::Report::of(&self.sources()?);
        if let Some(folder) = &self.svg {
            write_svgs(&report, folder)?;
        }
        if self.markdown {
            let pictures = self.svg.as_ref().map(|folder| folder.display().to_string());
            return self.write_text(&report.markdown(pictures.as_deref()));
        }
        if self.csv {
            return self.write_text(report.csv());
        }
        if self.svg.is_some() && self.output.is_none() {
            return Ok(());
        }
        let html = report.html()?;
        match &self.output {
            Some(_) => self.write_text(&html),
            None => {
                let beside = self.runs[0].with_extension("html"); // clap requires one
                write(&beside, &html)?;
                say!("{}", beside.display());
                Ok(())
            }
        }
    }

    fn sources(&self) -> Result<Vec<Source>, Failure> {
        let name =
            |path: &Path| path.file_name().map_or(path.display().to_string(), |n| n.to_string_lossy().into());
        let names: Vec<String> = self.runs.iter().map(|path| name(path)).collect();
        let mut sources = Vec::with_capacity(self.runs.len());
        for (path, name) in self.runs.iter().zip(&names) {
            let recording = Recording::read(path)?;
            // Two files of one name are told apart by their folders.
            let is_alone = names.iter().filter(|other| *other == name).count() == 1;
            let name = if is_alone { name.clone() } else { path.display().to_string() };
            sources.push(Source { name, recording });
        }
        Ok(sources)
    }

    fn write_text(&self, text: &str) -> Result<(), Failure> {
        match &self.output {
            Some(path) if path.as_os_str() != "-" => write(path, text),
            _ => print(text),
        }
    }
}

fn write_svgs(report: &report::Report, folder: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(folder)
        .map_err(|error| Failure::new(format_args!("--svg {}: {error}", folder.display())))?;
    for (name, svg) in report.svgs()? {
        write(&folder.join(name), &svg)?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let written = || -> std::io::Result<()> {
        let mut file = WholeFile::create(path)?;
        file.write_all(text.as_bytes())?;
        file.finish()
    };
    written().map_err(|error| Failure::new(format_args!("cannot write {}: {error}", path.display())))
}
