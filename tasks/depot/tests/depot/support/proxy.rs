//! A proxy that breaks things: a rule looks at each request and says what becomes of it.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::{Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

use super::handle;

/// What a rule sees.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Counted from 1.
    pub(crate) number: usize,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: hyper::HeaderMap,
}

impl Seen {
    /// Bytes of a backup are on the way to the server.
    pub(crate) fn is_part(&self) -> bool {
        self.method == "PUT"
            && self.query.contains("partNumber=")
            && !self.headers.contains_key("x-amz-copy-source")
    }

    /// A manifest is on the way to the server.
    pub(crate) fn is_manifest(&self) -> bool {
        self.method == "PUT" && self.path.ends_with("/manifest.json")
    }

    /// Bytes of a backup are on the way to the server, in parts or whole.
    pub(crate) fn is_data(&self) -> bool {
        self.is_part() || self.method == "PUT" && self.is_of_data()
    }

    /// It is about the bytes of a backup, not about a note beside them.
    pub(crate) fn is_of_data(&self) -> bool {
        let last = self.path.rsplit('/').next().unwrap_or_default();
        last.starts_with("data.") && !last.starts_with("data.child-") && !last.starts_with("data.delete-")
    }

    /// Bytes of a backup are asked for.
    pub(crate) fn is_range(&self) -> bool {
        self.method == "GET" && self.headers.contains_key("range")
    }
}

/// A request that is under way for as long as the test wants.
#[derive(Debug, Default)]
pub(crate) struct Late {
    arrive: tokio::sync::Notify,
    arrived: std::sync::OnceLock<u16>,
}

impl Late {
    /// Lets it arrive; gives the status that the server answered.
    pub(crate) fn arrive(&self) -> u16 {
        self.arrive.notify_one();
        super::until("it arrives", || self.arrived.get().is_some());
        *self.arrived.get().unwrap()
    }
}

