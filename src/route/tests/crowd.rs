//! Many sessions at one shard: a storm of reconnects, subscriptions that wait, and a stop.

use std::time::Duration;

use super::*;
use crate::metrics::Metrics;
use crate::route::budget::Budget;

/// How many row frames the shard's sessions were sent.
fn delivered(metrics: &Metrics) -> u64 {
    let counted = metrics.read();
    counted.iter().find(|(name, _)| name == "delivered").unwrap().1
}

#[tokio::test]
async fn a_storm_is_encoded_once_and_everybody_gets_what_it_missed() {
    let mut world = World::new(1 << 20);
    for id in 0..1000 {
        world.insert([id], 100);
    }
    world.turn();
    let first = world.end - 10 * 999;
    ENCODED.set(0);
    let mut sockets = Vec::new();
    for number in 0..500_u64 {
        let (key, socket) = world.session(usize::MAX);
        // After the first few rows, each at another place.
        let since = Cursor::after(SOURCE, Lsn::new(first + 10 * (number % 100)));
        world.subscribe(key, "o", "", Some(since));
        sockets.push((number, socket));
    }
    world.turn();
    for (number, socket) in sockets {
        let first = usize::try_from(number % 100).unwrap() + 1;
        let mut expected = vec!["o subscribed".to_owned()];
        expected.extend(inserted("o", first..1000));
        expected.push("o synced".to_owned());
        assert!(socket.lines() == expected, "session {number}");
    }
    assert_eq!(delivered(&world.shard.shared.metrics), 500 * 999 - 5 * (0..100).sum::<u64>());
    // Each place up to the cut is read once, and what comes after it once for all.
    let encoded = ENCODED.get();
    println!("{encoded} bodies for 500 sessions");
    assert!(encoded < 1000 + 100 * 100, "{encoded} bodies were encoded");
}

#[tokio::test]
async fn what_was_kept_of_a_history_is_not_read_in_another() {
    let mut world = World::new(1 << 20);
    world.insert([1], 10);
    world.turn();
    for _ in 0..2 {
        let (key, socket) = world.session(usize::MAX);
        world.subscribe(key, "o", "", Some(Cursor::after(SOURCE, Lsn::new(100))));
        world.turn();
        assert_eq!(socket.lines(), ["o subscribed", "o insert 1", "o synced"]);
    }
    let source = Source { system: 8, timeline: 1 };
    world.shard.incoming.push_back(Feed::Start { source, tail: Lsn::new(100) });
    world.turn();
    world.insert([2], 10);
    world.turn();
    let (key, socket) = world.session(usize::MAX);
    world.subscribe(key, "o", "", Some(Cursor::after(source, Lsn::new(100))));
    world.turn();
    assert_eq!(socket.lines(), ["o subscribed", "o insert 2", "o synced"]);
}

#[tokio::test]
async fn a_slice_of_an_earlier_shape_is_nobody_else_s() {
    let mut world = World::new(1 << 20);
    let (key, socket) = world.session(usize::MAX);
    world.insert([1], 10);
    world.turn();
    world.relation = relation(2, &["id", "body", "note"]);
    world.catalog.replace(Snapshot::of(2, &[Arc::clone(&world.relation)], ROLE));
    world.insert([2], 10);
    world.turn();
    // The same group by now; planned for the shape of before, one of them can't be.
    world.subscribe(key, "o", "", Some(Cursor::after(SOURCE, Lsn::new(100))));
    let (other, other_socket) = world.session(usize::MAX);
    let request = Request {
        table: TableName::parse("orders"),
        filter: None,
        columns: Some(["id", "body", "note"].map(Into::into).into()),
        events: Events::ALL,
        big_numbers: BigNumbers::AsNumbers,
        throttle: None,
    };
    let since = Some(Cursor::after(SOURCE, Lsn::new(100)));
    world
        .shard
        .subscribe(other, Subscribe { id: "o".into(), request, since, snapshot: None })
        .unwrap();
    world.turn();
    assert_eq!(socket.lines(), ["o subscribed", "o insert 1", "o insert 2", "o synced"]);
    assert_eq!(other_socket.lines(), ["o subscribed", "o resync schema_changed"]);
}

