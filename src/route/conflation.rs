//! What a throttled subscription holds back: the newest frame of each key, until its time has come.
//!
//! Every frame of the subscription is offered, in the order of the changes. One that may go out at
//! once is ripe at once; the others replace what is held of their key and ripen when the interval
//! since the key's last delivery is over. Whoever drives this asks for what is ripe as fast as the
//! client takes it; what the client does not take is replaced by something newer, too.
//!
//! # Invariants
//!
//! - Between two deliveries of a key lies the interval, but for what [`Conflation::shed`] hurries
//!   and what stands apart. (Test `whatever_is_offered_the_rules_hold`.)
//! - The last frame offered of a key is delivered, and no frame of a key after a newer one.
//! - Everything before [`Conflation::position`] was delivered or replaced by something that lies
//!   after it.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;
use tokio::time::Instant;

use crate::change::cursor::Cursor;
use crate::change::cursor::Position;
use crate::change::lsn::Lsn;
use crate::route::distance::Point;

/// What is remembered of a key takes about so many bytes beside the key, in all maps together.
const ENTRY_BYTES: usize = 240;
/// What a held frame takes beside its body.
const HELD_BYTES: usize = 160;

/// A key's columns as bytes.
pub(crate) type Key = SmallVec<[u8; 32]>;

/// What a frame tells of, as far as it matters here.
#[derive(Clone, Debug)]
pub(crate) enum Subject {
    /// What the key is now: it takes the place of what was told of it before.
    Key {
        key: Key,
        point: Option<Point>,
        /// The columns that the frame does not carry because they did not change. It can take the
        /// place only of a frame that does not carry them either.
        unchanged: SmallVec<[usize; 2]>,
    },
    /// Something that nothing may take the place of, and that must not overtake what is held of
    /// these keys.
    Apart(SmallVec<[Key; 2]>),
    /// The same where the keys are not known, so that it may overtake nothing.
    ApartFromAll,
    /// The end of all keys: what is held of them is void.
    End,
}

/// One frame, not yet framed for anybody.
#[derive(Clone, Debug)]
pub(crate) struct Offer {
    pub(crate) subject: Subject,
    /// After its change.
    pub(crate) at: Position,
    pub(crate) body: Bytes,
    pub(crate) now: Instant,
}

impl Offer {
    /// The frame of a change after which `cursor` stands, offered now.
    pub(crate) fn of(subject: Subject, cursor: Cursor, body: &[u8]) -> Offer {
        let body = Bytes::copy_from_slice(body);
        Offer { subject, at: cursor.position, body, now: Instant::now() }
    }
}

/// How often a key may be heard of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Tempo {
    /// The least time between two deliveries of a key.
    pub(crate) interval: Duration,
    /// How far a key must have moved since its last delivery, in metres …
    pub(crate) metres: Option<f64>,
    /// … or how long that must have been ago.
    pub(crate) linger: Duration,
}

/// The frames that one subscription holds back.
#[derive(Debug)]
pub(crate) struct Conflation {
    tempo: Tempo,
    entries: HashMap<Rc<[u8]>, Entry>,
    held: BTreeMap<Position, Held>,
    /// Which of them may go out.
    ripe: BTreeSet<Position>,
    /// When a key's frame is ripe; where it holds none, when the key is forgotten.
    timers: BTreeSet<(Instant, Rc<[u8]>)>,
    /// After the newest change whose frame was offered.
    offered: Position,
    /// What was held when it was rewound, and is to be offered again.
    again: BTreeSet<Position>,
    bytes: usize,
}

/// What is known of one key.
#[derive(Debug, Default)]
struct Entry {
    sent_at: Option<Instant>,
    /// Where it was when it was last delivered.
    point: Option<Point>,
    held: Option<Position>,
    /// `None` where its frame is ripe.
    timer: Option<Instant>,
}

