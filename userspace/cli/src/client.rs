//! The agent's API from outside: HTTP/1.1 on `STATE/paddock.sock`.
//!
//! One connection a request, on a single-threaded runtime: `paddock run` starts in a
//! millisecond and a connection costs the agent nothing. Fails with the agent's own line, or
//! with [`Error::NoAgent`] when nobody listens.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    time::Duration,
};

use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use paddock_agent::api::ErrorBody;
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::UnixStream;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("no agent answers on {}: start one with `paddock agent`", socket.display())]
    NoAgent {
        socket: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// There may be one.
    #[error("no access to the agent on {}: it takes root, and no policy against it", socket.display())]
    NoAccess {
        socket: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The agent said no; the line is its own.
    #[error("{message}")]
    Refused {
        status: StatusCode,
        message: String,
        exit_code: Option<i32>,
    },
    #[error("agent on {}: {op}", socket.display())]
    Broken {
        op: &'static str,
        socket: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Who ended a stream of lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The agent.
    Answer,
    /// Whoever reads, or a signal.
    Reader,
}

#[derive(Debug)]
pub(crate) struct Client {
    runtime: tokio::runtime::Runtime,
    socket: PathBuf,
}

impl Client {
    pub(crate) fn new(state_dir: &Path) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok(Self {
            runtime,
            socket: socket(state_dir),
        })
    }

    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.decode(&self.call(Method::GET, path, None)?)
    }

    /// As [`Self::get`], from an agent that may be busy, or stopped.
    pub(crate) fn get_within<T: DeserializeOwned>(
        &self,
        path: &str,
        patience: Duration,
    ) -> Result<T, Error> {
        self.decode(&self.answer_within(Method::GET, path, patience)?)
    }

    /// As [`Self::send`], the same.
    pub(crate) fn send_within(
        &self,
        method: Method,
        path: &str,
        patience: Duration,
    ) -> Result<(), Error> {
        self.answer_within(method, path, patience).map(drop)
    }

    /// Hands each whole line of an answer that ends to `line`; what does not come in time is left.
    pub(crate) fn lines_within(
        &self,
        path: &str,
        patience: Duration,
        mut line: impl FnMut(&str),
    ) -> Result<(), Error> {
        let read = async {
            let mut body = self.request(Method::GET, path, None).await?.into_body();
            let mut partial = Vec::new();
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|source| self.broken("read the stream", source))?;
                partial.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
                let mut rest = &*partial;
                while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
                    line(String::from_utf8_lossy(&rest[..end]).trim_end());
                    rest = &rest[end + 1..];
                }
                let left = rest.len();
                partial.drain(..partial.len() - left);
            }
            Ok(())
        };
        let read = self
            .runtime
            .block_on(async { tokio::time::timeout(patience, read).await });
        read.unwrap_or(Ok(()))
    }

    fn answer_within(
        &self,
        method: Method,
        path: &str,
        patience: Duration,
    ) -> Result<Bytes, Error> {
        let answer = self.runtime.block_on(async {
            tokio::time::timeout(patience, self.answer(method, path, None)).await
        });
        answer.map_err(|source| self.broken("wait for the answer", source))?
    }

    /// A request whose answer is empty.
    pub(crate) fn send(&self, method: Method, path: &str) -> Result<(), Error> {
        self.call(method, path, None).map(drop)
    }

    /// A file as it is.
    pub(crate) fn file<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        file: Vec<u8>,
    ) -> Result<T, Error> {
        self.decode(&self.call(method, path, Some(file))?)
    }

    pub(crate) fn post<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.decode(&self.call(Method::POST, path, None)?)
    }

    /// As [`Self::post`], from an agent that may be busy, or stopped.
    pub(crate) fn post_within<T: DeserializeOwned>(
        &self,
        path: &str,
        patience: Duration,
    ) -> Result<T, Error> {
        self.decode(&self.answer_within(Method::POST, path, patience)?)
    }

    pub(crate) fn post_json<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, Error> {
        let body =
            serde_json::to_vec(body).map_err(|source| self.broken("encode the request", source))?;
        self.decode(&self.call(Method::POST, path, Some(body))?)
    }

    /// Hands each line of a JSON lines answer to `line` as it comes, until the answer ends or
    /// SIGINT or SIGTERM arrive or stdout's reader leaves; which of both it was.
    pub(crate) fn lines(
        &self,
        path: &str,
        mut line: impl FnMut(&str) -> anyhow::Result<()>,
    ) -> anyhow::Result<End> {
        self.runtime.block_on(async {
            let mut body = self.request(Method::GET, path, None).await?.into_body();
            let mut partial = Vec::new();
            let left = crate::output::reader_left();
            tokio::pin!(left);
            let mut interrupt =
                tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
            let mut terminate =
                tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
            loop {
                let frame = tokio::select! {
                    frame = body.frame() => frame,
                    _ = interrupt.recv() => return Ok(End::Reader),
                    _ = terminate.recv() => return Ok(End::Reader),
                    () = &mut left => return Ok(End::Reader),
                };
                let Some(frame) = frame else {
                    return Ok(End::Answer);
                };
                let frame = frame.map_err(|source| self.broken("read the stream", source))?;
                partial.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
                while let Some(end) = partial.iter().position(|&byte| byte == b'\n') {
                    let whole: Vec<u8> = partial.drain(..=end).collect();
                    line(String::from_utf8_lossy(&whole).trim_end())?;
                }
            }
        })
    }

    /// Waits until an agent listens, for so long; in vain it fails as a request would.
    pub(crate) fn wait_for_agent(&self, patience: Duration) -> anyhow::Result<End> {
        const STEP: Duration = Duration::from_millis(100);
        self.runtime.block_on(async {
            let left = crate::output::reader_left();
            tokio::pin!(left);
            let mut interrupt =
                tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
            let mut terminate =
                tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
            let end = tokio::time::Instant::now() + patience;
            loop {
                // First, as one that is being killed still takes connections.
                tokio::select! {
                    () = tokio::time::sleep(STEP) => {}
                    _ = interrupt.recv() => return Ok(End::Reader),
                    _ = terminate.recv() => return Ok(End::Reader),
                    () = &mut left => return Ok(End::Reader),
                }
                match UnixStream::connect(&self.socket).await {
                    Ok(_) => return Ok(End::Answer),
                    Err(source) if tokio::time::Instant::now() > end => {
                        let socket = self.socket.clone();
                        return Err(Error::NoAgent { socket, source }.into());
                    }
                    Err(_) => {}
                }
            }
        })
    }

    fn call(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<Bytes, Error> {
        self.runtime.block_on(self.answer(method, path, body))
    }

    async fn answer(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Bytes, Error> {
        let answer = self.request(method, path, body).await?;
        let body = answer.into_body().collect().await;
        Ok(body
            .map_err(|source| self.broken("read the answer", source))?
            .to_bytes())
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Response<Incoming>, Error> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|source| {
            let socket = self.socket.clone();
            if source.kind() == ErrorKind::PermissionDenied {
                Error::NoAccess { socket, source }
            } else {
                Error::NoAgent { socket, source }
            }
        })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|source| self.broken("connect", source))?;
        // Its end shows in the answer's body; nothing to report twice.
        tokio::spawn(async move {
            let _ = connection.await;
        });
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "paddock")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body.unwrap_or_default())))
            .map_err(|source| self.broken("build the request", source))?;
        let answer = sender
            .send_request(request)
            .await
            .map_err(|source| self.broken("send the request", source))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let body = answer
            .into_body()
            .collect()
            .await
            .map(http_body_util::Collected::to_bytes)
            .unwrap_or_default();
        let told: Option<ErrorBody> = serde_json::from_slice(&body).ok();
        Err(Error::Refused {
            status,
            exit_code: told.as_ref().and_then(|told| told.exit_code),
            message: told.map_or_else(
                || {
                    format!(
                        "the agent answered {status}: {}",
                        String::from_utf8_lossy(&body)
                    )
                },
                |told| told.error,
            ),
        })
    }

    fn decode<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, Error> {
        serde_json::from_slice(body)
            .map_err(|source| self.broken("understand the answer (another version?)", source))
    }

    fn broken(
        &self,
        op: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        Error::Broken {
            op,
            socket: self.socket.clone(),
            source: source.into(),
        }
    }
}

pub(crate) fn socket(state_dir: &Path) -> PathBuf {
    state_dir.join("paddock.sock")
}

/// `/v1/containers/REF`, with whatever the user typed made safe for a path.
pub(crate) fn container_path(reference: &str, rest: &str) -> String {
    format!("/v1/containers/{}{rest}", encode(reference))
}

/// Percent-encodes all but the unreserved characters.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.extend([byte >> 4, byte & 15].map(hex));
        }
    }
    encoded
}

fn hex(digit: u8) -> char {
    char::from_digit(digit.into(), 16).map_or('0', |digit| digit.to_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_stay_in_their_path_segment() {
        assert_eq!(
            container_path("a/../b?c", "/wait"),
            "/v1/containers/a%2F..%2Fb%3Fc/wait"
        );
        assert_eq!(container_path("web-1_x.y", ""), "/v1/containers/web-1_x.y");
    }
}
