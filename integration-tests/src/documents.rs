//! The commands that the documents tell people to type.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::nats::repository;

/// Its commands stand in sentences, one thing to do after the other.
const RUNBOOK: &str = "docs/runbook.md";
/// What a command in a sentence begins with; other words in this type are names of things.
const PROGRAMS: [&str; 6] = ["curl ", "docker", "lakegauge ", "promtool ", "psql ", "tail "];

/// A command of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentedCommand {
    /// The file that it stands in, from the repository's root on.
    pub page: String,
    /// What its block says before it that a shell remembers: variables, functions, the directory.
    pub before: Vec<String>,
    /// As it is typed, in one line and without its comment.
    pub text: String,
}

impl DocumentedCommand {
    /// What a shell is told.
    pub fn script(&self) -> String {
        let lines: Vec<&str> =
            self.before.iter().map(String::as_str).chain([self.text.as_str()]).collect();
        lines.join("\n")
    }
}

/// Every command of both READMEs, of `docs/` and of the pages of the sources.
///
/// # Errors
///
/// A page can't be read.
pub fn documented_commands() -> Result<Vec<DocumentedCommand>> {
    let root = repository();
    let mut pages: Vec<PathBuf> = ["README.md", "README.pt-BR.md"].map(PathBuf::from).into();
    for folder in ["docs", "docs/sources"] {
        for entry in std::fs::read_dir(root.join(folder))? {
            let name = PathBuf::from(folder).join(entry?.file_name());
            if name.extension().is_some_and(|extension| extension == "md") {
                pages.push(name);
            }
        }
    }
    pages.sort();
    let mut commands = Vec::new();
    for page in pages {
        let text = std::fs::read_to_string(root.join(&page))
            .with_context(|| format!("{}", page.display()))?;
        let page = page.display().to_string();
        commands.extend(blocks(&page, &text));
        if page == RUNBOOK {
            commands.extend(in_sentences(&page, &text));
        }
    }
    Ok(commands)
}

/// Of the blocks that are marked as a shell's.
fn blocks(page: &str, text: &str) -> Vec<DocumentedCommand> {
    let mut commands = Vec::new();
    for block in text.split("```sh\n").skip(1) {
        let block = block.split("\n```").next().unwrap_or_default();
        let mut before = Vec::new();
        for text in joined(block) {
            if is_remembered(&text) {
                before.push(text);
            } else {
                commands.push(DocumentedCommand {
                    page: page.to_owned(),
                    before: before.clone(),
                    text,
                });
            }
        }
    }
    commands
}

/// The commands of a block: what a backslash or a pipe parts into lines is one of them.
fn joined(block: &str) -> Vec<String> {
    let mut commands: Vec<String> = Vec::new();
    let mut goes_on = false;
    for line in block.lines().map(|line| without_comment(line).trim()) {
        if line.is_empty() {
            continue;
        }
        let part = line.trim_end_matches('\\').trim_end();
        match commands.last_mut().filter(|_| goes_on || line.starts_with('|')) {
            Some(last) => {
                last.push(' ');
                last.push_str(part);
            }
            None => commands.push(part.to_owned()),
        }
        goes_on = line.ends_with('\\') || line.ends_with('|');
    }
    commands
}

/// Without what stands behind a `#` that begins a word, outside of quotes.
fn without_comment(line: &str) -> &str {
    let (mut quote, mut before) = (None, ' ');
    for (at, character) in line.char_indices() {
        match (quote, character) {
            (None, '#') if before.is_whitespace() => return &line[..at],
            (None, '\'' | '"') => quote = Some(character),
            (Some(open), _) if open == character => quote = None,
            _ => {}
        }
        before = character;
    }
    line
}

/// Whether it only tells the shell something for what comes next.
fn is_remembered(command: &str) -> bool {
    let word = command.split(|c: char| !c.is_ascii_lowercase() && c != '_').next().unwrap_or("");
    let behind = &command[word.len()..];
    let is_definition = !word.is_empty() && (behind.starts_with('=') || behind.starts_with("() {"));
    command.starts_with("export ") || command.starts_with("cd ") || is_definition
}

/// Of the sentences: what stands in backticks and begins with a program.
fn in_sentences(page: &str, text: &str) -> Vec<DocumentedCommand> {
    let blocks_left_out = text.split("```").step_by(2);
    let quoted = blocks_left_out.flat_map(|part| part.split('`').skip(1).step_by(2));
    let one_line = quoted.map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "));
    one_line
        .filter(|text| PROGRAMS.iter().any(|program| text.starts_with(program)))
        .map(|text| DocumentedCommand { page: page.to_owned(), before: Vec::new(), text })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_gives_whole_commands_with_what_the_shell_remembers() {
        let page = "words `curl x`\n```sh\nexport A=1   # once\nrest() { curl \"$1\"; }\n\
                    echo 'a # b' |\n  cat  # c\nrest x \\\n  | jq .\nB=2 env\n```\n```ini\nx = 1\n```\n";
        let commands = blocks("p", page);
        let texts: Vec<&str> = commands.iter().map(|command| command.text.as_str()).collect();
        assert_eq!(texts, ["echo 'a # b' | cat", "rest x | jq .", "B=2 env"]);
        assert_eq!(commands[1].script(), "export A=1\nrest() { curl \"$1\"; }\nrest x | jq .");
    }

    #[test]
    fn a_sentence_gives_what_begins_with_a_program_in_one_line() {
        let page = "Ask `curl -s\n   localhost`, see `lakegauge` and `up`; `lakegauge doctor`.\n\
                    ```sh\nlakegauge top\n```\n";
        let commands = in_sentences("p", page);
        let texts: Vec<&str> = commands.iter().map(|command| command.text.as_str()).collect();
        assert_eq!(texts, ["curl -s localhost", "lakegauge doctor"]);
    }
}
