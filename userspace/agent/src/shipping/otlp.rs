//! OTLP logs over HTTP in their JSON form: `POST ENDPOINT/v1/logs`, a batch a request.
//!
//! HTTP without TLS, to an address: names are not resolved (docs/adr/0001), and a collector on
//! this host does both better. A receiver that is busy or gone gets the same batch again; one
//! that says that it will never take it, not.

use std::{net::SocketAddr, str::FromStr, time::Duration};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, StatusCode, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};

use super::{Failed, Receiver, message, priority, verdict_word};
use crate::event::Event;

/// From the connection to the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// What of an answer is read.
const ANSWER: usize = 64 << 10;

/// `http://ADDRESS:PORT[/PATH]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    address: SocketAddr,
    host: String,
    path: String,
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const WANTED: &str = "expected http://ADDRESS:PORT, such as http://127.0.0.1:4318";
        let rest = text.strip_prefix("http://").ok_or_else(|| {
            if text.starts_with("https://") {
                "TLS is not spoken: let a collector on this host do that".to_owned()
            } else {
                WANTED.to_owned()
            }
        })?;
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let with_port = match host.strip_prefix("localhost") {
            Some(port) => format!("127.0.0.1{port}"),
            None => host.to_owned(),
        };
        let address = with_port
            .parse()
            .or_else(|_| format!("{with_port}:4318").parse())
            .map_err(|_| format!("{WANTED}; names are not resolved"))?;
        if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(WANTED.to_owned());
        }
        let path = path.trim_end_matches('/');
        let path = match path {
            "" => "/v1/logs".to_owned(),
            path if path.ends_with("v1/logs") => format!("/{path}"),
            path => format!("/{path}/v1/logs"),
        };
        Ok(Self {
            address,
            host: host.to_owned(),
            path,
        })
    }
}

#[derive(Debug)]
pub(crate) struct Otlp {
    endpoint: Endpoint,
}

impl Otlp {
    pub(crate) fn new(endpoint: Endpoint) -> Self {
        Self { endpoint }
    }

    async fn post(&self, body: Vec<u8>) -> Result<StatusCode, String> {
        let stream = TcpStream::connect(self.endpoint.address)
            .await
            .map_err(|error| error.to_string())?;
        let told = |error: hyper::Error| error.to_string();
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(told)?;
        // Its end shows in the answer.
        let connection = tokio::spawn(connection);
        let request = Request::builder()
            .method(Method::POST)
            .uri(&self.endpoint.path)
            .header("host", &self.endpoint.host)
            .header("content-type", "application/json")
            .header("connection", "close")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| error.to_string())?;
        let answer = sender.send_request(request).await;
        let status = match answer {
            Ok(answer) => {
                let status = answer.status();
                // What it says is its own matter; it is read so that it can say it.
                let _ = Limited::new(answer.into_body(), ANSWER).collect().await;
                Ok(status)
            }
            Err(error) => Err(told(error)),
        };
        connection.abort();
        status
    }
}

impl Receiver for Otlp {
    async fn send(&mut self, events: &[Event]) -> Result<(), Failed> {
        let at = format!("http://{}{}", self.endpoint.host, self.endpoint.path);
        let posted = timeout(PATIENCE, self.post(request(events))).await;
        match posted {
            Err(_) => Err(Failed::Later(format!(
                "{at}: no answer in {} s",
                PATIENCE.as_secs()
            ))),
            Ok(Err(line)) => Err(Failed::Later(format!("{at}: {line}"))),
            Ok(Ok(status)) if status.is_success() => Ok(()),
            Ok(Ok(status))
                if status.is_client_error()
                    && status != StatusCode::TOO_MANY_REQUESTS
                    && status != StatusCode::REQUEST_TIMEOUT =>
            {
                Err(Failed::Refused(format!("{at} answers {status}")))
            }
            Ok(Ok(status)) => Err(Failed::Later(format!("{at} answers {status}"))),
        }
    }
}

fn request(events: &[Event]) -> Vec<u8> {
    let records: Vec<Value> = events.iter().map(record).collect();
    let request = json!({"resourceLogs": [{
        "resource": {"attributes": [
            text("service.name", "paddock"),
            text("host.name", &host_name()),
        ]},
        "scopeLogs": [{
            "scope": {"name": "paddock", "version": env!("CARGO_PKG_VERSION")},
            "logRecords": records,
        }],
    }]});
    serde_json::to_vec(&request).unwrap_or_default()
}

fn record(event: &Event) -> Value {
    let (number, word) = match priority(&event.kind) {
        2 => (17, "ERROR"),
        4 => (13, "WARN"),
        5 => (10, "INFO2"),
        _ => (9, "INFO"),
    };
    let mut attributes = vec![
        text("event.name", event.kind.name()),
        text("paddock.event.id", &event.id.to_string()),
        text(
            "paddock.event.json",
            &serde_json::to_string(event).unwrap_or_default(),
        ),
    ];
    let verdict = verdict_word(&event.kind);
    for (key, value) in [
        ("container.name", event.container.as_deref()),
        ("container.id", event.container_id.as_deref()),
        ("paddock.verdict", verdict),
    ] {
        attributes.extend(value.map(|value| text(key, value)));
    }
    json!({
        "timeUnixNano": event.time_ns.to_string(),
        "severityNumber": number,
        "severityText": word,
        "body": {"stringValue": message(event)},
        "attributes": attributes,
    })
}

fn text(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        for (given, address, path) in [
            ("http://127.0.0.1:4318", "127.0.0.1:4318", "/v1/logs"),
            ("http://localhost:9/", "127.0.0.1:9", "/v1/logs"),
            ("http://[::1]:4318/otlp", "[::1]:4318", "/otlp/v1/logs"),
            ("http://10.0.0.1/v1/logs", "10.0.0.1:4318", "/v1/logs"),
        ] {
            let endpoint: Endpoint = given.parse().unwrap();
            assert_eq!(
                (
                    endpoint.address.to_string().as_str(),
                    endpoint.path.as_str()
                ),
                (address, path)
            );
        }
        for wrong in [
            "",
            "127.0.0.1:4318",
            "https://127.0.0.1",
            "http://collector:4318",
            "http://1.2.3.4:1/a b",
        ] {
            assert!(wrong.parse::<Endpoint>().is_err(), "{wrong}");
        }
    }
}
