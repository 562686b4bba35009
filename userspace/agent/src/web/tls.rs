//! rustls from `tls_server_config`, its words being Go's. What rustls has not got is refused by
//! its name.

use std::sync::Arc;

use rustls::{
    CipherSuite, NamedGroup, ServerConfig, SupportedProtocolVersion,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::danger::ClientCertVerifier,
    version::{TLS12, TLS13},
};

use super::{Files, Wrong, client, settings::Tls, wrong};

const CURVES: [(&str, NamedGroup); 3] = [
    ("X25519", NamedGroup::X25519),
    ("CurveP256", NamedGroup::secp256r1),
    ("CurveP384", NamedGroup::secp384r1),
];

/// `None` where nothing of TLS is said.
pub(super) fn server(tls: &Tls, files: &mut Files) -> Result<Option<ServerConfig>, Wrong> {
    if *tls == Tls::default() {
        return Ok(None);
    }
    let certificates = certificates(
        "cert_file",
        &files.either(("cert_file", &tls.cert_file), ("cert", &tls.cert))?,
    )?;
    let key = files.either(("key_file", &tls.key_file), ("key", &tls.key))?;
    let key = PrivateKeyDer::from_pem_slice(&key)
        .map_err(|_| wrong("key_file", "holds no private key in PEM"))?;
    let (provider, versions) = provider(tls)?;
    let provider = Arc::new(provider);
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&versions)
        .map_err(|error| wrong("cipher_suites", error.to_string()))?;
    let builder = match client::verifier(tls, files, &provider)? {
        Some(verifier) => {
            builder.with_client_cert_verifier(verifier as Arc<dyn ClientCertVerifier>)
        }
        None => builder.with_no_client_auth(),
    };
    let mut server = builder
        .with_single_cert(certificates, key)
        .map_err(|error| wrong("key_file", format!("does not go with cert_file: {error}")))?;
    server.ignore_client_order = tls.prefer_server_cipher_suites.unwrap_or(true);
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(server))
}

pub(super) fn certificates(
    key: &'static str,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, Wrong> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        _ => Err(wrong(key, "holds no certificate in PEM")),
    }
}

type Versions = Vec<&'static SupportedProtocolVersion>;

fn provider(tls: &Tls) -> Result<(CryptoProvider, Versions), Wrong> {
    let mut provider = ring::default_provider();
    let least = version("min_version", tls.min_version.as_deref(), 12)?;
    let most = version("max_version", tls.max_version.as_deref(), 13)?;
    if least > most {
        return Err(wrong("min_version", "is above max_version"));
    }
    let versions = [(12, &TLS12), (13, &TLS13)];
    let versions = versions
        .into_iter()
        .filter(|(number, _)| (least..=most).contains(number))
        .map(|(_, version)| version)
        .collect();
    if let Some(names) = tls
        .cipher_suites
        .as_deref()
        .filter(|names| !names.is_empty())
    {
        // As with Go: those of TLS 1.3 are all there, whatever is listed.
        let mut suites = provider.cipher_suites.clone();
        suites.retain(|suite| suite.tls13().is_some());
        for name in names {
            let all = ring::ALL_CIPHER_SUITES;
            let Some(suite) = all.iter().find(|one| go_name(one.suite()) == *name) else {
                let all: Vec<_> = all.iter().map(|one| go_name(one.suite())).collect();
                let what = format!(
                    "{} is not here; use some of {}",
                    super::quoted(name),
                    all.join(", ")
                );
                return Err(wrong("cipher_suites", what));
            };
            if suite.tls13().is_none() {
                suites.push(*suite);
            }
        }
        if least == 12 && suites.iter().all(|suite| suite.tls13().is_some()) {
            return Err(wrong(
                "cipher_suites",
                "has none for TLS 1.2: add one, or write min_version: TLS13",
            ));
        }
        provider.cipher_suites = suites;
    }
    if let Some(names) = tls
        .curve_preferences
        .as_deref()
        .filter(|names| !names.is_empty())
    {
        let mut groups = Vec::new();
        for name in names {
            let group = CURVES.iter().find(|(known, _)| known == name);
            let of = |wanted: NamedGroup| {
                let mut all = ring::ALL_KX_GROUPS.iter();
                all.find(|one| one.name() == wanted)
            };
            let Some(group) = group.and_then(|(_, group)| of(*group)) else {
                let all: Vec<_> = CURVES.iter().map(|(known, _)| *known).collect();
                let what = format!(
                    "{} is not here; use some of {}",
                    super::quoted(name),
                    all.join(", ")
                );
                return Err(wrong("curve_preferences", what));
            };
            groups.push(*group);
        }
        provider.kx_groups = groups;
    }
    Ok((provider, versions))
}

/// Go and IANA have another prefix for those of TLS 1.3.
fn go_name(suite: CipherSuite) -> String {
    let name = suite.as_str().unwrap_or_default();
    name.replacen("TLS13_", "TLS_", 1)
}

fn version(key: &'static str, name: Option<&str>, otherwise: u8) -> Result<u8, Wrong> {
    match name {
        None => Ok(otherwise),
        Some("TLS12") => Ok(12),
        Some("TLS13") => Ok(13),
        Some("TLS10" | "TLS11") => Err(wrong(
            key,
            "TLS 1.0 and 1.1 are not spoken: write TLS12 or TLS13",
        )),
        Some(other) => Err(wrong(
            key,
            format!(
                "{} is no version: write TLS12 or TLS13",
                super::quoted(other)
            ),
        )),
    }
}
