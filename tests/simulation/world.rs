//! Two shards as the daemon would drive them, what feeds them, and the clock.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;
use walcast::ask::Asker;
use walcast::auth::Key;
use walcast::auth::Material;
use walcast::auth::Secret;
use walcast::auth::Settings as AuthSettings;
use walcast::auth::Verifier;
use walcast::auth::sign::development_token;
use walcast::catalog::Catalog;
use walcast::catalog::TableName;
use walcast::change::cursor::Position;
use walcast::change::cursor::Source;
use walcast::change::lsn::Lsn;
use walcast::gate::Gate;
use walcast::gate::Limits;
use walcast::metrics::Metrics;
use walcast::replica::Store;
use walcast::ring;
use walcast::ring::feed::Feed;
use walcast::ring::feed::Routed;
use walcast::route;
use walcast::route::policy::Policies;
use walcast::route::policy::Policy;
use walcast::route::shard::Shard;
use walcast::route::shard::Shared;
use walcast::route::shard::Steps;
use walcast::rule::parse_where;
use walcast::serve;
use walcast::serve::Front;

use crate::history::Committed;
use crate::history::History;
use crate::history::Told;
use crate::random::Random;
use crate::sight::Person;
use crate::sight::Wish;
use crate::tables::Database;
use crate::tables::Grants;
use crate::tables::ROLES;
use crate::tables::Shape;
use crate::tables::TABLES;
use crate::tables::all_granted;

const SECRET: &[u8] = b"a secret of the simulation, of 32 bytes and more";
const FEEDS: usize = 16;
/// Seconds between pings, and of silence that end a session.
pub(crate) const PING_SECONDS: u32 = 5;
pub(crate) const SILENCE_SECONDS: u32 = 12;
pub(crate) const HANDSHAKE_SECONDS: u32 = 4;
/// How long a session whose token is over may take to bring another, where it may at all.
pub(crate) const GRACE_SECONDS: u32 = 4;

/// One shard in one life of the daemon.
#[derive(Debug)]
pub(crate) struct Side {
    pub(crate) shard: Rc<RefCell<Shard>>,
    pub(crate) front: Rc<Front>,
    feeds: RefCell<Option<mpsc::Sender<Feed>>>,
    waiting: RefCell<VecDeque<Feed>>,
    pub(crate) told: RefCell<Told>,
    /// How many histories had begun when everything was routed last.
    pub(crate) starts_settled: RefCell<usize>,
    /// Whether the daemon has asked its clients to come back later.
    pub(crate) stopping: RefCell<bool>,
}

/// What the catalogue said.
#[derive(Debug)]
pub(crate) struct CatalogAt {
    pub(crate) shapes: [Shape; 3],
    pub(crate) grants: Grants,
}

/// Everything but the clients.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) random: Random,
    pub(crate) database: Database,
    pub(crate) grants: Grants,
    /// What the catalogue has said, the first generation first.
    pub(crate) generations: Vec<CatalogAt>,
    pub(crate) histories: Vec<History>,
    pub(crate) sides: Vec<Rc<Side>>,
    pub(crate) retired: Vec<Rc<Side>>,
    pub(crate) metrics: Arc<Metrics>,
    catalog: Arc<Catalog>,
    policies: Arc<Policies>,
    verifier: Arc<Verifier>,
    settings: route::shard::Settings,
    base: SystemTime,
    began_at: Instant,
    told: bool,
}

