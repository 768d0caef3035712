//! `lakegauge rest-key`: prints a key with which PostgREST accepts requests of a role, like the
//! keys of a Supabase project.

use std::io::Read as _;
use std::process::ExitCode;

use anyhow::Context as _;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use clap::{Arg, ArgMatches, Command};
use hmac::{Hmac, KeyInit as _, Mac as _};
use service_kit::Clock;
use sha2::Sha256;

const ROLE: &str = "role";
/// The roles of the REST interface.
const ROLES: [&str; 3] = ["anon", "authenticated", "service_role"];
/// PostgREST refuses to start with a shorter secret.
const SECRET_BYTES_MIN: usize = 32;
const SECRET_BYTES_MAX: u64 = 64 * 1024;
/// How long a key is valid: ten years, as Supabase's are.
const VALID_S: i64 = 10 * 365 * 24 * 60 * 60;

pub(crate) fn command() -> Command {
    Command::new("rest-key")
        .about("Print a key for the REST interface (a JWT that PostgREST accepts)")
        .after_help(
            "The secret of PostgREST (PGRST_JWT_SECRET) is read from standard input. Send the key \
             as `Authorization: Bearer KEY`; it is valid for ten years.",
        )
        .arg(
            Arg::new(ROLE)
                .value_name("ROLE")
                .value_parser(ROLES)
                .required(true)
                .help("Role of the requests with the key"),
        )
}

pub(crate) fn run(matches: &ArgMatches) -> ExitCode {
    let Some(role) = matches.get_one::<String>(ROLE).cloned() else {
        return ExitCode::from(crate::EXIT_USAGE);
    };
    let key = crate::command::block_on_blocking(move || {
        let mut secret = String::new();
        std::io::stdin()
            .take(SECRET_BYTES_MAX)
            .read_to_string(&mut secret)
            .context("the secret can't be read from standard input")?;
        let secret = secret.trim_end();
        anyhow::ensure!(
            secret.len() >= SECRET_BYTES_MIN,
            "the secret on standard input has {} bytes; at least {SECRET_BYTES_MIN} are needed",
            secret.len()
        );
        Ok(key(secret.as_bytes(), &role, Clock::system().now_us() / 1_000_000))
    });
    match key {
        Ok(key) => crate::command::print(key + "\n"),
        Err(error) => crate::command::report(Err(error)),
    }
}

/// A key of a role, valid from a time in seconds since 1970.
fn key(secret: &[u8], role: &str, from_s: i64) -> String {
    let until_s = from_s + VALID_S;
    let claims = format!(r#"{{"role":"{role}","iss":"lakegauge","iat":{from_s},"exp":{until_s}}}"#);
    token(secret, &claims)
}

/// A JSON Web Token with these claims, signed with HMAC-SHA-256 (RFC 7519).
fn token(secret: &[u8], claims: &str) -> String {
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
    let mut mac =
        Hmac::<Sha256>::new_from_slice(secret).expect("a secret of any length makes a key");
    mac.update(signed.as_bytes());
    let signature = URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes());
    format!("{signed}.{signature}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_what_other_programs_make_of_the_same_claims() {
        // The example of jwt.io for HS256.
        let claims = r#"{"sub":"1234567890","name":"John Doe","iat":1516239022}"#;
        assert_eq!(
            token(b"your-256-bit-secret", claims),
            "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.\
             eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9lIiwiaWF0IjoxNTE2MjM5MDIyfQ.\
             SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c"
        );
    }

    #[test]
    fn a_key_names_its_role_and_how_long_it_is_valid() {
        let key = key(&[b's'; 48], "anon", 1_795_416_180);
        let claims = URL_SAFE_NO_PAD.decode(key.split('.').nth(1).unwrap()).unwrap();
        let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
        assert_eq!(
            claims,
            serde_json::json!({
                "role": "anon",
                "iss": "lakegauge",
                "iat": 1_795_416_180_i64,
                "exp": 1_795_416_180_i64 + 315_360_000,
            })
        );
    }
}
