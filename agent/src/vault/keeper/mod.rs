//! The agent's own place in Vault: logged in, its token renewed at two thirds of its life, and a child token for each
//! epoch of a run that wants secrets.
//!
//! ```text
//! (no token) -- login --> Ready --two thirds--> renew --less than before?--> login
//!      ^------------------- dead token ----------|   \-- sealed, away, busy --> Away(why), again with back-off
//! ```
//!
//! Away is a condition of the agent and makes runs that need secrets wait; nothing is revoked because Vault could not
//! be reached. A token is never given up for its successor: the tokens of runs are its children and would end with it.

#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

mod children;

use crate::vault::client::Request;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::{Mutex, Notify, watch};
use tokio::time::{Instant, sleep};

use super::client::{Client, VaultError};
use super::settings::{Auth, SecretIdAt, VaultSettings};
use crate::domain::secret::Secret;
use crate::host::plain;

/// The largest file with an id or a token, in bytes.
const MAX_FILE: u64 = 16 << 10;
/// A token file is looked at so often, should a notice of the kernel be lost.
const FILE_RETRY_INTERVAL: Duration = Duration::from_secs(30);
/// What changed a token file gets so long to write all of it.
const FILE_SETTLES: Duration = Duration::from_millis(50);
/// Spans are cut to whole seconds.
const SLACK: Duration = Duration::from_secs(2);
/// A session of this age is as good as a new one, unless a new one would last long enough.
const YOUNG: Duration = Duration::from_secs(60);
/// After the first failure; doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause between two attempts.
const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// How Vault and the agent's token are is looked at so often, whether anything needs them or not.
const LOOK_EVERY: Duration = Duration::from_secs(50);
/// Servers lock a role after five refused logins in a quarter of an hour: the agent makes no more than so many in it.
const LOGINS: usize = 2;
/// See [`LOGINS`].
const LOGINS_IN: Duration = Duration::from_secs(15 * 60);

/// How the agent stands with Vault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// Nothing is known yet.
    Starting,
    /// Logged in.
    Ready,
    /// Not usable, and why: one line for the operator.
    Unavailable(String),
}

struct Session {
    token: Secret,
    /// When the agent had it first.
    born: Instant,
    from: Instant,
    /// How long from then; `None`: it does not end.
    ttl: Option<Duration>,
    renewable: bool,
    /// What the login gave: a renewal that gives less nears the maximum.
    granted: Option<Duration>,
}

impl Session {
    /// How long it lasts still; `None`: it does not end.
    fn left(&self) -> Option<Duration> {
        self.ttl.map(|ttl| ttl.saturating_sub(self.from.elapsed()))
    }
}

#[derive(Default)]
struct Held {
    session: Option<Session>,
    /// What a wrapped secret id held, for the next logins.
    unwrapped: Option<Secret>,
    /// The wrapping token that was taken.
    spent: Option<Secret>,
    /// Somebody else had been there before.
    stolen: bool,
    /// The logins that were refused last.
    refused: Option<RefusedLogins>,
}

/// Logins with the same ids that Vault has refused.
struct RefusedLogins {
    /// What was sent.
    ids: Secret,
    /// When, within [`LOGINS_IN`].
    at: Vec<Instant>,
    /// What it said first: later answers may only say that the role is locked.
    first: VaultError,
}

impl RefusedLogins {
    /// Whether one more has to wait.
    fn are_too_many(&mut self, now: Instant) -> bool {
        self.at.retain(|at| now.saturating_duration_since(*at) < LOGINS_IN);
        self.at.len() >= LOGINS
    }
}

/// The agent's place in Vault.
pub struct Vault {
    client: Client,
    auth: Auth,
    run_policies: Option<Vec<String>>,
    secret_poll_interval: Duration,
    held: Mutex<Held>,
    standing: watch::Sender<SessionState>,
    kick: Notify,
    /// The file of the token has changed.
    file_changed: Notify,
    /// So many tokens for runs in a row could not be had.
    refusals: AtomicU32,
    /// The tokens of runs that this process made, by their accessors.
    made: std::sync::Mutex<BTreeMap<String, Secret>>,
}

impl Vault {
    /// Reads the certificates; connects to nothing yet.
    pub fn new(settings: VaultSettings) -> Result<Arc<Self>, VaultError> {
        Ok(Arc::new(Self {
            client: Client::new(settings.server)?,
            auth: settings.auth,
            run_policies: settings.run_policies,
            secret_poll_interval: settings.secret_poll_interval,
            held: Mutex::default(),
            standing: watch::channel(SessionState::Starting).0,
            kick: Notify::new(),
            file_changed: Notify::new(),
            refusals: AtomicU32::new(0),
            made: std::sync::Mutex::default(),
        }))
    }

