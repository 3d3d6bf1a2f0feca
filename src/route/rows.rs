//! The rows of a snapshot on their way to a client: in slices, as everything that a session reads
//! which is not live.
//!
//! Rows are held once for all who asked for them. What was encoded of them for one session of a
//! variant is there for the others, too (`slices`): everybody begins with the first row, so their
//! pieces are the same.

use std::rc::Rc;
use std::sync::Arc;

use crate::ask::Answer;
use crate::change::transaction::ChangeKind;
use crate::ring::Gap;
use crate::ring::Place;
use crate::route::behind::PIECE_CHANGES;
use crate::route::behind::Slice;
use crate::route::behind::Stuck;
use crate::route::image::Images;
use crate::route::member::Member;
use crate::route::session::SessionKey;
use crate::route::shard::Shard;
use crate::route::shard::writing;
use crate::route::slices::Piece;

/// No transaction of the ring has such a number: pieces of answers are kept beside pieces of it.
const ANSWERS: u64 = 1 << 63;

impl Shard {
    /// Whether the session's first reader has rows of a snapshot to deliver.
    pub(crate) fn has_rows(&self, key: SessionKey) -> bool {
        let reader = self.session(key).and_then(|session| session.readers.first());
        reader.and_then(|it| it.handover.as_ref()).is_some_and(|it| it.rows.is_some())
    }

    /// Sends some rows of the first reader's snapshot.
    pub(crate) fn read_rows(&mut self, key: SessionKey) -> Result<(), Stuck> {
        let Some(session) = self.session(key) else { return Ok(()) };
        let Some(reader) = session.readers.first() else { return Ok(()) };
        let (place, room) = (reader.place, session.outbox.slice_bytes());
        let rows = reader.handover.as_ref().and_then(|it| it.rows.as_ref());
        let (Some((answer, begin)), Some(id)) = (rows, reader.ids.first()) else { return Ok(()) };
        let (answer, mut next) = (Arc::clone(answer), *begin);
        let Some(mut member) = self.member(key, id) else { return Ok(()) };
        let steps = self.settings.steps;
        let bytes_max = steps.slice_bytes.min(room);
        let piece_max = bytes_max / 4;
        let mut slice = Slice::default();
        while next < answer.rows.len()
            && slice.looked_at < steps.slice_changes
            && (slice.bytes == 0 || slice.bytes + piece_max <= bytes_max)
        {
            next = self.read_rows_piece(&mut member, (&answer, next), piece_max, &mut slice)?;
        }
        let rest = (next < answer.rows.len()).then_some((answer, next));
        let reader = self.session_mut(key).and_then(|session| session.readers.first_mut());
        if let Some(handover) = reader.and_then(|reader| reader.handover.as_mut()) {
            handover.rows = rest;
        }
        self.deliver(key, &slice, place);
        Ok(())
    }

    /// Adds a piece of the rows to a slice; returns the row after it. Filter and policy are asked of
    /// each row, once for each variant.
    fn read_rows_piece(
        &mut self,
        member: &mut Member,
        (answer, begin): (&Answer, usize),
        bytes_max: usize,
        slice: &mut Slice,
    ) -> Result<usize, Stuck> {
        let at = |change| Place { transaction: ANSWERS | answer.number, change };
        if let Some(known) = self.slices.get(&member.head, at(begin)).filter(|_| member.has_peers) {
            slice.looked_at += PIECE_CHANGES;
            slice.push(known.frames.clone(), known.count);
            return Ok(known.next.change);
        }
        let rows_max = self.settings.steps.slice_changes;
        let (mut frames, mut body, mut count, mut next) = (Vec::new(), Vec::new(), 0, begin);
        let head = Rc::clone(&member.head);
        let mut is_current = true;
        for row in answer.rows.changes_from(begin) {
            if frames.len() >= bytes_max || next - begin >= rows_max {
                break;
            }
            next += 1;
            let ChangeKind::Insert { new } = row.kind else { continue };
            is_current = is_current && member.is_of(row.relation);
            let Some(shape) = self.shape_for(member, row.relation) else {
                return Err(Stuck { id: Rc::clone(&member.id), reason: Some(Gap::SchemaChanged) });
            };
            body.clear();
            let writing = writing(&self.settings, &self.meter);
            if shape.encode_row(&Images::present(new), writing, &mut body).is_some() {
                shape.dialect.frame(&head, &body, None, &mut frames);
                count += 1;
            }
        }
        let piece = Piece { frames: frames.into(), count, next: at(next) };
        slice.looked_at += next - begin;
        slice.push(piece.frames.clone(), piece.count);
        if member.has_peers && is_current {
            self.slices.insert(&head, at(begin), piece);
        }
        Ok(next)
    }
}
