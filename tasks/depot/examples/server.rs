//! `s3s-fs` over a folder as a program, for measurements by hand: prints its address, serves until its input ends, and
//! then prints for how many seconds a PUT request was under way.
//! The folder's name is followed by the key's id and the key, and by an address where it is to be at a fixed one.
//! `tasks/depot/bench/{compare,segment}` and `tests/lab` use it.

use std::io::{Error, Read, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hyper::Request;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;

fn main() -> std::io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, id, key, address @ ..] = arguments.as_slice() else {
        return Err(Error::other("say FOLDER KEY-ID KEY [ADDRESS]"));
    };
    let files = s3s_fs::FileSystem::new(folder).map_err(|error| Error::other(format!("{error:?}")))?;
    let mut service = S3ServiceBuilder::new(files);
    service.set_auth(SimpleAuth::from_single(id.as_str(), key.as_str()));
    let service = service.build();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind(address.first().map_or("127.0.0.1:0", String::as_str)))?;
    let mut out = std::io::stdout();
    writeln!(out, "{}", listener.local_addr()?)?;
    out.flush()?;
    let puts: Arc<Mutex<Vec<(Instant, Instant)>>> = Arc::default();
    let seen = Arc::clone(&puts);
    runtime.spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (service, seen) = (service.clone(), Arc::clone(&seen));
            let timed = service_fn(move |request: Request<Incoming>| {
                let (put, begun, seen) = (request.method() == "PUT", Instant::now(), Arc::clone(&seen));
                let answer = Service::call(&service, request);
                async move {
                    let answer = answer.await;
                    if let Some(mut seen) = seen.lock().ok().filter(|_| put) {
                        seen.push((begun, Instant::now()));
                    }
                    answer
                }
            });
            tokio::spawn(async move {
                let server = Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(socket), timed).await;
            });
        }
    });
    std::io::stdin().read_to_end(&mut Vec::new())?;
    let mut puts = puts.lock().map_err(|_| Error::other("a connection has panicked"))?;
    puts.sort();
    // Requests overlap: a moment counts once.
    let (mut busy, mut until) = (Duration::ZERO, None);
    for (begun, ended) in puts.iter() {
        let from = until.map_or(*begun, |until: Instant| until.max(*begun));
        busy += ended.saturating_duration_since(from);
        until = Some(until.map_or(*ended, |until| until.max(*ended)));
    }
    writeln!(out, "{}", busy.as_secs_f64())
}
