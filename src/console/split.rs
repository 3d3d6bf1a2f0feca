//! Text into statements and words.
//!
//! psql sends what stands in one `-c` as one text, and what is inside quotes or comments may hold a
//! semicolon. (PostgreSQL documentation, "Lexical Structure".)

/// The statements of a text, without the semicolons between them; those that hold nothing but
/// blanks and comments are left out.
pub(crate) fn statements(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let (mut begin, mut parens) = (0, 0_usize);
    let mut rest = text;
    let mut anything = false;
    while let Some(piece) = next(rest) {
        let at = text.len() - rest.len();
        match piece.kind {
            Kind::Other(';') if parens == 0 => {
                if anything {
                    found.extend(text.get(begin..at));
                }
                begin = at + 1;
                anything = false;
            }
            Kind::Blank => {}
            Kind::Other('(') => (parens, anything) = (parens + 1, true),
            Kind::Other(')') => (parens, anything) = (parens.saturating_sub(1), true),
            Kind::Other(_) | Kind::Word | Kind::Text | Kind::Quoted => anything = true,
        }
        rest = rest.get(piece.bytes..).unwrap_or_default();
    }
    if anything {
        found.extend(text.get(begin..));
    }
    found.into_iter().map(str::trim).collect()
}

/// A word of a statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Word<'a> {
    /// A name or a number, as it stands.
    Bare(&'a str),
    /// A text in single quotes or between dollars, without them.
    Text(String),
    /// A name in double quotes, without them.
    Quoted(String),
    /// Any other character.
    Sign(char),
}

impl Word<'_> {
    /// Whether it is this keyword.
    pub(crate) fn is(&self, keyword: &str) -> bool {
        matches!(self, Word::Bare(word) if word.eq_ignore_ascii_case(keyword))
    }
}

/// The words of a statement.
pub(crate) fn words(statement: &str) -> Vec<Word<'_>> {
    let mut found = Vec::new();
    let mut rest = statement;
    while let Some(piece) = next(rest) {
        let (text, after) = rest.split_at_checked(piece.bytes).unwrap_or((rest, ""));
        match piece.kind {
            Kind::Blank => {}
            Kind::Word => found.push(Word::Bare(text)),
            Kind::Text => found.push(Word::Text(unquoted(text, '\''))),
            Kind::Quoted => found.push(Word::Quoted(unquoted(text, '"'))),
            Kind::Other(sign) => found.push(Word::Sign(sign)),
        }
        rest = after;
    }
    found
}

/// Where a parameter stands in a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Its dollar.
    pub(crate) begin: usize,
    /// Behind its last digit.
    pub(crate) end: usize,
    /// From 1 on.
    pub(crate) number: usize,
}

/// The parameters of a statement, in the order in which they stand there.
pub(crate) fn places(statement: &str) -> Vec<Place> {
    let mut found = Vec::new();
    let mut rest = statement;
    while let Some(piece) = next(rest) {
        let begin = statement.len() - rest.len();
        rest = rest.get(piece.bytes..).unwrap_or_default();
        if piece.kind == Kind::Other('$')
            && let Some(digits) = next(rest).filter(|piece| piece.kind == Kind::Word)
            && let Some(number) = rest.get(..digits.bytes).and_then(|digits| digits.parse().ok())
            && number > 0
        {
            let end = begin + piece.bytes + digits.bytes;
            found.push(Place { begin, end, number });
            rest = rest.get(digits.bytes..).unwrap_or_default();
        }
    }
    found
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Blank,
    Word,
    Text,
    Quoted,
    Other(char),
}

/// A piece at the beginning of a text.
#[derive(Clone, Copy, Debug)]
struct Piece {
    kind: Kind,
    bytes: usize,
}