#[tokio::test]
async fn a_session_with_much_to_read_does_not_keep_others_waiting() {
    let mut world = World::new(1 << 20);
    for id in 0..40_000 {
        world.insert([id], 10);
    }
    world.turn();
    let all = Cursor::after(SOURCE, Lsn::new(100));
    let (long, long_socket) = world.session(usize::MAX);
    world.subscribe(long, "o", "", Some(all));
    let mut short = Vec::new();
    for _ in 0..8 {
        let (key, socket) = world.session(usize::MAX);
        let since = Cursor::after(SOURCE, Lsn::new(world.end - 10));
        world.subscribe(key, "o", "", Some(since));
        short.push(socket);
    }
    let (live, live_socket) = world.session(usize::MAX);
    world.subscribe(live, "o", "", None);
    world.insert([40_000], 10);
    // Nine are behind and four read in a round; the live one has its row after the first.
    world.round();
    assert_eq!(live_socket.lines(), ["o subscribed", "o insert 40000"]);
    for _ in 0..6 {
        world.round();
    }
    for socket in short {
        let expected = ["o subscribed", "o insert 39999", "o insert 40000", "o synced"];
        assert_eq!(socket.lines(), expected);
    }
    assert!(!world.shard.session(long).unwrap().readers.is_empty());
    world.turn();
    assert_eq!(long_socket.lines().len(), 40_003);
}

#[tokio::test]
async fn a_crowd_that_is_ahead_is_not_looked_at_before_its_turn() {
    let mut world = World::new(1 << 20);
    world.insert([0], 10);
    world.turn();
    let mut sessions = Vec::new();
    for number in 0..300_u64 {
        let (key, socket) = world.session(usize::MAX);
        let ahead = Cursor::after(SOURCE, Lsn::new(world.end + 10 * (1 + number % 3)));
        world.subscribe(key, "o", "", Some(ahead));
        sessions.push((key, socket));
    }
    // Some leave, some end it and begin anew.
    for (key, _) in sessions.iter().skip(100).take(100) {
        world.shard.close(*key);
    }
    for (key, _) in sessions.iter().skip(200) {
        world.shard.unsubscribe(*key, "o").unwrap();
        world.subscribe(*key, "o", "", None);
    }
    for id in 1..3 {
        world.insert([id], 10);
        world.turn();
    }
    for _ in 0..4 {
        world.shard.tick(std::time::UNIX_EPOCH);
    }
    for (number, (_, socket)) in sessions.iter().enumerate() {
        let expected = match number {
            0..100 if number % 3 == 0 => vec!["o subscribed", "o synced", "o insert 2"],
            0..100 if number % 3 == 1 => vec!["o subscribed", "o synced"],
            0..100 => vec!["o subscribed", "o resync ahead"],
            100..200 => vec!["o subscribed"],
            _ => vec!["o subscribed", "o unsubscribed", "o subscribed", "o insert 1", "o insert 2"],
        };
        let lines = socket.lines();
        let told: Vec<&String> = lines.iter().filter(|line| *line != "heartbeat").collect();
        assert_eq!(told, expected, "session {number}");
    }
}

#[tokio::test]
async fn a_session_that_is_sent_away_knows_how_far_it_has_come() {
    let mut world = World::new(4096);
    let (live, live_socket) = world.session(usize::MAX);
    world.subscribe(live, "o", "", None);
    let (behind, behind_socket) = world.session(0);
    world.subscribe(behind, "o", "", None);
    let (idle, idle_socket) = world.session(usize::MAX);
    for id in 0..500 {
        world.insert([id], 10);
        world.turn();
    }
    let retry = Duration::from_secs(1);
    let here = Lsn::new(world.end);
    assert!(world.shard.release(live, retry));
    assert!(world.shard.release(idle, retry));
    assert!(!world.shard.release(behind, retry));
    assert_eq!(world.shard.staying(), [behind]);
    world.insert([500], 10);
    world.turn();
    assert_eq!(live_socket.lines().last(), Some(&format!("restart {here}")));
    assert_eq!(idle_socket.lines(), ["restart"]);
    // It takes a little, is not done, and must go.
    behind_socket.room.set(1000);
    world.shard.drain(behind).unwrap();
    world.turn();
    world.shard.dismiss(behind, retry);
    assert!(world.shard.staying().is_empty());
    behind_socket.room.set(usize::MAX);
    world.shard.drain(behind).unwrap();
    world.turn();
    let lines = behind_socket.lines();
    assert_eq!(lines.last().map(String::as_str), Some("restart"));
    let rows = lines.len() - 2;
    assert!((10..500).contains(&rows), "{rows}");
    assert_eq!(lines[1..=rows], inserted("o", 0..rows));
}

