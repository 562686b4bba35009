//! Web files that are right, and what is said of those that are not.

use std::{fs, os::unix::fs::PermissionsExt as _, sync::Arc, thread::sleep, time::Duration};

use super::{Door, Refusal};
use crate::fixture::Dir;

// Of localhost, self-signed, for a hundred years; the other is of other.example.
const CERTIFICATE: &str = include_str!("../../testdata/web.pem");
const KEY: &str = include_str!("../../testdata/web.key");
const OTHER: &str = include_str!("../../testdata/other.pem");
const HASH: &str = "$2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi";
const TLS: &str = "tls_server_config:\n  cert_file: web.pem\n  key_file: web.key\n";

fn put(dir: &Dir, name: &str, text: &str) {
    let path = dir.path().join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
}

fn dir() -> Dir {
    let dir = Dir::new();
    put(&dir, "web.pem", CERTIFICATE);
    put(&dir, "web.key", KEY);
    put(&dir, "other.pem", OTHER);
    dir
}

/// `Err`: what is said, without the file's name.
fn open(dir: &Dir, text: &str) -> Result<Door, String> {
    put(dir, "web.yml", text);
    let path = dir.path().join("web.yml");
    Door::new(Some(&path)).map_err(|error| {
        let dir = format!("{}/", dir.path().display());
        error.to_string().replace(&dir, "")
    })
}

pub(super) fn door_with_tls(dir: &Dir) -> Door {
    put(dir, "web.pem", CERTIFICATE);
    put(dir, "web.key", KEY);
    open(dir, TLS).unwrap()
}

#[test]
fn right_files() {
    let dir = dir();
    for (text, scheme) in [
        ("", "http"),
        ("---\n# nothing yet\n", "http"),
        ("tls_server_config:\nbasic_auth_users: {}\n", "http"),
        (TLS, "https"),
        (
            &format!("{TLS}  cert: ''\n  client_auth_type: ''\n"),
            "https",
        ),
        (
            &format!(
                "{TLS}  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: other.pem\n  \
                 client_allowed_sans: [other.example, 127.0.0.9, 'spiffe://x/y']\n"
            ),
            "https",
        ),
        (
            &format!("{TLS}  client_auth_type: RequestClientCert\n"),
            "https",
        ),
        (
            &format!(
                "{TLS}  min_version: TLS12\n  max_version: TLS12\n  prefer_server_cipher_suites: false\n  \
                 cipher_suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_AES_128_GCM_SHA256]\n  \
                 curve_preferences: [CurveP384, X25519]\n"
            ),
            "https",
        ),
        (
            &format!(
                "http_server_config:\n  http2: false\n  headers:\n    X-Frame-Options: deny\n    \
                 Strict-Transport-Security: max-age=31536000\nbasic_auth_users:\n  anna: {HASH}\n\
                 rate_limit: {{interval: 100ms, burst: 20}}\n"
            ),
            "http",
        ),
    ] {
        match open(&dir, text) {
            Ok(door) => assert_eq!(door.scheme(), scheme, "{text}"),
            Err(said) => panic!("{said}: {text}"),
        }
    }
    let indented = |pem: &str| pem.trim().replace('\n', "\n    ");
    let inline = format!(
        "tls_server_config:\n  cert: |\n    {}\n  key: |\n    {}\n",
        indented(CERTIFICATE),
        indented(KEY)
    );
    assert_eq!(open(&dir, &inline).unwrap().scheme(), "https");
}

fn tls(more: &str) -> String {
    format!("{TLS}  {more}\n")
}

/// Each text with the beginning of the one line that is said of it.
fn refused(dir: &Dir, table: &[(String, &str)]) {
    for (text, said) in table {
        match open(dir, text) {
            Ok(_) => panic!("taken: {text}"),
            Err(told) => {
                assert!(told.starts_with(said), "{told}\nfor: {text}");
                assert_eq!(told.lines().count(), 1, "{told}");
                assert!(!told.contains("secret"), "{told}");
            }
        }
    }
}

#[test]
fn wrong_yaml_and_files() {
    let dir = dir();
    put(&dir, "open.pem", CERTIFICATE);
    let path = dir.path().join("open.pem");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o622)).unwrap();
    let table = [
        (
            "tls_config: {}\n".to_owned(),
            "web.yml:1:1: unknown field `tls_config`, expected one of",
        ),
        (tls("keyfile: x"), "web.yml:4:3: unknown field `keyfile`"),
        ("a: [\n".to_owned(), "web.yml:"),
        (format!("{TLS}{TLS}"), "web.yml:4:1: "),
        (tls("cipher_suites: 3"), "web.yml:4:18: "),
        (
            "tls_server_config: {key_file: web.key}".to_owned(),
            "web.yml: cert_file: is missing, and so is cert",
        ),
        (
            "tls_server_config: {cert_file: web.pem}".to_owned(),
            "web.yml: key_file: is missing, and so is key",
        ),
        (
            "tls_server_config: {min_version: TLS13}".to_owned(),
            "web.yml: cert_file: is missing, and so is cert",
        ),
        (tls("cert: x"), "web.yml: cert: stands beside cert_file"),
        (
            "tls_server_config: {cert_file: none.pem, key_file: web.key}".to_owned(),
            "web.yml: cert_file: none.pem: No such file or directory",
        ),
        (
            "tls_server_config: {cert_file: /dev/null, key_file: web.key}".to_owned(),
            "web.yml: cert_file: /dev/null: is no regular file",
        ),
        (
            "tls_server_config: {cert_file: open.pem, key_file: web.key}".to_owned(),
            "web.yml: cert_file: open.pem: others than root can write it",
        ),
        (
            "tls_server_config: {cert_file: web.key, key_file: web.key}".to_owned(),
            "web.yml: cert_file: holds no certificate in PEM",
        ),
        (
            "tls_server_config: {cert_file: web.pem, key_file: web.pem}".to_owned(),
            "web.yml: key_file: holds no private key in PEM",
        ),
        (
            "tls_server_config: {cert_file: other.pem, key_file: web.key}".to_owned(),
            "web.yml: key_file: does not go with cert_file",
        ),
    ];
    refused(&dir, &table);
    fs::remove_file(dir.path().join("web.yml")).unwrap();
    let gone = Door::new(Some(&dir.path().join("web.yml"))).unwrap_err();
    let gone = gone.to_string();
    assert!(
        gone.ends_with("web.yml: No such file or directory"),
        "{gone}"
    );
}

