//! The formats in which AWS delivers S3 events to an HTTP endpoint: the envelope of SNS, and the
//! events of EventBridge. Pure.
//!
//! The signature of SNS is not checked here, because the token decides who may send reports.

use std::borrow::Cow;

use domain::{Event, Fact, LakeAccess, Operation, Outcome, Reason, Refusal};
use serde::Deserialize;

use super::{s3_key, undecodable::undecodable};

/// Suffixes of the hosts of SNS on which a subscription is confirmed.
const SNS_HOSTS: [&str; 2] = [".amazonaws.com", ".amazonaws.com.cn"];

/// The content of an envelope.
#[derive(Debug)]
pub(super) enum Opened {
    /// The text of a notification as S3 wrote it.
    Message(String),
    /// A task for a person.
    Notice(String),
    /// An event of EventBridge; `None` if its kind is not a request to an object.
    Event(Result<Option<Event>, Refusal>),
    /// The body is no envelope of AWS.
    Nothing,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    /// Only in envelopes of SNS.
    #[serde(rename = "Type", borrow)]
    sns: Option<Cow<'a, str>>,
    #[serde(rename = "Message")]
    message: Option<String>,
    #[serde(rename = "TopicArn", borrow)]
    topic: Option<Cow<'a, str>>,
    #[serde(rename = "SubscribeURL", borrow)]
    subscribe: Option<Cow<'a, str>>,
    /// Only in events of EventBridge.
    #[serde(rename = "detail-type", borrow)]
    event_bridge: Option<Cow<'a, str>>,
}

pub(super) fn open(body: &[u8]) -> Opened {
    let Ok(envelope) = serde_json::from_slice::<Envelope<'_>>(body) else { return Opened::Nothing };
    let Envelope { sns, message, topic, subscribe, event_bridge } = envelope;
    if let Some(kind) = event_bridge {
        return Opened::Event(event(&kind, body));
    }
    match (sns.as_deref(), message) {
        (Some("Notification"), Some(message)) => Opened::Message(message),
        (Some("SubscriptionConfirmation"), _) => {
            let topic = topic.unwrap_or_default();
            Opened::Notice(confirmation(&topic, subscribe.as_deref().unwrap_or_default()))
        }
        (Some("UnsubscribeConfirmation"), _) => {
            let topic = topic.unwrap_or_default();
            Opened::Notice(format!("SNS says that {topic} sends nothing here any more"))
        }
        _ => Opened::Nothing,
    }
}

/// The notice about a subscription that has to be confirmed. A URL that does not belong to SNS is
/// not repeated, because a person might open it although a stranger sent it.
fn confirmation(topic: &str, url: &str) -> String {
    let host = url.strip_prefix("https://").and_then(|rest| rest.split(['/', '?']).next());
    let is_sns = host.is_some_and(|host| {
        host.starts_with("sns.") && SNS_HOSTS.iter().any(|suffix| host.ends_with(suffix))
    });
    if is_sns {
        format!("SNS asks whether {topic} may send here; if it may, open this once: {url}")
    } else {
        format!("a subscription of {topic} asks to be confirmed at an address that is not SNS'")
    }
}

#[derive(Deserialize)]
struct BridgeEvent<'a> {
    #[serde(borrow)]
    time: Cow<'a, str>,
    #[serde(borrow)]
    detail: Detail<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Detail<'a> {
    #[serde(borrow)]
    bucket: Bucket<'a>,
    #[serde(borrow)]
    object: Object<'a>,
    #[serde(borrow, default)]
    request_id: Cow<'a, str>,
    #[serde(borrow, default)]
    requester: Cow<'a, str>,
    #[serde(borrow, default)]
    reason: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Bucket<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Object<'a> {
    /// The plain key. Unlike the key in S3 notifications, it is not URL-encoded.
    #[serde(borrow)]
    key: Cow<'a, str>,
    size: Option<u64>,
    version_id: Option<String>,
    sequencer: Option<String>,
}

