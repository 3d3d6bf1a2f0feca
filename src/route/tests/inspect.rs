//! What operators are told, and what they may do.

use super::*;
use crate::route::inspect::SessionRow;
use crate::route::session::Close;
use crate::route::session::Peer;
use crate::route::session::Transport;

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
