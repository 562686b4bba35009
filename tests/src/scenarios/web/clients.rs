//! Who a client is: what openssl is asked for by each `client_auth_type`, which names of a
//! certificate let curl in, and how often anybody may come.

use std::process::Command;

use anyhow::{Result, ensure};

use super::files::{
    Answer::{Failed, Status},
    Files,
};
use crate::{
    context::{Context, eventually, finish},
    metrics::Metrics,
    prometheus::Prometheus,
    runner::Scenario,
};

pub(super) const ALL: &[Scenario] = &[
    Scenario::new("web::certificates_that_are_asked_for", asked_for).alone(),
    Scenario::new("web::names_of_clients", names_of_clients).alone(),
    Scenario::new("web::a_rate_is_kept", a_rate_is_kept).alone(),
];

const TLS: &str = "tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n";

/// Each with whether a certificate is asked for, and who comes in: without one, with one of
/// another authority's, with one of the right one's.
const TYPES: [(&str, bool, [bool; 3]); 5] = [
    ("NoClientCert", false, [true, true, true]),
    ("RequestClientCert", true, [true, true, true]),
    ("RequireAnyClientCert", true, [false, true, true]),
    ("VerifyClientCertIfGiven", true, [true, false, true]),
    ("RequireAndVerifyClientCert", true, [false, false, true]),
];

fn asked_for(context: &Context) -> Result<()> {
    if !Prometheus::is_here()? {
        return Ok(());
    }
    let files = Files::new(context)?;
    let text = |kind: &str| {
        let authority = if kind.contains("Verify") {
            "  client_ca_file: ca.pem\n"
        } else {
            ""
        };
        // What shows that this file holds.
        let mark = format!("http_server_config: {{headers: {{X-XSS-Protection: {kind}}}}}\n");
        format!("{TLS}  client_auth_type: {kind}\n{authority}{mark}")
    };
    let file = files.write("web.yml", &text(TYPES[0].0))?;
    context.start_agent(&["--detach-on-exit", "--web.config.file", &file])?;
    let address = context.address()?;
    let url = format!("https://{address}/healthz");
    let scraper = ["--cert", "scraper.pem", "--key", "scraper.key"];
    for (kind, asks, comes_in) in TYPES {
        files.write("web.yml", &text(kind))?;
        eventually(kind, || {
            let mut curl = Command::new("curl");
            curl.args(["-s", "-i", "--noproxy", "*", "--cacert", "ca.pem", &url]);
            let done = finish(curl.args(scraper).current_dir(&files.0))?;
            Ok(done.stdout.contains(kind))
        })?;
        for version in ["-tls1_2", "-tls1_3"] {
            let mut openssl = Command::new("openssl");
            openssl.args(["s_client", "-connect", &address, version]);
            let done = finish(openssl.stdin(std::process::Stdio::null()))?;
            let asked = done.stdout.contains("\nRequested Signature Algorithms: ");
            ensure!(asked == asks, "{kind} {version}: {done:?}");
        }
        let whose = [
            &[][..],
            &["--cert", "foreign.pem", "--key", "foreign.key"],
            &scraper,
        ];
        for (args, comes_in) in whose.into_iter().zip(comes_in) {
            for version in ["1.2", "1.3"] {
                let known = ["--cacert", "ca.pem", "--tls-max", version];
                let answer = files.get(&url, &[&known[..], args].concat())?;
                let right = match answer {
                    Status(200) => comes_in,
                    Failed(35 | 56 | 98) => !comes_in,
                    _ => false,
                };
                ensure!(right, "{kind} {version} {args:?}: {answer:?}");
            }
        }
    }
    Ok(())
}

/// Certificates, each with its names, and whether one of them is allowed.
const NAMED: [(&str, &str, bool); 11] = [
    ("address", "IP:127.0.0.9", true),
    ("address-6", "IP:fd00:0:0:0:0:0:0:9", true),
    (
        "second",
        "DNS:more.example,IP:10.9.9.9,DNS:allowed.example",
        true,
    ),
    ("uri", "URI:spiffe://here/scraper", true),
    ("other-address", "IP:127.0.0.8", false),
    // A name that is written as an address is none.
    ("as-a-name", "DNS:127.0.0.9", false),
    ("mail", "email:a@allowed.example", false),
    ("below", "DNS:a.allowed.example", false),
    ("any-below", "DNS:*.example", false),
    ("other-uri", "URI:spiffe://here/scraper/more", false),
    // Its CN is all that it has of the name.
    ("allowed.example", "DNS:nobody.example", false),
];
const ALLOWED: &str =
    "  client_allowed_sans: [allowed.example, 127.0.0.9, 'fd00::9', 'spiffe://here/scraper']\n";

