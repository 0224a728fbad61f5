//! Measures Hostler beside `consul watch` and beside the raw limit, on one real Consul; prints, asserts no time.

#![expect(clippy::expect_used, reason = "a bench that cannot measure has to end at once")]
#![expect(clippy::panic, reason = "a bench that cannot measure has to end at once")]

mod fleet;
mod idle;
mod lag;
mod output;
mod raw;
mod syncs;

use std::time::{SystemTime, UNIX_EPOCH};

use hostler_testkit::Consul;

/// Nanoseconds since 1970, for two processes of one machine.
fn now() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_nanos()
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    // The command that every side starts: it writes when it began.
    if let [word, path] = args.as_slice()
        && word == "mark"
    {
        return std::fs::write(path, now().to_string()).expect("the mark");
    }
    if args == ["output"] {
        return output::measure();
    }
    if args == ["fleet"] {
        return fleet::measure();
    }
    if args.first().is_some_and(|word| word == "lag") {
        let rounds = args.get(1).map_or(60, |text| text.parse().expect("a number"));
        return lag::measure(&Consul::disk(), rounds);
    }
    let number =
        |at: usize, default| args.get(at).map_or(default, |text: &String| text.parse().expect("a number"));
    let (rounds, seconds) = (number(0, 100), number(1, 65));
    let size = std::fs::metadata(hostler_testkit::program()).expect("the program").len();
    println!("binary: {:.2} MiB", size as f64 / 1048576.0);
    fleet::measure();
    let consul = Consul::disk();
    lag::measure(&consul, rounds);
    idle::measure(&consul, seconds as u64);
    output::measure();
}
