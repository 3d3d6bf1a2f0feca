//! Histories of a throttled subscription, made up by chance, each resumed from each of its frames.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::route::shard::Steps;

/// What happens to a client.
#[derive(Clone, Debug)]
enum Step {
    Insert(BTreeSet<usize>),
    Wait(u64),
    /// Its socket takes so many bytes.
    Read(usize),
    Pause,
    Resume,
    /// The table gets another shape, of the same columns, and everybody is judged again.
    Reshape,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(
        prop_oneof![
            9 => prop::collection::btree_set(0..6_usize, 1..6).prop_map(Step::Insert),
            4 => (0..150_u64).prop_map(Step::Wait),
            3 => (0..800_usize).prop_map(Step::Read),
            1 => Just(Step::Pause),
            1 => Just(Step::Resume),
            1 => Just(Step::Reshape),
        ],
        1..90,
    )
}

/// What a client holds: by key the newest value that it was told.
#[derive(Clone, Debug, Default)]
struct Held {
    newest: BTreeMap<String, usize>,
    /// Keys that it was told of since it read on from a cursor.
    told: BTreeSet<String>,
}

impl Held {
    /// Takes a line; returns the cursor of a row.
    fn take(&mut self, line: &str) -> Option<Cursor> {
        let words: Vec<&str> = line.split(' ').collect();
        if words == ["t", "resumed"] {
            self.told.clear();
        }
        let ["t", "insert", id, bytes, cursor] = words.as_slice() else { return None };
        let bytes: usize = bytes.parse().unwrap();
        let before = self.newest.insert((*id).to_owned(), bytes).unwrap_or(0);
        let repeats = !self.told.insert((*id).to_owned());
        assert!(bytes > before || (bytes == before && !repeats), "{id}: {bytes} after {before}");
        Some(cursor.parse().unwrap())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever a client and its socket do: it ends with the last value of every key, also when it
    /// resumes from any cursor that it has seen, and never goes back.
    #[test]
    fn whoever_resumes_from_what_it_has_seen_ends_with_the_last_values(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(follow(steps));
    }
}

async fn follow(steps: Vec<Step>) {
    // Room for what is remembered of six keys, not for what a client leaves unread.
    let mut world = World::new(4096);
    let (key, socket) = world.placed(200);
    world.throttled(key, "t", None);
    world.subscribe(key, "all", "", None);
    let steps_at_once = Steps { pass_changes: 3, slice_changes: 2, ..Steps::default() };
    world.shard.settings.steps = steps_at_once;
    let (mut newest, mut all) = (BTreeMap::new(), Vec::new());
    let (mut number, mut version) = (0, 1);
    let mut got = Vec::new();
    let end = [Step::Resume].into_iter();
    let end = end.chain(std::iter::repeat_n([Step::Read(99_999), Step::Wait(100)], 8).flatten());
    for step in steps.into_iter().chain(end) {
        match step {
            Step::Insert(ids) => {
                number += 1;
                for id in &ids {
                    newest.insert(id.to_string(), number);
                    all.push(format!("all insert {id} {number}"));
                }
                world.insert(ids, number);
            }
            Step::Wait(ms) => advance(Duration::from_millis(ms)).await,
            Step::Read(bytes) => {
                socket.room.set(bytes);
                world.shard.drain(key).unwrap();
            }
            Step::Pause => world.shard.pause(key, "t").unwrap(),
            Step::Resume => world.shard.unpause(key, "t").unwrap(),
            Step::Reshape => {
                version += 1;
                world.relation = relation(version, &["id", "body"]);
                let relations = [Arc::clone(&world.relation)];
                world.catalog.replace(Snapshot::of(version, &relations, ROLE));
            }
        }
        world.turn();
        got.extend_from_slice(&socket.got.take());
    }
    let got = String::from_utf8(got).unwrap();
    let mut held = Held::default();
    let mut stops = Vec::new();
    for line in got.lines() {
        if let Some(cursor) = held.take(line) {
            stops.push((cursor, held.clone()));
        }
    }
    assert_eq!(held.newest, newest, "{got}");
    let rows = got.lines().filter_map(|line| line.rsplit_once(' '));
    let rows = rows.map(|(row, _)| row).filter(|row| row.starts_with("all insert"));
    assert!(rows.eq(all.iter().map(String::as_str)), "{got}");
    for (cursor, mut held) in stops {
        held.told.clear();
        let (key, socket) = world.placed(usize::MAX);
        world.throttled(key, "t", Some(cursor));
        world.turn();
        for line in socket.lines() {
            held.take(&line);
        }
        assert_eq!(held.newest, newest, "from {cursor}: {got}");
    }
}