fn names_of_clients(context: &Context) -> Result<()> {
    if !Prometheus::is_here()? {
        return Ok(());
    }
    let files = Files::new(context)?;
    let verified =
        format!("{TLS}  client_ca_file: ca.pem\n  client_auth_type: RequireAndVerifyClientCert\n");
    let file = files.write("web.yml", &format!("{verified}{ALLOWED}"))?;
    context.start_agent(&["--detach-on-exit", "--web.config.file", &file])?;
    let address = context.address()?;
    let url = format!("https://{address}/metrics");
    let mut refused = 0;
    for (name, names, allowed) in NAMED {
        files.issued(name, "ca", names)?;
        let (pem, key) = (format!("{name}.pem"), format!("{name}.key"));
        let answer = files.get(&url, &["--cacert", "ca.pem", "--cert", &pem, "--key", &key])?;
        let right = match answer {
            Status(200) => allowed,
            Failed(35 | 56 | 98) => !allowed,
            _ => false,
        };
        ensure!(right, "{names}: {answer:?}");
        refused += u32::from(!allowed);
    }
    // The right name by another authority.
    files.issued("forged", "other-ca", "IP:127.0.0.9")?;
    let forged = [
        "--cacert",
        "ca.pem",
        "--cert",
        "forged.pem",
        "--key",
        "forged.key",
    ];
    ensure!(matches!(files.get(&url, &forged)?, Failed(35 | 56 | 98)));
    refused += 1;
    let mut curl = Command::new("curl");
    curl.args(["-s", "--noproxy", "*", "--cacert", "ca.pem", &url]);
    curl.args(["--cert", "address.pem", "--key", "address.key"]);
    let metrics = Metrics(finish(curl.current_dir(&files.0))?.stdout);
    let counted = metrics.value("paddock_web_refused_total", &[("reason", "handshake")]);
    ensure!(
        counted == Some(f64::from(refused)),
        "{counted:?}, not {refused}"
    );

    // Where none is needed, one that is shown must still be right.
    let if_given = verified.replace("RequireAndVerifyClientCert", "VerifyClientCertIfGiven");
    files.write("web.yml", &format!("{if_given}{ALLOWED}"))?;
    eventually("none is taken", || {
        Ok(files.get(&url, &["--cacert", "ca.pem"])? == Status(200))
    })?;
    let other = [
        "--cacert", "ca.pem", "--cert", "uri.pem", "--key", "uri.key",
    ];
    ensure!(files.get(&url, &other)? == Status(200));
    let other = [
        "--cacert", "ca.pem", "--cert", "mail.pem", "--key", "mail.key",
    ];
    ensure!(matches!(files.get(&url, &other)?, Failed(35 | 56 | 98)));
    Ok(())
}

fn a_rate_is_kept(context: &Context) -> Result<()> {
    const BURST: usize = 5;
    if !Prometheus::is_here()? {
        return Ok(());
    }
    let files = Files::new(context)?;
    let text = format!("rate_limit: {{interval: 1h, burst: {BURST}}}\n");
    let file = files.write("web.yml", &text)?;
    context.start_agent(&["--detach-on-exit", "--web.config.file", &file])?;
    let address = context.address()?;
    // Whatever they ask for, however many connections they have.
    let pages = [
        "healthz", "metrics", "", "readyz", "none", "healthz", "", "metrics",
    ];
    for (number, page) in pages.into_iter().enumerate() {
        let answer = files.get(&format!("http://{address}/{page}"), &[])?;
        let is_limited = answer == Status(429);
        ensure!(is_limited == (number >= BURST), "{number}: {answer:?}");
    }
    files.write("web.yml", "{}\n")?;
    let mut refused = None;
    eventually("anybody may come", || {
        let answer = Metrics::get(&address, "/metrics")?;
        let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        let metrics = Metrics(body.to_owned());
        refused = metrics.value("paddock_web_refused_total", &[("reason", "rate")]);
        Ok(answer.starts_with("HTTP/1.1 200"))
    })?;
    let least = f64::from(u32::try_from(pages.len() - BURST)?);
    ensure!(refused.is_some_and(|count| count >= least), "{refused:?}");
    Ok(())
}
