//! What a client asks for.

use std::time::Duration;

use crate::catalog::TableName;
use crate::change::cursor::Cursor;
use crate::change::value::BigNumbers;

/// A request for the changes of one table, as every dialect translates its own into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The table.
    pub table: TableName,
    /// Which rows; every row that the policy admits where absent.
    pub filter: Option<Filter>,
    /// Which columns; every column that the role may select where absent.
    pub columns: Option<Box<[Box<str>]>>,
    /// Which kinds of change.
    pub events: Events,
    /// How numbers that a double can't hold are written.
    pub big_numbers: BigNumbers,
    /// How often a row may be told of; as often as it changes where absent.
    pub throttle: Option<Box<Throttle>>,
}

impl Request {
    /// Every change of a table, with a filter or without.
    #[must_use]
    pub fn whole(schema: &str, name: &str, filter: Option<Filter>) -> Request {
        let table = TableName { schema: schema.into(), name: name.into() };
        let (events, big_numbers) = (Events::ALL, BigNumbers::AsNumbers);
        Request { table, filter, columns: None, events, big_numbers, throttle: None }
    }
}

/// At most one delivery per key and interval; the last one always arrives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Throttle {
    /// The columns by which deliveries are told apart; the primary key's where absent.
    pub key: Option<Box<[Box<str>]>>,
    /// The least time between two deliveries of a key, from [`Throttle::INTERVAL_MIN`] to
    /// [`Throttle::INTERVAL_MAX`].
    pub interval: Duration,
    /// How far a key must move before it is told of again.
    pub movement: Option<Movement>,
}

/// A least way on earth, and the columns that tell the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Movement {
    /// The way, in metres.
    pub metres: u32,
    /// The column of the latitude, in degrees.
    pub latitude: Box<str>,
    /// The column of the longitude, in degrees.
    pub longitude: Box<str>,
}

impl Throttle {
    /// The shortest interval: a hundred deliveries of a key in a second.
    pub const INTERVAL_MIN: Duration = Duration::from_millis(10);
    /// The longest interval. A client that hears nothing for longer takes the connection for dead.
    pub const INTERVAL_MAX: Duration = Duration::from_secs(30);
    /// The longest way: half around the earth.
    pub const METRES_MAX: u32 = 20_000_000;
    /// How many columns a key may have.
    pub const KEY_COLUMNS_MAX: usize = 8;

    /// After how long a key that did not move far enough is told of all the same: ten intervals, or
    /// [`Throttle::INTERVAL_MAX`] where that is less. Without a least way, the interval.
    #[must_use]
    pub fn linger(&self) -> Duration {
        match self.movement {
            Some(_) => self.interval.saturating_mul(10).min(Throttle::INTERVAL_MAX),
            None => self.interval,
        }
    }
}

/// A client's rule, in the form in which it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// A boolean expression in SQL.
    Where(Box<str>),
    /// A filter text as PostgREST and Supabase Realtime write it.
    Text(Box<str>),
}

/// That a subscription begins with the rows that are there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotRequest {
    /// In which order they come.
    pub order: Box<[OrderBy]>,
    /// How many at the most.
    pub limit: Option<usize>,
    /// Of the rows that are equal in these columns, only the first by `order`.
    pub latest_by: Box<[Box<str>]>,
}

/// One column of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderBy {
    /// The column.
    pub column: Box<str>,
    /// Whether the greatest comes first.
    pub descending: bool,
    /// Whether NULL comes first; where absent, NULL is greater than all values.
    pub nulls_first: Option<bool>,
}

/// A set of kinds of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Events(u8);

/// What happened to a row, from the subscription's view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// The row was there when the subscription began.
    Snapshot,
    /// A visible row was inserted.
    Insert,
    /// A visible row was updated and is still visible.
    Update,
    /// A row became visible by an update.
    Enter,
    /// A row ceased to be visible by an update.
    Leave,
    /// A visible row was deleted.
    Delete,
    /// The table was emptied.
    Truncate,
}

impl Op {
    /// Every kind that can be chosen, in the order of the documentation.
    pub const ALL: [Op; 6] =
        [Op::Insert, Op::Update, Op::Enter, Op::Leave, Op::Delete, Op::Truncate];

    /// The word for it in frames and requests.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Op::Snapshot => "snapshot",
            Op::Insert => "insert",
            Op::Update => "update",
            Op::Enter => "enter",
            Op::Leave => "leave",
            Op::Delete => "delete",
            Op::Truncate => "truncate",
        }
    }

    const fn bit(self) -> u8 {
        match self {
            Op::Insert => 1,
            Op::Update => 2,
            Op::Enter => 4,
            Op::Leave => 8,
            Op::Delete => 16,
            Op::Truncate => 32,
            // In every set: it is asked for elsewhere.
            Op::Snapshot => 64,
        }
    }
}

impl Events {
    /// Every kind.
    pub const ALL: Events = Events(127);
    /// No kind.
    pub const NONE: Events = Events(64);

    /// The set with `op` in it.
    #[must_use]
    pub const fn with(self, op: Op) -> Events {
        Events(self.0 | op.bit())
    }

    /// Whether `op` is in the set.
    #[must_use]
    pub const fn contains(self, op: Op) -> bool {
        self.0 & op.bit() != 0
    }
}

/// A request with its name and place: what a session asks of its shard.
#[derive(Clone, Debug)]
pub struct Subscribe {
    /// The client's name for the subscription, unique in its session.
    pub id: Box<str>,
    /// What it asks for.
    pub request: Request,
    /// Where to read on from; from now on where absent.
    pub since: Option<Cursor>,
    /// Whether it begins with the rows that are there, and which.
    pub snapshot: Option<Box<SnapshotRequest>>,
}
