//! The one thread that works on the folder.
//!
//! A disk that does not answer keeps the thread that asked it, for as long as it likes. So no thread that others need
//! asks: what hangs here stops the store alone, which says so. Work waits in a short queue; what nobody waits for any
//! more is not begun, and while the queue is full more of it is refused at once.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use tokio::sync::oneshot;

/// More than all watches, reports and commands of one process ask at a time.
const MAX_WAITING: usize = 64;

type Job = Box<dyn FnOnce() + Send>;

/// The thread, from the first work on; it ends with this value.
#[derive(Default)]
pub(super) struct Worker(Mutex<Option<SyncSender<Job>>>);

/// Why work was not begun.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotBegun {
    /// The thread is busy with earlier work, and so is everything behind it.
    #[error("the disk does not answer: {MAX_WAITING} reads and writes wait for it")]
    Full,
    /// The system has no thread for it.
    #[error("there is no thread to read it: {0}")]
    NoThread(#[from] io::Error),
}

impl Worker {
    /// Hands work over; the answer comes when its turn has come. It is not begun when the receiver is dropped before.
    pub(super) fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<oneshot::Receiver<T>, NotBegun> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move || {
            if !answer.is_closed() {
                // It may be dropped meanwhile: then nobody wants to know.
                let _ = answer.send(work());
            }
        });
        self.hand_over(job)?;
        Ok(answered)
    }

    fn hand_over(&self, job: Job) -> Result<(), NotBegun> {
        let mut queue = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = match queue.take() {
            Some(sender) => sender,
            None => start()?,
        };
        let handed = match sender.try_send(job) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_)) => Err(NotBegun::Full),
            // Its thread broke off in earlier work; the next work gets another one.
            Err(TrySendError::Disconnected(_)) => return Err(io::Error::other("it broke off").into()),
        };
        *queue = Some(sender);
        handed
    }
}

fn start() -> io::Result<SyncSender<Job>> {
    let (sender, receiver): (_, Receiver<Job>) = sync_channel(MAX_WAITING);
    let work = move || receiver.into_iter().for_each(|job| job());
    thread::Builder::new().name("store".to_owned()).spawn(work)?;
    Ok(sender)
}
