//! Draws the screen. Pure: the same readings and view give the same cells.

use std::time::Duration;

use aggregator::api::{Now, Numbers, Severity};
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::Style,
    text::{Line, Span},
    widgets::{Block, Clear, Paragraph, Row, Table},
};
use service_kit::terminal::plain;

use super::{
    banner, gauges, human,
    readings::Readings,
    style::{self, BAD, GOOD, SOFT, STRONG},
};

/// At this height there is room for taller plots and more dead letters.
const TALL_ROWS: u16 = 34;
/// Lists that can be scrolled: buckets, warehouses, dead letters.
pub(super) const LISTS: usize = 3;

/// What the keys set: how the readings are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct View {
    /// Time between two readings.
    pub(super) interval: Duration,
    /// The list that the arrows scroll.
    pub(super) list: usize,
    /// Lines at the head of each list that are scrolled out.
    pub(super) scrolled: [usize; LISTS],
    /// The box over the screen.
    pub(super) over: Over,
}

/// The box over the screen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Over {
    /// Nothing.
    #[default]
    Nothing,
    /// The keys.
    Help,
    /// The question for another interval, with the typed digits.
    Interval(String),
}

/// Draws the screen; `None` before the first readings.
pub(super) fn draw(frame: &mut Frame<'_>, readings: Option<&Readings>, view: &View) {
    let is_tall = frame.area().height >= TALL_ROWS;
    let (plots, letters_max) = if is_tall { (14, 8) } else { (10, 4) };
    let known = readings.and_then(|readings| readings.letters.as_ref().ok()).map_or(1, Vec::len);
    let letters = u16::try_from(known.max(1)).unwrap_or(u16::MAX).saturating_add(2);
    let letters = letters.min(letters_max);
    let wrong = readings.and_then(|readings| readings.now.as_ref().ok());
    let wrong = wrong.map(|now| banner::lines(now, frame.area().width)).unwrap_or_default();
    let rows = [
        Constraint::Length(u16::try_from(wrong.len()).unwrap_or(u16::MAX)),
        Constraint::Length(if is_tall { 5 } else { 4 }),
        Constraint::Length(plots),
        Constraint::Min(4),
        Constraint::Length(letters),
        Constraint::Length(1),
    ];
    let [above, head, gauges, lists, letters, foot] = Layout::vertical(rows).areas(frame.area());
    frame.render_widget(Paragraph::new(wrong), above);
    match readings {
        None => frame.render_widget(Paragraph::new("asking..."), head),
        Some(readings) => {
            frame.render_widget(Paragraph::new(head_lines(readings, head.width)), head);
            gauges::draw(frame, gauges, readings);
            draw_lists(frame, lists, readings, view);
            draw_letters(frame, letters, readings, view);
        }
    }
    let keys = format!(
        "q quit  h help  s every {} s  tab list  arrows scroll  space now",
        view.interval.as_secs_f64()
    );
    frame.render_widget(Paragraph::new(keys).style(SOFT), foot);
    match &view.over {
        Over::Nothing => {}
        Over::Help => draw_help(frame),
        Over::Interval(typed) => {
            draw_over(frame, " Seconds between readings ", &[format!("{typed}_")]);
        }
    }
}

fn head_lines(readings: &Readings, width: u16) -> Vec<Line<'static>> {
    let now = match &readings.now {
        Ok(now) => now,
        Err(why) => {
            let title = Line::from(vec![
                Span::styled("lakegauge top  ", STRONG),
                Span::styled("no answer", BAD),
            ]);
            let rows = banner::wrapped(&plain(why), usize::from(width));
            return std::iter::once(title).chain(rows.into_iter().map(Line::from)).collect();
        }
    };
    let time = banner::clock(now.at_ms);
    let is_well = now.incidents.iter().all(|it| it.severity != Severity::Incident);
    let (word, style) = match now.stale_since_ms {
        _ if now.ready && is_well => ("live", GOOD),
        _ if now.ready => ("not well", BAD),
        Some(_) => ("stale", BAD),
        None => ("catching up", BAD),
    };
    let title = Line::from(vec![
        Span::styled("lakegauge top  ", STRONG),
        Span::raw(format!("{time}  ")),
        Span::styled(word, style),
        Span::styled(format!("  aggregator {}", plain(&now.version)), SOFT),
        banner::ledger_note(now),
    ]);
    let (rates, lag) = (rates_line(now, readings), lag_line(now, readings));
    vec![title, rates, lag, banner::parts_line(now), banner::ledger_line(now)]
}

