//! A registry by OCI's distribution protocol: manifest, config, and layers into files.
//!
//! TLS is rustls with the host's certificates; plain HTTP is for registries on this machine, or
//! when it is asked for. Whatever comes is checked by digest and size before it counts. A
//! download that breaks off goes on from where it was, a few times.

use std::{
    fs::File,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Once,
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use oci_client::{
    Client, Reference as Name,
    client::{BlobResponse, ClientConfig, ClientProtocol, SizedStream},
    errors::{OciDistributionError, OciErrorCode},
    manifest::{
        IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE,
        OCI_IMAGE_MEDIA_TYPE,
    },
};

use super::{Blob, Found, Part, Place, layout};
use crate::{
    credentials,
    digest::Digest,
    error::Error,
    manifest::{Descriptor, Document, MOST_JSON, Manifest, choose, parse},
    progress::{Cancel, Progress},
};

/// A registry that says nothing for so long is gone.
const PATIENCE: Duration = Duration::from_secs(30);
const CONNECT: Duration = Duration::from_secs(10);
/// As docker does.
const AT_ONCE: usize = 3;
const TRIES: u32 = 4;
const MANIFESTS: [&str; 4] = [
    IMAGE_MANIFEST_MEDIA_TYPE,
    IMAGE_MANIFEST_LIST_MEDIA_TYPE,
    OCI_IMAGE_MEDIA_TYPE,
    OCI_IMAGE_INDEX_MEDIA_TYPE,
];

pub(crate) struct Registry<'a> {
    client: Client,
    name: &'a Name,
    cancel: &'a Cancel,
    runtime: tokio::runtime::Runtime,
}

/// A layer to fetch: its place in the image, and the file it goes to.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) layer: usize,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) to: PathBuf,
}

