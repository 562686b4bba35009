//! A registry on loopback, as little of the distribution protocol as a pull needs, with the
//! troubles that real ones make: tokens, redirects to a storage, transfers that break off.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::image::{Image, MANIFEST};

#[derive(Clone, Copy, Debug, Default)]
pub struct Trouble {
    /// Nothing without a token, which one gets for this password.
    pub password: Option<&'static str>,
    /// Blobs are at another address.
    pub redirect: bool,
    /// The first transfer of each blob ends after half of it.
    pub breaks: bool,
    /// A blob comes a kilobyte at a time, this far apart.
    pub slow: Option<Duration>,
}

#[derive(Debug)]
pub struct Registry {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    blobs: BTreeMap<String, Vec<u8>>,
    /// Digests by `NAME:TAG`.
    tags: BTreeMap<String, String>,
    index: BTreeMap<String, String>,
    trouble: Trouble,
    storage: SocketAddr,
    broken: Vec<String>,
    log: Vec<String>,
}

/// What docker's client and paddock send as basic credentials for `me` and this password.
pub const PASSWORD: (&str, &str) = ("secret", "Basic bWU6c2VjcmV0");
const TOKEN: &str = "Bearer the-token";

struct Request {
    path: String,
    authorization: Option<String>,
    range: Option<usize>,
}

impl Request {
    fn line(&self, is_storage: bool) -> String {
        let place = if is_storage { "storage " } else { "" };
        let range = self
            .range
            .map_or_else(String::new, |from| format!(" range {from}"));
        let auth = if self.authorization.is_some() {
            " auth"
        } else {
            ""
        };
        format!("{place}{}{range}{auth}", self.path)
    }
}

impl Registry {
    pub fn start(trouble: Trouble) -> Result<Self> {
        let registry = TcpListener::bind("127.0.0.1:0")?;
        let storage = TcpListener::bind("127.0.0.1:0")?;
        let state = Arc::new(Mutex::new(State {
            blobs: BTreeMap::new(),
            tags: BTreeMap::new(),
            index: BTreeMap::new(),
            trouble,
            storage: storage.local_addr()?,
            broken: Vec::new(),
            log: Vec::new(),
        }));
        let address = registry.local_addr()?;
        for (listener, is_storage) in [(registry, false), (storage, true)] {
            let state = Arc::clone(&state);
            // They end with the process: accept has no other end.
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let state = Arc::clone(&state);
                    thread::spawn(move || serve(&stream, &state, is_storage));
                }
            });
        }
        Ok(Self { address, state })
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    pub fn push(&self, name: &str, image: &Image) {
        let mut state = lock(&self.state);
        state.blobs.extend(image.blobs.iter().cloned());
        state.tags.insert(name.to_owned(), image.manifest.clone());
    }

    /// An index under a tag, of manifests that are there already, by architecture.
    pub fn push_index(&self, name: &str, entries: &[(&str, &Image)]) -> Result<()> {
        let manifests: Vec<_> = entries
            .iter()
            .map(|(architecture, image)| {
                json!({"mediaType": MANIFEST, "digest": image.manifest, "size": image.size,
                    "platform": {"os": "linux", "architecture": architecture}})
            })
            .collect();
        let index = serde_json::to_vec(
            &json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}),
        )?;
        let digest = crate::image::digest(&index)?;
        let mut state = lock(&self.state);
        state.index.insert(digest.clone(), INDEX.to_owned());
        state.blobs.insert(digest.clone(), index);
        state.tags.insert(name.to_owned(), digest);
        Ok(())
    }

    /// Replaces a blob's content, not its name.
    pub fn corrupt(&self, digest: &str, content: &[u8]) {
        lock(&self.state)
            .blobs
            .insert(digest.to_owned(), content.to_vec());
    }

    /// `PATH` of each request, with ` range N` and ` auth` where it had them.
    pub fn log(&self) -> Vec<String> {
        lock(&self.state).log.clone()
    }
}

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One request a connection; a client that goes away is no failure.
fn serve(stream: &TcpStream, state: &Mutex<State>, is_storage: bool) {
    if let Ok(request) = read(stream) {
        let _ = answer(stream, state, &request, is_storage);
    }
    let _ = stream.shutdown(Shutdown::Both);
}

