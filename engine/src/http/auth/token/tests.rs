//! The table of tokens: what is accepted, and everything that is not.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::Duration;
use schema::id::{DeviceId, TenantId};
use schema::wire;
use serde_json::{Value, json};

use super::*;
use crate::config::{Config, Secret};

/// The public half of a key pair whose private half is gone after it signed [`SIGNED`].
const PUBLIC_KEY: &str = include_str!("test_key.pem");
/// Issued by cloud-identity-access for d-001 of t-001 on f-001, good from 09:00:00 to 09:10:00 on 2026-02-12.
const SIGNED: &str = "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJkLTAwMSIsInRlbmFudF9pZCI6InQtMDAxIiwiZmFybV9pZCI6ImYtMDAxIiwiaWF0IjoxNzcwODg2ODAwLCJleHAiOjE3NzA4ODc0MDAsImlzcyI6ImNsb3VkLWlkZW50aXR5LWFjY2VzcyIsImF1ZCI6WyJvdGhlciIsImZhcm1pcS1lZGdlIl19.HnQyKIlMeweI3SXYAWPbN-o4s9NlyijsSJ72T2iDRxTBdVbDnv4i9146O6RWVlBhwRgl4mIe-2Wyp_0o6hwqDExhUGjep7cYZlBsfegFpSYhwDEVprmaWjE20sjLqIaXCKvt9ZmSfELJ_F1iiKuAahzulI0cQYoxReh53Rk56V2tedNmTt9kDXY_0GTE7G-ehCkUHmOY3tu1aY25eLkO_x11jF9bwngyv8MOy1_CY__N8WFfIwKnmogBQ3bMCFLLzkSyC654eVUkIU4XcoRtkg2vPBVlYcazyJ8n0a4Md-mT93tqv9A4pU6_I-Ji0UDWD5YQivQwEuwZt2UZ1E282g";

fn at(text: &str) -> Timestamp {
    wire::time::parse(text).expect("a time")
}

fn now() -> Timestamp {
    at("2026-02-12T09:00:00Z")
}

fn auth(secrets: &[&str], audience: Option<&str>) -> Auth {
    let mut auth = Config::default().auth;
    auth.jwt_secrets = secrets.iter().map(|&secret| Secret::from(secret.to_owned())).collect();
    auth.jwt_audience = audience.map(str::to_owned);
    auth
}

fn tokens(secrets: &[&str], audience: Option<&str>) -> Tokens {
    Tokens::new(&auth(secrets, audience)).expect("no key files")
}

fn with_public_key() -> Tokens {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("key.pem");
    std::fs::write(&path, PUBLIC_KEY).expect("a file");
    Tokens::new(&Auth { jwt_public_key_files: vec![path], ..auth(&[], None) }).expect("a public key")
}

fn claims(changes: &Value) -> Value {
    let iat = now().timestamp();
    let mut claims = json!({"sub": "d-001", "tenant_id": "t-001", "iat": iat, "exp": iat + 600,
        "iss": "edge-ingress-gateway", "aud": "farmiq-edge"});
    for (name, value) in changes.as_object().expect("changes are an object") {
        claims[name] = value.clone();
    }
    claims
}

fn signed(algorithm: Algorithm, secret: &str, claims: &Value) -> String {
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&Header::new(algorithm), claims, &key).expect("a token")
}

fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.", part(header), part(claims))
}

#[test]
fn claims_are_taken_as_they_are_listed() {
    let tokens = tokens(&["secret"], Some("farmiq-edge"));
    let check = |changes: Value, is_good: bool| {
        let token = signed(Algorithm::HS256, "secret", &claims(&changes));
        assert_eq!(tokens.verify(&token, None, now()).is_some(), is_good, "{changes}");
    };
    let iat = now().timestamp();
    check(json!({}), true);
    check(json!({"iss": "cloud-identity-access"}), true);
    check(json!({"aud": ["else", "farmiq-edge"]}), true);
    check(json!({"farm_id": "f", "barn_id": "b", "station_id": "s"}), true);
    check(json!({"exp": iat + 900}), true);
    check(json!({"iat": iat + 60, "exp": iat + 660}), true);
    check(json!({"exp": iat as f64 + 600.5}), true);

    check(json!({"iss": "somebody"}), false);
    check(json!({"iss": null}), false);
    check(json!({"iss": ["edge-ingress-gateway"]}), false);
    check(json!({"aud": "else"}), false);
    check(json!({"aud": null}), false);
    check(json!({"aud": []}), false);
    check(json!({"sub": null}), false);
    check(json!({"sub": ""}), false);
    check(json!({"sub": "d/../x"}), false);
    check(json!({"tenant_id": null}), false);
    check(json!({"tenant_id": "t+1"}), false);
    check(json!({"farm_id": ""}), false);
    check(json!({"iat": null}), false);
    check(json!({"exp": null}), false);
    check(json!({"exp": "soon"}), false);
    check(json!({"exp": iat + 901}), false);
    check(json!({"exp": iat}), false);
    check(json!({"iat": iat + 61, "exp": iat + 661}), false);
    check(json!({"nbf": iat + 61}), false);
}

#[test]
fn a_token_is_good_until_a_minute_after_its_end() {
    let tokens = tokens(&["secret"], None);
    let token = signed(Algorithm::HS256, "secret", &claims(&json!({})));
    let check = |seconds, is_good| {
        assert_eq!(
            tokens.verify(&token, None, now() + Duration::seconds(seconds)).is_some(),
            is_good,
            "{seconds} s"
        );
    };
    check(-60, true);
    check(-61, false);
    check(600, true);
    check(660, true);
    check(661, false);
}

