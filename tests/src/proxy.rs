//! A TCP proxy on loopback that can be slow, silent and cut.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

const CHUNK_BYTES: usize = 16 << 10;
/// What is under way in one direction; more waits at the sender.
const CHUNKS_AHEAD: usize = 256;

/// What the proxy does with bytes and connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Link {
    target: SocketAddr,
    /// How long each byte is under way.
    delay: Duration,
    /// Bytes wait, connections stay.
    silent: bool,
    /// Connections are closed, and new ones at once.
    cut: bool,
}

/// A proxy to a port of this machine. It runs on a thread of its own, so that servers that talk
/// through it do not depend on the test's runtime. Dropping it closes all connections.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    link: watch::Sender<Link>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// A proxy to `port`.
    ///
    /// # Panics
    /// When this machine has no port or thread to spare.
    pub fn to(port: u16) -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        listener.set_nonblocking(true).expect("a listener for tokio");
        let own = listener.local_addr().expect("the port is known").port();
        let link = Link { target: local(port), delay: Duration::ZERO, silent: false, cut: false };
        let (link, watched) = watch::channel(link);
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime is made");
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).expect("a listener");
                tokio::select! {
                    () = serve(listener, watched) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { port: own, link, stop: Some(stop), thread: Some(thread) }
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Lets each byte be under way for so long, in both directions.
    pub fn delay(&self, delay: Duration) {
        self.link.send_modify(|link| link.delay = delay);
    }

    /// Lets no byte through, as a network that loses everything; connections stay.
    pub fn silence(&self) {
        self.link.send_modify(|link| link.silent = true);
    }

    /// Closes every connection, and new ones at once.
    pub fn cut(&self) {
        self.link.send_modify(|link| link.cut = true);
    }

    /// Lets everything through again, at once.
    pub fn resume(&self) {
        self.link.send_modify(|link| {
            *link = Link { target: link.target, delay: Duration::ZERO, silent: false, cut: false };
        });
    }

    /// Leads new connections to another port, as an address that moves to another node.
    pub fn lead_to(&self, port: u16) {
        self.link.send_modify(|link| link.target = local(port));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

async fn serve(listener: TcpListener, link: watch::Receiver<Link>) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        let link = link.clone();
        // Ends when the link is cut, an end closes, or the runtime goes with the proxy.
        tokio::spawn(async move {
            let _ = connection(client, link).await;
        });
    }
}

async fn connection(client: TcpStream, mut link: watch::Receiver<Link>) -> io::Result<()> {
    let Link { target, cut, .. } = *link.borrow();
    if cut {
        return Ok(());
    }
    let server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let there = direction(from_client, to_server, link.clone());
    let back = direction(from_server, to_client, link.clone());
    tokio::select! {
        _ = async { tokio::join!(there, back) } => {}
        _ = link.wait_for(|link| link.cut) => {}
    }
    Ok(())
}

async fn direction(from: OwnedReadHalf, to: OwnedWriteHalf, link: watch::Receiver<Link>) {
    let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
    let (_, _) = tokio::join!(receive(from, sender), send(to, receiver, link));
}

async fn receive(
    mut from: OwnedReadHalf,
    sender: mpsc::Sender<(Instant, Vec<u8>)>,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let length = from.read(&mut buffer).await?;
        let chunk = (Instant::now(), buffer[..length].to_vec());
        if length == 0 || sender.send(chunk).await.is_err() {
            return Ok(());
        }
    }
}

async fn send(
    mut to: OwnedWriteHalf,
    mut chunks: mpsc::Receiver<(Instant, Vec<u8>)>,
    mut link: watch::Receiver<Link>,
) -> io::Result<()> {
    while let Some((arrived, chunk)) = chunks.recv().await {
        loop {
            let Link { delay, silent, .. } = *link.borrow_and_update();
            if !silent && arrived + delay <= Instant::now() {
                break;
            }
            tokio::select! {
                () = sleep_until(arrived + delay), if !silent => {}
                changed = link.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                }
            }
        }
        to.write_all(&chunk).await?;
    }
    to.shutdown().await
}
