//! A TCP proxy that does to connections what networks do to them.
//!
//! ```text
//! clients ──▶ proxy ──▶ walcast ──▶ proxy ──▶ Postgres
//! ```
//!
//! Every connection has a [`Flow`] of its own, which can be changed while it lasts.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpSocket;
use tokio::net::TcpStream;
use tokio::net::tcp::ReadHalf;
use tokio::net::tcp::WriteHalf;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::dice::Dice;

/// What a connection carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// Everything, at once.
    Open,
    /// Nothing, in either direction; it stays open.
    Frozen,
    /// So many bytes in a second, in each direction.
    Slow(usize),
    /// The peer that connected is gone; the other one does not know.
    NearGone,
    /// The peer that was connected to is gone; the other one does not know.
    FarGone,
    /// Nothing more: both peers see it end.
    Cut,
}

/// One port that leads to another.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    links: Links,
    _tasks: JoinSet<()>,
}

type Links = Arc<Mutex<HashMap<u64, watch::Sender<Flow>>>>;

/// How much a socket of the proxy buffers: little, so that a peer that does not read is felt.
const BUFFER: u32 = 32 << 10;

impl Proxy {
    /// Begins to carry connections to a port of 127.0.0.1.
    pub(crate) async fn start(upstream: u16) -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let links = Links::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, upstream, Arc::clone(&links)));
        Proxy { port, links, _tasks: tasks }
    }

    /// Changes the flow of a part of the connections, in percent.
    pub(crate) fn set(&self, flow: Flow, percent: u64, dice: &mut Dice) -> Vec<u64> {
        let links = self.links.lock().unwrap();
        let mut ids: Vec<u64> = links.keys().copied().collect();
        ids.sort_unstable();
        ids.retain(|_| dice.chance(percent));
        for id in &ids {
            links[id].send_replace(flow);
        }
        ids
    }

    /// Changes the flow of some connections, as far as they still are there.
    pub(crate) fn set_these(&self, ids: &[u64], flow: Flow) {
        let links = self.links.lock().unwrap();
        for link in ids.iter().filter_map(|id| links.get(id)) {
            link.send_replace(flow);
        }
    }

    /// Lets everything flow again, and ends what is half gone.
    pub(crate) fn heal(&self) {
        for link in self.links.lock().unwrap().values() {
            link.send_modify(|flow| {
                *flow = match *flow {
                    Flow::NearGone | Flow::FarGone | Flow::Cut => Flow::Cut,
                    Flow::Open | Flow::Frozen | Flow::Slow(_) => Flow::Open,
                };
            });
        }
    }
}

async fn accept(listener: TcpListener, upstream: u16, links: Links) {
    let mut tasks = JoinSet::new();
    let mut next = 0;
    loop {
        while tasks.try_join_next().is_some() {}
        let Ok((near, _)) = listener.accept().await else { continue };
        next += 1;
        let (id, links) = (next, Arc::clone(&links));
        let (sender, flow) = watch::channel(Flow::Open);
        links.lock().unwrap().insert(id, sender);
        tasks.spawn(async move {
            if let Ok(far) = connect(upstream).await {
                carry(near, far, flow).await;
            }
            links.lock().unwrap().remove(&id);
        });
    }
}

async fn connect(port: u16) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(BUFFER)?;
    let stream = socket.connect((Ipv4Addr::LOCALHOST, port).into()).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Carries one connection until it ends or is ended.
async fn carry(mut near: TcpStream, mut far: TcpStream, mut flow: watch::Receiver<Flow>) {
    let _delayed = near.set_nodelay(true);
    {
        let (near_read, near_write) = near.split();
        let (far_read, far_write) = far.split();
        let mut ends = flow.clone();
        let ended =
            ends.wait_for(|flow| matches!(flow, Flow::NearGone | Flow::FarGone | Flow::Cut));
        tokio::select! {
            () = pump(near_read, far_write, flow.clone()) => {}
            () = pump(far_read, near_write, flow.clone()) => {}
            _ = ended => {}
        }
    }
    let kept = match *flow.borrow_and_update() {
        Flow::NearGone => far,
        Flow::FarGone => near,
        Flow::Open | Flow::Frozen | Flow::Slow(_) | Flow::Cut => return,
    };
    // Open, and silent.
    let _healed = flow.wait_for(|flow| *flow == Flow::Cut).await;
    drop(kept);
}

async fn pump(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, mut flow: watch::Receiver<Flow>) {
    const PACE: Duration = Duration::from_millis(20);
    let mut buffer = vec![0; 16 << 10];
    loop {
        let now = *flow.borrow_and_update();
        let limit = match now {
            Flow::Frozen => {
                if flow.changed().await.is_err() {
                    return;
                }
                continue;
            }
            Flow::Slow(bytes) => (bytes / 50).clamp(1, buffer.len()),
            _ => buffer.len(),
        };
        tokio::select! {
            changed = flow.changed() => if changed.is_err() { return },
            read = from.read(&mut buffer[..limit]) => {
                let Ok(count @ 1..) = read else { return };
                if to.write_all(&buffer[..count]).await.is_err() {
                    return;
                }
                if matches!(now, Flow::Slow(_)) {
                    sleep(PACE).await;
                }
            }
        }
    }
}
