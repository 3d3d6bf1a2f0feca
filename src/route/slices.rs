//! What was encoded for one session that is behind, kept for the next one at the same place.
//!
//! In a storm of reconnects thousands of sessions read the same stretch of the ring for the same
//! variant. Their slices are cut at the same places of the ring, wherever each of them began, so
//! that from the first cut on they are the same bytes.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::rc::Rc;

use bytes::Bytes;

use crate::ring::Place;

/// Memory of the pieces kept by one shard, in bytes.
const BYTES_MAX: usize = 8 << 20;
/// What a piece costs beside its frames.
const PIECE_BYTES: usize = 160;
/// A piece ends before a transaction whose number is a multiple of this.
const CUT_TRANSACTIONS: u64 = 64;
/// In a transaction a piece ends before a change whose index is a multiple of this.
const CUT_CHANGES: usize = 1024;

/// The frames of one variant from one place of the ring to another.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) frames: Bytes,
    /// How many frames it is.
    pub(crate) count: usize,
    /// The place after it.
    pub(crate) next: Place,
}

/// A variant and a place. The variant is told by where its head lies in memory.
type Key = (usize, Place);

/// Pieces by variant and place; the oldest go first.
#[derive(Debug, Default)]
pub(crate) struct Slices {
    known: HashMap<Key, Held>,
    order: VecDeque<Key>,
    bytes: usize,
}

#[derive(Debug)]
struct Held {
    piece: Piece,
    /// While it is held, no other variant's head can lie there.
    _head: Rc<[u8]>,
}

/// Whether every piece that comes to this place ends there.
pub(crate) const fn is_cut(place: Place) -> bool {
    if place.change == 0 {
        place.transaction.is_multiple_of(CUT_TRANSACTIONS)
    } else {
        place.change.is_multiple_of(CUT_CHANGES)
    }
}

impl Slices {
    /// What was encoded for a variant from a place on.
    pub(crate) fn get(&self, head: &Rc<[u8]>, place: Place) -> Option<&Piece> {
        self.known.get(&key(head, place)).map(|held| &held.piece)
    }

    /// Keeps what was encoded for a variant from a place on.
    pub(crate) fn insert(&mut self, head: &Rc<[u8]>, place: Place, piece: Piece) {
        let size = PIECE_BYTES + piece.frames.len();
        if size > BYTES_MAX / 4 || self.known.contains_key(&key(head, place)) {
            return;
        }
        self.bytes += size;
        while self.bytes > BYTES_MAX {
            let Some(oldest) = self.order.pop_front() else { break };
            let Some(held) = self.known.remove(&oldest) else { continue };
            self.bytes -= PIECE_BYTES + held.piece.frames.len();
        }
        self.order.push_back(key(head, place));
        self.known.insert(key(head, place), Held { piece, _head: Rc::clone(head) });
    }

    /// Forgets everything: the places are of another history now, or nobody reads.
    pub(crate) fn clear(&mut self) {
        *self = Slices::default();
    }
}

fn key(head: &Rc<[u8]>, place: Place) -> Key {
    (Rc::as_ptr(head).cast::<u8>().addr(), place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(transaction: u64) -> Place {
        Place { transaction, change: 0 }
    }

    #[test]
    fn what_is_kept_is_bounded_and_of_one_variant() {
        let (one, other): (Rc<[u8]>, Rc<[u8]>) = (b"o".as_slice().into(), b"o".as_slice().into());
        let mut slices = Slices::default();
        for transaction in 0..100 {
            let frames = Bytes::from(vec![b'x'; 1 << 20]);
            let piece = Piece { frames, count: 1, next: place(transaction + 1) };
            slices.insert(&one, place(transaction), piece);
            assert!(slices.bytes <= BYTES_MAX);
        }
        assert_eq!(slices.known.len(), slices.order.len());
        assert_eq!(slices.get(&one, place(99)).map(|piece| piece.next), Some(place(100)));
        assert!(slices.get(&one, place(0)).is_none());
        assert!(slices.get(&other, place(99)).is_none());
        slices.clear();
        assert_eq!(slices.bytes, 0);
    }
}
