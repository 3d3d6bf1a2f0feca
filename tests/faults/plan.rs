//! What happens in a run, from its seed: how walcast is set, who watches what, and which fault
//! comes when.

use std::time::Duration;

use crate::dice::Dice;
use crate::filter::Filter;
use crate::guard;
use crate::guard::Identity;
use crate::guard::PEOPLE;
use crate::schema::GUARDED;
use crate::schema::LEAVES;
use crate::schema::TABLES;

/// A run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) lasts: Duration,
    pub(crate) profile: Profile,
    pub(crate) clients: Vec<ClientPlan>,
    /// In the order of their times, counted from the beginning.
    pub(crate) faults: Vec<(Duration, Fault)>,
}

/// How things are set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Profile {
    /// Small outboxes, a small ring and a short window, so that clients fall behind and off.
    pub(crate) tight: bool,
    /// `publish_via_partition_root`.
    pub(crate) by_root: bool,
    pub(crate) shards: u64,
    pub(crate) writers: i64,
    /// Transactions in a second, of all writers.
    pub(crate) rate: u64,
    /// Whether instead each writer inserts a thousand rows a second into `orders`, as evenly as it
    /// can, and does nothing else.
    pub(crate) steady: bool,
}

/// One client: what it subscribes to on its one connection.
#[derive(Clone, Debug)]
pub(crate) struct ClientPlan {
    /// Whom its token names; without one it is nobody.
    pub(crate) identity: Option<Identity>,
    pub(crate) watches: Vec<Watch>,
}

/// One subscription.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    /// Unique in the run.
    pub(crate) name: String,
    /// Its name on the wire, which other clients use, too.
    pub(crate) id: String,
    /// The client's.
    pub(crate) identity: Option<Identity>,
    pub(crate) table: &'static str,
    pub(crate) filter: Filter,
    /// Whether the filter is sent in PostgREST's form.
    pub(crate) postgrest: bool,
    /// The columns asked for; all, if absent.
    pub(crate) columns: Option<Vec<&'static str>>,
    /// Whether it begins with the rows that are there.
    pub(crate) snapshot: bool,
    /// The least time between two deliveries of a row, in milliseconds, where there is one.
    pub(crate) throttle_ms: Option<u64>,
}

impl Watch {
    /// The chain of the rows that are written for it last of all.
    pub(crate) fn end(&self) -> String {
        format!("end:{}", self.name)
    }
}

/// Something that goes wrong. A client that forgets is one more that comes anew: what it held and
/// its cursors are gone. Commits that are held up are in the log, and decoded, before anybody sees
/// them in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Fault {
    WalcastKilled,
    WalcastPaused,
    WalcastDrained,
    PostgresKilled,
    PostgresStoppedFast,
    PostgresStoppedAtOnce,
    PostgresPaused,
    BackendKilled,
    WalsenderTerminated,
    WalsenderPaused,
    CommitsHeldUp,
    ClientsCut,
    ClientsHalfOpen,
    ClientsFrozen,
    ClientsSlow,
    UpstreamCut,
    UpstreamHalfOpen,
    UpstreamFrozen,
    UpstreamSlow,
    ReadersStop,
    ClientsForget,
    SlotDropped,
    TableUnpublished,
    ColumnAdded,
    ColumnRenamed,
    ColumnDropped,
    TypeChanged,
    IdentityChanged,
    TableTruncated,
    PolicyAltered,
    MembersTruncated,
}

/// Those that every run has, the shortest one too.
const ALWAYS: [Fault; 7] = [
    Fault::PolicyAltered,
    Fault::WalcastKilled,
    Fault::PostgresKilled,
    Fault::ClientsCut,
    Fault::UpstreamCut,
    Fault::ReadersStop,
    Fault::WalcastDrained,
];

/// The others.
const MORE: [Fault; 25] = [
    Fault::PolicyAltered,
    Fault::MembersTruncated,
    Fault::WalcastPaused,
    Fault::PostgresStoppedFast,
    Fault::PostgresStoppedAtOnce,
    Fault::PostgresPaused,
    Fault::BackendKilled,
    Fault::WalsenderTerminated,
    Fault::WalsenderPaused,
    Fault::CommitsHeldUp,
    Fault::ClientsHalfOpen,
    Fault::ClientsFrozen,
    Fault::ClientsSlow,
    Fault::ClientsForget,
    Fault::UpstreamHalfOpen,
    Fault::UpstreamFrozen,
    Fault::UpstreamSlow,
    Fault::SlotDropped,
    Fault::TableUnpublished,
    Fault::ColumnAdded,
    Fault::ColumnRenamed,
    Fault::ColumnDropped,
    Fault::TypeChanged,
    Fault::IdentityChanged,
    Fault::TableTruncated,
];

impl Fault {
    /// Whether the database may be slow to answer walcast because of it, or not there.
    pub(crate) fn delays_answers(self) -> bool {
        let of_clients = [
            Fault::ClientsCut,
            Fault::ClientsHalfOpen,
            Fault::ClientsFrozen,
            Fault::ClientsSlow,
            Fault::ReadersStop,
            Fault::ClientsForget,
        ];
        !of_clients.contains(&self)
    }
}

