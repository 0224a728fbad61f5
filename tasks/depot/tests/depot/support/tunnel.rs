//! A proxy that knows CONNECT alone, as one before servers with TLS does. Every tunnel leads to one server, whatever
//! host is asked for.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::handle;

/// The proxy.
pub(crate) struct Tunnel {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

async fn one(mut socket: TcpStream, to: SocketAddr, seen: Arc<Mutex<Vec<String>>>, password: Option<String>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match socket.read_u8().await {
            Ok(byte) if head.len() < 8192 => head.push(byte),
            _ => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let host = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next());
    let Some(host) = host else {
        let _ = socket.write_all(b"HTTP/1.1 405 Method Not Allowed\r\n\r\n").await;
        return;
    };
    seen.lock().unwrap().push(host.to_owned());
    if password.is_some_and(|password| !head.contains(&password)) {
        let _ = socket.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await;
        return;
    }
    let Ok(mut server) = TcpStream::connect(to).await else { return };
    let _ = socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
    let _ = tokio::io::copy_bidirectional(&mut socket, &mut server).await;
}

impl Tunnel {
    /// Begins before a server. With `password`, only for who says this in `Proxy-Authorization`.
    pub(crate) fn start(to: SocketAddr, password: Option<&str>) -> Self {
        let listener = handle().block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Vec<String>>>::default();
        let (hosts, password) = (Arc::clone(&seen), password.map(str::to_owned));
        let task = handle().spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(one(socket, to, Arc::clone(&hosts), password.clone()));
            }
        });
        Self { address, seen, task }
    }

    /// The hosts that were asked for since the last question.
    pub(crate) fn seen(&self) -> Vec<String> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.task.abort();
    }
}
