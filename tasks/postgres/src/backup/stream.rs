//! The stream of a base backup on its way to the depot: a tar whose first member is the label and whose last is the
//! manifest. Both are kept apart, and a stream that does not have them fails, so that nothing is stored of it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

const BLOCK: usize = 512;
/// The members that are kept.
pub const LABEL: &str = "backup_label";
/// The last member.
pub const MANIFEST: &str = "backup_manifest";

fn wrong(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

/// Copies a tar from `from` to `to`, and the two members into files of their names in `folder`.
///
/// # Errors
/// If it is no whole tar of a base backup, or cannot be copied.
pub fn copy(from: &mut impl Read, to: &mut impl Write, folder: &Path) -> io::Result<()> {
    let mut block = [0; BLOCK];
    let mut names = (None, None);
    loop {
        from.read_exact(&mut block).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => wrong("the stream ends before the end of the tar"),
            _ => error,
        })?;
        to.write_all(&block)?;
        if block.iter().all(|byte| *byte == 0) {
            break;
        }
        let (name, size) = header(&block).ok_or_else(|| wrong("this is no tar"))?;
        let keep = name == LABEL || name == MANIFEST;
        let mut kept = keep.then(|| File::create(folder.join(&name))).transpose()?;
        let mut left = size;
        while left > 0 {
            let part = usize::try_from(left).unwrap_or(usize::MAX).min(PART);
            let mut bytes = vec![0; part.next_multiple_of(BLOCK)];
            from.read_exact(&mut bytes)?;
            to.write_all(&bytes)?;
            if let Some(file) = &mut kept {
                file.write_all(bytes.get(..part).unwrap_or_default())?;
            }
            left -= part as u64;
        }
        names.0.get_or_insert_with(|| name.clone());
        names.1 = Some(name);
    }
    io::copy(from, to)?;
    to.flush()?;
    match (names.0.as_deref(), names.1.as_deref()) {
        (Some(LABEL), Some(MANIFEST)) => Ok(()),
        other => Err(wrong(format!("this is no base backup with its manifest: it has {other:?}"))),
    }
}

/// Bytes that are copied at once.
const PART: usize = 256 << 10;

/// The name and size of a member; `None` if this is no header.
fn header(block: &[u8; BLOCK]) -> Option<(String, u64)> {
    let sum: u32 = block
        .iter()
        .enumerate()
        .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
        .sum();
    let number = |from: usize, to: usize| {
        let bytes = block.get(from..to)?;
        if bytes.first()? & 0x80 != 0 {
            // Large numbers stand there in binary.
            let tail = bytes.get(bytes.len() - 8..)?;
            return Some(u64::from_be_bytes(tail.try_into().ok()?));
        }
        let text = std::str::from_utf8(bytes).ok()?.trim_matches(|c| c == ' ' || c == '\0');
        u64::from_str_radix(text, 8).ok()
    };
    if number(148, 156)? != u64::from(sum) {
        return None;
    }
    let name = block.get(..100)?.split(|byte| *byte == 0).next()?;
    let name = String::from_utf8_lossy(name).into_owned();
    // What is no file has no bytes, whatever its header says.
    let file = matches!(block.get(156), Some(b'0' | 0));
    Some((name, if file { number(124, 136)? } else { 0 }))
}

#[cfg(test)]
mod tests {
    use super::{BLOCK, copy};

    fn member(name: &str, bytes: &[u8]) -> Vec<u8> {
        let mut head = vec![0; BLOCK];
        head[..name.len()].copy_from_slice(name.as_bytes());
        head[124..135].copy_from_slice(format!("{:011o}", bytes.len()).as_bytes());
        head[148..156].copy_from_slice(b"        ");
        head[156] = b'0';
        let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
        head[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        head.extend(bytes);
        head.resize(head.len().next_multiple_of(BLOCK), 0);
        head
    }

    #[test]
    fn a_stream_is_copied_whole_or_fails() {
        let folder = tempfile::tempdir().unwrap();
        let parts = [
            member("backup_label", b"label"),
            member("base/1", &[7; 1500]),
            member("backup_manifest", b"{}"),
        ];
        let end = vec![0; 2 * BLOCK];
        let tar: Vec<u8> = parts.iter().flatten().chain(&end).copied().collect();
        let mut out = Vec::new();
        copy(&mut tar.as_slice(), &mut out, folder.path()).unwrap();
        assert!(out == tar);
        for (name, text) in [("backup_label", "label"), ("backup_manifest", "{}")] {
            assert_eq!(std::fs::read_to_string(folder.path().join(name)).unwrap(), text);
        }
        for cut in [0, 100, BLOCK, 3 * BLOCK, tar.len() - 2 * BLOCK] {
            let cut = &tar[..cut];
            assert!(copy(&mut &cut[..], &mut Vec::new(), folder.path()).is_err());
        }
        for less in [&parts[1..], &parts[..2]] {
            let tar: Vec<u8> = less.iter().flatten().chain(&end).copied().collect();
            assert!(copy(&mut tar.as_slice(), &mut Vec::new(), folder.path()).is_err());
        }
        assert!(copy(&mut vec![1_u8; 4096].as_slice(), &mut Vec::new(), folder.path()).is_err());
    }
}
