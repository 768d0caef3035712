//! The built-in page: the metrics now and in the last hour, for people without Grafana. The numbers
//! are those of `/metrics`.

mod feed;
mod figures;
mod history;
mod now;
mod samples;

use std::{convert::Infallible, future::ready, sync::Arc};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse as _, Response},
    routing::{MethodRouter, get},
};
use futures_util::stream;
use service_kit::http;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

pub(crate) use feed::PageFeed;
pub(crate) use figures::{Figures, LakeFigures, WarehouseFigures};
pub(crate) use history::SharedHistory;
pub(crate) use samples::Samples;

const INDEX: &str = include_str!("index.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
const WORDS: &str = include_str!("words.js");
const PLOT: &str = include_str!("plot.js");
const PIPELINE: &str = include_str!("pipeline.js");
const ICON: &str = include_str!("icon.svg");

/// Pages that are kept up to date at the same time: half of the connections, the rest is for
/// scrapes.
const VIEWERS_MAX: usize = http::CONNECTIONS_MAX / 2;
/// Media types of scripts and of JSON.
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const JSON: &str = "application/json";
/// How long a browser waits before it connects again, in milliseconds.
const RETRY_MS: u32 = 2_000;

/// The contents of the page at one moment, encoded once for all viewers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shown {
    /// Whether the metrics may be shown.
    pub(crate) is_ready: bool,
    /// The current numbers, as JSON.
    pub(crate) now: String,
    /// The last hour, as JSON.
    pub(crate) history: Arc<str>,
    /// Changes with the history.
    pub(crate) history_revision: u64,
}

/// Answers the page's requests. Clones share the limit of viewers.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    shown: watch::Receiver<Arc<Shown>>,
    places: Arc<Semaphore>,
}

impl Page {
    /// A page that shows what the feed sends.
    pub(crate) fn new(shown: watch::Receiver<Arc<Shown>>) -> Self {
        Self { shown, places: Arc::new(Semaphore::new(VIEWERS_MAX)) }
    }

    /// The routes of the page's files, of its numbers, and of its updates.
    pub(crate) fn routes(self) -> Router {
        Router::new()
            .route("/", file("text/html; charset=utf-8", INDEX))
            .route("/page.css", file("text/css; charset=utf-8", STYLE))
            .route("/page.js", file(JAVASCRIPT, SCRIPT))
            .route("/words.js", file(JAVASCRIPT, WORDS))
            .route("/plot.js", file(JAVASCRIPT, PLOT))
            .route("/pipeline.js", file(JAVASCRIPT, PIPELINE))
            .route("/icon.svg", file("image/svg+xml", ICON))
            .route("/api/now", get(|State(page): State<Self>| ready(page.now())))
            .route("/api/history", get(|State(page): State<Self>| ready(page.history())))
            .route("/events", get(|State(page): State<Self>| ready(page.events())))
            .with_state(self)
    }

    fn now(&self) -> Response {
        let shown = self.shown.borrow();
        let status = if shown.is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        (status, [(CONTENT_TYPE, JSON)], shown.now.clone()).into_response()
    }

    fn history(&self) -> Response {
        ([(CONTENT_TYPE, JSON)], self.shown.borrow().history.to_string()).into_response()
    }

    fn events(&self) -> Response {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            let full = format!("{VIEWERS_MAX} pages are open already: close one\n");
            return (StatusCode::SERVICE_UNAVAILABLE, full).into_response();
        };
        let viewer = Viewer { shown: self.shown.clone(), seen: None, _place: place };
        let parts = Body::from_stream(stream::unfold(viewer, Viewer::next));
        ([(CONTENT_TYPE, "text/event-stream")], parts).into_response()
    }
}

fn file(media_type: &'static str, text: &'static str) -> MethodRouter<Page> {
    get(([(CONTENT_TYPE, media_type)], text))
}

/// A viewer of the page. Nothing waits for a slow viewer, which misses updates.
struct Viewer {
    shown: watch::Receiver<Arc<Shown>>,
    /// The revision of its history; `None` before the first part.
    seen: Option<u64>,
    _place: OwnedSemaphorePermit,
}

impl Viewer {
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        let mut text = String::new();
        if self.seen.is_none() {
            text.push_str(&format!("retry: {RETRY_MS}\n\n"));
        } else {
            // The feed ends with the service.
            self.shown.changed().await.ok()?;
        }
        let shown = Arc::clone(&self.shown.borrow_and_update());
        if self.seen != Some(shown.history_revision) {
            text.push_str(&format!("event: history\ndata: {}\n\n", shown.history));
            self.seen = Some(shown.history_revision);
        }
        text.push_str(&format!("event: now\ndata: {}\n\n", shown.now));
        Some((Ok(Bytes::from(text)), self))
    }
}

