//! A lake that is a folder: its used space is the sum of its files, to the byte.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::Context as _;
use integration_tests::executable;
use integration_tests::http;
use integration_tests::pipeline::Pipeline;
use integration_tests::process::Process;
use integration_tests::waiting::until;

use super::pipeline;

fn write(folder: &Path, name: &str, bytes: usize) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, vec![b'x'; bytes]).unwrap();
}

/// Waits until used space is so many bytes, in all and in the bucket.
async fn used(pipeline: &Pipeline, service: &Process, bytes: u32) {
    let shown = until("used space of the folder", async || {
        let Some([used_gb, ..]) = pipeline.four()? else { return Ok(false) };
        Ok((used_gb * 1e9).round() == f64::from(bytes))
    });
    shown.await.with_context(|| service.log_end()).unwrap();
    let (_, page) = http::get(pipeline.metrics_port(), "/metrics").unwrap();
    let series = "data_lake_storage_used_bytes{bucket=\"raw\"}";
    assert_eq!(http::value(&page, series), Some(f64::from(bytes)));
}

/// Waits until `/readyz` fails with a text in it.
async fn not_ready(service: &Process, why: &str) {
    let noticed = until(why, async || {
        let (status, text) = service.readiness().unwrap_or_default();
        Ok(status == 503 && text.contains(why))
    });
    noticed.await.with_context(|| service.log_end()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn used_space_follows_the_files_of_a_folder_to_the_byte() {
    let mut pipeline = pipeline().await;
    let home = tempfile::tempdir().unwrap();
    let lake = home.path().join("raw");
    write(&lake, "a", 1_000_003);
    write(&lake, "b/c.parquet", 2_345);
    write(&lake, "b/d/e", 70_000);
    fs::hard_link(lake.join("a"), lake.join("b/again")).unwrap();
    symlink("a", lake.join("link")).unwrap();
    let path = lake.display().to_string();
    let words = ["collect", "folder", "--path", &path, "--interval-s", "1", "--source", "disk"];
    let mut service = pipeline.spawn_tool(&words).unwrap();
    service.ready().await.unwrap();
    used(&pipeline, &service, 1_072_348).await;

    write(&lake, "b/d/e", 80_001);
    fs::remove_file(lake.join("b/c.parquet")).unwrap();
    used(&pipeline, &service, 1_080_004).await;

    // The inventory of the outage waits, and the next one has what changed meanwhile.
    pipeline.nats.kill();
    not_ready(&service, "[-]publisher").await;
    write(&lake, "f", 9);
    fs::remove_file(lake.join("a")).unwrap();
    fs::remove_file(lake.join("b/again")).unwrap();
    pipeline.nats.restart().await.unwrap();
    used(&pipeline, &service, 80_010).await;
    service.ready().await.unwrap();

    // A folder that is not there is not an empty one.
    let elsewhere = home.path().join("elsewhere");
    fs::rename(&lake, &elsewhere).unwrap();
    not_ready(&service, "no inventory is published since 20").await;
    assert_eq!(service.metric("lakegauge_part_ready{part=\"folder\"}"), Some(0.0));
    used(&pipeline, &service, 80_010).await;
    write(&elsewhere, "g", 1);
    fs::rename(&elsewhere, &lake).unwrap();
    used(&pipeline, &service, 80_011).await;
    service.ready().await.unwrap();

    let published = "lakegauge_collector_records_total{report=\"folder\",result=\"published\"}";
    let published = service.metric(published).unwrap();
    service.terminate().unwrap();
    assert_eq!(service.ended().await.unwrap().code(), Some(0), "{}", service.log());
    pipeline.rest().await.unwrap();
    let sql = "select concat_ws(' ', count(*) = count(distinct as_of), count(*) >= $published, \
               min(source), max(source), (array_agg(objects order by as_of desc))[1]) \
               from lakegauge_api.lake_inventory where bucket = 'raw'";
    let sql = sql.replace("$published", &published.to_string());
    assert_eq!(pipeline.database.sql(&sql).unwrap().concat(), "t t disk disk 3");
}

#[test]
fn a_folder_without_a_name_is_refused_with_what_to_set() {
    for (words, problem) in [
        (&["collect", "folder"][..], "COLLECT_FOLDER_PATH (--path): is required"),
        (&["collect", "folder", "--path", "/"], "COLLECT_FOLDER_BUCKET (--bucket): must be set"),
    ] {
        let ended = executable::run(words.iter().copied(), b"").unwrap();
        assert_eq!(ended.status, Some(64), "{ended:?}");
        assert!(ended.stderr.contains(problem), "{ended:?}");
    }
}
