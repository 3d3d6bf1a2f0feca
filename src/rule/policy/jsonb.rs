//! The bytes of a `jsonb` in, the text that it is out.
//!
//! ```text
//! header ─ an entry for each child ─ the children's data
//! ```
//!
//! `JsonbContainer` (`src/include/utils/jsonb.h`): the header says how many children there are and of
//! what; an entry says what a child is and how long it is, or where it ends. An object's keys go before
//! its values. What is a number or has children begins at a multiple of four.

use serde_json::Value as Json;

use crate::rule::policy::constant::head;
use crate::rule::policy::constant::numeric;
use crate::rule::policy::constant::varlena;

const COUNT: u32 = 0x0fff_ffff;
const SCALAR: u32 = 0x1000_0000;
const OBJECT: u32 = 0x2000_0000;
const ARRAY: u32 = 0x4000_0000;

/// What is in an entry: a length or an end, what the child is, and whether it is an end.
const LENGTH: u32 = 0x0fff_ffff;
const KIND: u32 = 0x7000_0000;
const IS_END: u32 = 0x8000_0000;

/// How deep children may have children.
const DEPTH_MAX: usize = 32;

/// The text of a value.
pub(super) fn text(bytes: &[u8]) -> Option<String> {
    Some(container(bytes, 0)?.to_string())
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(head(bytes.get(at.checked_mul(4)?..)?)?))
}

fn container(bytes: &[u8], depth: usize) -> Option<Json> {
    let header = word(bytes, 0)?;
    let count = usize::try_from(header & COUNT).ok()?;
    let is_object = header & OBJECT != 0;
    if depth > DEPTH_MAX || is_object == (header & ARRAY != 0) {
        return None;
    }
    let entries = if is_object { count.checked_mul(2)? } else { count };
    let data = bytes.get(entries.checked_add(1)?.checked_mul(4)?..)?;
    let mut children = Vec::new();
    let mut begin = 0;
    for at in 1..=entries {
        let entry = word(bytes, at)?;
        let length = usize::try_from(entry & LENGTH).ok()?;
        let end = if entry & IS_END == 0 { begin + length } else { length };
        children.push(child(entry & KIND, data, (begin, end), depth)?);
        begin = end;
    }
    if is_object {
        let values = children.split_off(count);
        let key = |key| match key {
            Json::String(key) => Some(key),
            _ => None,
        };
        let fields = children.into_iter().zip(values);
        return fields
            .map(|(name, value)| Some((key(name)?, value)))
            .collect::<Option<_>>()
            .map(Json::Object);
    }
    match (header & SCALAR != 0, children.len()) {
        (true, 1) => children.pop(),
        (true, _) => None,
        (false, _) => Some(Json::Array(children)),
    }
}

fn child(kind: u32, data: &[u8], (begin, end): (usize, usize), depth: usize) -> Option<Json> {
    let aligned = || data.get(begin.next_multiple_of(4)..end);
    Some(match kind {
        0 => Json::String(String::from_utf8(data.get(begin..end)?.to_vec()).ok()?),
        0x1000_0000 => Json::Number(serde_json::from_str(&numeric(varlena(aligned()?)?)?).ok()?),
        0x2000_0000 => Json::Bool(false),
        0x3000_0000 => Json::Bool(true),
        0x4000_0000 => Json::Null,
        0x5000_0000 => container(aligned()?, depth + 1)?,
        _ => return None,
    })
}
