//! TLS, passwords and certificates of clients, seen by curl and by a real Prometheus; files that
//! change, and files that are wrong.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::files::{
    Answer::{Failed, Status},
    Files, HASH, PASSWORD,
};
use crate::{
    context::{Context, eventually, finish},
    prometheus::{Config, Prometheus},
    runner::Scenario,
};

pub(super) const ALL: &[Scenario] = &[
    Scenario::new("web::tls_and_passwords", tls_and_passwords).alone(),
    Scenario::new("web::certificates_of_clients", certificates_of_clients).alone(),
];

const TLS: &str = "tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n";

fn tls_and_passwords(context: &Context) -> Result<()> {
    if !Prometheus::is_here()? {
        return Ok(());
    }
    let files = Files::new(context)?;
    let users = format!("basic_auth_users:\n  anna: {HASH}\n");
    let headers = "http_server_config:\n  headers:\n    X-Frame-Options: deny\n    Content-Security-Policy: sandbox\n";
    let file = files.write("web.yml", &format!("{TLS}{headers}{users}"))?;
    wrong_files(context, &files)?;
    context.start_agent(&["--detach-on-exit", "--web.config.file", &file])?;
    let address = context.address()?;
    let log = context.agent_log();
    ensure!(log.contains(&format!("https://{address}/metrics")), "{log}");

    let url = format!("https://{address}/metrics");
    let login = format!("anna:{PASSWORD}");
    let known = ["--cacert", "ca.pem"];
    let with = |pair: &str| files.get(&url, &["--cacert", "ca.pem", "-u", pair]);
    ensure!(with(&login)? == Status(200));
    ensure!(files.get(&url, &["-u", &login])? == Failed(60));
    ensure!(files.get(&format!("http://{address}/metrics"), &["-u", &login])? != Status(200));
    ensure!(files.get(&url, &known)? == Status(401));
    for wrong in ["anna:", "anna:wrong", &format!("bert:{PASSWORD}")] {
        ensure!(with(wrong)? == Status(401), "{wrong}");
    }
    for page in ["", "healthz", "readyz", "none"] {
        let page = format!("https://{address}/{page}");
        ensure!(files.get(&page, &known)? == Status(401), "{page}");
    }
    // A page's own policy stands, the other header is added, to what is refused, too.
    let head = |path: &str| {
        let url = format!("https://{address}{path}");
        let args = [
            "-s",
            "-i",
            "--noproxy",
            "*",
            "--cacert",
            "ca.pem",
            "-u",
            &login,
            &url,
        ];
        Ok::<_, anyhow::Error>(
            finish(Command::new("curl").args(args).current_dir(&files.0))?.stdout,
        )
    };
    let page = head("/")?.to_lowercase();
    ensure!(
        page.contains("content-security-policy: default-src 'none'"),
        "{page}"
    );
    ensure!(page.contains("x-frame-options: deny"), "{page}");
    let metrics = head("/metrics")?;
    ensure!(
        metrics
            .to_lowercase()
            .contains("content-security-policy: sandbox")
    );
    let refused = metrics
        .lines()
        .find(|line| line.starts_with("paddock_web_refused_total{reason=\"login\"}"))
        .context("no count")?;
    ensure!(refused.ends_with(" 8"), "{refused}");

    changes(context, &files, &url, &login)
}

/// What a file says next holds next, unless it is wrong.
fn changes(context: &Context, files: &Files, url: &str, login: &str) -> Result<()> {
    let users = format!("basic_auth_users:\n  anna: {HASH}\n");
    let only = |version: &str| {
        files.get(
            url,
            &[
                "--cacert",
                "ca.pem",
                "-u",
                login,
                &format!("--tlsv{version}"),
                "--tls-max",
                version,
            ],
        )
    };
    ensure!(only("1.2")? == Status(200) && only("1.3")? == Status(200));
    files.write("web.yml", &format!("{TLS}  min_version: TLS13\n{users}"))?;
    eventually("TLS 1.2 is refused", || {
        Ok(matches!(only("1.2")?, Failed(_)))
    })?;
    ensure!(only("1.3")? == Status(200));

    files.write("web.yml", &format!("{TLS}  min_verson: TLS12\n"))?;
    eventually("the fault is told", || {
        ensure!(only("1.3")? == Status(200));
        let log = context.agent_log();
        Ok(log.contains("who may see metrics is as before")
            && log.contains("web.yml:4:3: unknown field `min_verson`"))
    })?;
    ensure!(matches!(only("1.2")?, Failed(_)));
    ensure!(files.get(url, &["--cacert", "ca.pem"])? == Status(401));

    files.write("web.yml", TLS)?;
    eventually("nobody is asked for a password", || {
        Ok(files.get(url, &["--cacert", "ca.pem"])? == Status(200))
    })?;
    // A certificate that is renewed in its place.
    let serial = |path: &str| {
        let script = "openssl s_client -connect \"$0\" </dev/null 2>/dev/null | openssl x509 -noout -fingerprint; \
                      openssl x509 -noout -fingerprint -in \"$1\"";
        let host = url
            .trim_start_matches("https://")
            .trim_end_matches("/metrics");
        let both = finish(
            Command::new("sh")
                .args(["-c", script, host, path])
                .current_dir(&files.0),
        )?
        .stdout;
        let lines: Vec<_> = both.lines().collect();
        Ok::<_, anyhow::Error>(lines.len() == 2 && lines[0] == lines[1])
    };
    ensure!(serial("server.pem")?);
    let renewed = std::fs::read_to_string(files.path("nobody.pem"))?;
    files.write("server.pem", &renewed)?;
    let key = std::fs::read_to_string(files.path("nobody.key"))?;
    files.write("server.key", &key)?;
    eventually("the new one is shown", || serial("nobody.pem"))
}

