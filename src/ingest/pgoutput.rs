//! The `pgoutput` format: bytes in, [`Message`] out.
//!
//! ```text
//! walsender ──payload──▶ pgoutput ──Message──▶ assemble ──Transaction──▶ shards
//!                        (here)
//! ```
//!
//! One call decodes one message. The module keeps no state and does no I/O: what a `Relation`
//! means for the rows that follow it is `assemble`'s business.
//!
//! # Format
//!
//! Protocol version 1 with logical messages, as PostgreSQL 15 sends it (the fixtures are from
//! there). Integers are big-endian; strings are UTF-8 and end with a zero byte. Source: PostgreSQL
//! documentation, chapter "Frontend/Backend Protocol", section "Logical Replication Message
//! Formats".
//!
//! # Invariants
//!
//! - No payload makes this module panic, and every byte of a payload is accounted for: one left
//!   over is an error. (Test `no_payload_panics_and_no_byte_is_left_over`.)
//! - Nothing is copied but the names in a `Relation`: tuples are slices of the payload.

use crate::change::id::RelationId;
use crate::change::id::TypeId;
use crate::change::id::Xid;
use crate::change::lsn::Lsn;
use crate::change::relation::ColumnDescription;
use crate::change::relation::RelationDescription;
use crate::change::relation::ReplicaIdentity;
use crate::change::transaction::OldTuple;
use crate::change::transaction::Timestamp;
use crate::change::tuple::Tuple;
use crate::change::tuple::TupleError;

/// One message of the stream, borrowed from its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A transaction that committed begins.
    Begin {
        /// Where its commit record begins.
        commit_lsn: Lsn,
        /// When it committed.
        committed_at: Timestamp,
        /// Its number.
        xid: Xid,
    },
    /// The transaction ends.
    Commit {
        /// Where its commit record begins; the same as in its Begin.
        commit_lsn: Lsn,
        /// Where its commit record ends.
        end_lsn: Lsn,
        /// When it committed.
        committed_at: Timestamp,
    },
    /// The transaction came to this server by replication.
    Origin {
        /// Where it was committed at its origin.
        commit_lsn: Lsn,
        /// The origin's name.
        name: &'a str,
    },
    /// What the tuples of a table look like from here on.
    Relation(RelationDescription),
    /// The name of a type that is not built in. For a domain, that of its base type.
    Type {
        /// Its OID.
        id: TypeId,
        /// Its schema's name, empty for `pg_catalog`.
        schema: &'a str,
        /// Its name.
        name: &'a str,
    },
    /// A row was inserted.
    Insert {
        /// Into this table.
        relation: RelationId,
        /// The row.
        new: Tuple<'a>,
    },
    /// A row was updated.
    Update {
        /// In this table.
        relation: RelationId,
        /// The row before, where the replica identity or a change of the key makes it be sent.
        old: Option<OldTuple<'a>>,
        /// The row after.
        new: Tuple<'a>,
    },
    /// A row was deleted.
    Delete {
        /// From this table.
        relation: RelationId,
        /// The row before.
        old: OldTuple<'a>,
    },
    /// Tables were emptied by one statement.
    Truncate {
        /// The tables.
        relations: RelationIds<'a>,
    },
    /// An application called `pg_logical_emit_message`.
    Logical {
        /// Whether it belongs to the transaction around it. If not, it comes between transactions.
        transactional: bool,
        /// Where it stands in the log.
        lsn: Lsn,
        /// The application's prefix.
        prefix: &'a str,
        /// The application's bytes.
        content: &'a [u8],
    },
}

/// The OIDs in a Truncate, read where they lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelationIds<'a>(&'a [u8]);

impl RelationIds<'_> {
    /// The OIDs in the order of the message.
    pub fn iter(&self) -> impl Iterator<Item = RelationId> {
        let (ids, _) = self.0.as_chunks::<4>();
        ids.iter().map(|id| RelationId(u32::from_be_bytes(*id)))
    }
}

