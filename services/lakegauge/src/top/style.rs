//! How texts of the screen look.

use ratatui::{
    style::{Color, Modifier, Style},
    text::Span,
};

pub(super) const SOFT: Style = Style::new().fg(Color::DarkGray);
pub(super) const STRONG: Style = Style::new().add_modifier(Modifier::BOLD);
pub(super) const GOOD: Style = Style::new().fg(Color::Green).add_modifier(Modifier::BOLD);
pub(super) const BAD: Style = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);

/// A title, brighter than its frame.
pub(super) fn title(text: String) -> Span<'static> {
    Span::styled(text, Style::new().fg(Color::Reset))
}
