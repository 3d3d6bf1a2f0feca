//! A shard without sockets and without Postgres: what each session is sent, step by step.

use std::cell::Cell;
use std::cell::RefCell;
use std::io;
use std::io::IoSlice;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::ask::Asker;
use crate::ask::Job;
use crate::auth::Settings as AuthSettings;
use crate::auth::Verifier;
use crate::catalog::Catalog;
use crate::catalog::TableName;
use crate::catalog::snapshot::Snapshot;
use crate::change::cursor::Cursor;
use crate::change::cursor::Position;
use crate::change::cursor::Source;
use crate::change::id::RelationId;
use crate::change::id::TypeId;
use crate::change::id::Xid;
use crate::change::lsn::Lsn;
use crate::change::relation::Column;
use crate::change::relation::Relation;
use crate::change::relation::ReplicaIdentity;
use crate::change::transaction::ChangeKind;
use crate::change::transaction::Timestamp;
use crate::change::transaction::TransactionBuilder;
use crate::change::tuple::Tuple;
use crate::change::types::Collation;
use crate::change::types::Kind;
use crate::change::types::Type;
use crate::change::value::BigNumbers;
use crate::ring::feed::Feed;
use crate::ring::feed::Routed;
use crate::route::encode::Encode;
use crate::route::encode::Notice;
use crate::route::encode::RowFrame;
use crate::route::outbox::Wire;
use crate::route::policy::Policies;
use crate::route::policy::Policy;
use crate::route::session::SessionKey;
use crate::route::shard::Settings;
use crate::route::shard::Shard;
use crate::route::shard::Shared;
use crate::route::subscription::Events;
use crate::route::subscription::Filter;
use crate::route::subscription::Request;
use crate::route::subscription::Subscribe;

mod crowd;
mod handover;
mod inspect;
mod throttle;

const SOURCE: Source = Source { system: 7, timeline: 1 };
const ROLE: &str = "web";

thread_local! {
    /// How many bodies were encoded.
    static ENCODED: Cell<usize> = const { Cell::new(0) };
}

/// A dialect of lines: `name op id`, where `id` is the first column.
#[derive(Debug)]
struct Lines;

impl Encode for Lines {
    fn name(&self) -> &'static str {
        "lines"
    }

    fn head(&self, id: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(id.as_bytes());
        out.push(b' ');
    }

    fn body(&self, row: &RowFrame<'_>, out: &mut Vec<u8>) {
        ENCODED.set(ENCODED.get() + 1);
        out.extend_from_slice(row.visible.op().name().as_bytes());
        out.push(b' ');
        let image = row.visible.new_row().or(row.visible.old_row()).unwrap();
        if let crate::change::tuple::Cell::Text(id) = image[0] {
            out.extend_from_slice(id);
        }
    }

    fn frame(&self, head: &[u8], body: &[u8], _: Option<Cursor>, out: &mut Vec<u8>) {
        out.extend_from_slice(head);
        out.extend_from_slice(body);
        out.push(b'\n');
    }

    fn notice(&self, notice: &Notice<'_>, out: &mut Vec<u8>) {
        let line = match notice {
            Notice::Subscribed { id, .. } => format!("{id} subscribed\n"),
            Notice::Synced { id, .. } => format!("{id} synced\n"),
            Notice::Resync { id, reason, .. } => format!("{id} resync {}\n", reason.code()),
            Notice::Unsubscribed { id } => format!("{id} unsubscribed\n"),
            Notice::Refused { id, refusal } => format!("{id} refused {}\n", refusal.code()),
            Notice::Expiring { .. } | Notice::Expired { .. } => "expiry\n".to_owned(),
            Notice::Heartbeat { .. } => "heartbeat\n".to_owned(),
            Notice::Restart { cursor, .. } => match cursor {
                Some(cursor) => format!("restart {}\n", cursor.position.lsn),
                None => "restart\n".to_owned(),
            },
            Notice::Paused { id, .. } => format!("{id} paused\n"),
            Notice::Resumed { id } => format!("{id} resumed\n"),
        };
        out.extend_from_slice(line.as_bytes());
    }

    fn ping(&self, _: &mut Vec<u8>) {}
}

/// A socket that takes `room` bytes and then none.
#[derive(Debug)]
struct Socket {
    room: Cell<usize>,
    got: RefCell<Vec<u8>>,
}