impl Plan {
    /// The run of a seed.
    pub(crate) fn new(seed: u64, lasts: Duration) -> Plan {
        let mut dice = Dice::new(seed, 1);
        let profile = Profile {
            tight: dice.chance(50),
            by_root: dice.chance(50),
            shards: dice.between(1, 2),
            writers: i64::try_from(dice.between(4, 8)).unwrap(),
            rate: dice.between(60, 300),
            steady: false,
        };
        let mut clients = clients(&mut dice, profile);
        members(&mut dice, &mut clients);
        let faults = faults(&mut dice, lasts);
        Plan { seed, lasts, profile, clients, faults }
    }

    /// A thousand changes a second, one client that wants all of them, and these faults.
    pub(crate) fn steady(seed: u64, lasts: Duration, faults: Vec<(Duration, Fault)>) -> Plan {
        let profile =
            Profile { tight: false, by_root: true, shards: 1, writers: 1, rate: 100, steady: true };
        let watch = Watch {
            name: "c0-0".to_owned(),
            id: "w0".to_owned(),
            identity: None,
            table: "orders",
            filter: Filter::All,
            postgrest: false,
            columns: None,
            snapshot: false,
            throttle_ms: None,
        };
        let clients = vec![ClientPlan { identity: None, watches: vec![watch] }];
        Plan { seed, lasts, profile, clients, faults }
    }

    /// Every subscription.
    pub(crate) fn watches(&self) -> impl Iterator<Item = &Watch> {
        self.clients.iter().flat_map(|client| &client.watches)
    }
}

/// One client that watches everything, some with a few subscriptions, some with one.
fn clients(dice: &mut Dice, profile: Profile) -> Vec<ClientPlan> {
    let mut tables: Vec<&'static str> = TABLES.to_vec();
    if !profile.by_root {
        tables.retain(|table| *table != "events");
        tables.extend(LEAVES);
    }
    let mut clients = Vec::new();
    for number in 0..11 {
        let name = format!("c{number}");
        // Those with one subscription come by all transports.
        let count = match number {
            0 => tables.len(),
            1..=3 => number,
            _ => 1,
        };
        let mut watches = Vec::new();
        for place in 0..count {
            let everything = number == 0;
            let table = if everything { tables[place] } else { *dice.pick(&tables) };
            let filter = if everything { Filter::All } else { Filter::any(dice) };
            let few = !everything && dice.chance(25);
            let snapshot = !everything && dice.chance(60) && is_told_whole(table, &filter);
            let throttled = !everything && !snapshot && dice.chance(30);
            let throttle_ms = throttled.then(|| dice.between(20, 2000));
            watches.push(Watch {
                name: format!("{name}-{place}"),
                id: format!("w{place}"),
                identity: None,
                table,
                filter,
                postgrest: dice.chance(50),
                columns: few.then(|| vec!["id", "writer", "number", "chain"]),
                snapshot,
                throttle_ms,
            });
        }
        clients.push(ClientPlan { identity: None, watches });
    }
    clients
}

/// Clients of tables with policies: each person has one that sees all it may, and one with a
/// subscription that comes by all transports.
fn members(dice: &mut Dice, clients: &mut Vec<ClientPlan>) {
    for (at, identity) in PEOPLE.iter().flat_map(|one| [*one, *one]).enumerate() {
        let number = clients.len();
        let tables: &[&str] = if at % 2 == 0 { &GUARDED } else { &[*dice.pick(&GUARDED)] };
        let mut watches = Vec::new();
        for (place, table) in tables.iter().enumerate() {
            let filter = if dice.chance(50) { Filter::All } else { Filter::any(dice) };
            let is_altered = guard::is_altered(table, Some(identity));
            let is_whole = *table == "docs" && !is_altered;
            watches.push(Watch {
                name: format!("c{number}-{place}"),
                id: format!("w{place}"),
                identity: Some(identity),
                table,
                filter,
                postgrest: dice.chance(50),
                columns: dice.chance(25).then(|| vec!["id", "writer", "number", "chain"]),
                snapshot: is_whole && dice.chance(60),
                throttle_ms: None,
            });
        }
        clients.push(ClientPlan { identity: Some(identity), watches });
    }
}

/// Whether every row that leaves is told, so that what a client holds is what there is. The identity
/// of the partitioned table is never changed.
fn is_told_whole(table: &str, filter: &Filter) -> bool {
    table.starts_with("events") || matches!(filter, Filter::All | Filter::IdBelow(_))
}

/// Deals the faults like cards, so that each comes once before any comes twice.
fn faults(dice: &mut Dice, lasts: Duration) -> Vec<(Duration, Fault)> {
    let mut deck: Vec<Fault> = Vec::new();
    let mut first = true;
    let mut at = Duration::from_millis(1500);
    let mut dealt = Vec::new();
    let last = lasts.saturating_sub(Duration::from_secs(3));
    while at < last {
        if deck.is_empty() {
            let mut always = ALWAYS.to_vec();
            let mut more = MORE.to_vec();
            dice.shuffle(&mut always);
            dice.shuffle(&mut more);
            if first {
                // Taken from the end: a short run has those that every run must have.
                deck.extend(more);
                deck.extend(always);
            } else {
                deck.extend(always);
                deck.extend(more);
                dice.shuffle(&mut deck);
            }
            first = false;
        }
        dealt.extend(deck.pop().map(|fault| (at, fault)));
        at += dice.milliseconds(700, 3000);
    }
    dealt
}
