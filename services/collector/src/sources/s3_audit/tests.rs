use serde_json::json;

use super::*;

/// A record as MinIO writes it.
fn record_of(name: &str) -> Value {
    json!({
        "version": "1", "deploymentid": "d1", "time": "2026-11-28T06:43:00.123456789Z",
        "event": "", "trigger": "incoming",
        "api": {
            "name": name, "bucket": "raw", "object": "a b/é+.parquet", "status": "OK",
            "statusCode": 200, "rx": 401, "tx": 5_000, "txHeaders": 300,
            "timeToFirstByte": "1000ns", "timeToResponse": "13309747ns",
            "timeToResponseInNS": "13309747",
        },
        "remotehost": "10.0.0.7", "requestID": "17CDC1F4D7E69123", "userAgent": "MinIO",
        "requestPath": "/raw/a%20b?X-Amz-Signature=SECRET", "requestHost": "localhost:9000",
        "requestQuery": { "X-Amz-Signature": "SECRET", "X-Amz-Credential": "SECRET" },
        "requestHeader": {
            "Authorization": "AWS4-HMAC-SHA256 Credential=x, Signature=SECRET",
            "X-Amz-Server-Side-Encryption-Customer-Key": "SECRET",
        },
        "requestClaims": { "sub": "SECRET" },
        "responseHeader": { "ETag": "x", "Set-Cookie": "SECRET" },
        "tags": { "a": "SECRET" },
        "accessKey": "reader", "parentUser": "",
    })
}

fn changed(name: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut record = record_of(name);
    change(&mut record);
    record
}

fn access(record: &Value) -> LakeAccess {
    let mut parsed = parse(record.to_string().as_bytes()).unwrap();
    assert_eq!((parsed.records, &parsed.refused[..]), (1, &[][..]));
    let event = parsed.events.remove(0);
    let Fact::LakeAccess(access) = event.fact else { panic!("{event:?}") };
    access
}

#[test]
fn a_read_has_its_bytes_latency_outcome_and_requester() {
    let parsed = parse(record_of("GetObject").to_string().as_bytes()).unwrap();
    assert_eq!(parsed.events[0].occurred_at, Timestamp(1_795_848_180_123_456));
    assert_eq!(parsed.events[0].id.kind(), domain::IdKind::Derived);
    let read = access(&record_of("GetObject"));
    let expected = LakeAccess {
        bucket: "raw".to_owned(),
        key: "a b/é+.parquet".to_owned(),
        operation: Operation::Read,
        bytes: 5_000,
        object_bytes: None,
        sequencer: None,
        duration_us: 13_310,
        outcome: Outcome::Ok,
        principal: "reader".to_owned(),
    };
    assert_eq!(read, expected);
}

#[test]
fn every_request_is_what_it_does_and_lists_have_no_key() {
    for (name, operation, bytes, object_bytes) in [
        ("GetObject", Operation::Read, 5_000, None),
        ("HeadObject", Operation::Head, 0, None),
        ("ListObjectsV2", Operation::List, 5_000, None),
        ("ListObjectVersionsM", Operation::List, 5_000, None),
        ("PutObject", Operation::Write, 401, Some(401)),
        ("DeleteObject", Operation::Delete, 0, None),
        ("PutObjectPart", Operation::Other, 401, None),
        ("CompleteMultipartUpload", Operation::Other, 0, None),
        ("CopyObject", Operation::Other, 0, None),
        ("PutObjectTagging", Operation::Other, 0, None),
        ("GetBucketLocation", Operation::Other, 0, None),
    ] {
        let found = access(&record_of(name));
        let of = (found.operation, found.bytes, found.object_bytes);
        assert_eq!(of, (operation, bytes, object_bytes), "{name}");
        assert_eq!(found.key.is_empty(), operation == Operation::List, "{name}");
    }
}

#[test]
fn an_upload_in_signed_chunks_has_the_size_of_its_object() {
    let put = changed("PutObject", |record| {
        record["requestHeader"]["X-Amz-Decoded-Content-Length"] = json!("228");
    });
    assert_eq!((access(&put).bytes, access(&put).object_bytes), (228, Some(228)));
    let unknown = changed("GetObject", |record| record["api"]["tx"] = json!(-1));
    assert_eq!(access(&unknown).bytes, 0);
}

#[test]
fn failures_have_their_reason_and_are_reported_by_audit_records_alone() {
    for (status, outcome) in [
        (200, Outcome::Ok),
        (206, Outcome::Ok),
        (304, Outcome::Ok),
        (400, Outcome::ClientError),
        (403, Outcome::Denied),
        (404, Outcome::NotFound),
        (408, Outcome::Timeout),
        (412, Outcome::ClientError),
        (499, Outcome::Cancelled),
        (503, Outcome::Throttled),
        (500, Outcome::ServerError),
    ] {
        let put = changed("PutObject", |record| record["api"]["statusCode"] = json!(status));
        assert_eq!(access(&put).outcome, outcome, "{status}");
        let reads = parse_reads(put.to_string().as_bytes()).unwrap();
        assert_eq!(reads.events.is_empty(), outcome == Outcome::Ok, "{status}");
    }
    let failed = changed("GetObject", |record| {
        record["api"].as_object_mut().unwrap().remove("statusCode");
        record["error"] = json!("disk");
    });
    assert_eq!(access(&failed).outcome, Outcome::ServerError);
}

