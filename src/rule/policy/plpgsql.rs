//! The body of a function of the database in PL/pgSQL: a text in, the expression that it returns out,
//! and the variables that stand in it.
//!
//! ```text
//! DECLARE v text;  BEGIN  SELECT … INTO v …;  IF v = 'x' THEN RETURN a; END IF;  RETURN b;  END
//!
//!   locals:    v: (SELECT …)::text
//!   returned:  CASE WHEN v = 'x' THEN a ELSE b END
//! ```
//!
//! Read are variables that get their only value before anything branches (in the declaration, by `:=`
//! or by `SELECT … INTO`), `IF` with `ELSIF` and `ELSE`, and `RETURN`; and one `RETURN QUERY SELECT`.
//! What is read is written as SQL, and read like any other.
//!
//! # Invariants
//!
//! - Every way through the body ends with a `RETURN`: without one it is an error in PostgreSQL.

use crate::rule::error::RuleError;
use crate::rule::expression::Node;
use crate::rule::expression::TEXT_BYTES_MAX;
use crate::rule::parse::parse_body;
use crate::rule::policy::body::after_word;
use crate::rule::policy::body::depth_at;
use crate::rule::policy::body::has_word;
use crate::rule::policy::body::outside_of_quotes;
use crate::rule::policy::body::refused;
use crate::rule::policy::body::without_comments;
use crate::rule::policy::body::words;

/// How deep branches may stand in each other.
const DEPTH_MAX: usize = 16;

/// What a body says.
pub(super) struct Spoken {
    /// The variables in the order in which they get their values.
    pub(super) locals: Vec<(Box<str>, Node)>,
    pub(super) returned: Node,
}

/// One statement.
enum Statement<'t> {
    Return(&'t str),
    /// A variable, and what it becomes, in SQL.
    Set(String, String),
    If {
        arms: Vec<(&'t str, Vec<Statement<'t>>)>,
        otherwise: Vec<Statement<'t>>,
    },
}

/// Reads a body.
pub(super) fn read(body: &str, returns_rows: bool) -> Result<Spoken, RuleError> {
    let body = without_comments(body)?;
    let mut reader = Reader { rest: body.trim() };
    let variables = reader.declared()?;
    reader.word("begin")?;
    let statements = reader.block(0)?;
    reader.word("end")?;
    if !matches!(reader.rest, "" | ";") {
        return Err(more());
    }
    let mut locals: Vec<(Box<str>, Node)> = Vec::new();
    let mut set = |name: &str, value: &str| {
        let of = variables.iter().find(|variable| variable.name == name).ok_or_else(more)?;
        if locals.iter().any(|(known, _)| **known == *name) {
            return Err(refused("a variable in it gets more than one value"));
        }
        locals.push((name.into(), parse_body(&format!("SELECT (({value})::{})", of.of))?));
        Ok(())
    };
    for Variable { name, initial, .. } in &variables {
        initial.as_ref().map(|value| set(name, value)).transpose()?;
    }
    let mut statements = statements.as_slice();
    while let [Statement::Set(name, value), rest @ ..] = statements {
        set(name, value)?;
        statements = rest;
    }
    let returned = match statements {
        [Statement::Return(returned)] if returns_rows => {
            let query = after_word(returned, "query");
            let query = query.filter(|query| after_word(query, "select").is_some());
            parse_body(query.ok_or_else(more)?)?
        }
        _ if returns_rows => return Err(more()),
        statements => parse_body(&format!("SELECT ({})", chosen(statements, None)?))?,
    };
    Ok(Spoken { locals, returned })
}

fn more() -> RuleError {
    refused(
        "of PL/pgSQL, only IF, RETURN and variables that are set before are looked into, and for \
         rows one RETURN QUERY SELECT",
    )
}

/// What statements return, as SQL; `after` is what is returned where they don't.
fn chosen(statements: &[Statement<'_>], after: Option<&str>) -> Result<String, RuleError> {
    let (statement, rest) = match (statements.split_first(), after) {
        (Some(split), _) => split,
        (None, Some(after)) => return Ok(after.to_owned()),
        (None, None) => return Err(refused("it may end without a RETURN")),
    };
    let (arms, otherwise) = match statement {
        Statement::Return(returned)
            if rest.is_empty() && after_word(returned, "query").is_none() =>
        {
            return Ok(format!("({returned})"));
        }
        Statement::If { arms, otherwise } => (arms, otherwise),
        _ => return Err(more()),
    };
    let after = match rest {
        [] => after.map(str::to_owned),
        rest => Some(chosen(rest, after)?),
    };
    let mut text = "CASE".to_owned();
    for (condition, block) in arms {
        let block = chosen(block, after.as_deref())?;
        text.push_str(&format!(" WHEN ({condition}) THEN {block}"));
    }
    text.push_str(&format!(" ELSE {} END", chosen(otherwise, after.as_deref())?));
    // What follows a branch stands in each arm: it is not to grow without a bound.
    if text.len() > TEXT_BYTES_MAX {
        return Err(RuleError::TooLarge { what: "its length in bytes", limit: TEXT_BYTES_MAX });
    }
    Ok(text)
}

/// A variable as it is declared.
struct Variable {
    name: String,
    of: String,
    initial: Option<String>,
}

struct Reader<'t> {
    rest: &'t str,
}

