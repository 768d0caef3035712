//! The page of the aggregator in a real browser.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use domain::Side;
use integration_tests::{
    browser::{Browser, Look},
    http,
    pipeline::{FOUR, Part, Pipeline, Traffic},
    prefix_proxy::PrefixProxy,
};

const LOOK: Look = Look { width: 1280, height: 900, dark: false, scale: 1.0 };
const TRAFFIC: Traffic = Traffic { events: 6_000, rate: 1_500, format: "json" };
/// In the order of [`FOUR`].
const VALUES: [&str; 4] = ["used-value", "accesses-value", "response-value", "records-value"];
const PLOTS: &str =
    "[...document.querySelectorAll('.plot svg')].map((plot) => +plot.dataset.points)";

/// Whether every table fits into its place.
const NO_TABLE_IS_CUT: &str = "['buckets', 'warehouses', 'streams'].every((id) => { \
    const place = document.getElementById(id).parentElement; \
    return place.scrollWidth <= place.clientWidth; })";
/// What the banner says.
const BANNER: &str = "document.getElementById('banner').innerText";

fn state_is(state: &str) -> String {
    format!("document.body.dataset.state === '{state}'")
}

/// The page's values, exact as it has them.
fn values(browser: &mut Browser) -> Vec<f64> {
    let value = |id: &str| browser.text(&format!("document.getElementById('{id}').value")).unwrap();
    VALUES.iter().copied().map(value).map(|value| value.parse().unwrap()).collect()
}

/// The page's values as they are read.
fn shown(browser: &mut Browser) -> Vec<String> {
    let text = |id: &str| browser.text(&format!("document.getElementById('{id}').textContent"));
    VALUES.iter().copied().map(text).map(Result::unwrap).collect()
}