fn rates_line(now: &Now, readings: &Readings) -> Line<'static> {
    let archived = readings.archiver.and_then(|archiver| archiver.events_per_s);
    let rates = now.numbers.as_ref().map(|numbers| numbers.rates).unwrap_or_default();
    let mut spans = vec![Span::styled("per second  ", SOFT)];
    for (name, value) in [
        ("requests", rates.accesses),
        ("queries", rates.queries),
        ("rows", rates.records),
        ("archived", archived),
    ] {
        spans.push(Span::styled(human::short(value), STRONG));
        spans.push(Span::raw(format!(" {name}   ")));
    }
    Line::from(spans)
}

fn lag_line(now: &Now, readings: &Readings) -> Line<'static> {
    let aggregator: f64 = now.health.streams.iter().map(|stream| stream.lag_messages).sum();
    let mut spans = vec![
        Span::styled("lag         ", SOFT),
        Span::styled(human::whole(Some(aggregator)), STRONG),
        Span::raw(" to count   "),
    ];
    match readings.archiver {
        Some(archiver) => {
            spans.push(Span::styled(human::whole(archiver.lag), STRONG));
            spans.push(Span::raw(" to archive   "));
            let open = archiver.letters_open;
            let style = if open.is_some_and(|open| open > 0.0) { BAD } else { STRONG };
            spans.push(Span::styled(human::whole(open), style));
            spans.push(Span::raw(" dead letters open"));
        }
        None => spans.push(Span::styled("the archiver does not answer", BAD)),
    }
    Line::from(spans)
}

fn list_block(text: String, is_chosen: bool) -> Block<'static> {
    let style = if is_chosen { Style::new() } else { SOFT };
    Block::bordered().border_style(style).title(style::title(text))
}

/// The lines without the first `by`, but at least the last one.
fn scrolled<T>(lines: &[T], by: usize) -> &[T] {
    lines.get(by.min(lines.len().saturating_sub(1))..).unwrap_or_default()
}

fn draw_lists(frame: &mut Frame<'_>, area: Rect, readings: &Readings, view: &View) {
    let Ok(Now { numbers: Some(numbers), .. }) = &readings.now else { return };
    let Numbers { buckets, warehouses, .. } = numbers;
    let [left, right] = Layout::horizontal([Constraint::Fill(1); 2]).areas(area);
    let widths = |numbers: [u16; 3]| {
        let numbers = numbers.map(Constraint::Length);
        [Constraint::Fill(1), numbers[0], numbers[1], numbers[2]]
    };
    let head = |names: [&'static str; 4]| {
        let [name, rest @ ..] = names.map(Line::from);
        let cells = std::iter::once(name).chain(rest.into_iter().map(Line::right_aligned));
        Row::new(cells.collect::<Vec<_>>()).style(SOFT)
    };
    let row = |name: &str, numbers: [String; 3]| {
        let numbers = numbers.into_iter().map(|number| Line::from(number).right_aligned());
        Row::new(std::iter::once(Line::from(plain(name))).chain(numbers).collect::<Vec<_>>())
    };
    let rows = scrolled(&buckets.top, view.scrolled[0]).iter().map(|bucket| {
        let used = human::bytes(Some(bucket.used_bytes));
        let requests = human::tenths(bucket.accesses_per_s);
        row(&bucket.name, [used, requests, human::percent(bucket.failed_share)])
    });
    let title = format!(" Largest buckets, {} of {} ", buckets.top.len(), buckets.total);
    let table = Table::new(rows, widths([10, 11, 8]))
        .header(head(["bucket", "used", "requests/s", "failed"]))
        .block(list_block(title, view.list == 0));
    frame.render_widget(table, left);
    let rows = scrolled(&warehouses.top, view.scrolled[1]).iter().map(|warehouse| {
        let queries = human::tenths(warehouse.queries_per_s);
        let rows = human::short(warehouse.records_per_s);
        row(&warehouse.name, [queries, human::span(warehouse.p95_ms), rows])
    });
    let title = format!(" Busiest warehouses, {} of {} ", warehouses.top.len(), warehouses.total);
    let table = Table::new(rows, widths([10, 10, 8]))
        .header(head(["warehouse", "queries/s", "p95", "rows/s"]))
        .block(list_block(title, view.list == 1));
    frame.render_widget(table, right);
}