impl<'t> Reader<'t> {
    fn is_at(&self, word: &str) -> bool {
        after_word(self.rest, word).is_some()
    }

    fn word(&mut self, word: &str) -> Result<(), RuleError> {
        self.rest = after_word(self.rest, word).ok_or_else(more)?;
        Ok(())
    }

    /// What stands before the next semicolon.
    fn statement(&mut self) -> Result<&'t str, RuleError> {
        let mut end = None;
        outside_of_quotes(self.rest, &mut |at, character| {
            if character == ';' && end.is_none() {
                end = Some(at);
            }
        });
        let (statement, rest) = self.rest.split_at(end.ok_or_else(more)?);
        self.rest = rest.get(1..).unwrap_or_default().trim_start();
        Ok(statement.trim())
    }

    fn declared(&mut self) -> Result<Vec<Variable>, RuleError> {
        let mut variables: Vec<Variable> = Vec::new();
        if !self.is_at("declare") {
            return Ok(variables);
        }
        self.word("declare")?;
        while !self.is_at("begin") {
            let variable = variable(self.statement()?)?;
            if variables.iter().any(|known| known.name == variable.name) {
                return Err(more());
            }
            variables.push(variable);
        }
        Ok(variables)
    }

    /// The statements before the end of a block, or of an arm.
    fn block(&mut self, depth: usize) -> Result<Vec<Statement<'t>>, RuleError> {
        if depth > DEPTH_MAX {
            return Err(RuleError::TooLarge { what: "its nesting", limit: DEPTH_MAX });
        }
        let mut statements = Vec::new();
        loop {
            if ["end", "else", "elsif", "elseif"].iter().any(|word| self.is_at(word)) {
                return Ok(statements);
            }
            statements.push(if self.is_at("if") {
                self.branches(depth)?
            } else {
                let statement = self.statement()?;
                match after_word(statement, "return") {
                    Some(returned) => Statement::Return(returned),
                    None if after_word(statement, "select").is_some() => select_into(statement)?,
                    None => assignment(statement)?,
                }
            });
        }
    }

    fn branches(&mut self, depth: usize) -> Result<Statement<'t>, RuleError> {
        self.word("if")?;
        let mut arms = vec![self.arm(depth)?];
        while self.is_at("elsif") || self.is_at("elseif") {
            self.word(if self.is_at("elsif") { "elsif" } else { "elseif" })?;
            arms.push(self.arm(depth)?);
        }
        let mut otherwise = Vec::new();
        if self.is_at("else") {
            self.word("else")?;
            otherwise = self.block(depth + 1)?;
        }
        self.word("end")?;
        self.word("if")?;
        if !self.statement()?.is_empty() {
            return Err(more());
        }
        Ok(Statement::If { arms, otherwise })
    }

    /// `condition THEN statements`. There may be a CASE in the condition.
    fn arm(&mut self, depth: usize) -> Result<(&'t str, Vec<Statement<'t>>), RuleError> {
        let mut cases = 0_usize;
        let mut then = None;
        for (at, word) in words(self.rest) {
            match &*word.to_ascii_lowercase() {
                "case" => cases += 1,
                "end" => cases = cases.checked_sub(1).ok_or_else(more)?,
                "then" if cases == 0 => {
                    then = Some(at);
                    break;
                }
                _ => {}
            }
        }
        let (condition, rest) = self.rest.split_at(then.ok_or_else(more)?);
        self.rest = rest;
        self.word("then")?;
        // A semicolon would end it.
        let mut is_one = true;
        outside_of_quotes(condition, &mut |_, character| is_one &= character != ';');
        let condition = condition.trim();
        if !is_one || condition.is_empty() {
            return Err(more());
        }
        Ok((condition, self.block(depth + 1)?))
    }
}

/// `name type`, with `:= value` behind it or not.
fn variable(declaration: &str) -> Result<Variable, RuleError> {
    let (declared, initial) = match declaration.split_once(":=") {
        Some((declared, value)) => (declared, Some(value.trim().to_owned())),
        None => (declaration, None),
    };
    let (name, of) = declared.trim().split_once(char::is_whitespace).ok_or_else(more)?;
    let plain = |text: &str| {
        text.chars().all(|it| it.is_ascii_alphanumeric() || matches!(it, '_' | '.' | ' '))
    };
    let of = of.trim();
    let special = ["default", "constant", "not", "collate", "alias", "cursor"];
    if !plain(name)
        || name.contains('.')
        || !plain(of)
        || special.iter().any(|word| has_word(of, word))
    {
        return Err(refused("a variable in it is more than a name, a type and a value"));
    }
    Ok(Variable { name: name.to_ascii_lowercase(), of: of.to_owned(), initial })
}

