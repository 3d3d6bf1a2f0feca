//! Snapshots, with answers that say exactly what the test wants them to have seen.

use std::rc::Rc;
use std::sync::Arc;

use crate::ask::Answer;
use crate::ask::AskError;
use crate::ask::Job;
use crate::ask::Question;
use crate::catalog::TableName;
use crate::change::id::Xid;
use crate::change::lsn::Lsn;
use crate::change::transaction::ChangeKind;
use crate::change::transaction::Timestamp;
use crate::change::transaction::TransactionBuilder;
use crate::change::tuple::Tuple;
use crate::change::value::BigNumbers;
use crate::ring;
use crate::ring::feed::Feed;
use crate::route::session::SessionKey;
use crate::route::shard::Settings;
use crate::route::shard::Shard;
use crate::route::subscription::Events;
use crate::route::subscription::Request;
use crate::route::subscription::SnapshotRequest;
use crate::route::subscription::Subscribe;
use crate::route::tests::SOURCE;
use crate::route::tests::Socket;
use crate::route::tests::World;

impl World {
    /// One whose ring holds a transaction or two.
    fn forgetful() -> World {
        let mut world = World::new(1 << 20);
        let ring = ring::Settings { bytes_max: 400, ..ring::Settings::default() };
        let settings = Settings { ring, ..Settings::default() };
        world.shard = Shard::new(settings, world.shard.shared.clone());
        let tail = Lsn::new(100);
        world.shard.incoming.push_back(Feed::Start { source: SOURCE, tail });
        world.turn();
        world
    }

    fn snapshot(&mut self, id: &str) -> (SessionKey, Rc<Socket>) {
        let (key, socket) = self.session(usize::MAX);
        let request = Request {
            table: TableName::parse("orders"),
            filter: None,
            columns: None,
            events: Events::ALL,
            big_numbers: BigNumbers::AsNumbers,
            throttle: None,
        };
        let snapshot = Some(Box::new(SnapshotRequest::default()));
        let subscribe = Subscribe { id: id.into(), request, since: None, snapshot };
        self.shard.subscribe(key, subscribe).unwrap();
        (key, socket)
    }

    /// A transaction of one row, with its number.
    fn commit(&mut self, xid: u32, id: usize) {
        self.xid = xid;
        self.insert([id], 10);
        self.turn();
    }

    /// The next question for rows.
    fn asked(&mut self) -> Job {
        let job = self.asked.try_recv().unwrap();
        assert!(matches!(job.question, Question::Rows(_)));
        job
    }

    /// Answers with rows and what was seen.
    fn answer(&mut self, job: &Job, rows: &[usize], seen: &str, insert_lsn: u64) {
        let mut builder = TransactionBuilder::new(Xid(0), Lsn::ZERO, Timestamp(0));
        for id in rows {
            let id = id.to_string();
            let length = u8::try_from(id.len()).unwrap();
            let wire = [b"\0\x02t\0\0\0", &[length][..], id.as_bytes(), b"n"].concat();
            let new = Tuple::take(&wire).unwrap().0;
            builder.push(&self.relation, ChangeKind::Insert { new }).unwrap();
        }
        let rows = builder.commit(Lsn::ZERO);
        let seen = Arc::new(seen.parse().unwrap());
        job.listener.tell(Ok(Arc::new(Answer::new(seen, Lsn::new(insert_lsn), rows))));
        self.hear();
    }

    /// Takes what was told.
    fn hear(&mut self) {
        let told = self.shard.told.as_mut().unwrap().try_recv().unwrap();
        self.shard.take_answer(told);
        self.turn();
    }
}

#[tokio::test]
async fn what_the_answer_did_not_see_is_delivered_though_it_came_before_the_question() {
    let mut world = World::new(1 << 20);
    world.commit(10, 1);
    world.commit(12, 2);
    world.commit(11, 3);
    let (_, socket) = world.snapshot("s");
    world.commit(13, 4);
    let job = world.asked();
    // 12 stands in the log, and was not visible yet; 13 came after.
    world.answer(&job, &[1, 3], "12:13:12", 140);
    world.commit(14, 5);
    let expected = [
        "s subscribed",
        "s snapshot 1",
        "s snapshot 3",
        "s insert 2",
        "s insert 4",
        "s synced",
        "s insert 5",
    ];
    assert_eq!(socket.lines(), expected);
}

#[tokio::test]
async fn what_the_answer_saw_is_not_delivered_again_when_it_comes_later() {
    let mut world = World::new(1 << 20);
    let (_, socket) = world.snapshot("s");
    let job = world.asked();
    // The log's end is after three transactions of which none has come.
    world.answer(&job, &[1, 3], "11:13:11", 130);
    assert_eq!(socket.lines(), ["s subscribed", "s snapshot 1", "s snapshot 3"]);
    world.commit(10, 1);
    world.commit(11, 2);
    assert!(socket.lines().is_empty());
    world.commit(12, 3);
    world.commit(13, 4);
    assert_eq!(socket.lines(), ["s insert 2", "s synced", "s insert 4"]);
}

#[tokio::test]
async fn the_transaction_that_is_being_matched_is_seen_or_not_as_a_whole() {
    for (seen, inserted) in [("11:11:", 1), ("10:11:10", 20_001)] {
        let mut world = World::new(1 << 20);
        // More than a pass: the shard stands inside of it.
        world.xid = 10;
        world.insert(0..20_000, 10);
        world.round();
        let (_, socket) = world.snapshot("s");
        let job = world.asked();
        world.answer(&job, &[], seen, 110);
        world.commit(11, 20_000);
        let lines = socket.lines();
        let count = lines.iter().filter(|line| line.contains("insert")).count();
        assert_eq!(count, inserted, "{seen}");
    }
}

#[tokio::test]
async fn an_evicted_transaction_that_was_not_seen_makes_it_ask_again() {
    let mut world = World::forgetful();
    let (_, socket) = world.snapshot("s");
    let job = world.asked();
    for xid in 10..20 {
        world.commit(xid, 1);
    }
    world.answer(&job, &[7], "11:20:11", 200);
    assert_eq!(socket.lines(), ["s subscribed"]);
    let job = world.asked();
    world.answer(&job, &[8], "20:20:", 200);
    assert_eq!(socket.lines(), ["s snapshot 8", "s synced"]);
}

#[tokio::test]
async fn a_snapshot_that_is_overtaken_again_and_again_is_given_up() {
    let mut world = World::forgetful();
    let (_, socket) = world.snapshot("s");
    for xid in 10..20 {
        world.commit(xid, 1);
    }
    for _ in 0..5 {
        let job = world.asked();
        world.answer(&job, &[7], "11:20:11", 200);
    }
    assert_eq!(socket.lines(), ["s subscribed", "s refused snapshot_overtaken"]);
    assert!(world.asked.try_recv().is_err());
}

#[tokio::test]
async fn answers_for_nobody_are_dropped_and_refusals_end_the_subscription() {
    let mut world = World::new(1 << 20);
    let (key, socket) = world.snapshot("s");
    let job = world.asked();
    world.shard.unsubscribe(key, "s").unwrap();
    world.answer(&job, &[1], "10:10:", 100);
    assert_eq!(socket.lines(), ["s subscribed", "s unsubscribed"]);
    let (_, socket) = world.snapshot("t");
    world.asked().listener.tell(Err(AskError::Busy));
    world.hear();
    assert_eq!(socket.lines(), ["t subscribed", "t refused snapshot_busy"]);
    assert_eq!(world.shard.outstanding, 0);
}
