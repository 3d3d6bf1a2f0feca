//! The task that carries out orders, one after the other.

use tokio::sync::oneshot;

use crate::config::Config;
use crate::control::ControlError;
use crate::control::Order;
use crate::control::Orders;
use crate::control::Reloaded;
use crate::control::Setting;
use crate::control::Stop;
use crate::daemon::reload;
use crate::ingest;

/// Who carries out orders.
pub(super) struct Desk {
    pub(super) orders: Orders,
    /// What holds.
    pub(super) config: Config,
    /// What the stream from Postgres is asked to do.
    pub(super) stream: ingest::orders::Orders,
}

impl Desk {
    /// Carries out orders until nobody can give any more.
    pub(super) async fn run(mut self) {
        while let Some(order) = self.orders.orders.recv().await {
            match order {
                Order::Reload(reply) => answer(reply, self.reload()),
                Order::Config(reply) => answer(reply, self.settings()),
                Order::Pause(paused, reply) => {
                    self.pause(paused);
                    answer(reply, ());
                }
                Order::Stop(stop, reply) => {
                    self.stop(stop);
                    answer(reply, ());
                }
            }
        }
    }

    fn reload(&mut self) -> Result<Reloaded, ControlError> {
        let reloaded = reload::read(&self.config).map(|(config, reloaded)| {
            self.config = config;
            reloaded
        });
        self.orders.state.send_modify(|state| match &reloaded {
            Ok(_) => {
                state.reloads += 1;
                state.reload_failed = None;
            }
            Err(error) => {
                state.reloads_refused += 1;
                state.reload_failed = Some(error.to_string().into());
            }
        });
        reloaded
    }

    fn settings(&self) -> Vec<Setting> {
        self.config.values.settings.clone()
    }

    fn pause(&self, paused: bool) {
        self.stream.pause(paused);
        let was = self.orders.state.borrow().paused;
        self.orders.state.send_modify(|state| state.paused = paused);
        if was != paused {
            let now = if paused { "rests" } else { "goes on" };
            tracing::info!("the stream from Postgres {now}, as ordered");
        }
    }

    /// Lets whoever runs the daemon know; a stop that was ordered is not taken back.
    fn stop(&self, stop: Stop) {
        self.orders.state.send_modify(|state| {
            if state.stop != Some(Stop::Now) {
                state.stop = Some(stop);
            }
        });
    }
}

/// Whoever has ordered may have gone.
fn answer<T>(reply: oneshot::Sender<T>, answer: T) {
    let _gone = reply.send(answer);
}
