//! Those who watch. A client does what `docs/clients.md` says: it keeps the newest cursor of each
//! subscription, comes back when it lost its connection, and goes on from there.
//!
//! ```text
//! Client ── one loop: connect, subscribe, read, note, come back
//!   └ Line   how a transport connects, asks and reads
//! ```

mod http;
mod websocket;

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Notify;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio::time::sleep;
use tokio::time::sleep_until;
use tokio::time::timeout;

use crate::dice::Dice;
use crate::log::Log;
use crate::log::Seen;
use crate::plan::ClientPlan;
use crate::plan::Watch;
use http::Changes;
use http::Events;
use websocket::WebSocket;

/// A connection without a sign of life for so long is given up: heartbeats come every second.
const SILENCE: Duration = Duration::from_secs(5);
/// A request that has no answer for so long is given up: one for rows waits for the database.
pub(crate) const UNANSWERED_AFTER: Duration = Duration::from_secs(10);
/// What is said then.
pub(crate) const UNANSWERED: &str = "no answer to a request";
/// How soon a subscription that was refused is tried again.
const REFUSED_AGAIN: Duration = Duration::from_millis(400);

/// One connection, over any transport.
enum Line {
    WebSocket(Box<WebSocket>),
    Events(Box<Events>),
    Changes(Box<Changes>),
}

impl Line {
    /// Connects. A client with one subscription takes another transport each time.
    async fn connect(port: u16, plan: &ClientPlan, dice: &mut Dice) -> Result<Line, String> {
        let alone = plan.watches.len() == 1;
        let token = plan.identity.map(|identity| identity.token());
        let token = token.as_deref();
        match dice.below(3) {
            1 if alone => Ok(Line::Events(Box::new(Events::connect(port, token, dice).await?))),
            2 if alone => Ok(Line::Changes(Box::new(Changes::connect(port, token, dice).await?))),
            _ => Ok(Line::WebSocket(Box::new(WebSocket::connect(port, token).await?))),
        }
    }

    async fn ask(&mut self, watch: &Watch, since: Option<String>) -> Result<(), String> {
        match self {
            Line::WebSocket(line) => line.ask(watch, since).await,
            Line::Events(line) => line.ask(watch, since).await,
            Line::Changes(line) => line.ask(watch, since).await,
        }
    }

    /// The next frame; none where what came is a sign of life and nothing else. It may have been
    /// waited for in vain.
    async fn next(&mut self) -> Result<Option<String>, String> {
        match self {
            Line::WebSocket(line) => line.next().await,
            Line::Events(line) => line.next().await,
            Line::Changes(line) => line.next().await,
        }
    }

    const fn name(&self) -> &'static str {
        match self {
            Line::WebSocket(_) => "WebSocket",
            Line::Events(_) => "events",
            Line::Changes(_) => "changes",
        }
    }
}

/// What the run says to a client, and the client to the run.
#[derive(Debug)]
pub(crate) struct Contact {
    pub(crate) log: Log,
    /// Until then it reads nothing.
    pub(crate) deaf_until: Mutex<Instant>,
    /// It is to throw away what it has, and to begin anew.
    pub(crate) forget: Notify,
    /// The subscriptions that have seen their last row.
    pub(crate) arrived: watch::Sender<usize>,
}

/// One client.
pub(crate) struct Client {
    plan: ClientPlan,
    port: u16,
    dice: Dice,
    contact: Arc<Contact>,
    held: Vec<Held>,
}

/// What a client keeps of a subscription.
#[derive(Clone, Debug, Default)]
struct Held {
    cursor: Option<String>,
    /// Whether there is an answer that it goes on.
    lives: bool,
    /// When it is asked for again after it was refused.
    again_at: Option<Instant>,
    /// Whether its last row was there.
    marked: bool,
    /// Whether that was told: a row of a snapshot counts when the snapshot is complete.
    arrived: bool,
}

impl Contact {
    pub(crate) fn new() -> Arc<Contact> {
        Arc::new(Contact {
            log: Log::default(),
            deaf_until: Mutex::new(Instant::now()),
            forget: Notify::new(),
            arrived: watch::channel(0).0,
        })
    }
}

