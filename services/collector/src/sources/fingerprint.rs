//! Fingerprints of statements. Literals are left out, so that the same query with other values has
//! the same fingerprint, and no value of a user is stored.

/// Maximum number of bytes of a statement that are read. Generated statements may have megabytes.
const BYTES_MAX: usize = 64 << 10;

/// The fingerprint of a statement: 16 hexadecimal digits of a hash of its words. The words are in
/// lower case, comments are left out, and `?` replaces every literal and every list of literals. An
/// empty text has an empty fingerprint.
///
/// This is not a parser. Syntax of a single dialect (dollar quotes, national strings) is read word
/// by word. In the worst case the same query with two values has two fingerprints.
pub fn fingerprint(statement: &str) -> String {
    let shape = shape(statement);
    if shape.is_empty() {
        return shape;
    }
    let hash = blake3::hash(shape.as_bytes()).to_hex();
    hash.chars().take(16).collect()
}

/// The words of a statement, separated by single spaces.
fn shape(statement: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut rest = beginning(statement);
    while let Some((token, after)) = next(rest) {
        rest = after;
        match token {
            Token::Nothing => {}
            Token::Literal => literal(&mut words),
            Token::Word(word) => words.push(word),
        }
    }
    words.join(" ")
}

/// Adds a literal. A literal after another literal and a comma belongs to the same list; a list
/// becomes a single `?`, whatever its length.
fn literal(words: &mut Vec<String>) {
    if let [.., before, comma] = &words[..]
        && (before.as_str(), comma.as_str()) == ("?", ",")
    {
        words.pop();
    } else {
        words.push("?".to_owned());
    }
}

enum Token {
    /// White space or a comment.
    Nothing,
    Literal,
    Word(String),
}

fn beginning(statement: &str) -> &str {
    let mut end = statement.len().min(BYTES_MAX);
    while !statement.is_char_boundary(end) {
        end -= 1;
    }
    statement.get(..end).unwrap_or_default()
}

/// The next token and the text after it.
fn next(rest: &str) -> Option<(Token, &str)> {
    let first = rest.chars().next()?;
    if let Some(comment) = rest.strip_prefix("--") {
        return Some((Token::Nothing, behind(comment, "\n")));
    }
    if let Some(comment) = rest.strip_prefix("/*") {
        return Some((Token::Nothing, behind(comment, "*/")));
    }
    let (token, length) = match first {
        '\'' => (Token::Literal, quoted(rest, '\'')),
        // A quoted name stays as it is, because its case matters.
        '"' | '`' => {
            let length = quoted(rest, first);
            (Token::Word(rest.get(..length)?.to_owned()), length)
        }
        first if first.is_whitespace() => (Token::Nothing, first.len_utf8()),
        first if first.is_ascii_digit() => (Token::Literal, number(rest)),
        first if is_of_word(first) => {
            let length = rest.find(|c| !is_of_word(c)).unwrap_or(rest.len());
            (Token::Word(rest.get(..length)?.to_lowercase()), length)
        }
        other => (Token::Word(other.to_string()), other.len_utf8()),
    };
    Some((token, rest.get(length..).unwrap_or_default()))
}

fn is_of_word(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | '$' | '@' | '#')
}

/// Length of a number in bytes: digits, a fraction, an exponent, hexadecimal digits.
fn number(rest: &str) -> usize {
    let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '.' || c == '_'));
    let end = end.unwrap_or(rest.len());
    let is_exponent = rest.get(..end).is_some_and(|number| number.ends_with(['e', 'E']));
    match rest.get(end..).and_then(|after| after.strip_prefix(['+', '-'])) {
        Some(digits) if is_exponent => {
            let more = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
            end + 1 + more
        }
        Some(_) | None => end,
    }
}

/// Length of a quoted text in bytes, with its quotes. A doubled quote belongs to the text.
fn quoted(rest: &str, quote: char) -> usize {
    let mut characters = rest.char_indices().skip(1).peekable();
    while let Some((at, character)) = characters.next() {
        if character == quote && characters.next_if(|(_, next)| *next == quote).is_none() {
            return at + quote.len_utf8();
        }
    }
    rest.len()
}

fn behind<'a>(rest: &'a str, end: &str) -> &'a str {
    rest.split_once(end).map_or("", |(_, after)| after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_query_with_other_values_has_the_same_fingerprint() {
        let query = "SELECT a, \"B\" FROM t WHERE x = 1 AND y IN ('a', 'b') -- by hand\n LIMIT 10";
        assert_eq!(shape(query), "select a , \"B\" from t where x = ? and y in ( ? ) limit ?");
        for same in [
            "select a,\"B\" from t\nwhere x=2.5e+10 and y in ('it''s',3,'c') limit 1",
            "/* job 7 */ SELECT a, \"B\" FROM t WHERE x = 0xff AND y IN ('') LIMIT 1_000;"
                .trim_end_matches(';'),
        ] {
            assert_eq!(fingerprint(same), fingerprint(query), "{same}");
        }
        for other in ["select a, b from t where x = 1 and y in ('a') limit 10", "select 1"] {
            assert_ne!(fingerprint(other), fingerprint(query), "{other}");
        }
        assert_eq!(fingerprint(query).len(), 16);
        assert_eq!(fingerprint(" -- nothing\n"), "");
    }

    #[test]
    fn no_value_is_left_even_in_a_statement_that_is_cut() {
        for (statement, expected) in [
            ("select 'secret", "select ?"),
            ("select t1.x2 from t1", "select t1 . x2 from t1"),
            ("values (1, 'a'), (2, 'b')", "values ( ? ) , ( ? )"),
            ("select /* open", "select"),
            ("select 'é' || \"ü", "select ? | | \"ü"),
        ] {
            assert_eq!(shape(statement), expected, "{statement}");
        }
        let long = format!("select '{}'", "é".repeat(BYTES_MAX));
        assert_eq!(shape(&long), "select ?");
    }

    #[test]
    fn it_never_changes_from_release_to_release() {
        assert_eq!(fingerprint("select 1"), fingerprint("SELECT 2"));
        assert_eq!(fingerprint("select 1"), "de051a8eecb4c4a0");
    }
}
