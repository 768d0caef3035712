//! Draws the four metrics with their plots. Pure.

use aggregator::{
    api::{KeyMetrics, Now},
    exposition::unsigned,
};
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Paragraph},
};

use super::{
    human,
    readings::Readings,
    spark::{self, Point},
    style::{SOFT, title},
};

const LAKE: Color = Color::Cyan;
const WAREHOUSE: Color = Color::Magenta;

/// One of the key metrics.
struct Gauge {
    name: &'static str,
    color: Color,
    value: String,
    rate: String,
    points: Vec<Point>,
    /// Whether the plot begins at zero, not at its lowest value.
    from_zero: bool,
    write: fn(Option<f64>) -> String,
}

fn gauges(now: &Now, readings: &Readings) -> [Gauge; 4] {
    let history = &readings.history;
    let grain_ms = history.grain_s * 1_000;
    let numbers = now.numbers.as_ref();
    let rates = numbers.map(|numbers| numbers.rates).unwrap_or_default();
    let responses = numbers.map(|numbers| numbers.responses).unwrap_or_default();
    let metric = |value: fn(KeyMetrics) -> f64| numbers.map(|numbers| value(numbers.key_metrics));
    let per_s = |text: String| format!("{text}/s");
    let live = |mut points: Vec<Point>, value: Option<f64>| {
        points.extend(value.map(|value| (now.at_ms, value)));
        points
    };
    let used = metric(|metrics| metrics.used_gb);
    let response = metric(|metrics| metrics.response_ms);
    let used_gb = history.lake.iter().map(|(at, used, _)| (*at, used / 1e9));
    let accesses: Vec<Point> =
        history.lake.iter().map(|(at, _, accesses)| (*at, unsigned((*accesses).into()))).collect();
    let response_ms = history.warehouse.iter().map(|(at, response, _)| (*at, *response));
    let records: Vec<Point> =
        history.warehouse.iter().map(|(at, _, records)| (*at, *records)).collect();
    [
        Gauge {
            name: "data_lake_espaco_utilizado_gb",
            color: LAKE,
            value: used.map_or_else(|| "-".to_owned(), |used| format!("{used:.3} GB")),
            rate: per_s(human::bytes(rates.used_bytes)),
            points: live(used_gb.collect(), used),
            from_zero: false,
            write: |gb| human::bytes(gb.map(|gb| gb * 1e9)),
        },
        Gauge {
            name: "data_lake_numero_acessos",
            color: LAKE,
            value: human::whole(metric(|metrics| metrics.accesses)),
            rate: per_s(human::short(rates.accesses)),
            points: live(spark::rates(&accesses, grain_ms), rates.accesses),
            from_zero: true,
            write: |rate| format!("{}/s", human::short(rate)),
        },
        Gauge {
            name: "data_warehouse_tempo_resposta_ms",
            color: WAREHOUSE,
            value: response.map_or_else(|| "-".to_owned(), |response| format!("{response:.1} ms")),
            rate: format!(
                "p95 {}  p99 {}",
                human::span(responses.p95_ms),
                human::span(responses.p99_ms)
            ),
            points: live(response_ms.collect(), response),
            from_zero: true,
            write: human::span,
        },
        Gauge {
            name: "data_warehouse_registros_processados",
            color: WAREHOUSE,
            value: human::whole(metric(|metrics| metrics.records)),
            rate: per_s(human::short(rates.records)),
            points: live(spark::rates(&records, grain_ms), rates.records),
            from_zero: true,
            write: |rate| format!("{}/s", human::short(rate)),
        },
    ]
}

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, readings: &Readings) {
    let Ok(now) = &readings.now else { return };
    let rows: [Rect; 2] = Layout::vertical([Constraint::Fill(1); 2]).areas(area);
    let cells = rows.map(|row| Layout::horizontal([Constraint::Fill(1); 2]).areas::<2>(row));
    for (gauge, area) in gauges(now, readings).iter().zip(cells.as_flattened()) {
        let span_ms = readings.history.span_s.max(1) * 1_000;
        draw_one(frame, *area, gauge, now.ready.then_some((now.at_ms, span_ms)));
    }
}

fn draw_one(frame: &mut Frame<'_>, area: Rect, gauge: &Gauge, shown: Option<(i64, i64)>) {
    let block = Block::bordered().border_style(SOFT).title(title(format!(" {} ", gauge.name)));
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let Some((now_ms, span_ms)) = shown else {
        frame.render_widget(Paragraph::new("not complete yet").style(SOFT), inner);
        return;
    };
    let values = spark::columns(&gauge.points, now_ms, span_ms, inner.width.max(1));
    let known = || values.iter().flatten().copied();
    let high = known().fold(f64::MIN, f64::max);
    let low = if gauge.from_zero { 0.0 } else { known().fold(f64::MAX, f64::min) };
    let style = Style::new().fg(gauge.color);
    let mut value = vec![
        Span::styled(gauge.value.clone(), style.add_modifier(Modifier::BOLD)),
        Span::raw(format!("  {}", gauge.rate)),
    ];
    let top =
        if high > f64::MIN { format!("top {}", (gauge.write)(Some(high))) } else { String::new() };
    let used: usize = value.iter().map(Span::width).sum();
    let room = usize::from(inner.width).saturating_sub(used + top.chars().count());
    if room > 1 {
        value.push(Span::styled(format!("{}{top}", " ".repeat(room)), SOFT));
    }
    let plot = spark::rows(&values, (low, high), inner.height.saturating_sub(1));
    let plot = plot.into_iter().map(|row| Line::styled(row, style));
    let lines: Vec<Line<'_>> = std::iter::once(Line::from(value)).chain(plot).collect();
    frame.render_widget(Paragraph::new(lines), inner);
}