impl Wire for Socket {
    fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut written = 0;
        for slice in slices {
            let taken = slice.len().min(self.room.get());
            self.room.set(self.room.get() - taken);
            self.got.borrow_mut().extend(&slice[..taken]);
            written += taken;
        }
        Ok(written)
    }

    fn wake(&self) {}
}

impl Socket {
    /// What came since the last call.
    fn lines(&self) -> Vec<String> {
        let got = String::from_utf8(self.got.take()).unwrap();
        got.lines().map(str::to_owned).collect()
    }
}

/// A shard with one table, `orders (id int8, body text)`.
struct World {
    shard: Shard,
    catalog: Arc<Catalog>,
    relation: Arc<Relation>,
    end: u64,
    /// The number of the next transaction.
    xid: u32,
    /// What the shard has asked Postgres.
    asked: mpsc::Receiver<Job>,
}

fn relation(version: u64, columns: &[&str]) -> Arc<Relation> {
    let column = |name: &&str| Column {
        name: (*name).into(),
        of: Arc::new(match *name {
            "id" => Type { id: TypeId(20), name: "int8".into(), kind: Kind::Int8 },
            _ => Type { id: TypeId(25), name: "text".into(), kind: Kind::Text },
        }),
        modifier: -1,
        collation: Collation::Bytes,
        in_identity: true,
    };
    Arc::new(Relation {
        id: RelationId(1),
        version,
        schema: "public".into(),
        name: "orders".into(),
        identity: ReplicaIdentity::Full,
        columns: columns.iter().map(column).collect(),
        primary_key: vec![0],
    })
}

impl World {
    fn new(outbox_bytes_max: usize) -> World {
        let relation = relation(1, &["id", "body"]);
        let snapshot = Snapshot::of(1, &[Arc::clone(&relation)], ROLE);
        let catalog = Arc::new(Catalog::read_once(snapshot));
        let (asker, asked) = Asker::new(crate::ask::Settings::default(), 100);
        let shared = Shared {
            catalog: Arc::clone(&catalog),
            replicas: crate::replica::Store::empty(&catalog),
            policies: Arc::new(Policies::new([(TableName::parse("orders"), Policy::Open)])),
            asker,
            metrics: Arc::default(),
            routed: Routed::new(),
        };
        let settings = Settings { outbox_bytes_max, ..Settings::default() };
        let mut shard = Shard::new(settings, shared);
        shard.incoming.push_back(Feed::Start { source: SOURCE, tail: Lsn::new(100) });
        let mut world = World { shard, catalog, relation, end: 100, xid: 1, asked };
        world.turn();
        world
    }

    fn session(&mut self, room: usize) -> (SessionKey, Rc<Socket>) {
        let socket = Rc::new(Socket { room: Cell::new(room), got: RefCell::default() });
        let role = Some(ROLE.to_owned());
        let settings = AuthSettings { anonymous_role: role, ..AuthSettings::default() };
        let claims = Verifier::new(settings).unwrap().anonymous();
        let wire: Rc<dyn Wire> = Rc::<Socket>::clone(&socket);
        (self.shard.open(wire, claims, &Lines), socket)
    }

    fn subscribe(&mut self, key: SessionKey, id: &str, filter: &str, since: Option<Cursor>) {
        let request = Request {
            table: TableName::parse("orders"),
            filter: Some(Filter::Where(filter.into())).filter(|_| !filter.is_empty()),
            columns: None,
            events: Events::ALL,
            big_numbers: BigNumbers::AsNumbers,
            throttle: None,
        };
        let subscribe = Subscribe { id: id.into(), request, since, snapshot: None };
        self.shard.subscribe(key, subscribe).unwrap();
    }

    /// A transaction that inserts rows with these numbers and a body of some bytes.
    fn insert(&mut self, ids: impl IntoIterator<Item = usize>, body: usize) {
        self.end += 10;
        let mut builder =
            TransactionBuilder::new(Xid(self.xid), Lsn::new(self.end - 5), Timestamp(0));
        for id in ids {
            let mut wire =
                u16::try_from(self.relation.columns.len()).unwrap().to_be_bytes().to_vec();
            let body = "x".repeat(body);
            for text in [id.to_string(), body].iter().take(self.relation.columns.len()) {
                wire.push(b't');
                wire.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
                wire.extend(text.as_bytes());
            }
            wire.extend(std::iter::repeat_n(b'n', self.relation.columns.len().saturating_sub(2)));
            let new = Tuple::take(&wire).unwrap().0;
            builder.push(&self.relation, ChangeKind::Insert { new }).unwrap();
        }
        let transaction = Arc::new(builder.commit(Lsn::new(self.end)));
        self.shard.incoming.push_back(Feed::Transaction(transaction));
    }

