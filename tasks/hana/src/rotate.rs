//! `key` and `rotate`: the password of a database user, and the key of the user store that holds it.
//!
//! A new password counts as set when it logs on, through a key of the user store that is made for the question and taken
//! away again. HANA may refuse to go back to a former password, so there is no way back: what failed is repeated.

use std::time::Duration;

use crate::call::{Call, Piece};
use crate::error::Error;
use crate::neighbours::catalog::{self, IDENTITY};
use crate::neighbours::hdbsql::{self, Key};
use crate::neighbours::userstore;
use crate::runner::Runner;
use crate::system::System;

/// The secret with the new password.
pub const SECRET: &str = "password";
/// What a wrong password is answered with.
const AUTHENTICATION_FAILED: i32 = 10;

/// A user of a database: letters, digits and underscores, so that it needs no quotation marks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DbUser(String);

impl DbUser {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for DbUser {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let letter = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
        let begins = text.bytes().next().is_some_and(|byte| byte.is_ascii_uppercase());
        if text.len() > 127 || !begins || !text.bytes().all(letter) {
            return Err("the name of a user is capital letters, digits and underscores".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

/// Sets the password of a user, as the user of the key.
pub fn set_password(system: &System, key: &Key, user: &DbUser) -> Call {
    let text = |text: String| Piece::Text(text);
    let pieces = vec![
        text(format!("ALTER USER {} PASSWORD ", user.as_str())),
        Piece::Quoted(SECRET),
        text(" NO FORCE_FIRST_PASSWORD_CHANGE\n".to_owned()),
    ];
    let source = "SAP HANA SQL and System Views Reference, ALTER USER";
    hdbsql::secret_statement(system, key, "set the password of the user", source, pieces)
}

/// Asks whether a key logs on.
pub fn log_on(system: &System, key: &Key) -> Call {
    let source = "SAP HANA SQL and System Views Reference, DUMMY";
    let sql = "SELECT 1 AS ONE FROM DUMMY".to_owned();
    hdbsql::statement(system, key, "ask whether the password logs on", source, sql)
        .within(Duration::from_secs(60))
}

/// The key that is made for the question.
pub fn scratch() -> Result<Key, Error> {
    "HOSTLERTRY".parse().map_err(Error::Config)
}

/// The user whose password is rotated.
pub struct Rotation<'a> {
    runner: &'a Runner,
    user: &'a DbUser,
    /// The key that is to hold the new password; it leads to the database of the user.
    key: &'a Key,
    /// The key of the one who may change the password, where it is not the user.
    admin: &'a Key,
}

impl<'a> Rotation<'a> {
    /// Of that user.
    pub fn new(runner: &'a Runner, user: &'a DbUser, key: &'a Key, admin: &'a Key) -> Self {
        Self { runner, user, key, admin }
    }

    fn system(&self) -> &System {
        self.runner.system()
    }

    fn store(&self, call: &Call) -> Result<(), Error> {
        let outcome = self.runner.run(call)?;
        match outcome.code()? {
            0 => Ok(()),
            code => Err(Error::Tool(format!("hdbuserstore ended with {code}"))),
        }
    }

    /// Where the key leads. Its user must be the one that is meant.
    fn place(&self) -> Result<String, Error> {
        let outcome = self.runner.run(&userstore::list(self.system(), self.key))?;
        match userstore::entry(outcome.code()?, &outcome.out, self.key)? {
            Some(entry) if entry.user == self.user.as_str() => Ok(entry.place),
            Some(entry) => Err(Error::Refused(format!(
                "the key {} is of the user {} and not of {}",
                self.key.as_str(),
                entry.user,
                self.user.as_str()
            ))),
            None => Err(Error::Refused(format!("the user store has no key {}", self.key.as_str()))),
        }
    }

    /// Whether the new password logs on, and the key holds it.
    ///
    /// # Errors
    /// `Unclear` when the database does not answer.
    pub fn holds(&self) -> Result<bool, Error> {
        Ok(self.enters()? && self.logs_on(self.key)?)
    }

    fn enters(&self) -> Result<bool, Error> {
        let (place, key) = (self.place()?, scratch()?);
        self.store(&userstore::set(self.system(), &key, &place, self.user.as_str(), SECRET))?;
        let enters = self.logs_on(&key);
        // Whatever the answer was, the key goes.
        let gone = self.store(&userstore::delete(self.system(), &key));
        let enters = enters?;
        gone.map(|()| enters)
    }

    fn logs_on(&self, key: &Key) -> Result<bool, Error> {
        logs_on(self.runner, key)
    }

    /// Sets the password and the key; a repetition does what is left to do.
    pub fn rotate(&self) -> Result<(), Error> {
        let place = self.place()?;
        if !self.enters()? {
            hdbsql::check(&self.runner.run(&set_password(self.system(), self.admin, self.user))?)?;
            if !self.enters()? {
                return Err(Error::Unclear("the password was set, and it does not log on".to_owned()));
            }
        }
        self.store(&userstore::set(self.system(), self.key, &place, self.user.as_str(), SECRET))?;
        match self.logs_on(self.key)? {
            true => Ok(()),
            false => Err(Error::Unclear("the key was set, and it does not log on".to_owned())),
        }
    }
}

/// Whether a key logs on.
///
/// # Errors
/// `Unclear` when the database does not answer.
pub fn logs_on(runner: &Runner, key: &Key) -> Result<bool, Error> {
    let outcome = runner.run(&log_on(runner.system(), key))?;
    match hdbsql::check(&outcome) {
        Ok(()) => Ok(true),
        Err(_) if hdbsql::first_error(&outcome) == Some(AUTHENTICATION_FAILED) => Ok(false),
        Err(Error::Stopped(signal)) => Err(Error::Stopped(signal)),
        Err(error) => Err(Error::Unclear(error.to_string())),
    }
}

/// Makes a key of the user store, and logs on with it.
pub fn make_key(
    runner: &Runner,
    key: &Key,
    place: &str,
    user: &DbUser,
    secret: &'static str,
) -> Result<(), Error> {
    let outcome = runner.run(&userstore::set(runner.system(), key, place, user.as_str(), secret))?;
    if outcome.code()? != 0 {
        return Err(Error::Tool("hdbuserstore did not take the key".to_owned()));
    }
    let call = catalog::identity(runner.system(), key);
    let identity = catalog::read_identity(&hdbsql::rows(&runner.run(&call)?, &IDENTITY)?)?;
    match identity.sid == runner.system().sid.as_str() {
        true => Ok(()),
        false => Err(Error::Refused(format!("behind {place} is {} and not this system", identity.sid))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_users() {
        for good in ["SYSTEM", "HOSTLER_BACKUP", "A1"] {
            assert!(good.parse::<DbUser>().is_ok());
        }
        for bad in ["", "system", "1A", "A B", "A\"B", "A;DROP", "_SYS"] {
            assert!(bad.parse::<DbUser>().is_err());
        }
    }
}
