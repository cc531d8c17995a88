//! Aligned tables and key-value blocks, in Slurm's manner.
//!
//! Invariants: text from the cluster reaches the terminal without control characters; no line ends
//! in spaces; without colour the bytes are the same on a terminal and in a pipe.
//! Does not: print, or know any message.

/// How a cell is coloured on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Tone {
    #[default]
    Plain,
    Good,
    Busy,
    Bad,
    Faint,
    Strong,
}

impl Tone {
    fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Good => Some("32"),
            Self::Busy => Some("36"),
            Self::Bad => Some("31"),
            Self::Faint => Some("2"),
            Self::Strong => Some("1"),
        }
    }
}

/// Whether escape codes may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colour {
    On,
    Off,
}

impl Colour {
    /// `text` in the tone, if colours are on.
    pub(crate) fn paint(self, text: &str, tone: Tone) -> String {
        match (self, tone.code()) {
            (Self::On, Some(code)) => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
            (Self::On, None) | (Self::Off, _) => text.to_owned(),
        }
    }
}

/// Side on which a column is flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flush {
    Left,
    Right,
}

/// One value in a table.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A cell of one tone; empty text is shown as `-`.
    pub(crate) fn new(text: impl AsRef<str>, tone: Tone) -> Self {
        let text = clean(text.as_ref());
        Self { text: if text.is_empty() { "-".to_owned() } else { text }, tone }
    }

    /// A cell without colour.
    pub(crate) fn plain(text: impl AsRef<str>) -> Self {
        Self::new(text, Tone::Plain)
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

/// `text` without control characters: a job's name must not steer somebody's terminal.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|symbol| if symbol.is_control() { '?' } else { symbol }).collect()
}

/// Rows under a header.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<(&'static str, Flush)>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub(crate) fn new(columns: &[(&'static str, Flush)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; cells beyond the columns are ignored, missing ones are empty.
    pub(crate) fn push(&mut self, row: Vec<Cell>) {
        self.rows.push(row);
    }

    /// The table as text that ends in a newline.
    pub(crate) fn render(&self, colour: Colour) -> String {
        let header: Vec<Cell> = self.columns.iter().map(|(title, _)| Cell::new(title, Tone::Strong)).collect();
        let lines = || std::iter::once(&header).chain(&self.rows);
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|column| lines().filter_map(|row| row.get(column)).map(Cell::width).max().unwrap_or(0))
            .collect();
        let mut text = String::new();
        for row in lines() {
            let mut line = String::new();
            let mut pending = 0;
            for ((cell, width), (_, flush)) in row.iter().zip(&widths).zip(&self.columns) {
                let fill = width - cell.width();
                let (before, after) = match flush {
                    Flush::Left => (0, fill),
                    Flush::Right => (fill, 0),
                };
                line.extend(std::iter::repeat_n(' ', pending + before));
                line.push_str(&colour.paint(&cell.text, cell.tone));
                pending = after + 2;
            }
            text.push_str(&line);
            text.push('\n');
        }
        text
    }
}

/// `key: value` lines with aligned values; entries with an empty value are left out.
#[derive(Debug, Default)]
pub(crate) struct Block {
    entries: Vec<(&'static str, String, Tone)>,
}

impl Block {
    pub(crate) fn add(&mut self, key: &'static str, value: impl AsRef<str>) -> &mut Self {
        self.add_toned(key, value, Tone::Plain)
    }

    pub(crate) fn add_toned(&mut self, key: &'static str, value: impl AsRef<str>, tone: Tone) -> &mut Self {
        if !value.as_ref().is_empty() {
            self.entries.push((key, clean(value.as_ref()), tone));
        }
        self
    }

    /// The block as text that ends in a newline.
    pub(crate) fn render(&self, colour: Colour) -> String {
        let width = self.entries.iter().map(|(key, ..)| key.len()).max().unwrap_or(0);
        let mut text = String::new();
        for (key, value, tone) in &self.entries {
            let key = colour.paint(&format!("{:<width$}", format!("{key}:"), width = width + 1), Tone::Strong);
            text.push_str(&format!("{key}  {}\n", colour.paint(value, *tone)));
        }
        text
    }
}
