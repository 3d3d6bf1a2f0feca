//! Where the console is reached, and how many may be there at once.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use socket2::TcpKeepalive;
use tokio::net::TcpListener;
use tokio::net::UnixListener;
use tokio::net::UnixStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::console::Console;
use crate::console::connection;
use crate::console::settings::Settings;
use crate::inherit;
use crate::inherit::CONSOLE;

/// Those who find no place are told so, this many at a time; others are cut off. Cancel requests
/// need no place.
const STANDING: usize = 8;
/// How long to wait after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// After how long a quiet peer is asked by the system whether it is there.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// Whoever is in the socket's group may try a password.
const SOCKET_MODE: u32 = 0o660;

/// Listening sockets, nobody of whose queue was taken yet.
#[derive(Debug)]
pub struct Listeners {
    tcp: Vec<std::net::TcpListener>,
    unix: Vec<std::os::unix::net::UnixListener>,
    /// A socket that was made here, and is removed at the end.
    made: Option<PathBuf>,
}

impl Listeners {
    /// Binds what the settings say, or takes what systemd holds.
    ///
    /// # Errors
    ///
    /// Where an address or a path can't be bound.
    pub fn bind(settings: &Settings) -> io::Result<Listeners> {
        let mut listeners = Listeners { tcp: Vec::new(), unix: Vec::new(), made: None };
        for inherited in inherit::sockets(CONSOLE) {
            match inherited {
                inherit::Listener::Tcp(socket) => listeners.tcp.push(socket),
                inherit::Listener::Unix(socket) => listeners.unix.push(socket),
            }
        }
        if let Some(address) = settings.address.filter(|_| listeners.tcp.is_empty()) {
            let socket = std::net::TcpListener::bind(address)?;
            socket.set_nonblocking(true)?;
            listeners.tcp.push(socket);
        }
        if let Some(path) = settings.socket.as_deref().filter(|_| listeners.unix.is_empty()) {
            listeners.unix.push(bind_unix(path)?);
            listeners.made = Some(path.to_owned());
        }
        Ok(listeners)
    }

    /// Whether the console is reached by no way.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tcp.is_empty() && self.unix.is_empty()
    }

    /// The first address over TCP.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.tcp.first()?.local_addr().ok()
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        if let Some(path) = &self.made {
            let _gone = fs::remove_file(path);
        }
    }
}

/// Binds a path, on which the socket of a daemon that was killed may still lie.
fn bind_unix(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    use std::os::unix::net::UnixListener;
    use std::os::unix::net::UnixStream;
    let socket = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let refused = UnixStream::connect(path).err().map(|error| error.kind());
            if refused != Some(io::ErrorKind::ConnectionRefused) {
                return Err(error);
            }
            fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        bound => bound?,
    };
    fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Serves connections until it shall stop, and ends those that are there then.
///
/// # Errors
///
/// Where a socket can't be listened on in this runtime.
pub async fn run(
    console: Arc<Console>,
    mut listeners: Listeners,
    stop: CancellationToken,
) -> io::Result<()> {
    let mut accepting = JoinSet::new();
    for socket in listeners.tcp.drain(..) {
        let listener = TcpListener::from_std(socket)?;
        accepting.spawn(accept_tcp(Arc::clone(&console), listener, stop.clone()));
    }
    let owner = own_user()?;
    for socket in listeners.unix.drain(..) {
        let listener = UnixListener::from_std(socket)?;
        accepting.spawn(accept_unix(Arc::clone(&console), listener, owner, stop.clone()));
    }
    while accepting.join_next().await.is_some() {}
    Ok(())
}

async fn accept_tcp(console: Arc<Console>, listener: TcpListener, stop: CancellationToken) {
    let mut places = Places::new(console.settings.connections_max);
    while let Some(accepted) = places.accept(listener.accept(), &stop).await {
        let Ok((socket, _)) = accepted else { continue };
        let Some(place) = places.take() else { continue };
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE);
        let _without = SockRef::from(&socket).set_tcp_keepalive(&keepalive);
        let _without = socket.set_nodelay(true);
        let (console, stop) = (Arc::clone(&console), stop.clone());
        places.tasks.spawn(async move {
            connection::serve_tcp(console, socket, place.seated, stop).await;
            drop(place);
        });
    }
    while places.tasks.join_next().await.is_some() {}
}

async fn accept_unix(
    console: Arc<Console>,
    listener: UnixListener,
    own: u32,
    stop: CancellationToken,
) {
    let mut places = Places::new(console.settings.connections_max);
    while let Some(accepted) = places.accept(listener.accept(), &stop).await {
        let Ok((socket, _)) = accepted else { continue };
        let Some(place) = places.take() else { continue };
        // Root can do everything that the daemon's own user can.
        let owner = socket.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0);
        let (console, stop) = (Arc::clone(&console), stop.clone());
        places.tasks.spawn(async move {
            connection::serve_unix(console, socket, (owner, place.seated), stop).await;
            drop(place);
        });
    }
    while places.tasks.join_next().await.is_some() {}
}

/// As whom this process runs, by the system's own answer about a socket of it.
fn own_user() -> io::Result<u32> {
    let (one, _other) = UnixStream::pair()?;
    Ok(one.peer_cred()?.uid())
}

/// The places of one listener.
struct Places {
    seats: Arc<Semaphore>,
    standing: Arc<Semaphore>,
    tasks: JoinSet<()>,
}

/// A place, given back when it is dropped.
struct Place {
    seated: bool,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    fn new(seats: usize) -> Places {
        Places {
            seats: Arc::new(Semaphore::new(seats)),
            standing: Arc::new(Semaphore::new(STANDING)),
            tasks: JoinSet::new(),
        }
    }

    /// The next connection, or what went wrong; none when it shall stop.
    async fn accept<T>(
        &mut self,
        accepting: impl Future<Output = io::Result<T>>,
        stop: &CancellationToken,
    ) -> Option<io::Result<T>> {
        while self.tasks.try_join_next().is_some() {}
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            accepted = accepting => accepted,
        };
        if let Err(error) = &accepted {
            tracing::warn!(%error, "a connection to the console could not be accepted");
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
        Some(accepted)
    }

    fn take(&self) -> Option<Place> {
        let seat = Arc::clone(&self.seats).try_acquire_owned();
        if let Ok(permit) = seat {
            return Some(Place { seated: true, _permit: permit });
        }
        let permit = Arc::clone(&self.standing).try_acquire_owned().ok()?;
        Some(Place { seated: false, _permit: permit })
    }
}
