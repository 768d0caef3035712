//! The login to NATS. Files are read again at each attempt to connect, so that a login is rotated
//! by replacing the file, without a restart.

use std::path::{Path, PathBuf};

use async_nats::Auth;
use nkeys::KeyPair;
use service_kit::Secret;

use crate::{
    addresses::{self, AddressLogin},
    settings::{BusSettings, Problem},
};

/// Where the login is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LoginState {
    /// `NATS_CREDS`.
    Credentials(PathBuf),
    /// `NATS_NKEY_SEED_FILE`.
    Nkey(PathBuf),
    /// `NATS_USER` and `NATS_PASSWORD`.
    Password { user: String, password: Secret },
    /// `NATS_TOKEN`.
    Token(Secret),
    /// `NATS_URL`, which may contain a login.
    Address(Secret),
}

impl LoginState {
    /// The login that these settings name.
    pub(crate) fn of(settings: &BusSettings) -> Self {
        if let Some(path) = &settings.credentials_file {
            Self::Credentials(path.clone())
        } else if let Some(path) = &settings.nkey_seed_file {
            Self::Nkey(path.clone())
        } else if let (Some(user), Some(password)) = (&settings.user, &settings.password) {
            Self::Password { user: user.clone(), password: password.clone() }
        } else if let Some(token) = &settings.token {
            Self::Token(token.clone())
        } else {
            Self::Address(settings.url.clone())
        }
    }

    /// The answer to the server's greeting, from the current contents of the files.
    ///
    /// # Errors
    ///
    /// A file that can't be read or understood. Errors repeat no part of a file.
    pub(crate) fn read(&self, nonce: &[u8]) -> Result<Auth, Problem> {
        let mut auth = Auth::new();
        match self {
            Self::Credentials(path) => {
                let text = file("NATS_CREDS", path)?;
                let wrong = || wrong("NATS_CREDS", path, "a user's JWT and the seed of its nkey");
                let (jwt, seed) = credentials(&text).ok_or_else(wrong)?;
                let key = KeyPair::from_seed(seed).map_err(|_| wrong())?;
                auth.signature = Some(key.sign(nonce).map_err(|_| wrong())?);
                auth.jwt = Some(jwt.to_owned());
            }
            Self::Nkey(path) => {
                let seed = file("NATS_NKEY_SEED_FILE", path)?;
                let wrong = || wrong("NATS_NKEY_SEED_FILE", path, "the seed of an nkey");
                let key = KeyPair::from_seed(seed.trim()).map_err(|_| wrong())?;
                auth.signature = Some(key.sign(nonce).map_err(|_| wrong())?);
                auth.nkey = Some(key.public_key());
            }
            Self::Password { user, password } => {
                auth.username = Some(user.clone());
                auth.password = Some(read("NATS_PASSWORD", password)?);
            }
            Self::Token(token) => auth.token = Some(read("NATS_TOKEN", token)?),
            Self::Address(url) => {
                let url = read("NATS_URL", url)?;
                let addresses =
                    addresses::read(&url).map_err(|detail| Problem { key: "NATS_URL", detail })?;
                match addresses.login {
                    Some(AddressLogin { user, password: Some(password) }) => {
                        auth.username = Some(user);
                        auth.password = Some(password);
                    }
                    Some(AddressLogin { user, password: None }) => auth.token = Some(user),
                    None => {}
                }
            }
        }
        Ok(auth)
    }

    /// What a person should do if the server refuses the login.
    pub(crate) fn remedy(&self) -> String {
        let replace = |key: &str, path: &Path| {
            let path = path.display();
            format!("put the right one into {path} ({key}), which is read again at each attempt")
        };
        match self {
            Self::Credentials(path) => replace("NATS_CREDS", path),
            Self::Nkey(path) => replace("NATS_NKEY_SEED_FILE", path),
            Self::Password { user, password } => {
                format!("the password of user {user}: {}", password.remedy("NATS_PASSWORD"))
            }
            Self::Token(token) => token.remedy("NATS_TOKEN"),
            Self::Address(url) if has_login(url) => {
                format!("the login in the address: {}", url.remedy("NATS_URL"))
            }
            Self::Address(_) => "no login is set: set NATS_CREDS, NATS_NKEY_SEED_FILE, NATS_USER \
                                 and NATS_PASSWORD, or NATS_TOKEN, and restart"
                .to_owned(),
        }
    }
}

fn has_login(url: &Secret) -> bool {
    let addresses = url.read().ok().and_then(|url| addresses::read(&url).ok());
    addresses.is_some_and(|addresses| addresses.login.is_some())
}

fn read(key: &'static str, secret: &Secret) -> Result<String, Problem> {
    secret.read().map_err(|problem| Problem { key, detail: problem.to_string() })
}

/// Read on this thread: the file is short, and an attempt to connect waits for it.
fn file(key: &'static str, path: &Path) -> Result<String, Problem> {
    std::fs::read_to_string(path)
        .map_err(|error| Problem { key, detail: format!("can't read {}: {error}", path.display()) })
}

