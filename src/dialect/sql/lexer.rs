//! A statement's words, with where they stand.
//!
//! Only as much of SQL's scanner as tells words, quoted names, strings, numbers and single
//! characters apart, comments left out: what stands behind WHERE is cut out as it is and read by
//! `rule`, which reads it once more and strictly.

use crate::dialect::sql::error::StatementError;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A name or a keyword; its value is in lower case.
    Word,
    /// A name in double quotes.
    Quoted,
    /// A string, `'…'` or `$$…$$`.
    Text,
    /// `E'…'` and its like, which mean more than they show.
    Escaped,
    /// Digits, perhaps with a point.
    Number,
    /// Any other character.
    Symbol,
    /// Behind the last one.
    End,
}

/// One token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    /// What it means: a name or a string without its quotes.
    pub(super) value: String,
    /// The first byte of it in the statement.
    pub(super) begin: usize,
    /// The byte after it.
    pub(super) end: usize,
}

/// Takes a statement apart. The last token is [`Kind::End`].
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, StatementError> {
    let mut tokens = Vec::new();
    let mut at = 0;
    loop {
        at = skip_blanks(text, at)?;
        let rest = rest(text, at);
        let Some(first) = rest.chars().next() else {
            tokens.push(Token { kind: Kind::End, value: String::new(), begin: at, end: at });
            return Ok(tokens);
        };
        let (kind, value, length) = token(text, at, first)?;
        tokens.push(Token { kind, value, begin: at, end: at + length });
        at += length;
    }
}

fn rest(text: &str, at: usize) -> &str {
    text.get(at..).unwrap_or_default()
}

fn token(text: &str, at: usize, first: char) -> Result<(Kind, String, usize), StatementError> {
    let rest = rest(text, at);
    let unended = |what: &str| {
        StatementError::at(text, at, format!("the {what} that begins here has no end"))
    };
    match first {
        '\'' => {
            let (value, length) = quoted(rest, '\'').ok_or_else(|| unended("string"))?;
            Ok((Kind::Text, value, length))
        }
        '"' => {
            let (value, length) = quoted(rest, '"').ok_or_else(|| unended("name"))?;
            Ok((Kind::Quoted, value, length))
        }
        '$' if dollar_tag(rest).is_some() => {
            let tag = dollar_tag(rest).unwrap_or_default();
            let inner = rest.get(tag.len()..).unwrap_or_default();
            let end = inner.find(tag).ok_or_else(|| unended("string"))?;
            let value = inner.get(..end).unwrap_or_default().to_owned();
            Ok((Kind::Text, value, end + 2 * tag.len()))
        }
        _ if first.is_alphabetic() || first == '_' => {
            let length = length_of(rest, |it| it.is_alphanumeric() || matches!(it, '_' | '$'));
            let word = rest.get(..length).unwrap_or_default();
            let behind = rest.get(length..).unwrap_or_default();
            if behind.starts_with('\'') && matches!(word, "e" | "E" | "b" | "B" | "x" | "X") {
                let string = escaped(behind).ok_or_else(|| unended("string"))?;
                return Ok((Kind::Escaped, String::new(), length + string));
            }
            Ok((Kind::Word, word.to_lowercase(), length))
        }
        '0'..='9' => {
            let length = length_of(rest, |it| it.is_ascii_alphanumeric() || it == '.');
            Ok((Kind::Number, rest.get(..length).unwrap_or_default().to_owned(), length))
        }
        _ => Ok((Kind::Symbol, first.to_string(), first.len_utf8())),
    }
}

fn length_of(text: &str, belongs: impl Fn(char) -> bool) -> usize {
    text.find(|character| !belongs(character)).unwrap_or(text.len())
}

/// What stands between quotes, a doubled quote being one; and how long it is with them.
fn quoted(text: &str, quote: char) -> Option<(String, usize)> {
    let mut value = String::new();
    let mut characters = text.char_indices().skip(1).peekable();
    while let Some((at, character)) = characters.next() {
        if character != quote {
            value.push(character);
        } else if characters.next_if(|(_, next)| *next == quote).is_some() {
            value.push(quote);
        } else {
            return Some((value, at + 1));
        }
    }
    None
}

/// How long a string is in which a backslash takes the next character's meaning away.
fn escaped(text: &str) -> Option<usize> {
    let mut characters = text.char_indices().skip(1).peekable();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => drop(characters.next()),
            '\'' if characters.next_if(|(_, next)| *next == '\'').is_none() => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// `$$` or `$tag$` where the text begins with one.
fn dollar_tag(text: &str) -> Option<&str> {
    let inner = text.strip_prefix('$')?;
    let length = length_of(inner, |it| it.is_alphanumeric() || it == '_');
    let is_tag = inner.get(length..)?.starts_with('$') && !inner.starts_with(char::is_numeric);
    text.get(..length + 2).filter(|_| is_tag)
}

/// The first byte from `at` on that is neither a blank nor in a comment.
fn skip_blanks(text: &str, mut at: usize) -> Result<usize, StatementError> {
    loop {
        let begin = at;
        let blanks = length_of(rest(text, at), char::is_whitespace);
        at += blanks;
        let here = rest(text, at);
        if here.starts_with("--") {
            at += here.find('\n').unwrap_or(here.len());
        } else if here.starts_with("/*") {
            let end = here.find("*/").ok_or_else(|| {
                StatementError::at(text, at, "the comment that begins here has no end")
            })?;
            at += end + 2;
        }
        if at == begin {
            return Ok(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> String {
        match tokens(text) {
            Ok(tokens) => {
                let shown = tokens.iter().map(|token| format!("{:?} {}", token.kind, token.value));
                shown.collect::<Vec<_>>().join("|")
            }
            Err(error) => format!("{}: {error}", error.position),
        }
    }

    #[test]
    fn words_names_strings_and_numbers_are_told_apart() {
        assert_eq!(
            check("Subscribe TO \"Or\"\"ders\" -- all\n 'it''s' 1.5 /* x */ $$a'b$$ $t$c$$d$t$ ;"),
            "Word subscribe|Word to|Quoted Or\"ders|Text it's|Number 1.5|Text a'b|Text c$$d|\
             Symbol ;|End "
        );
        assert_eq!(check(r"e'a\'b' x"), "Escaped |Word x|End ");
        assert_eq!(check("a>=$1"), "Word a|Symbol >|Symbol =|Symbol $|Number 1|End ");
    }

    #[test]
    fn what_has_no_end_is_pointed_at() {
        assert_eq!(check("ä 'x"), "3: the string that begins here has no end");
        assert_eq!(check("a \"x"), "3: the name that begins here has no end");
        assert_eq!(check("a /* x"), "3: the comment that begins here has no end");
        assert_eq!(check("$a$ x"), "1: the string that begins here has no end");
    }
}
