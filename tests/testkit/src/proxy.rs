//! A TCP proxy that counts the requests which go through it, on however many connections.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// What stands in each request line and in nothing else that the client sends.
const MARK: &[u8] = b" HTTP/1.1\r\n";

/// A proxy on a free port.
pub struct Proxy {
    port: u16,
    requests: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Proxy {
    /// Passes everything on to `target`, a port of the loopback address.
    pub fn start(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("a bound port").port();
        let proxy = Self {
            port,
            requests: Arc::new(AtomicUsize::new(0)),
            connections: Arc::new(AtomicUsize::new(0)),
            stop: Arc::new(AtomicBool::new(false)),
        };
        let (requests, connections) = (Arc::clone(&proxy.requests), Arc::clone(&proxy.connections));
        let stop = Arc::clone(&proxy.stop);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                connections.fetch_add(1, Ordering::Relaxed);
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(("127.0.0.1", target))) else {
                    continue;
                };
                let (Ok(from), Ok(to)) = (server.try_clone(), client.try_clone()) else { continue };
                let requests = Arc::clone(&requests);
                std::thread::spawn(move || pump(client, server, Some(&requests)));
                std::thread::spawn(move || pump(from, to, None));
            }
        });
        proxy
    }

    /// The port of the loopback address that it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Requests so far.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// Connections so far, also those that ended at once because nobody listens at the target.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

/// Copies one direction to its end; counts the request lines in it.
fn pump(mut from: TcpStream, mut to: TcpStream, count: Option<&AtomicUsize>) {
    let mut buffer = [0; 16384];
    let mut matched = 0;
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        for byte in &buffer[..length] {
            matched = if *byte == MARK[matched] { matched + 1 } else { usize::from(*byte == MARK[0]) };
            if matched == MARK.len() {
                matched = 0;
                if let Some(count) = count {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    drop(from.shutdown(Shutdown::Both));
    drop(to.shutdown(Shutdown::Both));
}
