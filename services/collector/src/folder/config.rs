//! The settings of `collect folder`: the folder, the interval and the name of the source.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use bus::service::BusConfig;
use domain::accept::NAME_BYTES_MAX;
use service_kit::{Settings, settings::Recorded};

/// Seconds between two walks. At most a day, because otherwise the used space would be of another
/// day than the numbers that are shown beside it.
const INTERVALS_S: RangeInclusive<u64> = 1..=86_400;

service_kit::settings! {
    /// The settings of `collect folder`.
    #[derive(Clone, Debug)]
    pub struct Config {
        /// NATS.
        #[settings(bus::service::table())]
        pub(crate) bus: BusConfig = bus::service::load("collector"),
        /// The folder, and the bucket that it stands for.
        #[settings(FolderSettings::table())]
        pub(crate) folder: Folder = Folder::load(),
        /// Time from the beginning of a walk through the folder to that of the next. A walk that
        /// takes longer delays the next one.
        #[setting(COLLECT_FOLDER_INTERVAL_S, "interval-s", default = "300")]
        pub(crate) interval_s: u64 = in_range(INTERVALS_S),
        /// Name of the source: part of the subject, and who sent an event in the archive.
        #[setting(COLLECT_FOLDER_SOURCE, "source", default = "folder")]
        pub(crate) source: String = parse_by(wire::source_name),
    }
}

service_kit::settings! {
    /// The settings from which a [`Folder`] is made.
    struct FolderSettings {
        /// Folder of this machine that is a data lake: the files in it and below it are counted.
        #[setting(COLLECT_FOLDER_PATH, "path")]
        path: PathBuf,
        /// Bucket that the folder stands for; the folder's own name, unless it is set.
        #[setting(COLLECT_FOLDER_BUCKET, "bucket")]
        bucket: Option<String> = optional,
    }
}

/// A folder that is counted as a bucket of the lake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Folder {
    /// Path of the folder.
    pub(crate) path: PathBuf,
    /// Name of the bucket; valid as the name of a bucket in an event.
    pub(crate) bucket: String,
}

impl Folder {
    fn load(settings: &mut Settings<'_>) -> Result<Self, Recorded> {
        let FolderSettings { path, bucket } = FolderSettings::load(settings)?;
        let Some(bucket) = bucket.or_else(|| own_name(&path)) else {
            let text = "must be set to the bucket's name, because the folder of \
                        COLLECT_FOLDER_PATH has no name of its own";
            return Err(settings.problem(&FolderSettings::COLLECT_FOLDER_BUCKET, text));
        };
        if bucket.len() > NAME_BYTES_MAX || bucket.trim_matches('/').is_empty() {
            let text = format!("must be set to the bucket's name: 1 to {NAME_BYTES_MAX} bytes");
            return Err(settings.problem(&FolderSettings::COLLECT_FOLDER_BUCKET, &text));
        }
        Ok(Self { path, bucket })
    }
}

/// The last component of the path. If the path is `.`, this is the name of the working directory.
fn own_name(path: &Path) -> Option<String> {
    let path = std::path::absolute(path).ok()?;
    path.file_name()?.to_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use service_kit::Flags;

    use super::*;

    fn bucket(path: &str, bucket: &str) -> Result<String, String> {
        let environment =
            BTreeMap::from([("COLLECT_FOLDER_PATH", path), ("COLLECT_FOLDER_BUCKET", bucket)]);
        let flags = Flags::default();
        let mut settings = Settings::new(&flags, &environment);
        let loaded = Folder::load(&mut settings);
        settings.finish().map_err(|problems| problems.to_string())?;
        Ok(loaded.unwrap().bucket)
    }

    #[test]
    fn the_bucket_is_the_folders_own_name_unless_it_is_set() {
        assert_eq!(bucket("/data/raw", ""), Ok("raw".to_owned()));
        assert_eq!(bucket("/data/raw/", ""), Ok("raw".to_owned()));
        assert_eq!(bucket("raw/.", ""), Ok("raw".to_owned()));
        assert_eq!(bucket(".", ""), Ok("collector".to_owned()));
        assert_eq!(bucket("/", "raw"), Ok("raw".to_owned()));
    }

    #[test]
    fn a_folder_without_a_name_and_a_name_that_no_event_accepts_say_what_to_set() {
        let long = "x".repeat(256);
        for (path, given) in [("/", ""), ("a/..", ""), ("/data", "/"), ("/data", &long)] {
            let problem = bucket(path, given).unwrap_err();
            let expected = "COLLECT_FOLDER_BUCKET (--bucket): must be set to the bucket's name";
            assert!(problem.contains(expected), "{path} {given}: {problem}");
        }
    }

    #[test]
    fn a_missing_path_is_named() {
        let problem = bucket("", "raw").unwrap_err();
        assert!(problem.contains("COLLECT_FOLDER_PATH (--path): is required"), "{problem}");
    }
}
