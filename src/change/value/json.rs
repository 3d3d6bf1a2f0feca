//! Values of `json` and `jsonb`.
//!
//! A `jsonb` is on the wire as `to_jsonb` would leave it, and is copied. A `json` is there as it
//! was typed in; `to_jsonb` makes a `jsonb` of it: of two equal keys the last wins, keys are
//! ordered by length and then by bytes, escapes are resolved, numbers lose their exponents.

use serde::de::IgnoredAny;

use crate::change::value::Malformed;
use crate::change::value::number;
use crate::change::value::string::write_string;

/// How deep a `json` is taken apart; one that is nested deeper is copied as it is. (The stack is
/// the bound, so it is far below what Postgres itself takes.)
const DEPTH_MAX: usize = 256;

/// A `jsonb` as its output function wrote it.
pub(super) fn write_as_it_is(text: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    if text.is_empty() {
        return Err(Malformed);
    }
    match std::str::from_utf8(text) {
        Ok(_) => out.extend_from_slice(text),
        Err(_) => out.extend_from_slice(String::from_utf8_lossy(text).as_bytes()),
    }
    Ok(())
}

/// A `json` as `jsonb` would write it.
pub(super) fn write_normal(text: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let text = String::from_utf8_lossy(text);
    let start = out.len();
    let mut reader = Reader { rest: text.as_bytes() };
    if reader.value(0, out).is_ok() && reader.rest.is_empty() {
        return Ok(());
    }
    // Nested too deep, or not JSON at all.
    out.truncate(start);
    serde_json::from_str::<IgnoredAny>(&text).map_err(|_| Malformed)?;
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

/// What is left of the text; between two calls it begins with no blank.
struct Reader<'a> {
    rest: &'a [u8],
}

/// A member of an object: its key, and where it stands in the output with its key.
struct Member {
    key: Vec<u8>,
    start: usize,
    end: usize,
}