    /// One round of the shard's loop; tells whether there was nothing to do any more.
    fn round(&mut self) -> bool {
        self.shard.match_pass();
        while !self.shard.flush_some() {}
        for _ in 0..4 {
            if !self.shard.read_behind() {
                break;
            }
        }
        !self.shard.has_work()
    }

    /// Rounds until there is nothing to do.
    fn turn(&mut self) {
        let rounds = 1000;
        assert!((0..rounds).any(|_| self.round()), "still busy after {rounds} rounds");
    }

    /// After so many changes of the newest transaction.
    fn cursor(&self, count: u32) -> Cursor {
        let position = Position::within(Lsn::new(self.end - 5), count);
        Cursor { source: SOURCE, position }
    }
}

fn inserted(name: &str, ids: impl IntoIterator<Item = usize>) -> Vec<String> {
    ids.into_iter().map(|id| format!("{name} insert {id}")).collect()
}

#[tokio::test]
async fn a_stopped_reader_costs_no_work_and_gets_everything_later() {
    let mut world = World::new(4096);
    let (key, socket) = world.session(0);
    world.subscribe(key, "o", "", None);
    for id in 0..2000 {
        world.insert([id], 10);
        // Fails where the shard goes on to encode for somebody who takes nothing.
        world.turn();
    }
    let mut lines = String::new();
    for _ in 0..1000 {
        // A little at a time: slices must fit what is free then.
        socket.room.set(1000);
        world.shard.drain(key).unwrap();
        world.turn();
        lines.push_str(&String::from_utf8(socket.got.take()).unwrap());
    }
    let mut expected = vec!["o subscribed".to_owned()];
    expected.extend(inserted("o", 0..2000));
    assert!(lines.lines().eq(expected), "{lines:.2000}");
}

#[tokio::test]
async fn a_cursor_that_another_shard_gave_is_waited_for_and_nothing_comes_twice() {
    let mut world = World::new(1 << 20);
    let (key, socket) = world.session(usize::MAX);
    world.subscribe(key, "live", "", None);
    // More than a pass: the shard stands inside of it.
    world.insert(0..20_000, 10);
    world.round();
    let seen = socket.lines().len() - 1;
    assert!(seen < 20_000);
    let (late, late_socket) = world.session(usize::MAX);
    world.subscribe(late, "inside", "", Some(world.cursor(19_001)));
    world.subscribe(late, "whole", "", Some(Cursor::after(SOURCE, Lsn::new(world.end))));
    world.subscribe(late, "behind", "id >= 18000", Some(world.cursor(6)));
    world.turn();
    world.insert([20_000], 10);
    world.turn();
    let lines = late_socket.lines();
    let of = |name: &str| -> Vec<String> {
        let prefix = format!("{name} ");
        lines.iter().filter(|line| line.starts_with(&prefix)).cloned().collect()
    };
    let expected = |name: &str, first: usize| {
        let mut lines = vec![format!("{name} subscribed")];
        lines.extend(inserted(name, first..20_000));
        lines.push(format!("{name} synced"));
        lines.extend(inserted(name, [20_000]));
        lines
    };
    assert_eq!(of("inside"), expected("inside", 19_001));
    assert_eq!(of("whole"), expected("whole", 20_000));
    let behind: Vec<String> =
        of("behind").into_iter().filter(|line| line.contains("insert")).collect();
    assert_eq!(behind, inserted("behind", 18_000..20_001));
}

#[tokio::test]
async fn a_subscription_that_waits_for_its_cursor_ends_with_its_name() {
    let mut world = World::new(1 << 20);
    let (key, socket) = world.session(usize::MAX);
    let ahead = Cursor::after(SOURCE, Lsn::new(110));
    world.subscribe(key, "o", "", Some(ahead));
    world.shard.unsubscribe(key, "o").unwrap();
    world.subscribe(key, "o", "", None);
    world.insert([1], 10);
    world.turn();
    world.insert([2], 10);
    world.turn();
    let expected = ["o subscribed", "o unsubscribed", "o subscribed", "o insert 1", "o insert 2"];
    assert_eq!(socket.lines(), expected);
}

