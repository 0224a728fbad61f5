//! What the double answers, route by route: status and body, in the words of the recordings.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use serde_json::{Map, Value, json};

use super::{Asked, Certificate, FaultMode, Lease, ROLE_ID, Request, SECRET_ID, State, Token, Version};

type Answer = (u16, String);

/// When everything happened, as far as anybody asks the double.
const THEN: &str = "2026-11-21T03:29:06.360507482Z";

/// The policy `agent` as it is at first.
pub(super) const AGENT: &[(&str, &[&str])] = &[
    ("secret/data/app/*", &["create", "delete", "read", "update"]),
    ("secret/metadata/app/*", &["read"]),
    ("kv1/app/*", &["read"]),
    ("database/creds/app", &["read"]),
    ("auth/token/create", &["update"]),
    ("sys/leases/revoke", &["update"]),
];

pub(super) fn first_state() -> State {
    let rule = |path: &str, allowed: &[&str]| {
        (path.to_owned(), allowed.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    };
    let own = vec![
        rule("auth/token/lookup-self", &["read"]),
        rule("auth/token/renew-self", &["update"]),
        rule("auth/token/revoke-self", &["update"]),
        rule("sys/capabilities-self", &["update"]),
        rule("sys/leases/renew", &["update"]),
        rule("sys/leases/lookup", &["update"]),
    ];
    let agent = AGENT.iter().map(|(path, allowed)| rule(path, allowed)).collect();
    State {
        sealed: false,
        ailment: FaultMode::None,
        tokens: BTreeMap::new(),
        policies: [("default".to_owned(), own), ("agent".to_owned(), agent)].into(),
        role_id: ROLE_ID.to_owned(),
        secret_ids: BTreeSet::from([SECRET_ID.to_owned()]),
        token_ttl: 3600,
        token_max_ttl: None,
        claimed: None,
        wrapped: BTreeMap::new(),
        kv1: BTreeMap::new(),
        kv2: BTreeMap::new(),
        leases: BTreeMap::new(),
        lease_ttl: 3600,
        lease_max: None,
        requests: Vec::new(),
        asked: Vec::new(),
        role_policies: vec!["agent".to_owned(), "default".to_owned()],
        counter: 0,
    }
}

pub(super) fn token(policies: Vec<String>, ttl: u64, path: &str) -> Token {
    let now = Instant::now();
    Token {
        policies,
        parent: None,
        made: now,
        from: now,
        ttl,
        period: ttl,
        max_ttl: None,
        renewable: true,
        path: path.to_owned(),
        meta: json!({"role_name": "host"}),
    }
}

/// When the next thing is written: a second later each time.
pub(super) fn later(state: &mut State) -> String {
    state.counter += 1;
    format!("2026-11-21T03:{:02}:{:02}.360507482Z", state.counter / 60 % 60, state.counter % 60)
}

pub(super) fn lease(token: &str, ttl: u64, max: Option<u64>) -> Lease {
    let now = Instant::now();
    // A role that says nothing has the system's longest.
    let max = max.unwrap_or(768 * 3600);
    Lease { token: token.to_owned(), made: now, from: now, ttl, role_ttl: ttl, max }
}

fn errors(status: u16, text: &str) -> Answer {
    (status, json!({"errors": [text]}).to_string())
}

fn nothing() -> Answer {
    (404, json!({"errors": []}).to_string())
}

fn denied() -> Answer {
    errors(403, "1 error occurred:\n\t* permission denied\n\n")
}

fn envelope(data: Value) -> Map<String, Value> {
    let value = json!({"request_id": "aaaaaaaa-0000-4000-8000-000000000001", "lease_id": "", "renewable": false,
        "lease_duration": 0, "data": data, "wrap_info": null, "warnings": null, "auth": null});
    value.as_object().cloned().unwrap_or_default()
}

fn good(map: Map<String, Value>) -> Answer {
    (200, format!("{}\n", Value::Object(map)))
}

/// The answer to one request.
pub(super) fn answer(state: &mut State, request: &Request) -> Answer {
    expire(state);
    let target = request.target.strip_prefix("/v1/").unwrap_or(&request.target).to_owned();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    if path == "sys/health" {
        return health(state, query);
    }
    if state.sealed {
        let with_token = request.token.is_some();
        return errors(
            503,
            if with_token { "error performing token check: Vault is sealed" } else { "Vault is sealed" },
        );
    }
    match path {
        "auth/approle/login" => return login(state, &request.body),
        "auth/cert/login" => return cert_login(state, request),
        "sys/wrapping/unwrap" => return unwrap(state, request),
        "sys/wrapping/lookup" => return wrap_lookup(state, request),
        _ => {}
    }
    let Some(id) = request.token.clone() else { return errors(400, "missing client token") };
    let Some(token) = state.tokens.get(&id).cloned() else { return errors(403, "permission denied") };
    let wanted = match request.method.as_str() {
        "GET" => "read",
        "LIST" => "list",
        "DELETE" => "delete",
        _ => "update",
    };
    let (child, capability) = (token.parent.is_some(), wanted.to_owned());
    state.asked.push(Asked { child, path: path.to_owned(), capability });
    if !allowed(state, &token, path).iter().any(|word| word == wanted || word == "root") {
        return denied();
    }
    match path {
        "auth/token/lookup-self" => lookup(&id, &token),
        "auth/token/renew-self" => renew(state, &id, &request.body),
        "auth/token/revoke-self" => {
            revoke(state, &id);
            (204, String::new())
        }
        "auth/token/create" => create(state, &id, &token, &request.body),
        "sys/capabilities-self" => capabilities(state, &token, &request.body),
        "sys/leases/lookup" => lease_lookup(state, &request.body),
        "sys/leases/renew" => lease_renew(state, &request.body),
        "sys/leases/revoke" => {
            state.leases.remove(request.body["lease_id"].as_str().unwrap_or_default());
            (if request.body["sync"] == json!(false) { 202 } else { 204 }, String::new())
        }
        "database/creds/app" => credentials(state, &id),
        _ => engine(state, path, query),
    }
}

fn engine(state: &State, path: &str, query: &str) -> Answer {
    if let Some(key) = path.strip_prefix("kv1/") {
        let Some(data) = state.kv1.get(key) else { return nothing() };
        let mut map = envelope(data.clone());
        map.insert("lease_duration".into(), json!(2_764_800));
        return good(map);
    }
    if let Some(key) = path.strip_prefix("secret/data/") {
        let Some(versions) = state.kv2.get(key) else { return nothing() };
        let asked = query.strip_prefix("version=").and_then(|text| text.parse::<usize>().ok()).unwrap_or(0);
        let number = if asked == 0 { versions.len() } else { asked };
        let Some(version) = versions.get(number.wrapping_sub(1)) else { return nothing() };
        let data = if version.deleted { Value::Null } else { version.data.clone() };
        let map = envelope(json!({"data": data, "metadata": about(version, Some(number))}));
        return (if version.deleted { 404 } else { 200 }, format!("{}\n", Value::Object(map)));
    }
    if let Some(key) = path.strip_prefix("secret/metadata/") {
        let Some(versions) = state.kv2.get(key) else { return nothing() };
        let all: Map<String, Value> = versions
            .iter()
            .enumerate()
            .map(|(at, version)| ((at + 1).to_string(), about(version, None)))
            .collect();
        return good(envelope(
            json!({"cas_required": false, "created_time": THEN, "current_version": versions.len(),
            "delete_version_after": "0s", "max_versions": 0, "oldest_version": 0, "updated_time": THEN,
            "versions": all}),
        ));
    }
    errors(404, &format!("no handler for route '{path}'"))
}

fn about(version: &Version, number: Option<usize>) -> Value {
    let gone = if version.deleted { THEN } else { "" };
    let mut about = json!({"created_time": version.created, "deletion_time": gone, "destroyed": false});
    if let Some(number) = number {
        about["version"] = json!(number);
    }
    about
}

fn health(state: &State, query: &str) -> Answer {
    let mut body = json!({"initialized": true, "sealed": state.sealed, "standby": state.sealed,
        "performance_standby": false, "replication_performance_mode": "disabled", "replication_dr_mode": "disabled",
        "server_time_utc": 1_795_231_000, "version": "1.8.0-dev"});
    if state.sealed {
        body["replication_performance_mode"] = json!("unknown");
        body["replication_dr_mode"] = json!("unknown");
    } else {
        body["cluster_name"] = json!("vault-cluster-double");
        body["cluster_id"] = json!("ffffffff-0000-4000-8000-000000000001");
    }
    let sealed = if query.contains("sealedcode=200") { 200 } else { 503 };
    (if state.sealed { sealed } else { 200 }, format!("{body}\n"))
}

/// What has come to its end goes; a token takes its children and leases along.
fn expire(state: &mut State) {
    let over: Vec<String> = state
        .tokens
        .iter()
        .filter(|(_, token)| token.from.elapsed().as_secs() >= token.ttl)
        .map(|(id, _)| id.clone())
        .collect();
    over.iter().for_each(|id| revoke(state, id));
    state.leases.retain(|_, lease| lease.from.elapsed().as_secs() < lease.ttl);
}

fn revoke(state: &mut State, id: &str) {
    state.tokens.remove(id);
    state.leases.retain(|_, lease| lease.token != id);
    let children: Vec<String> = state
        .tokens
        .iter()
        .filter(|(_, token)| token.parent.as_deref() == Some(id))
        .map(|(id, _)| id.clone())
        .collect();
    children.iter().for_each(|child| revoke(state, child));
}

fn allowed(state: &State, token: &Token, path: &str) -> Vec<String> {
    if token.policies.iter().any(|name| name == "root") {
        return vec!["root".to_owned()];
    }
    let fits = |pattern: &str| match pattern.strip_suffix('*') {
        Some(start) => path.starts_with(start),
        None => pattern == path,
    };
    let rules = token.policies.iter().filter_map(|name| state.policies.get(name)).flatten();
    let mut words: Vec<String> =
        rules.filter(|(pattern, _)| fits(pattern)).flat_map(|(_, words)| words.clone()).collect();
    words.sort();
    words.dedup();
    words
}

fn new_id(state: &mut State, kind: &str) -> String {
    state.counter += 1;
    format!("s.{kind}{:0>width$}", state.counter, width = 24 - kind.len())
}

fn auth(id: &str, token: &Token, duration: u64) -> Value {
    json!({"client_token": id, "accessor": accessor(id), "policies": token.policies,
        "token_policies": token.policies, "metadata": token.meta, "lease_duration": duration,
        "renewable": token.renewable, "entity_id": "eeeeeeee-0000-4000-8000-000000000002",
        "token_type": "service", "orphan": token.parent.is_none()})
}

fn with_auth(auth: Value, warnings: Value) -> Answer {
    let mut map = envelope(Value::Null);
    map.insert("auth".into(), auth);
    map.insert("warnings".into(), warnings);
    good(map)
}

fn login(state: &mut State, body: &Value) -> Answer {
    let field = |name: &str| body[name].as_str().map(str::trim).filter(|text| !text.is_empty());
    let Some(role) = field("role_id") else { return errors(400, "missing role_id") };
    if role != state.role_id {
        return errors(400, "invalid role ID");
    }
    let Some(secret) = field("secret_id") else { return errors(400, "missing secret_id") };
    if !state.secret_ids.contains(secret) {
        return errors(400, "invalid secret id");
    }
    let id = new_id(state, "HostToken");
    let mut token = token(state.role_policies.clone(), state.token_ttl, "auth/approle/login");
    token.max_ttl = state.token_max_ttl;
    let answer = with_auth(auth(&id, &token, token.ttl), Value::Null);
    state.tokens.insert(id, token);
    answer
}

/// One role, `agent`: `name` chooses it, and any other name is that of no role.
fn cert_login(state: &mut State, request: &Request) -> Answer {
    match request.certificate {
        Certificate::PlainHttp => return errors(400, "tls connection required"),
        Certificate::None => return errors(400, "client certificate must be supplied"),
        Certificate::Shown => {}
    }
    if request.body["name"].as_str().is_some_and(|name| name != "agent") {
        return errors(400, "invalid certificate or no client certificate supplied");
    }
    let id = new_id(state, "HostToken");
    let mut token = token(vec!["agent".into(), "default".into()], state.token_ttl, "auth/cert/login");
    token.max_ttl = state.token_max_ttl;
    token.meta = json!({"authority_key_id": "d6:61", "cert_name": "agent", "common_name": "host1.example",
        "serial_number": "127318527950215349315017577631578879320062999216", "subject_key_id": "53:df"});
    let answer = with_auth(auth(&id, &token, token.ttl), Value::Null);
    state.tokens.insert(id, token);
    answer
}

fn unwrap(state: &mut State, request: &Request) -> Answer {
    let Some(token) = &request.token else { return errors(400, "missing client token") };
    match state.wrapped.remove(token) {
        // The one answer that has no newline at its end.
        Some(data) => (200, Value::Object(envelope(data)).to_string()),
        None => errors(400, "wrapping token is not valid or does not exist"),
    }
}

fn wrap_lookup(state: &State, request: &Request) -> Answer {
    let token = request.body["token"].as_str().unwrap_or_default();
    if !state.wrapped.contains_key(token) {
        return errors(400, "wrapping token is not valid or does not exist");
    }
    good(envelope(json!({"creation_path": "auth/approle/role/host/secret-id", "creation_time": THEN,
        "creation_ttl": 600})))
}

fn lookup(id: &str, token: &Token) -> Answer {
    good(envelope(json!({"accessor": "Accessor0000000000000001", "creation_time": 1_795_231_735,
        "creation_ttl": token.ttl, "display_name": "approle", "entity_id": "eeeeeeee-0000-4000-8000-000000000002",
        "expire_time": THEN, "explicit_max_ttl": 0, "id": id, "issue_time": THEN, "meta": token.meta,
        "num_uses": 0, "orphan": token.parent.is_none(), "path": token.path, "policies": token.policies,
        "renewable": token.renewable, "ttl": token.left(), "type": "service"})))
}

/// Seconds, as a number or with a unit behind.
fn seconds(value: &Value) -> Option<u64> {
    let text = match value {
        Value::Number(number) => return number.as_u64(),
        Value::String(text) => text,
        _ => return None,
    };
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let factor = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return None,
    };
    Some(digits.parse::<u64>().ok()? * factor)
}

