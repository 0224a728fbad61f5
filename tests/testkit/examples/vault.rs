//! The double of Vault as a program, for hosts that really boot: `vault PORT KEY FIELD VALUE` serves one secret, the key
//! of the engine `secret/`, to the role that [`hostler_testkit::ROLE_ID`] names, for as long as it lives.

#![expect(clippy::expect_used, reason = "a program of tests that is called wrongly has to end at once")]

use hostler_testkit::Vault;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [port, key, field, value] = words.as_slice() else {
        eprintln!("usage: vault PORT KEY FIELD VALUE");
        std::process::exit(2);
    };
    let vault = Vault::start_at(port.parse().expect("a port"));
    vault.put(key, serde_json::json!({field.as_str(): value}));
    loop {
        std::thread::park();
    }
}
