//! The task that carries out orders, one after the other; and when a daemon is to stop.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::control::Control;
use crate::control::ControlError;
use crate::control::Order;
use crate::control::Orders;
use crate::control::Reloaded;
use crate::control::Setting;
use crate::control::State;
use crate::control::Stop;
use crate::daemon::Signal;
use crate::daemon::reload::Reloader;
use crate::logging::notice::RELOAD_FAILED;
use crate::metrics::Metrics;

/// Who carries out orders.
pub(super) struct Desk {
    pub(super) orders: Orders,
    pub(super) reloader: Reloader,
    pub(super) metrics: Arc<Metrics>,
}

impl Desk {
    /// Carries out orders until nobody can give any more.
    pub(super) async fn run(mut self) {
        while let Some(order) = self.orders.orders.recv().await {
            match order {
                Order::Reload(reply) => answer(reply, self.reload().await),
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

    async fn reload(&self) -> Result<Reloaded, ControlError> {
        let reloaded = self.reloader.reload().await;
        self.orders.state.send_modify(|state| match &reloaded {
            Ok(_) => {
                state.reloads += 1;
                state.reload_failed = None;
                self.metrics.reloads.done.one();
                self.metrics.health.clear(RELOAD_FAILED);
            }
            Err(error) => {
                state.reloads_refused += 1;
                state.reload_failed = Some(error.to_string().into());
                self.metrics.reloads.refused.one();
                self.metrics.health.warn(RELOAD_FAILED, error.to_string());
            }
        });
        reloaded
    }

    fn settings(&self) -> Vec<Setting> {
        self.reloader.current().config.values.settings.clone()
    }

    fn pause(&self, paused: bool) {
        self.reloader.stream.pause(paused);
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

/// Returns at a signal to stop, or when such an order has come. Reloads meanwhile.
pub(super) async fn told_to_stop(
    control: &Control,
    signals: &mut impl AsyncFnMut() -> Signal,
    is_enough: impl Fn(Option<Stop>) -> bool,
) {
    let mut state = control.state();
    let ordered = async {
        if state.wait_for(|state: &State| is_enough(state.stop)).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let signalled = async {
        while signals().await == Signal::Reload {
            // Whether it went well is in the log.
            drop(control.reload().await);
        }
    };
    tokio::select! {
        () = ordered => {}
        () = signalled => {}
    }
}
