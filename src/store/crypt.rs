//! Encryption at rest: a key for each file, derived from a configured key and the file's own salt.
//!
//! Owns key derivation, sealing and opening, and the set of configured keys (rotation: the first one writes, all read).
//! Does not own where keys come from. Losing a key loses the data that it sealed.
//!
//! - S-30: no nonce is used twice under one key: each file has its own random salt, and within a file nonces count.

use std::fmt;

use bytes::Bytes;
use ring::{aead, hkdf};

use crate::codec::{Get, Put};

/// Bytes that sealing adds.
pub(crate) const TAG: usize = 16;

/// Which cipher seals.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cipher {
    /// ChaCha20-Poly1305.
    ChaCha,
    /// AES-256-GCM.
    Aes,
}

impl Cipher {
    fn algorithm(self) -> &'static aead::Algorithm {
        match self {
            Cipher::ChaCha => &aead::CHACHA20_POLY1305,
            Cipher::Aes => &aead::AES_256_GCM,
        }
    }
}

/// One configured key.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    cipher: Cipher,
    secret: Vec<u8>,
    id: u32,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?}, {:08x})", self.cipher, self.id)
    }
}

impl Key {
    /// A key of any text or bytes, as the configuration gives it.
    pub fn new(cipher: Cipher, secret: &[u8]) -> Key {
        let mut named = secret.to_vec();
        named.extend_from_slice(match cipher {
            Cipher::ChaCha => b"chacha",
            Cipher::Aes => b"aes",
        });
        let d = ring::digest::digest(&ring::digest::SHA256, &named);
        let d = ring::digest::digest(&ring::digest::SHA256, d.as_ref());
        let id = crate::codec::u32_at(d.as_ref(), 0).max(1);
        Key { cipher, secret: secret.to_vec(), id }
    }

    /// What files that it sealed call it; never 0.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Its bytes, for where they are sealed themselves.
    pub(crate) fn put(&self, b: &mut Vec<u8>) {
        b.u8(match self.cipher {
            Cipher::ChaCha => 1,
            Cipher::Aes => 2,
        });
        b.bytes(&self.secret);
    }

    /// What [`Key::put`] wrote.
    pub(crate) fn get(g: &mut Get<'_>) -> Option<Key> {
        let cipher = match g.u8()? {
            1 => Cipher::ChaCha,
            2 => Cipher::Aes,
            _ => return None,
        };
        Some(Key::new(cipher, g.bytes()?))
    }

    /// The key of one file.
    pub(crate) fn for_file(&self, salt: &[u8; 16]) -> FileKey {
        let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(&self.secret);
        let algorithm = self.cipher.algorithm();
        let okm = prk.expand(&[b"fulmar store file"], algorithm).expect("the info is short");
        FileKey(aead::LessSafeKey::new(aead::UnboundKey::from(okm)))
    }
}

/// The keys of a store: the first one seals what is written, all open what is read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Keys(pub Vec<Key>);

impl Keys {
    /// The key that seals, if there is one.
    pub(crate) fn current(&self) -> Option<&Key> {
        self.0.first()
    }
    /// The id of the key that seals; 0 if none does.
    pub(crate) fn current_id(&self) -> u32 {
        self.current().map_or(0, Key::id)
    }
    /// Whether what this key sealed can be opened; an error's text if not.
    pub(crate) fn check(&self, id: u32) -> Result<(), String> {
        if id == 0 || self.0.iter().any(|k| k.id == id) { Ok(()) } else { Err(absent(id)) }
    }
    /// The key with this id; an error's text if it is not configured. 0 means "not sealed".
    pub(crate) fn of_file(&self, id: u32, salt: &[u8; 16]) -> Result<Option<FileKey>, String> {
        if id == 0 {
            return Ok(None);
        }
        match self.0.iter().find(|k| k.id == id) {
            Some(k) => Ok(Some(k.for_file(salt))),
            None => Err(absent(id)),
        }
    }
}

/// How every text ends that says that a key is missing.
pub const KEY_ABSENT: &str = "which is not configured";

/// What to say of a key that is not there.
pub(crate) fn absent(id: u32) -> String {
    format!("sealed with the key {id:08x}, {KEY_ABSENT}")
}

/// The key of one file.
pub(crate) struct FileKey(aead::LessSafeKey);

impl fmt::Debug for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FileKey")
    }
}

impl FileKey {
    pub(crate) fn seal(&self, nonce: [u8; 12], header: &[u8], plain: &[u8]) -> Bytes {
        let mut b = Vec::with_capacity(plain.len() + TAG);
        b.extend_from_slice(plain);
        self.0
            .seal_in_place_append_tag(
                aead::Nonce::assume_unique_for_key(nonce),
                aead::Aad::from(header),
                &mut b,
            )
            .expect("a frame is far below the cipher's limit");
        b.into()
    }

    /// What was sealed, or `None` if anything was changed.
    pub(crate) fn open(&self, nonce: [u8; 12], header: &[u8], sealed: &[u8]) -> Option<Bytes> {
        let mut b = sealed.to_vec();
        let n = self
            .0
            .open_in_place(aead::Nonce::assume_unique_for_key(nonce), aead::Aad::from(header), &mut b)
            .ok()?
            .len();
        b.truncate(n);
        Some(b.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s30_what_is_sealed_opens_only_unchanged_and_with_its_own_salt() {
        for cipher in [Cipher::ChaCha, Cipher::Aes] {
            let key = Key::new(cipher, b"secret");
            let file = key.for_file(&[1; 16]);
            let sealed = file.seal([0; 12], b"head", b"body");
            assert_eq!(sealed.len(), 4 + TAG);
            assert_eq!(file.open([0; 12], b"head", &sealed).as_deref(), Some(&b"body"[..]));
            assert_eq!(file.open([1; 12], b"head", &sealed), None);
            assert_eq!(file.open([0; 12], b"heat", &sealed), None);
            assert_eq!(key.for_file(&[2; 16]).open([0; 12], b"head", &sealed), None);
            for i in 0..sealed.len() {
                let mut bad = sealed.to_vec();
                bad[i] ^= 1;
                assert_eq!(file.open([0; 12], b"head", &bad), None);
            }
        }
        assert_ne!(Key::new(Cipher::Aes, b"x").id(), Key::new(Cipher::ChaCha, b"x").id());
        let keys = Keys(vec![Key::new(Cipher::Aes, b"new"), Key::new(Cipher::Aes, b"old")]);
        assert!(keys.of_file(keys.0[1].id(), &[0; 16]).is_ok_and(|k| k.is_some()));
        assert!(keys.of_file(77, &[0; 16]).is_err());
    }
}
