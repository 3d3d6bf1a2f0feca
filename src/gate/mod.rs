//! How many clients there may be, and how often they may ask: counted over all shards, by address
//! and by subject.
//!
//! ```text
//! accept ──▶ Gate::connect ──▶ request ──▶ Gate::handshake, ::sit ──▶ session
//!            (connections)                 (rates; seats, given back when they are dropped)
//! ```
//!
//! It is asked when somebody connects, asks or shows a token, and when a session ends; never for
//! what is delivered. Every limit can be changed while it runs; what is there already stays.
//!
//! # Invariants
//!
//! - Memory is bounded however many addresses there are: counts by the connections there are, rates
//!   by [`rates::KEYS_MAX`]. (Tests there.)
//! - Whoever is refused is told by which limit, and is counted under its code.

pub mod address;
pub mod counts;
pub mod rates;

use std::hash::BuildHasher;
use std::hash::Hasher;
use std::hash::RandomState;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;

use crate::gate::address::Address;
use crate::gate::address::Forwarded;
use crate::gate::counts::Counts;
use crate::gate::counts::Seat;
use crate::gate::rates::Pace;
use crate::gate::rates::Rates;
use crate::metrics::Metrics;

/// The least time after which somebody shall come back who was refused for want of room.
const RETRY_MIN: Duration = Duration::from_secs(2);
/// Over how long those come back who were refused together.
const RETRY_SPREAD: Duration = Duration::from_secs(8);
/// The same for those who asked too often.
const PACE_SPREAD: Duration = Duration::from_secs(2);

/// What is allowed. Where a limit is absent there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections of all clients together.
    pub connections: Option<NonZeroU32>,
    /// Connections of one address.
    pub connections_per_address: Option<NonZeroU32>,
    /// Connections of one token's subject.
    pub connections_per_subject: Option<NonZeroU32>,
    /// Connections and HTTP requests of one address, a second; five times as many at once.
    pub handshakes_per_second_per_address: Option<NonZeroU32>,
    /// Tokens of one address that are not believed, a minute.
    pub rejected_tokens_per_minute: Option<NonZeroU32>,
    /// Messages of one session, a second.
    pub requests_per_second: Option<NonZeroU32>,
    /// Messages of one session that may come at once.
    pub requests_burst: NonZeroU32,
    /// The networks of the proxies that are believed whom they forward for.
    pub trusted_proxies: Vec<IpNet>,
    /// Where these proxies say it.
    pub forwarded: Forwarded,
}

impl Default for Limits {
    /// None at all.
    fn default() -> Limits {
        Limits {
            connections: None,
            connections_per_address: None,
            connections_per_subject: None,
            handshakes_per_second_per_address: None,
            rejected_tokens_per_minute: None,
            requests_per_second: None,
            requests_burst: NonZeroU32::MIN,
            trusted_proxies: Vec::new(),
            forwarded: Forwarded::default(),
        }
    }
}

/// A limit that somebody came up against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// [`Limits::connections`].
    Connections,
    /// [`Limits::connections_per_address`].
    Address,
    /// [`Limits::connections_per_subject`].
    Subject,
    /// [`Limits::handshakes_per_second_per_address`].
    Handshakes,
    /// [`Limits::rejected_tokens_per_minute`].
    Tokens,
    /// [`Limits::requests_per_second`].
    Requests,
}

impl Limit {
    /// The code that clients are told and refusals are counted under.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Limit::Connections => "too_many_connections",
            Limit::Address => "too_many_from_address",
            Limit::Subject => "too_many_of_subject",
            Limit::Handshakes => "too_many_handshakes",
            Limit::Tokens => "too_many_bad_tokens",
            Limit::Requests => "too_many_requests",
        }
    }

    /// What people are told.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Limit::Connections => "walcast has as many connections as it may have",
            Limit::Address => "your address has as many connections as it may have",
            Limit::Subject => "the token's subject has as many connections as it may have",
            Limit::Handshakes => "your address connects and asks too often",
            Limit::Tokens => "your address has shown too many tokens that are not believed",
            Limit::Requests => "the session asks too often",
        }
    }
}

/// A refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What there is too much of.
    pub limit: Limit,
    /// After how long to come back; not the same for all who are refused together.
    pub retry: Duration,
}

