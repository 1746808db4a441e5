//! Private keys that prove a certificate: ECDSA over P-256 (RFC 6979) and Ed25519 (RFC 8032).

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use ed25519_dalek::pkcs8::{DecodePrivateKey as _, EncodePublicKey as _};
use rustls::crypto::KeyProvider;
use rustls::pki_types::{PrivateKeyDer, SubjectPublicKeyInfoDer};
use rustls::sign::{Signer, SigningKey};
use rustls::{Error, SignatureAlgorithm, SignatureScheme};

/// Reads keys for rustls.
#[derive(Debug)]
pub struct Keys;

impl KeyProvider for Keys {
    fn load_private_key(&self, key: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, Error> {
        let secret = match &key {
            PrivateKeyDer::Pkcs8(der) => {
                let der = der.secret_pkcs8_der();
                match p256::SecretKey::from_pkcs8_der(der) {
                    Ok(key) => Some(Secret::P256(key.into())),
                    Err(_) => ed25519_dalek::SigningKey::from_pkcs8_der(der)
                        .ok()
                        .map(Secret::Ed25519),
                }
            }
            PrivateKeyDer::Sec1(der) => p256::SecretKey::from_sec1_der(der.secret_sec1_der())
                .ok()
                .map(|key| Secret::P256(key.into())),
            _ => None,
        };
        match secret {
            Some(secret) => Ok(Arc::new(Key(Arc::new(secret)))),
            None => Err(Error::General(
                "the key is neither ECDSA P-256 nor Ed25519".to_owned(),
            )),
        }
    }
}

enum Secret {
    P256(p256::ecdsa::SigningKey),
    Ed25519(ed25519_dalek::SigningKey),
}

impl core::fmt::Debug for Secret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Secret::P256(_) => "a P-256 key",
            Secret::Ed25519(_) => "an Ed25519 key",
        })
    }
}

impl Secret {
    fn scheme(&self) -> SignatureScheme {
        match self {
            Secret::P256(_) => SignatureScheme::ECDSA_NISTP256_SHA256,
            Secret::Ed25519(_) => SignatureScheme::ED25519,
        }
    }
}

#[derive(Debug)]
struct Key(Arc<Secret>);

impl SigningKey for Key {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered
            .contains(&self.0.scheme())
            .then(|| Box::new(Key(self.0.clone())) as Box<dyn Signer>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        let der = match &*self.0 {
            Secret::P256(key) => p256::PublicKey::from(key.verifying_key()).to_public_key_der(),
            Secret::Ed25519(key) => key.verifying_key().to_public_key_der(),
        };
        der.ok().map(|der| der.into_vec().into())
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        match &*self.0 {
            Secret::P256(_) => SignatureAlgorithm::ECDSA,
            Secret::Ed25519(_) => SignatureAlgorithm::ED25519,
        }
    }
}

impl Signer for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        use ed25519_dalek::Signer as _;
        match &*self.0 {
            Secret::P256(key) => {
                let signature: p256::ecdsa::DerSignature = key
                    .try_sign(message)
                    .map_err(|_| Error::General("signing failed".to_owned()))?;
                Ok(signature.as_bytes().to_vec())
            }
            Secret::Ed25519(key) => Ok(key.sign(message).to_bytes().to_vec()),
        }
    }

    fn scheme(&self) -> SignatureScheme {
        self.0.scheme()
    }
}