#[test]
fn wrong_words_of_clients() {
    let verified = |more: &str| {
        tls(&format!(
            "client_auth_type: RequireAndVerifyClientCert\n  {more}"
        ))
    };
    let table = [
        (
            tls("client_auth_type: Always"),
            "web.yml: client_auth_type: 'Always' is none; use one of NoClientCert",
        ),
        (
            tls("client_ca_file: other.pem"),
            "web.yml: client_auth_type: is missing beside a client CA",
        ),
        (
            tls("client_auth_type: RequireAnyClientCert\n  client_ca_file: other.pem"),
            "web.yml: client_auth_type: checks no certificate",
        ),
        (
            verified(""),
            "web.yml: client_ca_file: is missing, and so is client_ca",
        ),
        (
            verified("client_ca_file: web.key"),
            "web.yml: client_ca_file: holds no certificate in PEM",
        ),
        (
            verified("client_ca_file: other.pem\n  client_allowed_sans: [a@b.example]"),
            "web.yml: client_allowed_sans: 'a@b.example': e-mail addresses are not compared",
        ),
        (
            verified("client_ca_file: other.pem\n  client_allowed_sans: []"),
            "web.yml: client_allowed_sans: lets nobody in",
        ),
    ];
    refused(&dir(), &table);
}

#[test]
fn wrong_words_of_tls() {
    let table = [
        (
            tls("min_version: TLS10"),
            "web.yml: min_version: TLS 1.0 and 1.1 are not spoken",
        ),
        (
            tls("max_version: SSL3"),
            "web.yml: max_version: 'SSL3' is no version",
        ),
        (
            tls("min_version: TLS13\n  max_version: TLS12"),
            "web.yml: min_version: is above max_version",
        ),
        (
            tls("cipher_suites: [TLS_RSA_WITH_AES_128_CBC_SHA]"),
            "web.yml: cipher_suites: 'TLS_RSA_WITH_AES_128_CBC_SHA' is not here; use some of TLS_",
        ),
        (
            tls("cipher_suites: [TLS_AES_128_GCM_SHA256]"),
            "web.yml: cipher_suites: has none for TLS 1.2",
        ),
        (
            tls("curve_preferences: [CurveP521]"),
            "web.yml: curve_preferences: 'CurveP521' is not here; use some of X25519",
        ),
    ];
    refused(&dir(), &table);
}

#[test]
fn wrong_words_of_http_and_logins() {
    let table = [
        (
            "http_server_config: {http2: true}".to_owned(),
            "web.yml: http2: is not spoken here",
        ),
        (
            "http_server_config: {headers: {Server: x}}".to_owned(),
            "web.yml: headers: 'Server' cannot be set",
        ),
        (
            "http_server_config: {headers: {X-Frame-Options: allow}}".to_owned(),
            "web.yml: headers: X-Frame-Options takes deny or sameorigin, not 'allow'",
        ),
        (
            "http_server_config: {headers: {X-XSS-Protection: \"1\\r\\nA: b\"}}".to_owned(),
            "web.yml: headers: '1\\r\\nA: b' is no header's value",
        ),
        (
            "basic_auth_users: {anna: secret}".to_owned(),
            "web.yml: basic_auth_users: 'anna' has no bcrypt hash",
        ),
        (
            "rate_limit: {interval: 1s}".to_owned(),
            "web.yml: burst: lets nobody in",
        ),
        (
            "rate_limit: {interval: soon, burst: 1}".to_owned(),
            "web.yml: interval: 'soon' is no duration",
        ),
    ];
    refused(&dir(), &table);
}

#[tokio::test]
async fn what_changes_holds_and_what_is_wrong_does_not() {
    let dir = dir();
    let door = Arc::new(open(&dir, "").unwrap());
    let looked = async || {
        sleep(super::LOOK + Duration::from_millis(50));
        door.terms().await.tls.is_some()
    };
    assert!(!looked().await);
    put(&dir, "web.yml", TLS);
    assert!(looked().await);
    put(&dir, "web.yml", "tls_server_config: {cert_file: none.pem}");
    assert!(looked().await);
    // A file that it names, and that was not there.
    put(&dir, "none.pem", CERTIFICATE);
    assert!(looked().await);
    put(&dir, "web.yml", "");
    assert!(!looked().await);
}

#[test]
fn a_rate_is_kept() {
    let limit = super::settings::RateLimit {
        interval: Some("1h".to_owned()),
        burst: Some(2),
    };
    let Ok(Some(bucket)) = super::Bucket::new(&limit) else {
        panic!("no limit");
    };
    assert_eq!([(); 3].map(|()| bucket.take()), [true, true, false]);
}

#[test]
fn refusals_are_counted() {
    let door = Door::new(None).unwrap();
    door.refuse(Refusal::Slow);
    let counts: Vec<_> = door.refusals().filter(|(_, count)| *count > 0).collect();
    assert_eq!(counts, [("slow", 1)]);
}
