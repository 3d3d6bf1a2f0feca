//! `pg_node_tree`: the text in which PostgreSQL keeps an expression that it has analysed.
//!
//! The outer form is the same in every version (`src/backend/nodes/read.c`): `{NAME :field value …}`
//! is a node, `(…)` a list, `<>` nothing, `4 [ 1 0 0 0 ]` the bytes of a constant, and everything
//! else a word. What the names mean is for [`read`](super::read).
//!
//! # Invariants
//!
//! - No text makes this panic, recurse without a bound or take longer than its size warrants.
//! - A field that nobody asked for is not overlooked: see [`Fields::end`].

use crate::rule::error::RuleError;

/// The bytes of a tree. A policy of a page of SQL has some tens of kilobytes.
const BYTES_MAX: usize = 512 * 1024;
/// How deep nodes and lists may be nested.
const DEPTH_MAX: usize = 200;

/// One value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Tree<'a> {
    /// `<>`.
    Nothing,
    /// A number, a boolean, a name.
    Word(&'a str),
    /// The bytes of a constant.
    Bytes(Vec<u8>),
    List(Vec<Tree<'a>>),
    Node(Fields<'a>),
}

/// A node, whose fields are taken out one by one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fields<'a> {
    pub(super) name: &'a str,
    fields: Vec<(&'a str, Tree<'a>)>,
}

/// Reads a whole text.
pub(super) fn parse(text: &str) -> Result<Tree<'_>, RuleError> {
    if text.len() > BYTES_MAX {
        return Err(RuleError::TooLarge { what: "its length in bytes", limit: BYTES_MAX });
    }
    let mut scanner = Scanner { rest: text };
    let tree = scanner.value(0)?;
    if scanner.word().is_some() { Err(unreadable()) } else { Ok(tree) }
}

fn unreadable() -> RuleError {
    RuleError::syntax("the stored form of the policy can't be read")
}

struct Scanner<'a> {
    rest: &'a str,
}

impl<'a> Scanner<'a> {
    /// The next word: one of `(){}`, or what stands between blanks and these. A backslash takes
    /// the character behind it along.
    fn word(&mut self) -> Option<&'a str> {
        let text = self.rest.trim_start_matches([' ', '\n', '\t']);
        let mut escaped = false;
        let mut end = text.len();
        for (at, character) in text.char_indices() {
            let parenthesis = matches!(character, '(' | ')' | '{' | '}');
            if escaped {
                escaped = false;
            } else if character == '\\' {
                escaped = true;
            } else if parenthesis && at == 0 {
                end = 1;
                break;
            } else if parenthesis || matches!(character, ' ' | '\n' | '\t') {
                end = at;
                break;
            }
        }
        let (word, rest) = text.split_at(end);
        self.rest = rest;
        (!word.is_empty()).then_some(word)
    }

    fn peek(&self) -> Option<&'a str> {
        Scanner { rest: self.rest }.word()
    }

    fn value(&mut self, depth: usize) -> Result<Tree<'a>, RuleError> {
        if depth > DEPTH_MAX {
            return Err(RuleError::TooLarge { what: "its nesting", limit: DEPTH_MAX });
        }
        match self.word().ok_or_else(unreadable)? {
            "<>" => Ok(Tree::Nothing),
            "{" => self.node(depth),
            "(" => {
                let mut list = Vec::new();
                while self.peek().ok_or_else(unreadable)? != ")" {
                    list.push(self.value(depth + 1)?);
                }
                self.word();
                Ok(Tree::List(list))
            }
            ")" | "}" => Err(unreadable()),
            _ if self.peek() == Some("[") => self.bytes(),
            word => Ok(Tree::Word(word)),
        }
    }

    fn node(&mut self, depth: usize) -> Result<Tree<'a>, RuleError> {
        let name = self.word().ok_or_else(unreadable)?;
        let mut fields = Vec::new();
        loop {
            match self.word().ok_or_else(unreadable)? {
                "}" => return Ok(Tree::Node(Fields { name, fields })),
                field => {
                    let field = field.strip_prefix(':').ok_or_else(unreadable)?;
                    fields.push((field, self.value(depth + 1)?));
                }
            }
        }
    }

    /// `[ 4 -1 ]`: bytes, printed as C's `char`, which has a sign on some machines.
    fn bytes(&mut self) -> Result<Tree<'a>, RuleError> {
        self.word();
        let mut bytes = Vec::new();
        loop {
            match self.word().ok_or_else(unreadable)? {
                "]" => return Ok(Tree::Bytes(bytes)),
                byte => {
                    let byte: i16 = byte.parse().map_err(|_| unreadable())?;
                    let signed = i8::try_from(byte).map(i8::cast_unsigned);
                    let byte = signed.or_else(|_| u8::try_from(byte)).map_err(|_| unreadable())?;
                    bytes.push(byte);
                }
            }
        }
    }
}

