//! Throttled and resting subscriptions of a shard, on a clock that stands still until it is moved.

use std::time::Duration;
use std::time::SystemTime;

use tokio::time::advance;

use super::*;
use crate::change::tuple::Cell;
use crate::route::plan::Refusal;
use crate::route::subscription::Throttle;

mod histories;

const INTERVAL: Duration = Duration::from_millis(100);

/// A dialect of lines that end with the cursor: `name op id bytes cursor`, where `bytes` is the
/// length of the second column.
#[derive(Debug)]
struct Placed;

impl Encode for Placed {
    fn name(&self) -> &'static str {
        "placed"
    }

    fn head(&self, id: &str, out: &mut Vec<u8>) {
        Lines.head(id, out);
    }

    fn body(&self, row: &RowFrame<'_>, out: &mut Vec<u8>) {
        Lines.body(row, out);
        let image = row.visible.new_row().or(row.visible.old_row()).unwrap();
        if let Cell::Text(body) = image[1] {
            out.extend_from_slice(format!(" {}", body.len()).as_bytes());
        }
    }

    fn frame(&self, head: &[u8], body: &[u8], cursor: Option<Cursor>, out: &mut Vec<u8>) {
        out.extend_from_slice(head);
        out.extend_from_slice(body);
        out.extend_from_slice(format!(" {}\n", cursor.unwrap()).as_bytes());
    }

    fn notice(&self, notice: &Notice<'_>, out: &mut Vec<u8>) {
        match notice {
            Notice::Synced { id, cursor } => {
                out.extend_from_slice(format!("{id} synced {cursor}\n").as_bytes());
            }
            notice => Lines.notice(notice, out),
        }
    }

    fn ping(&self, _: &mut Vec<u8>) {}
}

impl World {
    fn placed(&mut self, room: usize) -> (SessionKey, Rc<Socket>) {
        let (key, socket) = self.session(room);
        self.shard.session_mut(key).unwrap().dialect = &Placed;
        (key, socket)
    }

    fn throttled(&mut self, key: SessionKey, id: &str, since: Option<Cursor>) {
        let throttle = Throttle { key: None, interval: INTERVAL, movement: None };
        let request = Request {
            table: TableName::parse("orders"),
            filter: None,
            columns: None,
            events: Events::ALL,
            big_numbers: BigNumbers::AsNumbers,
            throttle: Some(Box::new(throttle)),
        };
        self.shard
            .subscribe(key, Subscribe { id: id.into(), request, since, snapshot: None })
            .unwrap();
    }

    /// Time passes, and the shard has a turn.
    async fn pass(&mut self, time: Duration) {
        advance(time).await;
        self.turn();
    }

    fn counted(&self, name: &str) -> u64 {
        let all = self.shard.shared.metrics.read();
        all.iter().find(|(known, _)| known == name).unwrap().1
    }
}