impl Reader<'_> {
    fn value(&mut self, depth: usize, out: &mut Vec<u8>) -> Result<(), Malformed> {
        if depth == DEPTH_MAX {
            return Err(Malformed);
        }
        self.blanks();
        match self.rest.first().ok_or(Malformed)? {
            b'{' => self.object(depth, out)?,
            b'[' => self.array(depth, out)?,
            b'"' => write_string(&self.string()?, out),
            b't' => self.word(b"true", out)?,
            b'f' => self.word(b"false", out)?,
            b'n' => self.word(b"null", out)?,
            _ => self.number(out)?,
        }
        self.blanks();
        Ok(())
    }

    fn blanks(&mut self) {
        let blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        while let Some((_, after)) = self.rest.split_first().filter(|(byte, _)| blank(byte)) {
            self.rest = after;
        }
    }

    fn take(&mut self, expected: u8) -> bool {
        let after = self.rest.strip_prefix(&[expected]);
        self.rest = after.unwrap_or(self.rest);
        after.is_some()
    }

    fn expect(&mut self, expected: u8) -> Result<(), Malformed> {
        if self.take(expected) { Ok(()) } else { Err(Malformed) }
    }

    fn word(&mut self, word: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
        self.rest = self.rest.strip_prefix(word).ok_or(Malformed)?;
        out.extend_from_slice(word);
        Ok(())
    }

    fn number(&mut self, out: &mut Vec<u8>) -> Result<(), Malformed> {
        let part = |byte: &u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
        let end = self.rest.iter().position(|byte| !part(byte)).unwrap_or(self.rest.len());
        let (number, after) = self.rest.split_at(end);
        self.rest = after;
        number::write_normal(number, out)
    }

    fn array(&mut self, depth: usize, out: &mut Vec<u8>) -> Result<(), Malformed> {
        self.expect(b'[')?;
        out.push(b'[');
        self.blanks();
        if !self.take(b']') {
            loop {
                self.value(depth + 1, out)?;
                if self.take(b']') {
                    break;
                }
                self.expect(b',')?;
                out.push(b',');
            }
        }
        out.push(b']');
        Ok(())
    }

    fn object(&mut self, depth: usize, out: &mut Vec<u8>) -> Result<(), Malformed> {
        self.expect(b'{')?;
        out.push(b'{');
        let start = out.len();
        let mut members = Vec::new();
        self.blanks();
        if !self.take(b'}') {
            loop {
                self.blanks();
                let key = self.string()?;
                self.blanks();
                self.expect(b':')?;
                if !members.is_empty() {
                    out.push(b',');
                }
                let member = out.len();
                write_string(&key, out);
                out.push(b':');
                self.value(depth + 1, out)?;
                members.push(Member { key, start: member, end: out.len() });
                if self.take(b'}') {
                    break;
                }
                self.expect(b',')?;
            }
        }
        put_in_order(members, start, out);
        out.push(b'}');
        Ok(())
    }

    /// The string that begins here, its escapes resolved.
    fn string(&mut self) -> Result<Vec<u8>, Malformed> {
        self.expect(b'"')?;
        let mut value = Vec::new();
        loop {
            let special = |&byte: &u8| byte == b'"' || byte == b'\\' || byte < b' ';
            let at = self.rest.iter().position(special).ok_or(Malformed)?;
            let (plain, tail) = self.rest.split_at(at);
            value.extend_from_slice(plain);
            self.rest = tail;
            if self.take(b'"') {
                return Ok(value);
            }
            self.expect(b'\\')?;
            self.escape(&mut value)?;
        }
    }

    fn escape(&mut self, value: &mut Vec<u8>) -> Result<(), Malformed> {
        let (&letter, after) = self.rest.split_first().ok_or(Malformed)?;
        self.rest = after;
        value.push(match letter {
            b'"' | b'\\' | b'/' => letter,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let character = self.unicode()?;
                value.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            _ => return Err(Malformed),
        });
        Ok(())
    }

    /// The character after `\u`, from one escape or from a surrogate pair; half of one is replaced.
    fn unicode(&mut self) -> Result<char, Malformed> {
        let first = self.unit()?;
        if (0xD800..0xDC00).contains(&first) {
            let before = self.rest;
            if let Some(after) = self.rest.strip_prefix(br"\u") {
                self.rest = after;
                let second = self.unit()?;
                if (0xDC00..0xE000).contains(&second) {
                    let code = 0x10000 + ((first - 0xD800) << 10) + (second - 0xDC00);
                    return Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                }
                self.rest = before;
            }
        }
        Ok(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn unit(&mut self) -> Result<u32, Malformed> {
        let (digits, after) = self.rest.split_at_checked(4).ok_or(Malformed)?;
        self.rest = after;
        digits.iter().try_fold(0, |unit, &digit| {
            let value = char::from(digit).to_digit(16).ok_or(Malformed)?;
            Ok(unit * 16 + value)
        })
    }
}

/// Puts the members of the object whose first member begins at `start` into `jsonb`'s order.
fn put_in_order(mut members: Vec<Member>, start: usize, out: &mut Vec<u8>) {
    let precedes =
        |one: &Member, other: &Member| (one.key.len(), &one.key) < (other.key.len(), &other.key);
    if members.is_sorted_by(precedes) {
        return;
    }
    // Stable, so that of equal keys the last written is the last here.
    members.sort_by(|one, other| (one.key.len(), &one.key).cmp(&(other.key.len(), &other.key)));
    let mut ordered = Vec::with_capacity(out.len() - start);
    for (index, member) in members.iter().enumerate() {
        if members.get(index + 1).is_some_and(|next| next.key == member.key) {
            continue;
        }
        if !ordered.is_empty() {
            ordered.push(b',');
        }
        ordered.extend_from_slice(out.get(member.start..member.end).unwrap_or_default());
    }
    out.truncate(start);
    out.extend_from_slice(&ordered);
}
