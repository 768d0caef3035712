use std::cell::{Cell, RefCell};
use std::fs::File;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use tempfile::TempDir;

use super::*;

/// Creates a folder with the given files: path and length in bytes.
fn lake(files: &[(&str, usize)]) -> TempDir {
    let lake = tempfile::tempdir().unwrap();
    for (path, bytes) in files {
        let path = lake.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, vec![b'x'; *bytes]).unwrap();
    }
    lake
}

fn opened(path: &Path) -> io::Result<ReadDir> {
    fs::read_dir(path)
}

/// A walk with a single partition.
fn walk(root: &Path) -> Walk<'_> {
    Walk { root, bucket: "raw", partitions: 1, open: &opened, is_stopped: &|| false }
}

fn whole(objects: u64, bytes: u64) -> Walked {
    Walked::Whole(vec![Share { objects, bytes }])
}

fn unreadable(walked: Walked) -> Unreadable {
    let Walked::Incomplete(unreadable) = walked else { panic!("{walked:?}") };
    unreadable
}

#[test]
fn files_of_all_folders_are_counted_with_their_lengths() {
    let lake = lake(&[("a", 1), ("b/c", 20), ("b/d/e", 300), ("b/d/empty", 0)]);
    fs::create_dir_all(lake.path().join("nothing/in/here")).unwrap();
    assert_eq!(walk(lake.path()).run(), whole(4, 321));
}

#[test]
fn an_empty_folder_holds_nothing() {
    assert_eq!(walk(lake(&[]).path()).run(), whole(0, 0));
}

#[test]
fn a_file_with_several_names_counts_once() {
    let lake = lake(&[("a", 100), ("b/c", 7)]);
    for name in ["again", "b/again"] {
        fs::hard_link(lake.path().join("a"), lake.path().join(name)).unwrap();
    }
    assert_eq!(walk(lake.path()).run(), whole(2, 107));
}

#[test]
fn symbolic_links_are_not_followed_except_the_folder_itself() {
    let elsewhere = lake(&[("large", 10_000)]);
    let lake = lake(&[("a", 1)]);
    let at = lake.path();
    symlink(elsewhere.path(), at.join("folder")).unwrap();
    symlink(elsewhere.path().join("large"), at.join("file")).unwrap();
    symlink(at, at.join("loop")).unwrap();
    symlink("nowhere", at.join("dangling")).unwrap();
    assert_eq!(walk(at).run(), whole(1, 1));
    assert_eq!(walk(&at.join("folder")).run(), whole(1, 10_000));
}

#[test]
fn what_is_neither_file_nor_folder_is_not_counted() {
    let lake = lake(&[("a", 1)]);
    let _socket = UnixListener::bind(lake.path().join("socket")).unwrap();
    assert_eq!(walk(lake.path()).run(), whole(1, 1));
}

#[test]
fn a_sparse_file_counts_its_length() {
    let lake = lake(&[]);
    let file = File::create(lake.path().join("sparse")).unwrap();
    file.set_len(1 << 30).unwrap();
    assert!(file.metadata().unwrap().blocks() < 1_000);
    assert_eq!(walk(lake.path()).run(), whole(1, 1 << 30));
}

#[test]
fn a_folder_that_may_not_be_read_makes_the_walk_incomplete_and_is_named() {
    let lake = lake(&[("a", 1), ("b/c", 2), ("d/e/f", 3)]);
    let denied = |path: &Path| match path.file_name().and_then(|name| name.to_str()) {
        Some("b" | "e") => Err(ErrorKind::PermissionDenied.into()),
        _ => fs::read_dir(path),
    };
    let found = unreadable(Walk { open: &denied, ..walk(lake.path()) }.run());
    assert_eq!(found.entries, 2);
    let text = found.to_string();
    assert!(text.starts_with("can't read 2 entries, the first is "), "{text}");
    assert!(text.contains("permission denied"), "{text}");
}

