//! How the agent gives an executor what nobody else may see: by a sealed memory file that the executor inherits.
//!
//! systemd starts its units with none of the agent's descriptors, and whatever stands in a unit's properties can be
//! read by every user over D-Bus. There the executor asks for the bytes at a socket of root alone in the runtime folder,
//! so that they are never in a file, which ordinary memory could swap out. Each socket answers once.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::host::disk;

/// The most that is handed over, in bytes.
const MAX_FILE: u64 = 64 << 10;
/// An executor that has not come for it after this will not come; the agent takes it for lost then.
const OFFERED_FOR: Duration = Duration::from_secs(60);

/// The word of the executor's arguments that says where it is.
#[derive(Debug)]
pub struct HandoffArg(pub String);

/// A memory file with these bytes that nobody can change any more; the child of `command` inherits it.
#[expect(unsafe_code, reason = "the standard library has no other way to let one child inherit a descriptor")]
pub fn inherit(command: &mut std::process::Command, bytes: &[u8]) -> io::Result<HandoffArg> {
    let fd = memfd_create(c"hostler", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    let mut file = File::from(fd);
    file.write_all(bytes)?;
    let seals =
        SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    let fd = OwnedFd::from(file);
    let word = HandoffArg(format!("fd:{}", fd.as_raw_fd()));
    let prepare = move || {
        fcntl(&fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
        Ok(())
    };
    // SAFETY: the closure makes one system call, on a descriptor that it owns.
    unsafe {
        command.pre_exec(prepare);
    }
    Ok(word)
}

/// What is offered to one executor; it is taken back when this goes, and after [`OFFERED_FOR`].
#[derive(Debug)]
pub struct Offer {
    path: PathBuf,
    serving: JoinHandle<()>,
}

impl Offer {
    /// Nobody comes for it.
    pub fn take_back(&self) {
        self.serving.abort();
        // Taken already is as good.
        let _ = fs::remove_file(&self.path);
    }
}

/// Offers the bytes to whoever connects first to a socket of root alone; they never become a file.
pub fn offer(runtime: &Path, name: &str, bytes: &[u8]) -> io::Result<(HandoffArg, Offer)> {
    offer_for(OFFERED_FOR, runtime, name, bytes)
}

fn offer_for(span: Duration, runtime: &Path, name: &str, bytes: &[u8]) -> io::Result<(HandoffArg, Offer)> {
    let dir = folder(runtime);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
    disk::set_mode(&dir, 0o700).map_err(|error| error.source)?;
    let path = dir.join(name);
    let _ = fs::remove_file(&path);
    let listener = UnixListener::bind(&path)?;
    let (bytes, socket) = (Zeroizing::new(bytes.to_vec()), path.clone());
    let serving = tokio::spawn(async move {
        let served = timeout(span, async {
            let (mut stream, _) = listener.accept().await?;
            stream.write_all(&bytes).await?;
            stream.shutdown().await
        });
        match served.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!("cannot hand the Vault access of a run to its executor: {error}")
            }
            Err(_) => tracing::warn!("no executor fetched the Vault access of its run"),
        }
        let _ = fs::remove_file(&socket);
    });
    Ok((HandoffArg(path.to_string_lossy().into_owned()), Offer { path, serving }))
}

/// Reads what was handed over, and takes it away.
pub fn take(word: &str) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(4096));
    let Some(fd) = word.strip_prefix("fd:") else {
        let stream = UnixStream::connect(word)?;
        stream.set_read_timeout(Some(OFFERED_FOR))?;
        stream.take(MAX_FILE).read_to_end(&mut bytes)?;
        return Ok(bytes);
    };
    let fd = fd.parse::<i32>().map_err(io::Error::other)?;
    let read = File::open(format!("/proc/self/fd/{fd}"))
        .and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes));
    // No step may inherit it.
    nix::unistd::close(fd)?;
    read.map(|_| bytes)
}

/// Removes what no executor came for.
pub fn sweep(runtime: &Path) {
    // Nothing there is the rule.
    let _ = fs::remove_dir_all(folder(runtime));
}

fn folder(runtime: &Path) -> PathBuf {
    runtime.join("grants")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_given_once_and_to_nobody_when_it_was_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let take_it = |word: String| tokio::task::spawn_blocking(move || take(&word));
        let (word, offer) = offer(dir.path(), "r.1", b"token").unwrap();
        let mut files = fs::read_dir(dir.path().join("grants")).unwrap();
        assert!(files.all(|file| !file.unwrap().file_type().unwrap().is_file()), "it is in no file");
        assert_eq!(take_it(word.0.clone()).await.unwrap().unwrap().as_slice(), b"token");
        assert!(take_it(word.0).await.unwrap().is_err());
        offer.take_back();
        let (word, offer) = super::offer(dir.path(), "r.2", b"token").unwrap();
        offer.take_back();
        assert!(take_it(word.0).await.unwrap().is_err());
        super::offer(dir.path(), "r.3", b"token").unwrap();
        sweep(dir.path());
        assert!(!dir.path().join("grants").exists());
    }

    #[tokio::test]
    async fn what_nobody_comes_for_is_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let (word, offer) = offer_for(Duration::from_millis(1), dir.path(), "r.1", b"token").unwrap();
        offer.serving.await.unwrap();
        assert!(!Path::new(&word.0).exists());
    }
}
