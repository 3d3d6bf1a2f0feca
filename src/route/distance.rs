//! How far it is from one place on earth to another.

use crate::change::tuple::Cell;

/// The mean radius of the earth in metres, R1 of the Geodetic Reference System 1980
/// (H. Moritz, "Geodetic Reference System 1980", Journal of Geodesy 74, 2000).
const EARTH_RADIUS: f64 = 6_371_008.771_4;

/// A place on earth, in degrees.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Point {
    latitude: f64,
    longitude: f64,
}

impl Point {
    /// The place that two numbers of a row tell; `None` where one of them is null, not in the
    /// image, or not a finite number.
    pub(crate) fn read(latitude: Cell<'_>, longitude: Cell<'_>) -> Option<Point> {
        Some(Point { latitude: number(latitude)?, longitude: number(longitude)? })
    }

    /// The length of the shortest way over the earth's surface to another place, in metres.
    ///
    /// By the haversine formula (R. W. Sinnott, "Virtues of the Haversine", Sky and Telescope 68,
    /// 1984), which is exact on a sphere also for places that are close together; the earth is not
    /// one, so the result is off by up to half a percent.
    pub(crate) fn metres_to(self, other: Point) -> f64 {
        let haversine = |angle: f64| (angle / 2.0).sin().powi(2);
        let (from, to) = (self.latitude.to_radians(), other.latitude.to_radians());
        let between = (other.longitude - self.longitude).to_radians();
        let root = haversine(to - from) + from.cos() * to.cos() * haversine(between);
        2.0 * EARTH_RADIUS * root.clamp(0.0, 1.0).sqrt().asin()
    }
}

fn number(cell: Cell<'_>) -> Option<f64> {
    let Cell::Text(text) = cell else { return None };
    let number: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    number.is_finite().then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metres(from: (f64, f64), to: (f64, f64)) -> f64 {
        let point = |(latitude, longitude)| Point { latitude, longitude };
        point(from).metres_to(point(to))
    }

    #[test]
    fn ways_whose_length_is_known() {
        let quarter = EARTH_RADIUS * std::f64::consts::FRAC_PI_2;
        for (from, to, expected) in [
            ((0.0, 0.0), (0.0, 90.0), quarter),
            ((90.0, 0.0), (0.0, 123.0), quarter),
            ((0.0, 179.5), (0.0, -179.5), quarter / 90.0),
            ((45.0, 10.0), (45.0, 10.0), 0.0),
            ((10.0, 20.0), (-10.0, -160.0), quarter * 2.0),
            // A millionth of a degree of latitude.
            ((52.5, 13.4), (52.500_001, 13.4), quarter / 90e6),
        ] {
            let found = metres(from, to);
            // At the other end of the earth the formula is good for a metre.
            let near = 1e-3 + expected * 1e-8;
            assert!((found - expected).abs() < near, "{from:?} {to:?}: {found}, not {expected}");
        }
    }

    #[test]
    fn what_is_no_place_is_none() {
        let at = |text: &'static str| Point::read(Cell::Text(text.as_bytes()), Cell::Text(b"1"));
        assert!(at("52.5").is_some() && at("-1e1").is_some());
        assert!(at("NaN").is_none() && at("Infinity").is_none() && at("x").is_none());
        assert!(Point::read(Cell::Null, Cell::Text(b"1")).is_none());
        assert!(Point::read(Cell::Text(b"1"), Cell::Unchanged).is_none());
    }
}
