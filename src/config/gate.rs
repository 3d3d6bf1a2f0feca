//! What clients may do by number and by time, by which address they are known, and what they are
//! shown.

use std::error::Error;
use std::num::NonZeroU32;
use std::time::SystemTime;

use crate::config::read::Reader;
use crate::gate::Limits;
use crate::gate::address::Forwarded;
use crate::gate::address::network;
use crate::tls::server::CertificateError;
use crate::tls::server::Files;
use crate::tls::server::Identity;

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
        reader.wrong::<()>(name, "x-forwarded-for, forwarded or proxy-protocol");
        Forwarded::default()
    })
}

/// The certificate, where there is one.
pub(super) fn tls(reader: &mut Reader) -> Option<Files> {
    let (certificate, key) = ("listen.tls_cert_file", "listen.tls_key_file");
    match (reader.is_given(certificate), reader.is_given(key)) {
        (false, false) => return None,
        (true, true) => {}
        (given, _) => {
            let missing = if given { key } else { certificate };
            reader.mistake(missing, "missing: a certificate needs its key".to_owned());
            return None;
        }
    }
    reader.content(certificate)?;
    // Warns where everybody can read it.
    reader.secret(key)?;
    let files = Files { certificate: reader.file(certificate)?, key: reader.file(key)? };
    match Identity::read(&files) {
        Ok(identity) => {
            if identity.expires_at().is_some_and(|end| end <= SystemTime::now()) {
                let message = "listen.tls_cert_file: the certificate has expired, so that clients \
                               refuse it";
                reader.warnings.push(message.to_owned());
            }
        }
        Err(error) => {
            let wrong =
                if matches!(error, CertificateError::Key { .. }) { key } else { certificate };
            let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
            reader.mistake(wrong, format!("{error}{cause}"));
        }
    }
    Some(files)
}
