//! What Postgres has said, for as long as nothing changes that it may hang on.
//!
//! ```text
//! ask_for: images × names ──known──▶ told at once, or with the rest's answer
//!                         └─the rest─▶ Inquiry ─▶ settle ──learn──▶ (here)
//! ```
//!
//! A word hangs on the image (the columns that the policies read), on the role and all of its claims, on
//! the policies, on what the catalogue holds, and on the tables that the policies look into. The first
//! three are the key. What the catalogue holds is its generation: another one, and everything is
//! forgotten. The tables are followed in the ring: a transaction that touches one of them ends the
//! *window* in which words hold, and begins the next.
//!
//! A window says of which changes its words are: of the row after a change from the touching transaction
//! on, of the row before a change only after that. Who reads changes of before asks.
//!
//! # Invariants
//!
//! - A word is learned only where its answer saw every touch that the ring has seen, and nothing that
//!   the ring has not. So it is of the window that is open when it is learned. (`settle`)
//! - A transaction of which parts are still to come may touch a table yet: its changes find nothing
//!   here before it is whole.
//! - Only policies are remembered of which it is known that nothing else matters:
//!   [`Asked::steady`](crate::route::asked::Asked::steady).
//! - Memory is bounded: what was not of use for long makes room.
//! - No word is older than [`SECONDS_MAX`]. The catalogue is looked at now and then: a policy that was
//!   made and dropped between two looks leaves no trace but in what it said.

use std::collections::HashMap;
use std::sync::Arc;

use crate::ask::verdict::Image;
use crate::ask::verdict::Name;
use crate::ask::verdict::Word;
use crate::change::id::RelationId;
use crate::change::id::Xid;
use crate::ring::Ring;
use crate::route::asked::batch::Batch;
use crate::route::asked::batch::Part;

/// How long a window stays open at the most, and so what is said in it counts.
const SECONDS_MAX: u32 = 60;

/// What an entry takes beside its texts, about.
const IMAGE_BYTES: usize = 128;
const NAME_BYTES: usize = 160;
const WORD_BYTES: usize = 16;

/// Words of all policies of a shard.
#[derive(Debug, Default)]
pub(super) struct Memo {
    bytes_max: usize,
    /// The catalogue's, as of which everything is.
    generation: u64,
    /// By the matter's place.
    windows: HashMap<usize, Window>,
    /// How many windows were opened.
    pages: u64,
    /// What was of use lately, and what was before: the older half goes as a whole.
    young: Half,
    old: Half,
}

/// By what words are kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// Bytes that they may take.
    pub(super) bytes_max: usize,
    /// The catalogue's generation.
    pub(super) generation: u64,
    /// What the shard's clock says.
    pub(super) seconds: u32,
}

/// Where the words of a matter hold.
#[derive(Debug)]
struct Window {
    /// When it was opened.
    seconds: u32,
    /// The number of its words' page.
    page: u64,
    watched: Arc<[RelationId]>,
    /// The last transaction that touched one of these, as far as it is known: it, and all before.
    touched: Option<u64>,
    xid: Option<Xid>,
    /// The first transaction that was not looked at.
    next: u64,
}

#[derive(Debug, Default)]
struct Half {
    pages: HashMap<u64, Page>,
    names: HashMap<Arc<Name>, u32>,
    bytes: usize,
    words: usize,
}

/// The words of one window.
#[derive(Debug, Default)]
struct Page {
    words: HashMap<Image, HashMap<u32, Word>>,
    bytes: usize,
    count: usize,
}

/// What is known of a batch, image by image.
#[derive(Debug)]
pub(super) struct Found<'a> {
    young: Vec<Option<&'a HashMap<u32, Word>>>,
    old: Vec<Option<&'a HashMap<u32, Word>>>,
    names: [&'a HashMap<Arc<Name>, u32>; 2],
}

impl Memo {
    /// Opens the window of a matter, unless it is open, and brings it to the ring's end; `false` where
    /// nothing is to be remembered.
    pub(super) fn follow(
        &mut self,
        Terms { bytes_max, generation, seconds }: Terms,
        (matter, watched): (usize, &Arc<[RelationId]>),
        ring: &Ring,
    ) -> bool {
        if self.generation != generation || bytes_max == 0 {
            self.clear();
        }
        (self.bytes_max, self.generation) = (bytes_max, generation);
        if bytes_max == 0 {
            return false;
        }
        let end = ring.end().transaction;
        let unknown = end.checked_sub(1);
        let pages = &mut self.pages;
        let window = self.windows.entry(matter).or_insert_with(|| {
            *pages += 1;
            let xid = unknown.and_then(|at| ring.get(at)).map(|it| it.xid);
            let watched = Arc::clone(watched);
            Window { seconds, page: *pages, watched, touched: unknown, xid, next: end }
        });
        let old = window.page;
        if window.follow(ring) || seconds.saturating_sub(window.seconds) >= SECONDS_MAX {
            *pages += 1;
            (window.page, window.seconds) = (*pages, seconds);
        }
        if window.page != old {
            self.forget_page(old);
        }
        true
    }

