//! Subscriptions that wait until the shard reaches their cursor: another shard was faster by a
//! moment, or the database lost what the cursor stands for.
//!
//! After a restart a whole crowd may wait, so none of it is looked at before it is its turn.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::rc::Rc;

use crate::change::cursor::Cursor;
use crate::change::cursor::Position;
use crate::route::session::SessionKey;

/// Subscriptions by name and by position, each once.
#[derive(Debug, Default)]
pub(crate) struct Parked {
    by_name: HashMap<(SessionKey, Rc<str>), Wait>,
    by_position: BTreeSet<(Position, SessionKey, Rc<str>)>,
}

/// For what a subscription waits.
#[derive(Clone, Copy, Debug)]
struct Wait {
    cursor: Cursor,
    /// When it is given up, on the shard's clock of seconds.
    until: u32,
}

impl Parked {
    /// Lets a subscription wait for a cursor.
    pub(crate) fn insert(&mut self, key: SessionKey, id: &Rc<str>, cursor: Cursor, until: u32) {
        self.remove(key, id);
        self.by_name.insert((key, Rc::clone(id)), Wait { cursor, until });
        self.by_position.insert((cursor.position, key, Rc::clone(id)));
    }

    /// Forgets a subscription, if it waits.
    pub(crate) fn remove(&mut self, key: SessionKey, id: &Rc<str>) {
        if self.by_name.is_empty() {
            return;
        }
        if let Some(wait) = self.by_name.remove(&(key, Rc::clone(id))) {
            self.by_position.remove(&(wait.cursor.position, key, Rc::clone(id)));
        }
    }

    /// The cursor for which a subscription waits, if it does.
    pub(crate) fn cursor_of(&self, key: SessionKey, id: &Rc<str>) -> Option<Cursor> {
        if self.by_name.is_empty() {
            return None;
        }
        self.by_name.get(&(key, Rc::clone(id))).map(|wait| wait.cursor)
    }

    /// Takes one whose position is not beyond `head`.
    pub(crate) fn reached(&mut self, head: Position) -> Option<(SessionKey, Rc<str>, Cursor)> {
        if self.by_position.first()?.0 > head {
            return None;
        }
        let (_, key, id) = self.by_position.pop_first()?;
        let wait = self.by_name.remove(&(key, Rc::clone(&id)))?;
        Some((key, id, wait.cursor))
    }

    /// Takes all whose time is over.
    pub(crate) fn expired(&mut self, seconds: u32) -> Vec<(SessionKey, Rc<str>)> {
        let over = self.by_name.iter().filter(|(_, wait)| wait.until <= seconds);
        let over: Vec<_> = over.map(|((key, id), _)| (*key, Rc::clone(id))).collect();
        for (key, id) in &over {
            self.remove(*key, id);
        }
        over
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.by_name.clear();
        self.by_position.clear();
    }
}