impl World {
    pub(crate) fn new(seed: u64, told: bool) -> World {
        let mut random = Random::new(seed);
        let database = Database::new(&mut random);
        let grants = all_granted();
        let catalog = Catalog::read_once(database.snapshot(1, &grants));
        let own = parse_where("owner = claims ->> 'sub'").unwrap();
        let policies = TABLES.iter().enumerate().map(|(table, name)| {
            let policy = if table == 0 { Policy::Rule(own.clone()) } else { Policy::Open };
            (TableName::parse(name), policy)
        });
        let key = Key {
            algorithm: "HS256".parse().unwrap(),
            kid: None,
            material: Material::Secret(Secret::new(SECRET.to_vec())),
        };
        let roles = ROLES.iter().map(|role| (*role).to_owned()).collect();
        let leeway = Duration::ZERO;
        let auth = AuthSettings { keys: vec![key], roles, leeway, ..AuthSettings::default() };
        let settings = settings(&mut random);
        let generations = vec![CatalogAt { shapes: database.shapes, grants: grants.clone() }];
        let source = Source { system: 7, timeline: 1 };
        let mut world = World {
            random,
            database,
            grants,
            generations,
            histories: vec![History::new(source, Lsn::new(1000))],
            sides: Vec::new(),
            retired: Vec::new(),
            metrics: Arc::default(),
            catalog: Arc::new(catalog),
            policies: Arc::new(Policies::new(policies)),
            verifier: Arc::new(Verifier::new(auth).unwrap()),
            settings,
            // Tokens are verified by the real clock, which must not catch up with this one.
            base: SystemTime::now() + Duration::from_hours(1),
            began_at: Instant::now(),
            told,
        };
        world.start(Lsn::new(1000));
        world
    }

    /// Prints what happens, where one seed is looked at.
    pub(crate) fn tell(&self, what: impl FnOnce() -> String) {
        if self.told {
            println!("{:>6} {}", self.began_at.elapsed().as_millis(), what());
        }
    }

    /// Starts the daemon: the slot's stream begins after `tail`.
    fn start(&mut self, tail: Lsn) {
        for _ in 0..2 {
            let side = self.side();
            self.sides.push(side);
        }
        let history = self.histories.last().unwrap();
        let source = history.source;
        let after = history.committed.iter().filter(|it| it.end_lsn > tail);
        let again: Vec<_> = after.flat_map(|it| it.parts.clone()).collect();
        self.feed(&Feed::Start { source, tail });
        for transaction in again {
            self.feed(&Feed::Transaction(transaction));
        }
        self.feed(&Feed::Live);
    }

    fn side(&self) -> Rc<Side> {
        let shared = Shared {
            catalog: Arc::clone(&self.catalog),
            replicas: Store::empty(&self.catalog),
            policies: Arc::clone(&self.policies),
            asker: Asker::unanswered(),
            metrics: Arc::clone(&self.metrics),
            routed: Routed::new(),
        };
        let shard = Rc::new(RefCell::new(Shard::new(self.settings, shared)));
        let settings = serve::Settings {
            address: ([127, 0, 0, 1], 0).into(),
            request_bytes_max: 4096,
            handshake: Duration::from_secs(10),
            subscriptions_max: self.settings.subscriptions_max,
            ping_seconds: PING_SECONDS,
            silence: Duration::from_secs(SILENCE_SECONDS.into()),
            origins: Vec::new(),
            drain: Duration::from_secs(1),
            tls: None,
            gate: Arc::new(Gate::new(Limits::default(), Arc::clone(&self.metrics))),
        };
        let front = Front::new(Rc::clone(&shard), Arc::clone(&self.verifier), settings);
        let (feeds, receiver) = mpsc::channel(FEEDS);
        let (base, began_at) = (self.base, self.began_at);
        let clock = move || base + began_at.elapsed();
        tokio::task::spawn_local(route::run::run(Rc::clone(&shard), receiver, clock));
        Rc::new(Side {
            shard,
            front: Rc::new(front),
            feeds: RefCell::new(Some(feeds)),
            waiting: RefCell::default(),
            told: RefCell::new(Told::nothing(self.settings.ring.bytes_max)),
            starts_settled: RefCell::new(0),
            stopping: RefCell::new(false),
        })
    }

    /// Ends the daemon and starts another, whose slot was confirmed somewhere in the past.
    pub(crate) fn restart(&mut self) {
        let history = self.histories.last().unwrap();
        let routed = |end: &Lsn| {
            let mut told = self.sides.iter().map(|side| side.told.borrow());
            told.all(|told| {
                told.source == Some(history.source) && told.head >= Position::after(*end)
            })
        };
        let ends = history.committed.iter().map(|committed| committed.end_lsn);
        let mut ends: Vec<_> = ends.filter(|end| *end > history.slot_at && routed(end)).collect();
        ends.insert(0, history.slot_at);
        let back = self.random.below(ends.len().min(30));
        let tail = ends[ends.len() - 1 - back];
        for side in std::mem::take(&mut self.sides) {
            side.feeds.take();
            self.retired.push(side);
        }
        self.start(tail);
    }

