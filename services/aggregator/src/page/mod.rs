//! The built-in page: what the metrics are now and were in the last hour, for people without
//! Grafana. The numbers are those of `/metrics`.

mod feed;
mod figures;
mod history;
mod now;
mod samples;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream;
use service_kit::http::{self, Answer, Asked, Reply};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

pub(crate) use feed::Feed;
pub(crate) use figures::{Figures, LakeFigures, WarehouseFigures};
pub(crate) use history::SharedHistory;
pub(crate) use samples::Samples;

const INDEX: &str = include_str!("index.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
const WORDS: &str = include_str!("words.js");
const PLOT: &str = include_str!("plot.js");
const ICON: &str = include_str!("icon.svg");

/// Pages that are kept up to date at one time. Half of the connections: the rest is for scrapes.
const VIEWERS_MAX: usize = http::CONNECTIONS_MAX / 2;
/// How long a browser waits before it connects again, in milliseconds.
const RETRY_MS: u32 = 2_000;

/// What the page shows at one moment, written once for all viewers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shown {
    /// Whether the metrics may be shown.
    pub(crate) is_ready: bool,
    /// The numbers now, as JSON.
    pub(crate) now: String,
    /// The last hour, as JSON.
    pub(crate) history: Arc<str>,
    /// Changes with the history.
    pub(crate) history_revision: u64,
}

/// Answers the page's requests. Clones share the places for viewers.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    shown: watch::Receiver<Arc<Shown>>,
    places: Arc<Semaphore>,
}

impl Page {
    /// A page of what the feed gives.
    pub(crate) fn new(shown: watch::Receiver<Arc<Shown>>) -> Self {
        Self { shown, places: Arc::new(Semaphore::new(VIEWERS_MAX)) }
    }

    /// The answer to a request; none if the path is not the page's.
    pub(crate) fn answer(&self, asked: &Asked) -> Option<Reply> {
        let file =
            |content_type, body: &str| Answer { status: 200, content_type, body: body.into() };
        let answer = match asked.path.as_str() {
            "/" => file(http::HTML, INDEX),
            "/page.css" => file(http::CSS, STYLE),
            "/page.js" => file(http::SCRIPT, SCRIPT),
            "/words.js" => file(http::SCRIPT, WORDS),
            "/plot.js" => file(http::SCRIPT, PLOT),
            "/icon.svg" => file(http::SVG, ICON),
            "/api/now" => {
                let shown = self.shown.borrow();
                let status = if shown.is_ready { 200 } else { 503 };
                Answer { status, content_type: http::JSON, body: shown.now.clone() }
            }
            "/api/history" => file(http::JSON, &self.shown.borrow().history),
            "/events" => return Some(self.events()),
            _ => return None,
        };
        Some(answer.into())
    }

    fn events(&self) -> Reply {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return Answer::unavailable(format!(
                "{VIEWERS_MAX} pages are kept up to date already: close one\n"
            ))
            .into();
        };
        let viewer = Viewer { shown: self.shown.clone(), seen: None, _place: place };
        Reply::Stream(http::EVENTS, Box::pin(stream::unfold(viewer, Viewer::next)))
    }
}

/// Who looks at the page. One that is slow misses what was in between: nothing waits for it.
struct Viewer {
    shown: watch::Receiver<Arc<Shown>>,
    /// The history that it has; none before the first part.
    seen: Option<u64>,
    _place: OwnedSemaphorePermit,
}

