//! The dialect of those who come with a Postgres client: statements in, lines or rows out.
//!
//! ```text
//! SUBSCRIBE TO orders WHERE total > 5 ──parse──▶ Statement ──▶ route
//! route ──LINES──▶ one line of JSON for each frame ──read──▶ Line ──▶ COPY data, or a row
//! ```
//!
//! The lines are the native dialect's frames, so what is described in `docs/protocol.md` holds here,
//! too. `docs/console.md` has the grammar.
//!
//! # Invariants
//!
//! - A statement that is accepted means what it says: a clause that is not known, or stands twice, is
//!   an error that points at it. (Tests in `statement`.)
//! - No text makes this module panic. (Property test in `statement`.)

mod lexer;
pub mod error;
pub mod statement;
pub mod explain;
pub mod explained;
pub mod lines;
pub mod rows;

pub use error::StatementError;
pub use statement::Statement;
pub use statement::parse;
