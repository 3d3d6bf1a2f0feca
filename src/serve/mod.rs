//! Sockets: where clients come in, and where frames go out.
//!
//! Each shard accepts on a socket of its own (`SO_REUSEPORT`: the kernel spreads connections) or on
//! those that systemd holds, and everything here runs on the shard's thread. A session is one task that reads requests and drains
//! what its socket did not take at once; what is routed to it is written by the shard itself.
//!
//! # Invariants
//!
//! - This module is handed frames, never a change.
//! - A token becomes claims here or at an `auth` request, and nothing later sees it.
//! - A shard is never borrowed across an await.

use std::cell::Cell;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use rustls::ServerConfig;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::Claims;
use crate::auth::TokenError;
use crate::auth::Verifier;
use crate::gate::Caller;
use crate::gate::Gate;
use crate::gate::Refused;
use crate::metrics::Metrics;
use crate::route;
use crate::route::encode::Encode;
use crate::route::outbox::Wire;
use crate::route::policy::Policies;
use crate::route::session::SessionKey;
use crate::route::session::Transport;
use crate::route::shard::Shard;
use crate::serve::guest::Guest;
use crate::serve::listener::Listener;
use crate::serve::listener::Source;
use crate::serve::wire::Socket;

pub mod listener;
mod door;
mod proxied;
mod guest;
mod http;
mod watched;
mod origin;
mod credentials;
mod asked;
mod answer;
mod end;
mod framing;
mod websocket;
mod drain;
pub mod inspect;
pub mod inside;
pub mod wire;
mod tls;
mod visit;
mod buffer;
mod stream;
mod events;
mod changes;
mod rows;

/// What bounds a connection.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to listen.
    pub address: SocketAddr,
    /// Bytes that one request (one WebSocket message) may have.
    pub request_bytes_max: usize,
    /// How long the head of an HTTP request may take.
    pub handshake: Duration,
    /// Subscriptions that a session may have; told to clients.
    pub subscriptions_max: usize,
    /// Seconds between two pings; told to clients.
    pub ping_seconds: u32,
    /// How long a peer may show no sign of life.
    pub silence: Duration,
    /// The origins whose pages may connect, in lower case; `*` is all of them.
    pub origins: Vec<Box<str>>,
    /// Over how long sessions are asked to come back when the daemon stops.
    pub drain: Duration,
    /// Who is let in; all shards share it.
    pub gate: Arc<Gate>,
    /// With which certificate TLS is spoken; absent for plain text.
    pub tls: Option<Arc<ServerConfig>>,
}

/// When to stop.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    /// Cancelled when no client is to be accepted any more, and sessions shall go one by one.
    pub asked: CancellationToken,
    /// Cancelled when those that are left shall go at once.
    pub hurried: CancellationToken,
}

/// What every connection of a shard shares.
#[derive(Debug)]
pub struct Front {
    shard: Rc<RefCell<Shard>>,
    verifier: RefCell<Arc<Verifier>>,
    metrics: Arc<Metrics>,
    settings: RefCell<Rc<Settings>>,
    tasks: TaskTracker,
    /// Cancelled when the daemon stops: no session begins any more.
    closing: CancellationToken,
    /// How many are being told that they are turned away.
    told: Cell<usize>,
}

/// How long sessions have to say goodbye.
const FAREWELL: Duration = Duration::from_secs(5);
/// How long they have where the stop is hurried.
const FAREWELL_HURRIED: Duration = Duration::from_secs(1);

/// Why a token does not count.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Doubt {
    /// It is not believed.
    Token(TokenError),
    /// It was not looked at.
    TooMany(Refused),
}

impl Front {
    /// The front of one shard.
    #[must_use]
    pub fn new(shard: Rc<RefCell<Shard>>, verifier: Arc<Verifier>, settings: Settings) -> Front {
        let (tasks, closing) = (TaskTracker::new(), CancellationToken::new());
        let metrics = Arc::clone(shard.borrow().metrics());
        let (verifier, settings) = (RefCell::new(verifier), RefCell::new(Rc::new(settings)));
        Front { shard, verifier, metrics, settings, tasks, closing, told: Cell::new(0) }
    }