#[tokio::test]
async fn readers_that_stop_share_a_budget_and_lose_nothing() {
    const BUDGET: usize = 64 << 10;
    const SESSIONS: usize = 100;
    let mut world = World::new(16 << 10);
    let metrics = Arc::clone(&world.shard.shared.metrics);
    world.shard.budget = Rc::new(Budget::new(Arc::clone(&metrics), Arc::default(), BUDGET));
    let mut sessions = Vec::new();
    for _ in 0..SESSIONS {
        let (key, socket) = world.session(100);
        world.subscribe(key, "o", "", None);
        sessions.push((key, socket, String::new()));
    }
    let (quick, quick_socket) = world.session(usize::MAX);
    world.subscribe(quick, "o", "", None);
    let mut most = 0;
    for id in 0..3000 {
        world.insert([id], 10);
        world.turn();
        most = most.max(metrics.outbox_bytes());
    }
    // What the budget holds, and for each a step beyond it.
    assert!((BUDGET..BUDGET + SESSIONS * (8 << 10)).contains(&most), "{most}");
    assert_eq!(quick_socket.lines().len(), 3001);
    // One that reads on does, whatever the others hold.
    let expected: Vec<String> =
        std::iter::once("o subscribed".to_owned()).chain(inserted("o", 0..3000)).collect();
    for (key, socket, got) in &mut sessions {
        for _ in 0..1000 {
            socket.room.set(1000);
            world.shard.drain(*key).unwrap();
            world.turn();
            got.push_str(&String::from_utf8(socket.got.take()).unwrap());
        }
        assert!(got.lines().eq(&expected), "{} lines", got.lines().count());
    }
    assert_eq!(metrics.outbox_bytes(), 0);
}

#[tokio::test]
async fn a_step_of_writing_ends_after_so_many_bytes() {
    let mut world = World::new(1 << 20);
    let sockets: Vec<_> = (0..20)
        .map(|_| {
            let (key, socket) = world.session(usize::MAX);
            world.subscribe(key, "a", "", None);
            socket
        })
        .collect();
    world.turn();
    let told = |sockets: &[Rc<Socket>]| sockets.iter().filter(|it| !it.lines().is_empty()).count();
    told(&sockets);

    world.shard.settings.steps.flush_bytes = 1;
    world.insert([1], 10);
    world.shard.match_pass();
    for _ in 0..19 {
        assert!(!world.shard.flush_some());
        assert_eq!(told(&sockets), 1);
    }
    assert!(world.shard.flush_some());
    assert_eq!(told(&sockets), 1);
}

#[tokio::test]
async fn who_is_shown_the_same_by_different_rules_shares_a_body() {
    let mut world = World::new(1 << 20);
    let mut sockets = Vec::new();
    for number in 0..50_usize {
        let (key, socket) = world.session(usize::MAX);
        world.subscribe(key, "o", &format!("id >= {}", number % 10), None);
        sockets.push((number % 10, socket));
    }
    world.turn();
    sockets.iter().for_each(|(_, socket)| drop(socket.lines()));
    ENCODED.set(0);
    world.insert(5..8, 10);
    world.turn();
    assert_eq!(ENCODED.get(), 3);
    for (least, socket) in sockets {
        let expected: Vec<String> =
            inserted("o", 5..8).into_iter().skip(least.max(5) - 5).collect();
        assert_eq!(socket.lines(), expected, "from {least} on");
    }
}