/// What becomes of a request.
#[derive(Clone, Debug)]
pub(crate) enum Fate {
    Pass,
    /// The connection breaks before the server sees it.
    Reset,
    /// The server does it, and its answer is lost.
    LoseAnswer,
    /// Nothing is answered.
    Stall,
    /// Nothing is answered, and the server gets it when everybody has forgotten it.
    Late(Arc<Late>),
    /// An answer of S3 with this status and code.
    Answer(u16, &'static str),
    /// The request was signed with another time than the server's, which is this.
    Skewed(jiff::Timestamp),
    /// Only half of the answer's body arrives.
    Truncate,
    /// One bit of the request's body is flipped.
    FlipSent,
    /// One bit of the answer's body is flipped.
    FlipAnswer,
    /// The answer has a date that is so many seconds later than now.
    Dated(i64),
    /// The request arrives without this header.
    Without(&'static str),
    /// The request arrives with this header too.
    Sent(&'static str, &'static str),
    /// The answer has this header too.
    With(&'static str, &'static str),
    /// The bucket is said to be in this region.
    Region(&'static str),
}

type Rule = Arc<dyn Fn(&Seen) -> Fate + Send + Sync>;
type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// The proxy.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    rule: Arc<Mutex<Rule>>,
    count: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

fn body(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

fn flip(bytes: &Bytes) -> Bytes {
    let mut bytes = bytes.to_vec();
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 4;
    }
    bytes.into()
}

type Upstream = Client<HttpConnector, Full<Bytes>>;

async fn serve(
    request: Request<Incoming>,
    rule: Rule,
    number: usize,
    to: SocketAddr,
    client: Upstream,
) -> Result<Response<Body>, std::io::Error> {
    let (head, sent) = request.into_parts();
    let sent = sent.collect().await.map_err(std::io::Error::other)?.to_bytes();
    // In a task of its own: a client that dies, perhaps of the rule itself, drops this future, and must not call off
    // what has begun.
    tokio::spawn(pass_on(Request::from_parts(head, sent), rule, number, to, client))
        .await
        .map_err(std::io::Error::other)?
}

async fn pass_on(
    request: Request<Bytes>,
    rule: Rule,
    number: usize,
    to: SocketAddr,
    client: Upstream,
) -> Result<Response<Body>, std::io::Error> {
    let (mut head, sent) = request.into_parts();
    let seen = Seen {
        number,
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: head.headers.clone(),
    };
    let fate = tokio::task::spawn_blocking(move || rule(&seen)).await.map_err(std::io::Error::other)?;
    let sent = match fate {
        Fate::Reset => return Err(std::io::Error::other("reset")),
        Fate::Stall => std::future::pending().await,
        Fate::Skewed(_) | Fate::Answer(..) => {
            let (status, code, time) = match fate {
                Fate::Answer(status, code) => (status, code, jiff::Timestamp::now()),
                Fate::Skewed(time) => (403, "RequestTimeTooSkewed", time),
                _ => unreachable!("matched above"),
            };
            let text = format!(
                "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>said the proxy</Message></Error>"
            );
            let answer = Response::builder().status(status).header("date", date(time)).body(body(text));
            return answer.map_err(std::io::Error::other);
        }
        Fate::Region(region) => {
            let answer = Response::builder().status(301).header("x-amz-bucket-region", region).body(body(""));
            return answer.map_err(std::io::Error::other);
        }
        Fate::Without(name) => {
            head.headers.remove(name);
            sent
        }
        Fate::Sent(name, value) => {
            head.headers.insert(name, value.parse().map_err(std::io::Error::other)?);
            sent
        }
        Fate::FlipSent => flip(&sent),
        _ => sent,
    };
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    head.uri = format!("http://{to}{path}").parse().map_err(std::io::Error::other)?;
    if let Fate::Late(late) = &fate {
        late.arrive.notified().await;
    }
    let request = Request::from_parts(head, Full::new(sent));
    let (mut head, answer) = client.request(request).await.map_err(std::io::Error::other)?.into_parts();
    let answer = answer.collect().await.map_err(std::io::Error::other)?.to_bytes();
    let answer = match fate {
        Fate::Late(late) => {
            let _ = late.arrived.set(head.status.as_u16());
            return std::future::pending().await;
        }
        Fate::LoseAnswer => return Err(std::io::Error::other("lost")),
        Fate::Truncate => {
            let half = answer.slice(..answer.len() / 2);
            let broken = Err(std::io::Error::other("truncated"));
            StreamBody::new(futures_util::stream::iter([Ok(Frame::data(half)), broken])).boxed_unsync()
        }
        Fate::FlipAnswer => body(flip(&answer)),
        Fate::Dated(seconds) => {
            let time = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds);
            head.headers.insert("date", date(time).parse().unwrap());
            body(answer)
        }
        Fate::With(name, value) => {
            head.headers.insert(name, value.parse().unwrap());
            body(answer)
        }
        _ => body(answer),
    };
    Ok(Response::from_parts(head, answer))
}

/// A time as HTTP writes it.
fn date(time: jiff::Timestamp) -> String {
    time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

impl Proxy {
    /// Begins before a server, passing all.
    pub(crate) fn start(to: SocketAddr) -> Self {
        let listener = handle().block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let rule: Arc<Mutex<Rule>> = Arc::new(Mutex::new(Arc::new(|_: &Seen| Fate::Pass)));
        let count = Arc::new(AtomicUsize::new(0));
        let client: Upstream = Client::builder(TokioExecutor::new()).build_http();
        let (rules, counter) = (Arc::clone(&rule), Arc::clone(&count));
        let task = handle().spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (rules, counter, client) = (Arc::clone(&rules), Arc::clone(&counter), client.clone());
                let service = hyper::service::service_fn(move |request| {
                    let number = counter.fetch_add(1, Ordering::SeqCst) + 1;
                    let rule = Arc::clone(&rules.lock().unwrap());
                    serve(request, rule, number, to, client.clone())
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(socket), service),
                );
            }
        });
        Self { address, rule, count, task }
    }

    /// Sets the rule and counts from 1 again.
    pub(crate) fn rule(&self, rule: impl Fn(&Seen) -> Fate + Send + Sync + 'static) {
        *self.rule.lock().unwrap() = Arc::new(rule);
        self.count.store(0, Ordering::SeqCst);
    }

    /// Requests since the rule was set.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One plain request.
pub(crate) fn ask(
    to: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    text: &str,
) -> (u16, String) {
    let mut request = Request::builder().method(method).uri(format!("http://{to}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::from(text.to_owned()))).unwrap();
    handle().block_on(async {
        let client: Upstream = Client::builder(TokioExecutor::new()).build_http();
        let answer = client.request(request).await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8_lossy(&text).into_owned())
    })
}
