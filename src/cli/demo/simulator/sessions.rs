//! Support sessions: pending, waiting, live, completed.

use std::collections::VecDeque;

use tokio_postgres::Client;
use tokio_postgres::Error;

use super::dice::Dice;
use super::world::CUSTOMERS;
use super::world::World;
use super::world::customer_id;

/// How many sessions there are at a time.
const AT_A_TIME: usize = 8;

/// How many completed sessions are kept.
const KEPT: usize = 50;

const ASK: &str = "INSERT INTO sessions (id, customer_id, order_id, topic, details) \
                   VALUES ($1::text::uuid, $2::text::uuid, $3, $4, $5::text::jsonb)";
const WAIT: &str = "UPDATE sessions SET status = 'waiting' WHERE id = $1::text::uuid";
const ANSWER: &str = "UPDATE sessions SET status = 'live', agent = $2, started_at = now() \
                      WHERE id = $1::text::uuid";
const TALK: &str = "UPDATE sessions SET transcript = transcript || $2 || E'\\n' \
                    WHERE id = $1::text::uuid";
const COMPLETE: &str = "UPDATE sessions SET status = 'completed', ended_at = now() \
                        WHERE id = $1::text::uuid";
const CLEAR_AWAY: &str = "DELETE FROM sessions WHERE id = $1::text::uuid";

const TOPICS: &[&str] = &["where is my order", "wrong dish", "refund", "allergies", "new address"];
const AGENTS: &[&str] = &["Nora", "Oskar", "Pia"];
const LINES: &[&str] = &[
    "Good evening, how may I help?",
    "One moment, I am looking it up.",
    "The driver is two streets away.",
    "Thank you very much!",
];

#[derive(Clone, Copy, Debug)]
enum Status {
    Pending,
    Waiting,
    Live,
}

/// All sessions that are not completed.
#[derive(Debug)]
pub(super) struct Sessions {
    world: World,
    going_on: VecDeque<(String, Status)>,
    completed: VecDeque<String>,
}

impl Sessions {
    pub(super) fn new(world: World) -> Sessions {
        Sessions { world, going_on: VecDeque::new(), completed: VecDeque::new() }
    }

    /// One thing happens in one session.
    pub(super) async fn step(&mut self, client: &Client, dice: &mut Dice) -> Result<u64, Error> {
        if self.completed.len() > KEPT
            && let Some(id) = self.completed.pop_front()
        {
            return client.execute(CLEAR_AWAY, &[&id]).await;
        }
        if self.going_on.len() < 3 || (self.going_on.len() < AT_A_TIME && dice.chance(25)) {
            return self.ask(client, dice).await;
        }
        let Some((id, status)) = dice.take(&mut self.going_on) else { return Ok(0) };
        let (changes, next) = match status {
            Status::Pending => (client.execute(WAIT, &[&id]).await?, Some(Status::Waiting)),
            Status::Waiting => {
                let agent = dice.pick(AGENTS).copied();
                (client.execute(ANSWER, &[&id, &agent]).await?, Some(Status::Live))
            }
            Status::Live if dice.chance(65) => {
                let line = dice.pick(LINES).copied();
                (client.execute(TALK, &[&id, &line]).await?, Some(Status::Live))
            }
            Status::Live => (client.execute(COMPLETE, &[&id]).await?, None),
        };
        match next {
            Some(next) => self.going_on.push_back((id, next)),
            None => self.completed.push_back(id),
        }
        Ok(changes)
    }

    async fn ask(&mut self, client: &Client, dice: &mut Dice) -> Result<u64, Error> {
        let id = dice.uuid();
        let order = if dice.chance(60) { self.world.pick(dice) } else { None };
        let customer = order.as_ref().map_or_else(|| 1 + dice.below(CUSTOMERS), |o| o.customer);
        let topic = dice.pick(TOPICS).copied();
        let device = if dice.chance(50) { "phone" } else { "browser" };
        let details = serde_json::json!({ "device": device, "video": dice.chance(20) }).to_string();
        let order_id = order.map(|order| order.id);
        let changes = client
            .execute(ASK, &[&id, &customer_id(customer), &order_id, &topic, &details])
            .await?;
        self.going_on.push_back((id, Status::Pending));
        Ok(changes)
    }
}