#[derive(Debug)]
struct Held {
    /// `None` where it stands apart.
    key: Option<Rc<[u8]>>,
    body: Bytes,
    point: Option<Point>,
    unchanged: SmallVec<[usize; 2]>,
}

impl Conflation {
    /// Nothing held, nothing known.
    pub(crate) fn new(tempo: Tempo) -> Conflation {
        Conflation {
            tempo,
            entries: HashMap::new(),
            held: BTreeMap::new(),
            ripe: BTreeSet::new(),
            timers: BTreeSet::new(),
            offered: Position::after(Lsn::ZERO),
            again: BTreeSet::new(),
            bytes: 0,
        }
    }

    /// Takes the next frame; returns how many it replaced. One that was offered before is ignored:
    /// a subscription that fell behind reads the changes of a pass again.
    pub(crate) fn offer(&mut self, offer: &Offer) -> usize {
        if offer.at <= self.offered && !self.again.remove(&offer.at) {
            return 0;
        }
        self.offered = self.offered.max(offer.at);
        if !self.again.is_empty() {
            self.again = self.again.split_off(&offer.at);
        }
        let apart = || Held {
            key: None,
            body: offer.body.clone(),
            point: None,
            unchanged: SmallVec::new(),
        };
        let mut replaced = 0;
        match &offer.subject {
            Subject::Key { key, point, unchanged } => {
                let (point, unchanged) = (*point, unchanged.clone());
                let held = Held { key: None, body: offer.body.clone(), point, unchanged };
                return self.hold(key, held, offer);
            }
            Subject::Apart(keys) => {
                for key in keys {
                    self.set_apart(key, offer.now);
                }
            }
            Subject::ApartFromAll => self.set_all_apart(offer.now),
            Subject::End => replaced = self.discard(),
        }
        self.insert(offer.at, apart());
        self.ripe.insert(offer.at);
        replaced
    }

    /// Lets ripen what is due, and forgets keys of which nothing has to be remembered.
    pub(crate) fn ripen(&mut self, now: Instant) {
        while let Some((at, key)) = self.timers.first() {
            if *at > now {
                return;
            }
            let key = Rc::clone(key);
            self.timers.pop_first();
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            entry.timer = None;
            match entry.held {
                Some(held) => {
                    self.ripe.insert(held);
                }
                None => self.forget(&key),
            }
        }
    }

