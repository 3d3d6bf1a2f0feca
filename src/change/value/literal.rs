//! Values that are made of values: arrays, row types, `hstore`.
//!
//! The forms are those of PostgreSQL's documentation, "Array Input and Output Syntax" and
//! "Composite Type Input and Output Syntax", read as the output functions write them. An element
//! is read where it lies; only one with an escape in it is copied first.

use std::borrow::Cow;

use crate::change::types::Attribute;
use crate::change::types::Type;
use crate::change::value::BigNumbers;
use crate::change::value::Malformed;
use crate::change::value::string::write_string;
use crate::change::value::write_json_with;

/// More dimensions than this no array has (`MAXDIM`).
const DIMENSIONS_MAX: usize = 6;

/// How the elements of an array are written.
struct Elements<'a> {
    of: &'a Type,
    delimiter: u8,
    big: BigNumbers,
}

/// `{1,NULL,{…}}`, also with bounds before it (`[2:3]={1,2}`), which JSON has no place for.
pub(super) fn write_array(
    text: &[u8],
    element: &Type,
    delimiter: u8,
    big: BigNumbers,
    out: &mut Vec<u8>,
) -> Result<(), Malformed> {
    let braces = if text.first() == Some(&b'[') {
        let equals = text.iter().position(|&byte| byte == b'=').ok_or(Malformed)?;
        text.get(equals + 1..).unwrap_or_default()
    } else {
        text
    };
    let elements = Elements { of: element, delimiter, big };
    let rest = write_dimension(braces, &elements, 1, out)?;
    if rest.is_empty() { Ok(()) } else { Err(Malformed) }
}

/// `int2vector` and `oidvector`, arrays with a form of their own: `1 2 3`.
pub(super) fn write_vector(
    text: &[u8],
    element: &Type,
    big: BigNumbers,
    out: &mut Vec<u8>,
) -> Result<(), Malformed> {
    out.push(b'[');
    for (index, number) in text.split(|&byte| byte == b' ').enumerate() {
        if text.is_empty() {
            break;
        }
        if index > 0 {
            out.push(b',');
        }
        write_json_with(number, element, big, out);
    }
    out.push(b']');
    Ok(())
}

/// `(1,"a b",)` with the type's attributes, none missing and none left over.
pub(super) fn write_composite(
    text: &[u8],
    attributes: &[Attribute],
    big: BigNumbers,
    out: &mut Vec<u8>,
) -> Result<(), Malformed> {
    let mut rest = text.strip_prefix(b"(").ok_or(Malformed)?;
    out.push(b'{');
    for (index, attribute) in attributes.iter().enumerate() {
        if index > 0 {
            rest = rest.strip_prefix(b",").ok_or(Malformed)?;
            out.push(b',');
        }
        write_string(attribute.name.as_bytes(), out);
        out.push(b':');
        let (field, after) = take_field(rest)?;
        match field {
            None => out.extend_from_slice(b"null"),
            Some(field) => write_json_with(&field, &attribute.of, big, out),
        }
        rest = after;
    }
    out.push(b'}');
    if rest == b")" { Ok(()) } else { Err(Malformed) }
}

/// `"a"=>"1", "b"=>NULL`: an object of strings, as `hstore`'s own cast to `json` makes it.
pub(super) fn write_hstore(text: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let mut rest = text;
    out.push(b'{');
    while !rest.is_empty() {
        if rest.len() < text.len() {
            rest = rest.strip_prefix(b", ").ok_or(Malformed)?;
            out.push(b',');
        }
        let (key, after) = take_quoted(rest)?;
        write_string(&key, out);
        out.push(b':');
        rest = after.strip_prefix(b"=>").ok_or(Malformed)?;
        if let Some(after) = rest.strip_prefix(b"NULL") {
            out.extend_from_slice(b"null");
            rest = after;
        } else {
            let (value, after) = take_quoted(rest)?;
            write_string(&value, out);
            rest = after;
        }
    }
    out.push(b'}');
    Ok(())
}

