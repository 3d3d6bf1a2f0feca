//! What a seed makes happen.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::sleep;
use walcast::change::cursor::Cursor;
use walcast::change::cursor::Position;
use walcast::change::cursor::Source;
use walcast::change::lsn::Lsn;

use crate::client::Due;
use crate::client::Link;
use crate::client::Pace;
use crate::client::Seen;
use crate::client::Token;
use crate::pipe::pipe;
use crate::sight::Person;
use crate::sight::Wish;
use crate::tables::Granted;
use crate::tables::ROLES;
use crate::tables::SUBJECTS;
use crate::tables::TABLES;
use crate::world::GRACE_SECONDS;
use crate::world::World;

const CLIENTS: usize = 5;
const STEPS: usize = 200;
const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// A client: connected or not, and what it goes on with when it comes back.
#[derive(Debug)]
struct Client {
    link: Option<Link>,
    pace: Pace,
    kept: BTreeMap<String, (Wish, Cursor)>,
}

/// One run.
#[derive(Debug)]
struct Run {
    world: World,
    clients: Vec<Client>,
    /// What several clients ask for: those share groups.
    common: Vec<Wish>,
    seen: Seen,
}

/// Runs one seed's schedule; panics where the contract is broken.
pub(crate) async fn run(seed: u64, told: bool) -> Seen {
    let clients = (0..CLIENTS)
        .map(|_| Client { link: None, pace: Pace::Fast, kept: BTreeMap::new() })
        .collect();
    let mut world = World::new(seed, told);
    let common = (0..3).map(|_| Wish::any(&mut world.random)).collect();
    let mut run = Run { world, clients, common, seen: Seen::new() };
    for _ in 0..STEPS {
        run.step().await;
    }
    run.settle().await;
    run.end().await;
    for (name, count) in run.world.metrics.read() {
        run.seen.insert(format!("metric {name}"), usize::try_from(count).unwrap());
    }
    run.seen
}

impl Run {
    async fn step(&mut self) {
        let client = self.world.random.below(CLIENTS);
        match self.world.random.below(1000) {
            0..300 => {
                let many = self.world.random.one_in(25);
                let count = 1 + self.world.random.below(if many { 40 } else { 4 });
                self.world.commit(count, true);
            }
            300..450 => {
                let count = 1 + self.world.random.below(8);
                for side in &self.world.sides {
                    side.pump(count);
                }
                let one = self.world.random.below(2);
                self.world.sides[one].pump(20);
            }
            450..600 => _ = self.read_all(),
            600..700 => {
                for _ in 0..self.world.random.below(6) {
                    yield_now().await;
                }
            }
            700..740 => self.sleep(Duration::from_millis(5)).await,
            740..743 => self.sleep(Duration::from_millis(4500)).await,
            743 => self.sleep(Duration::from_secs(16)).await,
            744..748 => self.settle().await,
            748..818 => self.connect(client),
            818..888 => self.subscribe(client),
            888..918 => self.unsubscribe(client),
            918..928 => self.authenticate(client),
            928..940 => self.disconnect(client),
            940..960 => {
                let pace = [Pace::Fast, Pace::Fast, Pace::Slow, Pace::Stopped];
                let pace = self.world.random.pick(&pace);
                let client = &mut self.clients[client];
                client.pace = pace;
                if let Some(link) = &mut client.link {
                    link.was_slow |= pace != Pace::Fast;
                }
            }
            960..966 => self.world.advance(),
            966..972 => self.world.interrupt(),
            972..980 => self.grant(),
            980..987 => {
                self.world.database.alter(&mut self.world.random);
                self.world.read_catalog();
            }
            987..992 => self.world.database.stream_ddl(),
            992..994 => self.world.lose_slot(),
            994..996 => self.world.fail_over(),
            996..998 => self.restart(),
            _ => self.odd_request(client),
        }
    }

    /// Time passes, and clients that read do so.
    async fn sleep(&mut self, time: Duration) {
        let mut left = time;
        while !left.is_zero() {
            let step = left.min(Duration::from_millis(900));
            sleep(step).await;
            while self.read_all() {
                sleep(Duration::from_millis(1)).await;
            }
            left -= step;
        }
    }

    /// Lets every client read; tells whether there was anything for those that read.
    fn read_all(&mut self) -> bool {
        let mut read = false;
        for client in 0..CLIENTS {
            let bytes = match self.clients[client].pace {
                Pace::Fast => usize::MAX,
                Pace::Slow => 1 + self.world.random.below(300),
                Pace::Stopped => continue,
            };
            read |= self.read(client, bytes);
        }
        read
    }

