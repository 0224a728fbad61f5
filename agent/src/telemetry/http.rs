//! Three pages over HTTP: strictly bounded, and answered by the loop, so that an answer proves that it turns.
//!
//! They are asked for at an address, where the configuration names one, and at a socket file in the runtime folder, where
//! the host's own tools ask. One request a connection; at most [`CONNECTIONS`] at once, others wait in the kernel's queue; a head of at most
//! [`MAX_HEAD`] bytes, no body; the whole within [`WITHIN`]. A port that cannot be had is tried again, and told of.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};

use super::metrics::CONTENT_TYPE;

/// How many are open at once. A connection that says nothing costs a few KiB for [`HEAD_WITHIN`]: any local user can
/// open some, and must not keep the others from an answer.
pub const CONNECTIONS: usize = 128;
/// The longest head of a request, in bytes.
pub const MAX_HEAD: usize = 4096;
/// From the connection to the end of the request's head.
pub const HEAD_WITHIN: Duration = Duration::from_secs(1);
/// From the connection to the end of the answer.
pub const WITHIN: Duration = Duration::from_secs(10);
/// The longest answer that [`ready`] reads, in bytes.
const MAX_ANSWER: u64 = 16 << 10;
/// The loop answers within this, or does not turn.
const TURNS_WITHIN: Duration = Duration::from_secs(5);
/// A port that cannot be had is tried again after this.
const PORT_RETRY_INTERVAL: Duration = Duration::from_secs(30);
/// After a connection that could not be taken, for want of descriptors or because it was gone.
const NEXT_AFTER: Duration = Duration::from_secs(1);

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// The measurements.
    Metrics,
    /// Whether the agent lives.
    Health,
    /// Whether it takes orders.
    Ready,
}

/// What is answered.
#[derive(Debug)]
pub struct Response {
    /// Whether it is as one would wish.
    pub good: bool,
    /// The text.
    pub text: String,
}

/// A page that somebody waits for.
#[derive(Debug)]
pub struct Query {
    /// Which.
    pub page: Page,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Response>,
}

/// Listens until it is dropped; `trouble` says why nobody can ask at present.
pub async fn serve(
    listen: SocketAddr,
    questions: mpsc::Sender<Query>,
    trouble: watch::Sender<Option<String>>,
) {
    loop {
        match TcpListener::bind(listen).await {
            Ok(listener) => {
                trouble.send_if_modified(|known| known.take().is_some());
                tracing::info!("serving metrics at http://{listen}/metrics");
                return accept(&listener, &questions).await;
            }
            Err(error) => {
                let why = format!(
                    "metrics are unavailable: cannot listen on {listen}: {error}; set `telemetry.listen`, or null for none"
                );
                let news =
                    trouble.send_if_modified(|known| known.replace(why.clone()).as_ref() != Some(&why));
                if news {
                    tracing::warn!("{why}");
                }
            }
        }
        sleep(PORT_RETRY_INTERVAL).await;
    }
}

/// Where the agent with this runtime folder answers the host's own tools.
pub fn socket(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("agent.sock")
}

/// Answers at a socket file until it is dropped, for the agent's own user alone. A file that an earlier agent left there
/// is replaced: the lock on the state folder keeps a second agent from it.
pub async fn serve_locally(path: PathBuf, questions: mpsc::Sender<Query>) {
    let mut said = false;
    loop {
        match bind(&path) {
            Ok(listener) => return accept(&listener, &questions).await,
            Err(error) if !std::mem::replace(&mut said, true) => {
                tracing::info!("`hostler check --ready` will get no answer: {}: {error}", path.display());
            }
            Err(_) => {}
        }
        sleep(PORT_RETRY_INTERVAL).await;
    }
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt;
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Asks the agent behind a socket file whether it takes orders, and why not.
///
/// # Errors
/// Where there is no answer within [`WITHIN`], or none that an agent gives.
pub async fn ready(socket: &Path) -> io::Result<Response> {
    let asking = async {
        let mut stream = UnixStream::connect(socket).await?;
        stream.write_all(b"GET /ready HTTP/1.1\r\n\r\n").await?;
        let mut answer = Vec::new();
        stream.take(MAX_ANSWER).read_to_end(&mut answer).await?;
        Ok::<_, io::Error>(answer)
    };
    let late =
        |_| io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", WITHIN.as_secs()));
    let answer = timeout(WITHIN, asking).await.map_err(late)??;
    read_answer(&answer)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "this is no answer of an agent"))
}

