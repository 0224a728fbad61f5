//! `hostler check --ready`: whether the agent that runs on this host takes orders, as it says itself.
//!
//! Scripts ask this before and after they replace the agent. The answer comes from the agent's loop, over the socket file
//! in its runtime folder, so it says more than that a process is there; no address has to be configured for it.

use std::io::ErrorKind;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::cli::exit::Exit;
use crate::cli::{Failure, screen, show};
use crate::config::Settings;
use crate::telemetry::http::{Response, ready, socket};

/// Between two questions of one that waits.
const ASK_EVERY: Duration = Duration::from_millis(300);

/// Asks until the answer is yes, for as long as `most` at most; prints the last answer, and ends with 0 if it is yes and
/// with 1 otherwise.
pub(super) async fn run(settings: &Settings, most: Duration, json: bool) -> Result<ExitCode, Failure> {
    let path = socket(&settings.runtime_dir);
    let until = Instant::now() + most;
    let mut answer = ask(&path).await;
    while !answer.good && Instant::now() < until {
        sleep(ASK_EVERY).await;
        answer = ask(&path).await;
    }
    if json {
        show::json(&json!({"ready": answer.good, "status": answer.text}))?;
    } else if !(answer.good && screen::quiet()) {
        let word = if answer.good { "ready" } else { "not ready" };
        show::line(format!("{word}: {}", show::inline(&answer.text)))?;
    }
    Ok(if answer.good { Exit::Success } else { Exit::Negative }.into())
}

/// One answer; where there is none, why.
async fn ask(path: &Path) -> Response {
    ready(path).await.unwrap_or_else(|error| {
        let shown = path.display();
        let text = match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
                format!("no agent answers at {shown}: see systemctl status hostler")
            }
            ErrorKind::PermissionDenied => format!("{shown}: {error}: ask as root"),
            _ => format!("the agent at {shown} does not answer: {error}"),
        };
        Response { good: false, text }
    })
}
