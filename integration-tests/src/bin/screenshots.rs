//! Takes the pictures of the page that the documentation shows, of a running aggregator:
//! `screenshots http://localhost:8000 docs/images`.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use integration_tests::browser::{Browser, Look};

const DESK: Look = Look { width: 1280, height: 810, dark: false, scale: 1.0 };
const PHONE: Look = Look { width: 390, height: 844, dark: false, scale: 1.0 };

/// Name, language and look of each picture, and where the page is scrolled to.
const PICTURES: [(&str, &str, Look, &str); 5] = [
    ("page-light", "en-US", DESK, "body"),
    ("page-dark", "en-US", Look { dark: true, ..DESK }, "body"),
    ("page-tables", "en-US", DESK, "main > :nth-child(4)"),
    ("page-phone", "en-US", PHONE, "body"),
    ("page-portuguese", "pt-BR", DESK, "body"),
];

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: screenshots URL FOLDER";
    let (url, folder) = (arguments.next().context(usage)?, arguments.next().context(usage)?);
    fs::create_dir_all(&folder)?;
    for (name, language, look, place) in PICTURES {
        let mut browser = Browser::start(language, look)?;
        browser.go(&url)?;
        browser.until("document.body.dataset.state === 'live'")?;
        browser.until(
            "[...document.querySelectorAll('.plot svg')].every((plot) => plot.dataset.points > 1)",
        )?;
        browser.value(&format!("document.querySelector('{place}').scrollIntoView()"))?;
        fs::write(Path::new(&folder).join(format!("{name}.png")), browser.picture()?)?;
    }
    Ok(())
}
