//! The body of a change's frames, written once for all groups that are shown the same of it.
//!
//! Groups differ by their rules: those of a team's members hold other claims each, and are shown the
//! same row in the same form. What is written last is kept, so that the next group of a change is
//! only decided.

use std::rc::Rc;

use crate::route::decide::Visible;
use crate::route::group::Shape;
use crate::route::projection::Projection;
use crate::route::subscription::Op;

/// What was last written of the change at hand.
#[derive(Debug, Default)]
pub(crate) struct Body {
    bytes: Vec<u8>,
    of: Option<Showing>,
}

/// What a body depends on beside its change.
#[derive(Debug)]
struct Showing {
    projection: Rc<Projection>,
    dialect: &'static str,
    op: Op,
    has_new: bool,
    has_old: bool,
}

impl Body {
    /// The change is over: nothing of it is any good for the next.
    pub(crate) fn forget(&mut self) {
        self.of = None;
    }

    /// What was written.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Writes what a shape is shown of the change into an empty buffer, where that is not what is
    /// there.
    pub(crate) fn show(
        &mut self,
        shape: &Shape,
        visible: Visible<'_>,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        if self.of.as_ref().is_some_and(|of| of.is(shape, visible)) {
            return;
        }
        self.bytes.clear();
        write(&mut self.bytes);
        self.of = Some(Showing {
            projection: Rc::clone(&shape.projection),
            dialect: shape.dialect.name(),
            op: visible.op(),
            has_new: visible.new_row().is_some(),
            has_old: visible.old_row().is_some(),
        });
    }
}

impl Showing {
    /// Projections that are equal are one, and the images of a change are the same for everybody.
    fn is(&self, shape: &Shape, visible: Visible<'_>) -> bool {
        Rc::ptr_eq(&self.projection, &shape.projection)
            && self.op == visible.op()
            && self.has_new == visible.new_row().is_some()
            && self.has_old == visible.old_row().is_some()
            && self.dialect == shape.dialect.name()
    }
}