fn renew(state: &mut State, id: &str, body: &Value) -> Answer {
    let claimed = state.claimed;
    let Some(token) = state.tokens.get_mut(id) else { return errors(403, "permission denied") };
    if !token.renewable {
        return errors(400, "lease is not renewable");
    }
    let asked = seconds(&body["increment"]).filter(|asked| *asked > 0).unwrap_or(token.period);
    let most = token.max_ttl.map(|max| max.saturating_sub(token.made.elapsed().as_secs()));
    let given = most.map_or(asked, |most| asked.min(most));
    (token.from, token.ttl) = (Instant::now(), given);
    let warnings = if given < asked {
        json!([format!(
            "TTL of \"{asked}s\" exceeded the effective max_ttl of \"{given}s\"; TTL value is capped accordingly"
        )])
    } else {
        Value::Null
    };
    with_auth(auth(id, token, claimed.unwrap_or(given)), warnings)
}

fn create(state: &mut State, parent: &str, own: &Token, body: &Value) -> Answer {
    let asked: Vec<String> = match body["policies"].as_array() {
        Some(list) => list.iter().filter_map(|name| Some(name.as_str()?.to_owned())).collect(),
        None => own.policies.clone(),
    };
    if !asked.iter().all(|name| own.policies.contains(name) || own.policies.iter().any(|own| own == "root")) {
        return errors(400, "child policies must be subset of parent");
    }
    let mut policies = asked;
    if body["no_default_policy"] != json!(true) && !policies.iter().any(|name| name == "default") {
        policies.push("default".to_owned());
        policies.sort();
    }
    let ttl = seconds(&body["ttl"]).unwrap_or(768 * 3600);
    let id = new_id(state, "ChildToken");
    let mut child = token(policies, ttl, "auth/token/create");
    child.parent = Some(parent.to_owned());
    child.renewable = body["renewable"] != json!(false);
    child.meta = body["meta"].clone();
    let answer = with_auth(auth(&id, &child, state.claimed.unwrap_or(ttl)), Value::Null);
    state.tokens.insert(id, child);
    answer
}

