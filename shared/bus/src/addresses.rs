//! Reads `NATS_URL`: servers, and a login if the address contains one.

use async_nats::ServerAddr;
use service_kit::Address;

/// Schemes of addresses. An address without a scheme gets the first.
const SCHEMES: [&str; 2] = ["nats", "tls"];

/// The contents of `NATS_URL`.
#[derive(Debug)]
pub(crate) struct BrokerAddresses {
    /// Addresses without a login, so that nobody can print one.
    pub(crate) servers: Vec<ServerAddr>,
    /// The same addresses, as people see them.
    pub(crate) shown: String,
    /// The login for all servers.
    pub(crate) login: Option<AddressLogin>,
}

/// A login in an address: a user with a password, or a token, which has no password. Secret.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct AddressLogin {
    pub(crate) user: String,
    pub(crate) password: Option<String>,
}

impl std::fmt::Debug for AddressLogin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AddressLogin")
    }
}

/// Reads addresses, separated by commas. Errors repeat no part of the addresses.
pub(crate) fn read(url: &str) -> Result<BrokerAddresses, String> {
    let addresses: Vec<Address> = url
        .split(',')
        .map(|address| Address::parse(address).map_err(|problem| problem.to_string()))
        .collect::<Result<_, _>>()?;
    let mut servers = Vec::new();
    let mut shown = Vec::new();
    let mut login = None;
    for (place, address) in addresses.into_iter().enumerate() {
        let scheme = match address.scheme.as_str() {
            "" => SCHEMES[0],
            scheme if SCHEMES.contains(&scheme) => scheme,
            _ => return Err("must begin with nats:// or tls://".to_owned()),
        };
        if address.host.is_empty() || !address.path.trim_matches('/').is_empty() {
            return Err("is not an address like nats://host:4222".to_owned());
        }
        if !address.query.is_empty() {
            return Err("has parameters after a question mark, which no setting uses".to_owned());
        }
        let plain = format!("{scheme}://{}", address.place());
        // The client's own error message may repeat what it can't read.
        let server = plain.parse::<ServerAddr>();
        servers.push(server.map_err(|_| "has a host that can't be read".to_owned())?);
        shown.push(if address.scheme.is_empty() { address.place() } else { plain });
        let own = address.user.map(|user| AddressLogin { user, password: address.password });
        if place == 0 {
            login = own;
        } else if own.is_some() && own != login {
            // A comma in the password would split the address, and part of the password would
            // become a host.
            return Err(
                "has a login in an address that is not the first: one login serves all, and a \
                 comma in a password is written as %2C"
                    .to_owned(),
            );
        }
    }
    Ok(BrokerAddresses { servers, shown: shown.join(","), login })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(user: &str, password: Option<&str>) -> Option<AddressLogin> {
        Some(AddressLogin { user: user.to_owned(), password: password.map(str::to_owned) })
    }

    #[test]
    fn one_login_serves_all_addresses_and_stands_in_none_of_them() {
        for (url, shown, expected) in [
            ("nats://a:4222, b , tls://c:1", "nats://a:4222,b,tls://c:1", None),
            ("nats://me:p%40s%2Fs@a,nats://b", "nats://a,nats://b", login("me", Some("p@s/s"))),
            ("t%2Coken@[::1]:4222", "[::1]:4222", login("t,oken", None)),
            ("nats://u:p@a,nats://u:p@b", "nats://a,nats://b", login("u", Some("p"))),
        ] {
            let read = read(url).unwrap();
            assert_eq!((read.shown.as_str(), &read.login), (shown, &expected), "{url}");
            assert!(read.servers.iter().all(|server| !server.has_user_pass()), "{url}");
            assert_eq!(read.servers.len(), url.split(',').count(), "{url}");
        }
        assert_eq!(read("nats://[::1]:4222").unwrap().servers[0].host(), "::1");
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for url in [
            "nats://u:1,2:x@h",
            "nats://u:p@x,y@h",
            "nats://u:12/3@h",
            "nats://h/path",
            "nats://h?tls=1",
            "nats://",
            "a,,b",
            "http://h",
            "ws://h",
        ] {
            assert!(read(url).is_err(), "{url}");
        }
    }

    /// Whether this is a list of addresses that repeats the login of the first: a password that
    /// happens to contain such a list can't be told from one.
    fn repeats_its_login(url: &str) -> bool {
        let login_of = |address: &str| {
            let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
            rest.rsplit_once('@').map(|(login, _)| login.to_owned())
        };
        let logins: Vec<Option<String>> = url.split(',').map(login_of).collect();
        let (first, rest) = logins.split_first().unwrap();
        let is_one = rest.iter().all(|login| login.is_none() || login == first);
        first.is_some() && is_one && rest.contains(first)
    }

    proptest::proptest! {
        /// The parts between separators are known, so that the test can search for each of them.
        #[test]
        fn no_piece_of_an_unencoded_password_is_shown(
            first in proptest::sample::select(vec!["s3cr3t", "31337", "", "s3cr%74"]),
            rest in proptest::collection::vec(
                (
                    proptest::sample::select(vec![
                        "/", "#", "@", "?", "%", ":", ",", "[", "]", "//", "://", "&", "=", "\\",
                        " ", "\t", "\n", "@[", "]:", ",nats://", ",u:", ";", "|", "é",
                    ]),
                    proptest::sample::select(vec!["s3cr3t", "31337", "u@31337", "%ff", ""]),
                ),
                0..5,
            ),
            behind in proptest::sample::select(vec!["", ":4222", ",nats://b", "/"]),
        ) {
            let mut password = first.to_owned();
            for (mark, piece) in rest {
                password.push_str(mark);
                password.push_str(piece);
            }
            for url in [
                format!("nats://me:{password}@a{behind}"),
                format!("me:{password}@a{behind}"),
                format!("tls://{password}@a{behind}"),
            ] {
                if repeats_its_login(&url) {
                    continue;
                }
                let shown = match read(&url) {
                    Ok(addresses) => format!("{addresses:?} {}", addresses.shown),
                    Err(why) => why,
                };
                proptest::prop_assert!(
                    !shown.contains("s3cr") && !shown.contains("31337"),
                    "{} shows {}", url, shown
                );
            }
        }
    }
}
