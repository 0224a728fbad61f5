//! `configure`: parameters, tenants and keys of a system, each only where it is not as wanted.
//!
//! A repetition sets nothing twice, and nothing that is not named is touched: a tenant that exists keeps its data and
//! its password. There is no way back: who set a value before is not known.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::call::{Call, Piece};
use crate::error::Error;
use crate::neighbours::catalog::{self, DATABASES, Database, PARAMETER};
use crate::neighbours::hdbsql::{self, Key, literal};
use crate::neighbours::userstore;
use crate::rotate::{self, DbUser};
use crate::runner::Runner;
use crate::system::System;

/// The secret with the password of the user SYSTEM in a new tenant, and in the keys.
const SECRET: &str = "system_password";

/// A parameter of the whole system, as `global.ini/persistence/log_mode=normal`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Such as `global.ini`.
    pub file: String,
    /// Such as `persistence`.
    pub section: String,
    /// Such as `log_mode`.
    pub name: String,
    /// The wanted value.
    pub value: String,
}

impl std::str::FromStr for Parameter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no parameter: write FILE.ini/SECTION/NAME=VALUE");
        let (path, value) = text.split_once('=').ok_or_else(wrong)?;
        let parts: Vec<_> = path.split('/').collect();
        let [file, section, name] = parts.as_slice() else { return Err(wrong()) };
        let word = |text: &str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            !text.is_empty() && text.len() <= 128 && text.bytes().all(plain)
        };
        let good = file.ends_with(".ini") && [file, section, name].into_iter().all(|part| word(part));
        if !good || value.is_empty() || value.len() > 1024 || value.contains(char::is_control) {
            return Err(wrong());
        }
        let [file, section, name] = [file, section, name].map(|part| (*part).to_owned());
        Ok(Self { file, section, name, value: value.to_owned() })
    }
}

/// What is wanted of a system.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The key that logs on to SYSTEMDB.
    pub key: Key,
    /// Parameters of the whole system.
    pub parameters: Vec<Parameter>,
    /// Tenants that must exist and be active.
    pub tenants: Vec<Database>,
    /// Whether each active tenant has a key `HOSTLER_TENANT` of its user SYSTEM in the user store.
    pub keys: bool,
}

/// What was done, by name.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// Parameters that were set.
    pub parameters: Vec<String>,
    /// Tenants that were made or started.
    pub tenants: Vec<String>,
    /// Keys that were made.
    pub keys: Vec<String>,
}

/// Sets a parameter of the whole system.
pub fn set(system: &System, key: &Key, parameter: &Parameter) -> Call {
    let Parameter { file, section, name, value } = parameter;
    let sql = format!(
        "ALTER SYSTEM ALTER CONFIGURATION ({},'SYSTEM') SET ({},{})={} WITH RECONFIGURE",
        literal(file),
        literal(section),
        literal(name),
        literal(value)
    );
    let source = "SAP HANA SQL and System Views Reference, ALTER SYSTEM ALTER CONFIGURATION";
    hdbsql::statement(system, key, "set a parameter", source, sql)
}

/// Makes a tenant; its user SYSTEM has the password of the secret.
pub fn create(system: &System, key: &Key, tenant: &Database) -> Call {
    let pieces = vec![
        Piece::Text(format!("CREATE DATABASE {} SYSTEM USER PASSWORD ", tenant.as_str())),
        Piece::Quoted(SECRET),
        Piece::Text("\n".to_owned()),
    ];
    let source = "community.sap_install roles/sap_hana_install post_tasks (recreate tenant)";
    hdbsql::secret_statement(system, key, "make a tenant", source, pieces).within(Duration::from_secs(1800))
}

/// Starts a tenant.
pub fn start(system: &System, key: &Key, tenant: &Database) -> Call {
    let sql = format!("ALTER SYSTEM START DATABASE {}", tenant.as_str());
    let source = "SAP HANA SQL and System Views Reference, ALTER SYSTEM START DATABASE";
    hdbsql::statement(system, key, "start the tenant", source, sql).within(Duration::from_secs(1800))
}

/// The key of a tenant's user SYSTEM.
///
/// # Errors
/// When the tenant's name is too long for one.
pub fn key_of(tenant: &Database) -> Result<Key, Error> {
    format!("HOSTLER_{}", tenant.as_str()).parse().map_err(Error::Config)
}