/// `name := value`.
fn assignment<'t>(statement: &str) -> Result<Statement<'t>, RuleError> {
    let (name, value) = statement.split_once(":=").ok_or_else(more)?;
    let name = name.trim().to_ascii_lowercase();
    let is_name = |it: char| it.is_ascii_alphanumeric() || it == '_';
    if name.is_empty() || !name.chars().all(is_name) {
        return Err(more());
    }
    Ok(Statement::Set(name, value.trim().to_owned()))
}

/// `SELECT … INTO variable …`: the variable, and the query without it.
fn select_into<'t>(statement: &str) -> Result<Statement<'t>, RuleError> {
    let mut places = words(statement)
        .filter(|(at, word)| word.eq_ignore_ascii_case("into") && depth_at(statement, *at) == 0);
    let (Some((at, into)), None) = (places.next(), places.next()) else { return Err(more()) };
    let (before, rest) = statement.split_at(at);
    let rest = rest.get(into.len()..).unwrap_or_default().trim_start();
    let end = rest.find(|it: char| !(it.is_ascii_alphanumeric() || it == '_'));
    let (variable, rest) = rest.split_at(end.unwrap_or(rest.len()));
    if rest.trim_start().starts_with([',', '.', '[']) {
        return Err(refused("a SELECT INTO in it sets several variables"));
    }
    let variable = variable.to_ascii_lowercase();
    Ok(Statement::Set(variable, format!("{} {rest}", before.trim_end())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(body: &str) -> String {
        let locals = |locals: Vec<(Box<str>, Node)>| -> String {
            locals.iter().map(|(name, value)| format!("{name}: {value}; ")).collect()
        };
        match read(body, false) {
            Ok(body) => format!("{}{}", locals(body.locals), body.returned),
            Err(error) => error.to_string(),
        }
    }

    /// What the statements between BEGIN and END return.
    fn choice(statements: &str) -> Result<String, RuleError> {
        let text = format!("{statements} end");
        chosen(&Reader { rest: &text }.block(0)?, None)
    }

    #[test]
    fn a_return_is_an_expression() {
        assert_eq!(shown("begin return a = 1; end;"), "a = 1");
        assert_eq!(shown("\nBEGIN -- a; b\n  RETURN /* ; */ x = ';';\nEND\n"), "x = ';'");
        let body = "DECLARE v_role text; r int;\nBEGIN\n SELECT p.role INTO v_role FROM public.p\n \
                    WHERE p.id = a; RETURN coalesce(v_role, 'x') = 'y'; END";
        let select = "((SELECT p.role FROM p WHERE (p.id = a)))::text";
        assert_eq!(shown(body), format!("v_role: {select}; coalesce(v_role, 'x') = 'y'"));
        let body = "declare a int := 1; b text; begin b := 'x' || a::text; return b = 'x1'; end";
        assert_eq!(shown(body), "a: (1)::int4; b: ('x' || (a)::text)::text; b = 'x1'");
    }

    #[test]
    fn branches_are_a_case() {
        let told = |body: &str| choice(body).unwrap();
        assert_eq!(
            told("if a then return b; end if; return c;"),
            "CASE WHEN (a) THEN (b) ELSE (c) END"
        );
        assert_eq!(
            told(
                "if case when x then y end then return b; elsif c then\nreturn d; else return e;\nend if;"
            ),
            "CASE WHEN (case when x then y end) THEN (b) WHEN (c) THEN (d) ELSE (e) END"
        );
        assert_eq!(
            told("if a then if b then return c; end if; else return d; end if; return e;"),
            "CASE WHEN (a) THEN CASE WHEN (b) THEN (c) ELSE (e) END ELSE (d) END"
        );
    }

    #[test]
    fn what_does_more_is_refused() {
        for body in [
            "",
            "begin",
            "begin return a",
            "begin if a then return b; end if; end",
            "begin if a then v := 1; end if; return b; end",
            "begin if a then return b; return c; end if; return d; end",
            "begin if a return b; end if; return d; end",
            "begin while a loop return b; end loop; return d; end",
            "begin for r in select 1 loop return true; end loop; return false; end",
            "begin begin return a; end; return b; end",
            "begin perform f(); return a; end",
            "declare v text; begin v := 'x'; v := 'y'; return v; end",
            "declare v text; v int; begin return v; end",
            "declare v p.role%type; begin return v; end",
            "declare v varchar(3) := 'xxxx'; begin return v; end",
            "begin v := 'x'; return v; end",
            "begin select a into strict v from t; return v; end",
            "begin return found; end; return",
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