impl Viewer {
    async fn next(mut self) -> Option<(Bytes, Self)> {
        let mut text = String::new();
        if self.seen.is_none() {
            text.push_str(&format!("retry: {RETRY_MS}\n\n"));
        } else {
            // The feed is gone when the service ends.
            self.shown.changed().await.ok()?;
        }
        let shown = Arc::clone(&self.shown.borrow_and_update());
        if self.seen != Some(shown.history_revision) {
            text.push_str(&format!("event: history\ndata: {}\n\n", shown.history));
            self.seen = Some(shown.history_revision);
        }
        text.push_str(&format!("event: now\ndata: {}\n\n", shown.now));
        Some((Bytes::from(text), self))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;
    use service_kit::http::Parts;

    use super::*;

    fn page() -> (watch::Sender<Arc<Shown>>, Page) {
        let (sender, shown) = watch::channel(Arc::new(Shown::default()));
        (sender, Page::new(shown))
    }

    fn asked(path: &str) -> Asked {
        Asked { path: path.to_owned(), query: String::new() }
    }

    fn whole(page: &Page, path: &str) -> Answer {
        match page.answer(&asked(path)) {
            Some(Reply::Whole(answer)) => answer,
            other => panic!("{path}: {other:?}"),
        }
    }

    fn events(page: &Page) -> Parts {
        match page.answer(&asked("/events")) {
            Some(Reply::Stream(http::EVENTS, parts)) => parts,
            other => panic!("{other:?}"),
        }
    }

    fn shown(now: &str, history: &str, history_revision: u64) -> Arc<Shown> {
        let (now, history) = (now.to_owned(), history.into());
        Arc::new(Shown { is_ready: true, now, history, history_revision })
    }

    #[test]
    fn every_file_that_a_file_names_is_served_and_none_of_another_host() {
        let (_feed, page) = page();
        for file in [INDEX, STYLE, SCRIPT, WORDS, PLOT] {
            let is_namespace = |text: &str| text.starts_with("http://www.w3.org/");
            for scheme in ["http:", "https:", "//cdn"] {
                let foreign =
                    file.match_indices(scheme).find(|(at, _)| !is_namespace(&file[*at..]));
                assert_eq!(foreign, None, "{scheme}");
            }
            // Neither may a policy of strict content have to be loosened.
            for inline in ["style=\"", "onclick", "<style", "eval(", "innerHTML"] {
                assert!(!file.contains(inline), "{inline}");
            }
        }
        let mut named = Vec::new();
        for (file, before) in [(INDEX, "href=\""), (INDEX, "src=\""), (SCRIPT, "from \"./")] {
            let names = file.split(before).skip(1).filter_map(|rest| rest.split('"').next());
            named.extend(names.filter(|name| name.contains('.')));
        }
        // Behind a path prefix an address from the root would be somebody else's.
        for (file, from_root) in [
            (INDEX, "href=\"/"),
            (INDEX, "src=\"/"),
            (SCRIPT, "from \"/"),
            (PLOT, "from \"/"),
            (SCRIPT, "EventSource(\"/"),
            (STYLE, "url(/"),
        ] {
            assert!(!file.contains(from_root), "{from_root}");
        }
        assert!(named.len() >= 5, "{named:?}");
        for name in named {
            assert_eq!(whole(&page, &format!("/{name}")).status, 200, "{name}");
        }
        assert!(page.answer(&asked("/metrics")).is_none());
    }

    #[test]
    fn scripts_are_told_whether_the_numbers_may_be_shown() {
        let (feed, page) = page();
        assert_eq!(whole(&page, "/api/now").status, 503);
        feed.send_replace(shown("{}", "[]", 1));
        let answer = whole(&page, "/api/now");
        assert_eq!((answer.status, answer.content_type), (200, http::JSON));
        assert_eq!(whole(&page, "/api/history").body, "[]");
    }

    #[tokio::test]
    async fn a_viewer_gets_the_history_at_first_and_then_only_when_it_has_changed() {
        let (feed, page) = page();
        feed.send_replace(shown("1", "[1]", 1));
        let mut events = events(&page);
        let mut next = async || String::from_utf8(events.next().await.unwrap().to_vec()).unwrap();
        let first = next().await;
        assert_eq!(first, "retry: 2000\n\nevent: history\ndata: [1]\n\nevent: now\ndata: 1\n\n");
        feed.send_replace(shown("2", "[1]", 1));
        assert_eq!(next().await, "event: now\ndata: 2\n\n");
        feed.send_replace(shown("3", "[1]", 1));
        feed.send_replace(shown("4", "[1,4]", 2));
        assert_eq!(next().await, "event: history\ndata: [1,4]\n\nevent: now\ndata: 4\n\n");
        drop(feed);
        assert!(events.next().await.is_none());
    }

    #[test]
    fn there_are_places_for_so_many_viewers_and_one_that_leaves_makes_room() {
        let (_feed, page) = page();
        let mut viewers: Vec<Parts> = (0..VIEWERS_MAX).map(|_| events(&page)).collect();
        assert_eq!(whole(&page, "/events").status, 503);
        viewers.pop();
        drop(events(&page));
    }
}
