//! Who asks: a token goes in, [`Claims`] come out, and nothing else makes them.
//!
//! ```text
//! settings ──▶ Verifier::new         once, at start: every key is read and checked
//! token ─────▶ Verifier::verify ──▶ Claims ──▶ route (role, policies), serve (expiry)
//!                 ▲ keys
//! issuers ────▶ Source::look         again and again, by the daemon
//! ```
//!
//! # Invariants
//!
//! - A [`Claims`] exists only because a signature was verified, because the settings admit clients
//!   without a token, or because an operator said them on the console or the command line
//!   ([`Verifier::assume`]). There is no other constructor, in tests neither.
//! - The algorithm is the key's, never the token's: a header that names another finds no key.
//! - Nothing in a token's header but `alg` and `kid` is obeyed; no address in it is ever opened.
//! - No error, no `Debug` and no log line of this module holds a token, a claim's value or a key.
//!
//! Each is checked by `token`'s tests, against real keys of every kind (`fixtures/tokens`).

pub mod claims;
pub mod settings;
pub mod token;

mod json;
mod key;
pub mod jwk;
pub mod fetch;
pub mod source;
pub mod sign;

pub use claims::Claims;
pub use key::KeyError;
pub use settings::{Key, Material, Published, Secret, Settings};
pub use token::{AuthError, TokenError, Verifier};
