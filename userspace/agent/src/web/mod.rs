//! Who may see the metrics end, by exporter-toolkit's web file: TLS, clients' certificates,
//! passwords, headers, a rate.
//!
//! The file and those it names are looked at when somebody comes, once a second at most, and are
//! read again when they changed. A file that is wrong keeps an agent from starting; one that
//! becomes wrong changes nothing, and the log says why.

mod client;
mod file;
mod login;
mod rate;
mod serve;
mod settings;
mod socket;
#[cfg(test)]
mod tests;
mod timed;
#[cfg(test)]
mod timed_tests;
mod tls;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use paddock_policy::{printable, quote};
use rustls::ServerConfig;
use tokio::sync::Semaphore;

use self::{file::Stamp, login::Users, rate::Bucket, settings::Http, timed::Times};
pub(crate) use self::{serve::serve, socket::inherited};

/// Files are not looked at more often.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    File(String),
    #[error("{path}:{what}")]
    Yaml { path: String, what: String },
    #[error("{path}: {key}: {what}")]
    Key {
        path: String,
        key: &'static str,
        what: String,
    },
    #[error("no socket was handed over: {0}")]
    Socket(String),
}

/// A key's fault, before it is known of which file.
struct Wrong {
    key: &'static str,
    what: String,
}

fn wrong(key: &'static str, what: impl Into<String>) -> Wrong {
    Wrong {
        key,
        what: what.into(),
    }
}

fn quoted(word: &str) -> String {
    printable(&quote(word))
}

/// What was not served, and why.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Refusal {
    /// No TLS, no certificate that is good enough, or too slow at it.
    Handshake,
    Login,
    Rate,
    /// A head that did not end, an answer that nobody reads.
    Slow,
    /// Every seat was taken by somebody who was served.
    Full,
}

impl Refusal {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Handshake, "handshake"),
        (Self::Login, "login"),
        (Self::Rate, "rate"),
        (Self::Slow, "slow"),
        (Self::Full, "full"),
    ];
}

/// What the files say now.
struct Terms {
    tls: Option<Arc<ServerConfig>>,
    users: Option<Arc<Users>>,
    headers: HeaderMap,
    rate: Option<Bucket>,
}

/// The way in.
pub(crate) struct Door {
    /// `None`: everybody may, in the clear.
    path: Option<PathBuf>,
    terms: RwLock<Arc<Terms>>,
    looked: Mutex<Instant>,
    /// Of the last try, good or not; held while files are read.
    files: Mutex<Vec<Stamp>>,
    /// One password at a time.
    turn: Arc<Semaphore>,
    refused: [AtomicU64; Refusal::ALL.len()],
    times: Times,
}

impl Door {
    /// Blocking.
    pub(crate) fn new(path: Option<&Path>) -> Result<Self, Error> {
        let mut files = Vec::new();
        let terms = match path {
            Some(path) => read(path, &mut files)?,
            None => Terms {
                tls: None,
                users: None,
                headers: HeaderMap::new(),
                rate: None,
            },
        };
        Ok(Self {
            path: path.map(Path::to_owned),
            terms: RwLock::new(Arc::new(terms)),
            looked: Mutex::new(Instant::now()),
            files: Mutex::new(files),
            turn: Arc::new(Semaphore::new(1)),
            refused: Default::default(),
            times: Times::USUAL,
        })
    }

