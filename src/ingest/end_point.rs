//! What a password exchange is bound to: a hash of the server's certificate, so that nobody in
//! between can pass the exchange on (SCRAM-SHA-256-PLUS).

/// The `tls-server-end-point` binding of RFC 5929: the certificate hashed with the hash of its own
/// signature, SHA-256 at least. Absent where that signature has no such hash (Ed25519).
#[must_use]
pub(crate) fn server_end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let algorithm = match signature_hash(certificate)? {
        Hash::Sha256 => &ring::digest::SHA256,
        Hash::Sha384 => &ring::digest::SHA384,
        Hash::Sha512 => &ring::digest::SHA512,
    };
    Some(ring::digest::digest(algorithm, certificate).as_ref().to_vec())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

/// The hash in a certificate's `signatureAlgorithm`, by its object identifier.
fn signature_hash(certificate: &[u8]) -> Option<Hash> {
    const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
    const ECDSA: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04];
    const SHA2: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02];
    let (certificate, _) = element(certificate)?;
    let (_, rest) = element(certificate)?;
    let (algorithm, _) = element(rest)?;
    let (identifier, parameters) = element(algorithm)?;
    if let Some(kind) = identifier.strip_prefix(RSA) {
        return match kind {
            // MD5 and SHA-1 are replaced by SHA-256.
            [0x04 | 0x05 | 0x0b] => Some(Hash::Sha256),
            [0x0c] => Some(Hash::Sha384),
            [0x0d] => Some(Hash::Sha512),
            // RSASSA-PSS names its hash in the first of its parameters.
            [0x0a] => {
                let (parameters, _) = element(parameters)?;
                let (tagged, _) = element(parameters)?;
                let (algorithm, _) = element(tagged)?;
                let (identifier, _) = element(algorithm)?;
                match identifier.strip_prefix(SHA2)? {
                    [0x01] => Some(Hash::Sha256),
                    [0x02] => Some(Hash::Sha384),
                    [0x03] => Some(Hash::Sha512),
                    _ => None,
                }
            }
            _ => None,
        };
    }
    match identifier.strip_prefix(ECDSA)? {
        [0x01] | [0x03, 0x02] => Some(Hash::Sha256),
        [0x03, 0x03] => Some(Hash::Sha384),
        [0x03, 0x04] => Some(Hash::Sha512),
        _ => None,
    }
}

/// The content of the DER element that `bytes` begin with, and what follows it.
fn element(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (_tag, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    if *first < 0x80 {
        return rest.split_at_checked(usize::from(*first));
    }
    let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
    let length = length.iter().try_fold(0usize, |length, byte| {
        length.checked_mul(256).map(|length| length + usize::from(*byte))
    })?;
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A certificate's outline: an empty body, the algorithm, nothing else.
    fn outline(algorithm: &[u8]) -> Vec<u8> {
        let length = |bytes: &[u8]| u8::try_from(bytes.len()).unwrap();
        let mut inner = vec![0x30, 0x00, 0x30, length(algorithm)];
        inner.extend(algorithm);
        let mut outer = vec![0x30, 0x81, length(&inner)];
        outer.extend(inner);
        outer
    }

    #[test]
    fn the_hash_is_that_of_the_signature() {
        let rsa = |kind| {
            let identifier = [6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, kind, 5, 0];
            signature_hash(&outline(&identifier))
        };
        assert_eq!(rsa(0x05), Some(Hash::Sha256));
        assert_eq!(rsa(0x0b), Some(Hash::Sha256));
        assert_eq!(rsa(0x0c), Some(Hash::Sha384));
        assert_eq!(rsa(0x0d), Some(Hash::Sha512));
        let ecdsa = [6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03];
        assert_eq!(signature_hash(&outline(&ecdsa)), Some(Hash::Sha384));
        let ed25519 = [6, 3, 0x2b, 0x65, 0x70];
        assert_eq!(signature_hash(&outline(&ed25519)), None);
    }

    #[test]
    fn what_is_no_certificate_has_no_hash() {
        for bytes in
            [&b""[..], b"0", b"0\x84\xff\xff\xff\xff", b"0\x88\xff\xff\xff\xff\xff\xff\xff\xff"]
        {
            assert_eq!(signature_hash(bytes), None);
        }
    }
}