/// One pair of braces and what is in it; returns what follows.
fn write_dimension<'a>(
    text: &'a [u8],
    elements: &Elements<'_>,
    dimension: usize,
    out: &mut Vec<u8>,
) -> Result<&'a [u8], Malformed> {
    let mut rest = text.strip_prefix(b"{").ok_or(Malformed)?;
    out.push(b'[');
    if let Some(after) = rest.strip_prefix(b"}") {
        out.push(b']');
        return Ok(after);
    }
    loop {
        rest = match rest.first() {
            Some(b'{') if dimension < DIMENSIONS_MAX => {
                write_dimension(rest, elements, dimension + 1, out)?
            }
            Some(b'{') => return Err(Malformed),
            _ => write_element(rest, elements, out)?,
        };
        match rest.split_first() {
            Some((b'}', after)) => {
                out.push(b']');
                return Ok(after);
            }
            Some((&byte, after)) if byte == elements.delimiter => {
                out.push(b',');
                rest = after;
            }
            _ => return Err(Malformed),
        }
    }
}

fn write_element<'a>(
    text: &'a [u8],
    elements: &Elements<'_>,
    out: &mut Vec<u8>,
) -> Result<&'a [u8], Malformed> {
    if text.first() == Some(&b'"') {
        let (element, after) = take_quoted(text)?;
        write_json_with(&element, elements.of, elements.big, out);
        return Ok(after);
    }
    let ends = |&byte: &u8| byte == elements.delimiter || byte == b'}';
    let end = text.iter().position(ends).ok_or(Malformed)?;
    let (element, after) = text.split_at(end);
    match element {
        b"" => return Err(Malformed),
        b"NULL" => out.extend_from_slice(b"null"),
        _ => write_json_with(element, elements.of, elements.big, out),
    }
    Ok(after)
}

/// The quoted text that `text` begins with, a backslash escaping any byte; and what follows.
fn take_quoted(text: &[u8]) -> Result<(Cow<'_, [u8]>, &[u8]), Malformed> {
    let rest = text.strip_prefix(b"\"").ok_or(Malformed)?;
    let stop = rest.iter().position(|&byte| byte == b'"' || byte == b'\\').ok_or(Malformed)?;
    let (plain, tail) = rest.split_at(stop);
    if let Some(after) = tail.strip_prefix(b"\"") {
        return Ok((Cow::Borrowed(plain), after));
    }
    let mut value = plain.to_vec();
    let mut bytes = tail.iter();
    loop {
        match *bytes.next().ok_or(Malformed)? {
            b'"' => return Ok((Cow::Owned(value), bytes.as_slice())),
            b'\\' => value.push(*bytes.next().ok_or(Malformed)?),
            byte => value.push(byte),
        }
    }
}

/// A field of a row type's text, and what follows it.
type Field<'a> = (Option<Cow<'a, [u8]>>, &'a [u8]);

/// The field that `text` begins with (nothing at all is NULL), and the comma or parenthesis after.
fn take_field(text: &[u8]) -> Result<Field<'_>, Malformed> {
    if text.first() != Some(&b'"') {
        let end = text.iter().position(|&byte| byte == b',' || byte == b')').ok_or(Malformed)?;
        let (field, after) = text.split_at(end);
        return Ok(((!field.is_empty()).then_some(Cow::Borrowed(field)), after));
    }
    let mut value = Vec::new();
    let mut bytes = text.get(1..).unwrap_or_default().iter();
    loop {
        match *bytes.next().ok_or(Malformed)? {
            // Two quotes are one; one quote ends the field.
            b'"' if bytes.as_slice().first() == Some(&b'"') => {
                bytes.next();
                value.push(b'"');
            }
            b'"' => return Ok((Some(Cow::Owned(value)), bytes.as_slice())),
            b'\\' => value.push(*bytes.next().ok_or(Malformed)?),
            byte => value.push(byte),
        }
    }
}
