//! The cells of a screen as an SVG picture. Pure.

use std::time::Duration;

use ratatui::{
    Terminal,
    backend::TestBackend,
    buffer::{Buffer, Cell},
    style::{Color, Modifier},
};

use super::{
    readings::Readings,
    screen::{self, View},
};

/// Size of a cell and of its letters, in pixels.
const CELL: (f64, f64) = (8.4, 18.0);
const FONT_PX: f64 = 14.0;
/// Around the screen, in pixels.
const MARGIN_PX: f64 = 14.0;
const GROUND: &str = "#12181f";
const TEXT: &str = "#d8e0e7";

/// Draws the readings on a screen of this size.
///
/// # Errors
///
/// The screen has no size.
pub(super) fn draw(
    readings: &Readings,
    interval: Duration,
    (width, height): (u16, u16),
) -> anyhow::Result<String> {
    let view = View { interval, list: usize::MAX, ..View::default() };
    let mut terminal = Terminal::new(TestBackend::new(width, height))?;
    terminal.draw(|frame| screen::draw(frame, Some(readings), &view))?;
    Ok(svg(terminal.backend().buffer()))
}

fn svg(buffer: &Buffer) -> String {
    let area = buffer.area;
    let width = f64::from(area.width) * CELL.0 + 2.0 * MARGIN_PX;
    let height = f64::from(area.height) * CELL.1 + 2.0 * MARGIN_PX;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
         viewBox=\"0 0 {width:.0} {height:.0}\" font-family=\"DejaVu Sans Mono, Menlo, Consolas, \
         monospace\" font-size=\"{FONT_PX}\">\n<rect width=\"100%\" height=\"100%\" rx=\"10\" \
         fill=\"{GROUND}\"/>\n"
    );
    for y in 0..area.height {
        let mut x = 0;
        while x < area.width {
            let Some(cell) = buffer.cell((x, y)) else { break };
            if let Some(drawn) = drawn(cell, (x, y)) {
                text.push_str(&drawn);
                x += 1;
                continue;
            }
            let run = run(buffer, (x, y));
            text.push_str(&letters(cell, &run, (x, y)));
            x += u16::try_from(run.chars().count()).unwrap_or(1).max(1);
        }
    }
    text.push_str("</svg>\n");
    text
}

/// The letters from here on that look alike; a single cell at least.
fn run(buffer: &Buffer, (x, y): (u16, u16)) -> String {
    let style = buffer.cell((x, y)).map(Cell::style);
    let cells = (x..buffer.area.width).map_while(|x| buffer.cell((x, y)));
    let alike = |cell: &&Cell| Some(cell.style()) == style && drawn(cell, (0, 0)).is_none();
    cells.take_while(alike).map(Cell::symbol).collect()
}

fn letters(cell: &Cell, run: &str, (x, y): (u16, u16)) -> String {
    let trimmed = run.trim_end();
    let kept = trimmed.trim_start();
    let Ok(skipped) = u16::try_from(trimmed.chars().count() - kept.chars().count()) else {
        return String::new();
    };
    if kept.is_empty() {
        return String::new();
    }
    let (left, top) = corner((x + skipped, y));
    let length = f64::from(u32::try_from(kept.chars().count()).unwrap_or(0)) * CELL.0;
    let weight = if cell.modifier.contains(Modifier::BOLD) { " font-weight=\"bold\"" } else { "" };
    let kept = kept.replace('&', "&amp;").replace('<', "&lt;");
    format!(
        "<text x=\"{left:.1}\" y=\"{:.1}\" textLength=\"{length:.1}\" fill=\"{}\"{weight} \
         xml:space=\"preserve\">{kept}</text>\n",
        top + CELL.1 * 0.76,
        color(cell.fg)
    )
}

/// Blocks and frames as shapes: letters of them would leave gaps.
fn drawn(cell: &Cell, place: (u16, u16)) -> Option<String> {
    let (left, top) = corner(place);
    let fill = color(cell.fg);
    let symbol = cell.symbol().chars().next()?;
    if let Some(eighths) = "▁▂▃▄▅▆▇█".chars().position(|block| block == symbol) {
        let height = CELL.1 * f64::from(u32::try_from(eighths + 1).ok()?) / 8.0;
        return Some(format!(
            "<rect x=\"{left:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\" \
             fill=\"{fill}\"/>\n",
            top + CELL.1 - height,
            CELL.0 + 0.4
        ));
    }
    // Whether a line leads to the left, right, up and down.
    let [to_left, to_right, up, down] = match symbol {
        '─' => [true, true, false, false],
        '│' => [false, false, true, true],
        '┌' => [false, true, false, true],
        '┐' => [true, false, false, true],
        '└' => [false, true, true, false],
        '┘' => [true, false, true, false],
        _ => return None,
    };
    let (x, y) = (left + CELL.0 / 2.0, top + CELL.1 / 2.0);
    let mut path = String::new();
    for (is_there, (to_x, to_y)) in [
        (to_left, (left, y)),
        (to_right, (left + CELL.0, y)),
        (up, (x, top)),
        (down, (x, top + CELL.1)),
    ] {
        if is_there {
            path.push_str(&format!("M{x:.1} {y:.1}L{to_x:.1} {to_y:.1}"));
        }
    }
    Some(format!("<path d=\"{path}\" stroke=\"{fill}\"/>\n"))
}

fn corner((x, y): (u16, u16)) -> (f64, f64) {
    (MARGIN_PX + f64::from(x) * CELL.0, MARGIN_PX + f64::from(y) * CELL.1)
}

/// What a terminal with a usual palette shows.
fn color(color: Color) -> &'static str {
    if color == Color::Cyan {
        "#4fc3d4"
    } else if color == Color::Magenta {
        "#b79cf5"
    } else if color == Color::Green {
        "#6fd08f"
    } else if color == Color::Red {
        "#ff8a80"
    } else if color == Color::DarkGray {
        "#8494a1"
    } else {
        TEXT
    }
}

#[cfg(test)]
mod tests {
    use ratatui::{layout::Rect, style::Style};

    use super::*;

    #[test]
    fn letters_are_written_and_blocks_are_drawn() {
        let mut buffer = Buffer::empty(Rect::new(0, 0, 12, 2));
        buffer.set_string(0, 0, "┌─ a<b & c", Style::new().fg(Color::Cyan));
        buffer.set_string(0, 1, "▄ 7", Style::new());
        let svg = svg(&buffer);
        assert!(svg.contains(">a&lt;b &amp; c</text>"), "{svg}");
        assert!(svg.contains("fill=\"#4fc3d4\"") && svg.contains(">7</text>"), "{svg}");
        assert_eq!((svg.matches("<path").count(), svg.matches("<rect").count()), (2, 2));
    }
}
