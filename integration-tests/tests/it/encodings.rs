//! Text of any kind on its way into the archive, and databases that could not hold it.

#![expect(clippy::unwrap_used, reason = "what tests share fails them as well")]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::Command;

use bus::PublisherLimits;
use domain::{Event, Timestamp};
use integration_tests::executable::{finish, lakegauge};
use integration_tests::nats::NatsServer;
use integration_tests::pipeline::{Part, Pipeline};
use integration_tests::postgres::{OWNER, PostgresServer};
use integration_tests::waiting::until;
use wire::{Format, Sealed, Subjects, seal};

use crate::database_addresses::{TOOLS, ends, goes_on, refuses};
use crate::store_events::access;

/// One that a Western database has, one that checks nothing, one of more than a byte a character,
/// and one that no client can read as UTF-8.
const OTHERS: [&str; 4] = ["LATIN1", "SQL_ASCII", "EUC_JP", "MULE_INTERNAL"];

#[tokio::test]
async fn a_database_of_another_encoding_is_refused_by_name_with_what_to_do() {
    let postgres = PostgresServer::start_local().unwrap();
    let nats = NatsServer::start().await.unwrap();
    for encoding in OTHERS {
        let url = postgres.database_of_encoding(encoding).unwrap().url_as(OWNER);
        let said = [encoding, "encoding 'UTF8' template template0"];
        for words in TOOLS {
            refuses(words, &url, 1, &said);
        }
        ends("archive", &[("NATS_URL", &nats.url()), ("DATABASE_URL", &url)], 1, &said);
        goes_on(&nats.url(), &url, &said);
    }
}

