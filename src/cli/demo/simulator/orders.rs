//! Orders: placed, open, assigned, picked up, delivered; some are cancelled, and old ones are cleared away.

use std::collections::VecDeque;

use tokio_postgres::Client;
use tokio_postgres::Error;

use super::dice::Dice;
use super::world::CUSTOMERS;
use super::world::DRIVERS;
use super::world::MERCHANTS;
use super::world::Order;
use super::world::World;
use super::world::customer_id;
use super::world::driver_id;
use super::world::merchant_id;

/// Between how many orders there are under way.
const UNDER_WAY: std::ops::Range<usize> = 6..24;

/// How many ended orders are kept.
const KEPT: usize = 200;

const PLACE: &str = "INSERT INTO orders (customer_id, merchant_id, items, tags, total, latitude, \
                     longitude, note) VALUES ($1::text::uuid, $2::text::uuid, $3::text::jsonb, \
                     $4, $5::text::numeric, $6, $7, $8) RETURNING id";
const CONFIRM: &str = "UPDATE orders SET status = 'open' WHERE id = $1";
const ASSIGN: &str =
    "UPDATE orders SET status = 'assigned', driver_id = $2::text::uuid WHERE id = $1";
const PICK_UP: &str = "UPDATE orders SET status = 'picked_up', picked_up_at = now() WHERE id = $1";
const DELIVER: &str = "UPDATE orders SET status = 'delivered', delivered_at = now(), \
                       tip = $2::text::numeric WHERE id = $1";
const CANCEL: &str = "UPDATE orders SET status = 'cancelled', note = $2 WHERE id = $1";
const LOAD: &str = "UPDATE locations SET order_id = orders.id, customer_id = orders.customer_id, \
                    merchant_id = orders.merchant_id FROM orders \
                    WHERE orders.id = $1 AND locations.driver_id = orders.driver_id";
const UNLOAD: &str = "UPDATE locations SET order_id = NULL, customer_id = NULL, \
                      merchant_id = NULL WHERE order_id = $1";
const CLEAR_AWAY: &str = "DELETE FROM orders WHERE id = $1";
const OPEN_OR_CLOSE: &str = "UPDATE merchants SET is_open = NOT is_open WHERE id = $1::text::uuid";

const DISHES: &[&str] = &["dosa", "pizza", "ramen", "falafel", "salad", "burger", "soup", "bao"];
const NOTES: &[&str] =
    &["third floor", "ring twice", "leave it at the door — thanks 🙏", "no onions"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Placed,
    Open,
    Assigned,
    PickedUp,
}

/// All orders under way.
#[derive(Debug)]
pub(super) struct Orders {
    world: World,
    under_way: VecDeque<(Order, Status)>,
    ended: VecDeque<i64>,
}

impl Orders {
    pub(super) fn new(world: World) -> Orders {
        Orders { world, under_way: VecDeque::new(), ended: VecDeque::new() }
    }

    /// One thing happens to one order. Gives how many rows it changed.
    pub(super) async fn step(
        &mut self,
        client: &mut Client,
        dice: &mut Dice,
    ) -> Result<u64, Error> {
        if dice.below(100) == 0 {
            let merchant = merchant_id(1 + dice.below(MERCHANTS));
            return client.execute(OPEN_OR_CLOSE, &[&merchant]).await;
        }
        if self.ended.len() > KEPT
            && let Some(id) = self.ended.pop_front()
        {
            return client.execute(CLEAR_AWAY, &[&id]).await;
        }
        let few = self.under_way.len() < UNDER_WAY.start;
        let many = self.under_way.len() >= UNDER_WAY.end;
        let changes = if few || (!many && dice.chance(27)) {
            self.place(client, dice).await
        } else {
            self.advance(client, dice).await
        };
        self.world.set(self.under_way.iter().map(|(order, _)| order.clone()).collect());
        changes
    }

    async fn place(&mut self, client: &Client, dice: &mut Dice) -> Result<u64, Error> {
        let customer = 1 + dice.below(CUSTOMERS);
        let merchant = 1 + dice.below(MERCHANTS);
        let dish = dice.pick(DISHES).copied().unwrap_or("soup");
        let count = 1 + dice.below(4);
        let cents = 500 + dice.below(3000);
        let total = format!("{}.{:02}", cents / 100, cents % 100);
        let items = serde_json::json!([{ "dish": dish, "count": count, "price": total }]);
        let tags: Vec<&str> = if dice.chance(25) { vec!["express", "hot"] } else { Vec::new() };
        let note = if dice.chance(30) { dice.pick(NOTES).copied() } else { None };
        let (latitude, longitude) = dice.place(0.04, 0.08);
        let row = client
            .query_one(
                PLACE,
                &[
                    &customer_id(customer),
                    &merchant_id(merchant),
                    &items.to_string(),
                    &tags,
                    &total,
                    &latitude,
                    &longitude,
                    &note,
                ],
            )
            .await?;
        let order = Order { id: row.try_get(0)?, customer, merchant, driver: None };
        self.under_way.push_back((order, Status::Placed));
        Ok(1)
    }

    /// The order goes one state on. It comes back to its place only when that was written: a step
    /// that failed leaves the order as it is in the database, for nobody to take care of.
    async fn advance(&mut self, client: &mut Client, dice: &mut Dice) -> Result<u64, Error> {
        let Some((mut order, status)) = dice.take(&mut self.under_way) else { return Ok(0) };
        let id = order.id;
        let next = match status {
            Status::Placed => {
                client.execute(CONFIRM, &[&id]).await?;
                Status::Open
            }
            Status::Open if dice.chance(8) => {
                let changes = client.execute(CANCEL, &[&id, &"changed my mind"]).await?;
                self.ended.push_back(id);
                return Ok(changes);
            }
            Status::Open => {
                let Some(driver) = self.free_driver(dice) else {
                    self.under_way.push_back((order, status));
                    return Ok(0);
                };
                client.execute(ASSIGN, &[&id, &driver_id(driver)]).await?;
                order.driver = Some(driver);
                Status::Assigned
            }
            Status::Assigned => {
                let transaction = client.transaction().await?;
                let picked_up = transaction.execute(PICK_UP, &[&id]).await?;
                let changes = picked_up.saturating_add(transaction.execute(LOAD, &[&id]).await?);
                transaction.commit().await?;
                self.under_way.push_back((order, Status::PickedUp));
                return Ok(changes);
            }
            Status::PickedUp => {
                let tip = dice.chance(40).then(|| format!("{}.50", dice.below(5)));
                let transaction = client.transaction().await?;
                let delivered = transaction.execute(DELIVER, &[&id, &tip]).await?;
                let changes = delivered.saturating_add(transaction.execute(UNLOAD, &[&id]).await?);
                transaction.commit().await?;
                self.ended.push_back(id);
                return Ok(changes);
            }
        };
        self.under_way.push_back((order, next));
        Ok(1)
    }

    /// A driver on shift (the last one comes and goes) who has nothing to bring.
    fn free_driver(&self, dice: &mut Dice) -> Option<u32> {
        let busy =
            |driver: &u32| self.under_way.iter().any(|(order, _)| order.driver == Some(*driver));
        let free: Vec<u32> = (1..DRIVERS).filter(|driver| !busy(driver)).collect();
        dice.pick(&free).copied()
    }
}
