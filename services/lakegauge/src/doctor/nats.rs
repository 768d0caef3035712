//! What the doctor checks of NATS.

use bus::{Bus, BusError};
use domain::Rules;

use super::check::{Check, bad};

/// Streams for readers and writers, and those of snapshots and pointers.
const STREAMS: &[&str] =
    &["LAKE_0", "WAREHOUSE_0", "TELEMETRY", "KV_LAKEGAUGE", "OBJ_LAKEGAUGE_SNAPSHOTS"];
/// A stream that is fuller than this will soon make producers wait.
const FULL_PERCENT: u64 = 80;

pub(super) async fn of_nats(config: &bus::service::BusConfig) -> Vec<Check> {
    let place = config.settings.shown_url();
    let bus = match Bus::connect(&config.settings).await {
        Ok(bus) => bus,
        Err(error) => {
            return vec![bad(
                format!("NATS: {error}"),
                "start it (`lakegauge up` has its own), or set NATS_URL and the login",
            )];
        }
    };
    let mut findings = vec![Check::Good(format!("NATS {} at {place}", bus.server_version()))];
    findings.push(of_payload(bus.max_payload(), bus.message_bytes_max()));
    for stream in STREAMS {
        let found = look(&bus, stream).await;
        if let (Err(BusError::NoAnswer { .. }), refused @ [_, ..]) = (&found, &*bus.denials()) {
            // Every other request would wait just as long.
            findings.extend(refused.iter().map(|denial| of_denial(denial)));
            break;
        }
        findings.push(match found {
            Ok(status) => of_stream(stream, &status),
            Err(BusError::NoStream { .. }) => {
                Check::Note(format!("stream {stream} does not exist; the services create it"))
            }
            Err(error) => bad(
                format!("stream {stream}: {error}"),
                "this login needs $JS.API.> and JetStream must be on",
            ),
        });
    }
    findings.extend(of_writing(&bus).await);
    findings
}

/// Checks whether the server writes to the streams: after its disk was full it stores nothing and
/// reports nothing.
async fn of_writing(bus: &Bus) -> Vec<Check> {
    let mut findings = Vec::new();
    for stream in STREAMS {
        match bus.write_error(stream).await {
            Ok(None) | Err(BusError::NoStream { .. }) => {}
            Ok(Some(error)) => findings.push(of_write_error(stream, &error)),
            // Every other request would fail too.
            Err(_) => {
                let what = "whether NATS can write to its disk was not checked: this login may \
                            not purge";
                return vec![Check::Note(what.to_owned())];
            }
        }
    }
    if findings.is_empty() {
        findings.push(Check::Good("NATS writes to every stream".to_owned()));
    }
    findings
}

/// How large a message may be. To a server with a smaller limit there is no connection.
fn of_payload(max_payload: usize, message_bytes_max: usize) -> Check {
    if message_bytes_max < wire::MESSAGE_BYTES_MAX {
        return Check::Note(format!(
            "NATS takes messages of at most {max_payload} bytes (max_payload): larger ones and pieces \
             of snapshots are cut to {message_bytes_max}, which is slower; max_payload: 1MB avoids \
             that"
        ));
    }
    Check::Good(format!("NATS takes messages of {max_payload} bytes (max_payload)"))
}

fn of_write_error(stream: &str, error: &str) -> Check {
    bad(
        format!("stream {stream} stores nothing: NATS can't write to it ({error})"),
        "free space on the disk of NATS, then restart nats-server: after a failed write a stream \
         stores nothing until then. Waiting messages are sent again by themselves",
    )
}

/// A stream, and whether its messages can be read one by one (`STREAM.MSG.GET`), which readers need
/// for a message that no client can read.
async fn look(bus: &Bus, stream: &str) -> Result<bus::StreamStatus, BusError> {
    let status = bus.stream(stream).await?;
    bus.first_after(stream, status.last_sequence.saturating_sub(1)).await?;
    Ok(status)
}

/// A missing permission, in the server's words.
fn of_denial(denial: &str) -> Check {
    let todo = if denial.contains("Subscription") {
        "answers can't arrive: set NATS_INBOX_PREFIX to the prefix that this user may subscribe to \
         (nats/accounts.conf), or permit this prefix to the user"
    } else {
        "permit that subject to this user in the server's configuration (nats/accounts.conf)"
    };
    bad(format!("NATS: {denial}"), todo)
}

fn of_stream(name: &str, status: &bus::StreamStatus) -> Check {
    let limit = u64::try_from(status.max_bytes).ok().filter(|limit| *limit > 0);
    let percent = limit.map(|limit| status.bytes.saturating_mul(100) / limit);
    if let Some(percent) = percent.filter(|percent| *percent >= FULL_PERCENT) {
        return bad(
            format!("stream {name} is {percent} % full: producers will have to wait"),
            "check whether archiver and aggregator run (/readyz of their admin ports); they trim \
             it. NATS_EVENT_STREAM_MAX_BYTES makes it larger",
        );
    }
    let is_event_stream = name.ends_with("_0");
    if is_event_stream && let Err(error) = Rules::from_metadata(&status.metadata) {
        return bad(format!("stream {name}: {error}"), "run a release that knows this rule");
    }
    let fill = percent.map_or_else(String::new, |percent| format!(", {percent} % full"));
    Check::Good(format!("stream {name}: {} messages{fill}", status.messages))
}
