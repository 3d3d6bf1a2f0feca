//! Where connections come in, or are turned away.
//!
//! Who is turned away is told why, as far as that costs little: a few at a time get an answer
//! without a look at what they want; when there are more, the rest are just closed.
//!
//! Where the process has no descriptors left nobody is accepted for a moment, again and again. Those
//! who are there are served, and those who come wait in the system's queue until somebody has gone.
//! The last descriptor is left to others: it may be one that was given up for an operator.

use std::fs::File;
use std::io;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::MissedTickBehavior;
use tokio::time::interval;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::gate::Entry;
use crate::gate::Refused;
use crate::metrics::health::BEAT_EVERY;
use crate::serve::Front;
use crate::serve::answer;
use crate::serve::http;
use crate::serve::listener::Listener;
use crate::serve::proxied;

/// How long to wait after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How many of a shard are told at a time why they are turned away.
const TOLD_MAX: usize = 64;
/// How long that may take.
const TELLING: Duration = Duration::from_secs(2);
/// What is read of those that are turned away: as much as an honest client sends at once.
const UNREAD_MAX: u64 = 64 << 10;

/// Accepts connections until it is told to stop.
pub(crate) async fn accept(front: &Rc<Front>, listener: &Listener, stop: &CancellationToken) {
    let beat = front.shard.borrow().stage("accept");
    let mut beats = interval(BEAT_EVERY);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = beats.tick() => {
                beat.tick();
                continue;
            }
            accepted = next(listener, failing) => accepted,
        };
        match accepted {
            Ok((socket, peer)) => {
                if failing {
                    failing = false;
                    tracing::info!("connections are accepted again");
                }
                enter(front, socket, peer);
            }
            // It was given up before its turn came.
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
            Err(error) => {
                front.settings().gate.count_failed_accept();
                // Once, however long it lasts.
                if !failing {
                    failing = true;
                    tracing::error!(%error, "connections can't be accepted; those that are there go on");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The next connection; where there was no descriptor for the one before, only if two are left.
async fn next(listener: &Listener, failing: bool) -> io::Result<(TcpStream, SocketAddr)> {
    if failing {
        let _both = (File::open("/dev/null")?, File::open("/dev/null")?);
    }
    listener.accept().await
}

/// Lets a connection in, or turns it away.
pub(crate) fn enter(front: &Rc<Front>, socket: TcpStream, peer: SocketAddr) {
    // Without it a small frame would wait for the acknowledgement of the one before.
    if socket.set_nodelay(true).is_err() {
        return;
    }
    if front.settings().gate.is_announced(peer) {
        front.tasks.spawn_local(announced(Rc::clone(front), socket, peer));
    } else {
        let entry = front.settings().gate.connect(peer);
        admit(front, socket, entry);
    }
}

/// Lets a connection in whose proxy says first for whom it is. One that says nothing is closed.
async fn announced(front: Rc<Front>, mut socket: TcpStream, peer: SocketAddr) {
    let settings = front.settings();
    let entry = match timeout(settings.handshake, proxied::read(&mut socket)).await {
        Ok(Ok(Some(client))) => settings.gate.connect_for(client),
        Ok(Ok(None)) => settings.gate.connect(peer),
        Ok(Err(error)) => {
            tracing::warn!(%peer, %error, "a trusted proxy does not speak the PROXY protocol");
            return;
        }
        Err(_) => return,
    };
    admit(&front, socket, entry);
}

fn admit(front: &Rc<Front>, socket: TcpStream, entry: Result<Entry, Refused>) {
    match entry {
        Ok(entry) => {
            front.tasks.spawn_local(http::connection(Rc::clone(front), socket, entry));
        }
        Err(refused) => turn_away(front, socket, refused),
    }
}

fn turn_away(front: &Rc<Front>, socket: TcpStream, refused: Refused) {
    if front.told.get() >= TOLD_MAX {
        return;
    }
    front.told.set(front.told.get() + 1);
    let told = Rc::clone(front);
    front.tasks.spawn_local(async move {
        let telling = async {
            match &told.settings().tls {
                None => tell(socket, refused).await,
                Some(config) => {
                    let handshake = TlsAcceptor::from(Arc::clone(config)).accept(socket);
                    tell(handshake.await?, refused).await
                }
            }
        };
        let _too_slow = timeout(TELLING, Box::pin(telling)).await.is_err();
        told.told.set(told.told.get().saturating_sub(1));
    });
}

/// Answers whatever is asked. Some clients take an answer for a mistake that comes before their
/// request, so its beginning is waited for; the rest is read, because closing a socket with unread
/// bytes would reset the connection and lose the answer.
async fn tell<S>(mut socket: S, refused: Refused) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut unread = [0; 512];
    if socket.read(&mut unread).await? == 0 {
        return Ok(());
    }
    socket.write_all(answer::unasked(refused).as_bytes()).await?;
    socket.shutdown().await?;
    let mut rest = socket.take(UNREAD_MAX);
    while rest.read(&mut unread).await? > 0 {}
    Ok(())
}