    /// Forgets what is known of a matter.
    pub(super) fn forget(&mut self, matter: usize) {
        if let Some(window) = self.windows.remove(&matter) {
            self.forget_page(window.page);
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.windows.clear();
        (self.young, self.old) = (Half::default(), Half::default());
    }

    fn forget_page(&mut self, page: u64) {
        for half in [&mut self.young, &mut self.old] {
            if let Some(page) = half.pages.remove(&page) {
                half.bytes = half.bytes.saturating_sub(page.bytes);
                half.words = half.words.saturating_sub(page.count);
            }
        }
    }

    /// Which images of a batch are asked about as of a moment in the window, in all of its changes.
    pub(super) fn holds_for(&self, batch: &Batch, ring: &Ring) -> Vec<bool> {
        let mut holds = vec![true; batch.images.len()];
        let window = self.windows.get(&batch.matter);
        for entry in &batch.entries {
            let number = entry.place.transaction;
            let is_whole = ring.get(number).is_some_and(|it| it.end_lsn.is_some());
            let within = |part| {
                is_whole
                    && window.is_some_and(|window| match (window.touched, part) {
                        (None, _) => true,
                        (Some(touched), Side::New) => number >= touched,
                        (Some(touched), Side::Old) => number > touched,
                    })
            };
            for (part, side) in [(entry.old, Side::Old), (entry.new, Side::New)] {
                if let Part::At(at) = part
                    && !within(side)
                    && let Some(holds) = holds.get_mut(at)
                {
                    *holds = false;
                }
            }
        }
        holds
    }

    /// What is known of a batch's images where the window holds.
    pub(super) fn look_up(&self, batch: &Batch, holds: &[bool]) -> Found<'_> {
        let page = self.windows.get(&batch.matter).map(|window| window.page);
        let (young, old) = (&self.young, &self.old);
        Found {
            young: young.images(page, batch, holds),
            old: old.images(page, batch, holds),
            names: [&young.names, &old.names],
        }
    }

    /// Learns a name's words, from an answer that saw every transaction before `unseen`, and nothing
    /// that the ring has not.
    pub(super) fn learn<'a>(
        &mut self,
        matter: usize,
        unseen: u64,
        name: &Arc<Name>,
        words: impl Iterator<Item = (&'a Image, Word)>,
    ) {
        let window = self.windows.get(&matter);
        if window.is_some_and(|window| window.touched.is_none_or(|touched| unseen > touched)) {
            self.keep(matter, name, words);
        }
    }

    /// Keeps words that hold in the window.
    pub(super) fn keep<'a>(
        &mut self,
        matter: usize,
        name: &Arc<Name>,
        words: impl Iterator<Item = (&'a Image, Word)>,
    ) {
        let Some(page) = self.windows.get(&matter).map(|window| window.page) else { return };
        for (image, word) in words {
            self.young.put(page, name, image, word);
        }
    }

    /// Makes room; tells how many words went.
    pub(super) fn make_room(&mut self) -> usize {
        if self.young.bytes <= self.bytes_max / 2 {
            return 0;
        }
        let young = std::mem::take(&mut self.young);
        std::mem::replace(&mut self.old, young).words
    }
}

/// Which row an image is.
#[derive(Clone, Copy)]
enum Side {
    Old,
    New,
}

impl Window {
    /// Looks at what the ring got since; whether its tables were touched.
    fn follow(&mut self, ring: &Ring) -> bool {
        let (begin, end) = (ring.begins(), ring.end().transaction);
        let mut touched = None;
        if self.next < begin {
            // It is gone, so it may have touched them.
            touched = begin.checked_sub(1);
            self.next = begin;
            self.xid = None;
        }
        for number in self.next..end {
            let Some(transaction) = ring.get(number) else { continue };
            let mut relations = transaction.relations().iter();
            let follows = self.xid == Some(transaction.xid)
                && touched.or(self.touched).is_some_and(|last| last + 1 == number);
            if follows || relations.any(|it| self.watched.binary_search(&it.id).is_ok()) {
                (touched, self.xid) = (Some(number), Some(transaction.xid));
            }
        }
        self.next = self.next.max(end);
        self.touched = touched.or(self.touched);
        touched.is_some()
    }
}