#[test]
fn without_a_configured_audience_any_will_do() {
    let tokens = tokens(&["secret"], None);
    for aud in [json!("else"), json!(null), json!(["a"])] {
        let token = signed(Algorithm::HS256, "secret", &claims(&json!({"aud": aud})));
        assert!(tokens.verify(&token, None, now()).is_some(), "{aud}");
    }
}

#[test]
fn both_secrets_verify_while_they_rotate() {
    let tokens = tokens(&["new", "old"], None);
    let check = |secret, is_good| {
        let token = signed(Algorithm::HS256, secret, &claims(&json!({})));
        assert_eq!(tokens.verify(&token, None, now()).is_some(), is_good, "{secret}");
    };
    check("new", true);
    check("old", true);
    check("older", false);
    check("", false);
}

#[test]
fn a_token_that_is_not_signed_as_agreed_is_refused() {
    let tokens = tokens(&["secret"], None);
    let refused = |token: &str| assert_eq!(tokens.verify(token, None, now()), None, "{token}");
    let claims = claims(&json!({}));
    for alg in ["none", "None", "NONE", ""] {
        refused(&unsigned(&json!({"alg": alg, "typ": "JWT"}), &claims));
    }
    refused(&unsigned(&json!({"alg": "HS256"}), &claims));
    refused(&unsigned(&json!({"typ": "JWT"}), &claims));
    refused(&signed(Algorithm::HS384, "secret", &claims));
    refused(&signed(Algorithm::HS512, "secret", &claims));
    let good = signed(Algorithm::HS256, "secret", &claims);
    let (head, signature) = good.rsplit_once('.').expect("a token has two dots");
    refused(head);
    refused(&format!("{head}.{}", signature.to_uppercase()));
    let other = URL_SAFE_NO_PAD.encode(json!({"sub": "d-002"}).to_string());
    refused(&format!("{}.{other}.{signature}", head.split_once('.').expect("two parts").0));
    for text in ["", ".", "..", "a.b.c", "ümlaut"] {
        refused(text);
    }
}

#[test]
fn a_public_key_verifies_and_never_serves_as_a_secret() {
    let tokens = with_public_key();
    let scope = tokens.verify(SIGNED, None, now()).expect("a good token");
    assert_eq!((scope.tenant_id.as_str(), scope.device_id.as_str()), ("t-001", "d-001"));
    assert_eq!((scope.farm_id.as_deref(), scope.barn_id), (Some("f-001"), None));
    assert_eq!(tokens.verify(SIGNED, None, at("2026-02-12T09:12:00Z")), None);
    let confused = signed(Algorithm::HS256, PUBLIC_KEY, &claims(&json!({})));
    assert_eq!(tokens.verify(&confused, None, now()), None);
    let without_key = super::tests::tokens(&["secret"], None);
    assert_eq!(without_key.verify(SIGNED, None, now()), None);
}

#[test]
fn a_file_without_a_public_key_is_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("key.pem");
    let error = |path: PathBuf| {
        let auth = Auth { jwt_public_key_files: vec![path], ..auth(&[], None) };
        Tokens::new(&auth).expect_err("no key").to_string()
    };
    assert!(error(path.clone()).contains("key.pem"));
    std::fs::write(&path, "no key").expect("a file");
    assert!(error(path).contains("key.pem"));
}

fn identity() -> Identity {
    Identity {
        tenant_id: TenantId::new("t-001").expect("an id"),
        device_id: DeviceId::new("d-001").expect("an id"),
    }
}

#[test]
fn a_token_made_here_is_accepted_here() {
    let tokens = tokens(&["new", "old"], Some("farmiq-edge"));
    let credential = CredentialId { username: "d-001".into(), mark: [7; 32] };
    let grounds = Grounds::Password(identity(), credential.clone());
    let token = tokens.issue(&grounds, now()).expect("there is a secret");
    let scope = Scope { login: Some(credential), ..Scope::of(&identity()) };
    assert_eq!(tokens.verify(&token.text, None, now()), Some(scope));
    assert_eq!(token.lifetime_seconds, 600);
    assert!(super::tests::tokens(&[], None).issue(&grounds, now()).is_none());
}

#[test]
fn a_token_names_the_certificate_it_was_given_for_and_ends_with_it() {
    let tokens = tokens(&["secret"], None);
    let check = |left_seconds: i64, expected: i64| {
        let ends_at_seconds = now().timestamp() + left_seconds;
        let certificate = ClientCertificate { identity: identity(), sha256: [0xab; 32], ends_at_seconds };
        let token = tokens.issue(&Grounds::Certificate(certificate), now()).expect("there is a secret");
        assert_eq!(token.lifetime_seconds, expected);
        let claims = URL_SAFE_NO_PAD.decode(token.text.split('.').nth(1).expect("claims")).expect("base64");
        let claims: Value = serde_json::from_slice(&claims).expect("JSON");
        assert_eq!(claims["exp"], now().timestamp() + expected);
        assert_eq!(claims["cnf"]["x5t#S256"], URL_SAFE_NO_PAD.encode([0xab; 32]));
        assert!(tokens.verify(&token.text, Some(&[0xab; 32]), now()).is_some());
        assert!(tokens.verify(&token.text, Some(&[0xac; 32]), now()).is_none());
    };
    check(86_400, 600);
    check(600, 600);
    check(90, 90);
}
