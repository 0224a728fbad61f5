//! The sink of the tests as a program, for streams by hand: prints its address, and what it has seen when its input
//! ends. `tasks/depot/bench/stream GIGABYTES` uses it.

#[path = "../tests/depot/support/sink.rs"]
mod sink;

use std::io::{Read, Write};
use std::sync::{Arc, Mutex};

fn main() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let seen = Arc::new(Mutex::new(sink::Seen::default()));
    let (listener, address) = runtime.block_on(sink::bind())?;
    runtime.spawn(sink::serve(listener, Arc::clone(&seen)));
    let mut out = std::io::stdout();
    writeln!(out, "{address}")?;
    out.flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    let seen = seen.lock().map_err(|_| std::io::Error::other("a connection has panicked"))?;
    let (parts, bytes) = (seen.parts.len(), seen.parts.values().sum::<u64>());
    let largest = seen.parts.values().max().copied().unwrap_or_default();
    writeln!(out, "{parts} parts, {bytes} bytes, the largest {largest}")
}