/// Why a payload is not a `pgoutput` message.
///
/// Any of these means that the stream can no longer be trusted. None carries column data, so all
/// may be logged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The payload ended inside `field`.
    #[error("payload ends inside {field}: {needed} bytes needed, {left} left")]
    Truncated {
        /// The field, in the documentation's words.
        field: &'static str,
        /// How many bytes the field takes.
        needed: usize,
        /// How many there were.
        left: usize,
    },
    /// A string has no zero byte at its end, or is not UTF-8.
    #[error("{field} is not a zero-terminated UTF-8 text")]
    Text {
        /// The field, in the documentation's words.
        field: &'static str,
    },
    /// The first byte names no message that this version of the protocol has.
    #[error("unknown message type 0x{tag:02x}")]
    UnknownTag {
        /// The byte.
        tag: u8,
    },
    /// A byte that selects among alternatives selects none of them.
    #[error("{field} is 0x{found:02x}, which means nothing")]
    UnknownChoice {
        /// The field, in the documentation's words.
        field: &'static str,
        /// The byte.
        found: u8,
    },
    /// A row image is malformed.
    #[error("malformed tuple")]
    Tuple(#[from] TupleError),
    /// The message was complete before the payload was.
    #[error("{extra} bytes left over after a {message} message")]
    Trailing {
        /// The message, in the documentation's words.
        message: &'static str,
        /// How many bytes were left over.
        extra: usize,
    },
}

/// Decodes one message.
///
/// `payload` is the body of one `XLogData` frame, without the frame's own header.
///
/// # Errors
///
/// [`DecodeError`] when the payload is not exactly one message. No part of it is used then.
pub fn decode(payload: &[u8]) -> Result<Message<'_>, DecodeError> {
    let mut reader = Reader { rest: payload };
    // In the order of how often they come.
    match reader.u8("message type")? {
        b'I' => {
            let relation = reader.relation_id()?;
            reader.expect_new()?;
            let new = reader.tuple()?;
            reader.finish("Insert", Message::Insert { relation, new })
        }
        b'U' => reader.update(),
        b'B' => {
            let commit_lsn = reader.lsn("final LSN")?;
            let committed_at = reader.timestamp("commit timestamp")?;
            let xid = Xid(reader.u32("transaction id")?);
            reader.finish("Begin", Message::Begin { commit_lsn, committed_at, xid })
        }
        b'C' => {
            reader.u8("flags")?;
            let commit_lsn = reader.lsn("commit LSN")?;
            let end_lsn = reader.lsn("end LSN")?;
            let committed_at = reader.timestamp("commit timestamp")?;
            reader.finish("Commit", Message::Commit { commit_lsn, end_lsn, committed_at })
        }
        b'D' => {
            let relation = reader.relation_id()?;
            let old = reader.old_tuple()?;
            reader.finish("Delete", Message::Delete { relation, old })
        }
        b'R' => reader.relation(),
        b'T' => reader.truncate(),
        b'M' => reader.logical(),
        b'Y' => {
            let id = TypeId(reader.u32("type OID")?);
            let schema = reader.text("type namespace")?;
            let name = reader.text("type name")?;
            reader.finish("Type", Message::Type { id, schema, name })
        }
        b'O' => {
            let commit_lsn = reader.lsn("origin LSN")?;
            let name = reader.text("origin name")?;
            reader.finish("Origin", Message::Origin { commit_lsn, name })
        }
        tag => Err(DecodeError::UnknownTag { tag }),
    }
}

