//! The native dialect: JSON over WebSocket, subprotocol `walcast.v1`. `docs/protocol.md` is its
//! description for authors of clients.

pub mod request;
pub mod write;
pub mod websocket;