impl Socket {
    /// What came since the last call, without cursors.
    fn told(&self) -> Vec<String> {
        let cut = |line: &String| match line.rsplit_once(' ') {
            Some((line, cursor)) if cursor.contains('.') => line.to_owned(),
            _ => line.clone(),
        };
        self.lines().iter().map(cut).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_is_told_of_at_once_and_then_at_intervals_and_last() {
    let mut world = World::new(1 << 20);
    let (key, socket) = world.placed(usize::MAX);
    world.throttled(key, "t", None);
    world.insert([1], 1);
    world.turn();
    assert_eq!(socket.told(), ["t subscribed", "t insert 1 1"]);
    for bytes in 2..5 {
        world.insert([1], bytes);
        world.pass(INTERVAL / 10).await;
    }
    world.insert([2], 9);
    world.turn();
    // Another key does not wait for the first one, and its cursor lies before what is held.
    let lines = socket.lines();
    let held = Cursor { source: SOURCE, position: Position::within(Lsn::new(135), 0) };
    assert_eq!(lines, [format!("t insert 2 9 {held}")]);
    for _ in 0..30 {
        world.shard.tick(SystemTime::now());
    }
    assert!(socket.lines().is_empty(), "a heartbeat, although something is held");
    world.pass(INTERVAL * 7 / 10 - Duration::from_millis(1)).await;
    assert!(socket.lines().is_empty());
    world.pass(Duration::from_millis(1)).await;
    let lines = socket.lines();
    let newest = Cursor { source: SOURCE, position: Position::within(Lsn::new(world.end - 5), 1) };
    assert_eq!(lines, [format!("t insert 1 4 {newest}")]);
    world.shard.heard(key);
    for _ in 0..30 {
        world.shard.tick(SystemTime::now());
    }
    assert_eq!(socket.lines(), ["heartbeat"]);
    world.pass(INTERVAL * 10).await;
    assert!(socket.lines().is_empty() && world.shard.alarms.is_empty());
    assert_eq!((world.counted("conflated"), world.counted("delivered")), (2, 3));
}

#[tokio::test(start_paused = true)]
async fn who_reads_slowly_gets_the_newest_and_does_not_fall_behind() {
    let mut world = World::new(16 << 10);
    let (key, socket) = world.placed(100);
    world.throttled(key, "t", None);
    for number in 0..3000 {
        world.insert([number % 20], number);
        world.pass(Duration::from_millis(1)).await;
    }
    assert_eq!((world.counted("fell_behind"), world.counted("hurried")), (0, 0));
    assert!(world.shard.session(key).unwrap().stalled);
    socket.room.set(usize::MAX);
    for _ in 0..4 {
        world.shard.drain(key).unwrap();
        world.pass(INTERVAL).await;
    }
    let lines = socket.told();
    // What the outbox held, and the newest of each.
    assert!(lines.len() < 500, "{}", lines.len());
    for number in 2980..3000 {
        let line = format!("t insert {} {number}", number % 20);
        assert_eq!(lines.iter().filter(|it| **it == line).count(), 1, "{line}");
    }
}

#[tokio::test(start_paused = true)]
async fn at_the_bound_keys_go_early_and_a_session_that_takes_nothing_falls_behind() {
    let mut world = World::new(16 << 10);
    let (key, socket) = world.placed(usize::MAX);
    world.throttled(key, "t", None);
    world.subscribe(key, "all", "", None);
    for round in 0..2 {
        world.insert((0..200).map(|id| id + 1), round);
        world.turn();
    }
    assert!(world.counted("hurried") > 100);
    socket.told();
    socket.room.set(100);
    for round in 2..10 {
        world.insert((0..200).map(|id| id + 1), round);
        world.turn();
    }
    assert_eq!(world.counted("fell_behind"), 1);
    let held = world.shard.paced_mut(key, "t").unwrap().conflation.bytes();
    assert!(held < 128 << 10, "{held}");
    for _ in 0..100 {
        socket.room.set(4000);
        world.shard.drain(key).unwrap();
        world.pass(INTERVAL / 10).await;
    }
    let lines = socket.told();
    // Nothing of the other subscription is missing or comes twice.
    let all: Vec<&String> = lines.iter().filter(|line| line.starts_with("all ")).collect();
    let expected: Vec<String> = (2..10)
        .flat_map(|round| (1..201).map(move |id| format!("all insert {id} {round}")))
        .collect();
    assert!(all.iter().copied().eq(expected.iter()), "{} frames", all.len());
    for id in 1..201 {
        let prefix = format!("t insert {id} ");
        let last = lines.iter().rfind(|line| line.starts_with(&prefix));
        assert_eq!(last, Some(&format!("{prefix}9")));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_held_ends_with_the_right_to_see_it() {
    let mut world = World::new(1 << 20);
    let (key, socket) = world.placed(usize::MAX);
    world.throttled(key, "t", None);
    world.throttled(key, "u", None);
    world.insert([1], 1);
    world.turn();
    world.insert([1], 2);
    world.turn();
    world.shard.unsubscribe(key, "u").unwrap();
    world.catalog.replace(Snapshot::of(2, &[Arc::clone(&world.relation)], "somebody else"));
    world.pass(INTERVAL * 2).await;
    let mut lines = socket.told();
    lines.sort();
    let expected = [
        "t insert 1 1",
        "t refused table_forbidden",
        "t subscribed",
        "u insert 1 1",
        "u subscribed",
        "u unsubscribed",
    ];
    assert_eq!(lines, expected);
    assert!(world.shard.alarms.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_new_shape_has_what_is_held_read_again() {
    let mut world = World::new(1 << 20);
    let (key, socket) = world.placed(usize::MAX);
    world.throttled(key, "t", None);
    for bytes in [1, 2, 3] {
        world.insert([1, 2], bytes);
        world.turn();
    }
    assert_eq!(socket.told().len(), 3);
    world.relation = relation(2, &["id", "body", "note"]);
    world.catalog.replace(Snapshot::of(2, &[Arc::clone(&world.relation)], ROLE));
    world.insert([2], 4);
    world.turn();
    assert!(socket.told().is_empty());
    world.pass(INTERVAL).await;
    assert_eq!(socket.told(), ["t insert 1 3", "t insert 2 4"]);
    world.pass(INTERVAL).await;
    assert!(socket.told().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_rests_costs_nothing_and_goes_on_where_it_was() {
    let mut world = World::new(1 << 20);
    let (key, socket) = world.placed(usize::MAX);
    world.throttled(key, "t", None);
    world.subscribe(key, "all", "", None);
    world.insert([1], 1);
    world.turn();
    world.insert([1], 2);
    world.turn();
    assert_eq!(world.shard.pause(key, "x"), Err(Refusal::UnknownId));
    assert_eq!(world.shard.unpause(key, "x"), Err(Refusal::UnknownId));
    for id in ["t", "all", "t"] {
        world.shard.pause(key, id).unwrap();
    }
    let session = world.shard.session(key).unwrap();
    assert!(session.readers.is_empty() && world.shard.alarms.is_empty());
    assert!(session.subscriptions.iter().all(|it| it.member_at.is_none()));
    let expected = ["t subscribed", "all subscribed", "t insert 1 1", "all insert 1 1"];
    let mut lines = socket.told();
    assert_eq!(lines.drain(..5).filter(|line| !expected.contains(&line.as_str())).count(), 1);
    assert_eq!(lines, ["t paused", "all paused", "t paused"]);
    for bytes in 3..6 {
        world.insert([1], bytes);
        world.pass(INTERVAL).await;
    }
    assert!(socket.told().is_empty());
    world.shard.unpause(key, "t").unwrap();
    world.turn();
    assert_eq!(socket.told(), ["t resumed", "t insert 1 5", "t synced"]);
    world.shard.unpause(key, "all").unwrap();
    world.shard.unpause(key, "t").unwrap();
    // Once more, while it still reads.
    world.shard.pause(key, "all").unwrap();
    world.turn();
    world.shard.unpause(key, "all").unwrap();
    world.turn();
    let expected = ["all resumed", "t resumed", "all paused", "all resumed"];
    let rows = ["all insert 1 3", "all insert 1 4", "all insert 1 5", "all synced"];
    assert_eq!(socket.told(), [expected, rows].concat());
    world.insert([1], 6);
    world.pass(INTERVAL).await;
    let mut lines = socket.told();
    lines.sort();
    assert_eq!(lines, ["all insert 1 6", "t insert 1 6"]);
    assert_eq!(world.counted("paused"), 3);
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_rested_too_long_is_told_so() {
    let mut world = World::new(1 << 20);
    let (key, socket) = world.placed(usize::MAX);
    world.throttled(key, "t", None);
    world.shard.pause(key, "t").unwrap();
    advance(Duration::from_mins(11)).await;
    for bytes in [1, 2, 3] {
        world.insert([1], bytes);
        world.pass(Duration::from_mins(11)).await;
    }
    world.shard.unpause(key, "t").unwrap();
    world.turn();
    let expected = ["t subscribed", "t paused", "t resumed", "t resync too_old"];
    assert_eq!(socket.told(), expected);
    world.insert([1], 4);
    world.turn();
    assert_eq!(socket.told(), ["t insert 1 4"]);
    world.shard.pause(key, "t").unwrap();
    world.shard.unsubscribe(key, "t").unwrap();
    assert!(world.shard.paused.is_empty());
    world.throttled(key, "t", None);
    world.shard.incoming.push_back(Feed::Start { source: SOURCE, tail: Lsn::new(9000) });
    world.shard.pause(key, "t").unwrap();
    world.turn();
    world.shard.unpause(key, "t").unwrap();
    let lines = socket.told();
    assert_eq!(lines.last().map(String::as_str), Some("t resync too_old"), "{lines:?}");
}
