//! Addresses that may contain a login, as `postgres://user:password@host:port/database`.
//!
//! A password may contain the characters that separate the parts of an address. A careless parser
//! would then take pieces of the password for the host, the port or the database, and print them.
//! So an address that could be read in two ways is refused, and errors repeat no part of it.

use std::fmt;

use percent_encoding::percent_decode_str;

/// The longest port in digits: 65535.
const PORT_DIGITS_MAX: usize = 5;

/// An address, split into its parts. Contains a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    /// The part before `://`, in lower case; empty if there is none.
    pub scheme: String,
    /// The user, decoded.
    pub user: Option<String>,
    /// The password, decoded.
    pub password: Option<String>,
    /// The host as it is written, an IPv6 address without its brackets. May be empty.
    pub host: String,
    /// The port, if one is written.
    pub port: Option<u16>,
    /// From the slash after the host to the question mark, as it is written.
    pub path: String,
    /// The part after the question mark, as it is written.
    pub query: String,
}

/// Without the login.
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Address").field("place", &self.place()).finish_non_exhaustive()
    }
}

/// Why a text is not an address. Repeats no part of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressProblem {
    /// It contains line ends or other control characters.
    #[error("contains invisible characters, such as a line end")]
    Control,
    /// It could be read in two ways.
    #[error(
        "contains / ? # or @ in the wrong place: percent-encode the password (/ is %2F, ? is %3F, \
         # is %23, @ is %40)"
    )]
    Ambiguous,
    /// A percent sign without two hexadecimal digits, or bytes that are not UTF-8.
    #[error(
        "has a % that is not followed by two hexadecimal digits of UTF-8: percent-encode the \
             password (% is %25)"
    )]
    Escape,
    /// The part after the host's colon is not a port.
    #[error(
        "has a port that is not a number from 1 to 65535: if that is part of the password, \
         percent-encode the password (: is %3A, / is %2F, ? is %3F, # is %23, @ is %40)"
    )]
    Port,
    /// Brackets around something that is not an IPv6 address.
    #[error("has brackets around something that is not an IPv6 address, unlike [::1]")]
    Brackets,
    /// The host contains characters that are not allowed in a host.
    #[error(
        "has a host with characters that are not allowed: if they are part of the password, \
         percent-encode the password"
    )]
    Host,
    /// A login without a user.
    #[error("has no user before the @")]
    NoUser,
}

impl Address {
    /// Splits an address into its parts. Spaces around it are ignored.
    ///
    /// # Errors
    ///
    /// The text can't be read, or could be read in two ways.
    pub fn parse(text: &str) -> Result<Self, AddressProblem> {
        let text = text.trim();
        if text.chars().any(char::is_control) {
            return Err(AddressProblem::Control);
        }
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) if is_scheme(scheme) => (scheme.to_ascii_lowercase(), rest),
            Some(_) | None => (String::new(), text),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, behind) = rest.split_at(end);
        // The host of a login follows the last @. A later one means that the login contains a
        // character that ended it too early.
        if behind.contains(['@', '#']) {
            return Err(AddressProblem::Ambiguous);
        }
        let (login, place) = match authority.rsplit_once('@') {
            Some((login, place)) => (Some(login), place),
            None => (None, authority),
        };
        let (user, password) = login.map_or(Ok((None, None)), login_parts)?;
        let (host, port) = place_parts(place)?;
        let (path, query) = behind.split_once('?').unwrap_or((behind, ""));
        Ok(Self {
            scheme,
            user,
            password,
            host,
            port,
            path: path.to_owned(),
            query: query.to_owned(),
        })
    }

    /// Host and port as they are written, an IPv6 address in brackets, without the login.
    pub fn place(&self) -> String {
        place(&self.host, self.port)
    }
}

/// Host and port as people write them, an IPv6 address in brackets.
pub fn place(host: &str, port: Option<u16>) -> String {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    port.map_or_else(|| host.clone(), |port| format!("{host}:{port}"))
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

type Login = (Option<String>, Option<String>);

fn login_parts(login: &str) -> Result<Login, AddressProblem> {
    let (user, password) = match login.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (login, None),
    };
    let (user, password) = (decoded(user)?, password.map(decoded).transpose()?);
    if user.is_empty() { Err(AddressProblem::NoUser) } else { Ok((Some(user), password)) }
}