fn capabilities(state: &State, token: &Token, body: &Value) -> Answer {
    let mut map = Map::new();
    let paths = body["paths"].as_array().cloned().unwrap_or_default();
    for path in paths.iter().filter_map(Value::as_str) {
        let mut words = allowed(state, token, path);
        if words.is_empty() {
            words.push("deny".to_owned());
        }
        map.insert(path.to_owned(), json!(words));
    }
    let whole = envelope(Value::Object(map.clone()));
    map.extend(whole);
    good(map)
}

fn lease_lookup(state: &State, body: &Value) -> Answer {
    let id = body["lease_id"].as_str().unwrap_or_default();
    let Some(lease) = state.leases.get(id) else { return errors(400, "invalid lease") };
    let left = lease.ttl.saturating_sub(lease.from.elapsed().as_secs());
    good(envelope(json!({"expire_time": THEN, "id": id, "issue_time": THEN, "last_renewal": null,
        "renewable": true, "ttl": left})))
}

fn lease_renew(state: &mut State, body: &Value) -> Answer {
    let id = body["lease_id"].as_str().unwrap_or_default();
    let Some(lease) = state.leases.get_mut(id) else { return errors(400, "lease not found") };
    let asked = seconds(&body["increment"]).filter(|asked| *asked > 0).unwrap_or(lease.role_ttl);
    let given = asked.min(lease.max.saturating_sub(lease.made.elapsed().as_secs()));
    (lease.from, lease.ttl) = (Instant::now(), given);
    let mut map = envelope(Value::Null);
    if given < asked {
        let said = format!(
            "TTL of \"{asked}s\" exceeded the effective max_ttl of \"{given}s\"; TTL value is capped accordingly"
        );
        map.insert("warnings".into(), json!([said]));
    }
    map.insert("lease_id".into(), json!(id));
    map.insert("renewable".into(), json!(true));
    map.insert("lease_duration".into(), json!(given));
    good(map)
}

fn credentials(state: &mut State, token: &str) -> Answer {
    state.counter += 1;
    let (number, ttl) = (state.counter, state.lease_ttl);
    let id = format!("database/creds/app/Lease{number:019}");
    let lease = lease(token, ttl, state.lease_max);
    state.leases.insert(id.clone(), lease);
    let mut map = envelope(json!({"password": format!("Password-{number:011}"),
        "username": format!("v-approle-app-User{number:016}-1795231749")}));
    map.insert("lease_id".into(), json!(id));
    map.insert("renewable".into(), json!(true));
    map.insert("lease_duration".into(), json!(ttl));
    good(map)
}

/// What names a token without being it, as long as a real one.
fn accessor(id: &str) -> String {
    let mut hasher = std::hash::DefaultHasher::new();
    std::hash::Hash::hash(id, &mut hasher);
    format!("Accessor{:016x}", std::hash::Hasher::finish(&hasher))
}