    pub(crate) fn scheme(&self) -> &'static str {
        if self.now().tls.is_some() {
            "https"
        } else {
            "http"
        }
    }

    pub(crate) fn refusals(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let count = |(refusal, word): (Refusal, _)| {
            (word, self.refused[refusal as usize].load(Ordering::Relaxed))
        };
        Refusal::ALL.into_iter().map(count)
    }

    fn refuse(&self, refusal: Refusal) {
        self.refused[refusal as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn now(&self) -> Arc<Terms> {
        // It is replaced as a whole, so a panic elsewhere leaves one or the other.
        Arc::clone(&self.terms.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What holds for whoever comes now.
    async fn terms(self: &Arc<Self>) -> Arc<Terms> {
        if self.path.is_some() && self.is_time() {
            let this = Arc::clone(self);
            // A panic in it has told of itself, and what held holds.
            let _ = tokio::task::spawn_blocking(move || this.look()).await;
        }
        self.now()
    }

    fn is_time(&self) -> bool {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let time = looked.elapsed() >= LOOK;
        if time {
            *looked = Instant::now();
        }
        time
    }

    fn look(&self) {
        let Some(path) = &self.path else { return };
        // Somebody looks already, and longer than usual: no heap of those who wait for a disk.
        let Ok(mut known) = self.files.try_lock() else {
            return;
        };
        if !known.iter().any(Stamp::is_old) {
            return;
        }
        let mut files = Vec::new();
        match read(path, &mut files) {
            Ok(terms) => {
                *self.terms.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(terms);
                tracing::info!("{} holds anew", printable(&path.display().to_string()));
            }
            Err(error) => tracing::error!("who may see metrics is as before: {error}"),
        }
        *known = files;
    }
}

impl std::fmt::Debug for Door {
    /// Without its secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// Reads what a web file names, from the directory that it is in.
struct Files<'a> {
    dir: &'a Path,
    stamps: &'a mut Vec<Stamp>,
}

impl Files<'_> {
    /// A file's content or the text in its place.
    fn either(
        &mut self,
        file: (&'static str, &Option<String>),
        text: (&'static str, &Option<String>),
    ) -> Result<Vec<u8>, Wrong> {
        let given = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
        match (given(file.1), given(text.1)) {
            (Some(_), Some(_)) => Err(wrong(
                text.0,
                format!("stands beside {}: leave one out", file.0),
            )),
            (None, None) => Err(wrong(file.0, format!("is missing, and so is {}", text.0))),
            (None, Some(text)) => Ok(text.into_bytes()),
            (Some(name), None) => {
                let path = self.dir.join(name);
                self.stamps.push(Stamp::of(path.clone()));
                let content = file::read(&path).map_err(|what| wrong(file.0, what))?;
                if file.0 == "key_file" && content.is_open {
                    tracing::warn!(
                        "others than its owner can read the private key {}: chmod go-r",
                        printable(&path.display().to_string())
                    );
                }
                Ok(content.bytes)
            }
        }
    }
}

fn read(path: &Path, stamps: &mut Vec<Stamp>) -> Result<Terms, Error> {
    let name = printable(&path.display().to_string());
    stamps.push(Stamp::of(path.to_owned()));
    let content = file::read(path).map_err(Error::File)?;
    let text = String::from_utf8(content.bytes)
        .map_err(|_| Error::File(format!("{name} is no UTF-8 text")))?;
    let settings = settings::parse(&text).map_err(|what| Error::Yaml {
        path: name.clone(),
        what,
    })?;
    let dir = path.parent().unwrap_or(Path::new("/"));
    let mut files = Files { dir, stamps };
    let of_key = |Wrong { key, what }| Error::Key {
        path: name.clone(),
        key,
        what,
    };
    let tls = settings.tls_server_config.unwrap_or_default();
    let tls = tls::server(&tls, &mut files).map_err(of_key)?;
    let headers = headers(&settings.http_server_config.unwrap_or_default()).map_err(of_key)?;
    let users = settings.basic_auth_users.filter(|users| !users.is_empty());
    let users = users
        .map(Users::new)
        .transpose()
        .map_err(|what| of_key(wrong("basic_auth_users", what)))?;
    let limit = settings.rate_limit.unwrap_or_default();
    Ok(Terms {
        tls: tls.map(Arc::new),
        users: users.map(Arc::new),
        headers,
        rate: Bucket::new(&limit).map_err(of_key)?,
    })
}

/// Those that exporter-toolkit lets be set.
fn headers(http: &Http) -> Result<HeaderMap, Wrong> {
    const KNOWN: [(&str, &[&str]); 5] = [
        ("Content-Security-Policy", &[]),
        ("Strict-Transport-Security", &[]),
        ("X-Content-Type-Options", &["nosniff"]),
        ("X-Frame-Options", &["deny", "sameorigin"]),
        ("X-XSS-Protection", &[]),
    ];
    if http.http2 == Some(true) {
        return Err(wrong(
            "http2",
            "is not spoken here: write false, or leave it out",
        ));
    }
    let mut headers = HeaderMap::new();
    for (name, value) in http.headers.iter().flatten() {
        let Some((_, values)) = KNOWN.iter().find(|(known, _)| known == name) else {
            let known: Vec<_> = KNOWN.iter().map(|(known, _)| *known).collect();
            let what = format!(
                "{} cannot be set; use some of {}",
                quoted(name),
                known.join(", ")
            );
            return Err(wrong("headers", what));
        };
        if !values.is_empty() && !values.contains(&value.as_str()) {
            let what = format!(
                "{name} takes {}, not {}",
                values.join(" or "),
                quoted(value)
            );
            return Err(wrong("headers", what));
        }
        let bad = |_| wrong("headers", format!("{} is no header's value", quoted(value)));
        let parsed = HeaderValue::from_str(value).map_err(bad)?;
        if let Ok(name) = HeaderName::from_bytes(name.as_bytes())
            && !value.is_empty()
        {
            headers.insert(name, parsed);
        }
    }
    Ok(headers)
}
