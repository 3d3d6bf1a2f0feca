//! Customers and drivers write to each other, read it, and take some of it back.

use std::collections::VecDeque;

use tokio_postgres::Client;
use tokio_postgres::Error;

use super::dice::Dice;
use super::world::World;
use super::world::customer_id;
use super::world::driver_id;
use super::world::merchant_id;

/// How many messages are remembered, to be read or taken back.
const REMEMBERED: usize = 30;

/// An order that was cleared away meanwhile gets no message, and no error.
const WRITE: &str = "INSERT INTO messages (order_id, customer_id, merchant_id, driver_id, \
                     sender_id, sender_role, body, attachments) \
                     SELECT id, $2::text::uuid, $3::text::uuid, $4::text::uuid, $5::text::uuid, \
                     $6, $7, $8 FROM orders WHERE id = $1 RETURNING id";
const READ: &str = "UPDATE messages SET read_at = now() WHERE id = $1 AND read_at IS NULL";
const TAKE_BACK: &str = "DELETE FROM messages WHERE id = $1";

const BODIES: &[&str] = &[
    "I'm at the door",
    "Two minutes!",
    "Which bell is it?",
    "The gate is open, second yard",
    "Danke schön 😀",
    "Can you bring napkins, please?",
];

/// The people's conversations.
#[derive(Debug)]
pub(super) struct Chat {
    world: World,
    written: VecDeque<i64>,
}

impl Chat {
    pub(super) fn new(world: World) -> Chat {
        Chat { world, written: VecDeque::new() }
    }

    /// One message is written, read or taken back.
    pub(super) async fn step(&mut self, client: &Client, dice: &mut Dice) -> Result<u64, Error> {
        if self.written.len() > REMEMBERED || dice.chance(30) {
            let Some(id) = dice.take(&mut self.written) else { return Ok(0) };
            let sql = if dice.chance(10) { TAKE_BACK } else { READ };
            return client.execute(sql, &[&id]).await;
        }
        let Some(order) = self.world.pick(dice) else { return Ok(0) };
        let customer = customer_id(order.customer);
        let driver = order.driver.map(driver_id);
        let (sender, role) = match &driver {
            Some(driver) if dice.chance(50) => (driver, "driver"),
            Some(_) | None => (&customer, "customer"),
        };
        let merchant = merchant_id(order.merchant);
        let body = dice.pick(BODIES).copied();
        let attachments = dice.chance(10).then(|| vec!["photo.jpg"]);
        let rows = client
            .query(
                WRITE,
                &[&order.id, &customer, &merchant, &driver, sender, &role, &body, &attachments],
            )
            .await?;
        let Some(row) = rows.first() else { return Ok(0) };
        self.written.push_back(row.try_get(0)?);
        Ok(1)
    }
}
