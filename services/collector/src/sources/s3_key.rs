//! Keys of objects in S3 stores, as this project writes them.

/// The plain key, with the version if there is one. Versions are stored side by side, so each
/// version is an object of its own: a delete marker is a new version and frees no bytes, and the
/// deletion of a version frees the bytes of that version. In buckets without versions, the version
/// is missing or `null`.
pub(crate) fn of_version(key: &str, version: Option<&str>) -> String {
    match version.filter(|version| !matches!(*version, "" | "null")) {
        Some(version) => format!("{key}?versionId={version}"),
        None => key.to_owned(),
    }
}
