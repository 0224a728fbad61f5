//! The agent as a service of Consul: registered with the host's own Consul agent, with a check that it keeps alive.
//!
//! Consul 1.8 asks for `service:write` on the service's name, for the registration and for the check, and at the catalog
//! for nothing more. A name that hosts shared would let each of them write the others' entries, on any node; so each host
//! has a name of its own, and all of them one tag.

use super::Request;
use reqwest::Method;
use serde_json::json;

use super::{Consul, wire};
use crate::domain::name::Name;
use crate::store::StoreError;

/// The tag that all agents have.
pub const TAG: &str = "hostler";

/// The name of a host's service.
pub fn name(host: &Name) -> String {
    format!("hostler-{host}")
}

/// The state of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Nothing is wrong.
    Passing,
    /// Something is wrong, and orders are taken.
    Warning,
    /// No orders are taken; DNS leaves the host out.
    Critical,
}

impl Health {
    /// As Consul writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passing => "passing",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// What is registered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// What it is found by, and what the token must have the right for: [`name`].
    pub name: String,
    /// What tells it from others at the same Consul agent.
    pub id: String,
    /// More words to find it by.
    pub tags: Vec<String>,
    /// Facts about it.
    pub meta: Vec<(&'static str, String)>,
    /// Where it can be asked, if anywhere.
    pub port: u16,
    /// Silent for so long, it is critical; as Consul reads spans.
    pub ttl: &'static str,
    /// Critical for so long, it is removed.
    pub forget: &'static str,
}

impl Service {
    fn check(&self) -> String {
        format!("service:{}", self.id)
    }
}

impl Consul {
    /// Registers a service, over one of the same id.
    pub async fn register(&self, service: &Service, health: Health) -> Result<(), StoreError> {
        let meta: serde_json::Map<String, serde_json::Value> =
            service.meta.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        let body = json!({
            "ID": service.id,
            "Name": service.name,
            "Tags": service.tags,
            "Meta": meta,
            "Port": service.port,
            "Check": {
                "CheckID": service.check(),
                "Name": "Hostler agent",
                "TTL": service.ttl,
                "Status": health.as_str(),
                "DeregisterCriticalServiceAfter": service.forget,
            },
        });
        let (path, action) = ("agent/service/register", format!("to register the service {}", service.name));
        let body = Some(body.to_string().into_bytes());
        self.ask(Request {
            method: Method::PUT,
            path,
            body,
            deadline: self.timeouts.request,
            action: &action,
            expected: &[200],
        })
        .await
        .map(drop)
    }

    /// Keeps the check of a service alive, and says how it is; false: Consul does not know it.
    pub async fn tell(&self, service: &Service, health: Health, output: &str) -> Result<bool, StoreError> {
        let path = format!("agent/check/update/{}", wire::encode_path(&service.check()));
        let body = json!({"Status": health.as_str(), "Output": output}).to_string().into_bytes();
        let action = format!("to update the check of the service {}", service.name);
        let expected = [200, 404, 500];
        let got = self
            .ask(Request {
                method: Method::PUT,
                path: &path,
                body: Some(body),
                deadline: self.timeouts.request,
                action: &action,
                expected: &expected,
            })
            .await?;
        // Older versions answer 500, and say it in words.
        let said = String::from_utf8_lossy(got.body.kept()).to_lowercase();
        match got.status {
            200 => Ok(true),
            404 => Ok(false),
            _ if said.contains("unknown check") || said.contains("associated ttl") => Ok(false),
            status => Err(self.refusal(status, got.body.kept(), &action)),
        }
    }

    /// Takes a service away.
    pub async fn deregister(&self, service: &Service) -> Result<(), StoreError> {
        let path = format!("agent/service/deregister/{}", wire::encode_path(&service.id));
        let action = format!("to deregister the service {}", service.name);
        self.ask(Request {
            method: Method::PUT,
            path: &path,
            body: None,
            deadline: self.timeouts.request,
            action: &action,
            expected: &[200, 404],
        })
        .await
        .map(drop)
    }
}