    /// Adds something to what the shards will be told.
    pub(crate) fn feed(&self, feed: &Feed) {
        if !matches!(feed, Feed::Transaction(_)) {
            self.tell(|| format!("{feed:?}"));
        }
        for side in &self.sides {
            side.waiting.borrow_mut().push_back(feed.clone());
        }
    }

    /// Commits a transaction; `streamed` tells whether the slot has it.
    pub(crate) fn commit(&mut self, changes: usize, streamed: bool) {
        let changes = self.database.changes(changes, &mut self.random);
        let gap = u64::try_from(1 + self.random.below(3)).unwrap();
        let generation = self.generation();
        let history = self.histories.last_mut().unwrap();
        let at = i64::try_from(history.head.bytes()).unwrap();
        let commit_lsn = Lsn::new(history.head.bytes() + gap);
        let parts = self.database.encode(&changes, commit_lsn, at, &mut self.random);
        let end_lsn = parts.last().and_then(|part| part.end_lsn).unwrap();
        history.head = end_lsn;
        let committed =
            Committed { commit_lsn, end_lsn, parts: parts.clone(), changes, generation };
        history.committed.push(committed);
        self.tell(|| format!("commit {commit_lsn} in {} parts, {streamed}", parts.len()));
        if streamed {
            for part in parts {
                self.feed(&Feed::Transaction(part));
            }
        }
    }

    /// A keepalive of a quiet database.
    pub(crate) fn advance(&mut self) {
        let history = self.histories.last_mut().unwrap();
        history.head = Lsn::new(history.head.bytes() + 10);
        let head = history.head;
        self.feed(&Feed::Advance(head));
    }

    /// The connection to the database was lost: the stream repeats what was not confirmed.
    pub(crate) fn interrupt(&mut self) {
        let committed = &self.histories.last().unwrap().committed;
        let count = self.random.below(committed.len().min(20) + 1);
        let again = committed[committed.len() - count..].iter();
        let again: Vec<_> = again.flat_map(|it| it.parts.clone()).collect();
        self.feed(&Feed::Interrupted);
        self.feed(&Feed::Resumed);
        for transaction in again {
            self.feed(&Feed::Transaction(transaction));
        }
    }

    /// The slot was made anew: some transactions were never streamed.
    pub(crate) fn lose_slot(&mut self) {
        for _ in 0..self.random.below(4) {
            self.commit(2, false);
        }
        let history = self.histories.last_mut().unwrap();
        history.slot_at = history.head;
        let start = Feed::Start { source: history.source, tail: history.head };
        self.feed(&start);
    }

    /// A failover: another history, whose positions may have been in the one before.
    pub(crate) fn fail_over(&mut self) {
        if self.random.one_in(3) {
            self.commit(10, false);
            let parts = self.histories.last().unwrap().committed.last().unwrap().parts.clone();
            // The stream may have been in the middle of a transaction.
            for part in parts.split_last().unwrap().1 {
                self.feed(&Feed::Transaction(Arc::clone(part)));
            }
        }
        let before = self.histories.last().unwrap();
        let Source { system, timeline } = before.source;
        let source = match self.random.one_in(2) {
            true => Source { system, timeline: timeline + 1 },
            false => Source { system: system + 1, timeline },
        };
        let lost = u64::try_from(self.random.below(50)).unwrap();
        let tail = Lsn::new(before.head.bytes() - lost);
        self.histories.push(History::new(source, tail));
        self.feed(&Feed::Start { source, tail });
    }

    /// The catalogue is read, and says something else.
    pub(crate) fn read_catalog(&mut self) {
        let (shapes, grants) = (self.database.shapes, self.grants.clone());
        self.tell(|| format!("catalogue {shapes:?} {grants:?}"));
        self.generations.push(CatalogAt { shapes, grants });
        self.catalog.replace(self.database.snapshot(self.generation(), &self.grants));
    }

