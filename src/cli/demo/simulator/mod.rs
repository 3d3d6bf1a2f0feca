//! Live traffic for the demo's database: a rate and a seed in, committed changes out.
//!
//! ```text
//! Settings ─┬─ drivers    move, come and go            55 % of the rate
//!           ├─ orders     placed … delivered, cancelled  25 %
//!           ├─ chat       write, read, take back       12 %
//!           └─ sessions   pending … completed           8 %
//! ```
//!
//! Each part has a connection and a source of chance of its own, so what one of them writes is the
//! same for the same seed; how they interleave is not. They know of each other's orders through
//! [`world`], never by asking the database.
//!
//! # Invariants
//!
//! - Every change is a plain statement of an application; nothing here knows walcast.
//! - The database does not grow without end: what is over is deleted after a while.
//! - A statement that was begun is finished before a part stops; a lost connection is made again.

mod chat;
mod dice;
mod drivers;
mod orders;
mod sessions;
mod world;

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_postgres::Client;
use tokio_postgres::NoTls;

use chat::Chat;
use dice::Dice;
use drivers::Drivers;
use orders::Orders;
use sessions::Sessions;
use world::World;

/// How long a part waits before it connects again.
const PAUSE: Duration = Duration::from_secs(1);

/// What traffic to write, and where.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The database, with schema and data of `fixtures/demo`, as a user who may write to it.
    pub connection_string: String,
    /// The same seed writes the same.
    pub seed: u64,
    /// Steps per second of all parts together; a step changes no row, one, or a few. At least 1.
    pub rate: u32,
}

/// Why the traffic stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum SimulatorError {
    /// The database refused a statement: it is not the demo's.
    #[error("the demo's database refused a statement of the part {part}")]
    Refused {
        /// The part of the traffic.
        part: &'static str,
        /// Why.
        #[source]
        source: tokio_postgres::Error,
    },

    /// A part ended badly.
    #[error("a part of the simulator ended badly")]
    Crashed(#[source] tokio::task::JoinError),
}

/// Writes traffic until `stop`; gives how many rows were changed.
///
/// Waits for the database where it is not there, at the beginning, too, and goes on when it is back.
///
/// # Errors
///
/// [`SimulatorError`] when the database refuses what an empty demo database would not.
pub async fn run(
    settings: Settings,
    stop: impl Future<Output = ()>,
) -> Result<u64, SimulatorError> {
    let (stopping, stopped) = watch::channel(false);
    let world = World::default();
    let mut parts = JoinSet::new();
    for (number, (part, percent)) in
        (1..).zip([("drivers", 55), ("orders", 25), ("chat", 12), ("sessions", 8)])
    {
        let mut dice = Dice::new(settings.seed, number);
        let traffic = match part {
            "drivers" => Traffic::Drivers(Drivers::new(&mut dice)),
            "orders" => Traffic::Orders(Orders::new(world.clone())),
            "chat" => Traffic::Chat(Chat::new(world.clone())),
            _ => Traffic::Sessions(Sessions::new(world.clone())),
        };
        let per_second = f64::from(settings.rate.max(1)) * f64::from(percent) / 100.0;
        let period = Duration::from_secs_f64(1.0 / per_second);
        let part = Part { name: part, traffic, dice, period, stopped: stopped.clone(), changes: 0 };
        parts.spawn(part.run(settings.connection_string.clone()));
    }
    let mut stop = pin!(stop);
    let mut changes = 0_u64;
    let mut result = Ok(());
    loop {
        let ended = tokio::select! {
            () = &mut stop, if !*stopping.borrow() => {
                stopping.send_replace(true);
                continue;
            }
            ended = parts.join_next() => ended,
        };
        match ended {
            None => return result.map(|()| changes),
            Some(Ok(Ok(more))) => changes = changes.saturating_add(more),
            Some(Ok(Err(error))) => result = Err(error),
            Some(Err(error)) => result = Err(SimulatorError::Crashed(error)),
        }
        stopping.send_replace(true);
    }
}

#[derive(Debug)]
enum Traffic {
    Drivers(Drivers),
    Orders(Orders),
    Chat(Chat),
    Sessions(Sessions),
}

/// One part, with its share of the rate.
#[derive(Debug)]
struct Part {
    name: &'static str,
    traffic: Traffic,
    dice: Dice,
    period: Duration,
    stopped: watch::Receiver<bool>,
    changes: u64,
}

impl Part {
    /// Runs until it is stopped; gives how many rows it changed.
    async fn run(mut self, connection_string: String) -> Result<u64, SimulatorError> {
        let mut stopped = self.stopped.clone();
        loop {
            if let Ok((client, connection)) =
                tokio_postgres::connect(&connection_string, NoTls).await
            {
                tokio::select! {
                    // The connection is driven here; it ends when it is lost.
                    _ = connection => {}
                    result = self.write(client) => return result.map(|()| self.changes),
                }
            }
            tokio::select! {
                _ = stopped.wait_for(|stopped| *stopped) => return Ok(self.changes),
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    /// One step per period, until it is stopped.
    async fn write(&mut self, mut client: Client) -> Result<(), SimulatorError> {
        let mut ticks = tokio::time::interval(self.period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stopped = self.stopped.clone();
        loop {
            tokio::select! {
                _ = stopped.wait_for(|stopped| *stopped) => return Ok(()),
                _ = ticks.tick() => {}
            }
            let dice = &mut self.dice;
            let changed = match &mut self.traffic {
                Traffic::Drivers(drivers) => drivers.step(&client, dice).await,
                Traffic::Orders(orders) => orders.step(&mut client, dice).await,
                Traffic::Chat(chat) => chat.step(&client, dice).await,
                Traffic::Sessions(sessions) => sessions.step(&client, dice).await,
            };
            match changed {
                Ok(changed) => self.changes = self.changes.saturating_add(changed),
                Err(source) if is_passing(&client, &source) => return lost().await,
                Err(source) => return Err(SimulatorError::Refused { part: self.name, source }),
            }
        }
    }
}

/// Whether the statement failed with its connection, or because the server is being stopped.
fn is_passing(client: &Client, error: &tokio_postgres::Error) -> bool {
    let class = error.code().and_then(|code| code.code().get(..2));
    client.is_closed() || error.is_closed() || matches!(class, Some("08" | "57"))
}

/// Never ready: the connection's own end is what makes the part connect again.
async fn lost() -> Result<(), SimulatorError> {
    std::future::pending().await
}