fn read(stream: &TcpStream) -> Result<Request> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().context("no request")??;
    let mut request = Request {
        path: first.split(' ').nth(1).context("no path")?.to_owned(),
        authorization: None,
        range: None,
    };
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(": ") else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => request.authorization = Some(value.to_owned()),
            "range" => {
                let from = value.trim_start_matches("bytes=").trim_end_matches('-');
                request.range = from.parse().ok();
            }
            _ => {}
        }
    }
    Ok(request)
}

fn answer(
    stream: &TcpStream,
    state: &Mutex<State>,
    request: &Request,
    is_storage: bool,
) -> std::io::Result<()> {
    let (trouble, storage) = {
        let mut state = lock(state);
        state.log.push(request.line(is_storage));
        (state.trouble, state.storage)
    };
    let host = stream.local_addr()?;
    if request.path.starts_with("/token") {
        let right =
            trouble.password.is_some() && request.authorization.as_deref() == Some(PASSWORD.1);
        return if right {
            send(stream, "200 OK", "", br#"{"token":"the-token"}"#)
        } else {
            send(stream, "401 Unauthorized", "", b"{}")
        };
    }
    if !is_storage && trouble.password.is_some() && request.authorization.as_deref() != Some(TOKEN)
    {
        let header = format!(
            "WWW-Authenticate: Bearer realm=\"http://{host}/token\",service=\"test\",scope=\"repository:app:pull\"\r\n"
        );
        let body = br#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required","detail":null}]}"#;
        return send(stream, "401 Unauthorized", &header, body);
    }
    if request.path == "/v2/" {
        return send(stream, "200 OK", "", b"{}");
    }
    let missing =
        br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":null}]}"#;
    if let Some((name, tag)) = request
        .path
        .trim_start_matches("/v2/")
        .split_once("/manifests/")
    {
        let found = {
            let state = lock(state);
            let digest = if tag.starts_with("sha256:") {
                Some(tag.to_owned())
            } else {
                state.tags.get(&format!("{name}:{tag}")).cloned()
            };
            digest.and_then(|digest| {
                let kind = state.index.get(&digest).map_or(MANIFEST, String::as_str);
                Some((kind.to_owned(), state.blobs.get(&digest)?.clone()))
            })
        };
        return match found {
            Some((kind, body)) => send(
                stream,
                "200 OK",
                &format!("Content-Type: {kind}\r\n"),
                &body,
            ),
            None => send(stream, "404 Not Found", "", missing),
        };
    }
    let Some((_, digest)) = request.path.split_once("/blobs/") else {
        return send(stream, "404 Not Found", "", missing);
    };
    if trouble.redirect && !is_storage {
        let header = format!("Location: http://{storage}{}\r\n", request.path);
        return send(stream, "307 Temporary Redirect", &header, b"");
    }
    let (blob, breaks) = {
        let mut state = lock(state);
        let Some(blob) = state.blobs.get(digest).cloned() else {
            return send(stream, "404 Not Found", "", missing);
        };
        let breaks = trouble.breaks && !state.broken.contains(&digest.to_owned());
        state.broken.push(digest.to_owned());
        (blob, breaks)
    };
    let from = request.range.unwrap_or(0).min(blob.len());
    let status = if request.range.is_some() {
        "206 Partial Content"
    } else {
        "200 OK"
    };
    let body = &blob[from..];
    head(stream, status, "", body.len())?;
    if breaks {
        return (&*stream).write_all(&body[..body.len() / 2]);
    }
    for chunk in body.chunks(if trouble.slow.is_some() {
        1024
    } else {
        usize::MAX
    }) {
        (&*stream).write_all(chunk)?;
        thread::sleep(trouble.slow.unwrap_or_default());
    }
    Ok(())
}

fn send(stream: &TcpStream, status: &str, header: &str, body: &[u8]) -> std::io::Result<()> {
    head(stream, status, header, body.len())?;
    (&*stream).write_all(body)
}

fn head(mut stream: &TcpStream, status: &str, header: &str, length: usize) -> std::io::Result<()> {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n{header}\r\n"
    );
    stream.write_all(head.as_bytes())
}
