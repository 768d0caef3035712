//! What tools say while they wait for acknowledgements.

/// Says once that publishing waits, and once that it goes on.
#[derive(Debug, Default)]
pub(crate) struct PublishNotice(bool);

impl PublishNotice {
    /// The words, if there is something new to say about why publishing waits.
    pub(crate) fn news(&mut self, trouble: Option<String>) -> Option<String> {
        let waited = std::mem::replace(&mut self.0, trouble.is_some());
        match trouble {
            Some(why) if !waited => Some(format!("publishing waits: {why}")),
            None if waited => Some("publishing goes on: NATS acknowledges again".to_owned()),
            Some(_) | None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_turn_is_said_once() {
        let mut said = PublishNotice::default();
        assert_eq!(said.news(None), None);
        assert_eq!(said.news(Some("a".to_owned())).unwrap(), "publishing waits: a");
        assert_eq!(said.news(Some("b".to_owned())), None);
        assert!(said.news(None).unwrap().contains("goes on"));
        assert_eq!(said.news(None), None);
    }
}