fn wrong(key: &'static str, path: &Path, what: &str) -> Problem {
    Problem { key, detail: format!("{} does not hold {what}", path.display()) }
}

/// JWT and seed in a credentials file: the first two lines that are enclosed by lines of dashes.
fn credentials(text: &str) -> Option<(&str, &str)> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let is_fence = |line: &str| line.starts_with("---") && line.ends_with("---");
    let is_value = |line: &str| {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '=');
        !line.is_empty() && !is_fence(line) && line.chars().all(legal)
    };
    let mut found = lines.windows(3).filter_map(|lines| match lines {
        [before, value, after] if is_fence(before) && is_value(value) && is_fence(after) => {
            Some(*value)
        }
        _ => None,
    });
    Some((found.next()?, found.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An nkey of a user and its public half, created for these tests.
    const SEED: &str = "SUAAAAICAMCAKBQHBAEQUCYMBUHA6EARCIJRIFIWC4MBSGQ3DQOR4H776Y";
    const PUBLIC: &str = "UAB2CB576PHBBPQ5ODORRZ2LYCMWPZGWGCN2KDK7DXOIMZASKUY3RLKK";

    fn credentials_file(jwt: &str, seed: &str) -> String {
        format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
             ************************* IMPORTANT *************************\n\
             NKEYs are sensitive and should be treated as secrets.\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        )
    }

    fn verified(auth: &Auth, nonce: &[u8]) -> bool {
        let signature = auth.signature.as_deref().unwrap_or_default();
        KeyPair::from_public_key(PUBLIC).unwrap().verify(nonce, signature).is_ok()
    }

    #[test]
    fn each_kind_of_login_is_read_again_from_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let secret = |key| Secret::File { key, path: path.clone() };
        let write = |text: &str| std::fs::write(&path, text).unwrap();

        let password =
            LoginState::Password { user: "u".to_owned(), password: secret("NATS_PASSWORD") };
        for (text, expected) in [("one\n", "one"), ("two\n", "two")] {
            write(text);
            let auth = password.read(b"").unwrap();
            assert_eq!(auth.username.as_deref(), Some("u"));
            assert_eq!(auth.password.as_deref(), Some(expected));
            let auth = LoginState::Token(secret("NATS_TOKEN")).read(b"").unwrap();
            assert_eq!(auth.token.as_deref(), Some(expected));
            write(&format!("nats://me:{expected}@h:1\n"));
            let auth = LoginState::Address(secret("NATS_URL")).read(b"").unwrap();
            assert_eq!(
                (auth.username.as_deref(), auth.password.as_deref()),
                (Some("me"), Some(expected))
            );
        }
        write(&format!("{SEED}\n"));
        let auth = LoginState::Nkey(path.clone()).read(b"nonce").unwrap();
        assert_eq!(auth.nkey.as_deref(), Some(PUBLIC));
        assert!(verified(&auth, b"nonce"));
        for jwt in ["eyJ0.eyJq.c2ln-_", "eyJ1.eyJq.c2ln-_"] {
            write(&credentials_file(jwt, SEED));
            let auth = LoginState::Credentials(path.clone()).read(b"nonce").unwrap();
            assert_eq!((auth.jwt.as_deref(), auth.nkey.as_deref()), (Some(jwt), None));
            assert!(verified(&auth, b"nonce"));
        }
    }

    #[test]
    fn what_is_wrong_names_setting_and_file_and_nothing_that_stands_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hidden");
        let logins = [
            LoginState::Credentials(path.clone()),
            LoginState::Nkey(path.clone()),
            LoginState::Address(Secret::File { key: "NATS_URL", path: path.clone() }),
        ];
        let half = credentials_file("eyJ0.s3cr3t", "SUAAs3cr3t");
        for text in [None, Some(""), Some("s3cr3t:/@s3cr3t"), Some(half.as_str())] {
            if let Some(text) = text {
                std::fs::write(&path, text).unwrap();
            }
            for login in &logins {
                let problem = login.read(b"nonce").err().unwrap();
                let shown = format!("{problem:?} {} {login:?}", login.remedy());
                assert!(shown.contains("hidden") && shown.contains(problem.key), "{shown}");
                assert!(!shown.contains("s3cr3t"), "{shown}");
            }
        }
    }

    #[test]
    fn credentials_are_found_whatever_the_line_ends_and_the_space_around_them() {
        let text = credentials_file("eyJ0.a-_=", "SUAA");
        let windows = text.replace('\n', "\r\n");
        for text in [&text, &windows, text.trim_end(), &format!("\n\n{text}\n\n")] {
            assert_eq!(credentials(text), Some(("eyJ0.a-_=", "SUAA")), "{text:?}");
        }
        for text in ["", "eyJ0\nSUAA", &credentials_file("eyJ0 x", "SUAA")] {
            assert_eq!(credentials(text), None, "{text:?}");
        }
    }
}
