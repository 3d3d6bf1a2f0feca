//! What was encoded in a pass, shared by all who get it.

use bytes::Bytes;

use crate::route::group::PendingFrame;
use crate::route::shard::widen;

/// The frames of one variant, shared by all its members.
#[derive(Debug)]
pub(crate) struct Payload {
    pub(crate) bytes: Bytes,
    pub(crate) frames: Vec<PendingFrame>,
}

/// The bytes for a session that is in these payloads, in the order of the changes, and how many
/// frames they are.
pub(crate) fn gather(payloads: &[Payload], pending: &[u32]) -> (Bytes, usize) {
    let mut of = pending.iter().filter_map(|at| payloads.get(widen(*at)));
    if pending.len() == 1 {
        return of.next().map_or((Bytes::new(), 0), |it| (it.bytes.clone(), it.frames.len()));
    }
    let mut pieces: Vec<(u32, &[u8])> = Vec::new();
    for payload in of {
        let mut begin = 0;
        for frame in &payload.frames {
            pieces.push((frame.number, payload.bytes.get(begin..frame.end).unwrap_or_default()));
            begin = frame.end;
        }
    }
    pieces.sort_unstable_by_key(|(number, _)| *number);
    let mut bytes = Vec::with_capacity(pieces.iter().map(|(_, piece)| piece.len()).sum());
    for (_, piece) in &pieces {
        bytes.extend_from_slice(piece);
    }
    (bytes.into(), pieces.len())
}