impl<'a> Registry<'a> {
    pub(crate) fn open(
        name: &'a Name,
        plain_http: bool,
        cancel: &'a Cancel,
    ) -> Result<Self, Error> {
        static PROVIDER: Once = Once::new();
        PROVIDER.call_once(|| {
            // Fails when there is one already, which is as good.
            let _ = rustls::crypto::ring::default_provider().install_default();
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Error::io("start", "a runtime"))?;
        let plain = plain_http || is_here(name.resolve_registry());
        let config = ClientConfig {
            protocol: if plain {
                ClientProtocol::Http
            } else {
                ClientProtocol::Https
            },
            read_timeout: Some(PATIENCE),
            connect_timeout: Some(CONNECT),
            user_agent: concat!("paddock/", env!("CARGO_PKG_VERSION")),
            https_proxy: proxy("HTTPS_PROXY"),
            http_proxy: proxy("HTTP_PROXY"),
            no_proxy: proxy("NO_PROXY"),
            ..ClientConfig::default()
        };
        let client = Client::try_from(config).map_err(|error| no_client(name, error))?;
        Ok(Self {
            client,
            name,
            cancel,
            runtime,
        })
    }

    /// Manifest and config; the layers are still there.
    pub(crate) fn find(&self) -> Result<Found, Error> {
        let what = self.name.whole();
        let mut name = self.name.clone();
        let manifest: Manifest = loop {
            let (bytes, _) = self.wait(async {
                let auth = credentials::find(self.name.registry());
                self.client
                    .pull_manifest_raw(&name, &auth, &MANIFESTS)
                    .await
            })?;
            if bytes.len() as u64 > MOST_JSON {
                return Err(Error::broken(what, "its manifest is too large"));
            }
            match parse(&what, &bytes)? {
                Document::Manifest(manifest) => break manifest,
                Document::Index(_) if name != *self.name => {
                    return Err(Error::broken(what, "an index in an index"));
                }
                Document::Index(index) => {
                    let chosen = choose(&what, &index.manifests.iter().collect::<Vec<_>>())?;
                    name = name.clone_with_digest(chosen.digest.to_string());
                }
            }
        };
        let config = self.small(&what, &manifest.config)?;
        let layers = layout::expected(&what, &manifest, &config)?;
        let remote = |expected| Blob {
            expected,
            place: Place::Remote,
        };
        Ok(Found {
            config,
            layers: layers.into_iter().map(remote).collect(),
        })
    }

    /// Fetches layers, a few at a time; in the order of `wanted`.
    pub(crate) fn fetch(
        &self,
        wanted: &[Wanted],
        progress: &dyn Progress,
    ) -> Result<Vec<Part>, Error> {
        self.cancellable(async {
            let mut downloads = stream::iter(wanted)
                .map(|one| self.blob(one, progress))
                .buffered(AT_ONCE);
            let mut parts = Vec::new();
            while let Some(part) = downloads.next().await {
                parts.push(part?);
            }
            Ok(parts)
        })
    }

    fn small(&self, what: &str, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
        if descriptor.size > MOST_JSON {
            return Err(Error::broken(what, "its config is too large"));
        }
        let bytes = self.cancellable(async {
            let mut tries = 0;
            loop {
                tries += 1;
                match self.whole(descriptor).await {
                    Err(error) if tries < TRIES && is_passing(&error) => pause(tries).await,
                    done => break done,
                }
            }
        })?;
        if bytes.len() as u64 != descriptor.size || Digest::of(&bytes) != descriptor.digest {
            return Err(Error::broken(
                what,
                "its config is not what the manifest says",
            ));
        }
        Ok(bytes)
    }

    /// A chunk more than it is to have, at most.
    async fn whole(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        let mut stream = self.stream(&descriptor.digest, 0).await?.0.stream;
        while let Some(chunk) = stream.next().await {
            bytes.extend_from_slice(&chunk.map_err(|error| failed(self.name, error.into()))?);
            if bytes.len() as u64 > descriptor.size {
                break;
            }
        }
        Ok(bytes)
    }

    /// The digest is checked when it is unpacked, too: by what was written, not what was sent.
    async fn blob(&self, wanted: &Wanted, progress: &dyn Progress) -> Result<Part, Error> {
        progress.begin(wanted.layer, wanted.digest, Some(wanted.size));
        let mut file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&wanted.to)
            .map_err(Error::io("make", &wanted.to))?;
        let mut have = 0;
        let mut tries = 0;
        loop {
            tries += 1;
            match self.append(wanted, &mut file, &mut have, progress).await {
                Ok(()) if have == wanted.size => break,
                Ok(()) => {
                    let reason = format!("{have} bytes came instead of {}", wanted.size);
                    return Err(Error::Layer {
                        layer: wanted.digest,
                        reason,
                    });
                }
                Err(error) if tries == TRIES || !is_passing(&error) => return Err(error),
                Err(_) => pause(tries).await,
            }
        }
        progress.unpacking(wanted.layer);
        Part::whole(file).map_err(Error::io("look at", &wanted.to))
    }

    async fn append(
        &self,
        wanted: &Wanted,
        file: &mut File,
        have: &mut u64,
        progress: &dyn Progress,
    ) -> Result<(), Error> {
        let (sized, continued) = self.stream(&wanted.digest, *have).await?;
        if !continued {
            file.set_len(0)
                .and_then(|()| std::io::Seek::rewind(file))
                .map_err(Error::io("empty", &wanted.to))?;
            *have = 0;
        }
        let mut stream = sized.stream;
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|error| failed(self.name, error.into()))?;
            *have += chunk.len() as u64;
            if *have > wanted.size {
                return Err(Error::Layer {
                    layer: wanted.digest,
                    reason: format!("more than the {} bytes came that it has", wanted.size),
                });
            }
            file.write_all(&chunk)
                .map_err(Error::io("write", &wanted.to))?;
            progress.advance(wanted.layer, chunk.len() as u64);
        }
        Ok(())
    }

    /// `true`: from where it was left, not from the beginning.
    async fn stream(&self, digest: &Digest, from: u64) -> Result<(SizedStream, bool), Error> {
        // By digest alone: other places that a manifest names are never asked.
        let digest = digest.to_string();
        let layer = digest.as_str();
        let answer = if from == 0 {
            self.client
                .pull_blob_stream(self.name, layer)
                .await
                .map(|stream| (stream, false))
        } else {
            self.client
                .pull_blob_stream_partial(self.name, layer, from, None)
                .await
                .map(|answer| match answer {
                    BlobResponse::Full(stream) => (stream, false),
                    BlobResponse::Partial(stream) => (stream, true),
                })
        };
        answer.map_err(|error| failed(self.name, error))
    }

    fn wait<T>(
        &self,
        work: impl Future<Output = Result<T, OciDistributionError>>,
    ) -> Result<T, Error> {
        self.cancellable(async { work.await.map_err(|error| failed(self.name, error)) })
    }

    fn cancellable<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        const STEP: Duration = Duration::from_millis(50);
        self.runtime.block_on(async {
            let mut work = std::pin::pin!(work);
            loop {
                self.cancel.check()?;
                if let Ok(done) = tokio::time::timeout(STEP, &mut work).await {
                    return done;
                }
            }
        })
    }
}