impl Client {
    pub(crate) fn new(plan: ClientPlan, port: u16, dice: Dice, contact: Arc<Contact>) -> Client {
        let held = vec![Held::default(); plan.watches.len()];
        Client { plan, port, dice, contact, held }
    }

    /// Watches until told to stop.
    pub(crate) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let contact = Arc::clone(&self.contact);
        while !*stop.borrow() {
            tokio::select! {
                why = self.connection() => self.contact.log.note(Seen::Lost(why)),
                () = contact.forget.notified() => {
                    self.contact.log.note(Seen::Lost("all forgotten".to_owned()));
                    for held in &mut self.held {
                        held.cursor = None;
                    }
                }
                _ = stop.wait_for(|stop| *stop) => return,
            }
            sleep(self.dice.milliseconds(10, 250)).await;
        }
    }

    /// One connection, from its beginning to its end; tells why it ended.
    async fn connection(&mut self) -> String {
        let mut line =
            match timeout(SILENCE, Line::connect(self.port, &self.plan, &mut self.dice)).await {
                Ok(Ok(line)) => line,
                Ok(Err(error)) => return error,
                Err(_) => return "no answer to the handshake".to_owned(),
            };
        self.contact.log.note(Seen::Connected(line.name()));
        for watch in 0..self.held.len() {
            self.held[watch].lives = false;
            if let Err(error) = self.ask(&mut line, watch).await {
                return error;
            }
        }
        loop {
            let deaf_until = *self.contact.deaf_until.lock().unwrap();
            sleep_until(deaf_until).await;
            let again_at = self.held.iter().filter_map(|held| held.again_at).min();
            let frame = tokio::select! {
                frame = timeout(SILENCE, line.next()) => frame,
                () = sleep_until(again_at.unwrap_or_else(Instant::now)), if again_at.is_some() => {
                    if let Err(error) = self.ask_again(&mut line).await {
                        return error;
                    }
                    continue;
                }
            };
            match frame {
                Ok(Ok(Some(text))) => self.take(&text),
                Ok(Ok(None)) => {}
                Ok(Err(error)) => return error,
                Err(_) => return "silence".to_owned(),
            }
        }
    }

    async fn ask(&mut self, line: &mut Line, watch: usize) -> Result<(), String> {
        let since = self.held[watch].cursor.clone();
        self.held[watch].again_at = None;
        self.contact.log.note(Seen::Asked { watch, since: since.clone() });
        let asked = line.ask(&self.plan.watches[watch], since);
        timeout(UNANSWERED_AFTER, asked).await.unwrap_or_else(|_| Err(UNANSWERED.to_owned()))
    }

    async fn ask_again(&mut self, line: &mut Line) -> Result<(), String> {
        let now = Instant::now();
        for watch in 0..self.held.len() {
            if self.held[watch].again_at.is_some_and(|at| at <= now) {
                self.ask(line, watch).await?;
            }
        }
        Ok(())
    }

    /// Notes a frame, and keeps what has to be kept of it.
    fn take(&mut self, text: &str) {
        self.contact.log.note(Seen::Frame(text.into()));
        let frame: Value = serde_json::from_str(text).unwrap();
        let cursor = frame["cursor"].as_str();
        let kind = frame["type"].as_str().unwrap();
        if kind == "heartbeat" {
            for held in self.held.iter_mut().filter(|held| held.lives) {
                held.cursor = cursor.map(str::to_owned);
            }
            return;
        }
        let Some(id) = frame["id"].as_str() else { return };
        let watch = self.plan.watches.iter().position(|watch| watch.id == id).unwrap();
        let ends = format!("\"{}\"", self.plan.watches[watch].end());
        let held = &mut self.held[watch];
        match kind {
            "subscribed" => held.lives = true,
            "error" => {
                held.lives = false;
                held.again_at = Some(Instant::now() + REFUSED_AGAIN);
            }
            // A snapshot follows, and until it is there is nothing to go on from.
            "resync" => held.cursor = None,
            _ => {}
        }
        if let Some(cursor) = cursor {
            held.cursor = Some(cursor.to_owned());
        }
        held.marked |= kind == "row" && text.contains(&ends);
        if held.marked && !held.arrived && held.cursor.is_some() {
            held.arrived = true;
            self.contact.arrived.send_modify(|count| *count += 1);
        }
    }
}
