//! One module for each of HANA's tools: its command lines, its exit codes, and what it prints.
//!
//! Parsers are pure. They take text and return a value, or say why they do not understand it. The transcripts in
//! their tests have the documented shapes; they were written for these tests.

pub mod backint;
pub mod catalog;
pub mod depot;
pub mod diagnosis;
pub mod hdblcm;
pub mod hdbsql;
pub mod host;
pub mod media;
pub mod nsutil;
pub mod recovery;
pub mod sapcar;
pub mod sapcontrol;
pub mod scripts;
pub mod userstore;

use crate::error::Reading;

/// How many readers [`every_reader`] has.
pub const READERS: usize = 31;

/// Gives a text to one of the readers, for tests with hostile texts. The number is taken modulo [`READERS`].
pub fn every_reader(choice: usize, text: &str) -> Reading<()> {
    let lines = |columns: &[&str]| hdbsql::table(text, columns);
    match choice % READERS {
        0 => sapcontrol::state(3.into(), text).map(drop),
        1 => sapcontrol::state(1.into(), text).map(drop),
        2 => nsutil::state(0, text).map(drop),
        3 => scripts::replication(15, text).map(drop),
        4 => scripts::hosts(4, text).map(drop),
        5 => hdblcm::listed(0.into(), text).map(drop),
        6 => hdblcm::unfinished(&"HDB".parse().or_else(crate::error::unclear)?, text.lines()).map(drop),
        7 => catalog::read_databases(&lines(&catalog::DATABASES)?).map(drop),
        8 => catalog::read_entries(&lines(&catalog::ENTRIES)?).map(drop),
        9 => catalog::read_parts(&lines(&catalog::PARTS)?).map(drop),
        10 => media::version(text).map(drop),
        11 => host::memory(text).map(drop),
        12 => host::huge_pages(text).map(drop),
        13 => host::listening(text).map(drop),
        14 => host::addresses(0.into(), text).map(drop),
        15 => host::instances(0, text).map(drop),
        16 => host::clock(0, text).map(drop),
        17 => catalog::read_pieces(&lines(&catalog::PIECES)?).map(drop),
        18 => catalog::read_identity(&lines(&catalog::IDENTITY)?).map(drop),
        19 => catalog::read_secondaries(&lines(&catalog::SECONDARIES)?).map(drop),
        20 => catalog::read_parameter(&lines(&catalog::PARAMETER)?).map(drop),
        21 => backint::missing(0, text, &[("e1".to_owned(), "/b/one".to_owned())]).map(drop),
        22 => userstore::entry(0, text, &"HOSTLER".parse().or_else(crate::error::unclear)?).map(drop),
        25 => depot::newest(0, text, "HDB", jiff::Timestamp::UNIX_EPOCH).map(drop),
        24 => depot::thawed(0, text).map(drop),
        26 => depot::verified(0, text, &["a".to_owned()]).map(drop),
        27 => diagnosis::read_left(&lines(&diagnosis::LEFT)?).map(drop),
        28 => crate::parts::gaps(text.lines()).map(drop),
        29 => hdbsql::one_value(text).map(drop),
        23 => sapcontrol::waited(1.into(), text).map(drop),
        _ => {
            let _ = (scripts::reached(text), scripts::recovery_failure(text));
            // These answer every text.
            let _ = (
                hdbsql::errors(text),
                hdblcm::causes(text),
                hdblcm::log_file(text),
                host::hdblcm(text.as_bytes()),
                host::recovery(text.as_bytes(), &"HDB".parse().or_else(crate::error::unclear)?),
            );
            let _ = media::is_hana(text);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Words that the readers look for, so that chance gets past their first lines.
    const WORDS: [&str; 36] = [
        "\n",
        "\n\n",
        ",",
        "\"",
        "\"\"",
        "=",
        ":",
        " ",
        "?",
        "*",
        "21.11.2026 04:05:06\n",
        "GetProcessList\n",
        "OK\n",
        "FAIL: x\n",
        "name, description, dispstatus, textstatus, starttime, elapsedtime, pid\n",
        "a, b, GREEN, c, d, e, 1\n",
        "GRAY",
        "SAPCONTROL-OK: <begin>\n",
        "SAPCONTROL-OK: <end>\n",
        "mode=primary\n",
        "online=true\n",
        "overall_replication_status=ACTIVE\n",
        "/hana/shared/HDB\n",
        "version: 2.00.077.00\n",
        "HDB.hdbinstall",
        "DATABASE_NAME,ACTIVE_STATUS\n",
        "\"SYSTEMDB\",\"YES\"\n",
        "fullversion: 2.00.077.00 Build 1-2\n",
        "MemTotal: 1 kB\n",
        "[never]",
        "0: 0100007F:C35D 00000000:0000 0A\n",
        "10.1.2.3 STREAM\n",
        "Inst Info : HDB - 00 - h - 753\n",
        "\u{fffd}",
        "ä",
        "\0",
    ];

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 400, ..ProptestConfig::default() })]

        #[test]
        fn no_text_breaks_a_reader(words in proptest::collection::vec(prop_oneof![
            3 => proptest::sample::select(WORDS.as_slice()).prop_map(str::to_owned),
            1 => any::<String>(),
        ], 0..12)) {
            let text = words.concat();
            for choice in 0..READERS {
                if let Err(unclear) = every_reader(choice, &text) {
                    let why = unclear.to_string();
                    prop_assert!(!why.is_empty() && !why.contains('\n') && why.len() < 1500, "{}: {:?}", choice, why);
                }
            }
        }
    }

    /// Texts that each reader does understand, and no prefix of which it takes for another value by accident.
    #[test]
    fn a_frame_that_is_cut_off_is_not_understood() {
        let replication = "SAPCONTROL-OK: <begin>\nservice/h/30001/REPLICATION_STATUS=ACTIVE\noverall_replication_status=ACTIVE\nSAPCONTROL-OK: <end>";
        assert!(every_reader(3, replication).is_ok());
        let state = "SAPCONTROL-OK: <begin>\nonline=true\nmode=sync\nSAPCONTROL-OK: <end>";
        assert!(every_reader(2, state).is_ok());
        for (choice, text) in [(3, replication), (2, state), (4, state)] {
            for (end, _) in text.char_indices() {
                assert!(every_reader(choice, &text[..end]).is_err(), "{:?}", &text[..end]);
            }
        }
    }
}
