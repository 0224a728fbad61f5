//! What the agent tells whoever started it (`sd_notify(3)`), heard at a socket as systemd opens one.

#![expect(clippy::expect_used, reason = "a helper of tests that fails must fail its test at once")]

use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex};

use hostler_testkit::{DEFAULT_TIMEOUT, Host, eventually};

/// What was said so far. It is heard at once: an agent waits for room in the queue.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<String>>>);

impl Said {
    fn all(&self) -> Vec<String> {
        self.0.lock().expect("what was said").clone()
    }

    fn count(&self, word: &str) -> usize {
        self.all().iter().filter(|said| *said == word).count()
    }

    /// Waits until this was said so often.
    fn until(&self, word: &str, times: usize) {
        eventually(DEFAULT_TIMEOUT, || {
            if self.count(word) >= times { Ok(()) } else { Err(format!("no {word} in {:?}", self.all())) }
        });
    }
}

/// A host whose agent has somebody to tell.
fn host(name: &str) -> (Host, Said) {
    let mut host = Host::on_dir(name);
    host.task("nothing", "name: nothing\nversion: 1\nsteps: [{name: a, run: [/bin/true]}]\n", &[]);
    let path = host.path("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    host.set_env("NOTIFY_SOCKET", &path.to_string_lossy());
    let said = Said::default();
    let hears = said.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length) = socket.recv(&mut buffer) {
            let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
            hears.0.lock().expect("what was said").push(text.trim_end().to_owned());
        }
    });
    (host, said)
}

#[test]
fn ready_and_each_status_are_said_once_and_the_watchdog_is_fed() {
    let (mut host, said) = host("told");
    host.set_env("WATCHDOG_USEC", "30000");
    host.start();
    said.until("READY=1", 1);
    said.until("WATCHDOG=1", 3);
    host.order("o", "task: nothing");
    host.wait_for("o", &["succeeded"]);
    host.stop();
    said.until("STATUS=stopping; runs go on", 1);
    let mut words = said.all();
    words.retain(|word| word != "WATCHDOG=1");
    assert_eq!(words.iter().rev().nth(1).map(String::as_str), Some("STOPPING=1"), "{words:?}");
    assert_eq!(said.count("READY=1"), 1, "{words:?}");
    words.retain(|word| word.starts_with("STATUS="));
    assert!(words.iter().any(|word| word.starts_with("STATUS=watching")), "{words:?}");
    assert!(words.windows(2).all(|pair| pair.first() != pair.last()), "said again: {words:?}");
}

#[test]
fn a_watchdog_that_is_meant_for_another_process_is_not_fed() {
    let (mut host, said) = host("spared");
    host.set_env("WATCHDOG_USEC", "30000");
    host.set_env("WATCHDOG_PID", "1");
    host.start();
    host.order("o", "task: nothing");
    host.wait_for("o", &["succeeded"]);
    host.stop();
    said.until("STOPPING=1", 1);
    assert_eq!(said.count("WATCHDOG=1"), 0, "{:?}", said.all());
}
