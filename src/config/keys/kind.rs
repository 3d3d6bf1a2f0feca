//! What a key is, and what its value must be.

use std::fmt;

/// What a value must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text but the empty one.
    Text,
    /// A connection string. Never shown, because people put passwords there.
    Url,
    /// The path of a file, relative to the configuration file's folder; `credential:NAME` is the
    /// systemd credential of that name.
    File,
    /// A whole number within bounds, both included.
    Integer {
        /// The smallest.
        min: u64,
        /// The largest.
        max: u64,
        /// What is counted: `bytes`, `seconds`, ...
        unit: &'static str,
    },
    /// `true` or `false`.
    Boolean,
    /// Texts, or one text alone. From the environment: separated by commas.
    Texts,
    /// A name, or a list of names that lead to a place inside nested objects.
    ClaimPath,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Text => "a text",
            Kind::Url => "a connection string",
            Kind::File => "a file's path, or credential:NAME",
            Kind::Boolean => "true or false",
            Kind::Texts => "a list of texts",
            Kind::ClaimPath => "a claim's name, or a list of names",
            Kind::Integer { min, max, unit } => {
                return write!(f, "a whole number of {unit} from {min} to {max}");
            }
        })
    }
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its full name, `section.key`; `section[].key` in a section that may stand repeatedly.
    pub name: &'static str,
    /// What its value must be.
    pub kind: Kind,
    /// What holds where it is not given, as one would write it in `--set`; absent where nothing
    /// does.
    pub default: Option<&'static str>,
    /// What it is for.
    pub purpose: &'static str,
    /// Whether a reload changes it in the running daemon; otherwise it takes a restart.
    pub reloadable: bool,
}

pub(super) const KIB: u64 = 1024;
pub(super) const MIB: u64 = 1024 * KIB;
pub(super) const GIB: u64 = 1024 * MIB;

pub(super) const fn bytes(min: u64, max: u64) -> Kind {
    Kind::Integer { min, max, unit: "bytes" }
}

pub(super) const fn seconds(min: u64, max: u64) -> Kind {
    Kind::Integer { min, max, unit: "seconds" }
}

pub(super) const fn count(min: u64, max: u64, unit: &'static str) -> Kind {
    Kind::Integer { min, max, unit }
}

pub(super) const fn key(
    name: &'static str,
    kind: Kind,
    default: Option<&'static str>,
    purpose: &'static str,
) -> Key {
    Key { name, kind, default, purpose, reloadable: true }
}

impl Key {
    /// The key, of which a running daemon can't change what it was started with.
    pub(super) const fn fixed(self) -> Key {
        Key { reloadable: false, ..self }
    }
}
