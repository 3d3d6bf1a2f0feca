//! What operators are told, and what they may do.

use super::*;
use crate::ring::Gap;
use crate::route::explain::Lookup;
use crate::route::explain::LookupError;
use crate::route::explain::Outcome;
use crate::route::inspect::SessionRow;
use crate::route::session::Close;
use crate::route::session::Peer;
use crate::route::session::Transport;
use crate::route::subscription::Op;

fn sessions(shard: &Shard) -> Vec<SessionRow> {
    let part = shard.list_sessions(0);
    assert_eq!(part.next, None);
    part.rows
}

#[tokio::test]
async fn an_operator_sees_who_is_live_and_who_is_behind() {
    let mut world = World::new(64);
    let (quick, _) = world.session(usize::MAX);
    let (slow, socket) = world.session(0);
    let address = "192.0.2.7:4711".parse().unwrap();
    let peer = Peer { transport: Transport::WebSocket, address: Some(address) };
    world.shard.introduce(quick, peer);
    world.subscribe(quick, "all", "", None);
    world.subscribe(slow, "one", "id = 7", None);
    for id in 0..9 {
        world.insert([id, 7], 1);
        world.turn();
    }

    let rows = sessions(&world.shard);
    let [first, second] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!((first.transport, first.address), (Transport::WebSocket, Some(address)));
    assert_eq!(first.role.as_deref(), Some(ROLE));
    assert_eq!((first.behind, first.lag_bytes, first.frames), (false, 0, 18));
    assert_eq!(first.bytes, 15 + 13 * 18);
    assert!(second.behind && second.outbox_bytes > 0 && second.lag_bytes > 0, "{second:?}");
    assert_eq!(second.bytes, 0);

    let states = |shard: &Shard| {
        let rows = shard.list_subscriptions(0).rows.into_iter();
        rows.map(|row| format!("{} {} {}", row.session, row.id, row.state)).collect::<Vec<_>>()
    };
    assert_eq!(states(&world.shard), ["1 all live", "2 one behind"]);
    world.shard.pause(quick, "all").unwrap();
    assert_eq!(states(&world.shard), ["1 all paused", "2 one behind"]);
    socket.room.set(usize::MAX);
    while !world.shard.drain(slow).unwrap() {}
    world.turn();
    assert_eq!(states(&world.shard), ["1 all paused", "2 one live"]);

    let groups = world.shard.list_groups(0).rows;
    let indexed: Vec<_> = groups.iter().map(|group| group.indexed_by.as_deref()).collect();
    assert_eq!(indexed, [None, Some("id = 7")]);
    assert_eq!((groups[0].members, groups[0].attached, groups[1].members), (0, 1, 1));

    let ring = world.shard.show_ring().unwrap();
    assert_eq!((ring.transactions, ring.sessions, ring.waiting), (9, 2, 0));
    assert_eq!((ring.tail.lsn, ring.matched.lsn), (Lsn::new(100), Lsn::new(190)));
}

#[tokio::test]
async fn a_long_list_comes_in_parts() {
    let mut world = World::new(64);
    for _ in 0..600 {
        let (key, _) = world.session(usize::MAX);
        world.subscribe(key, "a", "", None);
        world.subscribe(key, "b", "", None);
    }
    let mut numbers = Vec::new();
    let mut next = Some(0);
    while let Some(from) = next {
        let part = world.shard.list_sessions(from);
        assert!(part.rows.len() <= 256);
        numbers.extend(part.rows.iter().map(|row| row.number));
        next = part.next;
    }
    assert_eq!(numbers, (1..=600).collect::<Vec<_>>());
    let (mut subscriptions, mut next) = (0, Some(0));
    while let Some(from) = next {
        let part = world.shard.list_subscriptions(from);
        subscriptions += part.rows.len();
        next = part.next;
    }
    assert_eq!(subscriptions, 1200);
}

#[tokio::test]
async fn a_killed_session_gets_nothing_more() {
    let mut world = World::new(64);
    let (first, socket) = world.session(usize::MAX);
    let (second, _) = world.session(usize::MAX);
    world.subscribe(first, "a", "", None);
    world.insert([1], 1);
    world.turn();
    assert!(world.shard.kill(1));
    assert!(!world.shard.kill(1) && !world.shard.kill(9));
    world.insert([2], 1);
    world.turn();
    assert_eq!(socket.lines(), ["a subscribed", "a insert 1"]);
    assert_eq!(world.shard.closing(first), Some(Close::Killed));
    assert_eq!(world.shard.closing(second), None);
    assert_eq!(world.shard.kill_subject("nobody"), 0);
    assert!(sessions(&world.shard)[0].closing);
}

impl World {
    /// What becomes of a change for a subscription with a filter.
    fn explained(&mut self, cursor: Cursor, filter: &str) -> Result<Outcome, LookupError> {
        let role = Some(ROLE.to_owned());
        let settings = AuthSettings { anonymous_role: role, ..AuthSettings::default() };
        let claims = Verifier::new(settings).unwrap().anonymous().unwrap();
        let lookup = Lookup { cursor, claims, filter: Some(Filter::Where(filter.into())) };
        self.shard.explain(&lookup).map(|explanation| explanation.outcome)
    }

    /// A transaction of parts of two rows each, numbered from 1.
    fn insert_in_parts(&mut self, parts: u64) {
        self.end += 10;
        let mut builder =
            TransactionBuilder::new(Xid(self.xid), Lsn::new(self.end - 5), Timestamp(0));
        for part in 0..parts {
            for id in [part * 2 + 1, part * 2 + 2] {
                let text = id.to_string();
                let mut wire = vec![0, 2, b't', 0, 0, 0, u8::try_from(text.len()).unwrap()];
                wire.extend(text.as_bytes());
                wire.push(b'n');
                let new = Tuple::take(&wire).unwrap().0;
                builder.push(&self.relation, ChangeKind::Insert { new }).unwrap();
            }
            let transaction = builder.cut();
            self.shard.incoming.push_back(Feed::Transaction(Arc::new(transaction)));
        }
        let last = Arc::new(builder.commit(Lsn::new(self.end)));
        self.shard.incoming.push_back(Feed::Transaction(last));
    }
}

#[tokio::test]
async fn a_change_is_found_by_its_cursor_in_whatever_part_it_is() {
    let mut world = World::new(4096);
    world.insert([7], 1);
    world.insert_in_parts(3);
    world.turn();
    for id in 1..=6 {
        let cursor = world.cursor(id);
        let outcome = world.explained(cursor, &format!("id = {id}"));
        assert_eq!(outcome, Ok(Outcome::Delivered(Op::Insert)), "{id}");
        assert_eq!(world.explained(cursor, &format!("id <> {id}")), Ok(Outcome::Hidden), "{id}");
    }
    assert_eq!(world.explained(world.cursor(7), "true"), Err(LookupError::NoChange));
    assert_eq!(world.explained(world.cursor(0), "true"), Err(LookupError::NoChange));
    let after = Cursor::after(SOURCE, Lsn::new(world.end));
    assert_eq!(world.explained(after, "true"), Err(LookupError::NoChange));
    let before = Cursor::after(SOURCE, Lsn::new(50));
    assert_eq!(world.explained(before, "true"), Err(LookupError::Gap(Gap::TooOld)));
}
