//! What the program says of itself while it works: to the journal where that is there, else to standard error.
//!
//! The level can be changed while it runs. `HOSTLER_LOG`, handed in as `wish`, wins over every level.

use tracing_subscriber::filter::{Filtered, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

use super::journald::Journald;

/// The levels that a configuration can name.
pub const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Changes the level of what is said.
#[derive(Clone, Debug)]
pub struct Level {
    filter: reload::Handle<Targets, Registry>,
    wished: bool,
}

impl Level {
    /// From now on this level, unless the environment wished for another.
    pub fn set(&self, level: &str) {
        if self.wished {
            return;
        }
        // It can only fail after the end of the subscriber, which is that of the program.
        let _ = self.filter.reload(targets(None, level));
    }
}

/// Begins to say something; a second call in one process, in a test, changes nothing.
pub fn start(level: &str, journal: Option<Journald>, wish: Option<&str>) -> Level {
    let wish = wish.filter(|wish| !wish.is_empty());
    // A wish that cannot be read must not silence the program.
    let wrong = wish.and_then(|wish| wish.parse::<Targets>().err());
    let wish = wish.filter(|_| wrong.is_none());
    let (filter, handle) = reload::Layer::new(targets(wish, level));
    let layer: Box<dyn Layer<Registry> + Send + Sync> = match journal {
        Some(journal) => Box::new(journal),
        None => {
            // The journal of systemd adds the time itself.
            let plain = tracing_subscriber::fmt::layer().without_time().with_target(false).with_ansi(false);
            Box::new(plain.with_writer(std::io::stderr))
        }
    };
    let _ = tracing_subscriber::registry().with(Filtered::new(layer, filter)).try_init();
    if let Some(error) = wrong {
        tracing::warn!(
            "invalid HOSTLER_LOG, ignored: {error}; write it as in HOSTLER_LOG=hostler=debug,warn"
        );
    }
    Level { filter: handle, wished: wish.is_some() }
}

fn targets(wish: Option<&str>, level: &str) -> Targets {
    let default = format!("warn,hostler={level}");
    wish.unwrap_or(&default).parse().unwrap_or_default()
}
