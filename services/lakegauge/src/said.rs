//! What tools report while they wait for acknowledgements.

/// Reports once that publishing waits, and once that it continues.
#[derive(Debug, Default)]
pub(crate) struct PublishNotice(bool);

impl PublishNotice {
    /// The text, if the state of publishing has changed.
    pub(crate) fn news(&mut self, trouble: Option<String>) -> Option<String> {
        let waited = std::mem::replace(&mut self.0, trouble.is_some());
        match trouble {
            Some(why) if !waited => Some(format!("publishing waits: {why}")),
            None if waited => Some("publishing continues: NATS acknowledges again".to_owned()),
            Some(_) | None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_change_is_reported_once() {
        let mut notice = PublishNotice::default();
        assert_eq!(notice.news(None), None);
        assert_eq!(notice.news(Some("a".to_owned())).unwrap(), "publishing waits: a");
        assert_eq!(notice.news(Some("b".to_owned())), None);
        assert!(notice.news(None).unwrap().contains("publishing continues"));
        assert_eq!(notice.news(None), None);
    }
}
