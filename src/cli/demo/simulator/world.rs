//! What the simulated people know of each other: which orders are under way.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use super::dice::Dice;

/// How many of each data.sql brings.
pub(super) const CUSTOMERS: u32 = 20;
pub(super) const DRIVERS: u32 = 8;
pub(super) const MERCHANTS: u32 = 5;

/// An order that somebody takes care of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) id: i64,
    pub(super) customer: u32,
    pub(super) merchant: u32,
    pub(super) driver: Option<u32>,
}

/// The orders under way, as the orders' part last wrote them.
#[derive(Clone, Debug, Default)]
pub(super) struct World {
    orders: Arc<Mutex<Vec<Order>>>,
}

impl World {
    pub(super) fn set(&self, orders: Vec<Order>) {
        *self.orders.lock().unwrap_or_else(PoisonError::into_inner) = orders;
    }

    /// One of the orders under way.
    pub(super) fn pick(&self, dice: &mut Dice) -> Option<Order> {
        dice.pick(&self.orders.lock().unwrap_or_else(PoisonError::into_inner)).cloned()
    }
}

/// The id that data.sql gives to the customer of this number, from 1.
pub(super) fn customer_id(number: u32) -> String {
    format!("c0000000-0000-4000-8000-{number:012}")
}

/// The same of a driver.
pub(super) fn driver_id(number: u32) -> String {
    format!("d0000000-0000-4000-8000-{number:012}")
}

/// The same of a merchant.
pub(super) fn merchant_id(number: u32) -> String {
    format!("e0000000-0000-4000-8000-{number:012}")
}