fn draw_letters(frame: &mut Frame<'_>, area: Rect, readings: &Readings, view: &View) {
    let lines: Vec<Line<'_>> = match &readings.letters {
        Err(why) => vec![Line::styled(plain(why), SOFT)],
        Ok(letters) if letters.is_empty() => vec![Line::styled("none in the last hour", GOOD)],
        Ok(letters) => scrolled(letters, view.scrolled[2])
            .iter()
            .map(|letter| Line::raw(letter.as_str()))
            .collect(),
    };
    let block = list_block(" Last dead letters ".to_owned(), view.list == 2);
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn draw_help(frame: &mut Frame<'_>) {
    let keys = [
        ("q, Esc", "quit"),
        ("h, ?", "this help"),
        ("s, d", "seconds between readings"),
        ("space", "read now"),
        ("tab, left, right", "choose a list"),
        ("up, down", "scroll it"),
    ];
    let lines = keys.map(|(key, what)| format!("{key:<18}{what}"));
    draw_over(frame, " Keys ", &lines);
}

fn draw_over(frame: &mut Frame<'_>, title: &str, lines: &[String]) {
    /// Columns of the box.
    const WIDTH: u16 = 50;
    let height = u16::try_from(lines.len()).unwrap_or(u16::MAX).saturating_add(2);
    let all = frame.area();
    let (width, height) = (WIDTH.min(all.width), height.min(all.height));
    let area = Rect::new((all.width - width) / 2, (all.height - height) / 2, width, height);
    frame.render_widget(Clear, area);
    let lines: Vec<Line<'_>> = lines.iter().map(|line| Line::raw(line.as_str())).collect();
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(title)), area);
}

#[cfg(test)]
mod tests {
    use ratatui::{Terminal, backend::TestBackend};
    use serde_json::json;

    use super::*;
    use crate::top::readings::Archiver;

    fn readings() -> Readings {
        let now = json!({
            "at_ms": 3_600_000, "version": "1.2.3", "ready": true,
            "health": { "parts": [{ "name": "nats", "ok": true, "detail": "" }],
                        "streams": [{ "name": "LAKE_0", "lag_messages": 7.0 }] },
            "four": { "data_lake_espaco_utilizado_gb": 624.57, "data_lake_numero_acessos": 886_562.0,
                      "data_warehouse_tempo_resposta_ms": 4_730.84,
                      "data_warehouse_registros_processados": 4_475_020_375.0 },
            "rates": { "accesses": 401.3, "records": 1.43e9, "queries": 70.0, "used_bytes": null },
            "responses": { "p95_ms": 10_800.0 },
            "buckets": { "total": 200, "top": [
                { "name": "raw", "used_bytes": 196e9, "accesses_per_s": 141.2, "failed_share": 0.011 },
                { "name": "cu\u{1b}[31mrated", "used_bytes": 149e9 }] },
            "warehouses": { "total": 1, "top": [{ "name": "etl", "queries_per_s": 20.98, "p95_ms": 27_000.0 }] },
        });
        let history = json!({
            "span_s": 3_600, "grain_s": 10,
            "lake": [[1_000, 1e9, 0], [1_800_000, 300e9, 5_000], [3_590_000, 600e9, 880_000]],
            "warehouse": [[1_000, 5.0, 0], [3_590_000, 4_000.0, 9_000]],
        });
        Readings {
            now: Ok(serde_json::from_value(now).unwrap()),
            history: serde_json::from_value(history).unwrap(),
            archiver: Some(Archiver {
                lag: Some(12.0),
                events_per_s: Some(471.0),
                letters_open: Some(1.0),
            }),
            letters: Ok(vec![
                "    17  20:24:05  LAKE_0  future_dated".to_owned(),
                "    16  older".to_owned(),
            ]),
        }
    }

