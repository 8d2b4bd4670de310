//! Device tokens: JSON web tokens that name one device, verified by secret or public key, signed by the first secret.

use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use broker::{CredentialId, Identity};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use schema::clock::Timestamp;
use schema::id;
use serde::{Deserialize, Serialize};

use super::ClientCertificate;
use crate::config::Auth;

/// The issuer of the tokens made here.
pub(super) const ISSUER: &str = "edge-ingress-gateway";
/// Whose tokens are accepted.
const ISSUERS: [&str; 2] = [ISSUER, "cloud-identity-access"];
/// Seconds a token may live; one that claims more is refused.
pub(super) const LIFETIME_SECONDS_MAX: i64 = 900;
/// Seconds by which clocks may differ.
pub(super) const LEEWAY_SECONDS: i64 = 60;

/// A public key could not be read.
#[derive(Debug, thiserror::Error)]
#[error("read the public key {}", path.display())]
pub struct KeyFileError {
    /// The file that is named in `auth.jwt_public_key_files`.
    pub path: PathBuf,
    /// What is wrong with it.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// Where a device's credential lets it act. What a token leaves open, the allowlist says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::http) struct Scope {
    /// Tenant.
    pub tenant_id: String,
    /// The device.
    pub device_id: String,
    /// Farm, when the token names one.
    pub farm_id: Option<String>,
    /// Barn, when the token names one.
    pub barn_id: Option<String>,
    /// Station, when the token names one.
    pub station_id: Option<String>,
    /// The password that the token was given for; the token is good as long as it is.
    pub login: Option<CredentialId>,
}

impl Scope {
    /// The scope of a certificate or a login, which name a tenant and a device.
    #[must_use]
    pub(in crate::http) fn of(identity: &Identity) -> Self {
        Self {
            tenant_id: identity.tenant_id.as_str().to_owned(),
            device_id: identity.device_id.as_str().to_owned(),
            ..Self::default()
        }
    }
}

/// The claims, as they are read. Times may be written with a fraction.
#[derive(Debug, Deserialize)]
struct Claims {
    sub: String,
    tenant_id: String,
    farm_id: Option<String>,
    barn_id: Option<String>,
    station_id: Option<String>,
    iat: f64,
    exp: f64,
    nbf: Option<f64>,
    iss: String,
    aud: Option<Audience>,
    login: Option<LoginClaim>,
    cnf: Option<Confirmation>,
}

/// The certificate that a token was given for, as RFC 8705 names it: the token is good beside it alone.
#[derive(Debug, Deserialize, Serialize)]
struct Confirmation {
    #[serde(rename = "x5t#S256")]
    sha256: String,
}

impl Confirmation {
    fn of(certificate: &ClientCertificate) -> Self {
        Self { sha256: URL_SAFE_NO_PAD.encode(certificate.sha256) }
    }

    fn is(&self, shown: Option<&[u8; 32]>) -> bool {
        shown.is_some_and(|shown| URL_SAFE_NO_PAD.encode(shown) == self.sha256)
    }
}

/// A password that a token was given for, by the hash of its hash.
#[derive(Debug, Deserialize, Serialize)]
struct LoginClaim {
    user: String,
    mark: String,
}

impl LoginClaim {
    fn of(credential: &CredentialId) -> Self {
        Self { user: credential.username.to_string(), mark: hex::encode(credential.mark) }
    }

    fn credential(&self) -> Option<CredentialId> {
        let mut mark = [0; 32];
        hex::decode_to_slice(&self.mark, &mut mark).ok()?;
        // No column can hold a NUL, so that such a name would be no answer but a failure.
        (!self.user.contains('\0')).then(|| CredentialId { username: self.user.as_str().into(), mark })
    }
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Audience {
    fn names(&self, audience: &str) -> bool {
        match self {
            Self::One(one) => one == audience,
            Self::Many(many) => many.iter().any(|one| one == audience),
        }
    }
}

/// The claims, as they are written.
#[derive(Serialize)]
struct Issued<'a> {
    sub: &'a str,
    tenant_id: &'a str,
    iat: i64,
    exp: i64,
    iss: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    login: Option<LoginClaim>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cnf: Option<Confirmation>,
}

/// What a device shows to get a token.
#[derive(Clone, Debug)]
pub(in crate::http) enum Grounds {
    /// Its password.
    Password(Identity, CredentialId),
    /// Its certificate.
    Certificate(ClientCertificate),
}

impl Grounds {
    /// The device.
    #[must_use]
    pub(in crate::http) fn identity(&self) -> &Identity {
        match self {
            Self::Password(identity, _) => identity,
            Self::Certificate(certificate) => &certificate.identity,
        }
    }
}

/// A token that was made.
#[derive(Debug)]
pub(in crate::http) struct Token {
    /// What the device sends.
    pub text: String,
    /// Seconds it is good for.
    pub lifetime_seconds: i64,
}

/// Verifies and signs device tokens.
pub(in crate::http) struct Tokens {
    secrets: Vec<DecodingKey>,
    public_keys: Vec<DecodingKey>,
    signing: Option<EncodingKey>,
    audience: Option<String>,
    lifetime_seconds: i64,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").field("audience", &self.audience).finish_non_exhaustive()
    }
}