/// A client as far as limits are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Where it comes from, for people to read: its own address, or that of the proxy where the
    /// proxy does not say for whom it asks. The port is 0 where it is not known.
    pub from: SocketAddr,
    /// Under what it is counted; absent for what a trusted proxy asks for nobody.
    pub address: Option<Address>,
}

/// What all shards share.
#[derive(Debug)]
pub struct Gate {
    limits: ArcSwap<Limits>,
    metrics: Arc<Metrics>,
    connections: AtomicUsize,
    addresses: Counts<Address>,
    /// By a hash that nobody outside can foresee: a subject may be long.
    subjects: Counts<u64>,
    hasher: RandomState,
    rates: ArcSwap<Rates>,
}

/// A connection that was let in; it counts until this is dropped.
#[derive(Debug)]
pub struct Entry {
    gate: Arc<Gate>,
    /// The address of the other end.
    peer: SocketAddr,
    /// Whether that is a proxy, which says for whom it asks.
    proxied: bool,
    _seat: Option<Seat<Address>>,
}

impl Gate {
    /// A gate with these limits.
    #[must_use]
    pub fn new(limits: Limits, metrics: Arc<Metrics>) -> Gate {
        let rates = Rates::new(&limits);
        Gate {
            limits: ArcSwap::from_pointee(limits),
            metrics,
            connections: AtomicUsize::new(0),
            addresses: Counts::default(),
            subjects: Counts::default(),
            hasher: RandomState::new(),
            rates: ArcSwap::from_pointee(rates),
        }
    }

    /// Takes other limits. They hold for whoever comes from now on; a session keeps the pace that it
    /// was given.
    pub fn set(&self, limits: Limits) {
        let before = self.limits.load();
        if !Rates::same(&before, &limits) {
            self.rates.store(Arc::new(Rates::new(&limits)));
        }
        self.limits.store(Arc::new(limits));
    }

    /// How many connections there are.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Whether a connection from there begins with the PROXY protocol.
    #[must_use]
    pub fn is_announced(&self, peer: SocketAddr) -> bool {
        let limits = self.limits.load();
        limits.forwarded == Forwarded::ProxyProtocol
            && address::is_in(&limits.trusted_proxies, peer.ip().to_canonical())
    }

    /// Lets a connection in.
    ///
    /// # Errors
    ///
    /// [`Refused`] where there are too many, of all or of this address, or they come too fast.
    pub fn connect(self: &Arc<Gate>, peer: SocketAddr) -> Result<Entry, Refused> {
        let proxied = |limits: &Limits, peer| address::is_in(&limits.trusted_proxies, peer);
        self.connect_from(peer, proxied)
    }

    /// Lets a connection in that a proxy announced: it is one client's, whoever that is.
    ///
    /// # Errors
    ///
    /// As [`connect`](Gate::connect).
    pub fn connect_for(self: &Arc<Gate>, client: SocketAddr) -> Result<Entry, Refused> {
        self.connect_from(client, |_, _| false)
    }

    fn connect_from(
        self: &Arc<Gate>,
        peer: SocketAddr,
        is_proxied: impl FnOnce(&Limits, IpAddr) -> bool,
    ) -> Result<Entry, Refused> {
        let limits = self.limits.load();
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let proxied = is_proxied(&limits, peer.ip());
        let address = (!proxied).then(|| Address::from(peer.ip()));
        // Before anything else: this counts attempts, also those that fail below.
        self.pace(address)?;
        let seat = address.map(|address| self.seat_of(&limits, address)).transpose()?;
        let before = self.connections.fetch_add(1, Ordering::Relaxed);
        // From here on it counts, until it is dropped.
        let entry = Entry { gate: Arc::clone(self), peer, proxied, _seat: seat };
        if limits.connections.is_some_and(|max| before >= widen(max)) {
            return Err(self.refuse(Limit::Connections));
        }
        Ok(entry)
    }

    /// Whether somebody may ask or connect once more.
    ///
    /// # Errors
    ///
    /// [`Refused`] where it was often enough for now.
    pub fn handshake(&self, caller: Caller) -> Result<(), Refused> {
        self.pace(caller.address)
    }

    fn pace(&self, address: Option<Address>) -> Result<(), Refused> {
        let Some(address) = address else { return Ok(()) };
        let rates = self.rates.load();
        rates.handshake(address).map_err(|wait| self.refuse_for(Limit::Handshakes, wait))
    }