    fn read(&mut self, client: usize, bytes: usize) -> bool {
        let client = &mut self.clients[client];
        let Some(link) = &mut client.link else { return false };
        let count = link.read(bytes, &self.world, &mut self.seen);
        if count.is_none() {
            client.leave();
        }
        count.is_some_and(|count| count > 0)
    }

    /// Everything that was committed is told, and everything that was sent is read.
    async fn settle(&mut self) {
        let mut quiet = 0;
        while quiet < 3 {
            for side in &self.world.sides {
                side.pump(usize::MAX);
            }
            sleep(Duration::from_millis(1)).await;
            let read = self.read_all();
            let waits = self.world.sides.iter().any(|side| side.has_waiting());
            quiet = if read || waits { 0 } else { quiet + 1 };
        }
        for side in &self.world.sides {
            *side.starts_settled.borrow_mut() = side.told.borrow().starts;
        }
    }

    fn connect(&mut self, at: usize) {
        if self.clients[at].link.is_some() {
            return;
        }
        let world = &mut self.world;
        let side = Rc::clone(&world.sides[world.random.below(2)]);
        if !*side.shard.borrow().live().borrow() {
            return;
        }
        let (server, end) = pipe(world.random.pick(&[100, 500, 3000, 100_000]));
        let token = self.clients[at].token(world).filter(|_| !world.random.one_in(8));
        let claims = token.map(|token| world.claims(token.person, token.expires_at));
        side.front.attach(server, claims);
        let which = world.sides.iter().position(|it| Rc::ptr_eq(it, &side)).unwrap();
        world.tell(|| format!("client {at} comes to {which} with {token:?}"));
        let mut link = Link::new(format!("client {at}"), end, side, token);
        link.was_slow = self.clients[at].pace != Pace::Fast;
        for (id, (wish, cursor)) in std::mem::take(&mut self.clients[at].kept) {
            link.subscribe(&id, wish, Some(cursor), world);
        }
        self.clients[at].link = Some(link);
    }

    fn subscribe(&mut self, at: usize) {
        let world = &mut self.world;
        let Some(link) = &mut self.clients[at].link else { return };
        let id = world.random.pick(&NAMES);
        if link.subscriptions.contains_key(id) || link.is_ending(id) {
            return;
        }
        let mut wish = match world.random.below(6) {
            common @ 0..3 => self.common[common].clone(),
            _ => Wish::any(&mut world.random),
        };
        if world.database.shapes[wish.table].extra && world.random.one_in(4) {
            wish.want_extra();
        }
        let since = match world.random.below(12) {
            0..7 => None,
            _ => Some(any_cursor(world)),
        };
        link.subscribe(id, wish, since, world);
    }

    fn unsubscribe(&mut self, at: usize) {
        let Some(link) = &mut self.clients[at].link else { return };
        let id = self.world.random.pick(&NAMES);
        if link.subscriptions.get(id).is_some_and(|subscription| !subscription.ending) {
            link.unsubscribe(id);
        }
    }

    fn authenticate(&mut self, at: usize) {
        let world = &mut self.world;
        let Some(link) = &mut self.clients[at].link else { return };
        let now = world.seconds();
        let coming = link.due.iter().rev().find_map(|due| match due {
            Due::Authenticated(token) => Some(token.person.subject),
            _ => None,
        });
        let subject = coming.or(link.token.map(|token| token.person.subject));
        let mut person = Person::any(&mut world.random);
        let expires_at = now + 3 + u64::try_from(world.random.below(60)).unwrap();
        match world.random.below(6) {
            0 => link.authenticate("no token", Due::Error("bad_token")),
            1 if subject.is_some() => {
                let others: Vec<_> =
                    SUBJECTS.into_iter().filter(|it| Some(*it) != subject).collect();
                person.subject = world.random.pick(&others);
                link.authenticate(&world.token(person, expires_at), Due::Error("subject_changed"));
            }
            _ => {
                person.subject = subject.unwrap_or(person.subject);
                let token = Token { person, expires_at };
                link.authenticate(&world.token(person, expires_at), Due::Authenticated(token));
            }
        }
    }

    fn disconnect(&mut self, at: usize) {
        // What was on its way may still have come.
        if self.world.random.one_in(2) {
            let bytes = self.world.random.below(2000);
            self.read(at, bytes);
        }
        self.world.tell(|| format!("client {at} leaves"));
        self.clients[at].leave();
    }