#[cfg(test)]
mod tests {
    use axum::body::BodyDataStream;
    use futures_util::StreamExt as _;

    use super::*;
    use crate::{api::IncidentKind, ask::ask};

    fn page() -> (watch::Sender<Arc<Shown>>, Page) {
        let (sender, shown) = watch::channel(Arc::new(Shown::default()));
        (sender, Page::new(shown))
    }

    fn events(page: &Page) -> BodyDataStream {
        let response = page.events();
        assert_eq!(response.headers()[CONTENT_TYPE], "text/event-stream");
        response.into_body().into_data_stream()
    }

    fn shown(now: &str, history: &str, history_revision: u64) -> Arc<Shown> {
        let (now, history) = (now.to_owned(), history.into());
        Arc::new(Shown { is_ready: true, now, history, history_revision })
    }

    #[tokio::test]
    async fn every_file_that_a_file_names_is_served_and_none_of_another_host() {
        let (_feed, page) = page();
        for file in [INDEX, STYLE, SCRIPT, WORDS, PLOT, PIPELINE] {
            let is_namespace = |text: &str| text.starts_with("http://www.w3.org/");
            for scheme in ["http:", "https:", "//cdn"] {
                let foreign =
                    file.match_indices(scheme).find(|(at, _)| !is_namespace(&file[*at..]));
                assert_eq!(foreign, None, "{scheme}");
            }
            // The page must also work under a strict content security policy.
            for inline in ["style=\"", "onclick", "<style", "eval(", "innerHTML"] {
                assert!(!file.contains(inline), "{inline}");
            }
        }
        let mut named = Vec::new();
        for (file, before) in [(INDEX, "href=\""), (INDEX, "src=\""), (SCRIPT, "from \"./")] {
            let names = file.split(before).skip(1).filter_map(|rest| rest.split('"').next());
            named.extend(names.filter(|name| name.contains('.')));
        }
        // Behind a path prefix, an address from the root would belong to another site.
        for (file, from_root) in [
            (INDEX, "href=\"/"),
            (INDEX, "src=\"/"),
            (SCRIPT, "from \"/"),
            (PLOT, "from \"/"),
            (PIPELINE, "from \"/"),
            (SCRIPT, "EventSource(\"/"),
            (STYLE, "url(/"),
        ] {
            assert!(!file.contains(from_root), "{from_root}");
        }
        assert!(named.len() >= 5, "{named:?}");
        for name in named {
            let (status, ..) = ask(page.clone().routes(), &format!("/{name}")).await;
            assert_eq!(status, 200, "{name}");
        }
    }

    #[test]
    fn every_incident_is_told_in_portuguese_as_well() {
        // The English text comes with the incident.
        let (_, portuguese) = WORDS.split_once("const portuguese").unwrap();
        for kind in IncidentKind::ALL {
            for what in ["incident", "todo"] {
                let name = format!("  {what}_{}: \"", kind.name());
                assert!(portuguese.contains(&name), "{name}");
            }
        }
    }

    #[tokio::test]
    async fn scripts_are_told_whether_the_numbers_may_be_shown() {
        let (feed, page) = page();
        let routes = page.routes();
        assert_eq!(ask(routes.clone(), "/api/now").await.0, 503);
        feed.send_replace(shown("{}", "[]", 1));
        let (status, media_type, _) = ask(routes.clone(), "/api/now").await;
        assert_eq!((status, media_type.as_str()), (200, JSON));
        assert_eq!(ask(routes, "/api/history").await.2, "[]");
    }

    #[tokio::test]
    async fn a_viewer_gets_the_history_at_first_and_then_only_when_it_has_changed() {
        let (feed, page) = page();
        feed.send_replace(shown("1", "[1]", 1));
        let mut events = events(&page);
        let mut next = async || {
            let part = events.next().await.unwrap().unwrap();
            String::from_utf8(part.to_vec()).unwrap()
        };
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
        let mut viewers: Vec<BodyDataStream> = (0..VIEWERS_MAX).map(|_| events(&page)).collect();
        assert_eq!(page.events().status(), 503);
        viewers.pop();
        drop(events(&page));
    }
}
