//! What other systems report is counted and archived once, however often it comes, and is answered
//! with 2xx only once it is stored.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod folder;
mod frame;
mod postgres_log;
mod s3_audit;
mod s3_events;
mod trino;

use integration_tests::http::{self, Answer};
use integration_tests::pipeline::{Part, Pipeline};
use integration_tests::ports::free_port;
use integration_tests::process::Process;

const TOKEN: &str = "a long word that only the store knows";

struct Collector {
    service: Process,
    port: u16,
}

impl Collector {
    async fn start(pipeline: &mut Pipeline) -> Self {
        Self::start_with(pipeline, &[]).await
    }

    /// With more words on its command line.
    async fn start_with(pipeline: &mut Pipeline, more: &[&str]) -> Self {
        let port = free_port().unwrap();
        let address = format!("127.0.0.1:{port}");
        let words = ["collect", "http", "--http-addr", &address, "--token", TOKEN];
        let short = ["--ack-wait-ms", "1000", "--source", "store-one"];
        let service = pipeline.spawn_tool(&[&words[..], &short, more].concat()).unwrap();
        service.ready().await.unwrap();
        Self { service, port }
    }

    fn post(&self, path: &str, body: &[u8], more: &[(&str, &str)]) -> Answer {
        let bearer = format!("Bearer {TOKEN}");
        let headers = [&[("authorization", bearer.as_str())], more].concat();
        http::post(self.port, path, &headers, body).unwrap()
    }
}

async fn pipeline() -> Pipeline {
    let mut pipeline = Pipeline::start(&[]).await.unwrap();
    pipeline.run(Part::Archiver).unwrap();
    pipeline.run(Part::Aggregator).unwrap();
    pipeline
}