    /// How the agent stands with Vault, now and whenever it changes.
    pub fn watch(&self) -> watch::Receiver<SessionState> {
        self.standing.subscribe()
    }

    /// Keeps the agent logged in, for ever.
    pub async fn keep(self: Arc<Self>) {
        let _watching = self.watch_files();
        let mut pause = FIRST_PAUSE;
        loop {
            let next = match self.tend().await {
                Ok(next) => {
                    self.say(SessionState::Ready);
                    pause = FIRST_PAUSE;
                    next
                }
                Err(error) => {
                    self.say(SessionState::Unavailable(error.to_string()));
                    let now = pause.max(error.after().unwrap_or_default()).min(MAX_BACKOFF);
                    pause = pause.saturating_mul(2).min(MAX_BACKOFF);
                    now
                }
            };
            tokio::select! {
                () = sleep(jittered(next)) => {}
                // Whoever could not get a token says so; not at once, so that nothing spins.
                () = self.kick.notified() => sleep(jittered(self.pause())).await,
                // Written in more than one piece, perhaps.
                () = self.file_changed.notified() => sleep(FILE_SETTLES).await,
            }
        }
    }

    /// Tells when a file changes that a login takes something from, for as long as what it gives lives.
    fn watch_files(self: &Arc<Self>) -> Vec<RecommendedWatcher> {
        let files: Vec<&Path> = match &self.auth {
            Auth::TokenFile(path) => vec![path],
            Auth::AppRole { role_id_file, secret_id, .. } => {
                [role_id_file].into_iter().chain(secret_id.files()).map(|path| path.as_path()).collect()
            }
            Auth::Cert { .. } | Auth::Token(_) => Vec::new(),
        };
        files.into_iter().filter_map(|path| self.watch_file(path)).collect()
    }