/// The status 200 or 503, and the text.
fn read_answer(answer: &[u8]) -> Option<Response> {
    let answer = std::str::from_utf8(answer).ok()?;
    let (head, text) = answer.split_once("\r\n\r\n")?;
    let good = match head.strip_prefix("HTTP/1.1 ")?.get(..4)? {
        "200 " => true,
        "503 " => false,
        _ => return None,
    };
    Some(Response { good, text: text.trim_end().to_owned() })
}

/// Where connections come in.
trait Listener: Sync {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next one.
    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<TcpStream> {
        Ok(self.accept().await?.0)
    }
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    async fn next(&self) -> io::Result<UnixStream> {
        Ok(self.accept().await?.0)
    }
}

/// Takes connections in, for ever.
async fn accept(listener: &impl Listener, questions: &mpsc::Sender<Query>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // Never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.next().await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!("cannot accept a connection for metrics: {error}");
                sleep(NEXT_AFTER).await;
                continue;
            }
        };
        let questions = questions.clone();
        tokio::spawn(async move {
            // Whoever is too slow, or is gone, gets no answer.
            let _ = timeout(WITHIN, converse(stream, &questions)).await;
            drop(place);
        });
    }
}

async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    questions: &mpsc::Sender<Query>,
) -> io::Result<()> {
    let Ok(head) = timeout(HEAD_WITHIN, read_head(&mut stream)).await else { return Ok(()) };
    let Some(head) = head? else {
        return write(&mut stream, 431, "", true, "the request is too long\n").await;
    };
    let (page, with_body) = match wish(&head) {
        Ok(wish) => wish,
        Err((status, why)) => return write(&mut stream, status, "", true, why).await,
    };
    let (status, text) = match ask(page, questions).await {
        Some(Response { good: true, text }) => (200, text),
        Some(Response { good: false, text }) => (503, text),
        None => (503, format!("the agent's loop has not answered within {} s\n", TURNS_WITHIN.as_secs())),
    };
    let kind = if page == Page::Metrics { CONTENT_TYPE } else { "" };
    write(&mut stream, status, kind, with_body, &text).await
}

/// The head up to its empty line; `None`: there is none within the bound.
async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut head = Vec::with_capacity(512);
    while head.len() < MAX_HEAD {
        let room = u64::try_from(MAX_HEAD - head.len()).unwrap_or_default();
        if (&mut *stream).take(room).read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if head.windows(4).any(|end| end == b"\r\n\r\n") {
            return Ok(Some(head));
        }
    }
    Ok(None)
}

/// Which page a request wants, and whether with its text; or a status and a line on what is wrong with it.
pub fn wish(head: &[u8]) -> Result<(Page, bool), (u16, &'static str)> {
    let line = head.split(|byte| *byte == b'\r').next().and_then(|line| std::str::from_utf8(line).ok());
    let mut words = line.unwrap_or_default().split(' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    if !version.is_some_and(|version| version.starts_with("HTTP/1.")) || words.next().is_some() {
        return Err((400, "this is not HTTP/1\n"));
    }
    let with_body = match method {
        Some("GET") => true,
        Some("HEAD") => false,
        _ => return Err((405, "only GET and HEAD are answered\n")),
    };
    let path = target.and_then(|target| target.split('?').next());
    let page = match path {
        Some("/metrics") => Page::Metrics,
        Some("/health") => Page::Health,
        Some("/ready") => Page::Ready,
        _ => return Err((404, "there are /metrics, /health and /ready\n")),
    };
    Ok((page, with_body))
}

async fn ask(page: Page, questions: &mpsc::Sender<Query>) -> Option<Response> {
    let (answer, answered) = oneshot::channel();
    let asking = async {
        questions.send(Query { page, answer }).await.ok()?;
        answered.await.ok()
    };
    timeout(TURNS_WITHIN, asking).await.ok().flatten()
}

