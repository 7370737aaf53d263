//! The report: a table for people, `chaos.json` for machines, and the last line.
