//! What a report consists of, before it is HTML or Markdown.

use crate::plot::{Chart, Stack};

/// A report.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Page {
    /// One line.
    pub title: String,
    /// Sentences that a reader must see first; none when everything is in order.
    pub warnings: Vec<Line>,
    /// Its parts, in order.
    pub sections: Vec<Section>,
}

/// A part with a heading.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Section {
    /// Name inside of the page; letters, digits and hyphens.
    pub id: String,
    /// Its heading.
    pub title: String,
    /// What stands in it.
    pub blocks: Vec<Block>,
}

/// A piece of a section.
#[derive(Debug, Clone, PartialEq)]
pub enum Block {
    /// A paragraph.
    Text(String),
    /// A heading inside of a section.
    Heading(String),
    /// What is typed into a terminal.
    Command(String),
    /// Sentences below one another.
    List(Vec<Line>),
    /// Words and what they mean.
    Definitions(Vec<(String, String)>),
    /// A table.
    Table(Table),
    /// A table that a reader opens.
    Folded(Table),
    /// Points and curves over an axis.
    Plot(Box<Plot>),
    /// Bars of parts.
    Stack(Box<StackPlot>),
}

/// A sentence, and the rows it is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line {
    /// The sentence.
    pub text: String,
    /// (text, row) of each link after it.
    pub links: Vec<(String, String)>,
}

/// Rows of cells below a caption.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Table {
    /// One line.
    pub caption: String,
    /// Names of the columns, and whether they hold numbers.
    pub columns: Vec<(String, bool)>,
    /// The rows.
    pub rows: Vec<TableRow>,
}

/// A row, to which links may lead.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TableRow {
    /// Its name inside of the page; none when empty.
    pub id: String,
    /// Whether it stands apart from the others: a warm-up.
    pub muted: bool,
    /// A cell per column.
    pub cells: Vec<Cell>,
}

/// What stands in a cell.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cell {
    /// As it is read.
    pub text: String,
    /// The number in full with its unit, where the text is rounded.
    pub exact: String,
    /// The row it comes from.
    pub row: String,
}

/// A chart whose points know their rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Plot {
    /// Name inside of the page, and of its files.
    pub id: String,
    /// What is drawn.
    pub main: Panel,
    /// Distances from a fit, on the same x.
    pub residuals: Option<Panel>,
}

/// A chart and the rows behind it.
#[derive(Debug, Clone, PartialEq)]
pub struct Panel {
    /// What is drawn.
    pub chart: Chart,
    /// The row of every point of every series; empty where a point has none.
    pub rows: Vec<Vec<String>>,
}

/// Bars that know their rows.
#[derive(Debug, Clone, PartialEq)]
pub struct StackPlot {
    /// Name inside of the page, and of its files.
    pub id: String,
    /// What is drawn.
    pub stack: Stack,
    /// The row of every bar.
    pub rows: Vec<String>,
}

impl Plot {
    /// The same with both panels over the same x.
    pub(super) fn aligned(mut self) -> Plot {
        let Some(rest) = &mut self.residuals else { return self };
        let all = self.main.chart.series.iter().chain(&rest.chart.series);
        let xs = all.flat_map(|series| &series.points).map(|point| point.0);
        let (low, high) =
            xs.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
        if low <= high {
            self.main.chart.x.include.extend([low, high]);
            rest.chart.x.include.extend([low, high]);
        }
        self
    }
}

impl Line {
    /// A sentence without links.
    pub fn plain(text: impl Into<String>) -> Line {
        Line { text: text.into(), links: Vec::new() }
    }
}

impl Cell {
    /// Words.
    pub fn text(text: impl Into<String>) -> Cell {
        Cell { text: text.into(), ..Cell::default() }
    }
}

impl Table {
    /// An empty table; a column that begins with `#` holds numbers.
    pub fn new(caption: impl Into<String>, columns: &[&str]) -> Table {
        let column = |name: &&str| (name.trim_start_matches('#').to_string(), name.starts_with('#'));
        Table { caption: caption.into(), columns: columns.iter().map(column).collect(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(TableRow { cells: cells.into_iter().collect(), ..TableRow::default() });
    }
}

impl Page {
    /// All plots in order.
    pub fn plots(&self) -> impl Iterator<Item = &Plot> {
        self.blocks().filter_map(|block| match block {
            Block::Plot(plot) => Some(&**plot),
            _ => None,
        })
    }

    /// All bars in order.
    pub fn stacks(&self) -> impl Iterator<Item = &StackPlot> {
        self.blocks().filter_map(|block| match block {
            Block::Stack(stack) => Some(&**stack),
            _ => None,
        })
    }

    fn blocks(&self) -> impl Iterator<Item = &Block> {
        self.sections.iter().flat_map(|section| &section.blocks)
    }
}
