//! What a backup is sealed with: one key for each place of backups, itself sealed with the owner's passphrase.
//!
//! Each object is sealed on its own with ChaCha20-Poly1305, bound to its name: an object that was changed, cut short, or put
//! in the place of another one does not open. The list of what belongs to a backup is sealed, too.

use argon2::{Algorithm, Argon2, Params, Version};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use serde::{Deserialize, Serialize};

use crate::config::Secret;

/// Bytes of a key.
const KEY_BYTES: usize = 32;
/// Bytes of the salt of a passphrase.
const SALT_BYTES: usize = 16;
/// Bytes of the shortest passphrase that is taken.
pub const PASSPHRASE_BYTES_MIN: usize = 12;
/// Memory and passes that trying one passphrase costs: about a quarter of a second on a small box.
const MEMORY_KIB: u32 = 64 * 1024;
const PASSES: u32 = 3;
/// The most that a keyring may ask for, since it is read before anything is known to be genuine.
const MEMORY_KIB_MAX: u32 = 1024 * 1024;
const PASSES_MAX: u32 = 32;
/// The only format there is so far.
const FORMAT: u32 = 1;
/// What the sealed key is bound to.
const KEY_NAME: &str = "farmiq-edge backup key";

/// Why something cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The passphrase can be guessed.
    #[error(
        "the passphrase has less than {PASSPHRASE_BYTES_MIN} bytes: `openssl rand -hex 32 > backup.key` makes a good one"
    )]
    Short,
    /// The keyring is no keyring, or one of a newer program.
    #[error(
        "the file keyring.json of the backups cannot be read: it was damaged, or a newer farmiq-edge wrote it"
    )]
    Keyring,
    /// The key does not open.
    #[error("the passphrase is not that of these backups, or their keyring.json was changed")]
    Passphrase,
    /// An object does not open.
    #[error("{0} was changed since it was written, or belongs to another place")]
    Broken(String),
}

/// The key of a place of backups as it is written down there.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keyring {
    format: u32,
    /// The box whose backups these are.
    pub edge_id: String,
    memory_kib: u32,
    passes: u32,
    salt: String,
    sealed_key: String,
}

/// A key that is open.
pub struct Vault {
    key: LessSafeKey,
    names: hmac::Key,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vault").finish_non_exhaustive()
    }
}

impl Keyring {
    /// A new key for a new place of backups.
    ///
    /// # Errors
    /// When the passphrase is short.
    pub fn make(edge_id: &str, passphrase: &Secret) -> Result<(Self, Vault), VaultError> {
        if passphrase.expose().len() < PASSPHRASE_BYTES_MIN {
            return Err(VaultError::Short);
        }
        let key: [u8; KEY_BYTES] = rand::random();
        let mut keyring = Self {
            format: FORMAT,
            edge_id: edge_id.to_owned(),
            memory_kib: MEMORY_KIB,
            passes: PASSES,
            salt: hex::encode(rand::random::<[u8; SALT_BYTES]>()),
            sealed_key: String::new(),
        };
        let outer = keyring.outer(passphrase)?;
        keyring.sealed_key = hex::encode(outer.seal(&keyring.bound_to(), &key));
        Ok((keyring, Vault::of(&key)))
    }

    /// Opens the key.
    ///
    /// # Errors
    /// When the passphrase is another one.
    pub fn open(&self, passphrase: &Secret) -> Result<Vault, VaultError> {
        let sealed = hex::decode(&self.sealed_key).map_err(|_| VaultError::Keyring)?;
        let opened = self.outer(passphrase)?.open(&self.bound_to(), sealed);
        let key = opened.map_err(|_| VaultError::Passphrase)?;
        Ok(Vault::of(key.as_slice().try_into().map_err(|_| VaultError::Keyring)?))
    }

    /// The keyring as a file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("texts and numbers become JSON")
    }

    /// Reads the file.
    ///
    /// # Errors
    /// When it is no keyring that this program knows.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, VaultError> {
        let keyring: Self = serde_json::from_slice(bytes).map_err(|_| VaultError::Keyring)?;
        let is_sane = keyring.memory_kib <= MEMORY_KIB_MAX && keyring.passes <= PASSES_MAX;
        if keyring.format == FORMAT && is_sane { Ok(keyring) } else { Err(VaultError::Keyring) }
    }

    /// What the key is sealed with.
    fn outer(&self, passphrase: &Secret) -> Result<Vault, VaultError> {
        let params = Params::new(self.memory_kib, self.passes, 1, Some(KEY_BYTES));
        let argon2 =
            Argon2::new(Algorithm::Argon2id, Version::V0x13, params.map_err(|_| VaultError::Keyring)?);
        let salt = hex::decode(&self.salt).map_err(|_| VaultError::Keyring)?;
        let mut key = [0; KEY_BYTES];
        argon2
            .hash_password_into(passphrase.expose().as_bytes(), &salt, &mut key)
            .map_err(|_| VaultError::Keyring)?;
        Ok(Vault::of(&key))
    }

    fn bound_to(&self) -> String {
        format!("{KEY_NAME} of {}", self.edge_id)
    }
}

