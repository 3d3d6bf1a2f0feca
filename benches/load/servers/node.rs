//! The Node peers under `benches/peers`, with their packages installed below `target`.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use super::Ground;
use super::Server;
use super::at_port;
use crate::Fallible;
use crate::process::guarded;
use crate::script::Script;
use crate::script::Talk;
use crate::tally::Wanted;

const TRIGGER: &str = include_str!("../../peers/socketio-notify.sql");

/// `node-pgoutput-ws` takes one JSON request.
pub(super) fn plain_script(wanted: Wanted) -> Script {
    let request = match wanted {
        Wanted::Everything => r#"{"table":"locations"}"#,
        Wanted::Own { .. } => r#"{"table":"orders","column":"customer_id","value":{key}}"#,
    };
    Script::new("/", Talk::Json { subprotocol: None, request, answer: "subscribed" })
}

/// Both Socket.IO peers have a room per table and one per customer.
pub(super) fn socketio_script(wanted: Wanted) -> Script {
    let room = match wanted {
        Wanted::Everything => "locations",
        Wanted::Own { .. } => "customer:{key}",
    };
    Script::new("/socket.io/?EIO=4&transport=websocket", Talk::SocketIo { room })
}

pub(super) fn command(server: Server, ground: &Ground, address: SocketAddr) -> Fallible<Command> {
    if server == Server::SocketioNotify {
        ground.database.sql()?.run(TRIGGER)?;
    }
    let mut command = guarded("node");
    command.arg(installed(ground)?.join(server.name()).with_extension("js"));
    at_port(&mut command, address);
    ground.database.introduce(&mut command);
    Ok(command)
}

/// Copies the peers below `target` and has npm install what they need, unless it is there already.
pub(super) fn installed(ground: &Ground) -> Fallible<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers");
    let folder = ground.folder.join("peers");
    fs::create_dir_all(&folder)?;
    let wanted = fs::read(source.join("package.json"))?;
    let stamp = folder.join("installed.json");
    for entry in fs::read_dir(&source)? {
        let entry = entry?;
        fs::copy(entry.path(), folder.join(entry.file_name()))?;
    }
    if fs::read(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(folder);
    }
    eprintln!("installing the Node peers' packages in {}", folder.display());
    let arguments = ["install", "--no-audit", "--no-fund", "--loglevel=error"];
    let done = Command::new("npm").args(arguments).current_dir(&folder).status();
    if !done.map_err(|error| format!("npm: {error}"))?.success() {
        return Err("npm could not install the peers' packages".into());
    }
    fs::write(&stamp, wanted)?;
    Ok(folder)
}