    fn shown(readings: Option<&Readings>, view: &View, (width, height): (u16, u16)) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, readings, view)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn the_smallest_usual_screen_has_everything() {
        let text = shown(Some(&readings()), &View::default(), (80, 24));
        for part in [
            "live",
            "401 requests",
            "1.43G rows",
            "471 archived",
            "7 to count",
            "12 to archive",
            "1 dead letters open",
            "data_lake_espaco_utilizado_gb",
            "624.570 GB",
            "886,562",
            "4730.8 ms",
            "p95 10.8 s",
            "4,475,020,375",
            "2 of 200",
            "196 GB",
            "141.2",
            "1.1%",
            "etl",
            "27 s",
            "future_dated",
            "q quit",
            "▁",
            "█",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(!text.contains('\u{1b}'), "a name must not steer the terminal");
    }

    #[test]
    fn no_size_makes_it_panic() {
        for (width, height) in [(1, 1), (5, 3), (20, 10), (79, 23), (300, 100)] {
            shown(Some(&readings()), &View::default(), (width, height));
            shown(None, &View { over: Over::Help, ..View::default() }, (width, height));
        }
    }

    #[test]
    fn what_is_not_known_is_said() {
        let text = shown(None, &View::default(), (80, 24));
        assert!(text.contains("asking"), "{text}");
        let silent = Readings {
            now: Err("the aggregator does not answer".to_owned()),
            archiver: None,
            letters: Err("not known: DATABASE_URL is not set".to_owned()),
            ..readings()
        };
        let text = shown(Some(&silent), &View::default(), (80, 24));
        assert!(text.contains("no answer") && text.contains("DATABASE_URL is not set"), "{text}");
        let behind = Now { ready: false, numbers: None, ..readings().now.unwrap() };
        let behind = Readings { now: Ok(behind), ..readings() };
        let text = shown(Some(&behind), &View::default(), (80, 24));
        assert!(text.contains("catching up") && text.contains("not complete yet"), "{text}");
        let stale =
            Now { ready: false, stale_since_ms: Some(1), numbers: None, ..readings().now.unwrap() };
        let stale = Readings { now: Ok(stale), ..readings() };
        let text = shown(Some(&stale), &View::default(), (80, 24));
        assert!(text.contains("stale") && !text.contains("live"), "{text}");
    }

    #[test]
    fn what_is_wrong_stands_above_everything_else() {
        let mut wrong = readings().now.unwrap();
        let incident = json!({ "kind": "postgres_down", "severity": "incident", "since_ms": 45_296_000,
            "title": "The archiver can't reach PostgreSQL", "todo": "Start PostgreSQL.",
            "waiting_messages": 12, "detail": "no connection" });
        wrong.incidents = vec![serde_json::from_value(incident).unwrap()];
        wrong.parts = vec![
            serde_json::from_value(json!({ "name": "PostgreSQL", "state": "failing" })).unwrap(),
        ];
        let text =
            shown(Some(&Readings { now: Ok(wrong), ..readings() }), &View::default(), (80, 24));
        let first = text.lines().next().unwrap();
        assert!(
            first.contains("! The archiver can't reach PostgreSQL (since 12:34:56 UTC)."),
            "{text}"
        );
        for part in
            ["12 messages wait", "nothing is lost", "Start PostgreSQL.", "not well", "✗PostgreSQL"]
        {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(!text.contains("  live"), "{text}");
    }

    #[test]
    fn lists_scroll_and_never_to_nothing() {
        let view = View { scrolled: [1, 0, 9], ..View::default() };
        let text = shown(Some(&readings()), &view, (80, 24));
        assert!(!text.contains("196 GB") && text.contains("149 GB"), "{text}");
        assert!(!text.contains("future_dated") && text.contains("older"), "{text}");
    }

    #[test]
    fn help_and_the_question_lie_over_it() {
        let help = View { over: Over::Help, ..View::default() };
        assert!(shown(Some(&readings()), &help, (80, 24)).contains("seconds between readings"));
        let asked = View { over: Over::Interval("1.5".to_owned()), ..View::default() };
        assert!(shown(Some(&readings()), &asked, (80, 24)).contains("1.5_"));
    }
}