impl Vault {
    fn of(key: &[u8; KEY_BYTES]) -> Self {
        let unbound =
            UnboundKey::new(&CHACHA20_POLY1305, key).expect("the key has the length of the cipher's");
        Self { key: LessSafeKey::new(unbound), names: hmac::Key::new(hmac::HMAC_SHA256, key) }
    }

    /// Seals the contents of an object under its name.
    #[must_use]
    pub fn seal(&self, name: &str, contents: &[u8]) -> Vec<u8> {
        // Random, and good for some four thousand million objects of one key.
        let nonce: [u8; NONCE_LEN] = rand::random();
        let mut sealed = Vec::with_capacity(NONCE_LEN + contents.len() + CHACHA20_POLY1305.tag_len());
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(contents);
        let tag = self.key.seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(name.as_bytes()),
            &mut sealed[NONCE_LEN..],
        );
        sealed.extend_from_slice(tag.expect("an object is far smaller than the cipher's limit").as_ref());
        sealed
    }

    /// Opens an object that was sealed under this name.
    ///
    /// # Errors
    /// When one bit differs from what was sealed.
    pub fn open(&self, name: &str, mut sealed: Vec<u8>) -> Result<Vec<u8>, VaultError> {
        let broken = || VaultError::Broken(name.to_owned());
        let nonce = sealed.first_chunk::<NONCE_LEN>().copied().ok_or_else(broken)?;
        let nonce = Nonce::assume_unique_for_key(nonce);
        let opened = self.key.open_within(nonce, Aad::from(name.as_bytes()), &mut sealed, NONCE_LEN..);
        let length = opened.map_err(|_| broken())?.len();
        sealed.truncate(length);
        Ok(sealed)
    }

    /// A name for something that says nothing about it to whoever has no key.
    #[must_use]
    pub fn name_of(&self, what: &str) -> String {
        hex::encode(&hmac::sign(&self.names, what.as_bytes()).as_ref()[..16])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::from(text.to_owned())
    }

    #[test]
    fn a_key_opens_with_its_passphrase_alone() {
        let (keyring, vault) = Keyring::make("edge-1", &secret("correct horse")).unwrap();
        let sealed = vault.seal("a", b"hens");
        let again = Keyring::from_bytes(&keyring.to_bytes()).unwrap();
        let opened = again.open(&secret("correct horse")).unwrap();
        assert_eq!(opened.open("a", sealed).unwrap(), b"hens");
        assert!(matches!(again.open(&secret("wrong horse!")), Err(VaultError::Passphrase)));
        let stolen = Keyring { edge_id: "edge-2".to_owned(), ..again };
        assert!(matches!(stolen.open(&secret("correct horse")), Err(VaultError::Passphrase)));
        assert!(matches!(Keyring::make("edge-1", &secret("short")), Err(VaultError::Short)));
    }

    #[test]
    fn an_object_does_not_open_once_a_bit_is_turned_or_its_name_is_another() {
        let vault = Vault::of(&[7; KEY_BYTES]);
        for contents in [&b""[..], b"a reading", &[0; 70_000]] {
            let sealed = vault.seal("database.0001", contents);
            assert_eq!(vault.open("database.0001", sealed.clone()).unwrap(), contents);
            assert!(vault.open("database.0002", sealed.clone()).is_err());
            for at in [0, sealed.len() / 2, sealed.len() - 1] {
                let mut turned = sealed.clone();
                turned[at] ^= 1;
                assert!(vault.open("database.0001", turned).is_err(), "{at}");
            }
            for length in [0, 5, sealed.len() - 1] {
                assert!(vault.open("database.0001", sealed[..length].to_vec()).is_err(), "{length}");
            }
        }
        assert_ne!(vault.seal("a", b"x"), vault.seal("a", b"x"));
    }

    #[test]
    fn a_keyring_that_asks_for_the_whole_machine_is_refused() {
        let (keyring, _) = Keyring::make("edge-1", &secret("correct horse")).unwrap();
        let greedy = Keyring { memory_kib: MEMORY_KIB_MAX + 1, ..keyring.clone() };
        assert!(Keyring::from_bytes(&greedy.to_bytes()).is_err());
        let newer = Keyring { format: FORMAT + 1, ..keyring };
        assert!(Keyring::from_bytes(&newer.to_bytes()).is_err());
        assert!(Keyring::from_bytes(b"{}").is_err());
    }
}
