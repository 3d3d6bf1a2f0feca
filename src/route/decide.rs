//! Who sees a change: the one place where a row image becomes visible to a subscription.

use crate::change::tuple::Cell;
use crate::route::image::ImageKind;
use crate::route::image::Images;
use crate::route::subscription::Op;
use crate::rule::Rule;
use crate::rule::Undecided;
use crate::rule::Verdict;

/// What a subscription may be told of a change. Only [`decide`] makes one, and frames are made of
/// nothing else, so that no row can be encoded whose rule was not asked.
#[derive(Clone, Copy, Debug)]
pub struct Visible<'a> {
    op: Op,
    new: Option<&'a [Cell<'a>]>,
    old: Option<&'a [Cell<'a>]>,
}

impl<'a> Visible<'a> {
    /// What happened, from the subscription's view.
    #[must_use]
    pub const fn op(self) -> Op {
        self.op
    }

    /// The row after the change, where it may be shown.
    #[must_use]
    pub const fn new_row(self) -> Option<&'a [Cell<'a>]> {
        self.new
    }

    /// The row before the change, where it was visible and the stream told it. Of a row that
    /// leaves, only the key may be shown.
    #[must_use]
    pub const fn old_row(self) -> Option<&'a [Cell<'a>]> {
        self.old
    }
}

/// What comes of a change for one rule.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Decision<'a> {
    /// It is delivered.
    Shown(Visible<'a>),
    /// It is none of the subscription's business.
    Hidden,
    /// It can't be decided, so it is not delivered, and counted.
    Undecided,
    /// What the rule reads of other tables is not known of that moment, so that nothing can be said.
    Unheld,
}

/// The rows of another table, as they were at the change, are not known (any more, or yet).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unheld;

/// Decides a change by a rule (filter and policy in one), on the old and on the new image.
///
/// An update whose old image is unknown is an `update` where the new image is visible: the client
/// takes it as "this is how the row is now". Where the new image is hidden nothing is said, because
/// it is not known whether the client ever had the row.
pub(crate) fn decide<'a>(rule: &Rule, images: &'a Images<'_>) -> Decision<'a> {
    let new = images.new.as_deref().map(|row| (row, rule.evaluate_among(row, images.others.after)));
    let old =
        images.old.as_deref().map(|row| (row, rule.evaluate_among(row, images.others.before)));
    conclude(images, old, new)
}

/// What somebody else says of the images, where the rule alone does not tell.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Said {
    pub(crate) old: Verdict,
    pub(crate) new: Verdict,
}

/// The same for a rule that alone does not tell: an image is visible where both say so.
pub(crate) fn decide_said<'a>(rule: &Rule, images: &'a Images<'_>, said: Said) -> Decision<'a> {
    let both = |row: &[Cell<'_>], said| match (rule.evaluate(row), said) {
        (Verdict::Rejects, _) | (_, Verdict::Rejects) => Verdict::Rejects,
        (Verdict::Undecided(why), _) | (_, Verdict::Undecided(why)) => Verdict::Undecided(why),
        (Verdict::Admits, Verdict::Admits) => Verdict::Admits,
    };
    let new = images.new.as_deref().map(|row| (row, both(row, said.new)));
    let old = images.old.as_deref().map(|row| (row, both(row, said.old)));
    conclude(images, old, new)
}

/// An image of a row, and what is said of it.
type Judged<'a> = Option<(&'a [Cell<'a>], Verdict)>;

fn conclude<'a>(images: &'a Images<'_>, old: Judged<'a>, new: Judged<'a>) -> Decision<'a> {
    const UNHELD: Verdict = Verdict::Undecided(Undecided::Unheld);
    match (images.kind, old, new) {
        (ImageKind::Truncate, ..) => shown(Op::Truncate, None, None),
        (ImageKind::Insert | ImageKind::Update, _, Some((_, UNHELD)))
        | (ImageKind::Update | ImageKind::Delete, Some((_, UNHELD)), _) => Decision::Unheld,
        (ImageKind::Insert | ImageKind::Snapshot, _, Some((new, verdict))) => match verdict {
            Verdict::Admits | UNHELD if images.kind == ImageKind::Snapshot => {
                shown(Op::Snapshot, None, Some(new))
            }
            Verdict::Admits => shown(Op::Insert, None, Some(new)),
            Verdict::Rejects => Decision::Hidden,
            Verdict::Undecided(_) => Decision::Undecided,
        },
        (ImageKind::Delete, Some((old, verdict)), _) => match verdict {
            Verdict::Admits => shown(Op::Delete, Some(old), None),
            Verdict::Rejects => Decision::Hidden,
            Verdict::Undecided(_) => Decision::Undecided,
        },
        (ImageKind::Update, Some((old, before)), Some((new, after))) => {
            let sent = images.old_sent.then_some(old);
            match (before, after) {
                (Verdict::Admits, Verdict::Admits) => shown(Op::Update, sent, Some(new)),
                (Verdict::Rejects, Verdict::Admits) => shown(Op::Enter, None, Some(new)),
                (Verdict::Undecided(_), Verdict::Admits) => shown(Op::Update, None, Some(new)),
                (Verdict::Admits, Verdict::Rejects) => shown(Op::Leave, Some(old), None),
                (Verdict::Rejects, Verdict::Rejects) => Decision::Hidden,
                (Verdict::Undecided(_), Verdict::Rejects) | (_, Verdict::Undecided(_)) => {
                    Decision::Undecided
                }
            }
        }
        _ => Decision::Hidden,
    }
}

const fn shown<'a>(
    op: Op,
    old: Option<&'a [Cell<'a>]>,
    new: Option<&'a [Cell<'a>]>,
) -> Decision<'a> {
    Decision::Shown(Visible { op, new, old })
}