fn wrong_files(context: &Context, files: &Files) -> Result<()> {
    for (text, told) in [
        (
            "tls_server_config: {cert_file: none.pem, key_file: server.key}\n",
            "cert_file: ",
        ),
        (
            "http_server_config: {http2: true}\n",
            "http2: is not spoken here",
        ),
        (
            "basic_auth_user: {}\n",
            ":1:1: unknown field `basic_auth_user`",
        ),
    ] {
        let file = files.write("wrong.yml", text)?;
        let args = [
            "agent",
            "--web.listen-address",
            "127.0.0.1:0",
            "--web.config.file",
            &file,
        ];
        let done = context.paddock(&args)?;
        ensure!(done.code == Some(1), "{done:?}");
        let last = done.stderr.lines().last().unwrap_or_default();
        ensure!(
            last.contains("wrong.yml:") && last.contains(told),
            "{done:?}"
        );
    }
    Ok(())
}

fn certificates_of_clients(context: &Context) -> Result<()> {
    if !Prometheus::is_here()? {
        return Ok(());
    }
    let files = Files::new(context)?;
    let verified =
        format!("{TLS}  client_ca_file: ca.pem\n  client_auth_type: RequireAndVerifyClientCert\n");
    let named = "  client_allowed_sans: [scraper.example]\n";
    let users = format!("basic_auth_users:\n  anna: {HASH}\n");
    let file = files.write("web.yml", &format!("{verified}{named}{users}"))?;
    context.start_agent(&["--detach-on-exit", "--web.config.file", &file])?;
    let url = format!("https://{}/metrics", context.address()?);
    let login = format!("anna:{PASSWORD}");
    let by = |name: &str| {
        let (pem, key) = (format!("{name}.pem"), format!("{name}.key"));
        let mut args = vec!["--cacert", "ca.pem", "-u", &login];
        if !name.is_empty() {
            args.extend(["--cert", &pem, "--key", &key]);
        }
        files.get(&url, &args)
    };
    ensure!(by("scraper")? == Status(200));
    for refused in ["", "nobody", "foreign"] {
        ensure!(matches!(by(refused)?, Failed(_)), "{refused}");
    }

    let scrape = format!(
        "scheme: https\nbasic_auth: {{username: anna, password: {PASSWORD}}}\n\
         tls_config: {{ca_file: {}, cert_file: {}, key_file: {}}}",
        files.path("ca.pem"),
        files.path("scraper.pem"),
        files.path("scraper.key")
    );
    let wanted = Config {
        scrape: Some(scrape),
        ..Config::default()
    };
    let prometheus = Prometheus::start(context, &wanted)?.context("Prometheus is gone")?;
    eventually("Prometheus scrapes", || {
        let up = prometheus.query("up == 1")?;
        let handshakes =
            prometheus.query("paddock_web_refused_total{reason=\"handshake\"} >= 3")?;
        Ok(up.len() == 1 && handshakes.len() == 1)
    })?;

    files.write("web.yml", &format!("{verified}{users}"))?;
    eventually("any of the CA's is taken", || {
        Ok(by("nobody")? == Status(200))
    })?;
    ensure!(matches!(by("foreign")?, Failed(_)) && matches!(by("")?, Failed(_)));
    files.write(
        "web.yml",
        &format!(
            "{}{users}",
            verified.replace("RequireAndVerifyClientCert", "VerifyClientCertIfGiven")
        ),
    )?;
    eventually("none is taken", || Ok(by("")? == Status(200)))?;
    ensure!(matches!(by("foreign")?, Failed(_)));
    files.write(
        "web.yml",
        &format!("{TLS}  client_auth_type: RequireAnyClientCert\n{users}"),
    )?;
    eventually("any is taken", || Ok(by("foreign")? == Status(200)))?;
    ensure!(matches!(by("")?, Failed(_)));
    Ok(())
}
