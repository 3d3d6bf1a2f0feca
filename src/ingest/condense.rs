//! Large messages, condensed while they arrive: a value above a bound becomes its length.
//!
//! A row of 100 MB comes in one frame of 100 MB. Nobody is sent it whole, so it need not be held
//! whole: the frame is read piece by piece, and what is left of it is a message of the same form in
//! which `o` and a length stand for a large value (`change::tuple`). Only frames above the bound
//! come here; every other is decoded where it lies.
//!
//! # Invariants
//!
//! - What is left does not depend on how the frame was cut.
//! - The columns, and every value that is small, are those of the message.
//!   (Both: test `cuts_make_no_difference`, and small messages in the fuzz target `pgoutput`.)
//! - A row that is malformed stays so.
//! - What is left of a row has a bound, however many columns it has: [`TUPLE_BYTES_MAX`] and
//!   [`SMALL`] for each column, for each of its images.

/// Values up to this size are always kept: keys are among them.
pub const SMALL: usize = 4 << 10;

/// How much larger values of one image may take together.
pub const TUPLE_BYTES_MAX: usize = 8 << 20;

/// What stands before the message in a frame: `w`, two positions and a time.
const HEADER: usize = 25;

/// One frame on its way in.
#[derive(Debug)]
pub struct Condenser {
    cell_bytes_max: usize,
    out: Vec<u8>,
    /// The message's first byte.
    tag: u8,
    /// The columns of the image at hand that are still to come.
    columns: u16,
    /// What larger values of the image at hand have taken.
    larger: usize,
    /// What the next bytes are.
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// This many bytes are kept, then it is seen what they mean.
    Keep(usize, Part),
    /// This many bytes of a large value are left out. The last byte of its length is added after
    /// them, so that what ends inside it is seen to.
    Omit(usize, u8),
    /// Everything is kept.
    Whole,
    /// A byte more is too many, and kept so that it is noticed.
    End,
    /// The rest is left out.
    Ignore,
}

/// What a piece of known length is.
#[derive(Clone, Copy, Debug)]
enum Part {
    Header,
    Tag,
    Relation,
    ImageKind,
    Columns,
    CellKind,
    CellLength,
    Cell,
    MessageLsn,
}

impl Condenser {
    /// For a frame in which values up to `cell_bytes_max` bytes are kept.
    #[must_use]
    pub const fn new(cell_bytes_max: usize) -> Condenser {
        let state = State::Keep(HEADER, Part::Header);
        Condenser { cell_bytes_max, out: Vec::new(), tag: 0, columns: 0, larger: 0, state }
    }

    /// What is left of the bytes so far.
    #[must_use]
    pub fn condensed(&self) -> &[u8] {
        &self.out
    }