/// What is left of a payload.
struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let left = self.rest.len();
        let (bytes, rest) = self.rest.split_first_chunk::<N>().ok_or(DecodeError::Truncated {
            field,
            needed: N,
            left,
        })?;
        self.rest = rest;
        Ok(*bytes)
    }

    fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        self.array::<1>(field).map(|[byte]| byte)
    }

    fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        self.array(field).map(u16::from_be_bytes)
    }

    fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.array(field).map(u32::from_be_bytes)
    }

    fn lsn(&mut self, field: &'static str) -> Result<Lsn, DecodeError> {
        self.array(field).map(u64::from_be_bytes).map(Lsn::new)
    }

    fn timestamp(&mut self, field: &'static str) -> Result<Timestamp, DecodeError> {
        self.array(field).map(i64::from_be_bytes).map(Timestamp)
    }

    fn relation_id(&mut self) -> Result<RelationId, DecodeError> {
        self.u32("relation OID").map(RelationId)
    }

    fn bytes(&mut self, field: &'static str, needed: usize) -> Result<&'a [u8], DecodeError> {
        let left = self.rest.len();
        let (bytes, rest) = self.rest.split_at_checked(needed).ok_or(DecodeError::Truncated {
            field,
            needed,
            left,
        })?;
        self.rest = rest;
        Ok(bytes)
    }

    fn text(&mut self, field: &'static str) -> Result<&'a str, DecodeError> {
        let end =
            self.rest.iter().position(|byte| *byte == 0).ok_or(DecodeError::Text { field })?;
        let text = self.bytes(field, end)?;
        self.u8(field)?;
        std::str::from_utf8(text).map_err(|_| DecodeError::Text { field })
    }

    fn tuple(&mut self) -> Result<Tuple<'a>, DecodeError> {
        let (tuple, length) = Tuple::take(self.rest)?;
        self.rest = self.rest.get(length..).unwrap_or_default();
        Ok(tuple)
    }

    fn expect_new(&mut self) -> Result<(), DecodeError> {
        match self.u8("tuple kind")? {
            b'N' => Ok(()),
            found => Err(DecodeError::UnknownChoice { field: "tuple kind", found }),
        }
    }

    fn old_tuple(&mut self) -> Result<OldTuple<'a>, DecodeError> {
        match self.u8("tuple kind")? {
            b'K' => self.tuple().map(OldTuple::Key),
            b'O' => self.tuple().map(OldTuple::Full),
            found => Err(DecodeError::UnknownChoice { field: "tuple kind", found }),
        }
    }

    fn update(mut self) -> Result<Message<'a>, DecodeError> {
        let relation = self.relation_id()?;
        let old = if self.rest.first() == Some(&b'N') { None } else { Some(self.old_tuple()?) };
        self.expect_new()?;
        let new = self.tuple()?;
        self.finish("Update", Message::Update { relation, old, new })
    }

    fn relation(mut self) -> Result<Message<'a>, DecodeError> {
        let id = self.relation_id()?;
        let schema = match self.text("namespace")? {
            "" => "pg_catalog",
            schema => schema,
        };
        let name = self.text("relation name")?;
        let identity = match self.u8("replica identity")? {
            b'd' => ReplicaIdentity::Default,
            b'f' => ReplicaIdentity::Full,
            b'i' => ReplicaIdentity::Index,
            b'n' => ReplicaIdentity::Nothing,
            found => return Err(DecodeError::UnknownChoice { field: "replica identity", found }),
        };
        let count = self.u16("number of columns")?;
        // Grown as columns are found: a count alone must not make us allocate.
        let mut columns = Vec::new();
        for _ in 0..count {
            columns.push(ColumnDescription {
                in_identity: self.u8("column flags")? & 1 == 1,
                name: self.text("column name")?.into(),
                type_id: TypeId(self.u32("column type")?),
                modifier: self.array("type modifier").map(i32::from_be_bytes)?,
            });
        }
        let (schema, name) = (schema.into(), name.into());
        let relation = RelationDescription { id, schema, name, identity, columns };
        self.finish("Relation", Message::Relation(relation))
    }

    fn truncate(mut self) -> Result<Message<'a>, DecodeError> {
        let count = self.u32("number of relations")?;
        self.u8("truncate options")?;
        let needed = usize::try_from(count).unwrap_or(usize::MAX).saturating_mul(4);
        let relations = RelationIds(self.bytes("relation OIDs", needed)?);
        self.finish("Truncate", Message::Truncate { relations })
    }

    fn logical(mut self) -> Result<Message<'a>, DecodeError> {
        let transactional = self.u8("flags")? & 1 == 1;
        let lsn = self.lsn("message LSN")?;
        let prefix = self.text("prefix")?;
        let length = self.u32("content length")?;
        let content = self.bytes("content", usize::try_from(length).unwrap_or(usize::MAX))?;
        self.finish("Message", Message::Logical { transactional, lsn, prefix, content })
    }

    fn finish(self, name: &'static str, message: Message<'a>) -> Result<Message<'a>, DecodeError> {
        match self.rest.len() {
            0 => Ok(message),
            extra => Err(DecodeError::Trailing { message: name, extra }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use insta::assert_debug_snapshot;
    use proptest::prelude::*;

    const BEGIN: &str = "42  000000001d569748  000303be63104c15  000189a4";
    const COMMIT: &str = "43  00  000000001d569748  000000001d569778  000303be63104c15";
    const RELATION: &str = "52  000040fe  7075626c696300  7400  64  0002
        01 696400 00000017 ffffffff   00 6e00 00000017 ffffffff";
    const UPDATE: &str = "55  000040fe  4e  0003  74 00000001 31  75  74 00000001 32";
    const UPDATE_OF_KEY: &str = "55  000040fe  4b  0003  74 00000001 31  6e  6e
        4e  0003  74 00000001 39  75  74 00000001 32";
    const DELETE: &str = "44  000040fe  4f  0001  74 00000001 31";
    const TRUNCATE: &str = "54  00000002  03  000040fe  000040ff";
    const DOMAIN: &str = "59  0000412c  00  696e743400";
    const MESSAGE: &str = "4d  00  000000001d582bf8  70667800  00000005  6e6f6e7478";
    const ORIGIN: &str = "4f  000000001d569748  6f6e6500";

    /// A payload written in hexadecimal, the way `fixtures/pgoutput` keeps them.
    fn payload(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        let pairs = digits.chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
        pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
    }

    #[test]
    fn begin_names_the_commit_before_it_happens() {
        assert_debug_snapshot!(decode(&payload(BEGIN)), @r"
        Ok(
            Begin {
                commit_lsn: Lsn(0/1D569748),
                committed_at: Timestamp(
                    848541170813973,
                ),
                xid: Xid(
                    100772,
                ),
            },
        )
        ");
    }

    #[test]
    fn a_domain_comes_as_its_base_type_without_a_schema() {
        assert_debug_snapshot!(decode(&payload(DOMAIN)), @r#"
        Ok(
            Type {
                id: TypeId(
                    16684,
                ),
                schema: "",
                name: "int4",
            },
        )
        "#);
    }

    #[test]
    fn an_unchanged_large_value_is_not_null() {
        use crate::change::tuple::Cell;
        let bytes = payload(UPDATE);
        let Ok(Message::Update { old: None, new, .. }) = decode(&bytes) else { panic!() };
        let cells: Vec<_> = new.cells().collect();
        assert_eq!(cells, [Cell::Text(&b"1"[..]), Cell::Unchanged, Cell::Text(&b"2"[..])]);
    }

    #[test]
    fn an_update_of_the_key_carries_the_old_key() {
        let bytes = payload(UPDATE_OF_KEY);
        let Ok(Message::Update { old: Some(OldTuple::Key(old)), .. }) = decode(&bytes) else {
            panic!()
        };
        assert_eq!(old.len(), 3);
    }

    #[test]
    fn one_truncate_names_every_table() {
        let bytes = payload(TRUNCATE);
        let Ok(Message::Truncate { relations }) = decode(&bytes) else { panic!() };
        let expected = [RelationId(0x40fe), RelationId(0x40ff)];
        assert_eq!(relations.iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_message_outside_a_transaction_is_read() {
        let bytes = payload(MESSAGE);
        let message = decode(&bytes).unwrap();
        let (lsn, content) = (Lsn::new(0x1d58_2bf8), &b"nontx"[..]);
        let expected = Message::Logical { transactional: false, lsn, prefix: "pfx", content };
        assert_eq!(message, expected);
    }

    #[test]
    fn every_proper_prefix_is_an_error_and_so_is_a_byte_too_many() {
        for hex in [
            BEGIN,
            COMMIT,
            RELATION,
            UPDATE,
            UPDATE_OF_KEY,
            DELETE,
            TRUNCATE,
            DOMAIN,
            MESSAGE,
            ORIGIN,
        ] {
            let mut whole = payload(hex);
            assert!(decode(&whole).is_ok(), "{hex}");
            for end in 0..whole.len() {
                assert!(decode(&whole[..end]).is_err(), "{hex}, {end} bytes of it");
            }
            whole.push(0xff);
            let result = decode(&whole);
            assert!(matches!(result, Err(DecodeError::Trailing { extra: 1, .. })), "{hex}");
        }
    }

    #[test]
    fn an_unknown_tag_is_named() {
        assert_eq!(decode(b"S"), Err(DecodeError::UnknownTag { tag: b'S' }));
    }

    proptest! {
        #[test]
        fn no_payload_panics_and_no_byte_is_left_over(
            tag in prop::sample::select(b"BCOIUDTRYM".to_vec()),
            rest in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut bytes = vec![tag];
            bytes.extend(rest);
            if decode(&bytes).is_ok() {
                bytes.push(0);
                prop_assert!(decode(&bytes).is_err());
            }
        }
    }
}
