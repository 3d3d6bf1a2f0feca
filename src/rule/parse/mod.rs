//! SQL text in, [`Expression`] out: the form that `where` clauses and policies are written in, and
//! in which PostgreSQL prints its own.
//!
//! ```text
//! text ──tokens (here)──▶ sqlparser ──its tree──▶ convert ──▶ Expression
//!            bounds, allow-list          allow-list, PostgreSQL's precedence
//! ```
//!
//! The parser reads many dialects and is lenient; PostgreSQL is not. So nothing reaches it but
//! tokens that both read alike, and nothing of its tree is taken that is not listed in `convert`.
//! A text that is accepted means to PostgreSQL exactly what it means here; all others are refused.
//! (Checked by `tests/postgres/rules/`.)

mod convert;
mod precedence;
mod keywords;
mod stored;
mod query;

use sqlparser::ast::Expr;
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;
use sqlparser::tokenizer::Tokenizer;
use sqlparser::tokenizer::Whitespace;
use sqlparser::tokenizer::Word;

use crate::rule::error::RuleError;
use crate::rule::expression::DEPTH_MAX;
use crate::rule::expression::Expression;
use crate::rule::expression::Node;
use crate::rule::expression::QUALIFIED;
use crate::rule::expression::TEXT_BYTES_MAX;

/// How often an operator may stand in a text: the parser's tree leans to the left as far as this,
/// and is taken down by recursion.
const OPERATORS_MAX: usize = 512;

/// Whose text it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Author {
    /// A client's, or the configuration's: an expression over a row and `claims`.
    Client,
    /// The database's own: it may ask the session, and call functions of the database.
    Database,
}

/// Reads a boolean expression in PostgreSQL's syntax.
///
/// # Errors
///
/// [`RuleError`] when the text is no expression, passes a bound, or uses something that cannot be
/// answered exactly. Types are not looked at yet.
pub fn parse_where(text: &str) -> Result<Expression, RuleError> {
    let node = converted(&parse(text, Author::Client)?)?;
    let of_database = |node: &Node| {
        matches!(
            node,
            Node::Setting { .. } | Node::CurrentUser | Node::User { .. } | Node::Subquery { .. }
        )
    };
    if node.has(&of_database) {
        return Err(RuleError::unsupported(&node, "it is no part of a rule", ""));
    }
    if node.has(&|node| matches!(node, Node::Cast { to, .. } if to.contains(QUALIFIED))) {
        let reason = "no cast to that type is known here";
        return Err(RuleError::unsupported("a type with its schema", reason, ""));
    }
    Expression::checked(node)
}

/// Reads an expression of the database: a policy as `pg_get_expr` prints it. `claims` is a column
/// there.
pub(in crate::rule) fn parse_stored(text: &str) -> Result<Node, RuleError> {
    stored(&parse(text, Author::Database)?)
}

/// Reads the body of a function of the database: one query, which selects one expression from
/// nothing.
pub(in crate::rule) fn parse_body(text: &str) -> Result<Node, RuleError> {
    let body = text.trim().trim_end_matches(';').trim_end();
    match parse(&format!("({body})"), Author::Database)? {
        tree @ Expr::Subquery(_) => stored(&tree),
        _ => Err(RuleError::syntax("it is not one query")),
    }
}

fn stored(tree: &Expr) -> Result<Node, RuleError> {
    let mut node = converted(tree)?;
    node.rewrite(&mut |node| {
        if *node == Node::Claims {
            *node = Node::Column { qualifier: None, name: "claims".into() };
        }
        Ok(())
    })?;
    Ok(node)
}

fn converted(tree: &Expr) -> Result<Node, RuleError> {
    Ok(Expression::checked(convert::convert(tree, 0)?)?.node)
}