/// Longer each time.
async fn pause(tries: u32) {
    tokio::time::sleep(Duration::from_millis(200) * tries).await;
}

/// Where layers go, beside each other.
pub(crate) fn blob_file(staging: &Path, layer: usize) -> PathBuf {
    staging.join(format!("blob-{layer}"))
}

/// A registry on this machine, as docker sees it: no one in between could listen.
fn is_here(registry: &str) -> bool {
    let host = match registry.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => registry.rsplit_once(':').map_or(registry, |(host, _)| host),
    };
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

fn proxy(name: &str) -> Option<String> {
    [name.to_owned(), name.to_lowercase()]
        .iter()
        .find_map(|name| std::env::var(name).ok())
        .filter(|value| !value.is_empty())
}

/// Worth another try: the line broke, the registry stumbled.
fn is_passing(error: &Error) -> bool {
    let Error::Registry {
        source: Some(source),
        ..
    } = error
    else {
        return false;
    };
    match source.downcast_ref::<OciDistributionError>() {
        Some(OciDistributionError::IoError(_) | OciDistributionError::RequestError(_)) => true,
        Some(OciDistributionError::ServerError { code, .. }) => *code >= 500 || *code == 429,
        _ => false,
    }
}

/// Whether or not TLS will be spoken, the client wants certificates to trust.
fn no_client(name: &Name, error: OciDistributionError) -> Error {
    Error::Registry {
        reference: name.whole(),
        reason: "no HTTP client: install this machine's CA certificates (ca-certificates)"
            .to_owned(),
        source: Some(Box::new(error)),
    }
}

fn failed(name: &Name, error: OciDistributionError) -> Error {
    let reason = match &error {
        OciDistributionError::ImageManifestNotFoundError(_) => {
            "the registry has no such image".to_owned()
        }
        OciDistributionError::UnauthorizedError { .. }
        | OciDistributionError::AuthenticationFailure(_) => denied(),
        OciDistributionError::RegistryError { envelope, .. } => {
            let has = |codes: &[OciErrorCode]| {
                envelope
                    .errors
                    .iter()
                    .any(|error| codes.contains(&error.code))
            };
            if has(&[
                OciErrorCode::ManifestUnknown,
                OciErrorCode::NameUnknown,
                OciErrorCode::NotFound,
            ]) {
                "the registry has no such image".to_owned()
            } else if has(&[OciErrorCode::Unauthorized, OciErrorCode::Denied]) {
                denied()
            } else {
                crate::error::shown(format!("the registry answers: {envelope}").as_bytes())
            }
        }
        OciDistributionError::ServerError { code, .. } => {
            format!("the registry answers {code}")
        }
        OciDistributionError::RequestError(error) if error.is_connect() => {
            format!("cannot connect to {}", name.resolve_registry())
        }
        OciDistributionError::RequestError(error) if error.is_timeout() => {
            format!("{} does not answer", name.resolve_registry())
        }
        OciDistributionError::RequestError(_) | OciDistributionError::IoError(_) => {
            "the transfer broke off".to_owned()
        }
        other => crate::error::shown(other.to_string().as_bytes()),
    };
    Error::Registry {
        reference: name.whole(),
        reason,
        source: Some(Box::new(error)),
    }
}

fn denied() -> String {
    "the registry wants a user who may read it, or has no such image: \
     put credentials into docker's config.json"
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_this_machine() {
        for here in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:5000",
            "127.9.9.9",
            "[::1]:5000",
        ] {
            assert!(is_here(here), "{here}");
        }
        for there in [
            "docker.io",
            "localhost.evil.org:80",
            "10.0.0.1:5000",
            "[fe80::1]:5000",
        ] {
            assert!(!is_here(there), "{there}");
        }
    }
}