/// Where it leads. Source: hdbuserstore SET KEY HOST:3NN13@DATABASE.
pub fn place_of(system: &System, tenant: &Database) -> String {
    format!("localhost:{}@{}", system.number.systemdb_port(), tenant.as_str())
}

/// Brings a system into the wanted shape.
pub struct Configuration<'a> {
    runner: &'a Runner,
    wish: &'a Wish,
}

impl<'a> Configuration<'a> {
    /// The shape of that wish.
    pub fn new(runner: &'a Runner, wish: &'a Wish) -> Self {
        Self { runner, wish }
    }

    fn tenants(&self) -> Result<BTreeMap<Database, bool>, Error> {
        let call = catalog::databases(self.runner.system(), &self.wish.key);
        let known = catalog::read_databases(&self.runner.rows(&call, &DATABASES)?)?;
        Ok(known.into_iter().filter(|(name, _)| !name.is_system()).collect())
    }

    /// Whether a parameter has its value. What is not set has its default, which no view names for certain.
    fn has(&self, wanted: &Parameter) -> Result<bool, Error> {
        let Parameter { file, section, name, value } = wanted;
        let call = catalog::parameter_of(self.runner.system(), &self.wish.key, file, section, name);
        let has = catalog::read_parameter(&self.runner.rows(&call, &PARAMETER)?)?;
        Ok(has.as_ref() == Some(value))
    }

    /// Whether the key of a tenant is there, and logs on.
    fn has_key(&self, tenant: &Database) -> Result<bool, Error> {
        let (system, key) = (self.runner.system(), key_of(tenant)?);
        let outcome = self.runner.run(&userstore::list(system, &key))?;
        match userstore::entry(outcome.code()?, &outcome.out, &key)? {
            Some(entry) if entry.place == place_of(system, tenant) => rotate::logs_on(self.runner, &key),
            Some(_) | None => Ok(false),
        }
    }

    /// Whether all of it is as wanted.
    pub fn holds(&self) -> Result<bool, Error> {
        for parameter in &self.wish.parameters {
            if !self.has(parameter)? {
                return Ok(false);
            }
        }
        let known = self.tenants()?;
        if !self.wish.tenants.iter().all(|tenant| known.get(tenant) == Some(&true)) {
            return Ok(false);
        }
        for (tenant, active) in &known {
            if self.wish.keys && *active && !self.has_key(tenant)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Does what is left to do.
    pub fn carry_out(&self) -> Result<Changed, Error> {
        let (system, key) = (self.runner.system(), &self.wish.key);
        let mut changed = Changed::default();
        for parameter in &self.wish.parameters {
            if !self.has(parameter)? {
                hdbsql::check(&self.runner.run(&set(system, key, parameter))?)?;
                changed.parameters.push(format!("{}/{}", parameter.section, parameter.name));
            }
        }
        let known = self.tenants()?;
        for tenant in &self.wish.tenants {
            let call = match known.get(tenant) {
                Some(true) => continue,
                Some(false) => start(system, key, tenant),
                None => create(system, key, tenant),
            };
            hdbsql::check(&self.runner.run(&call)?)?;
            changed.tenants.push(tenant.as_str().to_owned());
        }
        if self.wish.keys {
            let user: DbUser = "SYSTEM".parse().map_err(Error::Config)?;
            for (tenant, active) in self.tenants()? {
                if active && !self.has_key(&tenant)? {
                    let key = key_of(&tenant)?;
                    rotate::make_key(self.runner, &key, &place_of(system, &tenant), &user, SECRET)?;
                    changed.keys.push(key.as_str().to_owned());
                }
            }
        }
        match self.holds()? {
            true => Ok(changed),
            false => Err(Error::Unclear("all of it was set, and it is not as wanted".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters() {
        let good: Parameter = "global.ini/persistence/log_mode=normal".parse().unwrap();
        let wanted = ["global.ini", "persistence", "log_mode", "normal"].map(str::to_owned);
        assert_eq!([good.file, good.section, good.name, good.value], wanted);
        let it = "global.ini/a/b=it's=1".parse::<Parameter>().unwrap();
        assert_eq!(it.value, "it's=1");
        for bad in [
            "",
            "a=b",
            "global/a/b=c",
            "global.ini/a=b",
            "global.ini/a/b=",
            "global.ini/a/b'=c",
            "x.ini/a/b=\n",
        ] {
            assert!(bad.parse::<Parameter>().is_err(), "{bad}");
        }
    }
}
