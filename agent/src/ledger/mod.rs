//! What the host remembers: the ledger of orders, and a folder for each run.
//!
//! ```text
//! state_dir/
//!   identity            who this host is, fixed at the first start
//!   ledger              which identities each order had, and what became of its newest activation
//!   runs/<ulid>/
//!     order             the document as it stood in the store           written by the agent
//!     plan              what the run does, rendered and checked          written by the agent
//!     claim.<epoch>     who may act in this epoch: one process only      by whoever gets it
//!     journal           what happened                                    by the executor alone
//!     output …          what the steps printed                           by the executor alone
//!     result            how it ended, for people                         by the executor alone
//!     guards/<epoch>-<step>/  lock and log of an armed guard             by whoever fires it
//!     unready.<epoch>   why it left without a claim                      by the executor alone
//!   downtime            how long services could not be used, per service and day
//!   tokens/             the accessors of runs' tokens for Vault, until they are given back
//!   audit/<n>.log       who ordered, what was decided and why, what was done; never changed
//!   reserve/            room that is given up for what frees a full disk
//!   tasks/<sha256>/     the copies of tasks that runs use
//! ```
//!
//! The agent never writes a journal: a dead executor's run is continued by a new epoch.

pub mod arming;
pub mod audit;
pub mod claim;
pub mod downtime;
pub mod folder;
pub mod identity;
pub mod journal;
pub mod orders;
pub mod reserve;
pub mod tokens;
pub mod trim;

pub use arming::{ArmingFolder, ArmingLock, FiringEvent};
pub use audit::Audit;
pub use claim::{Claim, ClaimState};
pub use downtime::{DowntimeError, DowntimeRecord};
pub use folder::{Folder, FolderError, NotReady};
pub use journal::Journal;
pub use orders::Ledger;
pub use tokens::Tokens;
