//! The body of a function of the database: a text in SQL or in PL/pgSQL in, the expression that it
//! returns out.
//!
//! Of PL/pgSQL these forms are read: one `RETURN`, one `SELECT … INTO` a variable that is then
//! returned, and one `RETURN QUERY`. All are written as one expression in SQL, and read like any other.

use crate::rule::error::RuleError;
use crate::rule::expression::Node;
use crate::rule::parse::parse_body;

fn refused(reason: &str) -> RuleError {
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

/// Reads a body in PL/pgSQL.
pub(super) fn plpgsql(body: &str, returns_rows: bool) -> Result<Node, RuleError> {
    let body = without_comments(body)?;
    let mut statements = statements(&body).into_iter().peekable();
    let mut variables: Vec<(String, String)> = Vec::new();
    let mut next = statements.next().ok_or_else(branching)?;
    if let Some(rest) = after_word(next, "declare") {
        next = rest;
        while after_word(next, "begin").is_none() {
            variables.push(declared(next)?);
            next = statements.next().ok_or_else(branching)?;
        }
    }
    let mut first = after_word(next, "begin").ok_or_else(branching)?;
    let mut selected = None;
    if after_word(first, "select").is_some() {
        selected = Some(select_into(first, &variables)?);
        first = statements.next().ok_or_else(branching)?;
    }
    let returned = after_word(first, "return").ok_or_else(branching)?;
    let end = statements.next().is_some_and(|end| end.eq_ignore_ascii_case("end"));
    if !end || statements.next().is_some() {
        return Err(branching());
    }
    let mut returned = returned.to_owned();
    if let Some((variable, of, select)) = &selected {
        returned = with_word(&returned, variable, &format!("(({select})::{of})"));
    }
    let used = |(name, _): &(String, String)| has_word(&returned, name);
    if variables.iter().any(used) {
        return Err(refused("a name in it could be a variable's or a column's"));
    }
    match (after_word(&returned, "query"), returns_rows) {
        (Some(query), true) if selected.is_none() && after_word(query, "select").is_some() => {
            parse_body(query)
        }
        (None, false) => parse_body(&format!("SELECT ({returned})")),
        _ => Err(refused("of PL/pgSQL that returns rows, only RETURN QUERY SELECT is looked into")),
    }
}

fn branching() -> RuleError {
    refused("of PL/pgSQL, one RETURN or RETURN QUERY, and a SELECT INTO before it, are looked into")
}

/// `name type`.
fn declared(declaration: &str) -> Result<(String, String), RuleError> {
    let (name, of) = declaration.trim().split_once(char::is_whitespace).ok_or_else(branching)?;
    let plain = |text: &str| {
        text.chars().all(|it| it.is_ascii_alphanumeric() || matches!(it, '_' | '.' | ' '))
    };
    let of = of.trim();
    let initial = has_word(of, "default") || has_word(of, "constant") || has_word(of, "not");
    if !plain(name) || name.contains('.') || !plain(of) || initial {
        return Err(refused("a variable in it is more than a name and a type"));
    }
    Ok((name.to_ascii_lowercase(), of.to_owned()))
}

/// `SELECT … INTO variable …`: the variable, its type, and the query without it.
fn select_into(
    statement: &str,
    variables: &[(String, String)],
) -> Result<(String, String, String), RuleError> {
    let mut places = words(statement)
        .filter(|(at, word)| word.eq_ignore_ascii_case("into") && depth_at(statement, *at) == 0);
    let (Some((at, into)), None) = (places.next(), places.next()) else { return Err(branching()) };
    let (before, rest) = statement.split_at(at);
    let rest = rest.get(into.len()..).unwrap_or_default().trim_start();
    let end = rest.find(|it: char| !(it.is_ascii_alphanumeric() || it == '_'));
    let (variable, rest) = rest.split_at(end.unwrap_or(rest.len()));
    let variable = variable.to_ascii_lowercase();
    let of = variables.iter().find(|(name, _)| *name == variable);
    let (_, of) = of.ok_or_else(branching)?;
    let select = format!("{} {rest}", before.trim_end());
    // `INTO a, b`, and names that mean two things.
    let several = rest.trim_start().starts_with(',');
    if several || variables.iter().any(|(name, _)| has_word(&select, name)) {
        return Err(refused("a name in it could be a variable's or a column's"));
    }
    Ok((variable, of.clone(), select))
}

/// How many parentheses are open before a place.
fn depth_at(text: &str, at: usize) -> i32 {
    let mut depth = 0;
    outside_of_quotes(text, &mut |place, character| {
        if place < at {
            depth += i32::from(character == '(') - i32::from(character == ')');
        }
    });
    depth
}

/// The words outside of quotes, with their places.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
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

fn has_word(text: &str, word: &str) -> bool {
    words(text).any(|(_, found)| found.eq_ignore_ascii_case(word))
}

/// The text with something else in the place of a word, which must stand alone.
fn with_word(text: &str, word: &str, by: &str) -> String {
    let mut out = String::new();
    let mut from = 0;
    for (at, found) in words(text) {
        let before = text.get(..at).unwrap_or_default().trim_end();
        let behind = text.get(at + found.len()..).unwrap_or_default().trim_start();
        let alone = !before.ends_with('.') && !behind.starts_with(['.', '(']);
        if found.eq_ignore_ascii_case(word) && alone {
            out.push_str(text.get(from..at).unwrap_or_default());
            out.push_str(by);
            from = at + found.len();
        }
    }
    out.push_str(text.get(from..).unwrap_or_default());
    out
}

fn after_word<'t>(text: &'t str, word: &str) -> Option<&'t str> {
    let text = text.trim();
    let (at, found) = words(text).next()?;
    let is_it = at == 0 && found.eq_ignore_ascii_case(word);
    is_it.then(|| text.get(found.len()..).unwrap_or_default().trim_start())
}

/// What stands between semicolons.
fn statements(text: &str) -> Vec<&str> {
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
fn outside_of_quotes(text: &str, each: &mut dyn FnMut(usize, char)) {
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
fn without_comments(text: &str) -> Result<String, RuleError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(body: &str) -> String {
        plpgsql(body, false).map_or_else(|error| error.to_string(), |node| node.to_string())
    }

    #[test]
    fn a_return_is_an_expression() {
        assert_eq!(shown("begin return a = 1; end;"), "a = 1");
        assert_eq!(shown("\nBEGIN -- a; b\n  RETURN /* ; */ x = ';';\nEND\n"), "x = ';'");
        let body = "DECLARE v_role text; r int;\nBEGIN\n SELECT p.role INTO v_role FROM public.p\n \
                    WHERE p.id = a; RETURN coalesce(v_role, 'x') = 'y'; END";
        let select = "((SELECT p.role FROM p WHERE (p.id = a)))::text";
        assert_eq!(shown(body), format!("coalesce({select}, 'x') = 'y'"));
    }

    #[test]
    fn what_branches_is_refused() {
        for body in [
            "",
            "begin",
            "begin return a",
            "begin if a then return b; end if; return c; end",
            "begin perform f(); return a; end",
            "declare v text := 'x'; begin return v; end",
            "declare v text; begin return v; end",
            "declare v text; begin select v into v from t; return v; end",
            "declare v text; w text; begin select a, b into v, w from t; return v; end",
            "begin return a; exception when others then return false; end",
            "begin return query select 1; end",
            "begin return E'\\''; end",
            "begin return a; end; drop table x",
        ] {
            assert!(
                shown(body).contains("supported") || shown(body).contains("read"),
                "{body}: {}",
                shown(body)
            );
        }
    }
}
