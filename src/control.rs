//! Orders to the running daemon, wherever they come from: a signal, the console, a file that
//! changed.
//!
//! ```text
//! signal, console, file watch ── Order ──▶ the daemon's control task ── stages
//!           ▲                                │
//!           └──────────── reply ◀────────────┘
//! ```
//!
//! A [`Control`] is a way to order, cheap to clone, for any thread and any runtime. The orders
//! queue up in a bounded channel and are carried out one after the other. This file knows nothing
//! of the stages; `daemon::control` does what is ordered.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio::sync::watch;

/// Orders that may wait. Each has somebody who waits for its answer.
const ORDERS_MAX: usize = 64;

/// One key of the configuration, as it holds now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its full name, such as `window.seconds`; `table.0.name` in a section that may stand
    /// repeatedly.
    pub name: String,
    /// What holds, as one would write it in `--set`. Empty where nothing was given and there is no
    /// default. Never a secret: those are in files, and this is the file's name.
    pub value: String,
    /// Where it comes from: `default`, `FILE:LINE`, an environment variable, `--set`.
    pub source: String,
    /// Whether a reload changes it in the running daemon.
    pub reloadable: bool,
}

/// What a reload found different in one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key's full name.
    pub name: String,
    /// What held before; `None` where the key was not there. `(file)` where the value is the same
    /// and the content of the file that it names is another.
    pub old: Option<String>,
    /// What was read; `None` where the key is not there any more.
    pub new: Option<String>,
    /// Whether it holds from now on. What can't be changed while the daemon runs waits for its
    /// next start.
    pub applied: bool,
}

/// A reload that was carried out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// What is different, by name; nothing where the configuration is what it was.
    pub changes: Vec<Change>,
    /// What works and still should be looked at, a sentence each.
    pub warnings: Vec<String>,
}

/// How to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Clients are asked to come back one after the other, over the time in `drain.seconds`.
    Drain,
    /// All at once.
    Now,
}

/// What became of the orders so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Reloads that were carried out.
    pub reloads: u64,
    /// Reloads that were refused.
    pub reloads_refused: u64,
    /// Why the last reload was refused, where it was: what held before it still holds.
    pub reload_failed: Option<Arc<str>>,
    /// Whether the stream from Postgres was ordered to rest.
    pub paused: bool,
    /// Whether, and how, the daemon was ordered to stop.
    pub stop: Option<Stop>,
}

/// Why an order was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// Nobody takes orders any more.
    #[error("the daemon is stopping")]
    Stopping,
    /// The configuration has mistakes, or can't be applied; the one that held before holds.
    #[error("the configuration was not reloaded: {}", mistakes.join("; "))]
    Refused {
        /// All of them, each with its place.
        mistakes: Vec<String>,
    },
}

/// An order, with who waits for the answer.
#[derive(Debug)]
pub enum Order {
    /// Read the configuration again.
    Reload(oneshot::Sender<Result<Reloaded, ControlError>>),
    /// Say what the configuration is.
    Config(oneshot::Sender<Vec<Setting>>),
    /// Let the stream from Postgres rest, or go on. Postgres keeps the log meanwhile.
    Pause(bool, oneshot::Sender<()>),
    /// Stop the daemon. Answered when the stop has begun.
    Stop(Stop, oneshot::Sender<()>),
}

/// A way to give orders. Cheap to clone, for any thread.
#[derive(Clone, Debug)]
pub struct Control {
    orders: mpsc::Sender<Order>,
    state: watch::Receiver<State>,
}

/// The other end: where orders arrive, and what became of them is said.
#[derive(Debug)]
pub struct Orders {
    /// The orders, in turn.
    pub orders: mpsc::Receiver<Order>,
    /// What became of them.
    pub state: watch::Sender<State>,
}

impl Control {
    /// A way to give orders, and where they arrive.
    #[must_use]
    pub fn new() -> (Control, Orders) {
        let (sender, orders) = mpsc::channel(ORDERS_MAX);
        let (state, receiver) = watch::channel(State::default());
        (Control { orders: sender, state: receiver }, Orders { orders, state })
    }

    /// Reads the configuration again: validated first, then swapped as a whole. No client is
    /// dropped by it.
    ///
    /// # Errors
    ///
    /// [`ControlError`]; what held before holds.
    pub async fn reload(&self) -> Result<Reloaded, ControlError> {
        self.order(Order::Reload).await?
    }

    /// Every key, in the order of the documentation. Holds no secret.
    ///
    /// # Errors
    ///
    /// [`ControlError::Stopping`].
    pub async fn config(&self) -> Result<Vec<Setting>, ControlError> {
        self.order(Order::Config).await
    }

    /// Lets the stream from Postgres rest. Clients stay; Postgres keeps the log.
    ///
    /// # Errors
    ///
    /// [`ControlError::Stopping`].
    pub async fn pause(&self) -> Result<(), ControlError> {
        self.order(|reply| Order::Pause(true, reply)).await
    }

    /// Lets it go on.
    ///
    /// # Errors
    ///
    /// [`ControlError::Stopping`].
    pub async fn resume(&self) -> Result<(), ControlError> {
        self.order(|reply| Order::Pause(false, reply)).await
    }

    /// Stops the daemon in order. Returns when that has begun.
    ///
    /// # Errors
    ///
    /// [`ControlError::Stopping`] where the daemon takes no orders any more.
    pub async fn drain(&self) -> Result<(), ControlError> {
        self.order(|reply| Order::Stop(Stop::Drain, reply)).await
    }

    /// Stops the daemon without giving clients time. Returns when that has begun; during a
    /// [`drain`](Control::drain), hurries it.
    ///
    /// # Errors
    ///
    /// [`ControlError::Stopping`] where the daemon takes no orders any more.
    pub async fn shutdown(&self) -> Result<(), ControlError> {
        self.order(|reply| Order::Stop(Stop::Now, reply)).await
    }

    /// What became of the orders so far, and a way to wait for more.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    async fn order<T>(
        &self,
        order: impl FnOnce(oneshot::Sender<T>) -> Order,
    ) -> Result<T, ControlError> {
        let (reply, answer) = oneshot::channel();
        self.orders.send(order(reply)).await.map_err(|_| ControlError::Stopping)?;
        answer.await.map_err(|_| ControlError::Stopping)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_order_is_answered_or_the_daemon_is_stopping() {
        let (control, mut orders) = Control::new();
        let taken = async {
            match orders.orders.recv().await {
                Some(Order::Pause(true, reply)) => reply.send(()).unwrap(),
                other => panic!("{other:?}"),
            }
        };
        let (paused, ()) = tokio::join!(control.pause(), taken);
        assert_eq!(paused, Ok(()));

        let dropped = async { drop(orders.orders.recv().await) };
        let (unanswered, ()) = tokio::join!(control.reload(), dropped);
        assert_eq!(unanswered, Err(ControlError::Stopping));
        drop(orders);
        assert_eq!(control.config().await, Err(ControlError::Stopping));
    }
}