impl Tokens {
    /// Takes the secrets over and reads the public keys.
    ///
    /// # Errors
    /// When a file cannot be read or holds no RSA public key in PEM form.
    pub(in crate::http) fn new(auth: &Auth) -> Result<Self, KeyFileError> {
        let secrets = auth.jwt_secrets.iter().map(|secret| secret.expose().as_bytes());
        let public_keys = auth.jwt_public_key_files.iter().map(public_key).collect::<Result<_, _>>()?;
        Ok(Self {
            signing: secrets.clone().next().map(EncodingKey::from_secret),
            secrets: secrets.map(DecodingKey::from_secret).collect(),
            public_keys,
            audience: auth.jwt_audience.clone(),
            lifetime_seconds: i64::try_from(auth.jwt_lifetime_seconds).unwrap_or(LIFETIME_SECONDS_MAX),
        })
    }

    /// The scope of a token that is signed by one of ours, meant for us, and neither too long nor over. One that was
    /// given for a certificate is good for who shows that certificate, of which this is the SHA-256.
    #[must_use]
    pub(in crate::http) fn verify(
        &self,
        token: &str,
        certificate: Option<&[u8; 32]>,
        now: Timestamp,
    ) -> Option<Scope> {
        let claims = self.signed_claims(token)?;
        if claims.cnf.as_ref().is_some_and(|confirmation| !confirmation.is(certificate)) {
            return None;
        }
        self.accept(claims, now)
    }

    /// A new token for a device; `None` when there is no secret to sign it with. It does not outlive the certificate
    /// that it is given for.
    #[must_use]
    pub(in crate::http) fn issue(&self, grounds: &Grounds, now: Timestamp) -> Option<Token> {
        let (iat, identity) = (now.timestamp(), grounds.identity());
        let (lifetime_seconds, login, cnf) = match grounds {
            Grounds::Password(_, credential) => {
                (self.lifetime_seconds, Some(LoginClaim::of(credential)), None)
            }
            Grounds::Certificate(certificate) => {
                let left_seconds = certificate.ends_at_seconds.saturating_sub(iat).max(1);
                (self.lifetime_seconds.min(left_seconds), None, Some(Confirmation::of(certificate)))
            }
        };
        let claims = Issued {
            sub: identity.device_id.as_str(),
            tenant_id: identity.tenant_id.as_str(),
            iat,
            exp: iat + lifetime_seconds,
            iss: ISSUER,
            aud: self.audience.as_deref(),
            login,
            cnf,
        };
        let text = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, self.signing.as_ref()?);
        let text =
            text.expect("claims of texts and numbers always serialize, and a secret fits its algorithm");
        Some(Token { text, lifetime_seconds })
    }

    /// The token's own algorithm chooses among our keys of that kind alone, so that a public key never serves as a
    /// secret; a token without signature names no algorithm that is known.
    fn signed_claims(&self, token: &str) -> Option<Claims> {
        let algorithm = jsonwebtoken::decode_header(token).ok()?.alg;
        let keys = match algorithm {
            Algorithm::HS256 => &self.secrets,
            Algorithm::RS256 => &self.public_keys,
            Algorithm::HS384
            | Algorithm::HS512
            | Algorithm::RS384
            | Algorithm::RS512
            | Algorithm::ES256
            | Algorithm::ES384
            | Algorithm::PS256
            | Algorithm::PS384
            | Algorithm::PS512
            | Algorithm::EdDSA => return None,
        };
        let mut validation = Validation::new(algorithm);
        // The claims are judged in `accept`, by the engine's clock.
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        let claims = |key| Some(jsonwebtoken::decode::<Claims>(token, key, &validation).ok()?.claims);
        keys.iter().find_map(claims)
    }

    fn accept(&self, claims: Claims, now: Timestamp) -> Option<Scope> {
        #[expect(clippy::cast_precision_loss, reason = "microseconds of this age are exact in a double")]
        let now = now.timestamp_micros() as f64 / 1e6;
        #[expect(clippy::cast_precision_loss, reason = "both are far below 2^53")]
        let (leeway, lifetime_max) = (LEEWAY_SECONDS as f64, LIFETIME_SECONDS_MAX as f64);
        let lifetime = claims.exp - claims.iat;
        let is_current = claims.iat <= now + leeway
            && now <= claims.exp + leeway
            && claims.nbf.is_none_or(|nbf| nbf <= now + leeway);
        let is_ours = ISSUERS.contains(&claims.iss.as_str())
            && self
                .audience
                .as_deref()
                .is_none_or(|ours| claims.aud.as_ref().is_some_and(|audience| audience.names(ours)));
        let optional = [&claims.farm_id, &claims.barn_id, &claims.station_id];
        let are_ids = id::is_id(&claims.sub)
            && id::is_id(&claims.tenant_id)
            && optional.iter().all(|claim| claim.as_deref().is_none_or(id::is_id));
        let login = match &claims.login {
            Some(login) => Some(login.credential()?),
            None => None,
        };
        let is_good = is_current && is_ours && are_ids && lifetime > 0.0 && lifetime <= lifetime_max;
        is_good.then_some(Scope {
            tenant_id: claims.tenant_id,
            device_id: claims.sub,
            farm_id: claims.farm_id,
            barn_id: claims.barn_id,
            station_id: claims.station_id,
            login,
        })
    }
}

fn public_key(path: &PathBuf) -> Result<DecodingKey, KeyFileError> {
    let failed =
        |source: Box<dyn std::error::Error + Send + Sync>| KeyFileError { path: path.clone(), source };
    let pem = std::fs::read(path).map_err(|error| failed(error.into()))?;
    DecodingKey::from_rsa_pem(&pem).map_err(|error| failed(error.into()))
}

#[cfg(test)]
mod tests;
