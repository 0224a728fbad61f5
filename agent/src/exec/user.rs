//! The user that a step runs as.

use std::ffi::CString;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, User as Account, getgrouplist};

/// A user of this host with all groups, looked up before the fork: the look-up is not safe behind it.
#[derive(Clone, Debug)]
pub struct User {
    /// Its number.
    pub uid: Uid,
    /// Its first group.
    pub gid: Gid,
    /// All its groups; none for the user that this process runs as.
    pub groups: Vec<Gid>,
    /// Its home.
    pub home: PathBuf,
}

impl User {
    /// The user of that name; `None`: the one that this process runs as.
    pub fn look_up(name: Option<&str>) -> Result<Self, String> {
        let account = match name {
            Some(name) => Account::from_name(name),
            None => Account::from_uid(Uid::effective()),
        };
        let who = name.map_or_else(|| Uid::effective().to_string(), str::to_owned);
        let account = account.map_err(|errno| format!("user {who} cannot be looked up: {errno}"))?;
        let account = account.ok_or_else(|| format!("there is no user {who} on this host"))?;
        let mut user = Self { uid: account.uid, gid: account.gid, groups: Vec::new(), home: account.dir };
        // The groups of whoever this process runs as are not touched, and asking for them takes a millisecond.
        if !user.is_me() {
            let text = CString::new(account.name.as_str()).map_err(|error| error.to_string())?;
            user.groups = getgrouplist(&text, account.gid)
                .map_err(|errno| format!("the groups of user {who} cannot be looked up: {errno}"))?;
        }
        Ok(user)
    }

    /// Whether this process runs as that user already.
    pub fn is_me(&self) -> bool {
        self.uid == Uid::effective()
    }

    /// Gives a file to the user.
    pub fn own(&self, path: &Path) -> std::io::Result<()> {
        if self.is_me() { Ok(()) } else { chown(path, Some(self.uid.as_raw()), Some(self.gid.as_raw())) }
    }
}
