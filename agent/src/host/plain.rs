//! Small files of plain text that people write: tokens, ids, certificates; however their editor saved them.
//!
//! A byte order mark would be sent as a part of a token, and hides the first line of a certificate. UTF-16 is named,
//! because what it does to a token or a certificate is understood by nobody.

use std::io;
use std::path::Path;

use zeroize::Zeroizing;

use super::disk;
use crate::domain::text::{is_utf16, without_mark};

/// The bytes of a file of at most `limit` bytes, without a byte order mark. They may be a secret.
///
/// # Errors
/// A file that is not there is one as well, of the kind [`io::ErrorKind::NotFound`]. None names the path.
pub fn read(path: &Path, limit: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    let bytes = disk::read(path, limit).map_err(|error| error.source)?;
    let mut bytes = Zeroizing::new(bytes.ok_or_else(not_there)?);
    if is_utf16(&bytes) {
        return Err(wrong("it is UTF-16: save it as UTF-8"));
    }
    let mark = bytes.len() - without_mark(&bytes).len();
    bytes.drain(..mark);
    Ok(bytes)
}

/// As [`read`], for a file that is text in UTF-8.
///
/// # Errors
/// As of [`read`], and for what is no text.
pub fn read_text(path: &Path, limit: u64) -> io::Result<Zeroizing<String>> {
    let bytes = read(path, limit)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| wrong("it is not UTF-8 text"))?;
    Ok(Zeroizing::new(text.to_owned()))
}

fn wrong(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// What the system says of a file that is not there.
fn not_there() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_the_same_however_it_was_saved() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let said = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            read_text(&path, 100).map(|text| text.to_string()).map_err(|error| error.to_string())
        };
        assert_eq!(said(b"a-token\n"), Ok("a-token\n".to_owned()));
        assert_eq!(said(b"\xef\xbb\xbfa-token\r\n"), Ok("a-token\r\n".to_owned()));
        assert_eq!(said(b"\xef\xbb\xbf"), Ok(String::new()));
        assert_eq!(said(b""), Ok(String::new()));
        for (mark, order) in [(&b"\xff\xfe"[..], 0), (b"\xfe\xff", 1), (b"", 0), (b"", 1)] {
            let wide = b"hvs.CAESIJ".iter().flat_map(|byte| if order == 0 { [*byte, 0] } else { [0, *byte] });
            let bytes: Vec<u8> = mark.iter().copied().chain(wide).collect();
            assert!(said(&bytes).unwrap_err().contains("UTF-16"), "{bytes:?}");
        }
        assert!(said(b"t\xe4st").unwrap_err().contains("not UTF-8"));
        assert!(said(&[b'x'; 101]).unwrap_err().contains("more than 100 bytes"));
        let missing = read(&dir.path().join("none"), 100).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        assert!(missing.to_string().starts_with("No such file"), "{missing}");
    }
}
