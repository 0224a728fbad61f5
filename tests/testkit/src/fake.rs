//! A server that answers what a test tells it to, however wrong.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// The longest that a connection of the fake stays without a word.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the fake does with one request.
#[derive(Debug, Clone)]
pub enum Reply {
    /// A whole answer: status, headers, body. The length of the body is added.
    Http(u16, Vec<(String, String)>, Vec<u8>),
    /// Bytes as they are, then the end of the connection.
    Raw(Vec<u8>),
    /// A good head, then a body without end.
    Endless(Vec<(String, String)>),
    /// A good head, then a body without end in chunks of one byte each.
    Pieces(Vec<(String, String)>),
    /// A good head, then this body, so many bytes at a time and a pause behind each.
    Paced(Vec<(String, String)>, Vec<u8>, usize, Duration),
    /// `100 Continue` without end.
    Continue,
    /// Reads the request and says nothing until the client goes.
    Silence,
    /// Ends the connection after the request.
    Close,
}

impl Reply {
    /// An answer of a healthy Consul to a read: known leader, this index, this JSON.
    pub fn consul(status: u16, index: u64, body: &str) -> Self {
        let headers = vec![
            ("X-Consul-Index".to_owned(), index.to_string()),
            ("X-Consul-KnownLeader".to_owned(), "true".to_owned()),
        ];
        Self::Http(status, headers, body.as_bytes().to_vec())
    }
}

/// A scripted server on a free port.
pub struct Fake {
    port: u16,
    requests: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    /// Answers the first request with the first reply, and so on; the last reply stays.
    pub fn start(replies: Vec<Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("a bound port").port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (seen, stopped) = (Arc::clone(&requests), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let (Ok(stream), seen, replies) = (stream, Arc::clone(&seen), replies.clone()) else {
                    continue;
                };
                std::thread::spawn(move || serve(stream, &seen, &replies));
            }
        });
        Self { port, requests, stop, thread: Some(thread) }
    }

    /// The port of the loopback address that it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The heads of all requests so far.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("the list of requests").clone()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // A connection wakes the thread that accepts them.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// One connection; what goes wrong on it is the client's doing and no matter.
fn serve(mut stream: TcpStream, requests: &Mutex<Vec<String>>, replies: &[Reply]) {
    drop(stream.set_read_timeout(Some(PATIENCE)));
    drop(stream.set_write_timeout(Some(PATIENCE)));
    let Some(head) = head(&mut stream) else { return };
    let at = {
        let mut requests = requests.lock().expect("the list of requests");
        requests.push(head);
        requests.len() - 1
    };
    let Some(reply) = replies.get(at).or(replies.last()) else { return };
    match reply {
        Reply::Http(status, headers, body) => {
            let head = answer_head(*status, headers, Some(body.len()));
            drop(stream.write_all(&[head.as_bytes(), body].concat()));
        }
        Reply::Raw(bytes) => drop(stream.write_all(bytes)),
        Reply::Endless(headers) => {
            drop(stream.write_all(answer_head(200, headers, None).as_bytes()));
            while stream.write_all(&[b' '; 65536]).is_ok() {}
        }
        Reply::Pieces(headers) => {
            let head =
                answer_head(200, headers, None).replace("\r\n\r\n", "\r\nTransfer-Encoding: chunked\r\n\r\n");
            drop(stream.write_all(head.as_bytes()));
            let many = b"1\r\n \r\n".repeat(1000);
            while stream.write_all(&many).is_ok() {}
        }
        Reply::Paced(headers, body, piece, pause) => {
            drop(stream.write_all(answer_head(200, headers, Some(body.len())).as_bytes()));
            for piece in body.chunks(*piece) {
                if stream.write_all(piece).is_err() {
                    break;
                }
                std::thread::sleep(*pause);
            }
        }
        Reply::Continue => {
            let many = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(1000);
            while stream.write_all(&many).is_ok() {}
        }
        Reply::Silence => {
            let mut rest = [0; 1024];
            while matches!(stream.read(&mut rest), Ok(1..)) {}
        }
        Reply::Close => {}
    }
    drop(stream.shutdown(Shutdown::Write));
}

fn answer_head(status: u16, headers: &[(String, String)], length: Option<usize>) -> String {
    let mut head = format!("HTTP/1.1 {status} Fake\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if let Some(length) = length {
        head.push_str(&format!("Content-Length: {length}\r\n"));
    }
    head + "\r\n"
}

fn head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && head.len() < 65536 {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            _ => return None,
        }
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}
