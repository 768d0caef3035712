//! The message about a word that is not in a list: the list, and the word that is nearest.

/// How many characters of a wrong value are repeated in a refusal and compared with a list.
const QUOTE_CHARS_MAX: usize = 64;

/// The beginning of a value, in quotes.
pub(super) fn quote(text: &str) -> String {
    let beginning: String = text.chars().take(QUOTE_CHARS_MAX).collect();
    let more = if beginning.len() < text.len() { "…" } else { "" };
    format!("{beginning:?}{more}")
}

/// A message that a word is not in a list, and which word of the list was perhaps meant.
pub(super) fn none_of(word: &str, list: &[&str]) -> String {
    let mut said = format!("{} is none of {}", quote(word), list.join(", "));
    if let Some(nearest) = nearest(word, list) {
        said.push_str(&format!("; the nearest is {nearest}"));
    }
    said
}

/// The word of the list that is reached with the fewest typing errors. `None` if more than half of
/// the letters would be errors: then another word was meant.
fn nearest<'a>(word: &str, list: &[&'a str]) -> Option<&'a str> {
    let word: Vec<char> = word.trim().to_lowercase().chars().take(QUOTE_CHARS_MAX).collect();
    let mistakes = |name: &&&str| {
        let name: Vec<char> = name.chars().collect();
        let mistakes = mistakes(&word, &name);
        (2 * mistakes <= word.len().max(name.len())).then_some(mistakes)
    };
    let near = list.iter().filter_map(|name| Some((mistakes(&name)?, *name)));
    near.min_by_key(|(mistakes, _)| *mistakes).map(|(_, name)| name)
}

/// How many letters must be added, removed, replaced or swapped with their neighbour to turn one
/// word into the other.
fn mistakes(one: &[char], other: &[char]) -> usize {
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=other.len()).collect();
    for (row, letter) in one.iter().enumerate() {
        let mut next = vec![row + 1];
        for (column, wanted) in other.iter().enumerate() {
            let replaced = last[column] + usize::from(letter != wanted);
            let mut fewest = replaced.min(last[column + 1] + 1).min(next[column] + 1);
            if row > 0 && column > 0 && one[row - 1] == *wanted && other[column - 1] == *letter {
                fewest = fewest.min(before_last[column - 1] + 1);
            }
            next.push(fewest);
        }
        before_last = std::mem::replace(&mut last, next);
    }
    last[other.len()]
}

#[cfg(test)]
mod tests {
    use domain::{Operation, Outcome, Statement};

    use super::*;

    #[test]
    fn the_nearest_word_is_the_one_that_was_mistyped() {
        for (word, list, meant) in [
            ("wirte", Operation::NAMES, Some("write")),
            ("DELETE", Operation::NAMES, Some("delete")),
            (" read\n", Operation::NAMES, Some("read")),
            ("listing", Operation::NAMES, Some("list")),
            ("timed_out", Outcome::NAMES, Some("timeout")),
            ("canceled", Outcome::NAMES, Some("cancelled")),
            ("not-found", Outcome::NAMES, Some("not_found")),
            ("create table as", Statement::NAMES, Some("create_table_as")),
            ("explain", Statement::NAMES, None),
            ("", Outcome::NAMES, None),
        ] {
            assert_eq!(nearest(word, list), meant, "{word:?}");
        }
    }

    #[test]
    fn mistakes_are_letters_added_removed_replaced_or_swapped() {
        for (one, other, count) in [
            ("", "", 0),
            ("ab", "", 2),
            ("", "abc", 3),
            ("abc", "abc", 0),
            ("abc", "axc", 1),
            ("abc", "bc", 1),
            ("abc", "acb", 1),
            ("abcd", "badc", 2),
            ("abc", "cab", 2),
            ("aab", "aba", 1),
        ] {
            let letters = |word: &str| word.chars().collect::<Vec<_>>();
            assert_eq!(mistakes(&letters(one), &letters(other)), count, "{one} {other}");
            assert_eq!(mistakes(&letters(other), &letters(one)), count, "{other} {one}");
        }
    }

    #[test]
    fn a_wrong_word_is_refused_with_the_list_and_the_nearest_in_it() {
        assert_eq!(
            none_of("wirte", Operation::NAMES),
            "\"wirte\" is none of read, head, list, write, copy, delete, other; the nearest is write"
        );
        assert_eq!(none_of("x", &["a", "b"]), "\"x\" is none of a, b");
    }

    #[test]
    fn only_the_beginning_of_a_long_value_is_quoted_and_that_is_shown() {
        let whole = "é".repeat(QUOTE_CHARS_MAX);
        assert_eq!(quote(&whole), format!("\"{whole}\""));
        assert_eq!(quote(&format!("{whole}.")), format!("\"{whole}\"…"));
    }
}
