//! Certificates of clients: asked for, demanded, checked against a CA and a list of names.

use std::{net::IpAddr, sync::Arc};

use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{self, CryptoProvider, WebPkiSupportedAlgorithms},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use webpki::EndEntityCert;

use super::{Files, Wrong, settings::Tls, tls::certificates, wrong};

/// `None`: no certificate is asked for.
pub(super) fn verifier(
    tls: &Tls,
    files: &mut Files,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, Wrong> {
    // Whether one must be there, and be the CA's.
    let (required, verified) = match tls.client_auth_type.as_deref().unwrap_or_default() {
        "" | "NoClientCert" => {
            let any = tls.client_ca.is_some() || tls.client_ca_file.is_some();
            if any || tls.client_allowed_sans.is_some() {
                return Err(wrong(
                    "client_auth_type",
                    "is missing beside a client CA or client_allowed_sans: write RequireAndVerifyClientCert",
                ));
            }
            return Ok(None);
        }
        "RequestClientCert" => (false, false),
        // The second is an old name.
        "RequireAnyClientCert" | "RequireClientCert" => (true, false),
        "VerifyClientCertIfGiven" => (false, true),
        "RequireAndVerifyClientCert" => (true, true),
        other => {
            let what = format!(
                "{} is none; use one of NoClientCert, RequestClientCert, RequireAnyClientCert, \
                 VerifyClientCertIfGiven, RequireAndVerifyClientCert",
                super::quoted(other)
            );
            return Err(wrong("client_auth_type", what));
        }
    };
    if !verified {
        if tls.client_ca.is_some()
            || tls.client_ca_file.is_some()
            || tls.client_allowed_sans.is_some()
        {
            return Err(wrong(
                "client_auth_type",
                "checks no certificate, so that a client CA or client_allowed_sans would mean nothing: \
                 write RequireAndVerifyClientCert",
            ));
        }
        return Ok(Some(Arc::new(Any {
            required,
            algorithms: provider.signature_verification_algorithms,
        })));
    }
    let pem = files.either(
        ("client_ca_file", &tls.client_ca_file),
        ("client_ca", &tls.client_ca),
    )?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates("client_ca_file", &pem)? {
        roots
            .add(certificate)
            .map_err(|error| wrong("client_ca_file", format!("a certificate is no CA: {error}")))?;
    }
    let mut builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    if !required {
        builder = builder.allow_unauthenticated();
    }
    let inner = builder
        .build()
        .map_err(|error| wrong("client_ca_file", error.to_string()))?;
    let Some(names) = &tls.client_allowed_sans else {
        return Ok(Some(inner));
    };
    if names.is_empty() {
        return Err(wrong(
            "client_allowed_sans",
            "lets nobody in: name somebody, or leave it out",
        ));
    }
    if let Some(mail) = names
        .iter()
        .find(|name| name.contains('@') && !name.contains("://"))
    {
        let what = format!(
            "{}: e-mail addresses are not compared; use a DNS name, an IP address or a URI",
            super::quoted(mail)
        );
        return Err(wrong("client_allowed_sans", what));
    }
    Ok(Some(Arc::new(Named {
        inner,
        names: names.clone(),
    })))
}

/// Takes any certificate whose key the client has.
#[derive(Debug)]
struct Any {
    required: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for Any {
    fn client_auth_mandatory(&self) -> bool {
        self.required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        crypto::verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        crypto::verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Takes what the inner one takes and one of these names is in.
#[derive(Debug)]
struct Named {
    inner: Arc<dyn ClientCertVerifier>,
    names: Vec<String>,
}

impl Named {
    /// The very name: one with an asterisk in the certificate stands for itself alone.
    fn allows(&self, certificate: &CertificateDer<'_>) -> bool {
        let Ok(certificate) = EndEntityCert::try_from(certificate) else {
            return false;
        };
        self.names.iter().any(|name| {
            if let Ok(address) = name.parse::<IpAddr>() {
                let address = ServerName::IpAddress(address.into());
                return certificate
                    .verify_is_valid_for_subject_name(&address)
                    .is_ok();
            }
            certificate.valid_dns_names().any(|one| one == name)
                || certificate.valid_uri_names().any(|one| one == name)
        })
    }
}

impl ClientCertVerifier for Named {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self
            .inner
            .verify_client_cert(end_entity, intermediates, now)?;
        if self.allows(end_entity) {
            Ok(verified)
        } else {
            Err(rustls::CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