    fn watch_file(self: &Arc<Self>, path: &Path) -> Option<RecommendedWatcher> {
        let (folder, name, vault) = (path.parent()?, path.file_name()?.to_owned(), Arc::clone(self));
        let changed = move |event: notify::Result<notify::Event>| {
            // Reading is an event as well, and whoever is woken reads.
            let about = |event: notify::Event| {
                !matches!(event.kind, EventKind::Access(kind) if kind != AccessKind::Close(AccessMode::Write))
                    && event.paths.iter().any(|path| path.file_name() == Some(&name))
            };
            // An error may have hidden one.
            if event.map_or(true, about) {
                vault.file_changed.notify_one();
            }
        };
        let watcher = RecommendedWatcher::new(changed, notify::Config::default());
        let watching = watcher.and_then(|mut watcher| {
            watcher.watch(folder, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        let told = watching.inspect_err(|error| {
            tracing::warn!("inotify unavailable, polling {}: {error}", path.display());
        });
        told.ok()
    }

    /// The agent's own token may be good while it cannot make others: that must not go round at full speed.
    fn pause(&self) -> Duration {
        let refusals = self.refusals.load(Ordering::Relaxed).saturating_sub(1).min(10);
        FIRST_PAUSE.saturating_mul(1_u32.checked_shl(refusals).unwrap_or(u32::MAX)).min(MAX_BACKOFF)
    }

    fn say(&self, standing: SessionState) {
        self.standing.send_if_modified(|known| {
            let news = *known != standing;
            if news {
                match &standing {
                    SessionState::Unavailable(why) => tracing::warn!("Vault is unavailable: {why}"),
                    _ => tracing::info!("logged in to Vault at {}", self.client.server().address),
                }
                *known = standing;
            }
            news
        });
    }

    /// Logs in, renews or looks whether the token lives; how long until the next time.
    async fn tend(&self) -> Result<Duration, VaultError> {
        let mut held = self.held.lock().await;
        if let Auth::TokenFile(path) = &self.auth {
            let fresh = read_secret(path)?;
            if held.session.as_ref().is_none_or(|session| session.token != fresh) {
                held.session = Some(self.adopt(fresh).await?);
                return Ok(FILE_RETRY_INTERVAL);
            }
        }
        let alive = match &held.session {
            None => false,
            Some(session) if session.ttl.is_some_and(|ttl| session.from.elapsed() >= two_thirds(ttl)) => {
                // One that was made to last longer is not cut to what the role says.
                let longer =
                    session.left().filter(|left| session.granted.is_some_and(|granted| *left > granted));
                match self.renew_for(session, longer).await {
                    Ok(renewed) => {
                        let enough = renewed.ttl
                            >= renewed.granted.map(|granted| granted.saturating_sub(Duration::from_secs(1)));
                        held.session = Some(renewed);
                        enough
                    }
                    // It lives on until its end, and the next attempt comes before.
                    Err(error) if error.may_pass() && !matches!(error, VaultError::TokenDead { .. }) => {
                        return Err(error);
                    }
                    Err(_) => false,
                }
            }
            Some(session) => {
                // Without a token: an answer that is not that of a Vault costs it nothing.
                self.client.health().await?;
                let path = "auth/token/lookup-self";
                match self
                    .client
                    .ask(Request {
                        token: Some(&session.token),
                        ..Request::new(Method::GET, path, "look at the agent's token")
                    })
                    .await
                {
                    Ok(_) | Err(VaultError::Denied { .. }) => true,
                    Err(VaultError::TokenDead { .. }) => false,
                    Err(error) => return Err(error),
                }
            }
        };
        if !alive {
            let session = self.login(&mut held).await?;
            held.session = Some(session);
        }
        let next = held.session.as_ref().and_then(|session| {
            let due = two_thirds(session.ttl?);
            Some(due.saturating_sub(session.from.elapsed()))
        });
        let next = next.unwrap_or(LOOK_EVERY).clamp(FIRST_PAUSE, LOOK_EVERY);
        Ok(if matches!(self.auth, Auth::TokenFile(_)) { next.min(FILE_RETRY_INTERVAL) } else { next })
    }

    /// Sees to it that the agent's token lasts for `needs`: it is renewed for so long, or if that is too near its
    /// longest life there is a new login. How long it lasts then; `None`: without end, or for as long as it is renewed.
    async fn outlive(&self, held: &mut Held, needs: Duration) -> Result<Option<Duration>, VaultError> {
        for login in [false, true] {
            let Some(session) = &held.session else { return Ok(None) };
            let Some(left) = session.left().filter(|left| *left < needs) else { return Ok(session.left()) };
            let made = matches!(self.auth, Auth::AppRole { .. } | Auth::Cert { .. });
            // A new login adds at most the age of the present one.
            let helps = session.born.elapsed() >= YOUNG
                || left.saturating_add(session.born.elapsed()).saturating_add(SLACK) >= needs;
            if login && (!made || !helps) {
                break;
            }
            if login {
                // It may be that no second login is allowed: then the present one is what there is.
                match self.login(held).await {
                    Ok(session) => held.session = Some(session),
                    Err(_) => return Ok(Some(left)),
                }
            }
            let Some(session) = &held.session else { return Ok(None) };
            match self.renew_for(session, Some(needs)).await {
                Ok(renewed) => held.session = Some(renewed),
                // It is told when the token for the run is asked for.
                Err(VaultError::TokenDead { .. }) => return Ok(None),
                Err(error) if error.may_pass() => return Err(error),
                Err(_) => {}
            }
        }
        let Some(session) = &held.session else { return Ok(None) };
        let (path, action) = ("auth/token/lookup-self", "look at the agent's token");
        match self
            .client
            .ask(Request { token: Some(&session.token), ..Request::new(Method::GET, path, action) })
            .await
        {
            Ok(about) if about["data"]["period"].as_u64().is_some_and(|period| period > 0) => Ok(None),
            _ => Ok(session.left()),
        }
    }

    /// The client.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// The policies of tokens for runs; `None`: the agent's own.
    pub fn run_policies(&self) -> Option<&[String]> {
        self.run_policies.as_deref()
    }

    /// How often watched secrets are looked at.
    pub fn secret_poll_interval(&self) -> Duration {
        self.secret_poll_interval
    }

    /// The agent's own token, if it has one.
    pub(super) async fn token(&self) -> Option<Secret> {
        self.held.lock().await.session.as_ref().map(|session| session.token.clone())
    }

    /// The token was found dead: it is looked after before its time.
    pub(super) fn tend_soon(&self) {
        self.kick.notify_one();
    }

    /// Whether a login would spend what it logs in with.
    pub fn logs_in_once(&self) -> bool {
        matches!(self.auth, Auth::AppRole { wrapped: true, .. })
    }

    /// A token like the agent's, and whether it was made for this. It spends a wrapped secret id.
    pub(super) async fn try_login(&self) -> Result<(Secret, bool), VaultError> {
        let session = self.login(&mut Held::default()).await?;
        Ok((session.token, matches!(self.auth, Auth::AppRole { .. } | Auth::Cert { .. })))
    }

    async fn login(&self, held: &mut Held) -> Result<Session, VaultError> {
        let (path, body) = match &self.auth {
            Auth::Token(token) => return self.adopt(trimmed(token.clone(), "VAULT_TOKEN")?).await,
            Auth::TokenFile(path) => return self.adopt(read_secret(path)?).await,
            Auth::Cert { mount, name } => {
                let body = name.as_ref().map_or_else(|| json!({}), |name| json!({"name": name}));
                (format!("auth/{mount}/login"), body)
            }
            Auth::AppRole { mount, role_id_file, secret_id, wrapped } => {
                let role = read_secret(role_id_file)?;
                let mut body = json!({"role_id": role.reveal()});
                if let Some(path) = secret_id_file(secret_id) {
                    let id = if *wrapped { self.unwrap(held, &path).await? } else { read_secret(&path)? };
                    body["secret_id"] = Value::String(id.reveal().to_owned());
                }
                (format!("auth/{mount}/login"), body)
            }
        };
        let ids = Secret::new(body.to_string());
        if let Some(refused) = held.refused.as_mut().filter(|refused| refused.ids == ids)
            && refused.are_too_many(Instant::now())
        {
            return Err(refused.first.clone());
        }
        match self.log_in_with(&path, &body).await {
            Ok(session) => {
                held.refused = None;
                Ok(session)
            }
            Err(error) if error.may_pass() => Err(error),
            Err(error) => {
                let mut refused = held
                    .refused
                    .take()
                    .filter(|refused| refused.ids == ids)
                    .unwrap_or_else(|| RefusedLogins { ids, at: Vec::new(), first: error });
                refused.at.push(Instant::now());
                let first = refused.first.clone();
                held.refused = Some(refused);
                Err(first)
            }
        }
    }

    /// One login, and a look whether its token is good here: one that is bound to other addresses is given, but is of
    /// no use.
    async fn log_in_with(&self, path: &str, body: &Value) -> Result<Session, VaultError> {
        let place = || self.client.server().address.clone();
        let refused = |why: String| VaultError::Refused {
            place: place(),
            action: format!("log the agent in at {}", path.trim_end_matches("/login")),
            why,
        };
        let answer = match self
            .client
            .ask(Request { body: Some(body), ..Request::new(Method::POST, path, "log the agent in") })
            .await
        {
            // No token was sent: nothing is dead, and no policy is asked.
            Err(VaultError::TokenDead { .. } | VaultError::Denied { .. }) => {
                return Err(refused(
                    "403 permission denied: is `mount` right, is the role locked after failed logins?"
                        .to_owned(),
                ));
            }
            Err(VaultError::Refused { why, .. }) => return Err(refused(why)),
            answer => answer?,
        };
        let (token, ttl, renewable) = self.auth_of(answer)?;
        let (own, action) = ("auth/token/lookup-self", "look at the agent's token");
        if let Err(VaultError::TokenDead { .. }) =
            self.client.ask(Request { token: Some(&token), ..Request::new(Method::GET, own, action) }).await
        {
            let why = "its token is refused at once: is it bound to other addresses (token_bound_cidrs), or to one use?";
            return Err(refused(why.to_owned()));
        }
        let now = Instant::now();
        Ok(Session { token, born: now, from: now, ttl, renewable, granted: ttl })
    }

    /// The secret id that a file holds wrapped. It can be had once: a second time somebody else was there before.
    async fn unwrap(&self, held: &mut Held, path: &Path) -> Result<Secret, VaultError> {
        let wrapping = read_secret(path)?;
        if held.spent.as_ref() == Some(&wrapping) {
            return match held.unwrapped.clone() {
                Some(id) if !held.stolen => Ok(id),
                _ => Err(VaultError::Stolen { path: path.to_owned() }),
            };
        }
        let action = "unwrap the secret id";
        let answer = self
            .client
            .ask(Request {
                token: Some(&wrapping),
                ..Request::new(Method::POST, "sys/wrapping/unwrap", action)
            })
            .await;
        match answer {
            Ok(answer) => {
                let id = answer["data"]["secret_id"].as_str().map(|id| Secret::new(id.to_owned()));
                held.spent = Some(wrapping);
                held.stolen = false;
                held.unwrapped = id.clone();
                id.ok_or_else(|| VaultError::Local(format!("{} wraps no secret id", path.display())))
            }
            // Sealed, away and busy servers spend nothing.
            Err(error) if error.may_pass() && !matches!(error, VaultError::TokenDead { .. }) => Err(error),
            // Only these words say that somebody was there before.
            Err(error) if !matches!(error, VaultError::Spent { .. }) => Err(error),
            Err(_) => {
                held.spent = Some(wrapping);
                held.stolen = true;
                tracing::error!("{}", VaultError::Stolen { path: path.to_owned() });
                Err(VaultError::Stolen { path: path.to_owned() })
            }
        }
    }

    /// A token from outside: how long it lives is asked.
    async fn adopt(&self, token: Secret) -> Result<Session, VaultError> {
        let path = "auth/token/lookup-self";
        let answer = self
            .client
            .ask(Request {
                token: Some(&token),
                ..Request::new(Method::GET, path, "look at the agent's token")
            })
            .await?;
        let data = &answer["data"];
        let ttl = data["ttl"].as_u64().filter(|ttl| *ttl > 0).map(super::wire::seconds);
        let renewable = data["renewable"] == Value::Bool(true);
        let now = Instant::now();
        Ok(Session { token, born: now, from: now, ttl, renewable, granted: ttl })
    }

    /// Renews for so long; for what the role says, where that is not said.
    async fn renew_for(&self, session: &Session, span: Option<Duration>) -> Result<Session, VaultError> {
        if !session.renewable {
            return Err(VaultError::Local("the agent's token cannot be renewed".to_owned()));
        }
        let (path, action) = ("auth/token/renew-self", "renew the agent's token");
        let body = span.map_or_else(|| json!({}), |span| json!({"increment": span.as_secs().max(1)}));
        let answer = self
            .client
            .ask(Request {
                body: Some(&body),
                token: Some(&session.token),
                ..Request::new(Method::PUT, path, action)
            })
            .await?;
        let (token, ttl, renewable) = self.auth_of(answer)?;
        let (born, granted) = (session.born, session.granted);
        Ok(Session { token, born, from: Instant::now(), ttl, renewable, granted })
    }

    fn auth_of(&self, answer: Value) -> Result<(Secret, Option<Duration>, bool), VaultError> {
        let auth = &answer["auth"];
        let token = auth["client_token"].as_str().filter(|token| !token.is_empty());
        let Some(token) = token else {
            let place = self.client.server().address.clone();
            return Err(VaultError::Away { place, why: "an answer without a token".to_owned() });
        };
        let ttl = auth["lease_duration"].as_u64().filter(|ttl| *ttl > 0).map(Duration::from_secs);
        Ok((Secret::new(token.to_owned()), ttl, auth["renewable"] == Value::Bool(true)))
    }
}

/// The file to read the secret id from; `None`: there is none.
fn secret_id_file(at: &SecretIdAt) -> Option<PathBuf> {
    let changed = |path: &PathBuf| fs::metadata(path).and_then(|about| about.modified()).ok();
    match at {
        SecretIdAt::Named(path) => Some(path.clone()),
        // The unit hands over an empty line where there is no file.
        SecretIdAt::Usual(paths) => {
            paths.iter().filter(|path| read_secret(path).is_ok()).max_by_key(|path| changed(path)).cloned()
        }
    }
}

fn read_secret(path: &Path) -> Result<Secret, VaultError> {
    let text = plain::read_text(path, MAX_FILE).map_err(|error| {
        VaultError::Local(match error.kind() {
            std::io::ErrorKind::NotFound => format!("there is no file {}", path.display()),
            _ => format!("cannot read {}: {error}", path.display()),
        })
    })?;
    trimmed(Secret::new(text.as_str().to_owned()), &path.display().to_string())
}

fn trimmed(secret: Secret, place: &str) -> Result<Secret, VaultError> {
    secret.trimmed().ok_or_else(|| VaultError::Local(format!("{place} is empty")))
}

/// When a token is renewed: with a third of its life left, for attempts that fail.
fn two_thirds(life: Duration) -> Duration {
    life.checked_div(3).unwrap_or_default().saturating_mul(2)
}

/// A tenth less or more, so that a fleet does not ask all at once.
pub fn jittered(span: Duration) -> Duration {
    span.saturating_mul(fastrand::u32(9_000..=11_000)).checked_div(10_000).unwrap_or(span)
}