impl<'a> Tree<'a> {
    pub(super) fn node(self) -> Result<Fields<'a>, RuleError> {
        match self {
            Tree::Node(fields) => Ok(fields),
            _ => Err(unreadable()),
        }
    }

    /// A list; nothing is an empty one.
    pub(super) fn list(self) -> Result<Vec<Tree<'a>>, RuleError> {
        match self {
            Tree::List(list) => Ok(list),
            Tree::Nothing => Ok(Vec::new()),
            _ => Err(unreadable()),
        }
    }

    /// Whether it says nothing: absent, false, zero or empty.
    fn is_empty(&self) -> bool {
        match self {
            Tree::Nothing | Tree::Word("false" | "0" | "-1") => true,
            // `(b)` is a set of numbers without any.
            Tree::List(list) => matches!(list.as_slice(), [] | [Tree::Word("b" | "i" | "o")]),
            Tree::Word(_) | Tree::Bytes(_) | Tree::Node(_) => false,
        }
    }
}

impl<'a> Fields<'a> {
    /// Takes a field out.
    pub(super) fn take(&mut self, field: &str) -> Result<Tree<'a>, RuleError> {
        let place = self.fields.iter().position(|(name, _)| *name == field);
        let place = place.ok_or_else(|| {
            RuleError::unsupported(self.name, format!("its stored form has no {field}"), "")
        })?;
        Ok(self.fields.remove(place).1)
    }

    /// Takes a field out that is one word.
    pub(super) fn word(&mut self, field: &str) -> Result<&'a str, RuleError> {
        match self.take(field)? {
            Tree::Word(word) => Ok(word),
            _ => Err(unreadable()),
        }
    }

    pub(super) fn number<T: std::str::FromStr>(&mut self, field: &str) -> Result<T, RuleError> {
        self.word(field)?.parse().map_err(|_| unreadable())
    }

    pub(super) fn boolean(&mut self, field: &str) -> Result<bool, RuleError> {
        match self.word(field)? {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(unreadable()),
        }
    }

    /// The two elements of a list.
    pub(super) fn two(&mut self, field: &str) -> Result<(Tree<'a>, Tree<'a>), RuleError> {
        let mut list = self.take(field)?.list()?;
        match (list.pop(), list.pop(), list.is_empty()) {
            (Some(right), Some(left), true) => Ok((left, right)),
            _ => Err(unreadable()),
        }
    }

    /// Checks that nothing is left but what does not matter, and what says nothing.
    pub(super) fn end(self, ignored: &[&str]) -> Result<(), RuleError> {
        let matters = |(field, value): &&(&str, Tree<'_>)| {
            *field != "location" && !ignored.contains(field) && !value.is_empty()
        };
        match self.fields.iter().find(matters) {
            None => Ok(()),
            Some((field, _)) => {
                let reason = format!("what its {field} means is not known here");
                Err(RuleError::unsupported(self.name, reason, ""))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_lists_and_bytes_are_told_apart() {
        let text = "{CONST :consttype 23 :a\\ b <> :args ({X} {Y :z (o 1 2)}) \
                    :constvalue 4 [ 5 0 -1 255 ]}";
        let mut node = parse(text).unwrap().node().unwrap();
        assert_eq!(node.name, "CONST");
        assert_eq!(node.number::<u32>("consttype"), Ok(23));
        assert_eq!(node.take("constvalue"), Ok(Tree::Bytes(vec![5, 0, 255, 255])));
        assert_eq!(node.take("args").unwrap().list().unwrap().len(), 2);
        assert!(node.take("nothing").is_err());
        assert_eq!(node.end(&[]), Ok(()));
    }

    #[test]
    fn a_field_that_matters_is_not_overlooked() {
        let node = parse("{X :a false :b <> :c 7 :d (b) :location 3}").unwrap().node().unwrap();
        assert!(node.clone().end(&[]).is_err());
        assert_eq!(node.end(&["c"]), Ok(()));
        assert!(parse("{X :d (b 1)}").unwrap().node().unwrap().end(&[]).is_err());
    }

    #[test]
    fn what_is_no_tree_is_refused() {
        for text in
            ["", "{", "{X :a}", "(", ")", "{X a 1}", "{X} {Y}", "4 [ 1", "4 [ 300 ]", "4 [ x ]"]
        {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse(&"(".repeat(100_000)).is_err());
        assert!(parse(&"{X :a ".repeat(100_000)).is_err());
    }
}