    /// Lets so much go before its time, nearest first, that what is held and remembered then fits
    /// into `bytes_max`; returns how many keys that were.
    pub(crate) fn shed(&mut self, bytes_max: usize, now: Instant) -> usize {
        if self.bytes <= bytes_max {
            return 0;
        }
        let mut early = 0;
        let ripe = self.ripe.iter().filter_map(|at| self.held.get(at));
        let mut kept = self.bytes - ripe.map(Held::bytes).sum::<usize>();
        while kept > bytes_max {
            let Some((_, key)) = self.timers.pop_first() else { break };
            let held = self.entries.get(&key).and_then(|entry| entry.held);
            let freed = held.and_then(|at| self.held.get(&at)).map_or(0, Held::bytes);
            kept = kept.saturating_sub(freed + entry_bytes(&key));
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.timer = None;
            }
            self.set_apart(&key, now);
            self.forget(&key);
            early += 1;
        }
        early
    }

    /// Takes the oldest frame that is ripe; it counts as delivered.
    pub(crate) fn take(&mut self, now: Instant) -> Option<Bytes> {
        let at = self.ripe.pop_first()?;
        let held = self.remove(at)?;
        let Some(key) = held.key else { return Some(held.body) };
        let forgotten_at = now + self.tempo.linger;
        if let Some(entry) = self.entries.get_mut(&key) {
            (entry.sent_at, entry.point, entry.held) = (Some(now), held.point, None);
            if let Some(timer) = entry.timer.replace(forgotten_at) {
                self.timers.remove(&(timer, Rc::clone(&key)));
            }
            self.timers.insert((forgotten_at, key));
        }
        Some(held.body)
    }

    /// Everything before this was delivered or replaced by something that lies after it: what was
    /// offered, less what is held.
    pub(crate) fn position(&self) -> Position {
        let held = self.held.first_key_value().map(|(at, _)| at);
        let oldest = held.into_iter().chain(self.again.first()).min();
        oldest.map_or(self.offered, |at| Position { index: at.index.saturating_sub(1), ..*at })
    }

    /// Whether something waits.
    pub(crate) fn holds(&self) -> bool {
        !self.held.is_empty() || !self.again.is_empty()
    }

    /// Whether something may go out.
    pub(crate) fn has_ripe(&self) -> bool {
        !self.ripe.is_empty()
    }

    /// When to ask again, if nothing is offered until then.
    pub(crate) fn next_timer(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// About how much memory it takes.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Lets everything out at once.
    pub(crate) fn hurry(&mut self) {
        self.ripe.extend(self.held.keys());
    }

    /// Lets go of everything held, to be offered again: it was decided by a rule that is no longer
    /// in force. Whoever drives this reads on from [`Conflation::position`].
    pub(crate) fn rewind(&mut self) {
        let held: Vec<Position> = self.held.keys().copied().collect();
        self.discard();
        self.again.extend(held);
    }

    /// Everything was offered again: what did not come is not to be delivered any more.
    pub(crate) fn end_rewind(&mut self) {
        self.again.clear();
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        *self = Conflation::new(self.tempo);
    }

    fn hold(&mut self, key: &Key, mut held: Held, offer: &Offer) -> usize {
        let before = self.entries.get(key.as_slice()).and_then(|entry| entry.held);
        let before = before.and_then(|at| Some((at, self.held.get(&at)?)));
        let mut replaced = 0;
        if let Some((at, before)) = before {
            if held.unchanged.iter().all(|column| before.unchanged.contains(column)) {
                self.remove(at);
                self.ripe.remove(&at);
                replaced = 1;
            } else {
                self.set_apart(key, offer.now);
            }
        }
        let shared = self.entry(key);
        held.key = Some(Rc::clone(&shared));
        let point = held.point;
        self.insert(offer.at, held);
        let Some(entry) = self.entries.get_mut(&shared) else { return replaced };
        entry.held = Some(offer.at);
        let due = due(self.tempo, entry, point).unwrap_or(offer.now);
        if let Some(timer) = entry.timer.replace(due) {
            self.timers.remove(&(timer, Rc::clone(&shared)));
        }
        self.timers.insert((due, shared));
        replaced
    }

    /// The key's own copy of its bytes, with an entry.
    fn entry(&mut self, key: &Key) -> Rc<[u8]> {
        if let Some((known, _)) = self.entries.get_key_value(key.as_slice()) {
            return Rc::clone(known);
        }
        let shared: Rc<[u8]> = key.as_slice().into();
        self.bytes += entry_bytes(&shared);
        self.entries.insert(Rc::clone(&shared), Entry::default());
        shared
    }

    fn forget(&mut self, key: &Rc<[u8]>) {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes -= entry_bytes(key);
            if let Some(timer) = entry.timer {
                self.timers.remove(&(timer, Rc::clone(key)));
            }
        }
    }

    /// Lets out what is held of a key, so that nothing replaces it any more.
    fn set_apart(&mut self, key: &[u8], now: Instant) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let Some(at) = entry.held.take() else { return };
        let Some(held) = self.held.get_mut(&at) else { return };
        self.ripe.insert(at);
        (entry.sent_at, entry.point) = (Some(now), held.point);
        if let Some(shared) = held.key.take() {
            self.settle(&shared);
        }
    }

    fn set_all_apart(&mut self, now: Instant) {
        let keys: Vec<Rc<[u8]>> =
            self.held.values().filter_map(|held| held.key.as_ref().map(Rc::clone)).collect();
        for key in keys {
            self.set_apart(&key, now);
        }
    }

    /// Drops everything held; returns how many frames that were.
    fn discard(&mut self) -> usize {
        let held = std::mem::take(&mut self.held);
        self.ripe.clear();
        for held in held.values() {
            self.bytes -= held.bytes();
            let Some(key) = &held.key else { continue };
            if let Some(entry) = self.entries.get_mut(key) {
                entry.held = None;
                self.settle(key);
            }
        }
        held.len()
    }

    /// Gives a key that holds nothing any more the time at which it is forgotten.
    fn settle(&mut self, key: &Rc<[u8]>) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let Some(sent_at) = entry.sent_at else { return self.forget(key) };
        let forgotten_at = sent_at + self.tempo.linger;
        if let Some(timer) = entry.timer.replace(forgotten_at) {
            self.timers.remove(&(timer, Rc::clone(key)));
        }
        self.timers.insert((forgotten_at, Rc::clone(key)));
    }

    fn insert(&mut self, at: Position, held: Held) {
        self.bytes += held.bytes();
        self.held.insert(at, held);
    }

    fn remove(&mut self, at: Position) -> Option<Held> {
        let held = self.held.remove(&at)?;
        self.bytes -= held.bytes();
        Some(held)
    }
}

