//! Secrets: never printed; secrets in files are read again at each use.

use std::fmt;
use std::path::{Path, PathBuf};

/// The beginning of a part's detail while a server refuses a login that it accepted before. It
/// distinguishes this from a server that is away.
pub const LOGIN_REFUSED: &str = "login refused since";

/// A secret of the settings.
///
/// A secret in a file is read whenever it is used, which is at each connect. It is rotated by
/// replacing the file, without a restart.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// From a flag or the environment: the same for the life of the process.
    Text(String),
    /// In a file.
    File {
        /// The setting whose value is in the file. The variable with the file's name has this name
        /// followed by `_FILE`.
        key: &'static str,
        /// The file's path.
        path: PathBuf,
    },
}

/// Why a secret can't be read now. The problem may end by itself while a file is being replaced.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretProblem {
    /// The file can't be read.
    #[error("{key}_FILE can't be read: {path}: {why}")]
    Unreadable {
        /// The setting.
        key: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        why: String,
    },
    /// The file is empty.
    #[error("{key}_FILE is empty: {path}")]
    Empty {
        /// The setting.
        key: &'static str,
        /// The file.
        path: PathBuf,
    },
}

impl Secret {
    /// The current secret, without the line end that editors and `echo` add.
    ///
    /// # Errors
    ///
    /// The file can't be read, or is empty; perhaps it is being replaced.
    pub fn read(&self) -> Result<String, SecretProblem> {
        let (key, path) = match self {
            Self::Text(text) => return Ok(text.clone()),
            Self::File { key, path } => (*key, path),
        };
        let text = std::fs::read_to_string(path).map_err(|error| SecretProblem::Unreadable {
            key,
            path: path.clone(),
            why: error.to_string(),
        })?;
        match text.trim_end_matches(['\r', '\n']) {
            "" => Err(SecretProblem::Empty { key, path: path.clone() }),
            text => Ok(text.to_owned()),
        }
    }

    /// The file from which it is read, if it is in a file.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Text(_) => None,
            Self::File { path, .. } => Some(path),
        }
    }

    /// What a person should do to change the secret of the setting with this key.
    pub fn remedy(&self, key: &str) -> String {
        match self {
            Self::Text(_) => format!(
                "{key} is read only at the start: restart with the right one, or put it into a \
                 file and set {key}_FILE to its path, which is read again at each attempt"
            ),
            Self::File { path, .. } => format!(
                "put the right one into {} ({key}_FILE), which is read again at each attempt",
                path.display()
            ),
        }
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// The file's name, or that there is a secret.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("(not shown)"),
            Self::File { path, .. } => write!(f, "(in {})", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_in_a_file_is_what_stands_there_at_each_reading() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        let secret = Secret::File { key: "PASSWORD", path: path.clone() };
        let missing = secret.read().unwrap_err().to_string();
        assert!(missing.contains("PASSWORD_FILE") && missing.contains("password: No such file"));
        std::fs::write(&path, "one\r\n").unwrap();
        assert_eq!(secret.read().as_deref(), Ok("one"));
        std::fs::write(&path, "two").unwrap();
        assert_eq!(secret.read().as_deref(), Ok("two"));
        std::fs::write(&path, "\n").unwrap();
        assert_eq!(secret.read().unwrap_err(), SecretProblem::Empty { key: "PASSWORD", path });
    }

    #[test]
    fn no_secret_is_shown_by_what_may_be_logged() {
        let text = Secret::from("hunter2");
        assert_eq!(format!("{text:?}"), "(not shown)");
        assert!(!text.remedy("PASSWORD").contains("hunter2"));
        let file = Secret::File { key: "PASSWORD", path: PathBuf::from("/run/secrets/p") };
        assert_eq!(format!("{file:?}"), "(in /run/secrets/p)");
        assert!(file.remedy("PASSWORD").contains("/run/secrets/p (PASSWORD_FILE)"));
    }
}