fn parse(text: &str, author: Author) -> Result<Expr, RuleError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(RuleError::TooLarge { what: "its length in bytes", limit: TEXT_BYTES_MAX });
    }
    refuse_odd_characters(text)?;
    let dialect = PostgreSqlDialect {};
    let tokens = Tokenizer::new(&dialect, text).tokenize().map_err(|error| {
        RuleError::syntax(format!("the rule cannot be read: {}", error.message))
    })?;
    check_tokens(&tokens, author)?;
    let mut parser = Parser::new(&dialect).with_recursion_limit(DEPTH_MAX * 2).with_tokens(tokens);
    let tree = parser.parse_expr().map_err(|error| {
        let reason = error.to_string();
        let reason = reason.strip_prefix("sql parser error: ").unwrap_or(&reason);
        RuleError::syntax(format!("the rule cannot be read: {reason}"))
    })?;
    let rest = parser.peek_token();
    if rest.token != Token::EOF {
        return Err(RuleError::syntax(format!("the rule should end before {}", rest.token)));
    }
    Ok(tree)
}

/// Refuses what PostgreSQL's scanner takes differently: control characters, blanks that are not
/// ASCII, and other characters outside of quotes that no name has.
fn refuse_odd_characters(text: &str) -> Result<(), RuleError> {
    let mut quote = None;
    for character in text.chars() {
        match quote {
            _ if character == '\0' => return Err(RuleError::syntax("a rule holds no NUL")),
            Some(open) if character == open => quote = None,
            Some(_) => {}
            None if character == '\'' || character == '"' => quote = Some(character),
            None => {
                let fine = match character {
                    ' ' | '\t' | '\n' | '\r' => true,
                    _ if character.is_ascii() => character.is_ascii_graphic(),
                    _ => character.is_alphanumeric(),
                };
                if !fine {
                    let code = u32::from(character);
                    let reason = format!("unexpected character U+{code:04X} outside of quotes");
                    return Err(RuleError::syntax(reason));
                }
            }
        }
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Blank,
    Word,
    Number,
    Text,
    /// `=`, `<`, `>`, `<=`, `>=`: PostgreSQL splits a sign off them.
    Comparison,
    Sign,
    Operator,
    Punctuation,
}

fn class(token: &Token) -> Option<Class> {
    Some(match token {
        Token::Whitespace(Whitespace::Space | Whitespace::Newline | Whitespace::Tab) => {
            Class::Blank
        }
        Token::Word(_) => Class::Word,
        Token::Number(_, false) => Class::Number,
        Token::SingleQuotedString(_) => Class::Text,
        Token::Eq | Token::Lt | Token::Gt | Token::LtEq | Token::GtEq => Class::Comparison,
        Token::Plus | Token::Minus => Class::Sign,
        Token::Neq
        | Token::Mul
        | Token::StringConcat
        | Token::Arrow
        | Token::LongArrow
        | Token::HashArrow
        | Token::HashLongArrow
        | Token::AtArrow
        | Token::ArrowAt
        | Token::Question
        | Token::QuestionAnd
        | Token::QuestionPipe
        | Token::Overlap
        | Token::Tilde
        | Token::TildeAsterisk
        | Token::DoubleTilde
        | Token::DoubleTildeAsterisk
        | Token::ExclamationMarkDoubleTilde
        | Token::ExclamationMarkDoubleTildeAsterisk
        | Token::ExclamationMarkTilde
        | Token::ExclamationMarkTildeAsterisk => Class::Operator,
        Token::Comma
        | Token::LParen
        | Token::RParen
        | Token::Period
        | Token::DoubleColon
        | Token::LBracket
        | Token::RBracket => Class::Punctuation,
        _ => return None,
    })
}

/// Lets only tokens through that both scanners read alike.
fn check_tokens(tokens: &[Token], author: Author) -> Result<(), RuleError> {
    let mut before = Class::Blank;
    let mut operators = 0;
    for token in tokens {
        let now = match token {
            Token::Placeholder(_) if author == Author::Database => Some(Class::Number),
            token => class(token),
        };
        let Some(now) = now else {
            return Err(RuleError::unsupported(token, "it is no part of a rule", ""));
        };
        let operator = |class| matches!(class, Class::Operator | Class::Comparison | Class::Sign);
        let split = before == Class::Comparison && now == Class::Sign;
        if operator(before) && operator(now) && !split {
            return Err(RuleError::syntax(format!("put a blank before {token}")));
        }
        let runs_on = match before {
            Class::Number => matches!(now, Class::Word | Class::Number | Class::Text),
            Class::Word | Class::Text => matches!(now, Class::Text),
            _ => false,
        };
        if runs_on {
            return Err(RuleError::syntax(format!("put a blank or an operator before {token}")));
        }
        let joins = match token {
            Token::Word(word) => word.quote_style.is_none(),
            Token::DoubleColon | Token::Period => true,
            _ => operator(now),
        };
        operators += usize::from(joins);
        if operators > OPERATORS_MAX {
            return Err(RuleError::TooLarge {
                what: "its number of words and operators",
                limit: OPERATORS_MAX,
            });
        }
        before = now;
    }
    check_words(tokens, author)
}

/// Lets only the words of SQL through that rules are made of, and only known functions be called.
///
/// The parser knows many more, and some of them make it try each level of a nesting twice.
fn check_words(tokens: &[Token], author: Author) -> Result<(), RuleError> {
    let mut last: Option<&Word> = None;
    let mut open = 0_usize;
    let mut brackets = 0_usize;
    for token in tokens {
        match token {
            Token::LParen => open += 1,
            Token::RParen => open = open.saturating_sub(1),
            Token::LBracket => brackets += 1,
            Token::RBracket => brackets = brackets.saturating_sub(1),
            _ => {}
        }
        if open > DEPTH_MAX || brackets > 1 {
            return Err(RuleError::TooLarge { what: "its nesting", limit: DEPTH_MAX });
        }
        match token {
            Token::Whitespace(_) => {}
            Token::Word(word) => {
                let folded = word.value.to_ascii_lowercase();
                let zone = folded == "with"
                    && last.is_some_and(|last| last.value.to_ascii_lowercase().starts_with("time"));
                let plain = word.quote_style.is_none();
                let used = keywords::is_used(&folded)
                    || (author == Author::Database && keywords::is_asked(&folded));
                if plain && !zone && keywords::is_reserved(&folded) && !used {
                    let (reason, hint) = match author {
                        Author::Client => {
                            ("it is a word of SQL", "a column of that name needs quotes")
                        }
                        Author::Database => ("what it does in SQL is not decided here", ""),
                    };
                    return Err(RuleError::unsupported(&folded, reason, hint));
                }
                last = Some(word);
            }
            Token::LParen => {
                if let Some(word) = last.take()
                    && author == Author::Client
                    && (word.quote_style.is_some()
                        || !keywords::may_open(&word.value.to_ascii_lowercase()))
                {
                    let reason = "the function is not known here";
                    return Err(RuleError::unsupported(word, reason, ""));
                }
            }
            _ => last = None,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::expression::LIST_MAX;

    fn shown(text: &str) -> String {
        match parse_where(text) {
            Ok(expression) => expression.node.to_string(),
            Err(error) => format!("{}: {error}", error.code()),
        }
    }

    #[test]
    fn the_tree_is_the_one_that_postgres_reads() {
        assert_eq!(shown("a = 1 and b = 2 or not c"), "((a = 1 AND b = 2) OR NOT (c))");
        assert_eq!(shown("A=-1"), "a = -1");
        assert_eq!(shown("a in (1,2) and \"B\" is null"), "(a IN (1, 2) AND B IS NULL)");
        assert_eq!(shown("a::text || 'x' = 'y'"), "(a)::text || 'x' = 'y'");
        assert_eq!(shown("a = b is null"), "a = b IS NULL");
        assert_eq!(shown("id = (claims ->> 'sub')::bigint"), "id = (claims ->> 'sub')::int8");
        assert_eq!(shown("a = any(array[1,2])"), "a = ANY (ARRAY[1, 2])");
    }

    #[test]
    fn what_postgres_reads_differently_is_refused() {
        for text in [
            "",
            "a =",
            "a = 1)",
            "a == 1",
            "a = 1 -- x",
            "a = /* x */ 1",
            "user = 'x'",
            "current_user = 'x'",
            "a = $1",
            "a = E'x'",
            "a = b = c",
            "a < b < c",
            "a@>-1",
            "a!=-1",
            "a = N'x'",
            "a = 0x1f",
            "a = 1_000",
            "a = 1and b",
            "a\u{a0}= 1",
            "a = 'x' 'y'",
            "a = $$x$$",
            "a = (select 1)",
            "exists (select 1)",
            "now() > a",
            "a[1] = 2",
            "a between 1 + 1 and 2",
            "random() < 1",
            "a is null is null",
            "a = not b",
            "a.b.c = 1",
            "-a::int = 1 is not json",
            "a = 1; select 2",
            "a = `b`",
            "a = x'00'",
            "a = u&'x'",
        ] {
            assert!(parse_where(text).is_err(), "{text:?}: {}", shown(text));
        }
    }

    #[test]
    fn an_error_names_the_token() {
        assert_eq!(
            shown("a / 2 = 1"),
            "rule_unsupported: / is not supported: it is no part of a rule"
        );
        assert_eq!(
            shown("foo(a) = 1"),
            "rule_unsupported: foo is not supported: the function is not known here"
        );
    }

    #[test]
    fn a_hostile_text_is_refused_cheaply() {
        let nested = |open: &str, close: &str, depth: usize| {
            format!("{}a = 1{}", open.repeat(depth), close.repeat(depth))
        };
        assert!(parse_where(&nested("(", ")", 10_000)).is_err());
        assert!(parse_where(&nested("(", ")", 5_000)).is_err());
        assert!(parse_where(&nested("not ", "", 400)).is_err());
        assert!(parse_where(&format!("a = {}1", "- ".repeat(500))).is_err());
        assert!(parse_where(&format!("a = 1{}", " + 1".repeat(500))).is_err());
        assert!(parse_where(&format!("a{}", "::text".repeat(500))).is_err());
        assert!(parse_where(&format!("a{}", " is null".repeat(200))).is_err());
        assert!(parse_where(&format!("a{}", "[1]".repeat(4_000))).is_err());
        assert!(parse_where(&format!("a in ({}1)", "1,".repeat(LIST_MAX))).is_err());
        assert!(parse_where(&format!("a in ({}1)", "1,".repeat(LIST_MAX - 1))).is_ok());
        assert!(parse_where(&format!("a = 1{}", " or a = 1".repeat(150))).is_ok());
        assert!(parse_where(&"(".repeat(16_000)).is_err());
        // What a parser might try twice at each level: this test would not end.
        for (open, close) in [
            ("(", ")"),
            ("not (", ")"),
            ("coalesce(", ")"),
            ("a in (", ")"),
            ("array[", "]"),
            ("case when ", " then a end"),
            ("cast(", " as text)"),
            ("(a, ", ")"),
            ("a = any (", ")"),
            ("(select ", ")"),
            ("lower(a, ", ")"),
            ("((a) ", "))"),
            ("(a -> ", ")"),
            ("interval (", ")"),
            ("exists (", ")"),
            ("a between (", ") and 1"),
            ("date (", ")"),
            ("(with a as (", "))"),
            ("row(", ")"),
            ("a(b => ", ")"),
            ("position(", ")"),
            ("trim(", ")"),
            ("a[", "]"),
            ("a -> (", ")"),
            ("interval ", ""),
        ] {
            for depth in [8, 16, 30, 45, 90] {
                let _ = parse_where(&nested(open, close, depth));
                let _ = parse_where(&open.repeat(depth));
            }
        }
        assert!(parse_where(&"case when ".repeat(100)).is_err());
    }
}
