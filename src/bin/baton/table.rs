//! Tables for people, in one look for every subcommand.

use comfy_table::{ContentArrangement, Table, presets};

/// An empty table with a header; it wraps long cells to the width of the terminal.
pub fn new<H: ToString>(header: impl IntoIterator<Item = H>) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header.into_iter().map(|cell| cell.to_string()));
    table
}