    /// Whether tokens of this caller are looked at.
    ///
    /// # Errors
    ///
    /// [`Refused`] where too many of them were not believed.
    pub fn may_show_token(&self, caller: Caller) -> Result<(), Refused> {
        let Some(address) = caller.address else { return Ok(()) };
        let waiting = self.rates.load().barred(address);
        waiting.map_or(Ok(()), |wait| Err(self.refuse_for(Limit::Tokens, wait)))
    }

    /// Notes that a token of this caller was not believed.
    pub fn token_rejected(&self, caller: Caller) {
        if let Some(address) = caller.address {
            self.rates.load().token_rejected(address);
        }
    }

    /// Gives a session of this subject a seat.
    ///
    /// # Errors
    ///
    /// [`Refused`] where the subject has as many as it may have.
    pub fn seat_subject(&self, subject: &str) -> Result<Seat<u64>, Refused> {
        let max = self.limits.load().connections_per_subject;
        let taken = self.subjects.take(self.hasher.hash_one(subject), max);
        taken.ok_or_else(|| self.refuse(Limit::Subject))
    }

    /// How often a session may ask; absent where nothing bounds it.
    #[must_use]
    pub fn session_pace(&self) -> Option<Pace> {
        let limits = self.limits.load();
        let rate = limits.requests_per_second?;
        Some(Pace::new(rate, limits.requests_burst))
    }

    /// Counts what a session was refused.
    pub fn count(&self, limit: Limit) {
        self.metrics.refused(limit.code());
    }

    /// Counts an attempt to accept for which the system had no descriptor or no memory.
    pub fn count_failed_accept(&self) {
        self.metrics.refused("accept_failed");
    }

    /// Counts a TLS handshake that came to nothing.
    pub fn count_failed_tls(&self) {
        self.metrics.refused("tls_handshake");
    }

    fn seat_of(&self, limits: &Limits, address: Address) -> Result<Seat<Address>, Refused> {
        let taken = self.addresses.take(address, limits.connections_per_address);
        taken.ok_or_else(|| self.refuse(Limit::Address))
    }

    fn refuse(&self, limit: Limit) -> Refused {
        self.count(limit);
        Refused { limit, retry: RETRY_MIN + self.part_of(RETRY_SPREAD) }
    }

    fn refuse_for(&self, limit: Limit, wait: Duration) -> Refused {
        self.count(limit);
        Refused { limit, retry: wait + self.part_of(PACE_SPREAD) }
    }

    /// A random part of a time.
    fn part_of(&self, whole: Duration) -> Duration {
        let fraction = u128::from(RandomState::new().build_hasher().finish());
        let nanos = (whole.as_nanos() * fraction) >> 64;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or_default())
    }
}

impl Entry {
    /// Who asks on this connection, by the values of the header in which a proxy says it, in their
    /// order.
    pub fn caller<'a>(&self, values: impl DoubleEndedIterator<Item = &'a str>) -> Caller {
        if !self.proxied {
            return Caller { from: self.peer, address: Some(self.peer.ip().into()) };
        }
        let limits = self.gate.limits.load();
        match limits.forwarded.client(values, &limits.trusted_proxies) {
            Some(from) => Caller { from, address: Some(from.ip().into()) },
            None => Caller { from: self.peer, address: None },
        }
    }

    /// Whether a proxy asks, which has many clients on one connection, one after the other.
    #[must_use]
    pub const fn is_proxied(&self) -> bool {
        self.proxied
    }

    /// The header in which proxies say for whom they ask.
    #[must_use]
    pub fn forwarded(&self) -> Forwarded {
        self.gate.limits.load().forwarded
    }

    /// Gives the session of a proxy's client a seat; others have theirs with their connection.
    ///
    /// # Errors
    ///
    /// [`Refused`] where the address has as many as it may have.
    pub fn seat(&self, caller: Caller) -> Result<Option<Seat<Address>>, Refused> {
        let Some(address) = caller.address.filter(|_| self.proxied) else { return Ok(None) };
        self.gate.seat_of(&self.gate.limits.load(), address).map(Some)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.gate.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

fn widen(max: NonZeroU32) -> usize {
    usize::try_from(max.get()).unwrap_or(usize::MAX)
}