impl Half {
    fn images(
        &self,
        page: Option<u64>,
        batch: &Batch,
        holds: &[bool],
    ) -> Vec<Option<&HashMap<u32, Word>>> {
        let page = page.and_then(|page| self.pages.get(&page));
        let word = |(image, holds): (&Image, &bool)| page.filter(|_| *holds)?.words.get(image);
        batch.images.iter().zip(holds).map(word).collect()
    }

    fn put(&mut self, page: u64, name: &Arc<Name>, image: &Image, word: Word) {
        let mut bytes = WORD_BYTES;
        let name = match self.names.get(name) {
            Some(known) => *known,
            None => {
                let number = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
                self.bytes += NAME_BYTES + name.bytes();
                self.names.insert(Arc::clone(name), number);
                number
            }
        };
        let page = self.pages.entry(page).or_default();
        let words = page.words.entry(image.clone()).or_insert_with(|| {
            bytes += IMAGE_BYTES + image.bytes();
            HashMap::new()
        });
        if words.insert(name, word).is_none() {
            page.bytes += bytes;
            page.count += 1;
            self.bytes += bytes;
            self.words += 1;
        }
    }
}

impl Found<'_> {
    /// The words that a name has for some images, each with whether it was not of use for a while.
    pub(super) fn words(&self, name: &Arc<Name>, images: &[usize]) -> Vec<(usize, Word, bool)> {
        let [young, old] = self.names.map(|names| names.get(name));
        let word = |halves: &[Option<&HashMap<u32, Word>>], at: usize, name: Option<&u32>| {
            halves.get(at).copied().flatten()?.get(name?).copied()
        };
        let known = |at: &usize| {
            let fresh = word(&self.young, *at, young).map(|word| (*at, word, false));
            fresh.or_else(|| word(&self.old, *at, old).map(|word| (*at, word, true)))
        };
        images.iter().filter_map(known).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::change::cursor::Source;
    use crate::change::lsn::Lsn;
    use crate::change::relation::Relation;
    use crate::change::relation::ReplicaIdentity;
    use crate::change::transaction::ChangeKind;
    use crate::change::transaction::Timestamp;
    use crate::change::transaction::TransactionBuilder;
    use crate::ring::Place;
    use crate::ring::Settings;
    use crate::route::asked::batch::Entry;
    use crate::route::image::ImageKind;

    const DOCS: u32 = 1;
    const MEMBERS: u32 = 2;
    const TERMS: Terms = Terms { bytes_max: 1 << 20, generation: 1, seconds: 7 };

    fn relation(id: u32) -> Arc<Relation> {
        Arc::new(Relation {
            id: RelationId(id),
            version: 1,
            schema: "public".into(),
            name: "t".into(),
            identity: ReplicaIdentity::Full,
            columns: Vec::new(),
            primary_key: Vec::new(),
        })
    }

    fn ring(bytes_max: usize) -> Ring {
        let settings = Settings { bytes_max, age_max: Duration::from_mins(10) };
        Ring::new(settings, Source { system: 7, timeline: 1 }, Lsn::new(1))
    }

    /// Appends a transaction that changes a table, or a part of one.
    fn append(ring: &mut Ring, (xid, part): (u32, u32), table: u32, is_last: bool) {
        let commit = u64::from(xid) * 10;
        let mut builder = TransactionBuilder::new(Xid(xid), Lsn::new(commit), Timestamp(0));
        builder = builder.skipping(part);
        for _ in 0..=part {
            builder.push(&relation(table), ChangeKind::Truncate).unwrap();
        }
        let part = if is_last { builder.commit(Lsn::new(commit + 1)) } else { builder.cut() };
        assert!(ring.append(Arc::new(part)));
    }

    /// Two images of one change: the row before it, and after it.
    fn batch(transaction: u64) -> Batch {
        let place = Place { transaction, change: 0 };
        let (old, new) = (Part::At(0), Part::At(1));
        let entries = vec![Entry { place, kind: ImageKind::Update, old, new }];
        let images = Arc::new([Image::of("a"), Image::of("b")]);
        Batch { matter: 0, begin: place, end: place, entries, images }
    }

    fn name() -> Arc<Name> {
        Arc::new(Name { role: "web".into(), settings: Vec::new(), unset: None })
    }

    fn watched() -> Arc<[RelationId]> {
        Arc::new([RelationId(MEMBERS)])
    }

    /// Which of the two images the window holds for, by now.
    fn holds(memo: &mut Memo, ring: &Ring, transaction: u64) -> [bool; 2] {
        assert!(memo.follow(TERMS, (0, &watched()), ring));
        memo.holds_for(&batch(transaction), ring).try_into().unwrap()
    }

    fn known(memo: &Memo, batch: &Batch) -> usize {
        memo.look_up(batch, &[true, true]).words(&name(), &[0, 1]).len()
    }

    #[test]
    fn a_window_begins_after_the_last_touch_and_ends_before_the_next() {
        let (mut memo, mut ring) = (Memo::default(), ring(1 << 20));
        assert!(memo.follow(TERMS, (0, &watched()), &ring));
        append(&mut ring, (1, 0), DOCS, true);
        assert_eq!(holds(&mut memo, &ring, 0), [true, true]);
        append(&mut ring, (2, 0), MEMBERS, true);
        append(&mut ring, (3, 0), DOCS, true);
        assert_eq!(holds(&mut memo, &ring, 0), [false, false]);
        assert_eq!(holds(&mut memo, &ring, 1), [false, true], "the touching transaction itself");
        assert_eq!(holds(&mut memo, &ring, 2), [true, true]);
    }

    #[test]
    fn a_transaction_counts_as_a_whole() {
        let (mut memo, mut ring) = (Memo::default(), ring(1 << 20));
        assert!(memo.follow(TERMS, (0, &watched()), &ring));
        append(&mut ring, (1, 0), DOCS, false);
        assert_eq!(holds(&mut memo, &ring, 0), [false, false], "it may touch them yet");
        append(&mut ring, (1, 1), MEMBERS, false);
        append(&mut ring, (1, 2), DOCS, true);
        assert_eq!(holds(&mut memo, &ring, 0), [false, false]);
        assert_eq!(holds(&mut memo, &ring, 2), [false, true], "the row before it is of before");
        append(&mut ring, (2, 0), DOCS, true);
        assert_eq!(holds(&mut memo, &ring, 3), [true, true]);
    }

    #[test]
    fn a_word_is_learned_from_an_answer_that_saw_the_last_touch_and_forgotten_at_the_next() {
        let (mut memo, mut ring) = (Memo::default(), ring(1 << 20));
        append(&mut ring, (1, 0), MEMBERS, true);
        append(&mut ring, (2, 0), DOCS, true);
        let batch = batch(1);
        let learn = |memo: &mut Memo, unseen| {
            let words = batch.images.iter().map(|image| (image, Word::Seen));
            memo.learn(0, unseen, &name(), words);
        };
        assert!(memo.follow(TERMS, (0, &watched()), &ring));
        append(&mut ring, (3, 0), MEMBERS, true);
        assert!(memo.follow(TERMS, (0, &watched()), &ring));
        learn(&mut memo, 2);
        assert_eq!(known(&memo, &batch), 0, "it did not see the last touch");
        learn(&mut memo, 3);
        assert_eq!(known(&memo, &batch), 2);
        append(&mut ring, (4, 0), MEMBERS, true);
        assert!(memo.follow(TERMS, (0, &watched()), &ring));
        assert_eq!(known(&memo, &batch), 0);
        assert_eq!((memo.young.bytes - NAME_BYTES - name().bytes(), memo.young.words), (0, 0));
    }

    #[test]
    fn everything_is_forgotten_under_another_catalogue_and_after_a_hole() {
        let (mut memo, mut ring) = (Memo::default(), ring(1));
        let batch = batch(0);
        let fill = |memo: &mut Memo, generation, ring: &Ring| {
            assert!(memo.follow(Terms { generation, ..TERMS }, (0, &watched()), ring));
            let known = known(memo, &batch);
            memo.learn(0, 9, &name(), batch.images.iter().map(|image| (image, Word::Seen)));
            known
        };
        assert_eq!(fill(&mut memo, 1, &ring), 0);
        assert_eq!(fill(&mut memo, 1, &ring), 2);
        assert_eq!(fill(&mut memo, 2, &ring), 0);
        // The ring holds one transaction, and lets the others go unseen.
        for xid in 1..4 {
            append(&mut ring, (xid, 0), DOCS, true);
        }
        assert_eq!(fill(&mut memo, 2, &ring), 0);
    }

    #[test]
    fn no_word_counts_for_longer_than_a_minute() {
        let (mut memo, ring) = (Memo::default(), ring(1 << 20));
        let batch = batch(0);
        let mut known_at = |seconds| {
            assert!(memo.follow(Terms { seconds, ..TERMS }, (0, &watched()), &ring));
            let known = known(&memo, &batch);
            memo.learn(0, 9, &name(), batch.images.iter().map(|image| (image, Word::Seen)));
            known
        };
        assert_eq!([100, 130, 159, 160, 219, 220].map(&mut known_at), [0, 2, 2, 0, 2, 0]);
    }
}
