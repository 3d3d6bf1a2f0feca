//! The native dialect: the same JSON over WebSocket (subprotocol `walcast.v1`) and over HTTP.
//! `docs/protocol.md` is its description for authors of clients.

pub mod request;
pub mod query;
pub mod write;
pub mod websocket;
pub mod events;
