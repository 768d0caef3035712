//! The commands and settings that people enter in the other systems.

/// Commands and settings for the other systems; printed at the end of the help.
pub const LINES: &str = r#"Lines for the other systems (HOST is this one as they reach it, TOKEN that of COLLECT_TOKEN):

MinIO, S3 events: changes of objects
  mc admin config set ALIAS notify_webhook:LAKE \
    endpoint=http://HOST:8020/s3-events auth_token="Bearer TOKEN" \
    queue_dir=/var/minio/queue queue_limit=100000
  mc admin service restart ALIAS
  mc event add ALIAS/BUCKET arn:minio:sqs::LAKE:webhook --event put,get,delete

MinIO, audit records: reads, lists, failures, latency (--s3-reports events-and-audit)
  mc admin config set ALIAS audit_webhook:LAKE \
    endpoint=http://HOST:8020/s3-audit auth_token="Bearer TOKEN" \
    queue_dir=/var/minio/audit queue_size=100000
  mc admin service restart ALIAS

Trino, completed queries: etc/http-event-listener.properties
  event-listener.name=http
  http-event-listener.connect-ingest-uri=http://HOST:8020/trino
  http-event-listener.connect-http-headers=Authorization: Bearer TOKEN
  http-event-listener.log-completed=true
  http-event-listener.connect-retry-count=100
and in etc/config.properties
  event-listener.config-files=etc/http-event-listener.properties

More in docs/sources/receiver.md."#;
