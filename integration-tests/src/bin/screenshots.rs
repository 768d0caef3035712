//! Takes the pictures of the page that the documentation shows, of a running aggregator:
//! `screenshots http://localhost:8000 docs/images`. With `unwell` behind it, those of the banner, while
//! a part is away.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use integration_tests::browser::{Browser, Look};

const DESK: Look = Look { width: 1280, height: 810, dark: false, scale: 1.0 };
const PHONE: Look = Look { width: 390, height: 844, dark: false, scale: 1.0 };

/// Name, language and look of each picture, and where the page is scrolled to.
const PICTURES: [(&str, &str, Look, &str); 6] = [
    ("page-light", "en-US", DESK, "body"),
    ("page-dark", "en-US", Look { dark: true, ..DESK }, "body"),
    ("page-tables", "en-US", DESK, "main > .two"),
    ("page-phone", "en-US", PHONE, "body"),
    ("page-phone-tables", "en-US", PHONE, "main > .two"),
    ("page-portuguese", "pt-BR", DESK, "body"),
];

/// The same of the banner.
const BANNERS: [(&str, &str, Look, &str); 5] = [
    ("banner-light", "en-US", DESK, "body"),
    ("banner-dark", "en-US", Look { dark: true, ..DESK }, "body"),
    ("banner-phone", "en-US", PHONE, "body"),
    ("banner-phone-dark", "pt-BR", Look { dark: true, ..PHONE }, "body"),
    ("banner-phone-health", "pt-BR", PHONE, "main > :last-child"),
];

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: screenshots URL FOLDER [unwell]";
    let (url, folder) = (arguments.next().context(usage)?, arguments.next().context(usage)?);
    let (pictures, state) = match arguments.next().as_deref() {
        Some("unwell") => (&BANNERS[..], "unwell"),
        Some(_) => bail!(usage),
        None => (&PICTURES[..], "live"),
    };
    fs::create_dir_all(&folder)?;
    for (name, language, look, place) in pictures {
        let mut browser = Browser::start(language, *look)?;
        browser.go(&url)?;
        browser.until(&format!("document.body.dataset.state === '{state}'"))?;
        browser.until(
            "[...document.querySelectorAll('.plot svg')].every((plot) => plot.dataset.points > 1)",
        )?;
        browser.value(&format!("document.querySelector('{place}').scrollIntoView()"))?;
        fs::write(Path::new(&folder).join(format!("{name}.png")), browser.picture()?)?;
    }
    Ok(())
}
