//! A real Prometheus on loopback that scrapes an agent each second.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::context::{Context, eventually, pure_v2};

/// Ended, with all that it stored, when dropped.
#[derive(Debug)]
pub struct Prometheus {
    server: Child,
    address: String,
    dir: PathBuf,
}

impl Prometheus {
    /// Scraping the context's agent; `None` in guests, which carry none.
    pub fn of(context: &Context) -> Result<Option<Self>> {
        let dir = context.state.with_extension("prometheus");
        let target = context.address()?;
        let config = dir.join("prometheus.yml");
        // Free now; Prometheus has no way to choose one itself.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        fs::create_dir(&dir)?;
        fs::write(
            &config,
            format!(
                "global: {{scrape_interval: 1s}}\nscrape_configs:\n- job_name: paddock\n  \
                 static_configs: [{{targets: ['{target}']}}]\n"
            ),
        )?;
        let started = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let server = match started {
            Ok(server) => server,
            Err(error) => {
                fs::remove_dir_all(&dir)?;
                let missing = error.raw_os_error() == Some(nix::libc::ENOENT);
                ensure!(
                    missing && pure_v2(),
                    "prometheus: {error}: use `cargo xtask test`"
                );
                return Ok(None);
            }
        };
        let server = Self {
            server,
            address,
            dir,
        };
        eventually("the first scrape", || {
            Ok(server.query("up").is_ok_and(|found| !found.is_empty()))
        })?;
        Ok(Some(server))
    }

    /// What an instant query finds.
    pub fn query(&self, expression: &str) -> Result<Vec<Value>> {
        self.result(&format!("/api/v1/query?query={}", encoded(expression)))
    }

    /// What a query finds at any second of the last `span`.
    pub fn over(&self, expression: &str, span: Duration) -> Result<Vec<Value>> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        self.result(&format!(
            "/api/v1/query_range?query={}&start={}&end={}&step=1",
            encoded(expression),
            now.saturating_sub(span).as_secs(),
            now.as_secs()
        ))
    }

    fn result(&self, path: &str) -> Result<Vec<Value>> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(Duration::from_mins(1)))?;
        // An answer to HTTP/1.0 is in one piece.
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").context("no body")?;
        let body: Value = serde_json::from_str(body).with_context(|| body.to_owned())?;
        ensure!(body["status"] == "success", "{body}");
        let found = body["data"]["result"].as_array().context("no result")?;
        Ok(found.clone())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| {
            if byte.is_ascii_alphanumeric() {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}
