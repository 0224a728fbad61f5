//! SAP HANA with SAP's own tools.
//!
//! ```text
//!  cli                      what is asked for
//!   |
//!  check explain fact       one module a verb; change: install and update; replicate: enable,
//!  backup restore drill     takeover and register; power: start and stop; proof: what counts as
//!  change replicate power   a proof of a backup
//!  housekeeping rotate proof; setup: Backint; discover: which systems a host has;
//!                           downtime: for how long nobody was answered; unpack: media out of an
//!                           archive; configure: parameters, tenants and keys of a new system;
//!                           parts: whether what backups are made of is still there
//!   |
//!  runner  notes  report    starts programs; what a run has done so far; what the fleet hears
//!   |
//!  neighbours               command lines, exit codes and texts of each tool
//!   |
//!  call  system  secret     a command line; what names a system; what must not be seen
//! ```
//! Nothing rests on a text that was not understood: it is "cannot tell", and nothing is started on it.

pub mod backup;
pub mod call;
pub mod change;
pub mod check;
pub mod cli;
pub mod configure;
pub mod discover;
pub mod downtime;
pub mod drill;
pub mod error;
pub mod explain;
pub mod fact;
pub mod housekeeping;
pub mod neighbours;
pub mod notes;
pub mod parts;
pub mod power;
pub mod proof;
pub mod replicate;
pub mod report;
pub mod restore;
pub mod rotate;
pub mod runner;
pub mod secret;
pub mod setup;
pub mod system;
pub mod unpack;
