//! Where a client comes from, also behind proxies.
//!
//! A proxy appends the address that it was asked from to a header. Who can connect to walcast can
//! write that header, too, so it is read only from proxies that the settings name, and from its end:
//! the last address that is no such proxy's is the client's, and what stands before it was written
//! by the client itself.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// What counts as one address: an IPv4 address, or the network of 64 bits that one customer has in
/// IPv6 at the least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// An address of IPv4, also where it came mapped into IPv6.
    V4(Ipv4Addr),
    /// The first 64 bits of an address of IPv6.
    V6(u64),
    /// One of several that are counted together, because there are too many.
    Crowd(u16),
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Address {
        match address.to_canonical() {
            IpAddr::V4(address) => Address::V4(address),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                let network = [a, b, c, d].iter().fold(0, |all, part| all << 16 | u64::from(*part));
                Address::V6(network)
            }
        }
    }
}

/// Whether an address is in one of these networks.
pub(crate) fn is_in(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

/// A network as settings have it: `10.0.0.0/8`, or an address alone.
#[must_use]
pub fn network(text: &str) -> Option<IpNet> {
    let text = text.trim();
    text.parse().ok().or_else(|| text.parse().ok().map(|address: IpAddr| address.into()))
}

/// In which header a proxy says for whom it asks. Only one is read: a proxy that writes one of them
/// may pass on what the client wrote into the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Forwarded {
    /// `X-Forwarded-For: 203.0.113.7, 10.0.0.2`.
    #[default]
    XForwardedFor,
    /// `Forwarded: for=203.0.113.7;proto=https, for="[2001:db8::1]:443"` (RFC 7239).
    Standard,
    /// In none: the PROXY protocol tells it before the connection's first byte.
    ProxyProtocol,
}

/// The name is none of a header that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected x-forwarded-for, forwarded or proxy-protocol")]
pub struct ForwardedError;

impl FromStr for Forwarded {
    type Err = ForwardedError;

    fn from_str(name: &str) -> Result<Forwarded, ForwardedError> {
        match name.to_ascii_lowercase().as_str() {
            "x-forwarded-for" => Ok(Forwarded::XForwardedFor),
            "forwarded" => Ok(Forwarded::Standard),
            "proxy-protocol" => Ok(Forwarded::ProxyProtocol),
            _ => Err(ForwardedError),
        }
    }
}

impl Forwarded {
    /// The header's name.
    #[must_use]
    pub const fn header(self) -> &'static str {
        match self {
            // Of the latter nothing that is in it is believed.
            Forwarded::XForwardedFor | Forwarded::ProxyProtocol => "x-forwarded-for",
            Forwarded::Standard => "forwarded",
        }
    }

    /// Whom the values of the header name, which came from a proxy in one of `trusted`; none where
    /// they name nobody, or nobody's address.
    pub(crate) fn client<'a>(
        self,
        values: impl DoubleEndedIterator<Item = &'a str>,
        trusted: &[IpNet],
    ) -> Option<SocketAddr> {
        let mut nearest = None;
        for hop in values.rev().flat_map(|value| value.rsplit(',')) {
            // What is not an address hides whoever stands before it: that may be invented.
            let address = self.address(hop.trim())?;
            if !is_in(trusted, address.ip()) {
                return Some(address);
            }
            nearest = Some(address);
        }
        nearest
    }

    fn address(self, hop: &str) -> Option<SocketAddr> {
        let node = match self {
            Forwarded::XForwardedFor => hop,
            Forwarded::ProxyProtocol => return None,
            Forwarded::Standard => {
                let mut pairs = hop.split(';').filter_map(|pair| pair.split_once('='));
                pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))?.1
            }
        };
        let node = node.trim().trim_matches('"');
        let bare = node.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(node);
        let alone = bare.parse().ok().map(|address: IpAddr| SocketAddr::new(address, 0));
        let address = alone.or_else(|| node.parse().ok())?;
        Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(header: Forwarded, values: &[&str], expected: Option<&str>) {
        let trusted = [network("10.0.0.0/8").unwrap(), network("::1").unwrap()];
        let found = header.client(values.iter().copied(), &trusted);
        assert_eq!(found.map(|it| it.ip()), expected.map(|it| it.parse().unwrap()), "{values:?}");
    }

    #[test]
    fn the_last_address_that_is_no_proxy_s_is_the_client_s() {
        let check = |values: &[&str], expected| check(Forwarded::XForwardedFor, values, expected);
        check(&["203.0.113.7"], Some("203.0.113.7"));
        // What the client wrote itself stands before.
        check(&["1.1.1.1, 203.0.113.7"], Some("203.0.113.7"));
        check(&["1.1.1.1, 203.0.113.7, 10.0.0.2"], Some("203.0.113.7"));
        check(&["1.1.1.1", "203.0.113.7,10.0.0.2"], Some("203.0.113.7"));
        check(&["203.0.113.7:4711"], Some("203.0.113.7"));
        check(&["2001:db8::1"], Some("2001:db8::1"));
        check(&["[2001:db8::1]:443"], Some("2001:db8::1"));
        check(&["::ffff:203.0.113.7, ::1"], Some("203.0.113.7"));
        // Only proxies: the one that is farthest away.
        check(&["10.0.0.1, 10.0.0.2"], Some("10.0.0.1"));
        check(&["203.0.113.7, unknown"], None);
        check(&["203.0.113.7, "], None);
        check(&[], None);
    }

    #[test]
    fn the_standard_header_is_read_alike() {
        let check = |values: &[&str], expected| check(Forwarded::Standard, values, expected);
        check(&["for=203.0.113.7;proto=https;by=10.0.0.1"], Some("203.0.113.7"));
        check(&["for=1.1.1.1, proto=https; For=\"[2001:db8::1]:4711\""], Some("2001:db8::1"));
        check(&["for=203.0.113.7, for=10.0.0.9"], Some("203.0.113.7"));
        check(&["for=203.0.113.7, for=_hidden"], None);
        check(&["203.0.113.7"], None);
    }

    #[test]
    fn addresses_of_one_customer_count_as_one() {
        let of = |text: &str| Address::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(of("2001:db8:0:1::1"), of("2001:db8:0:1:ffff::2"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8:0:2::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
