//! What a descriptor costs, by how many of them a request has: the figure that must not grow with their number.

use super::cells::{DESCRIPTOR_SIZES, Layout, size_text};
use super::entrant::{Impl, Path};
use super::figures::Figure;
use super::measure::Row;

/// For everybody who has moved descriptors of a small size in several numbers: nanoseconds for each in each number, and how
/// many times those of the largest number are those of the smallest.
pub fn costs(rows: &[Row], path: Path) -> Vec<Figure> {
    let mut figures = Vec::new();
    for size in DESCRIPTOR_SIZES {
        let is_one = |row: &&Row| row.path == path && row.size == size && row.layout == Layout::Stride2;
        let mut rows: Vec<&Row> = rows.iter().filter(is_one).collect();
        rows.sort_by_key(|row| row.count);
        for row in &rows {
            figures.push(figure(path, row.name, title(size, &row.count.to_string()), nanoseconds(row), "ns"));
        }
        let mut names: Vec<Impl> = Vec::new();
        for row in &rows {
            if !names.contains(&row.name) {
                names.push(row.name);
            }
        }
        for name in names {
            let mut of_name = rows.iter().filter(|row| row.name == name);
            let (Some(least), Some(most)) = (of_name.next(), of_name.next_back()) else { continue };
            let times = nanoseconds(most) / nanoseconds(least);
            let counts = format!("{} over {}", most.count, least.count);
            figures.push(figure(path, name, title(size, &counts), times, "times"));
        }
    }
    figures
}

fn title(size: u64, counts: &str) -> String {
    format!("a descriptor of {}, of {counts}", size_text(size))
}

fn nanoseconds(row: &Row) -> f64 {
    row.move_us * 1e3 / row.count as f64
}

fn figure(path: Path, name: Impl, what: String, value: f64, unit: &'static str) -> Figure {
    Figure { path, name, what: what.into(), value, p99: None, unit }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: Impl, count: u64, move_us: f64) -> Row {
        let size = DESCRIPTOR_SIZES[0];
        Row { name, size, count, move_us, layout: Layout::Stride2, ..Row::of_nothing(Path::Tcp) }
    }

    #[test]
    fn the_largest_number_is_held_against_the_smallest() {
        let rows = [row(Impl::Baton, 1000, 300.0), row(Impl::Baton, 10, 2.0), row(Impl::Limit, 10, 1.0)];
        let figures = costs(&rows, Path::Tcp);
        let said: Vec<_> = figures.iter().map(|figure| (figure.name, figure.value, figure.unit)).collect();
        let expected = [
            (Impl::Baton, 200.0, "ns"),
            (Impl::Limit, 100.0, "ns"),
            (Impl::Baton, 300.0, "ns"),
            (Impl::Baton, 1.5, "times"),
        ];
        assert_eq!(said, expected);
        assert!(figures[3].what.ends_with("of 1000 over 10"), "{}", figures[3].what);
        assert!(costs(&rows, Path::SameHost).is_empty());
    }
}
