//! Drivers move through the city, and one of them comes and goes.

use tokio_postgres::Client;
use tokio_postgres::Error;

use super::dice::Dice;
use super::world::DRIVERS;
use super::world::driver_id;

const MOVE: &str = "UPDATE locations SET latitude = $2, longitude = $3, heading = $4, \
                    speed_kmh = $5, battery = $6, recorded_at = now() \
                    WHERE driver_id = $1::text::uuid";

const CHANGE_SHIFT: &str = "UPDATE drivers SET on_shift = NOT on_shift, shift = CASE WHEN on_shift \
                            THEN tstzrange(lower(shift), now()) ELSE tstzrange(now(), NULL) END \
                            WHERE id = $1::text::uuid";

/// A step of a driver, in degrees: about fifty metres.
const STEP: f64 = 0.0005;

/// The edges of the city: south, north, west, east.
const CITY: (f64, f64, f64, f64) = (52.45, 52.57, 13.28, 13.52);

#[derive(Debug)]
struct Driver {
    id: String,
    latitude: f64,
    longitude: f64,
    /// In radians, from north.
    heading: f64,
    battery: i16,
}

/// All drivers, each moved in turn.
#[derive(Debug)]
pub(super) struct Drivers {
    drivers: Vec<Driver>,
    turn: usize,
}

impl Drivers {
    pub(super) fn new(dice: &mut Dice) -> Drivers {
        let drivers = (1..=DRIVERS).map(|number| {
            let (latitude, longitude) = dice.place(0.03, 0.05);
            let heading = std::f64::consts::PI * (1.0 + dice.swing());
            Driver { id: driver_id(number), latitude, longitude, heading, battery: 100 }
        });
        Drivers { drivers: drivers.collect(), turn: 0 }
    }

    pub(super) async fn step(&mut self, client: &Client, dice: &mut Dice) -> Result<u64, Error> {
        if dice.below(120) == 0 {
            return client.execute(CHANGE_SHIFT, &[&driver_id(DRIVERS)]).await;
        }
        self.turn = self.turn.checked_add(1).filter(|turn| *turn < self.drivers.len()).unwrap_or(0);
        let Some(driver) = self.drivers.get_mut(self.turn) else { return Ok(0) };
        let speed_kmh = driver.advance(dice);
        let heading = narrow(driver.heading.to_degrees());
        let speed_kmh = narrow(speed_kmh);
        let (latitude, longitude) = (driver.latitude, driver.longitude);
        client
            .execute(
                MOVE,
                &[&driver.id, &latitude, &longitude, &heading, &speed_kmh, &driver.battery],
            )
            .await
    }
}

impl Driver {
    /// Goes one step on, turning a little, and turning back at the edge of the city; gives the
    /// speed.
    fn advance(&mut self, dice: &mut Dice) -> f64 {
        let full = std::f64::consts::TAU;
        self.heading = (self.heading + 0.6 * dice.swing()).rem_euclid(full);
        let speed = 0.6 + 0.4 * dice.swing();
        self.latitude += STEP * speed * self.heading.cos();
        self.longitude += 1.6 * STEP * speed * self.heading.sin();
        let (south, north, west, east) = CITY;
        let inside =
            (south..north).contains(&self.latitude) && (west..east).contains(&self.longitude);
        if !inside {
            self.heading = (self.heading + std::f64::consts::PI).rem_euclid(full);
            self.latitude = self.latitude.clamp(south, north);
            self.longitude = self.longitude.clamp(west, east);
        }
        self.latitude = rounded(self.latitude);
        self.longitude = rounded(self.longitude);
        if dice.below(40) == 0 {
            self.battery = if self.battery <= 5 { 100 } else { self.battery.saturating_sub(1) };
        }
        40.0 * speed
    }
}

/// Six digits after the point, a tenth of a metre: what a telephone reports.
fn rounded(degrees: f64) -> f64 {
    (degrees * 1e6).round() / 1e6
}

/// A small whole number as the `real` that the column wants.
fn narrow(number: f64) -> f32 {
    let text = format!("{number:.0}");
    text.parse().unwrap_or(0.0)
}