async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    status: u16,
    kind: &str,
    with_body: bool,
    text: &str,
) -> io::Result<()> {
    let reason = match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        431 => "Request Header Fields Too Large",
        _ => "Service Unavailable",
    };
    let kind = if kind.is_empty() { "text/plain; charset=utf-8" } else { kind };
    let allow = if status == 405 { "Allow: GET, HEAD\r\n" } else { "" };
    let mut answer = format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n{allow}\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n",
        text.len()
    );
    if with_body {
        answer.push_str(text);
    }
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers each question so.
    fn answering(mut asked: mpsc::Receiver<Query>, good: bool, text: &'static str) {
        tokio::spawn(async move {
            while let Some(question) = asked.recv().await {
                assert_eq!(question.page, Page::Ready);
                let _ = question.answer.send(Response { good, text: format!("{text}\n") });
            }
        });
    }

    #[tokio::test]
    async fn the_hosts_own_tools_ask_at_a_socket_file_that_is_the_agents_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = socket(dir.path());
        let error = ready(&path).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        // What an agent that was killed has left.
        drop(UnixListener::bind(&path).unwrap());
        assert_eq!(ready(&path).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        for (good, text) in [(true, "watching"), (false, "safe mode, nothing is started: x")] {
            let (questions, asked) = mpsc::channel(1);
            answering(asked, good, text);
            let serving = tokio::spawn(serve_locally(path.clone(), questions));
            let answer = async {
                loop {
                    match ready(&path).await {
                        Ok(answer) => return answer,
                        Err(_) => sleep(Duration::from_millis(5)).await,
                    }
                }
            };
            let answer = timeout(Duration::from_secs(20), answer).await.expect("an answer");
            assert_eq!((answer.good, answer.text.as_str()), (good, text));
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            serving.abort();
            let _ = serving.await;
        }
    }

    #[test]
    fn only_an_agents_answer_is_taken_for_one() {
        for other in [
            "",
            "ready",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 404 Not Found\r\n\r\nx",
            "HTTP/1.1 2000 \r\n\r\nready",
            "HTTP/1.1 301 Moved\r\n\r\n",
            "SSH-2.0-OpenSSH\r\n\r\n",
        ] {
            assert!(read_answer(other.as_bytes()).is_none(), "{other:?}");
        }
        assert!(read_answer(b"\xff\r\n\r\n").is_none());
        assert!(read_answer(b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nwatching\n").is_some_and(|answer| answer.good));
    }

    #[tokio::test]
    async fn silent_connections_keep_nobody_from_an_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (questions, asked) = mpsc::channel::<Query>(4);
        tokio::spawn(async move { accept(&listener, &questions).await });
        answering(asked, true, "ready");
        let mut silent = Vec::new();
        for n in 0..CONNECTIONS * 3 / 4 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            if n % 2 == 0 {
                stream.write_all(b"GET /rea").await.unwrap();
            }
            silent.push(stream);
        }
        let ask = async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET /ready HTTP/1.1\r\n\r\n").await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            text
        };
        let text = timeout(Duration::from_secs(5), ask).await.expect("an answer beside them");
        assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("ready\n"), "{text}");
        // And these are let go.
        for mut stream in silent {
            let mut rest = Vec::new();
            let _ = timeout(Duration::from_secs(10), stream.read_to_end(&mut rest)).await.expect("its end");
        }
    }

    #[test]
    fn only_three_pages_can_be_asked_for() {
        let rows = [
            ("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", Ok((Page::Metrics, true))),
            ("GET /metrics?a=b HTTP/1.0\r\n\r\n", Ok((Page::Metrics, true))),
            ("HEAD /health HTTP/1.1\r\n\r\n", Ok((Page::Health, false))),
            ("GET /ready HTTP/1.1\r\n\r\n", Ok((Page::Ready, true))),
            ("GET / HTTP/1.1\r\n\r\n", Err(404)),
            ("GET /metrics/ HTTP/1.1\r\n\r\n", Err(404)),
            ("POST /metrics HTTP/1.1\r\n\r\n", Err(405)),
            ("GET /metrics HTTP/2\r\n\r\n", Err(400)),
            ("GET /metrics\r\n\r\n", Err(400)),
            ("GET /metrics HTTP/1.1 more\r\n\r\n", Err(400)),
            ("\r\n\r\n", Err(400)),
        ];
        for (head, expected) in rows {
            assert_eq!(wish(head.as_bytes()).map_err(|(status, _)| status), expected, "{head:?}");
        }
        assert_eq!(wish(b"\xff\xfe / HTTP/1.1\r\n\r\n").map_err(|(status, _)| status), Err(400));
    }
}
