//! A real Prometheus scrapes a real agent. On the host only: guests carry no Prometheus.

use std::{
    fs,
    net::TcpListener,
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{
    context::{Context, eventually, pure_v2},
    metrics::Metrics,
    runner::Scenario,
};

pub const ALL: &[Scenario] =
    &[Scenario::new("prometheus::sees_an_oom_kill", sees_an_oom_kill).alone()];

fn sees_an_oom_kill(context: &Context) -> Result<()> {
    context.start_agent(&["--detach-on-exit"])?;
    let dir = context.state.with_extension("prometheus");
    fs::create_dir(&dir)?;
    let result = scraped(context, &dir);
    fs::remove_dir_all(&dir)?;
    result
}

fn scraped(context: &Context, dir: &std::path::Path) -> Result<()> {
    let target = context.address()?;
    let config = dir.join("prometheus.yml");
    fs::write(
        &config,
        format!(
            "global: {{scrape_interval: 1s}}\nscrape_configs:\n- job_name: paddock\n  \
             static_configs: [{{targets: ['{target}']}}]\n"
        ),
    )?;
    // Free now; Prometheus has no way to choose one itself.
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
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
        Ok(child) => Ended(child),
        Err(error) => {
            let missing = error.raw_os_error() == Some(nix::libc::ENOENT);
            ensure!(
                missing && pure_v2(),
                "prometheus: {error}: use `cargo xtask test`"
            );
            return Ok(());
        }
    };
    eventually("the first scrape", || {
        Ok(query(&address, "up").is_ok_and(|value| value == "1"))
    })?;
    let args = [
        "run",
        "--name",
        "greedy",
        "--memory",
        "64m",
        "host",
        "tail",
        "/dev/zero",
    ];
    ensure!(context.paddock(&args)?.code == Some(137));
    eventually("the kill in Prometheus", || {
        let value = query(
            &address,
            "paddock_container_oom_kills_total%7Bcontainer=%22greedy%22,constraint=%22memcg%22,level=%22own%22%7D",
        );
        Ok(value.is_ok_and(|value| value == "1"))
    })?;
    drop(server);
    Ok(())
}

/// Killed when dropped.
#[derive(Debug)]
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The one value of an instant query, as text.
fn query(address: &str, expression: &str) -> Result<String> {
    let answer = Metrics::get(address, &format!("/api/v1/query?query={expression}"))?;
    let body = answer.split_once("\r\n\r\n").context("no body")?.1;
    // A short answer is not chunked; a longer one's JSON stands between the sizes.
    let json = body
        .get(body.find('{').context("no JSON")?..=body.rfind('}').context("no JSON")?)
        .context("no JSON")?;
    let json: Value = serde_json::from_str(json)?;
    let value = json["data"]["result"][0]["value"][1]
        .as_str()
        .context("no value")?;
    Ok(value.to_owned())
}
