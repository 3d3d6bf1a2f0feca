//! `limit-relay` as a child: this same program in another mode.

use std::env;
use std::net::SocketAddr;
use std::process::Command;

use clap::ValueEnum;

use crate::Fallible;
use crate::process::guarded;
use crate::relay::Writes;
use crate::script::Script;
use crate::script::Talk;
use crate::tally::Wanted;

/// The path says which rows are wanted.
pub(super) fn script(wanted: Wanted) -> Script {
    let path = match wanted {
        Wanted::Everything => "/",
        Wanted::Own { .. } => "/key/{key}",
    };
    Script::new(path, Talk::Path)
}

pub(super) fn command(
    clients: SocketAddr,
    control: SocketAddr,
    writes: Writes,
) -> Fallible<Command> {
    let mut command = guarded(env::current_exe()?);
    let writes = writes.to_possible_value().expect("no variant is skipped");
    command.arg("relay").arg(clients.to_string()).arg(control.to_string());
    command.arg(writes.get_name());
    Ok(command)
}
