//! Requests that are repeated until the broker answers.

use std::future::Future;
use std::time::Duration;

use domain::Mark;
use service_kit::News;
use tokio_util::sync::CancellationToken;

use crate::{
    connection::Bus,
    error::{BusError, Recovery},
    stream::Comparison,
};

/// Pause between two attempts, while the broker does not answer.
const PAUSE: Duration = Duration::from_millis(100);

/// Repeats a request until the broker answers, however long it is away. `None` if `drain` was
/// cancelled first. Each new reason for waiting is logged once.
///
/// # Errors
///
/// An error that no retry can correct.
pub(crate) async fn until_answered<T, F>(
    stream: &str,
    waits: &str,
    drain: &CancellationToken,
    ask: impl Fn() -> F,
) -> Result<Option<T>, BusError>
where
    F: Future<Output = Result<T, BusError>>,
{
    let mut news = News::default();
    loop {
        let error = match ask().await {
            Ok(answer) => return Ok(Some(answer)),
            Err(error) if error.recovery() == Recovery::Retry => error.to_string(),
            Err(error) => return Err(error),
        };
        if news.is_new(&error) {
            tracing::warn!(stream, waits, error, "the broker does not answer yet; asking again");
        }
        tokio::select! {
            () = drain.cancelled() => return Ok(None),
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

impl Bus {
    /// Whether a stream is still the one of a mark. The call asks until the broker answers:
    /// messages that are read before that may belong to another stream. `None` if `drain` was
    /// cancelled first.
    ///
    /// # Errors
    ///
    /// An error that no retry can correct.
    pub async fn compare_until_answered(
        &self,
        stream: &str,
        mark: &Mark,
        drain: &CancellationToken,
    ) -> Result<Option<Comparison>, BusError> {
        let waits = "reading on";
        until_answered(stream, waits, drain, || self.compare(stream, mark)).await
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn unanswered() -> BusError {
        BusError::NoAnswer { what: "a question".to_owned(), detail: "timed out".to_owned() }
    }

    #[tokio::test]
    async fn a_question_is_asked_until_there_is_an_answer_and_no_longer_than_the_service_lives() {
        let drain = CancellationToken::new();
        let answers = RefCell::new(vec![Ok(7), Err(unanswered()), Err(unanswered())]);
        let ask = || std::future::ready(answers.borrow_mut().pop().unwrap());
        let answered = until_answered("LAKE_0", "a test", &drain, ask).await;
        assert_eq!(answered, Ok(Some(7)));
        assert!(answers.borrow().is_empty());
        let (what, detail) = ("a pointer".to_owned(), "another one's".to_owned());
        let forbidden = BusError::Superseded { what, detail };
        let ask = || std::future::ready(Err::<u8, _>(forbidden.clone()));
        let ended = until_answered("LAKE_0", "a test", &drain, ask).await;
        assert_eq!(ended, Err(forbidden));
        drain.cancel();
        let ask = || std::future::ready(Err::<u8, _>(unanswered()));
        assert_eq!(until_answered("LAKE_0", "a test", &drain, ask).await, Ok(None));
    }
}
