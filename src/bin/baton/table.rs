//! Tables for people, in one look for every subcommand.

use comfy_table::{ContentArrangement, Table, presets};

/// An empty table with a header; long cells wrap to the width of the terminal.
pub fn new<H: ToString>(header: impl IntoIterator<Item = H>) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header.into_iter().map(|cell| cell.to_string()));
    if table.width().is_none() {
        table.set_width(WIDTH);
    }
    table
}

/// Columns where there is no terminal to ask: logs, pipes.
const WIDTH: u16 = 140;
