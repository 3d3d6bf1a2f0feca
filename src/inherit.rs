//! Sockets that systemd opened and holds, by their names.
//!
//! ```text
//! walcast.socket          FileDescriptorName=public  ─▶ serve
//! walcast-admin.socket    FileDescriptorName=admin   ─▶ /metrics, /healthz, /readyz
//! walcast-console.socket  FileDescriptorName=console ─▶ psql
//! ```
//!
//! A socket given here takes the place of the address in the configuration. systemd keeps it open
//! when walcast ends, so that clients that connect during a restart wait in its queue for the next
//! process and none is refused: whoever takes one closes its own descriptor and no more (no
//! `shutdown`, and nobody is taken from the queue at the end).
//!
//! Protocol: `sd_listen_fds(3)`; `LISTEN_PID`, `LISTEN_FDS`, `LISTEN_FDNAMES`, descriptors from 3 on.
//! Where no names are given, as by `systemfd`, every socket is `public`.
//!
//! # Invariants
//!
//! - A socket is given away once. The environment is read at the first call, which `cli::serve`
//!   makes before there are threads, and is then without the variables: a child takes no socket.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::PoisonError;

use listenfd::ListenFd;

/// The name of the sockets that clients connect to.
pub const PUBLIC: &str = "public";
/// The name of the sockets for metrics and health.
pub const ADMIN: &str = "admin";
/// The name of the sockets for the console.
pub const CONSOLE: &str = "console";

/// A listening socket that systemd opened; not blocking.
#[derive(Debug)]
pub enum Listener {
    /// `ListenStream=` with a port.
    Tcp(TcpListener),
    /// `ListenStream=` with a path.
    Unix(UnixListener),
}

/// What was inherited and not yet taken, with its name.
static INHERITED: OnceLock<Mutex<Vec<(String, Listener)>>> = OnceLock::new();

/// Takes every socket of this name; empty where systemd gave none.
#[must_use]
pub fn sockets(name: &str) -> Vec<Listener> {
    let all = INHERITED.get_or_init(|| Mutex::new(read()));
    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
    all.extract_if(.., |(of, _)| of == name).map(|(_, listener)| listener).collect()
}

/// Reads the environment, so that no later call does. Says which sockets nobody will take.
pub fn prepare() {
    let all = INHERITED.get_or_init(|| Mutex::new(read()));
    let all = all.lock().unwrap_or_else(PoisonError::into_inner);
    for (name, _) in all.iter().filter(|(name, _)| ![PUBLIC, ADMIN, CONSOLE].contains(&&**name)) {
        tracing::warn!(
            socket = name,
            "a socket from systemd has a name that means nothing here; \
             FileDescriptorName= is public, admin or console"
        );
    }
}

fn read() -> Vec<(String, Listener)> {
    let names = std::env::var_os("LISTEN_FDNAMES");
    let names = names.as_deref().and_then(|names| names.to_str()).map(names_of);
    let mut given = ListenFd::from_env();
    let mut all = Vec::new();
    for index in 0..given.len() {
        let name = match &names {
            Some(names) => names.get(index).cloned().unwrap_or_default(),
            None => PUBLIC.to_owned(),
        };
        match take(&mut given, index) {
            Ok(listener) => all.push((name, listener)),
            Err(error) => {
                tracing::warn!(socket = name, %error, "a descriptor from systemd is of no use");
            }
        }
    }
    all
}

/// The names in `LISTEN_FDNAMES`, in the descriptors' order.
fn names_of(names: &str) -> Vec<String> {
    names.split(':').map(str::to_owned).collect()
}

fn take(given: &mut ListenFd, index: usize) -> std::io::Result<Listener> {
    let gone = || std::io::Error::from(std::io::ErrorKind::NotFound);
    if let Ok(socket) = given.take_tcp_listener(index) {
        let socket = socket.ok_or_else(gone)?;
        socket.set_nonblocking(true)?;
        return Ok(Listener::Tcp(socket));
    }
    let socket = given.take_unix_listener(index)?.ok_or_else(gone)?;
    socket.set_nonblocking(true)?;
    Ok(Listener::Unix(socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_in_the_descriptors_order() {
        assert_eq!(names_of("public:admin:public"), ["public", "admin", "public"]);
        assert_eq!(names_of("a::b"), ["a", "", "b"]);
    }

    #[test]
    fn without_systemd_there_is_no_socket() {
        assert!(sockets(PUBLIC).is_empty());
        assert!(sockets(PUBLIC).is_empty());
    }
}