fn place_parts(place: &str) -> Result<(String, Option<u16>), AddressProblem> {
    let (host, port) = if let Some(rest) = place.strip_prefix('[') {
        let (host, behind) = rest.split_once(']').ok_or(AddressProblem::Brackets)?;
        if host.parse::<std::net::Ipv6Addr>().is_err() {
            return Err(AddressProblem::Brackets);
        }
        match behind.strip_prefix(':') {
            Some(port) => (host, port),
            None if behind.is_empty() => (host, ""),
            None => return Err(AddressProblem::Port),
        }
    } else {
        place.split_once(':').unwrap_or((place, ""))
    };
    let is_host = |c: char| {
        // The folder of a socket is written with %2F; a colon is allowed in brackets only.
        c.is_alphanumeric() || matches!(c, '-' | '.' | '_' | '%' | '~' | ':')
    };
    if !host.chars().all(is_host) {
        return Err(AddressProblem::Host);
    }
    if port.is_empty() {
        return Ok((host.to_owned(), None));
    }
    let is_number = port.len() <= PORT_DIGITS_MAX && port.bytes().all(|b| b.is_ascii_digit());
    let port = port.parse::<u16>().ok().filter(|port| is_number && *port > 0);
    Ok((host.to_owned(), Some(port.ok_or(AddressProblem::Port)?)))
}

/// Decodes a part of an address, where `%40` stands for `@`.
fn decoded(text: &str) -> Result<String, AddressProblem> {
    // The decoder accepts a percent sign that begins no escape.
    let is_escape = |rest: &str| {
        let digits = rest.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    if !text.split('%').skip(1).all(is_escape) {
        return Err(AddressProblem::Escape);
    }
    let text = percent_decode_str(text).decode_utf8().map_err(|_| AddressProblem::Escape)?;
    // For servers, a NUL ends a name.
    if text.contains('\0') { Err(AddressProblem::Control) } else { Ok(text.into_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Address {
        Address::parse(text).unwrap_or_else(|problem| panic!("{text}: {problem}"))
    }

    #[test]
    fn an_address_is_taken_apart() {
        let address = parsed("Postgres://me:p%40s%2Fs%3a@h.example:5433/d?sslmode=require");
        assert_eq!(address.scheme, "postgres");
        assert_eq!(address.user.as_deref(), Some("me"));
        assert_eq!(address.password.as_deref(), Some("p@s/s:"));
        assert_eq!((address.host.as_str(), address.port), ("h.example", Some(5433)));
        assert_eq!((address.path.as_str(), address.query.as_str()), ("/d", "sslmode=require"));
        let bare = parsed(" localhost:4222 ");
        assert_eq!((bare.scheme.as_str(), bare.place().as_str()), ("", "localhost:4222"));
        assert_eq!(parsed("postgres:///d?host=/run").host, "");
        assert_eq!(parsed("postgres://%2Frun/d").host, "%2Frun");
        let token = parsed("nats://t0ken@h");
        assert_eq!((token.user.as_deref(), token.password), (Some("t0ken"), None));
        assert_eq!(parsed("h://u:@h").password.as_deref(), Some(""));
    }

    #[test]
    fn brackets_hold_an_ipv6_address() {
        for (text, place) in [
            ("nats://[::1]:4222", "[::1]:4222"),
            ("postgres://u:p@[fd00::2]/d", "[fd00::2]"),
            ("postgres://u:p@[::ffff:127.0.0.1]:1/d", "[::ffff:127.0.0.1]:1"),
        ] {
            assert_eq!(parsed(text).place(), place);
        }
        for text in ["h://[::1", "h://[]", "h://[localhost]:1", "h://u@[1]", "h://[::1%25eth0]"] {
            assert_eq!(Address::parse(text).err(), Some(AddressProblem::Brackets), "{text}");
        }
        assert_eq!(Address::parse("h://[::1]5432").err(), Some(AddressProblem::Port));
        assert_eq!(Address::parse("h://::1:5432").err(), Some(AddressProblem::Port));
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for (text, problem) in [
            ("h://u:12/34@h/d", AddressProblem::Ambiguous),
            ("h://u:12?34@h/d", AddressProblem::Ambiguous),
            ("h://u:12#34@h/d", AddressProblem::Ambiguous),
            ("h://u:12#34", AddressProblem::Ambiguous),
            ("h://u:p@12/34@h/d", AddressProblem::Ambiguous),
            ("h://u:a/b", AddressProblem::Port),
            ("h://u:123456", AddressProblem::Port),
            ("h://u:+1", AddressProblem::Port),
            ("h://u:0", AddressProblem::Port),
            ("h://u:1:2", AddressProblem::Port),
            ("h://u:50%@h", AddressProblem::Escape),
            ("h://u:%f@h", AddressProblem::Escape),
            ("h://u:%ff@h", AddressProblem::Escape),
            ("h://u:é%é@h", AddressProblem::Escape),
            ("h://:p@h", AddressProblem::NoUser),
            ("h://@h", AddressProblem::NoUser),
            ("h://u:p@a b", AddressProblem::Host),
            ("h://u:p@a]b", AddressProblem::Host),
            ("h://u:p\n@h", AddressProblem::Control),
            ("h://u%00:p@h", AddressProblem::Control),
        ] {
            assert_eq!(Address::parse(text).err(), Some(problem), "{text}");
        }
    }

    #[test]
    fn an_at_sign_before_the_last_one_belongs_to_the_password() {
        assert_eq!(parsed("h://u:p@s:s@h").password.as_deref(), Some("p@s:s"));
    }
}
