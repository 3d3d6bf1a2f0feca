//! What clients may do by number and by time, and by which address they are known.

use std::num::NonZeroU32;

use crate::config::read::Reader;
use crate::gate::Limits;
use crate::gate::address::Forwarded;
use crate::gate::address::network;

pub(super) fn limits(reader: &mut Reader) -> Limits {
    let limits = Limits {
        connections: at_most(reader, "limits.connections"),
        connections_per_address: at_most(reader, "limits.connections_per_address"),
        connections_per_subject: at_most(reader, "limits.connections_per_subject"),
        handshakes_per_second_per_address: at_most(
            reader,
            "limits.handshakes_per_second_per_address",
        ),
        rejected_tokens_per_minute: at_most(reader, "limits.rejected_tokens_per_minute"),
        requests_per_second: at_most(reader, "limits.requests_per_second"),
        requests_burst: at_most(reader, "limits.requests_burst").unwrap_or(NonZeroU32::MIN),
        trusted_proxies: networks(reader),
        forwarded: forwarded(reader),
    };
    let subscriptions = reader.integer("limits.subscriptions_per_session");
    if u64::from(limits.requests_burst.get()) < subscriptions {
        let message = "limits.requests_burst: less than limits.subscriptions_per_session, so that \
                       a client with that many that comes back is refused some of them";
        reader.warnings.push(message.to_owned());
    }
    limits
}

/// A limit, of which 0 is none.
fn at_most(reader: &mut Reader, name: &str) -> Option<NonZeroU32> {
    NonZeroU32::new(u32::try_from(reader.integer(name)).unwrap_or(u32::MAX))
}

fn networks(reader: &mut Reader) -> Vec<ipnet::IpNet> {
    let name = "listen.trusted_proxies";
    let texts = reader.texts(name);
    let networks: Vec<_> = texts.iter().filter_map(|text| network(text)).collect();
    if networks.len() < texts.len() {
        reader.wrong::<()>(name, "addresses or networks, as in 10.0.0.0/8 or ::1");
    }
    networks
}

fn forwarded(reader: &mut Reader) -> Forwarded {
    let name = "listen.forwarded_header";
    let text = reader.text(name).unwrap_or_default();
    text.parse().unwrap_or_else(|_| {
        reader.wrong::<()>(name, "x-forwarded-for or forwarded");
        Forwarded::default()
    })
}