#[test]
fn beside_notifications_a_change_that_they_report_is_ignored() {
    let names = [
        "PutObject",
        "CompleteMultipartUpload",
        "CopyObject",
        "PostPolicyBucket",
        "DeleteObject",
        "DeleteMultipleObjects",
        "PutObjectTagging",
        "GetObject",
        "ListObjectsV2",
        "PutObjectPart",
    ];
    let records: Vec<Value> = names.into_iter().map(record_of).collect();
    let parsed = parse_reads(json!(records).to_string().as_bytes()).unwrap();
    assert_eq!((parsed.events.len(), parsed.ignored), (3, 7));
}

#[test]
fn a_request_that_deletes_many_is_a_delete_of_each() {
    let deleted = changed("DeleteMultipleObjects", |record| {
        record["api"]["object"] = json!("");
        record["api"]["objects"] = json!([
            { "objectName": "a", "versionId": "v1" }, { "objectName": "b" }, { "objectName": "a" },
        ]);
    });
    let body = json!([deleted, { "time": "soon", "api": { "name": "n", "bucket": "b" } }]);
    let parsed = parse(body.to_string().as_bytes()).unwrap();
    let mut keys = Vec::new();
    for event in &parsed.events {
        let Fact::LakeAccess(access) = &event.fact else { panic!("{event:?}") };
        assert_eq!(access.operation, Operation::Delete);
        keys.push(access.key.as_str());
    }
    assert_eq!(keys, ["a?versionId=v1", "b", "a"]);
    let ids: std::collections::BTreeSet<_> = parsed.events.iter().map(|event| event.id).collect();
    assert_eq!(ids.len(), 3);
    assert_eq!(parsed.refused[0].index, 1, "an index counts records, not events");
}

#[test]
fn a_version_is_the_object_that_notifications_mean() {
    let versioned = |change: fn(&mut Value)| access(&changed("GetObject", change)).key;
    let answered = versioned(|record| record["responseHeader"]["x-amz-version-id"] = json!("v1"));
    assert_eq!(answered, "a b/é+.parquet?versionId=v1");
    let asked = versioned(|record| record["requestQuery"]["versionId"] = json!("v2"));
    assert_eq!(asked, "a b/é+.parquet?versionId=v2");
    let none = versioned(|record| record["requestQuery"]["versionId"] = json!("null"));
    assert_eq!(none, "a b/é+.parquet");
}

#[test]
fn durations_are_nanoseconds_in_a_text_or_not_known() {
    let duration = |fields: Value| {
        let record = changed("GetObject", |record| {
            let api = record["api"].as_object_mut().unwrap();
            api.remove("timeToResponse");
            api.remove("timeToResponseInNS");
            api.extend(fields.as_object().unwrap().clone());
        });
        access(&record).duration_us
    };
    assert_eq!(duration(json!({ "timeToResponse": "1999500ns" })), 2_000);
    assert_eq!(duration(json!({ "timeToResponseInNS": "7000" })), 7);
    assert_eq!(duration(json!({ "timeToResponse": "1m2s" })), 0);
    assert_eq!(duration(json!({})), 0);
}

#[test]
fn no_secret_of_a_request_goes_any_further_even_if_it_cannot_be_read() {
    let good = parse(record_of("GetObject").to_string().as_bytes()).unwrap();
    assert!(!format!("{good:?}").contains("SECRET"));
    for (field, value) in [("time", json!("soon")), ("requestHeader", json!("SECRET"))] {
        let bad = changed("GetObject", |record| record[field] = value);
        let parsed = parse(bad.to_string().as_bytes()).unwrap();
        let [refused] = &parsed.refused[..] else { panic!("{parsed:?}") };
        let kept = String::from_utf8(refused.bytes.to_vec()).unwrap();
        assert!(!kept.contains("SECRET") && kept.contains("17CDC1F4D7E69123"), "{kept}");
        assert!(!refused.refusal.to_string().contains("SECRET"), "{}", refused.refusal);
    }
}

#[test]
fn service_accounts_are_who_they_act_for() {
    let record = changed("GetObject", |record| record["parentUser"] = json!("ada"));
    assert_eq!(access(&record).principal, "ada");
}

#[test]
fn a_record_that_comes_again_has_the_same_id_and_another_request_another() {
    let id = |record: &Value| parse(record.to_string().as_bytes()).unwrap().events[0].id;
    let first = record_of("GetObject");
    assert_eq!(id(&first), id(&changed("GetObject", |record| record["userAgent"] = json!("x"))));
    let changes: [fn(&mut Value); 4] = [
        |record| record["requestID"] = json!("R2"),
        |record| record["time"] = json!("2026-11-28T06:43:01Z"),
        |record| record["api"]["object"] = json!("other"),
        |record| record["deploymentid"] = json!("d2"),
    ];
    for change in changes {
        assert_ne!(id(&first), id(&changed("GetObject", change)));
    }
}

#[test]
fn what_is_no_request_to_a_bucket_is_ignored_and_what_is_no_record_is_refused() {
    let admin = json!({ "time": "2026-11-28T06:43:00Z", "api": { "name": "ServerInfo" } });
    for record in [json!({}), admin] {
        let parsed = parse(record.to_string().as_bytes()).unwrap();
        assert_eq!((parsed.ignored, parsed.records), (1, 1), "{record}");
    }
    for wrong in ["", "[]", "7", "{", "\u{0}"] {
        parse(wrong.as_bytes()).unwrap_err();
    }
}
