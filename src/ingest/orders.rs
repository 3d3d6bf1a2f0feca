//! What the stage is asked to do while it runs: rest, give up the window, let go of the log.
//!
//! ```text
//! control ── pause, hold ─┐
//! budget ── shed, let_go, database_gone ─┴─▶ Orders ──watch──▶ the stage, between two frames
//! ```
//!
//! Orders are a state that is wanted, not a queue: the last word counts, and what is wanted when the
//! stage connects is done then. Only [`Orders::let_go`] is done once; the stage takes it back.

use std::sync::Arc;

use tokio::sync::watch;

use crate::ingest::progress::Window;

/// A way to ask the stage. Clones ask the same one.
#[derive(Clone, Debug, Default)]
pub struct Orders(Arc<watch::Sender<Wanted>>);

/// What is wanted of the stage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Read nothing, and let the server hear from us all the same.
    pub paused: bool,
    /// Hold nothing back: confirm all that is routed.
    pub shed: bool,
    /// Give up what the slot holds, and begin a new history; why, for a person.
    pub let_go: Option<Arc<str>>,
    /// The database does not answer others. A stream that is not read can't know.
    pub database_gone: bool,
    /// What other settings want to be held; absent where those of the start hold.
    pub held: Option<Held>,
}

/// What of the stage's settings can be others while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// How far the confirmed position is held back.
    pub window: Window,
    /// How large a part of a large transaction becomes.
    pub part_bytes: usize,
}

impl Orders {
    /// Orders that want nothing.
    #[must_use]
    pub fn new() -> Orders {
        Orders::default()
    }

    /// Lets the stream rest, or go on. Nothing is lost: Postgres keeps the log.
    pub fn pause(&self, paused: bool) {
        self.change(|wanted| &mut wanted.paused, paused);
    }

    /// Gives the window up, or holds it again.
    pub fn shed(&self, shed: bool) {
        self.change(|wanted| &mut wanted.shed, shed);
    }

    /// Lets go of all the log that the slot holds: what was not routed is never delivered, and every
    /// client has to start again.
    pub fn let_go(&self, why: Arc<str>) {
        self.change(|wanted| &mut wanted.let_go, Some(why));
    }

    /// Lets other settings hold.
    pub fn hold(&self, held: Held) {
        self.change(|wanted| &mut wanted.held, Some(held));
    }

    /// Notes whether the database answers others.
    pub fn database_gone(&self, gone: bool) {
        self.change(|wanted| &mut wanted.database_gone, gone);
    }

    /// What is wanted now.
    #[must_use]
    pub fn wanted(&self) -> Wanted {
        self.0.borrow().clone()
    }

    /// What is wanted, now and later.
    pub(crate) fn watch(&self) -> watch::Receiver<Wanted> {
        self.0.subscribe()
    }

    /// Takes the order to let go, which is then carried out.
    pub(crate) fn take_let_go(&self) -> Option<Arc<str>> {
        let mut taken = None;
        self.0.send_if_modified(|wanted| {
            taken = wanted.let_go.take();
            taken.is_some()
        });
        taken
    }

    fn change<T: PartialEq>(&self, part: impl Fn(&mut Wanted) -> &mut T, to: T) {
        self.0.send_if_modified(|wanted| {
            let part = part(wanted);
            if *part == to {
                return false;
            }
            *part = to;
            true
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_already_wakes_nobody_and_letting_go_is_taken_once() {
        let orders = Orders::new();
        let mut watch = orders.watch();
        orders.pause(false);
        assert!(!watch.has_changed().unwrap());
        orders.pause(true);
        assert!(watch.borrow_and_update().paused);
        orders.let_go("too much".into());
        assert_eq!(orders.take_let_go().as_deref(), Some("too much"));
        assert_eq!(orders.take_let_go(), None);
        assert!(orders.wanted().paused);
    }
}