impl Held {
    fn bytes(&self) -> usize {
        HELD_BYTES + self.body.len()
    }
}

fn entry_bytes(key: &Rc<[u8]>) -> usize {
    ENTRY_BYTES + key.len()
}

/// When a key that is at `point` now may be heard of again; `None` where it was not heard of
/// lately. Where it is not known how far it moved, it moved far enough.
fn due(tempo: Tempo, entry: &Entry, point: Option<Point>) -> Option<Instant> {
    let sent_at = entry.sent_at?;
    let stayed = match (tempo.metres, entry.point, point) {
        (Some(metres), Some(before), Some(now)) => before.metres_to(now) < metres,
        _ => false,
    };
    Some(sent_at + if stayed { tempo.linger } else { tempo.interval })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::change::tuple::Cell;

    const INTERVAL: Duration = Duration::from_millis(100);
    const LINGER: Duration = Duration::from_millis(1000);

    fn position(number: u64) -> Position {
        // Three changes a transaction.
        Position::within(Lsn::new(1000 + number / 3), u32::try_from(number % 3).unwrap() + 1)
    }

    fn tempo(metres: Option<f64>) -> Tempo {
        Tempo {
            interval: INTERVAL,
            metres,
            linger: if metres.is_some() { LINGER } else { INTERVAL },
        }
    }

    fn key(number: u8) -> Key {
        Key::from_slice(&[number])
    }

    /// A place so many metres from the Gulf of Guinea's null island, to the east.
    fn east(metres: u32) -> Option<Point> {
        let degrees = (f64::from(metres) / 111_195.0).to_string();
        Point::read(Cell::Text(b"0"), Cell::Text(degrees.as_bytes()))
    }

    fn frame(number: u64, subject: Subject, now: Instant) -> Offer {
        let body = Bytes::from(number.to_string());
        Offer { subject, at: position(number), body, now }
    }

    fn of_key(number: u8, point: Option<Point>) -> Subject {
        Subject::Key { key: key(number), point, unchanged: SmallVec::new() }
    }

    /// The numbers of the frames that go out now.
    fn released(conflation: &mut Conflation, now: Instant) -> Vec<u64> {
        conflation.ripen(now);
        let mut numbers = Vec::new();
        while let Some(body) = conflation.take(now) {
            numbers.push(std::str::from_utf8(&body).unwrap().parse().unwrap());
        }
        numbers
    }

    /// What a person would write who has all the time: the newest frame and the last delivery of
    /// each key, looked at one by one.
    #[derive(Default)]
    struct Naive {
        keys: BTreeMap<u8, NaiveKey>,
    }

    #[derive(Default)]
    struct NaiveKey {
        /// When it was delivered last, and where it was.
        sent: Option<(Instant, u32)>,
        /// The newest frame, and where it is.
        held: Option<(u64, u32)>,
    }

    impl Naive {
        fn released(&mut self, tempo: Tempo, now: Instant) -> Vec<u64> {
            let mut numbers = Vec::new();
            for NaiveKey { sent, held } in self.keys.values_mut() {
                let Some((number, metres)) = *held else { continue };
                let ripe = sent.is_none_or(|(at, before)| {
                    let far =
                        tempo.metres.is_none_or(|min| f64::from(metres.abs_diff(before)) >= min);
                    now >= at + if far { tempo.interval } else { tempo.linger }
                });
                if ripe {
                    (*sent, *held) = (Some((now, metres)), None);
                    numbers.push(number);
                }
            }
            numbers.sort_unstable();
            numbers
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Wait(u64),
        Offer {
            key: u8,
            metres: u32,
        },
        Apart {
            key: u8,
        },
        ApartFromAll,
        End,
        /// The client takes what is ripe.
        Take,
    }

    fn steps(with_all: bool) -> impl Strategy<Value = Vec<Step>> {
        let usual = prop_oneof![
            3 => (0..120_u64).prop_map(Step::Wait),
            6 => (0..4_u8, 0..200_u32).prop_map(|(key, metres)| Step::Offer { key, metres: metres * 7 + 3 }),
            4 => Just(Step::Take),
        ];
        let rare = prop_oneof![
            (0..4_u8).prop_map(|key| Step::Apart { key }),
            Just(Step::ApartFromAll),
            Just(Step::End),
        ];
        let rarity = u32::from(with_all);
        prop::collection::vec(prop_oneof![12 => usual, rarity => rare], 0..80)
    }

    proptest! {
        #[test]
        fn it_answers_as_the_naive_one_does(steps in steps(false), moves: bool) {
            let tempo = tempo(moves.then_some(250.0));
            let (mut conflation, mut naive) = (Conflation::new(tempo), Naive::default());
            let (mut now, mut number) = (Instant::now(), 0);
            for step in steps {
                match step {
                    Step::Wait(ms) => now += Duration::from_millis(ms),
                    Step::Offer { key, metres } => {
                        number += 1;
                        conflation.offer(&frame(number, of_key(key, east(metres)), now));
                        naive.keys.entry(key).or_default().held = Some((number, metres));
                    }
                    _ => prop_assert_eq!(released(&mut conflation, now), naive.released(tempo, now)),
                }
            }
        }

        #[test]
        fn whatever_is_offered_the_rules_hold(steps in steps(true), bytes_max in 1500..4000_usize) {
            let mut conflation = Conflation::new(tempo(None));
            let (mut now, mut number) = (Instant::now(), 0);
            // By key: the newest frame; the newest delivered. Of all: what stands apart.
            let mut newest = [0_u64; 4];
            let mut delivered = [0_u64; 4];
            let mut of = BTreeMap::new();
            let mut owed = BTreeSet::new();
            let mut resumable = Position::after(Lsn::ZERO);
            for step in steps.into_iter().chain([Step::Wait(5000), Step::Take]) {
                number += 1;
                match step {
                    Step::Wait(ms) => now += Duration::from_millis(ms),
                    Step::Offer { key, .. } => {
                        conflation.offer(&frame(number, of_key(key, None), now));
                        (newest[usize::from(key)], _) = (number, of.insert(number, key));
                    }
                    Step::Apart { key: of } => {
                        let keys = smallvec::smallvec![key(of)];
                        conflation.offer(&frame(number, Subject::Apart(keys), now));
                        owed.insert(number);
                    }
                    Step::ApartFromAll => {
                        conflation.offer(&frame(number, Subject::ApartFromAll, now));
                        owed.insert(number);
                    }
                    Step::End => {
                        conflation.offer(&frame(number, Subject::End, now));
                        newest = delivered;
                        owed = BTreeSet::from([number]);
                    }
                    Step::Take => {
                        conflation.shed(bytes_max, now);
                        let mut before = 0;
                        for number in released(&mut conflation, now) {
                            prop_assert!(number > before, "{number} after {before}");
                            before = number;
                            let Some(key) = of.get(&number).copied() else {
                                prop_assert!(owed.remove(&number));
                                continue;
                            };
                            prop_assert!(number > delivered[usize::from(key)]);
                            delivered[usize::from(key)] = number;
                        }
                        prop_assert!(conflation.bytes() <= bytes_max);
                    }
                }
                // Who resumes misses nothing that counts.
                let at = conflation.position();
                prop_assert!(at >= resumable, "{at:?} after {resumable:?}");
                resumable = at;
                for (newest, delivered) in newest.iter().zip(&delivered) {
                    prop_assert!(newest == delivered || position(*newest) > at);
                }
                prop_assert!(owed.iter().all(|number| position(*number) > at));
            }
            prop_assert_eq!((newest, owed.len()), (delivered, 0));
            now += LINGER;
            prop_assert!(released(&mut conflation, now).is_empty());
            prop_assert_eq!((conflation.bytes(), conflation.next_timer()), (0, None));
        }
    }

    #[test]
    fn a_large_value_is_not_lost_with_the_frame_that_carries_it() {
        let mut conflation = Conflation::new(tempo(None));
        let now = Instant::now();
        let with = |number, unchanged: &[usize]| {
            let (key, unchanged) = (key(1), SmallVec::from_slice(unchanged));
            frame(number, Subject::Key { key, point: None, unchanged }, now)
        };
        conflation.offer(&with(1, &[]));
        assert_eq!(released(&mut conflation, now), [1]);
        assert_eq!(conflation.offer(&with(2, &[3])), 0);
        assert_eq!(conflation.offer(&with(3, &[3])), 1);
        assert_eq!(conflation.offer(&with(4, &[])), 1);
        assert_eq!(conflation.offer(&with(5, &[3])), 0);
        assert_eq!(released(&mut conflation, now), [4]);
        assert_eq!(released(&mut conflation, now + INTERVAL), [5]);
    }

    #[test]
    fn a_small_way_adds_up_and_a_standing_key_is_heard_of_in_the_end() {
        let mut conflation = Conflation::new(tempo(Some(100.0)));
        let begin = Instant::now();
        let mut heard = Vec::new();
        for step in 0..60_u32 {
            let now = begin + INTERVAL * step;
            // Thirty metres a step, then it stands.
            let metres = (step * 30).min(600);
            conflation.offer(&frame(u64::from(step) + 1, of_key(1, east(metres)), now));
            heard.extend(released(&mut conflation, now).into_iter().map(|_| step));
        }
        assert_eq!(heard, [0, 4, 8, 12, 16, 20, 30, 40, 50]);
    }

    #[test]
    fn what_was_rewound_is_taken_again_and_keeps_its_interval() {
        let mut conflation = Conflation::new(tempo(None));
        let now = Instant::now();
        let offer = |number| frame(number, of_key(1, None), now);
        conflation.offer(&offer(3));
        assert_eq!(released(&mut conflation, now), [3]);
        conflation.offer(&offer(4));
        conflation.offer(&offer(4));
        let from = conflation.position();
        assert_eq!(from, position(3));
        conflation.rewind();
        assert!(released(&mut conflation, now).is_empty());
        assert_eq!((conflation.holds(), conflation.position()), (true, from));
        for number in [3, 4, 5, 4] {
            conflation.offer(&frame(number, of_key(1, None), now + INTERVAL / 2));
        }
        assert!(released(&mut conflation, now + INTERVAL / 2).is_empty());
        assert_eq!(released(&mut conflation, now + INTERVAL), [5]);
        conflation.offer(&frame(6, of_key(1, None), now + INTERVAL));
        conflation.rewind();
        conflation.end_rewind();
        assert_eq!((conflation.holds(), conflation.position()), (false, position(6)));
    }
}
