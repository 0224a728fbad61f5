//! Vault: logging in, keeping a token alive, reading secrets, leases.
//!
//! ```text
//!  agent:    login -> session, renewed at two thirds of its life -> a child token for each epoch of a run
//!            its own token -> the versions of secrets that orders watch
//!  executor: child token -> secrets, read before the claim -> token and leases renewed -> the token revoked at its end
//! ```
//!
//! The client is a few routes over `reqwest`, as the store's is, and no crate for Vault: the one there is (vaultrs
//! 0.8) loses headers, lease ids, warnings and the difference between the two kinds of 403, sends the certificate
//! login a parameter that Vault ignores, panics on a token with a newline, follows redirects to any host with the
//! token, and holds bodies in the debug text of its errors.
//!
//! No value and no token is ever part of a message.

mod client;
mod grant;
mod keeper;
mod myself;
mod renewal;
mod secrets;
mod settings;
mod versions;
mod wire;

pub use client::{Client, VaultError};
pub use grant::VaultGrant;
pub use keeper::{SessionState, Vault, jittered};
pub use myself::Myself;
pub use renewal::keep;
pub use secrets::{Got, Lease, Times, give_up, read_all};
pub use settings::{Auth, BadVaultSettings, SecretIdAt, Server, VaultLayer, VaultSettings};
