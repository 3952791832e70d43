//! nkeys: the server's own key, the nonce of a connection and the check of its signature. Randomness is passed in.

use base64::Engine;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, general_purpose::URL_SAFE_NO_PAD};
use nkeys::{KeyPair, KeyPairType, XKey};
use sha2::{Digest, Sha256};

/// Random bytes behind a nonce.
pub const NONCE_RAW_LEN: usize = 11;
/// Characters of a nonce as it stands in INFO, and as it is signed.
pub const NONCE_LEN: usize = 15;

const SIG_LEN: usize = 64;

// Both alphabets tolerate stray bits after the last full byte, as common client libraries' decoders do.
const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true);
const URL: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    LENIENT.with_decode_padding_mode(DecodePaddingMode::RequireNone),
);
const STD: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    LENIENT.with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

/// The challenge that a server puts into INFO and that a client signs, in its printed form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nonce([u8; NONCE_LEN]);

impl Nonce {
    /// Prints random bytes as base64url without padding.
    pub fn from_random(raw: [u8; NONCE_RAW_LEN]) -> Nonce {
        let mut text = [0; NONCE_LEN];
        let written = URL_SAFE_NO_PAD.encode_slice(raw, &mut text);
        debug_assert_eq!(written, Ok(NONCE_LEN), "11 bytes are 15 characters of base64");
        Nonce(text)
    }

    /// The text, which is also what is signed.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("base64 is ASCII")
    }

    /// The text's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Which spellings of a signature are accepted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum SigEncoding {
    /// base64url without padding, or padded standard base64: what a client may send.
    UrlOrStandard,
    /// base64url without padding only: what a proxy may send.
    UrlOnly,
}

/// A public nkey, decoded once.
#[derive(Clone, Debug)]
pub(crate) struct PublicKey {
    pair: KeyPair,
}

impl PublicKey {
    /// Reads a public user key (`U…`).
    pub(crate) fn user(text: &str) -> Option<PublicKey> {
        // The length test also keeps odd input away from the decoder.
        if text.len() != 56 || !text.starts_with('U') {
            return None;
        }
        let pair = KeyPair::from_public_key(text).ok()?;
        (pair.key_pair_type() == KeyPairType::User).then_some(PublicKey { pair })
    }

    /// Reads any public key that can sign.
    pub(crate) fn signer(text: &str) -> Option<PublicKey> {
        if text.len() != 56 || !text.is_ascii() || text.starts_with('X') {
            return None;
        }
        Some(PublicKey { pair: KeyPair::from_public_key(text).ok()? })
    }

    /// Whether `sig` is this key's signature over `message`. Malformed text is simply no signature.
    pub(crate) fn verify(&self, message: &[u8], sig: &str, encoding: SigEncoding) -> bool {
        let mut raw = [0u8; SIG_LEN + 4];
        let decoded = URL.decode_slice(sig, &mut raw).or_else(|e| match encoding {
            SigEncoding::UrlOrStandard => STD.decode_slice(sig, &mut raw),
            SigEncoding::UrlOnly => Err(e),
        });
        matches!(decoded, Ok(SIG_LEN)) && self.pair.verify(message, &raw[..SIG_LEN]).is_ok()
    }
}

/// Whether `text` is a well-formed public key of a user (`U…`).
pub fn is_public_user_key(text: &str) -> bool {
    PublicKey::user(text).is_some()
}

/// Whether `text` is a well-formed public key of an account (`A…`).
pub fn is_public_account_key(text: &str) -> bool {
    text.starts_with('A') && PublicKey::signer(text).is_some()
}

/// The server's identity: an ed25519 key whose public half is the server id, and the curve key that auth callout
/// services encrypt to.
pub struct ServerKey {
    pair: KeyPair,
    xkey: XKey,
    public: String,
    xkey_public: String,
}

impl ServerKey {
    /// Derives both keys from 32 random bytes. The curve key's secret is a digest of the seed under its own label, so
    /// that neither key's secret gives away the other.
    pub fn from_seed(seed: [u8; 32]) -> ServerKey {
        let pair =
            KeyPair::new_from_raw(KeyPairType::Server, seed).expect("every 32 bytes are an ed25519 seed");
        let curve: [u8; 32] =
            Sha256::new().chain_update(b"fulmar server xkey v1\0").chain_update(seed).finalize().into();
        let xkey = XKey::new_from_raw(curve);
        let (public, xkey_public) = (pair.public_key(), xkey.public_key());
        ServerKey { pair, xkey, public, xkey_public }
    }

    /// The server id, `N…`, 56 characters.
    pub fn public(&self) -> &str {
        &self.public
    }

    /// The curve public key shown as `xkey` in INFO, `X…`, 56 characters.
    pub fn xkey_public(&self) -> &str {
        &self.xkey_public
    }

    /// The curve key itself, to open and seal what goes to an auth callout service.
    pub fn xkey(&self) -> &XKey {
        &self.xkey
    }

    /// Signs with the server's key.
    pub fn sign(&self, message: &[u8]) -> [u8; SIG_LEN] {
        let sig = self.pair.sign(message).expect("the pair was made from its seed");
        sig.try_into().expect("an ed25519 signature has 64 bytes")
    }
}