/// The first piece; none of an empty text. What is not closed goes to the end.
fn next(text: &str) -> Option<Piece> {
    let first = text.chars().next()?;
    let (kind, bytes) = match first {
        _ if first.is_whitespace() => (Kind::Blank, first.len_utf8()),
        _ if text.starts_with("--") => (Kind::Blank, text.find('\n').unwrap_or(text.len())),
        _ if text.starts_with("/*") => (Kind::Blank, comment(text)),
        '\'' => (Kind::Text, closed(text, '\'', false)),
        'e' | 'E' if text.get(1..).is_some_and(|rest| rest.starts_with('\'')) => {
            (Kind::Text, 1 + closed(text.get(1..).unwrap_or_default(), '\'', true))
        }
        '"' => (Kind::Quoted, closed(text, '"', false)),
        '$' => match dollar(text) {
            Some(bytes) => (Kind::Text, bytes),
            None => (Kind::Other('$'), 1),
        },
        _ if is_of_word(first) => {
            (Kind::Word, text.find(|it| !is_of_word(it)).unwrap_or(text.len()))
        }
        _ => (Kind::Other(first), first.len_utf8()),
    };
    Some(Piece { kind, bytes })
}

fn is_of_word(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | '.')
}

/// The length of a comment, which may hold others.
fn comment(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// The length of what stands in quotes, where two of them stand for one.
fn closed(text: &str, quote: char, escapes: bool) -> usize {
    let mut characters = text.char_indices().skip(1).peekable();
    while let Some((at, character)) = characters.next() {
        if character == '\\' && escapes {
            characters.next();
        } else if character == quote && characters.next_if(|(_, after)| *after == quote).is_none() {
            return at + quote.len_utf8();
        }
    }
    text.len()
}

/// The length of a text between `$tag$` and `$tag$`.
fn dollar(text: &str) -> Option<usize> {
    let end = text.get(1..)?.find('$')? + 2;
    let tag = text.get(..end)?;
    let name = tag.trim_matches('$');
    let names = |it: char| it.is_alphanumeric() || it == '_';
    if !name.chars().all(names) || name.starts_with(|it: char| it.is_ascii_digit()) {
        return None;
    }
    let rest = text.get(end..)?;
    Some(rest.find(tag).map_or(text.len(), |at| end + at + tag.len()))
}

fn unquoted(text: &str, quote: char) -> String {
    if let Some(end) = text.strip_prefix('$').and_then(|rest| rest.find('$')) {
        let inside = text.get(end + 2..).unwrap_or_default();
        let tag = text.get(..end + 2).unwrap_or_default();
        return inside.strip_suffix(tag).unwrap_or(inside).to_owned();
    }
    let text = text.trim_start_matches(['e', 'E']);
    let text = text.strip_prefix(quote).unwrap_or(text);
    let text = text.strip_suffix(quote).unwrap_or(text);
    text.replace(&format!("{quote}{quote}"), &quote.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_semicolon_ends_a_statement_unless_it_is_inside_something() {
        for (text, expected) in [
            ("", &[][..]),
            (" ; ;; -- nothing\n; /* a; /* b; */ c; */", &[]),
            ("show version", &["show version"]),
            ("show version; show lag;", &["show version", "show lag"]),
            ("kill user 'a;b'", &["kill user 'a;b'"]),
            ("a 'it''s; so'; b", &["a 'it''s; so'", "b"]),
            ("a E'\\'; x'; b", &["a E'\\'; x'", "b"]),
            ("a \"q;\"\"q\"; b", &["a \"q;\"\"q\"", "b"]),
            ("a $$x;y$$; b $t$ ; $$ ; $t$", &["a $$x;y$$", "b $t$ ; $$ ; $t$"]),
            ("a $1; b", &["a $1", "b"]),
            ("copy (a ; b) to stdout; c", &["copy (a ; b) to stdout", "c"]),
            ("a -- ; x\n; b /* ; */", &["a -- ; x", "b /* ; */"]),
            ("a 'not closed; b", &["a 'not closed; b"]),
            ("ä'ö;'; ü", &["ä'ö;'", "ü"]),
        ] {
            assert_eq!(statements(text), expected, "{text}");
        }
    }

    #[test]
    fn words_are_read_without_their_quotes() {
        let found = words("KILL /* x */ USER 'o''neil' \"Or\"\"d\" $a$b'c$a$ 12, (public.t)");
        assert_eq!(
            found,
            [
                Word::Bare("KILL"),
                Word::Bare("USER"),
                Word::Text("o'neil".into()),
                Word::Quoted("Or\"d".into()),
                Word::Text("b'c".into()),
                Word::Bare("12"),
                Word::Sign(','),
                Word::Sign('('),
                Word::Bare("public.t"),
                Word::Sign(')'),
            ]
        );
        assert!(found[0].is("kill") && !found[2].is("o'neil"));
    }
}