    /// Believes a token, or says why not. Nothing is looked at of an address that has shown too many
    /// that were not believed; those that are merely old are honest.
    ///
    /// A key that is not known is waited for where its issuer may have it.
    pub(crate) async fn believe(
        &self,
        caller: Option<Caller>,
        token: &str,
    ) -> Result<Claims, Doubt> {
        let gate = &self.settings().gate;
        if let Some(caller) = caller {
            gate.may_show_token(caller).map_err(Doubt::TooMany)?;
        }
        let verifier = self.verifier();
        let mut believed = verifier.verify(token);
        if matches!(believed, Err(TokenError::UnknownKey | TokenError::Signature))
            && let Some(wait) = verifier.look_for_key(token)
        {
            Box::pin(wait.over()).await;
            believed = self.verifier().verify(token);
        }
        self.metrics.count_token(believed.as_ref().err().map(TokenError::code));
        if let (Err(error), Some(caller)) = (&believed, caller)
            && *error != TokenError::Expired
        {
            gate.token_rejected(caller);
        }
        believed.map_err(Doubt::Token)
    }

    /// Opens a session of this guest.
    pub(crate) fn open(
        &self,
        wire: Rc<dyn Wire>,
        claims: Option<Claims>,
        dialect: &'static dyn Encode,
        guest: &Guest,
    ) -> SessionKey {
        let mut shard = self.shard.borrow_mut();
        let key = shard.open(wire, claims, dialect);
        shard.introduce(key, guest.peer());
        key
    }

    /// Goes on with other keys and bounds. Connections that are there keep what they were told;
    /// their next token is verified by the new keys.
    pub fn reconfigure(&self, verifier: Arc<Verifier>, settings: Settings) {
        // What is bound stays bound.
        let address = self.settings().address;
        self.settings.replace(Rc::new(Settings { address, ..settings }));
        self.verifier.replace(verifier);
    }

    /// Lets the shard go on with other settings and policies.
    pub fn judge_by(&self, settings: route::shard::Settings, policies: Arc<Policies>) {
        self.shard.borrow_mut().reconfigure(settings, policies);
    }

    /// Who verifies tokens now.
    fn verifier(&self) -> Arc<Verifier> {
        Arc::clone(&self.verifier.borrow())
    }

    /// What bounds a connection now.
    fn settings(&self) -> Rc<Settings> {
        Rc::clone(&self.settings.borrow())
    }

    /// Lets a connection be a WebSocket session, as after a handshake that brought these claims.
    pub fn attach(self: &Rc<Front>, socket: impl Socket, claims: Option<Claims>) {
        websocket::start(
            self,
            socket,
            Vec::new(),
            (claims, Guest::of_nobody(Transport::WebSocket)),
        );
    }
}

/// Accepts connections from when the shard is live until it shall stop, then asks every session to
/// come back later, one after the other.
///
/// `accepting` becomes true when the address answers, and false when the last session is gone.
///
/// # Errors
///
/// Where the socket can't be listened on.
pub async fn run(
    front: Rc<Front>,
    source: Source,
    accepting: watch::Sender<bool>,
    stop: Stop,
) -> std::io::Result<()> {
    let mut live = front.shard.borrow().live();
    tokio::select! {
        () = stop.asked.cancelled() => return Ok(()),
        waited = live.wait_for(|live| *live) => if waited.is_err() { return Ok(()); },
    }
    let listener = Listener::listen(source)?;
    accepting.send_replace(true);
    tracing::info!(address = %front.settings().address, "accepting clients");
    door::accept(&front, &listener, &stop.asked).await;
    front.closing.cancel();
    // Who is in our queue is told to come back; its reset would tell less. Who is in systemd's waits.
    while !listener.outlives_us()
        && let Some(Ok((socket, peer))) = listener.accept().now_or_never()
    {
        door::enter(&front, socket, peer);
    }
    drop(listener);
    drain::drain(&front, front.settings().drain, &stop.hurried).await;
    front.tasks.close();
    let goodbye = async {
        let hurried = async {
            stop.hurried.cancelled().await;
            tokio::time::sleep(FAREWELL_HURRIED).await;
        };
        tokio::select! {
            () = front.tasks.wait() => true,
            () = hurried => false,
        }
    };
    if !tokio::time::timeout(FAREWELL, goodbye).await.unwrap_or(false) {
        tracing::warn!(sessions = front.tasks.len(), "sessions were cut off at the stop");
    }
    accepting.send_replace(false);
    Ok(())
}