impl std::fmt::Debug for ServerKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ServerKey({})", self.public)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};
    use proptest::prelude::*;

    /// The public key of the seed 0, 1, … 31, computed by an independent implementation and accepted by nats-server.
    const USER: &str = "UAB2CB576PHBBPQ5ODORRZ2LYCMWPZGWGCN2KDK7DXOIMZASKUY3RLKK";

    fn seed() -> [u8; 32] {
        std::array::from_fn(|i| i as u8)
    }

    #[test]
    fn known_key_and_rfc8032_signature() {
        let pair = KeyPair::new_from_raw(KeyPairType::User, seed()).unwrap();
        assert_eq!(pair.public_key(), USER);
        // RFC 8032, section 7.1, test 2: one byte 0x72.
        let hex = |s: &str| -> Vec<u8> {
            (0..s.len()).step_by(2).map(|i| u8::from_str_radix(&s[i..i + 2], 16).unwrap()).collect()
        };
        let secret = hex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb");
        let sig = hex(
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        );
        let pair = KeyPair::new_from_raw(KeyPairType::User, secret.try_into().unwrap()).unwrap();
        assert_eq!(pair.sign(&[0x72]).unwrap(), sig);
        let key = PublicKey::user(&pair.public_key()).unwrap();
        assert!(key.verify(&[0x72], &URL_SAFE_NO_PAD.encode(&sig), SigEncoding::UrlOnly));
    }

    #[test]
    fn signature_spellings() {
        let pair = KeyPair::new_from_raw(KeyPairType::User, seed()).unwrap();
        let key = PublicKey::user(USER).unwrap();
        let nonce = Nonce::from_random(*b"abcdefghijk");
        let sig = pair.sign(nonce.as_bytes()).unwrap();
        let ok = |text: &str, e| key.verify(nonce.as_bytes(), text, e);
        assert!(ok(&URL_SAFE_NO_PAD.encode(&sig), SigEncoding::UrlOrStandard));
        assert!(ok(&STANDARD.encode(&sig), SigEncoding::UrlOrStandard));
        assert!(!ok(&STANDARD.encode(&sig), SigEncoding::UrlOnly));
        // Observed on nats-server: padded base64url passes only where it happens to be standard base64 too.
        let padded = URL_SAFE.encode(&sig);
        assert_eq!(ok(&padded, SigEncoding::UrlOrStandard), !padded.contains(['-', '_']));
        for bad in ["", "!!", "AAAA", &"A".repeat(86), &"A".repeat(400), "é"] {
            assert!(!ok(bad, SigEncoding::UrlOrStandard), "{bad}");
        }
        assert!(!key.verify(b"another nonce", &URL_SAFE_NO_PAD.encode(&sig), SigEncoding::UrlOrStandard));
    }

    #[test]
    fn nonce_is_fifteen_base64url_characters() {
        assert_eq!(Nonce::from_random([0; 11]).as_str(), "AAAAAAAAAAAAAAA");
        assert_eq!(Nonce::from_random([0xff; 11]).as_str(), "______________8");
    }

    #[test]
    fn server_key_is_stable_and_of_the_right_kinds() {
        let key = ServerKey::from_seed(seed());
        assert_eq!(key.public().len(), 56);
        assert!(key.public().starts_with('N'));
        assert!(key.xkey_public().starts_with('X'));
        assert_eq!(key.xkey_public().len(), 56);
        assert_eq!(ServerKey::from_seed(seed()).xkey_public(), key.xkey_public());
        assert_ne!(ServerKey::from_seed([9; 32]).public(), key.public());
        let public = PublicKey::signer(key.public()).unwrap();
        assert!(public.verify(b"m", &URL_SAFE_NO_PAD.encode(key.sign(b"m")), SigEncoding::UrlOnly));
        assert!(XKey::from_public_key(key.xkey_public()).is_ok());
        assert!(!format!("{key:?}").contains("seed"));
    }

    #[test]
    fn kinds_of_keys_are_told_apart() {
        let account = KeyPair::new_from_raw(KeyPairType::Account, seed()).unwrap().public_key();
        assert!(is_public_user_key(USER) && !is_public_account_key(USER));
        assert!(is_public_account_key(&account) && !is_public_user_key(&account));
        let mut broken = USER.to_owned();
        broken.replace_range(10..11, "Z");
        assert!(!is_public_user_key(&broken), "the checksum catches a changed character");
        for bad in ["", "U", "UFOO", &"U".repeat(56), &"é".repeat(28)] {
            assert!(!is_public_user_key(bad));
            assert!(PublicKey::signer(bad).is_none());
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_decoder_panic(text in "\\PC{0,80}", sig in "\\PC{0,120}") {
            prop_assert!(!is_public_user_key(&text));
            prop_assert!(!PublicKey::user(USER).unwrap().verify(text.as_bytes(), &sig, SigEncoding::UrlOrStandard));
        }

        #[test]
        fn shaped_keys_do_not_panic_either(tail in "[A-Z2-7]{55}") {
            let _ = PublicKey::user(&format!("U{tail}"));
            let _ = PublicKey::signer(&format!("N{tail}"));
        }
    }
}