#[test]
fn a_folder_that_is_not_there_is_unreadable_and_not_empty() {
    let lake = lake(&[("a", 1)]);
    for name in ["nowhere", "a"] {
        let path = lake.path().join(name);
        let found = unreadable(walk(&path).run());
        assert!(found.first.starts_with(&path.display().to_string()), "{found}");
    }
}

#[test]
fn a_folder_that_is_replaced_during_the_walk_is_not_counted() {
    let lake = lake(&[("data/a/b", 1), ("data/c/d", 2)]);
    let root = lake.path().join("data");
    let replaced = |path: &Path| {
        let entries = fs::read_dir(path);
        if path == root {
            fs::rename(&root, lake.path().join("old"))?;
            fs::create_dir(&root)?;
        }
        entries
    };
    let found = unreadable(Walk { open: &replaced, ..walk(&root) }.run());
    assert!(found.first.contains("another folder took its place"), "{found}");
}

#[test]
fn files_that_vanish_during_the_walk_are_not_counted() {
    let lake = lake(&[("a", 1), ("b", 2), ("c", 4)]);
    let names = RefCell::new(vec!["a", "b", "c"]);
    // All names have already been read when the first file is examined.
    let vanish = || {
        for name in names.borrow_mut().drain(..) {
            fs::remove_file(lake.path().join(name)).unwrap();
        }
        false
    };
    assert_eq!(Walk { is_stopped: &vanish, ..walk(lake.path()) }.run(), whole(0, 0));
}

#[test]
fn a_folder_that_vanishes_or_becomes_a_file_during_the_walk_is_not_counted() {
    let lake = lake(&[("a", 1), ("gone/b", 2), ("other/c", 4)]);
    let vanish = |path: &Path| {
        if path != lake.path() {
            fs::remove_dir_all(path)?;
        }
        if path.ends_with("other") {
            fs::write(path, "a file")?;
        }
        fs::read_dir(path)
    };
    assert_eq!(Walk { open: &vanish, ..walk(lake.path()) }.run(), whole(1, 1));
}

#[test]
fn a_walk_stops_at_the_entry_where_it_is_told_to() {
    let lake = lake(&[("a", 1), ("b", 2), ("c", 4)]);
    let asked = Cell::new(0);
    let second = || {
        asked.set(asked.get() + 1);
        asked.get() == 2
    };
    assert_eq!(Walk { is_stopped: &second, ..walk(lake.path()) }.run(), Walked::Stopped);
    assert_eq!(asked.get(), 2);
}

#[test]
fn a_folder_below_the_depth_that_is_read_makes_the_walk_incomplete() {
    let lake = lake(&[("a", 1)]);
    let deep: PathBuf = (1..FOLDERS_OPEN_MAX).map(|_| "d").collect();
    fs::create_dir_all(lake.path().join(&deep)).unwrap();
    assert_eq!(walk(lake.path()).run(), whole(1, 1));
    fs::create_dir(lake.path().join(&deep).join("d")).unwrap();
    let found = unreadable(walk(lake.path()).run());
    assert!(found.first.contains("deeper than 256 folders"), "{found}");
}

#[test]
fn each_file_counts_in_the_partition_of_its_key() {
    let files = ["a", "b/c", "b/d e", "f", "g/h/i", "j"];
    let lake = lake(&files.map(|name| (name, name.len())));
    let mut expected = vec![Share::default(); 4];
    for name in files {
        let partition = partition::of_object(&object_key("raw", name), 4);
        let share = &mut expected[usize::from(partition)];
        share.objects += 1;
        share.bytes += u64::try_from(name.len()).unwrap();
    }
    assert!(expected.iter().filter(|share| share.objects > 0).count() > 1, "{expected:?}");
    let walked = Walk { partitions: 4, ..walk(lake.path()) }.run();
    assert_eq!(walked, Walked::Whole(expected));
}
