//! What tools report while they wait for acknowledgements.

use std::time::Duration;

use bus::{BusError, Confirmed, Publisher};

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

/// Between two looks whether publishing waits.
const LOOK: Duration = Duration::from_millis(200);

/// Waits until everything that was published is stored, and says so while that has to wait.
///
/// # Errors
///
/// What no retry can mend.
pub(crate) async fn flush_saying(
    publisher: &Publisher,
    say: impl Fn(&str),
) -> Result<Confirmed, BusError> {
    let flushing = publisher.flush();
    tokio::pin!(flushing);
    let (mut said, progress) = (PublishNotice::default(), publisher.progress());
    loop {
        tokio::select! {
            flushed = &mut flushing => return flushed,
            () = tokio::time::sleep(LOOK) => {
                if let Some(news) = said.news(progress.trouble()) {
                    say(&news);
                }
            }
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
