//! A NATS operator for a test: issues credentials of users and revokes them.

use anyhow::Result;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use nkeys::KeyPair;
use serde_json::{Value, json};

/// Before every time of a test: a token is revoked by when it was issued.
const ISSUED_AT: u64 = 1_700_000_000;

/// Keys of an operator, of the account of the servers and of one of ours.
#[derive(Debug)]
pub struct Operator {
    operator: KeyPair,
    system: KeyPair,
    account: KeyPair,
}

/// A user of our account.
#[derive(Clone, Debug)]
pub struct User {
    /// Its public key.
    pub key: String,
    /// Its file of credentials.
    pub credentials: String,
    /// What must be in no log: the seed of its key.
    pub seed: String,
}

impl Default for Operator {
    fn default() -> Self {
        Self {
            operator: KeyPair::new_operator(),
            system: KeyPair::new_account(),
            account: KeyPair::new_account(),
        }
    }
}

impl Operator {
    /// What a server is told in which these users are revoked.
    ///
    /// # Errors
    ///
    /// Nothing can be signed.
    pub fn configuration(&self, revoked: &[&User]) -> Result<String> {
        let operator = self.operator.public_key();
        let (system, account) = (self.system.public_key(), self.account.public_key());
        let revocations: serde_json::Map<String, Value> =
            revoked.iter().map(|user| (user.key.clone(), json!(ISSUED_AT))).collect();
        let limits = json!({
            "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1,
            "wildcards": true, "conn": -1, "leaf": -1,
        });
        let mut ours = limits.clone();
        for name in ["mem_storage", "disk_storage", "streams", "consumer"] {
            ours[name] = json!(-1);
        }
        let of = |kind: &str, more: Value| {
            let mut claims = json!({ "type": kind, "version": 2 });
            if let (Some(claims), Value::Object(more)) = (claims.as_object_mut(), more) {
                claims.extend(more);
            }
            claims
        };
        let by = &self.operator;
        let operator_token = token(by, &operator, &of("operator", json!({})))?;
        let system_token = token(by, &system, &of("account", json!({ "limits": limits })))?;
        let more = json!({ "limits": ours, "revocations": revocations });
        let account_token = token(by, &account, &of("account", more))?;
        Ok(format!(
            "operator: \"{operator_token}\"\nsystem_account: {system}\nresolver: MEMORY\n\
             resolver_preload: {{\n  {account}: \"{account_token}\"\n  {system}: \
             \"{system_token}\"\n}}\n"
        ))
    }

    /// A new user.
    ///
    /// # Errors
    ///
    /// Nothing can be signed.
    pub fn user(&self) -> Result<User> {
        let key = KeyPair::new_user();
        let (public, seed) = (key.public_key(), key.seed()?);
        let claims = json!({
            "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1,
            "pub": {}, "sub": {},
        });
        let token = token(&self.account, &public, &claims)?;
        let credentials = format!(
            "-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n\
             -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        );
        Ok(User { key: public, credentials, seed })
    }
}

/// What one key says of another.
fn token(by: &KeyPair, of: &str, claims: &Value) -> Result<String> {
    let header = json!({ "typ": "JWT", "alg": "ed25519-nkey" });
    let body = json!({
        "jti": of, "iat": ISSUED_AT, "iss": by.public_key(), "name": of, "sub": of, "nats": claims,
    });
    let encoded = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", encoded(&header), encoded(&body));
    let signature = URL_SAFE_NO_PAD.encode(by.sign(signed.as_bytes())?);
    Ok(format!("{signed}.{signature}"))
}
