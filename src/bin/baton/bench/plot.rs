//! Pictures of the ratios: how many times as fast as each other Baton is, over the size of a descriptor.

use plotters::prelude::*;
use std::path::Path as FilePath;

use super::cells::{Layout, size_text};
use super::entrant::{Impl, Path};
use super::error::BenchError;
use super::measure::Row;

/// Draws `ratios-PATH.svg` for each path that has more than one size of scattered descriptors.
///
/// # Errors
/// A file that cannot be written.
pub fn write(rows: &[Row], folder: &FilePath) -> Result<(), BenchError> {
    for path in Path::ALL {
        let lines = lines(rows, path);
        let file = folder.join(format!("ratios-{path}.svg"));
        drop(std::fs::remove_file(&file)); // of another run
        if lines.iter().all(|line| line.points.len() < 2) {
            continue;
        }
        let drawn = draw(&lines, path, &file);
        let fault = |error: String| BenchError::File { path: file, source: std::io::Error::other(error) };
        drawn.map_err(|error| fault(error.to_string()))?;
    }
    Ok(())
}

/// The ratios to one implementation: size of a descriptor, Baton's speed over the other's.
struct Line {
    name: Impl,
    points: Vec<(f64, f64)>,
}

/// One for everybody but Baton. Of several counts of a size, the largest is drawn.
fn lines(rows: &[Row], path: Path) -> Vec<Line> {
    let cells = rows.iter().filter(|row| row.path == path && row.layout == Layout::Stride2);
    let mut lines: Vec<Line> = Vec::new();
    for other in cells.clone().filter(|row| row.name != Impl::Baton) {
        let is_largest = !cells.clone().any(|row| row.size == other.size && row.count > other.count);
        let same = |row: &&Row| row.name == Impl::Baton && (row.size, row.count) == (other.size, other.count);
        let Some(baton) = cells.clone().find(same).filter(|_| is_largest) else { continue };
        let point = (other.size as f64, baton.gbps / other.gbps);
        match lines.iter_mut().find(|line| line.name == other.name) {
            Some(line) => line.points.push(point),
            None => lines.push(Line { name: other.name, points: vec![point] }),
        }
    }
    lines.iter_mut().for_each(|line| line.points.sort_by(|one, other| one.0.total_cmp(&other.0)));
    lines
}

fn draw(lines: &[Line], path: Path, file: &FilePath) -> Result<(), Box<dyn std::error::Error>> {
    let points = || lines.iter().flat_map(|line| &line.points);
    let (low, high) =
        points().fold((f64::MAX, f64::MIN), |(low, high), point| (low.min(point.1), high.max(point.1)));
    let (least, most) =
        points().fold((f64::MAX, f64::MIN), |(least, most), point| (least.min(point.0), most.max(point.0)));
    let area = SVGBackend::new(file, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(
            format!("Baton / other, {path}, scattered descriptors, most of each size"),
            ("sans-serif", 20),
        )
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(50)
        .build_cartesian_2d(
            (least..most).log_scale().base(2.0),
            (low.min(1.0) * 0.8..high * 1.25).log_scale(),
        )?;
    chart
        .configure_mesh()
        .x_desc("size of a descriptor")
        .y_desc("times as fast")
        .x_label_formatter(&|size| size_text(*size as u64))
        .y_label_formatter(&|times| format!("{times:.1}"))
        .draw()?;
    for (index, line) in lines.iter().enumerate() {
        let color = Palette99::pick(index).to_rgba();
        chart
            .draw_series(LineSeries::new(line.points.clone(), color.stroke_width(2)).point_size(4))?
            .label(line.name.to_string())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], color.stroke_width(2)));
    }
    chart.draw_series(LineSeries::new([(least, 1.0), (most, 1.0)], BLACK.mix(0.4)))?;
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    area.present()?;
    Ok(())
}

/// Of a picture, in points.
const SIZE: (u32, u32) = (760, 440);
