//! What a bench says at its end: tables for people, files for machines.

use comfy_table::{Cell as TableCell, CellAlignment, Table};
use serde::Serialize;
use std::fs;
use std::path::Path as FilePath;

use super::cells::{Layout, size_text};
use super::entrant::{Entrant, Impl, Path, Seam};
use super::error::BenchError;
use super::figures::Figure;
use super::measure::Row;

/// Everything that was measured.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Bandwidths.
    pub rows: Vec<Row>,
    /// The rest.
    pub figures: Vec<Figure>,
    /// Paths that this machine does not have, and peers that have failed.
    pub skipped: Vec<Skipped>,
}

/// What was not measured, or not to the end.
#[derive(Clone, Debug, Serialize)]
pub struct Skipped {
    /// Which.
    #[serde(flatten)]
    pub path: Path,
    /// Whom; everybody, where none is named.
    #[serde(rename = "impl", skip_serializing_if = "Option::is_none")]
    pub name: Option<Impl>,
    /// Why.
    pub why: String,
}

impl Skipped {
    /// An implementation that was left out.
    pub fn of(entrant: &Entrant, why: &str) -> Self {
        Self { path: entrant.path, name: Some(entrant.name), why: why.to_owned() }
    }
}

impl Report {
    /// Writes `vs_peers.json` and `figures.json`.
    ///
    /// # Errors
    /// The system's, with the path.
    pub fn write(&self, folder: &FilePath) -> Result<(), BenchError> {
        let files = [
            ("vs_peers.json", serde_json::to_string_pretty(&self.rows)),
            ("figures.json", serde_json::to_string_pretty(&self.figures)),
        ];
        for (name, text) in files {
            let path = folder.join(name);
            let written = text.map_err(Into::into).and_then(|text| fs::write(&path, text + "\n"));
            written.map_err(|source| BenchError::File { path, source })?;
        }
        Ok(())
    }

    /// All of it as one JSON object.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default() // plain numbers and names: it cannot fail
    }

    /// All of it as tables.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for path in Path::ALL {
            let rows: Vec<&Row> = self.rows.iter().filter(|row| row.path == path).collect();
            if !rows.is_empty() {
                text += &format!("{path}: GB/s (10^9 bytes), and how many times as fast as each Baton is\n");
                text += &format!("{}\n\n", bandwidths(&rows));
            }
            let figures: Vec<&Figure> = self.figures.iter().filter(|figure| figure.path == path).collect();
            if !figures.is_empty() {
                text += &format!("{path}: the rest, median / p99\n{}\n\n", others(&figures));
            }
        }
        for Skipped { path, name, why } in &self.skipped {
            let whom = name.map(|name| format!(" {name}")).unwrap_or_default();
            text += &format!("{path}:{whom} skipped: {why}\n\n");
        }
        text + "~ the rounds of this figure differ by more than a quarter of it\n\
            by NAME: the limit where an implementation beats the program that looks for it; this one's speed is the limit\n\
            - does not take part in the cell"
    }
}

/// A line for each cell, with everybody's speed.
fn bandwidths(rows: &[&Row]) -> Table {
    let mut names: Vec<Impl> = Vec::new();
    for row in rows {
        if row.name != Impl::Baton && !names.contains(&row.name) {
            names.push(row.name);
        }
    }
    let mut header =
        vec!["descriptors".to_owned(), "Baton".to_owned(), "post us".to_owned(), "CPU s/GB".to_owned()];
    header.extend(names.iter().map(Impl::to_string));
    let mut table = crate::table::new(header);
    for baton in rows.iter().filter(|row| row.name == Impl::Baton) {
        let seam = if baton.seam == Some(Seam::S2) { " (s2)" } else { "" };
        let mut line = vec![TableCell::new(format!("{}{seam}", title(baton)))];
        let mut number = |text: String| line.push(TableCell::new(text).set_alignment(CellAlignment::Right));
        number(speed(baton));
        number(format!("{:.0}", baton.post_us));
        number(format!("{:.2}", baton.cpu_s_per_gb));
        for name in &names {
            let same = |row: &&&Row| {
                row.name == *name
                    && (row.size, row.count, row.layout) == (baton.size, baton.count, baton.layout)
            };
            number(match rows.iter().find(same) {
                Some(other) => format!("{} ({:.2}x)", speed(other), baton.gbps / other.gbps),
                None => "-".to_owned(),
            });
        }
        table.add_row(line);
    }
    table
}

fn title(row: &Row) -> String {
    let layout = match row.layout {
        Layout::Stride2 => " scattered".to_owned(),
        Layout::Contiguous => " in a row".to_owned(),
        Layout::Model(name) => format!(", {name}"),
    };
    format!("{} x {}{layout}", size_text(row.size), row.count)
}

fn speed(row: &Row) -> String {
    let way = if row.way.is_empty() { String::new() } else { format!(" {}", row.way) };
    let by = row.held.map(|held| format!(" by {}", held.held_by)).unwrap_or_default();
    format!("{}{:.2}{way}{by}", if row.is_noisy() { "~" } else { "" }, row.gbps)
}

/// A line for each figure, with everybody's.
fn others(figures: &[&Figure]) -> Table {
    let (mut names, mut whats): (Vec<Impl>, Vec<(&str, &str)>) = (Vec::new(), Vec::new());
    for figure in figures {
        if !names.contains(&figure.name) {
            names.push(figure.name);
        }
        if !whats.contains(&(&*figure.what, figure.unit)) {
            whats.push((&*figure.what, figure.unit));
        }
    }
    let header = ["", "unit"].into_iter().map(str::to_owned).chain(names.iter().map(Impl::to_string));
    let mut table = crate::table::new(header);
    for (what, unit) in whats {
        let mut line = vec![TableCell::new(what), TableCell::new(unit)];
        for name in &names {
            let found = figures.iter().find(|figure| figure.name == *name && figure.what == what);
            let text = found.map_or("-".to_owned(), |figure| match figure.p99 {
                Some(p99) => format!("{} / {}", short(figure.value), short(p99)),
                None => short(figure.value),
            });
            line.push(TableCell::new(text).set_alignment(CellAlignment::Right));
        }
        table.add_row(line);
    }
    table
}

/// Three digits that count.
fn short(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}
