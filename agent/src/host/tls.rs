//! What is common to both clients with TLS: certificates from files, and what trouble with TLS means.

use std::io;
use std::path::Path;

use zeroize::Zeroizing;

use super::plain;

/// The largest certificate, key or bundle of authorities, in bytes.
const MAX_PEM: u64 = 4 << 20;

/// A file in PEM form, as it was saved; it may hold a key.
///
/// # Errors
/// Where it cannot be read; the path is not named.
pub fn pem(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = plain::read(path, MAX_PEM)?;
    // A bundle is often joined from files of which each had a mark; PEM itself has none of these bytes.
    while let Some(at) = bytes.windows(MARK.len()).position(|part| part == MARK) {
        bytes.drain(at..at + MARK.len());
    }
    Ok(bytes)
}

/// The byte order mark of UTF-8.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// What trouble with TLS means, before the words of the library; other text as it is. `section`: of the configuration,
/// where the server is named.
pub fn explained(text: &str, section: &str) -> String {
    let table = [
        (
            "UnknownIssuer",
            "its certificate is signed by an authority that this host does not know: see `SECTION.ca_file`",
        ),
        // An authority that was made anew under its old name.
        (
            "BadSignature",
            "its certificate is not signed by the authority of that name which this host knows: see `SECTION.ca_file`",
        ),
        ("NotValidForName", OTHER_NAME),
        ("certificate not valid for name", OTHER_NAME),
        ("Expired", "its certificate has expired, or the host's clock is wrong"),
        ("NotValidYet", "its certificate is not valid yet, or the host's clock is wrong"),
        (
            "InvalidContentType",
            "it speaks plain HTTP there: is http:// meant in `SECTION.address`, or another port?",
        ),
        // A server that wants TLS may answer plain HTTP with an alert of TLS.
        (
            "invalid HTTP version parsed",
            "it speaks no plain HTTP there: is https:// meant in `SECTION.address`, or another port?",
        ),
    ];
    match table.iter().find(|(word, _)| text.contains(word)) {
        Some((_, means)) => format!("{} ({text})", means.replace("SECTION", section)),
        None => text.to_owned(),
    }
}

const OTHER_NAME: &str = "its certificate is made for another name than that in `SECTION.address`";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_read_without_the_marks_of_its_parts() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "\u{feff}-----BEGIN A-----\nx\n\u{feff}-----BEGIN B-----\ny\n").unwrap();
        assert_eq!(**pem(file.path()).unwrap(), *b"-----BEGIN A-----\nx\n-----BEGIN B-----\ny\n");
    }

    #[test]
    fn trouble_is_told_with_the_setting_that_it_comes_from() {
        let said = explained("received corrupt message of type InvalidContentType", "consul");
        assert!(
            said.starts_with("it speaks plain HTTP there: is http:// meant in `consul.address`"),
            "{said}"
        );
        let said = explained("invalid HTTP version parsed", "vault");
        assert!(said.contains("is https:// meant in `vault.address`"), "{said}");
        assert!(explained("invalid peer certificate: UnknownIssuer", "vault").contains("`vault.ca_file`"));
        assert_eq!(explained("connection refused", "vault"), "connection refused");
    }
}
