//! How an object of a store that speaks S3 is called here.

/// The key as people write it. Versions are stored side by side, so each is an object of its own: a
/// delete marker is a new version and frees nothing, a version that is deleted frees its own bytes.
/// Buckets without versions have none, or `null`.
pub(crate) fn of_version(key: &str, version: Option<&str>) -> String {
    match version.filter(|version| !matches!(*version, "" | "null")) {
        Some(version) => format!("{key}?versionId={version}"),
        None => key.to_owned(),
    }
}