    /// Takes the next bytes of the frame's body.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.state {
                State::Keep(left, part) => {
                    let (kept, rest) = bytes.split_at(left.min(bytes.len()));
                    self.out.extend_from_slice(kept);
                    bytes = rest;
                    self.state = match left - kept.len() {
                        0 => self.after(part),
                        left => State::Keep(left, part),
                    };
                }
                State::Omit(left, held_back) => {
                    let (omitted, rest) = bytes.split_at(left.min(bytes.len()));
                    bytes = rest;
                    self.state = match left - omitted.len() {
                        0 => {
                            self.out.push(held_back);
                            self.next_cell()
                        }
                        left => State::Omit(left, held_back),
                    };
                }
                State::Whole => {
                    self.out.extend_from_slice(bytes);
                    return;
                }
                State::End => {
                    self.out.extend(bytes.first());
                    self.state = State::Ignore;
                }
                State::Ignore => return,
            }
        }
    }

    /// What comes after a part that is whole.
    fn after(&mut self, part: Part) -> State {
        let last = self.out.last().copied().unwrap_or_default();
        match part {
            Part::Header if self.out.first() == Some(&b'w') => State::Keep(1, Part::Tag),
            // No other frame is large. (Nor are these messages, which have no values.)
            Part::Header => State::Ignore,
            Part::Tag => {
                self.tag = last;
                match last {
                    b'I' | b'U' | b'D' => State::Keep(4, Part::Relation),
                    b'M' => State::Keep(9, Part::MessageLsn),
                    b'R' | b'T' => State::Whole,
                    _ => State::Ignore,
                }
            }
            Part::Relation => State::Keep(1, Part::ImageKind),
            Part::ImageKind => match last {
                b'K' | b'O' | b'N' => {
                    // An update's old image is followed by the new one.
                    if last == b'N' {
                        self.tag = b'I';
                    }
                    State::Keep(2, Part::Columns)
                }
                _ => State::Ignore,
            },
            Part::Columns => {
                self.columns = self.out.last_chunk().map_or(0, |count| u16::from_be_bytes(*count));
                self.larger = 0;
                self.next_cell()
            }
            Part::CellKind => match last {
                b't' => State::Keep(4, Part::CellLength),
                // No server sends it; it means here what it means to the decoder.
                b'o' => State::Keep(4, Part::Cell),
                b'n' | b'u' => self.next_cell(),
                _ => State::Ignore,
            },
            Part::CellLength => self.cell(),
            Part::Cell => self.next_cell(),
            Part::MessageLsn => {
                // An application's message that large is none of a client's business: what is left
                // of it has no prefix and no content.
                self.out.extend_from_slice(&[0; 5]);
                State::Ignore
            }
        }
    }

    fn next_cell(&mut self) -> State {
        if let Some(left) = self.columns.checked_sub(1) {
            self.columns = left;
            State::Keep(1, Part::CellKind)
        } else if self.tag == b'U' {
            State::Keep(1, Part::ImageKind)
        } else {
            State::End
        }
    }

    /// Keeps a value whose length was read, or leaves it out.
    fn cell(&mut self) -> State {
        let length = self.out.last_chunk().map_or(0, |length| u32::from_be_bytes(*length));
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length <= SMALL {
            return if length == 0 { self.next_cell() } else { State::Keep(length, Part::Cell) };
        }
        let larger = self.larger.saturating_add(length);
        if length > self.cell_bytes_max || larger > TUPLE_BYTES_MAX.max(self.cell_bytes_max) {
            if let Some([kind, ..]) = self.out.last_chunk_mut::<5>() {
                *kind = b'o';
            }
            return State::Omit(length, self.out.pop().unwrap_or_default());
        }
        self.larger = larger;
        State::Keep(length, Part::Cell)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::change::tuple::Cell;
    use crate::change::tuple::Tuple;
    use crate::ingest::pgoutput::DecodeError;
    use crate::ingest::pgoutput::Message;
    use crate::ingest::pgoutput::decode;
    use proptest::prelude::*;

    const BOUND: usize = 10_000;

    /// A cell of a message, as it is written.
    #[derive(Clone, Debug)]
    enum Written {
        Null,
        Unchanged,
        Text(usize),
    }

    fn any_cell() -> impl Strategy<Value = Written> {
        prop_oneof![
            Just(Written::Null),
            Just(Written::Unchanged),
            (0usize..20).prop_map(Written::Text),
            (SMALL - 2..SMALL + 3).prop_map(Written::Text),
            (BOUND - 2..BOUND + 3).prop_map(Written::Text),
            (0usize..100_000).prop_map(Written::Text),
        ]
    }

    fn image(kind: u8, cells: &[Written]) -> Vec<u8> {
        let mut bytes = vec![kind];
        bytes.extend(u16::try_from(cells.len()).unwrap().to_be_bytes());
        for (at, cell) in cells.iter().enumerate() {
            match cell {
                Written::Null => bytes.push(b'n'),
                Written::Unchanged => bytes.push(b'u'),
                Written::Text(length) => {
                    bytes.push(b't');
                    bytes.extend(u32::try_from(*length).unwrap().to_be_bytes());
                    bytes.resize(bytes.len() + length, u8::try_from(at % 251).unwrap());
                }
            }
        }
        bytes
    }

    /// The message in a frame, with a header before it.
    fn frame(tag: u8, images: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = vec![b'w'; HEADER];
        bytes.push(tag);
        bytes.extend([0, 0, 0, 1]);
        bytes.extend(images.concat());
        bytes
    }

    fn condense<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
        let mut condenser = Condenser::new(BOUND);
        for piece in pieces {
            condenser.push(piece);
        }
        condenser.condensed().get(HEADER..).unwrap_or_default().to_vec()
    }

    fn images<'a>(message: &Message<'a>) -> Vec<Tuple<'a>> {
        let whole = |old| match old {
            crate::change::transaction::OldTuple::Full(old)
            | crate::change::transaction::OldTuple::Key(old) => old,
        };
        match *message {
            Message::Insert { new, .. } => vec![new],
            Message::Update { old, new, .. } => old.map(whole).into_iter().chain([new]).collect(),
            Message::Delete { old, .. } => vec![whole(old)],
            _ => Vec::new(),
        }
    }

    proptest! {
        #[test]
        fn cuts_make_no_difference(
            form in 0usize..6,
            old in prop::collection::vec(any_cell(), 0..12),
            new in prop::collection::vec(any_cell(), 0..12),
            cuts in prop::collection::vec(0usize..400_000, 0..20),
        ) {
            let (old, new) = (old.as_slice(), new.as_slice());
            let whole = match form {
                0 => frame(b'I', &[image(b'N', new)]),
                1 => frame(b'U', &[image(b'N', new)]),
                2 => frame(b'U', &[image(b'K', old), image(b'N', new)]),
                3 => frame(b'U', &[image(b'O', old), image(b'N', new)]),
                4 => frame(b'D', &[image(b'K', old)]),
                _ => frame(b'D', &[image(b'O', old)]),
            };
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % whole.len()).collect();
            cuts.extend([0, whole.len()]);
            cuts.sort_unstable();
            let condensed = condense([whole.as_slice()]);
            prop_assert_eq!(&condensed, &condense(cuts.windows(2).map(|cut| &whole[cut[0]..cut[1]])));

            let (before, after) = (decode(&whole[HEADER..]).unwrap(), decode(&condensed).unwrap());
            let (before, after) = (images(&before), images(&after));
            prop_assert_eq!(before.len(), after.len());
            for (before, after) in before.into_iter().zip(after) {
                prop_assert_eq!(before.len(), after.len());
                for (before, after) in before.cells().zip(after.cells()) {
                    match before {
                        Cell::Text(text) if text.len() > BOUND => {
                            let bytes = u32::try_from(text.len()).unwrap();
                            prop_assert_eq!(after, Cell::Omitted { bytes });
                        }
                        kept => prop_assert_eq!(after, kept),
                    }
                }
            }
        }

        #[test]
        fn what_is_malformed_stays_so(
            cells in prop::collection::vec(any_cell(), 1..8),
            at in 0usize..100_000,
        ) {
            let whole = frame(b'I', &[image(b'N', &cells)]);
            let end = HEADER + at % (whole.len() - HEADER);
            prop_assert!(decode(&condense([&whole[..end]])).is_err());
            let longer = [&whole[..], &[0, 0]].concat();
            let condensed = condense([longer.as_slice()]);
            let result = decode(&condensed);
            let told = matches!(result, Err(DecodeError::Trailing { extra: 1, .. }));
            prop_assert!(told, "{result:?}");
        }
    }

    #[test]
    fn many_values_of_medium_size_have_a_bound_together() {
        let cells = vec![Written::Text(BOUND); 5000];
        let condensed = condense([frame(b'I', &[image(b'N', &cells)]).as_slice()]);
        assert!(condensed.len() < TUPLE_BYTES_MAX + (SMALL * 5000), "{}", condensed.len());
        let Ok(Message::Insert { new, .. }) = decode(&condensed) else { panic!() };
        assert_eq!(new.len(), 5000);
        let kept = new.cells().take_while(|cell| !cell.is_missing()).count();
        assert_eq!(kept, TUPLE_BYTES_MAX / BOUND);
    }

    #[test]
    fn of_a_large_message_of_an_application_only_the_place_is_left() {
        let mut whole = vec![b'w'; HEADER];
        whole.extend(b"M\x01\0\0\0\0\0\0\0\x07prefix\0\0\0\x4e\x20");
        whole.resize(whole.len() + 20_000, b'x');
        let condensed = condense([whole.as_slice()]);
        let lsn = crate::change::lsn::Lsn::new(7);
        let expected = Message::Logical { transactional: true, lsn, prefix: "", content: b"" };
        assert_eq!(decode(&condensed), Ok(expected));
    }
}
