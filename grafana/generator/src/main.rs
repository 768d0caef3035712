//! Writes the dashboards: `cargo run -p boards`, after a change of their source.

use std::{fs, path::Path};

use anyhow::Context as _;

fn main() -> anyhow::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dashboards");
    for board in boards::all() {
        let file = folder.join(board.path());
        let parent = file.parent().context("a dashboard stands in a folder")?;
        fs::create_dir_all(parent)
            .and_then(|()| fs::write(&file, board.text()))
            .with_context(|| format!("can't write {}", file.display()))?;
    }
    Ok(())
}
