//! Basic authentication: names and bcrypt hashes.
//!
//! A hash takes 70 ms on purpose, so one is computed at a time whoever asks, and a password that
//! was right is known again by a digest under a key of this process. A name that is not there
//! takes as long as one that is.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use axum::http::HeaderValue;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bcrypt::HashParts;
use rustls::crypto::ring;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

/// About 4 s; each more takes twice as long.
const MAX_COST: u32 = 16;
/// A password may be right in several lengths, since bcrypt reads 72 bytes of it.
const REMEMBERED: usize = 128;

pub(super) struct Users {
    hashes: BTreeMap<String, String>,
    /// Of what was right.
    good: Mutex<HashSet<[u8; 32]>>,
    key: [u8; 32],
}

impl Users {
    /// Not of none.
    pub(super) fn new(hashes: BTreeMap<String, String>) -> Result<Self, String> {
        for (name, hash) in &hashes {
            let is_name = !name.is_empty() && !name.contains(':');
            let name = super::quoted(name);
            if !is_name {
                return Err(format!("{name} is no name: it is empty or has a colon"));
            }
            let parts: HashParts = hash.parse().map_err(|_| {
                format!("{name} has no bcrypt hash: make one by htpasswd -nBC 10 NAME")
            })?;
            let cost = parts.get_cost();
            if !(4..=MAX_COST).contains(&cost) {
                return Err(format!(
                    "{name} has a hash of cost {cost}: use 4 to {MAX_COST}"
                ));
            }
        }
        let mut key = [0; 32];
        ring::default_provider()
            .secure_random
            .fill(&mut key)
            .map_err(|_| "the kernel gives no random bytes".to_owned())?;
        Ok(Self {
            hashes,
            good: Mutex::default(),
            key,
        })
    }

    /// `turn` has one permit.
    pub(super) async fn admit(
        self: &Arc<Self>,
        turn: &Arc<Semaphore>,
        header: Option<&HeaderValue>,
    ) -> bool {
        let Some((name, password)) = header.and_then(parse) else {
            return false;
        };
        let digest = self.digest(&name, &password);
        if self.good().contains(&digest) {
            return true;
        }
        let Ok(turn) = Arc::clone(turn).acquire_owned().await else {
            return false;
        };
        let this = Arc::clone(self);
        let checked = tokio::task::spawn_blocking(move || {
            // Whoever asked may be gone; the next one waits for this end all the same.
            let _turn = turn;
            this.is_right(&name, &password)
        });
        let right = checked.await.unwrap_or(false);
        if right {
            let mut good = self.good();
            if good.len() >= REMEMBERED {
                good.clear();
            }
            good.insert(digest);
        }
        right
    }

    fn is_right(&self, name: &str, password: &[u8]) -> bool {
        let known = self.hashes.get(name);
        // Somebody's, so that it costs the same.
        let Some(hash) = known.or_else(|| self.hashes.values().next()) else {
            return false;
        };
        let right = bcrypt::verify(password, hash).unwrap_or(false);
        right & known.is_some()
    }

    fn digest(&self, name: &str, password: &[u8]) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update(self.key);
        digest.update(name.len().to_le_bytes());
        digest.update(name);
        digest.update(password);
        digest.finalize().into()
    }

    fn good(&self) -> std::sync::MutexGuard<'_, HashSet<[u8; 32]>> {
        self.good.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Name and password.
fn parse(header: &HeaderValue) -> Option<(String, Vec<u8>)> {
    let (scheme, word) = header.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let mut name = STANDARD.decode(word.trim()).ok()?;
    let colon = name.iter().position(|byte| *byte == b':')?;
    let password = name.split_off(colon + 1);
    name.pop();
    Some((String::from_utf8(name).ok()?, password))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(pair: &str) -> HeaderValue {
        format!("Basic {}", STANDARD.encode(pair)).parse().unwrap()
    }

    #[tokio::test]
    async fn only_the_right_password_of_a_known_name() {
        // htpasswd's prefix is another than the crate's own.
        let hash = bcrypt::hash_with_salt("secret", 4, [7; 16]).unwrap();
        let hash = hash.format_for_version(bcrypt::Version::TwoY);
        let users = Users::new([("anna".to_owned(), hash)].into()).unwrap();
        let (users, turn) = (Arc::new(users), Arc::new(Semaphore::new(1)));
        for (pair, admitted) in [
            ("anna:secret", true),
            ("anna:secret", true),
            ("anna:Secret", false),
            ("anna:", false),
            ("bert:secret", false),
            (":secret", false),
            ("annasecret", false),
            ("anna:secret:", false),
        ] {
            let header = basic(pair);
            assert_eq!(users.admit(&turn, Some(&header)).await, admitted, "{pair}");
        }
        assert!(!users.admit(&turn, None).await);
        for other in ["Bearer x", "Basic", "Basic ???", "basic YQ"] {
            let header = other.parse().unwrap();
            assert!(!users.admit(&turn, Some(&header)).await, "{other}");
        }
        assert_eq!(users.good().len(), 1);
    }

    #[test]
    fn hashes_are_checked() {
        let of = |name: &str, hash: &str| {
            Users::new([(name.to_owned(), hash.to_owned())].into()).map(drop)
        };
        let hash = "$2y$10$QOauhQNbBCuQDKes6eFzPeMqBSjb7Mr5DUmpZ/VcEd00UAV/LDeSi";
        assert_eq!(of("anna", hash), Ok(()));
        for (name, hash) in [
            ("anna", "secret"),
            ("anna", ""),
            ("", hash),
            ("a:b", hash),
            ("anna", &hash.replace("$10$", "$31$")),
        ] {
            assert!(of(name, hash).is_err(), "{name} {hash}");
        }
    }
}
