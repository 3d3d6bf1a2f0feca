//! Arrays in their text form (`{a,"b c",NULL}`), of any number of dimensions.

use std::borrow::Cow;
use std::cmp::Ordering;

use crate::rule::value::Fault;
use crate::rule::value::Read;
use crate::rule::value::Value;

/// An array: its shape, and its elements in storage order (the last dimension runs fastest).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::rule) struct Array<'a> {
    /// What stands before the elements: lower bounds where they are not 1, then the lengths.
    shape: Shape,
    pub(in crate::rule) elements: Vec<Option<Value<'a>>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Shape {
    bounds: Box<[u8]>,
    lengths: Vec<usize>,
}

/// The depth that PostgreSQL allows (`MAXDIM`).
const DIMENSIONS_MAX: usize = 6;

impl Array<'static> {
    /// An array of one dimension with these elements.
    pub(in crate::rule) fn of(elements: Vec<Option<Value<'static>>>) -> Array<'static> {
        let lengths = if elements.is_empty() { Vec::new() } else { vec![elements.len()] };
        Array { shape: Shape { bounds: Box::default(), lengths }, elements }
    }
}

impl<'a> Array<'a> {
    /// Reads what PostgreSQL printed; `None` where it is no array.
    pub(in crate::rule) fn read(
        text: &'a [u8],
        element: &Read,
    ) -> Result<Option<Array<'a>>, Fault> {
        let open = text.iter().position(|byte| *byte == b'{').unwrap_or(text.len());
        let (bounds, body) = text.split_at(open);
        let Some((lengths, items)) = items(body) else { return Ok(None) };
        let mut elements = Vec::with_capacity(items.len());
        for item in items {
            elements.push(match item {
                None => None,
                Some(Cow::Borrowed(text)) => Some(element.read(text)?),
                Some(Cow::Owned(text)) => Some(element.read(&text)?.into_owned()),
            });
        }
        Ok(Some(Array { shape: Shape { bounds: bounds.into(), lengths }, elements }))
    }

    pub(in crate::rule) fn into_owned(self) -> Array<'static> {
        let elements = self.elements.into_iter().map(|element| element.map(Value::into_owned));
        Array { shape: self.shape, elements: elements.collect() }
    }

    /// `=`: the same shape, and NULL equals NULL.
    pub(in crate::rule) fn equal(&self, other: &Array<'_>) -> Result<bool, Fault> {
        if self.shape != other.shape || self.elements.len() != other.elements.len() {
            return Ok(false);
        }
        for pair in self.elements.iter().zip(&other.elements) {
            let equal = match pair {
                (None, None) => true,
                (Some(left), Some(right)) => left.compare(right)? == Ordering::Equal,
                _ => false,
            };
            if !equal {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// `@>`: each element of `other` is one of these; NULL is none of them.
    pub(in crate::rule) fn contains(&self, other: &Array<'_>) -> Result<bool, Fault> {
        for element in &other.elements {
            let Some(element) = element else { return Ok(false) };
            if !self.holds(element)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// `&&`: they have an element in common.
    pub(in crate::rule) fn overlaps(&self, other: &Array<'_>) -> Result<bool, Fault> {
        for element in other.elements.iter().flatten() {
            if self.holds(element)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn holds(&self, wanted: &Value<'_>) -> Result<bool, Fault> {
        for element in self.elements.iter().flatten() {
            if element.compare(wanted)? == Ordering::Equal {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

type Items<'a> = Vec<Option<Cow<'a, [u8]>>>;

/// Takes the text of an array apart: the length of each dimension, and the elements.
pub(in crate::rule) fn items(text: &[u8]) -> Option<(Vec<usize>, Items<'_>)> {
    let mut reader = Reader { rest: text, lengths: Vec::new(), items: Vec::new() };
    reader.list(0)?;
    if !reader.rest.is_empty() {
        return None;
    }
    let lengths = if reader.items.is_empty() { Vec::new() } else { reader.lengths };
    Some((lengths, reader.items))
}

struct Reader<'a> {
    rest: &'a [u8],
    lengths: Vec<usize>,
    items: Items<'a>,
}

impl<'a> Reader<'a> {
    fn take(&mut self, wanted: u8) -> Option<()> {
        let (first, rest) = self.rest.split_first()?;
        (*first == wanted).then_some(())?;
        self.rest = rest;
        Some(())
    }

    fn blanks(&mut self) {
        self.rest = self.rest.trim_ascii_start();
    }

    /// One `{…}`, `depth` dimensions inside.
    fn list(&mut self, depth: usize) -> Option<()> {
        if depth >= DIMENSIONS_MAX {
            return None;
        }
        self.take(b'{')?;
        self.blanks();
        let mut count = 0;
        if depth == 0 && self.rest.first() == Some(&b'}') {
            return self.take(b'}');
        }
        let nested = self.rest.first() == Some(&b'{');
        loop {
            if nested {
                self.list(depth + 1)?;
            } else {
                let item = self.item()?;
                self.items.push(item);
            }
            count += 1;
            self.blanks();
            if self.rest.first() == Some(&b',') {
                self.take(b',')?;
                self.blanks();
                continue;
            }
            self.take(b'}')?;
            break;
        }
        // Inner lists end first, so the lengths arrive from the inside; all at a depth are equal.
        if self.lengths.len() <= depth {
            self.lengths.resize(depth + 1, 0);
        }
        let length = self.lengths.get_mut(depth)?;
        if *length != 0 && *length != count {
            return None;
        }
        *length = count;
        let innermost = !nested;
        (!innermost || self.lengths.len() == depth + 1).then_some(())
    }

    fn item(&mut self) -> Option<Option<Cow<'a, [u8]>>> {
        if self.rest.first() == Some(&b'"') {
            return self.quoted().map(Some);
        }
        let end = self.rest.iter().position(|byte| matches!(byte, b',' | b'}' | b'{' | b'"'))?;
        let (item, rest) = self.rest.split_at(end);
        if matches!(rest.first(), Some(b'{' | b'"')) {
            return None;
        }
        self.rest = rest;
        let item = item.trim_ascii_end();
        if item.is_empty() || item.contains(&b'\\') {
            return None;
        }
        Some((!item.eq_ignore_ascii_case(b"null")).then_some(Cow::Borrowed(item)))
    }

    fn quoted(&mut self) -> Option<Cow<'a, [u8]>> {
        self.take(b'"')?;
        let mut text = Vec::new();
        loop {
            let end = self.rest.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
            let (plain, rest) = self.rest.split_at(end);
            text.extend_from_slice(plain);
            let (special, rest) = rest.split_first()?;
            if *special == b'"' {
                self.rest = rest;
                return Some(Cow::Owned(text));
            }
            let (escaped, rest) = rest.split_first()?;
            text.push(*escaped);
            self.rest = rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Option<Vec<Option<String>>> {
        let (_, items) = items(text.as_bytes())?;
        let text = |item: Cow<'_, [u8]>| String::from_utf8(item.into_owned()).unwrap();
        Some(items.into_iter().map(|item| item.map(text)).collect())
    }

    #[test]
    fn elements_are_unquoted() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(texts("{}"), Some(vec![]));
        assert_eq!(
            texts("{a,NULL,\"NULL\",\"a\\\"b\\\\\"}"),
            Some(vec![some("a"), None, some("NULL"), some("a\"b\\")])
        );
        assert_eq!(texts("{{1,2},{3,4}}").unwrap().len(), 4);
        assert_eq!(texts("{ a , b c }"), Some(vec![some("a"), some("b c")]));
        for text in [
            "",
            "{",
            "a",
            "{a",
            "{a,}",
            "{,a}",
            "{{1},{2,3}}",
            "{a}x",
            "{\"a\"b}",
            "{{1},2}",
            "{{}}",
            "{a\"b\"}",
        ] {
            assert_eq!(texts(text), None, "{text:?}");
        }
    }

    #[test]
    fn equality_looks_at_the_shape() {
        let read = |text: &'static str| Array::read(text.as_bytes(), &Read::Int).unwrap().unwrap();
        assert!(read("{1,NULL}").equal(&read("{1,NULL}")).unwrap());
        assert!(!read("{1,2}").equal(&read("{{1,2}}")).unwrap());
        assert!(!read("[0:1]={1,2}").equal(&read("{1,2}")).unwrap());
        assert!(read("{1,2,3}").contains(&read("{3,1}")).unwrap());
        assert!(!read("{1,NULL}").contains(&read("{NULL}")).unwrap());
        assert!(read("{1}").contains(&read("{}")).unwrap());
        assert!(!read("{NULL}").overlaps(&read("{NULL}")).unwrap());
    }
}
