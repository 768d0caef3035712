//! Reports a repeated problem once per change instead of once per attempt.

/// The text that was last reported about a problem.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News(Option<String>);

impl News {
    /// Whether the text differs from the last one.
    pub fn is_new(&mut self, text: &str) -> bool {
        if self.0.as_deref() == Some(text) {
            return false;
        }
        self.0 = Some(text.to_owned());
        true
    }

    /// Records the end of the problem, so that the same text is new again.
    pub fn is_over(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_news_until_it_was_told_and_again_after_its_end() {
        let mut news = News::default();
        assert!(news.is_new("a"));
        assert!(!news.is_new("a"));
        assert!(news.is_new("b"));
        assert!(news.is_new("a"));
        news.is_over();
        assert!(news.is_new("a"));
    }
}