/// Messages that are no event, or none that may be counted, with text that a database would trip
/// over; where each goes.
fn hostile() -> Vec<(&'static str, Format, Vec<u8>)> {
    let json = |subject, text: &str| (subject, Format::Json, text.as_bytes().to_vec());
    let lake = "lake.access.0.x";
    let long = "\u{1}ü".repeat(200_000);
    let sample = |rest: &str| {
        let head = r#"{"type":"telemetry.sample","stream":"LAKE_0","epoch":1,"sequence":7,"#;
        json("telemetry.sample.0", &format!("{head}\"broker_ns\":9,\"lake\":{{{rest}}}}}"))
    };
    let event = |change: &str, with: &str| {
        json(
            if with.contains("verdict") { "lake.late.0" } else { lake },
            &r#"{"type":"lake.access","occurred_at":"2025-11-03T06:43:00Z","bucket":"b","key":"k",
                "operation":"write","bytes":1,"duration_us":1,"outcome":"ok","principal":"p"}"#
                .replace(change, with)
                .replace('\n', " "),
        )
    };
    let early = Event { occurred_at: Timestamp(i64::MIN + 1), ..access(1, 0) };
    let mut cut = seal(lake, Format::Bincode, &[access(2, 0)]).payload.to_vec();
    let at = cut.windows(4).position(|window| window == b"part").unwrap();
    cut[at] = 0xff;
    vec![
        // NUL bytes, as JSON writes them and as they are.
        event("\"lake.access\"", r#""lake\u0000access""#),
        event("\"write\"", r#""wr\u0000ite""#),
        event("\"k\"", r#""k\u0000""#),
        event("\"2025-11-03T06:43:00Z\"", r#""\u00002025""#),
        json(lake, "not\0an event"),
        json(lake, "{\"type\":\"lake.access\",\"\\u0000\":\"\\u0000\"}"),
        // What is no UTF-8, and halves of characters.
        (lake, Format::Json, b"{\"type\":\"lake.access\",\"bucket\":\"Jo\xe3o\"}".to_vec()),
        (lake, Format::Json, b"\xff\xfe{\0}\0".to_vec()),
        (lake, Format::Bincode, cut),
        event("\"b\"", r#""\ud800""#),
        event("\"ok\"", r#""\udfff\ud800""#),
        // Far too long, and quoted by the reason.
        event("\"ok\"", &format!("{:?}", long.replace('\u{1}', ""))),
        json(lake, &long),
        json("lake.access.0.Jo\u{e3}o", "no event"),
        // A time that PostgreSQL can't say.
        (lake, Format::Bincode, seal(lake, Format::Bincode, &[early]).payload.to_vec()),
        // A verdict of nobody.
        event("\"type\"", "\"verdict\":18446744073709551615,\"type\""),
        // Samples that no aggregator publishes.
        sample(r#""used_bytes":1,"accesses":1,"buckets":{"a\u0000b":1}"#),
        sample(r#""used_bytes":1,"accesses":18446744073709551615,"buckets":{}"#),
        sample(r#""used_bytes":1,"accesses":1,"buckets":{"\ud800":1}"#),
        sample(&format!(r#""used_bytes":1,"accesses":1,"buckets":{{"{}":1}}"#, "b".repeat(9_999))),
        json("telemetry.sample.0", "\0"),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_text_is_kept_in_letters_and_what_follows_is_archived() {
    // What the environment says about encodings is not for us.
    let environment = [("PGCLIENTENCODING", "LATIN1"), ("PGOPTIONS", "-c client_encoding=LATIN1")];
    let mut pipeline = Pipeline::start(&environment).await.unwrap();
    let database = pipeline.database.clone();
    for role in ["lakegauge_test_archiver", "lakegauge_test_reader"] {
        database
            .sql(&format!(
                "alter role {role} set client_encoding = 'LATIN1'; \
                 alter role {role} set standard_conforming_strings = off; \
                 alter role {role} set bytea_output = 'escape'"
            ))
            .unwrap();
    }
    pipeline.run(Part::Archiver).unwrap();
    pipeline.run(Part::Aggregator).unwrap();
    until("first scrape", async || Ok(pipeline.four()?.is_some())).await.unwrap();

    let bus = pipeline.bus().await.unwrap();
    let publisher = bus.publisher(PublisherLimits::default(), |_| {});
    let mut sent: Vec<String> = Vec::new();
    for (subject, format, payload) in hostile() {
        let hex: String = payload.iter().map(|byte| format!("{byte:02x}")).collect();
        sent.push(hex);
        let sealed = Sealed::new(subject.to_owned(), format.content_type(), payload, 1);
        publisher.publish(sealed).await.unwrap();
    }
    let odd = r#"{"type":"lake.access","occurred_at":"2025-11-03T06:43:00Z","bucket":"Jo\u00e3o €",
        "key":"\\' 日本 \ud83d\ude00","operation":"write","bytes":1,"duration_us":1,"outcome":"ok",
        "principal":"ü"}"#
        .replace('\n', " ");
    let subject = Subjects::default().lake_access(0, "Jo\u{e3}o");
    publisher.publish(Sealed::new(subject, Format::Json.content_type(), odd, 1)).await.unwrap();
    publisher.flush().await.unwrap();
    pipeline.rest().await.unwrap();

    let row = "select bucket = U&'Jo\\00e3o \\20ac' and key = U&'\\\\'' \\65e5\\672c \\+01F600' \
               and principal = U&'\\00fc' from lakegauge_api.lake_access";
    assert_eq!(database.sql(row).unwrap(), ["t"]);
    let mut kept =
        database.sql("select encode(bytes, 'hex') from lakegauge_api.dead_letter").unwrap();
    kept.sort();
    sent.sort();
    // Whole messages but for the items of binary ones.
    let lost: Vec<&String> =
        sent.iter().filter(|hex| !kept.iter().any(|letter| hex.contains(letter))).collect();
    assert_eq!((kept.len(), lost), (sent.len(), Vec::new()));
    let details = "select max(octet_length(detail)) from lakegauge_api.dead_letter";
    assert!(database.number(details).unwrap() < 5_000, "a detail is bounded");

    let url = database.archiver_url();
    let audit = pipeline.tool(["audit"], &url).unwrap();
    assert_eq!(audit.status, Some(0), "{}{}", audit.stdout, audit.stderr);
    let list = pipeline.tool(["dead-letters", "list"], &url).unwrap();
    assert_eq!(list.status, Some(0), "{}", list.stderr);
    notes(&pipeline, &url);
}

/// What people write beside a dead letter.
fn notes(pipeline: &Pipeline, url: &str) {
    let note = "Jo\u{e3}o: \\' € \u{1f600}";
    let number = |place: usize| {
        let sql = "select number from lakegauge_api.dead_letter where closed_at is null order by 1";
        pipeline.database.sql(sql).unwrap()[place].clone()
    };
    let first = number(0);
    let drop = pipeline.tool(["dead-letters", "drop", &first, "--note", note], url).unwrap();
    assert_eq!(drop.status, Some(0), "{}", drop.stderr);
    let kept = format!("select note from lakegauge_api.dead_letter where number = {first}");
    assert_eq!(pipeline.database.sql(&kept).unwrap(), [note]);
    // Not even text: said, and the dead letter stays open.
    let second = number(0);
    let mut command = Command::new(lakegauge().unwrap());
    command.args(["dead-letters", "drop", &second, "--note"]).arg(OsStr::from_bytes(b"\xff"));
    command.env_clear().env("DATABASE_URL", url);
    let refused = finish(command, b"").unwrap();
    assert_eq!(refused.status, Some(64), "{}", refused.stderr);
    assert_eq!(number(0), second);
}
