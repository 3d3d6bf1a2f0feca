//! walcast itself: the release program, with generated settings. All that the harness knows of
//! walcast's settings and protocol is in this file.

use std::fs;
use std::net::SocketAddr;
use std::process::Command;

use super::Ground;
use super::Tuning;
use crate::Fallible;
use crate::database::PUBLICATION;
use crate::database::SLOT;
use crate::process::guarded;
use crate::script::Script;
use crate::script::Talk;
use crate::tally::Wanted;

/// The native dialect: one subscription per connection, no token.
pub(super) fn script(wanted: Wanted) -> Script {
    let request = match wanted {
        Wanted::Everything => r#"{"type":"subscribe","id":"{id}","table":"public.locations"}"#,
        Wanted::Own { .. } => {
            r#"{"type":"subscribe","id":"{id}","table":"public.orders","where":"customer_id = {key}"}"#
        }
    };
    let answer = r#""type":"subscribed""#;
    Script::new("/v1/ws", Talk::Json { subprotocol: Some("walcast.v1"), request, answer })
}

pub(super) fn command(
    ground: &Ground,
    (address, operators): (SocketAddr, SocketAddr),
    tuning: Tuning,
) -> Fallible<Command> {
    let database = ground.database.connection_string();
    let ring_bytes = tuning.ring_bytes;
    let (window_bytes, counts) = (ring_bytes / 2, tuning.counts);
    let settings = format!(
        r#"# Written by the load harness.
[database]
url = "{database}"
slot = "{SLOT}"
publication = "{PUBLICATION}"
create_slot = false

[window]
bytes = {window_bytes}

[ring]
bytes_max = {ring_bytes}

[listen]
address = "{address}"

# All clients have one address here.
[limits]
connections_per_address = 0
handshakes_per_second_per_address = 0
[admin]
address = "{operators}"
metrics = {counts}

[auth]
anonymous_role = "bench_reader"

[[table]]
name = "public.locations"
open = true

[[table]]
name = "public.orders"
open = true
"#
    );
    let file = ground.folder.join("walcast.toml");
    fs::write(&file, settings)?;
    let mut command = guarded(env!("CARGO_BIN_EXE_walcast"));
    command.arg("serve").arg("--config").arg(file);
    Ok(command)
}