#[tokio::test]
async fn names_that_nobody_has_any_more_leave_no_trace() {
    let mut world = World::new(1 << 20);
    let (key, socket) = world.session(usize::MAX);
    world.subscribe(key, "stays", "", None);
    for number in 0..100 {
        let name = format!("name-{number}");
        world.subscribe(key, &name, "", None);
        world.shard.unsubscribe(key, &name).unwrap();
    }
    let attachment = world.shard.session(key).unwrap().subscription("stays").unwrap().attachment;
    assert_eq!(world.shard.groups.get(attachment.group).unwrap().variants.len(), 2);
    socket.lines();
    world.subscribe(key, "new", "", None);
    world.insert([1], 10);
    world.turn();
    let mut lines = socket.lines();
    lines.sort();
    assert_eq!(lines, ["new insert 1", "new subscribed", "stays insert 1"]);
}

#[tokio::test]
async fn a_revoked_grant_ends_a_subscription_that_is_behind() {
    let mut world = World::new(4096);
    let (key, socket) = world.session(100);
    world.subscribe(key, "o", "", None);
    for id in 0..1000 {
        world.insert([id], 10);
        world.turn();
    }
    assert!(!world.shard.session(key).unwrap().readers.is_empty());
    world.catalog.replace(Snapshot::of(2, &[Arc::clone(&world.relation)], "somebody else"));
    world.turn();
    assert!(world.shard.session(key).unwrap().readers.is_empty());
    socket.room.set(usize::MAX);
    world.shard.drain(key).unwrap();
    world.turn();
    let lines = socket.lines();
    assert_eq!(lines.last().map(String::as_str), Some("o refused table_forbidden"));
    // What was queued by then had been allowed.
    assert!(lines.len() < 500, "{}", lines.len());
}

#[tokio::test]
async fn a_group_that_accepts_both_values_is_found_once() {
    let mut world = World::new(1 << 20);
    let (key, socket) = world.session(usize::MAX);
    world.subscribe(key, "in", "body in ('a', 'b', 'a')", None);
    world.subscribe(key, "a", "body = 'a'", None);
    world.subscribe(key, "b", "body = 'b'", None);
    socket.lines();
    let tuple = |body: &str| -> Vec<u8> {
        let mut wire = b"\0\x02t\0\0\0\x011t\0\0\0\x01".to_vec();
        wire.extend(body.as_bytes());
        wire
    };
    world.end += 10;
    let mut builder = TransactionBuilder::new(Xid(1), Lsn::new(world.end - 5), Timestamp(0));
    let (old, new) = (tuple("a"), tuple("b"));
    let old = crate::change::transaction::OldTuple::Full(Tuple::take(&old).unwrap().0);
    let new = Tuple::take(&new).unwrap().0;
    builder.push(&world.relation, ChangeKind::Update { old: Some(old), new }).unwrap();
    let transaction = Arc::new(builder.commit(Lsn::new(world.end)));
    world.shard.incoming.push_back(Feed::Transaction(transaction));
    world.turn();
    let mut lines = socket.lines();
    lines.sort();
    assert_eq!(lines, ["a leave 1", "b enter 1", "in update 1"]);
}

#[tokio::test]
async fn a_new_column_can_be_asked_for_before_anybody_writes() {
    let mut world = World::new(1 << 20);
    let (key, socket) = world.session(usize::MAX);
    world.subscribe(key, "old", "body <> ''", None);
    let before = Arc::clone(&world.relation);
    world.relation = relation(2, &["id", "body", "note"]);
    world.catalog.replace(Snapshot::of(2, &[Arc::clone(&world.relation)], ROLE));
    world.turn();
    world.subscribe(key, "new", "note is null", None);
    world.insert([1], 10);
    world.turn();
    // A change that the stream still had in the shape of before.
    world.relation = before;
    world.insert([2], 10);
    world.turn();
    let mut lines = socket.lines();
    lines.sort();
    let expected = [
        "new insert 1",
        "new refused column_forbidden",
        "new subscribed",
        "old insert 1",
        "old insert 2",
        "old subscribed",
    ];
    assert_eq!(lines, expected);
}
