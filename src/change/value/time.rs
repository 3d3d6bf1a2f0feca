//! Timestamps: from Postgres's ISO style to ISO 8601, as `to_jsonb` writes them.

use crate::change::value::Malformed;

/// `2026-01-02 03:04:05.12` becomes `"2026-01-02T03:04:05.12"`; also with ` BC`, and `infinity`.
pub(super) fn write_timestamp(text: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    check(text)?;
    out.push(b'"');
    write_with_t(text, out);
    out.push(b'"');
    Ok(())
}

/// `2026-01-02 03:04:05+00` becomes `"2026-01-02T03:04:05+00:00"`; also with ` BC`, and `infinity`.
pub(super) fn write_timestamp_with_zone(text: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    check(text)?;
    out.push(b'"');
    let (local, era) = match text.strip_suffix(b" BC") {
        Some(local) => (local, &b" BC"[..]),
        None => (text, &b""[..]),
    };
    write_with_t(local, out);
    // The zone is the sign's after the time; three bytes of it are hours without minutes.
    if let [.., b'+' | b'-', _, _] = local {
        out.extend_from_slice(b":00");
    }
    out.extend_from_slice(era);
    out.push(b'"');
    Ok(())
}

fn write_with_t(text: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(text);
    let written = out.get_mut(start..).unwrap_or_default();
    if let Some(blank) = written.iter_mut().find(|byte| **byte == b' ') {
        *blank = b'T';
    }
}

/// Nothing in the text needs an escape.
fn check(text: &[u8]) -> Result<(), Malformed> {
    let plain = |&byte: &u8| byte.is_ascii_alphanumeric() || b" :-+.".contains(&byte);
    if text.iter().all(plain) { Ok(()) } else { Err(Malformed) }
}
