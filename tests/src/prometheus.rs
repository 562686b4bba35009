//! A real Prometheus on loopback that scrapes an agent each second.

use std::{
    fmt::Write as _,
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

const ALERTMANAGER: &str = "prometheus-alertmanager";
const RULES: &str = include_str!("../../dashboards/prometheus/paddock.rules.yml");

/// Ended, with all that it stored, when dropped.
#[derive(Debug)]
pub struct Prometheus {
    server: Child,
    pub address: String,
    dir: PathBuf,
}

/// Besides the target.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Where an Alertmanager listens, which gets what the rules of dashboards/prometheus say.
    pub alertmanager: Option<String>,
    /// More of the scrape's configuration, a line each: `scheme: https`.
    pub scrape: Option<String>,
}

impl Prometheus {
    /// Guests carry none; this machine always does.
    pub fn is_here() -> Result<bool> {
        let said = Command::new("prometheus").arg("--version").output();
        match said {
            Ok(_) => Ok(true),
            Err(error) => {
                let missing = error.raw_os_error() == Some(nix::libc::ENOENT);
                ensure!(
                    missing && pure_v2(),
                    "prometheus: {error}: use `cargo xtask test`"
                );
                Ok(false)
            }
        }
    }

    /// Scraping the context's agent; `None` in guests, which carry none.
    pub fn of(context: &Context) -> Result<Option<Self>> {
        Self::start(context, &Config::default())
    }

    pub fn start(context: &Context, wanted: &Config) -> Result<Option<Self>> {
        let dir = context.state.with_extension("prometheus");
        let target = context.address()?;
        let config = dir.join("prometheus.yml");
        // Free now; Prometheus has no way to choose one itself.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        fs::create_dir(&dir)?;
        let mut text = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nscrape_configs:\n\
             - job_name: paddock\n  static_configs: [{{targets: ['{target}']}}]\n"
        );
        if let Some(scrape) = &wanted.scrape {
            for line in scrape.lines() {
                let _ = writeln!(text, "  {line}");
            }
        }
        if let Some(alertmanager) = &wanted.alertmanager {
            fs::write(dir.join("rules.yml"), RULES)?;
            let _ = write!(
                text,
                "rule_files: [rules.yml]\nalerting:\n  alertmanagers:\n  - static_configs: \
                 [{{targets: ['{alertmanager}']}}]\n"
            );
        }
        fs::write(&config, text)?;
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
        let body = get(&self.address, path)?;
        ensure!(body["status"] == "success", "{body}");
        let found = body["data"]["result"].as_array().context("no result")?;
        Ok(found.clone())
    }
}

/// Hands what it gets to a webhook at once; ended when dropped.
#[derive(Debug)]
pub struct Alertmanager {
    server: Child,
    pub address: String,
    dir: PathBuf,
}

impl Alertmanager {
    /// `None` in guests, which carry none.
    pub fn start(context: &Context, webhook: Option<&str>) -> Result<Option<Self>> {
        let dir = context.state.with_extension("alertmanager");
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        fs::create_dir(&dir)?;
        let config = dir.join("alertmanager.yml");
        let mut text = "route: {receiver: hook, group_by: [alertname, container], \
            group_wait: 100ms, group_interval: 1s}\nreceivers:\n- name: hook\n"
            .to_owned();
        if let Some(webhook) = webhook {
            let _ = writeln!(text, "  webhook_configs:\n  - url: http://{webhook}/");
        }
        fs::write(&config, text)?;
        let Some(program) = on_path(ALERTMANAGER) else {
            fs::remove_dir_all(&dir)?;
            ensure!(
                pure_v2(),
                "{ALERTMANAGER} is not here: use `cargo xtask test`"
            );
            return Ok(None);
        };
        // Debian's takes its templates from a fixed place, where a package that was only
        // extracted has not put them: into a mount namespace of its own, over what is there.
        let share = program.ancestors().nth(2).context("no root")?.join("share");
        let script = "test -e /usr/share/prometheus/alertmanager/default.tmpl || \
                      mount -t overlay overlay -o lowerdir=\"$1\":/usr/share /usr/share; \
                      shift; exec \"$@\"";
        let server = Command::new("unshare")
            .args(["-m", "sh", "-c", script, "sh"])
            .arg(share)
            .arg(program)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.path={}", dir.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            // Alone: no gossip, no port for it.
            .arg("--cluster.listen-address=")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let server = Self {
            server,
            address,
            dir,
        };
        eventually("Alertmanager answers", || Ok(server.names().is_ok()))?;
        Ok(Some(server))
    }
}

impl Alertmanager {
    /// Of the alerts that it has now.
    pub fn names(&self) -> Result<Vec<String>> {
        let alerts = get(&self.address, "/api/v2/alerts")?;
        let alerts = alerts.as_array().context("no alerts")?;
        let name = |alert: &Value| Some(alert["labels"]["alertname"].as_str()?.to_owned());
        Ok(alerts.iter().filter_map(name).collect())
    }
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

fn get(address: &str, path: &str) -> Result<Value> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_mins(1)))?;
    // An answer to HTTP/1.0 is in one piece.
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").context("no body")?;
    serde_json::from_str(body).with_context(|| body.to_owned())
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
