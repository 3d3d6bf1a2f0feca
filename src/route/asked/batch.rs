//! A stretch of the ring, as images that can be asked about.

use std::collections::HashMap;
use std::sync::Arc;

use crate::ask::verdict::IMAGE_BYTES_MAX;
use crate::ask::verdict::IMAGES_MAX;
use crate::ask::verdict::Image;
use crate::ask::verdict::Matter;
use crate::change::tuple::Cell;
use crate::ring::Gap;
use crate::ring::Place;
use crate::ring::Ring;
use crate::route::image::ImageKind;
use crate::route::image::Images;

/// Transactions that one batch looks at.
const TRANSACTIONS_MAX: usize = 4096;

/// The changes of one table in a stretch of the ring.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) matter: usize,
    pub(super) begin: Place,
    /// The first change that is not in it.
    pub(super) end: Place,
    pub(super) entries: Vec<Entry>,
    pub(super) images: Arc<[Image]>,
}

/// One change.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) place: Place,
    pub(super) kind: ImageKind,
    pub(super) old: Part,
    pub(super) new: Part,
}

/// One image of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// There is none.
    Absent,
    /// A value that the policies read is not in it.
    Missing,
    /// It is the batch's image at this place.
    At(usize),
}

/// Images while they are gathered, each once.
#[derive(Default)]
struct Gathered {
    images: Vec<Image>,
    places: HashMap<Image, usize>,
    bytes: usize,
    shared: u64,
}

impl Batch {
    /// Gathers what stands in the ring from a place on, up to `end`; also tells how many images
    /// were equal to others.
    ///
    /// # Errors
    ///
    /// [`Gap`] where the table had another shape at the very place.
    pub(super) fn gather(
        ring: &Ring,
        (matter, of): (&Matter, usize),
        begin: Place,
        end: Place,
    ) -> Result<(Batch, u64), Gap> {
        let mut batch =
            Batch { matter: of, begin, end: begin, entries: Vec::new(), images: Arc::new([]) };
        let mut gathered = Gathered::default();
        let relation = matter.relation.id;
        let last = begin.transaction.saturating_add(TRANSACTIONS_MAX.try_into().unwrap_or(0));
        'ring: while batch.end < end && batch.end.transaction < last {
            let Some(transaction) = ring.get(batch.end.transaction) else { break };
            if transaction.touches(relation) {
                for change in transaction.changes_from(batch.end.change) {
                    if batch.end >= end || gathered.is_full() {
                        break 'ring;
                    }
                    if change.relation.id == relation {
                        if change.relation.version != matter.relation.version {
                            if batch.end == begin {
                                return Err(Gap::SchemaChanged);
                            }
                            break 'ring;
                        }
                        let images = Images::of(change.relation, &change.kind);
                        let (place, kind) = (batch.end, images.kind);
                        let old = gathered.take(matter, images.old.as_deref());
                        let new = gathered.take(matter, images.new.as_deref());
                        batch.entries.push(Entry { place, kind, old, new });
                    }
                    batch.end.change += 1;
                }
                if batch.end >= end {
                    break;
                }
            }
            batch.end = Place { transaction: batch.end.transaction + 1, change: 0 };
        }
        batch.end = batch.end.min(end);
        batch.images = gathered.images.into();
        Ok((batch, gathered.shared))
    }

    /// The number of the last transaction of which a change is in it.
    pub(super) fn last(&self) -> u64 {
        self.entries.last().map_or(self.begin.transaction, |entry| entry.place.transaction)
    }
}

impl Gathered {
    fn is_full(&self) -> bool {
        self.images.len() + 2 > IMAGES_MAX || self.bytes >= IMAGE_BYTES_MAX
    }

    fn take(&mut self, matter: &Matter, row: Option<&[Cell<'_>]>) -> Part {
        let Some(row) = row else { return Part::Absent };
        let Some(image) = Image::write(matter, row) else { return Part::Missing };
        if let Some(known) = self.places.get(&image) {
            self.shared += 1;
            return Part::At(*known);
        }
        let at = self.images.len();
        self.bytes += image.bytes();
        self.images.push(image.clone());
        self.places.insert(image, at);
        Part::At(at)
    }
}