/// Reads an event of EventBridge; `None` if its kind is not a request to an object.
fn event(kind: &str, body: &[u8]) -> Result<Option<Event>, Refusal> {
    let is_created = match kind {
        "Object Created" => true,
        "Object Deleted" => false,
        _ => return Ok(None),
    };
    let BridgeEvent { time, detail } =
        serde_json::from_slice(body).map_err(|error| undecodable(&error))?;
    let occurred_at = wire::json::parse_time(&time).ok_or_else(|| {
        let detail = format!("{time} is no time of RFC 3339");
        Refusal::of_field(Reason::WrongField, "time", detail)
    })?;
    let Detail { bucket, object, request_id, requester, reason } = detail;
    let operation = match (is_created, reason.as_ref()) {
        (true, "CopyObject") => Operation::Copy,
        (true, _) => Operation::Write,
        (false, _) => Operation::Delete,
    };
    let size = object.size.unwrap_or(0);
    let version = object.version_id.as_deref();
    let parts = [
        kind,
        &bucket.name,
        &object.key,
        version.unwrap_or_default(),
        object.sequencer.as_deref().unwrap_or_default(),
        &request_id,
        &time,
    ];
    let id = wire::derived::of_record("s3 event of EventBridge", &parts);
    let fact = LakeAccess {
        bucket: bucket.name.to_string(),
        key: s3_key::of_version(&object.key, version),
        operation,
        bytes: if operation == Operation::Write { size } else { 0 },
        object_bytes: is_created.then_some(size),
        sequencer: object.sequencer.as_deref().map(str::to_ascii_lowercase),
        duration_us: 0,
        outcome: Outcome::Ok,
        principal: requester.to_string(),
    };
    Ok(Some(Event { id, occurred_at, fact: Fact::LakeAccess(fact) }))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::s3_events::parse;
    use super::*;
    use crate::parsed::Parsed;

    fn read(body: &Value) -> Parsed {
        parse(body.to_string().as_bytes()).unwrap()
    }

    fn sns(kind: &str, message: &str) -> Value {
        json!({
            "Type": kind, "MessageId": "m1", "TopicArn": "arn:aws:sns:eu-central-1:1:lake",
            "Message": message, "Timestamp": "2026-11-28T06:43:00.000Z", "Signature": "x",
            "SubscribeURL": "https://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription",
        })
    }

    #[test]
    fn an_envelope_of_sns_is_opened() {
        let record = json!({
            "eventName": "ObjectCreated:Put", "eventTime": "2026-11-28T06:43:00.123Z",
            "s3": { "bucket": { "name": "raw" }, "object": { "key": "a+b", "size": 5 } },
        });
        let bare = json!({ "Records": [record, { "what": 1 }] });
        let opened = read(&sns("Notification", &bare.to_string()));
        assert_eq!(opened, read(&bare));
        assert_eq!((opened.events.len(), opened.refused.len()), (1, 1));
        let test = json!({ "Service": "Amazon S3", "Event": "s3:TestEvent" });
        assert_eq!(read(&sns("Notification", &test.to_string())).ignored, 1);
        for wrong in ["no JSON", "{}", &sns("Notification", "{}").to_string()] {
            parse(sns("Notification", wrong).to_string().as_bytes()).unwrap_err();
        }
    }

    #[test]
    fn a_subscription_is_for_a_person_to_confirm_and_only_at_sns() {
        let asked = read(&sns("SubscriptionConfirmation", "You have chosen to subscribe"));
        let [notice] = &asked.notices[..] else { panic!("{asked:?}") };
        let url = "https://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription";
        assert!(notice.contains("1:lake") && notice.ends_with(url), "{notice}");
        assert_eq!((asked.ignored, asked.events.len()), (1, 0));
        for stranger in [
            "http://sns.eu-central-1.amazonaws.com/",
            "https://evil.example/sns.amazonaws.com",
            "https://sns.evil.example/?.amazonaws.com",
            "",
        ] {
            let mut body = sns("SubscriptionConfirmation", "");
            body["SubscribeURL"] = json!(stranger);
            let notice = read(&body).notices.concat();
            assert!(notice.contains("not SNS'") && !notice.contains("evil"), "{notice}");
        }
        assert_eq!(read(&sns("UnsubscribeConfirmation", "")).notices.len(), 1);
    }

    fn bridge(kind: &str, reason: &str) -> Value {
        json!({
            "version": "0", "id": "e1", "detail-type": kind, "source": "aws.s3",
            "account": "1", "time": "2026-11-28T06:43:00Z", "region": "eu-central-1",
            "resources": ["arn:aws:s3:::raw"],
            "detail": {
                "version": "0", "bucket": { "name": "raw" },
                "object": {
                    "key": "a+b c", "size": 1_500, "etag": "x", "version-id": "v1",
                    "sequencer": "0055AED6DCD90281E5",
                },
                "request-id": "R1", "requester": "123456789012", "reason": reason,
            },
        })
    }

    #[test]
    fn the_form_of_event_bridge_is_read_with_its_key_as_it_is() {
        let access = |body: &Value| {
            let parsed = read(body);
            let [Event { fact: Fact::LakeAccess(access), .. }] = &parsed.events[..] else {
                panic!("{parsed:?}")
            };
            access.clone()
        };
        let put = access(&bridge("Object Created", "PutObject"));
        assert_eq!(
            (put.operation, put.bytes, put.object_bytes),
            (Operation::Write, 1_500, Some(1_500))
        );
        assert_eq!(put.key, "a+b c?versionId=v1");
        assert_eq!(put.sequencer.as_deref(), Some("0055aed6dcd90281e5"));
        let copy = access(&bridge("Object Created", "CopyObject"));
        assert_eq!(
            (copy.operation, copy.bytes, copy.object_bytes),
            (Operation::Copy, 0, Some(1_500))
        );
        let deleted = access(&bridge("Object Deleted", "DeleteObject"));
        assert_eq!((deleted.operation, deleted.object_bytes), (Operation::Delete, None));
        assert_eq!(read(&bridge("Object Tags Added", "")).ignored, 1);
        let mut wrong = bridge("Object Created", "PutObject");
        wrong["time"] = json!("soon");
        assert_eq!(read(&wrong).refused.len(), 1);
    }
}
