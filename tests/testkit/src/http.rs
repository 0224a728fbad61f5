//! Just enough of an HTTP client for a fixture to talk to its server: one request a connection, HTTP/1.0,
//! so that the end of the body is the end of the connection.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A server that takes longer than this is not working.
const TIMEOUT: Duration = Duration::from_secs(10);

/// An answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// The status line and the headers, as they came.
    pub head: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Response {
    /// The value of a header; names are compared without case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends one request to a port of the loopback address; `target` is encoded already.
pub fn request(
    port: u16,
    method: &str,
    target: &str,
    token: Option<&str>,
    body: &[u8],
) -> io::Result<Response> {
    let token = token.map(|token| format!("X-Consul-Token: {token}\r\n")).unwrap_or_default();
    send(port, method, target, &token, body)
}

/// The same with headers of one's own, each with the end of its line.
pub(crate) fn send(
    port: u16,
    method: &str,
    target: &str,
    headers: &str,
    body: &[u8],
) -> io::Result<Response> {
    let mut stream = TcpStream::connect_timeout(&([127, 0, 0, 1], port).into(), TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let head = format!(
        "{method} {target} HTTP/1.0\r\nHost: localhost\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    // A server may refuse a large body before it has read it; its answer is still worth reading.
    let sent = stream.write_all(body);
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer)
        && answer.is_empty()
    {
        return Err(sent.err().unwrap_or(error));
    }
    parse(&answer).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not an HTTP answer"))
}

fn parse(answer: &[u8]) -> Option<Response> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(answer.get(..end)?).into_owned();
    let status = head.split_whitespace().nth(1)?.parse().ok()?;
    Some(Response { status, head, body: answer.get(end + 4..)?.to_vec() })
}
