//! The admin port: `/livez`, `/readyz` and `/metrics` of the service itself.

use std::fmt::Write as _;

use prometheus::{Registry, TextEncoder};

use crate::Readiness;
use crate::http::{Answer, Asked};
use crate::lifecycle::Lifecycle;

/// What the admin port answers.
///
/// `/livez` is 200 as long as the process can answer; `/readyz` is 200 when the service does its
/// job, otherwise 503 with the reasons, and lists every part with `?verbose`.
pub fn answer(
    asked: &Asked,
    readiness: &Readiness,
    lifecycle: &Lifecycle,
    registry: &Registry,
) -> Answer {
    match asked.path.as_str() {
        "/livez" => Answer::ok("ok\n"),
        "/readyz" => {
            let ready = readiness.is_ready() && !lifecycle.is_draining();
            let mut body = String::new();
            if !ready || asked.query.split('&').any(|part| part == "verbose") {
                body = readiness.describe();
                if lifecycle.is_draining() {
                    body.push_str("[-]lifecycle draining\n");
                }
            }
            // Writing into a string can't fail.
            writeln!(body, "{}", if ready { "ready" } else { "not ready" }).unwrap_or_default();
            if ready { Answer::ok(body) } else { Answer::unavailable(body) }
        }
        "/metrics" => match TextEncoder::new().encode_to_string(&registry.gather()) {
            Ok(text) => Answer::metrics(text),
            Err(error) => Answer {
                status: 500,
                content_type: crate::http::PLAIN,
                body: format!("metrics can't be written: {error}\n"),
            },
        },
        "/" => Answer::ok("/livez\n/readyz\n/readyz?verbose\n/metrics\n"),
        _ => Answer::not_found(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(path: &str, query: &str) -> Asked {
        Asked { path: path.to_owned(), query: query.to_owned() }
    }

    #[test]
    fn readyz_says_what_is_missing_and_livez_is_well_meanwhile() {
        let (readiness, lifecycle, registry) =
            (Readiness::default(), Lifecycle::default(), Registry::new());
        let latch = readiness.latch("caught up");
        let not_ready = answer(&ask("/readyz", ""), &readiness, &lifecycle, &registry);
        assert_eq!(not_ready.status, 503);
        assert_eq!(not_ready.body, "[-]caught up not yet\nnot ready\n");
        assert_eq!(answer(&ask("/livez", ""), &readiness, &lifecycle, &registry).status, 200);
        latch.open();
        let ready = answer(&ask("/readyz", ""), &readiness, &lifecycle, &registry);
        assert_eq!((ready.status, ready.body.as_str()), (200, "ready\n"));
    }

    #[test]
    fn a_draining_service_is_alive_and_not_ready() {
        let (readiness, lifecycle, registry) =
            (Readiness::default(), Lifecycle::default(), Registry::new());
        lifecycle.drain();
        assert_eq!(answer(&ask("/readyz", ""), &readiness, &lifecycle, &registry).status, 503);
        assert_eq!(answer(&ask("/livez", ""), &readiness, &lifecycle, &registry).status, 200);
    }

    #[test]
    fn readyz_lists_every_part_when_asked() {
        let (readiness, lifecycle, registry) =
            (Readiness::default(), Lifecycle::default(), Registry::new());
        let nats = readiness.condition("nats");
        nats.pass("connected");
        let ready = answer(&ask("/readyz", "verbose"), &readiness, &lifecycle, &registry);
        assert_eq!(ready.body, "[+]nats connected\nready\n");
    }
}
