//! The body of a function of the database in SQL: a text in, the expression that it returns out. And
//! what texts of both languages are taken apart with.

use crate::rule::error::RuleError;
use crate::rule::expression::Node;
use crate::rule::parse::parse_body;

pub(super) fn refused(reason: &str) -> RuleError {
    RuleError::unsupported("its body", reason, "")
}

/// Reads a body in SQL: one SELECT.
pub(super) fn sql(body: &str) -> Result<Node, RuleError> {
    parse_body(&without_comments(body)?)
}

/// Reads a body that is stored, as the server prints it.
pub(super) fn stored(text: &str) -> Result<Node, RuleError> {
    if let Some(returned) = after_word(text, "return") {
        return parse_body(&format!("SELECT ({returned})"));
    }
    let several = || refused("of BEGIN ATOMIC, only one SELECT is looked into");
    let rest = after_word(text, "begin").ok_or_else(several)?;
    match statements(after_word(rest, "atomic").ok_or_else(several)?).as_slice() {
        [select, end] if end.eq_ignore_ascii_case("end") => parse_body(select),
        _ => Err(several()),
    }
}

/// How many parentheses are open before a place.
pub(super) fn depth_at(text: &str, at: usize) -> i32 {
    let mut depth = 0;
    outside_of_quotes(text, &mut |place, character| {
        if place < at {
            depth += i32::from(character == '(') - i32::from(character == ')');
        }
    });
    depth
}

/// The words outside of quotes, with their places.
pub(super) fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut words: Vec<(usize, usize)> = Vec::new();
    outside_of_quotes(text, &mut |at, character| {
        let end = at + character.len_utf8();
        if character.is_alphanumeric() || character == '_' {
            match words.last_mut() {
                Some((_, last)) if *last == at => *last = end,
                _ => words.push((at, end)),
            }
        }
    });
    words.into_iter().filter_map(|(from, to)| Some((from, text.get(from..to)?)))
}

pub(super) fn has_word(text: &str, word: &str) -> bool {
    words(text).any(|(_, found)| found.eq_ignore_ascii_case(word))
}

pub(super) fn after_word<'t>(text: &'t str, word: &str) -> Option<&'t str> {
    let text = text.trim();
    let (at, found) = words(text).next()?;
    let is_it = at == 0 && found.eq_ignore_ascii_case(word);
    is_it.then(|| text.get(found.len()..).unwrap_or_default().trim_start())
}

/// What stands between semicolons.
pub(super) fn statements(text: &str) -> Vec<&str> {
    let mut ends = Vec::new();
    outside_of_quotes(text, &mut |at, character| {
        if character == ';' {
            ends.push(at);
        }
    });
    let mut from = 0;
    let mut statements = Vec::new();
    for end in ends.into_iter().chain([text.len()]) {
        statements.push(text.get(from..end).unwrap_or_default().trim());
        from = end + 1;
    }
    statements.retain(|statement| !statement.is_empty());
    statements
}

/// Calls `each` with every character that stands in no quotes.
pub(super) fn outside_of_quotes(text: &str, each: &mut dyn FnMut(usize, char)) {
    let mut quote = None;
    for (at, character) in text.char_indices() {
        match quote {
            Some(open) if open == character => quote = None,
            Some(_) => {}
            None if matches!(character, '\'' | '"') => quote = Some(character),
            None => each(at, character),
        }
    }
}

/// The text with a blank for every comment. Quotes with a backslash or a dollar are not read.
pub(super) fn without_comments(text: &str) -> Result<String, RuleError> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut quote = None;
    while let Some(character) = rest.chars().next() {
        let behind = rest.get(character.len_utf8()..).unwrap_or_default();
        match quote {
            Some(open) if character == open => quote = None,
            None if rest.starts_with("--") => {
                rest = rest.find('\n').and_then(|end| rest.get(end..)).unwrap_or_default();
                out.push(' ');
                continue;
            }
            None if rest.starts_with("/*") => {
                let end = rest.find("*/").ok_or_else(|| refused("a comment has no end"))?;
                let comment = rest.get(2..end).unwrap_or_default();
                if comment.contains("/*") {
                    return Err(refused("a comment stands in another"));
                }
                rest = rest.get(end + 2..).unwrap_or_default();
                out.push(' ');
                continue;
            }
            None if matches!(character, '\'' | '"') => quote = Some(character),
            None if character == '\\' || rest.starts_with("$$") => {
                return Err(refused("it has quotes that are not read here"));
            }
            Some(_) | None => {}
        }
        out.push(character);
        rest = behind;
    }
    Ok(out)
}