    pub(crate) fn generation(&self) -> u64 {
        u64::try_from(self.generations.len()).unwrap()
    }

    pub(crate) fn history(&self, source: Source) -> Option<&History> {
        self.histories.iter().find(|history| history.source == source)
    }

    /// What is delivered of a wish, or the refusal, by a generation of the catalogue.
    pub(crate) fn plan(
        &self,
        wish: &Wish,
        shape: Shape,
        role: &'static str,
        generation: u64,
    ) -> Result<Vec<&'static str>, &'static str> {
        let at = &self.generations[usize::try_from(generation).unwrap() - 1];
        wish.plan(shape, at.shapes[wish.table], role, &at.grants)
    }

    /// Every shape that the table has had.
    pub(crate) fn shapes(&self, table: usize) -> Vec<Shape> {
        let mut shapes: Vec<_> = self.generations.iter().map(|at| at.shapes[table]).collect();
        shapes.sort_unstable();
        shapes.dedup();
        shapes
    }

    /// The simulated time, in seconds since 1970.
    pub(crate) fn seconds(&self) -> u64 {
        let now = self.base + self.began_at.elapsed();
        now.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
    }

    pub(crate) fn token(&self, person: Person, expires_at: u64) -> String {
        // By the real clock, which verifies it, long ago; later than those made before.
        let iat = self.began_at.elapsed().as_secs();
        let claims =
            json!({ "sub": person.subject, "role": person.role, "exp": expires_at, "iat": iat });
        let secret = Secret::new(SECRET.to_vec());
        development_token("HS256".parse().unwrap(), None, &secret, claims.as_object().unwrap())
            .unwrap()
    }

    pub(crate) fn claims(&self, person: Person, expires_at: u64) -> walcast::auth::Claims {
        self.verifier.verify(&self.token(person, expires_at)).unwrap()
    }
}

impl Side {
    /// Tells the shard some of what waits.
    pub(crate) fn pump(&self, count: usize) {
        let feeds = self.feeds.borrow();
        let Some(feeds) = feeds.as_ref() else { return };
        for _ in 0..count.min(feeds.capacity()) {
            let Some(feed) = self.waiting.borrow_mut().pop_front() else { return };
            self.told.borrow_mut().note(&feed);
            feeds.try_send(feed).unwrap();
        }
    }

    pub(crate) fn has_waiting(&self) -> bool {
        !self.waiting.borrow().is_empty()
    }

    /// Asks every client to come back later.
    pub(crate) fn stop(&self) {
        *self.stopping.borrow_mut() = true;
        let mut shard = self.shard.borrow_mut();
        for key in shard.staying() {
            shard.dismiss(key, Duration::from_secs(1));
        }
    }
}

fn settings(random: &mut Random) -> route::shard::Settings {
    route::shard::Settings {
        subscriptions_max: 5,
        outbox_bytes_max: random.pick(&[700, 2000, 6000, 100_000]),
        frame_bytes_max: 1 << 20,
        outbox_total_bytes_max: random.pick(&[2000, 1 << 20]),
        handshake_seconds: HANDSHAKE_SECONDS,
        ping_seconds: PING_SECONDS,
        silence_seconds: SILENCE_SECONDS,
        grace_seconds: random.pick(&[0, GRACE_SECONDS]),
        memo_bytes_max: 0,
        ring: ring::Settings {
            bytes_max: random.pick(&[1000, 3000, 10_000, 1 << 20]),
            ..ring::Settings::default()
        },
        steps: Steps {
            pass_bytes: random.pick(&[200, 1000, 10_000]),
            pass_changes: random.pick(&[1, 3, 20, 1000]),
            flush_sessions: random.pick(&[1, 2, 100]),
            flush_bytes: random.pick(&[1, 300, 1 << 20]),
            behind_slices: random.pick(&[1, 4]),
            slice_bytes: random.pick(&[200, 1000, 10_000]),
            slice_changes: random.pick(&[2, 3, 20, 1000]),
        },
    }
}