    fn grant(&mut self) {
        let world = &mut self.world;
        let (role, table) = (world.random.pick(&ROLES), world.random.below(TABLES.len()));
        let granted = match world.random.below(5) {
            0 => Granted::Nothing,
            1 | 2 => {
                let columns = ["id", "owner", "word", "total", "extra"];
                let random = &mut world.random;
                Granted::Columns(columns.into_iter().filter(|_| !random.one_in(4)).collect())
            }
            _ => Granted::Table,
        };
        world.grants.insert((role, table), granted);
        world.read_catalog();
    }

    /// The daemon stops in order, or is killed, and comes back.
    fn restart(&mut self) {
        let drained = self.world.random.one_in(2);
        self.world.tell(|| format!("restart, drained: {drained}"));
        let sides = self.world.sides.clone();
        self.world.restart();
        for side in sides {
            if drained {
                side.stop();
                continue;
            }
            for client in &mut self.clients {
                if client.link.as_ref().is_some_and(|link| Rc::ptr_eq(&link.side, &side)) {
                    client.leave();
                }
            }
        }
    }

    fn odd_request(&mut self, at: usize) {
        let Some(link) = &mut self.clients[at].link else { return };
        match self.world.random.below(3) {
            0 => {
                link.end.send(r#"{"type":"ping"}"#);
                link.due.push_back(Due::Pong);
            }
            1 => {
                link.end.send("{");
                link.due.push_back(Due::Error("bad_request"));
            }
            _ => {
                link.end.send(r#"{"type":"shout"}"#);
                link.due.push_back(Due::Error("unknown_request"));
            }
        }
    }

    /// Everybody reads until nothing comes any more, and then must have everything.
    async fn end(&mut self) {
        for client in &mut self.clients {
            client.pace = Pace::Fast;
        }
        for _ in 0..5 {
            self.settle().await;
            self.sleep(Duration::from_secs(1)).await;
        }
        self.settle().await;
        for client in &mut self.clients {
            let Some(link) = &client.link else { continue };
            link.must_have_everything(&self.world);
            let expired = link.token.is_some_and(|it| {
                it.expires_at + 2 + u64::from(GRACE_SECONDS) < self.world.seconds()
            });
            assert!(!expired, "a session outlived its token");
            client.link = None;
        }
        sleep(Duration::from_secs(10)).await;
        for side in self.world.sides.iter().chain(&self.world.retired) {
            assert_eq!(side.shard.borrow().session_count(), 0, "sessions without clients");
        }
    }
}

impl Client {
    fn token(&self, world: &mut World) -> Option<Token> {
        let person = Person::any(&mut world.random);
        let lasts = world.random.pick(&[3, 10, 1000, 1000, 1000]);
        Some(Token { person, expires_at: world.seconds() + lasts })
    }

    /// The connection is over; subscriptions go on from their cursors when it is back.
    fn leave(&mut self) {
        let Some(link) = self.link.take() else { return };
        for (id, subscription) in link.subscriptions {
            if let Some(cursor) = subscription.cursor.filter(|_| !subscription.ending) {
                self.kept.insert(id, (subscription.wish, cursor));
            }
        }
    }
}

impl Link {
    fn is_ending(&self, id: &str) -> bool {
        self.due.iter().any(|due| matches!(due, Due::Unsubscribed(of) if of == id))
    }
}

/// A cursor that somebody may have kept, or made up.
fn any_cursor(world: &mut World) -> Cursor {
    let which = world.random.below(world.histories.len());
    let history = &world.histories[which];
    let (source, head) = (history.source, history.head);
    if world.random.one_in(8) {
        return Cursor::after(Source { system: 99, timeline: 1 }, head);
    }
    if world.random.one_in(4) {
        return Cursor::after(source, Lsn::new(head.bytes() + 1_000_000));
    }
    if history.committed.is_empty() {
        return Cursor::after(source, head);
    }
    let which = history.committed.len() - 1 - world.random.below(history.committed.len().min(20));
    let (transaction, changes) =
        (&history.committed[which], history.committed[which].changes.len());
    let position = match world.random.below(changes + 1) {
        0 => Position::after(transaction.end_lsn),
        count => Position::within(transaction.commit_lsn, u32::try_from(count).unwrap()),
    };
    Cursor { source, position }
}