fn points(browser: &mut Browser) -> Vec<u64> {
    let points = browser.value(PLOTS).unwrap();
    points.as_array().unwrap().iter().map(|points| points.as_u64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_what_is_scraped_and_comes_back_with_its_history() {
    let mut pipeline = Pipeline::start(&[("PAGE_GRAIN_S", "1")]).await.unwrap();
    pipeline.run(Part::Archiver).unwrap();
    pipeline.run(Part::Aggregator).unwrap();
    let lake = pipeline.simulate(Side::Lake, TRAFFIC).unwrap();
    let warehouse = pipeline.simulate(Side::Warehouse, TRAFFIC).unwrap();
    lake.finish().await.unwrap();
    warehouse.finish().await.unwrap();
    pipeline.rest().await.unwrap();
    let scraped = pipeline.shown().await.unwrap();

    let address = format!("http://127.0.0.1:{}/", pipeline.metrics_port());
    let mut browser = Browser::start("en-US", LOOK).unwrap();
    browser.go(&address).unwrap();
    browser.until(&state_is("live")).unwrap();
    browser.until(&format!("{PLOTS}.every((points) => points > 3)")).unwrap();
    assert_eq!(values(&mut browser), scraped, "{FOUR:?}");
    let read: Vec<f64> =
        shown(&mut browser).iter().map(|text| text.replace(',', "").parse().unwrap()).collect();
    for ((read, exact), decimals) in read.iter().zip(scraped).zip([3, 0, 1, 0]) {
        assert_eq!(format!("{read:.decimals$}"), format!("{exact:.decimals$}"));
    }
    for (what, expression) in [
        (
            "plots say what they show",
            "[...document.querySelectorAll('.plot svg')].every((plot) => plot.getAttribute('aria-label').includes('last hour'))",
        ),
        ("lines are drawn", "document.querySelectorAll('.plot path.line').length === 4"),
        ("buckets are listed", "document.querySelectorAll('#buckets tbody tr').length === 4"),
        (
            "warehouses are listed",
            "document.querySelectorAll('#warehouses tbody tr').length === 10",
        ),
        (
            "percentiles are known or said to be missing",
            "document.querySelectorAll('#percentiles dd').length === 6",
        ),
        ("nothing is wider than the window", "document.documentElement.scrollWidth <= innerWidth"),
        ("the language is said", "document.documentElement.lang === 'en'"),
    ] {
        assert_eq!(browser.value(expression).unwrap(), true, "{what}");
    }
    // Every part near the top, and nothing above them.
    for (what, expression) in [
        ("nothing is wrong", "document.getElementById('banner').hidden"),
        (
            "every part is near the top",
            "[...document.querySelectorAll('#pipeline-parts li')].map((part) => part.firstChild.nextSibling.textContent).join() === 'NATS,PostgreSQL,aggregator,archiver'",
        ),
        (
            "and on the first screen",
            "document.getElementById('pipeline-parts').getBoundingClientRect().bottom < innerHeight / 2",
        ),
        (
            "no link leads to where nothing is",
            "[...document.querySelectorAll('nav a')].filter((link) => !link.hidden).length === 1",
        ),
    ] {
        browser.until(expression).unwrap_or_else(|error| panic!("{what}: {error}"));
    }
    browser.until("document.getElementById('ledger').textContent.includes('all is well')").unwrap();
    let before = points(&mut browser);
    assert_eq!(browser.problems(), Vec::<String>::new());

    // A part that is away stands at the top, and the numbers go on.
    pipeline.kill(Part::Archiver).unwrap();
    browser.until(&state_is("unwell")).unwrap();
    let banner = browser.text(BANNER).unwrap();
    for said in ["No reports come from the archiver (since ", "nothing is lost", "start it"] {
        assert!(banner.contains(said), "{said}: {banner}");
    }
    assert_eq!(values(&mut browser), scraped, "{FOUR:?}");
    pipeline.run(Part::Archiver).unwrap();
    browser.until(&state_is("live")).unwrap();
    assert_eq!(browser.value("document.getElementById('banner').hidden").unwrap(), true);
    let over = browser.text("document.getElementById('ledger').textContent").unwrap();
    assert!(over.contains("Over: No reports come from the archiver"), "{over}");

    // Without its broker it has no numbers, and says so.
    pipeline.kill(Part::Aggregator).unwrap();
    browser.until(&state_is("lost")).unwrap();
    let banner = browser.text(BANNER).unwrap();
    assert!(banner.contains("This page can't reach the aggregator (since "), "{banner}");
    pipeline.set("NATS_URL", "nats://127.0.0.1:1");
    pipeline.run(Part::Aggregator).unwrap();
    browser.until(&state_is("behind")).unwrap();
    assert_eq!(shown(&mut browser), ["—"; 4]);
    browser.until(&format!("{BANNER}.includes('NATS can\\'t be reached')")).unwrap();
    let notice = browser.text("document.getElementById('notice').innerText").unwrap();
    assert!(notice.contains("Catching up") && notice.contains("nats"), "{notice}");

    // With it, the numbers and the last hour are back, without anybody's doing.
    pipeline.kill(Part::Aggregator).unwrap();
    let url = pipeline.nats.url();
    pipeline.set("NATS_URL", &url);
    pipeline.run(Part::Aggregator).unwrap();
    browser.until(&state_is("live")).unwrap();
    let enough = before.iter().min().unwrap();
    browser.until(&format!("{PLOTS}.every((points) => points >= {enough})")).unwrap();
    assert_eq!(values(&mut browser), scraped, "{FOUR:?}");

    // A browser tells of each connection that was refused meanwhile, and of nothing else.
    let others: Vec<String> = browser
        .problems()
        .into_iter()
        .filter(|problem| !problem.starts_with("network: "))
        .collect();
    assert_eq!(others, Vec::<String>::new());
    let foreign = |url: &String| !url.starts_with(&address) && url != "about:blank";
    assert_eq!(browser.requests().into_iter().find(foreign), None);
    drop(browser);

    let wider = Look { width: 390, height: 844, dark: false, scale: 1.0 };
    let mut browser = Browser::start("en-US", wider).unwrap();
    browser.go(&address).unwrap();
    browser.until(&state_is("live")).unwrap();
    assert_eq!(browser.value(NO_TABLE_IS_CUT).unwrap(), true, "at 390 pixels");
    drop(browser);

    let phone = Look { width: 360, height: 740, dark: true, scale: 1.0 };
    let mut browser = Browser::start("pt-BR", phone).unwrap();
    browser.go(&address).unwrap();
    browser.until(&state_is("live")).unwrap();
    for (what, expression) in [
        ("the language is said", "document.documentElement.lang === 'pt-BR'"),
        (
            "the words are Portuguese",
            "document.getElementById('used-title').textContent === 'Espaço utilizado'",
        ),
        (
            "numbers are written as there",
            "document.getElementById('accesses-value').textContent === '6.000'",
        ),
        ("nothing is wider than a phone", "document.documentElement.scrollWidth <= innerWidth"),
        ("no table is cut", NO_TABLE_IS_CUT),
        (
            "the line of health is Portuguese",
            "document.getElementById('parts').innerText.includes('dono da partição')",
        ),
    ] {
        assert_eq!(browser.value(expression).unwrap(), true, "{what}");
    }
    assert_eq!(browser.problems(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_works_behind_a_proxy_that_takes_a_path_prefix_away() {
    let mut pipeline = Pipeline::start(&[("PAGE_GRAIN_S", "1")]).await.unwrap();
    pipeline.run(Part::Archiver).unwrap();
    pipeline.run(Part::Aggregator).unwrap();
    let traffic = Traffic { events: 500, ..TRAFFIC };
    pipeline.simulate(Side::Lake, traffic).unwrap().finish().await.unwrap();
    pipeline.rest().await.unwrap();
    let proxy = PrefixProxy::start("/lake/gauge", pipeline.metrics_port()).await.unwrap();
    let prefix = format!("http://127.0.0.1:{}/lake/gauge", proxy.port());
    let mut browser = Browser::start("en-US", LOOK).unwrap();
    for address in [format!("{prefix}/"), prefix.clone()] {
        browser.go(&address).unwrap();
        browser.until(&state_is("live")).unwrap();
        browser.until("document.getElementById('accesses-value').value === '500'").unwrap();
        for (what, expression) in [
            (
                "the style is there",
                "getComputedStyle(document.querySelector('.bar')).display !== 'block'",
            ),
            ("the icon is there", "document.querySelector('h1 img').naturalWidth > 0"),
            (
                "links stay below",
                "document.querySelector('nav a:last-child').pathname === '/lake/gauge/metrics'",
            ),
        ] {
            assert_eq!(browser.value(expression).unwrap(), true, "{what} at {address}");
        }
    }
    assert_eq!(browser.problems(), Vec::<String>::new());
    let beside = |url: &String| !url.starts_with(&prefix) && url != "about:blank";
    assert_eq!(browser.requests().into_iter().find(beside), None);
    // The same numbers for programs.
    let (status, now) = http::get(proxy.port(), "/lake/gauge/api/now").unwrap();
    assert!(status == 200 && now.starts_with('{'), "{status} {now}");
}
