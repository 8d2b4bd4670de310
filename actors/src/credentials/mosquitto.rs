//! Hashes as Mosquitto's password file holds them: PBKDF2 with SHA-512.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha512};

/// Bytes of a salt.
pub(super) const SALT_BYTES: usize = 12;
/// Rounds. They guard weak passwords, and ours are random and longer than any search.
const ROUNDS: u32 = 101;

/// The hash of the password of a user whose salt follows from both, so that a file with it stays as it is.
#[must_use]
pub fn hash_steadily(username: &str, password: &str) -> String {
    let digest = Sha512::new().chain_update(username).chain_update([0]).chain_update(password).finalize();
    let mut salt = [0; SALT_BYTES];
    salt.copy_from_slice(&digest[..SALT_BYTES]);
    hash(password.as_bytes(), salt)
}

/// The hash of a password: `$7$rounds$salt$hash`.
pub(super) fn hash(password: &[u8], salt: [u8; SALT_BYTES]) -> String {
    let hash = pbkdf2(password, &salt, ROUNDS);
    format!("$7${ROUNDS}${}${}", STANDARD.encode(salt), STANDARD.encode(hash))
}

/// The first block of PBKDF2, which is as long as the hash function's output.
fn pbkdf2(password: &[u8], salt: &[u8], rounds: u32) -> [u8; 64] {
    let keyed = Hmac::<Sha512>::new_from_slice(password).expect("a key may have any length");
    let mut block = keyed.clone();
    block.update(salt);
    block.update(&1_u32.to_be_bytes());
    let mut block: [u8; 64] = block.finalize().into_bytes().into();
    let mut sum = block;
    for _ in 1..rounds {
        let mut next = keyed.clone();
        next.update(&block);
        block = next.finalize().into_bytes().into();
        sum.iter_mut().zip(block).for_each(|(sum, byte)| *sum ^= byte);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From `hashlib.pbkdf2_hmac` of Python.
    #[test]
    fn other_makers_compute_the_same() {
        let check = |rounds, expected: &str| {
            assert_eq!(hex::encode(pbkdf2(b"password", b"salt", rounds)), expected, "{rounds} rounds");
        };
        check(
            1,
            "867f70cf1ade02cff3752599a3a53dc4af34c7a669815ae5d513554e1c8cf252c02d470a285a0501bad999bfe943c08f050235d7d68b1da55e63f73b60a57fce",
        );
        check(
            101,
            "0899b1f8f12cd157a81fc4cc1f8f046f1ac1f5f733a0534b26eebf34e94415d0e3983938e77f0e205b568937a0c9e21792c46a6944aba1b30ab14186a117e7f2",
        );
    }
}
