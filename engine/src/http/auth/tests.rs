//! The table of the contract: class of the route by credential by mode.

use broker::{CredentialId, Identity};
use schema::id::{DeviceId, TenantId};
use schema::wire;

use super::*;
use crate::config::{Config, OperatorKey, Secret};

fn now() -> Timestamp {
    wire::time::parse("2026-02-12T09:00:00Z").expect("a time")
}

fn certificate() -> ClientCertificate {
    let identity = Identity {
        tenant_id: TenantId::new("t-001").expect("an id"),
        device_id: DeviceId::new("d-001").expect("an id"),
    };
    ClientCertificate { identity, sha256: [7; 32], ends_at_seconds: i64::MAX }
}

/// A token that was given for a password.
fn token(authority: &Authority) -> String {
    let credential = CredentialId { username: "d-001".into(), mark: [0; 32] };
    let grounds = Grounds::Password(certificate().identity, credential);
    authority.tokens.issue(&grounds, now()).expect("there is a secret").text
}

fn key(key: &str, role: Role) -> OperatorKey {
    OperatorKey { name: None, key: Secret::from(key.to_owned()), role, tenants: vec!["t-001".to_owned()] }
}

fn authority(mode: AuthMode, has_keys: bool, is_admin_enabled: bool) -> Authority {
    let mut auth = Config::default().auth;
    auth.mode = mode;
    auth.admin_enabled = is_admin_enabled;
    auth.jwt_secrets = vec![Secret::from("secret".to_owned())];
    if has_keys {
        auth.operator_keys =
            vec![key("reader", Role::Read), key("writer", Role::Write), key("admin", Role::Admin)];
    }
    Authority::new(&auth).expect("no key files")
}

/// What a caller shows.
#[derive(Clone, Copy, Debug)]
enum Show {
    Nothing,
    Token,
    BadToken,
    Basic,
    Certificate,
    ReadKey,
    WriteKey,
    AdminKey,
    BadKey,
    ReadKeyAsBearer,
}

/// Letters: `+` let in, `1` turned away with 401, `3` with 403.
fn outcome(authority: &Authority, class: Class, show: Show) -> char {
    let bearer = format!("Bearer {}", token(authority));
    let certificate = certificate();
    let nothing = Shown::default();
    let shown = match show {
        Show::Nothing => nothing,
        Show::Token => Shown { authorization: Some(bearer.as_bytes()), ..nothing },
        Show::BadToken => Shown { authorization: Some(b"Bearer x.y.z"), ..nothing },
        Show::Basic => Shown { authorization: Some(b"Basic eDp5"), ..nothing },
        Show::Certificate => Shown { certificate: Some(&certificate), ..nothing },
        Show::ReadKey => Shown { api_key: Some(b"reader"), ..nothing },
        Show::WriteKey => Shown { api_key: Some(b"writer"), ..nothing },
        Show::AdminKey => Shown { api_key: Some(b"admin"), ..nothing },
        Show::BadKey => Shown { api_key: Some(b"admin "), ..nothing },
        Show::ReadKeyAsBearer => Shown { authorization: Some(b"Bearer reader"), ..nothing },
    };
    match authority.admit(class, shown, now()) {
        Ok(_) => '+',
        Err(refusal) if refusal.code == Code::Unauthorized => '1',
        Err(refusal) if refusal.code == Code::Forbidden => '3',
        Err(refusal) => panic!("an unexpected refusal: {refusal:?}"),
    }
}

const SHOWS: [Show; 10] = [
    Show::Nothing,
    Show::Token,
    Show::BadToken,
    Show::Basic,
    Show::Certificate,
    Show::ReadKey,
    Show::WriteKey,
    Show::AdminKey,
    Show::BadKey,
    Show::ReadKeyAsBearer,
];

/// One line per class; the columns are those of [`SHOWS`].
fn check(authority: &Authority, table: [(Class, &str); 7]) {
    for (class, expected) in table {
        let row: String = SHOWS.iter().map(|&show| outcome(authority, class, show)).collect();
        assert_eq!(row, expected, "{class:?} {authority:?}");
    }
}

// Columns: nothing, token, bad token, basic, certificate, read key, write key, admin key, bad key, read key as bearer.

#[test]
fn with_jwt_a_device_shows_a_token() {
    check(
        &authority(AuthMode::Jwt, true, true),
        [
            (Class::Public, "++++++++++"),
            (Class::Device, "1+1113++13"),
            (Class::Read, "1+111+++1+"),
            (Class::Box, "13111+++1+"),
            (Class::Write, "131113++13"),
            (Class::Act, "1311133+13"),
            (Class::Admin, "1311133+13"),
        ],
    );
}

#[test]
fn with_mtls_a_device_shows_a_certificate() {
    check(
        &authority(AuthMode::Mtls, true, true),
        [
            (Class::Public, "++++++++++"),
            (Class::Device, "1111+3++13"),
            (Class::Read, "1111++++1+"),
            (Class::Box, "11113+++1+"),
            (Class::Write, "111133++13"),
            (Class::Act, "1111333+13"),
            (Class::Admin, "1111333+13"),
        ],
    );
}

#[test]
fn with_both_a_device_shows_either() {
    check(
        &authority(AuthMode::JwtOrMtls, true, false),
        [
            (Class::Public, "++++++++++"),
            (Class::Device, "1+11+3++13"),
            (Class::Read, "1+11++++1+"),
            (Class::Box, "13113+++1+"),
            (Class::Write, "131133++13"),
            (Class::Act, "1311333+13"),
            (Class::Admin, "1311333313"),
        ],
    );
}

#[test]
fn without_any_key_only_compat_opens_what_needs_an_operator() {
    check(
        &authority(AuthMode::JwtOrMtls, false, true),
        [
            (Class::Public, "++++++++++"),
            (Class::Device, "1+11+11111"),
            (Class::Read, "1+11+11111"),
            (Class::Box, "1311311111"),
            (Class::Write, "1311311111"),
            (Class::Act, "1311311111"),
            (Class::Admin, "1311311111"),
        ],
    );
    check(
        &authority(AuthMode::Compat, false, true),
        [
            (Class::Public, "++++++++++"),
            (Class::Device, "++11+++++1"),
            (Class::Read, "++11+++++1"),
            (Class::Box, "++++++++++"),
            (Class::Write, "++++++++++"),
            (Class::Act, "++++++++++"),
            (Class::Admin, "++++++++++"),
        ],
    );
}

#[test]
fn in_compat_mode_a_configured_key_is_asked_for() {
    check(
        &authority(AuthMode::Compat, true, false),
        [
            (Class::Public, "++++++++++"),
            (Class::Device, "++11+3++13"),
            (Class::Read, "1+11++++1+"),
            (Class::Box, "13113+++1+"),
            (Class::Write, "131133++13"),
            (Class::Act, "1311333+13"),
            (Class::Admin, "1311333313"),
        ],
    );
    assert_eq!(outcome(&authority(AuthMode::Compat, false, false), Class::Admin, Show::Nothing), '3');
}

#[test]
fn a_key_goes_before_a_token_and_both_must_be_good() {
    let authority = authority(AuthMode::JwtOrMtls, true, false);
    let token = format!("Bearer {}", token(&authority));
    let with_key =
        |key| Shown { authorization: Some(token.as_bytes()), api_key: Some(key), ..Shown::default() };
    let good = authority.admit(Class::Read, with_key(b"reader"), now());
    assert!(matches!(good, Ok(Caller::Operator(operator)) if operator.role == Role::Read));
    assert_eq!(authority.admit(Class::Device, with_key(b"nobody"), now()), Err(Refusal::BAD_KEY));
}

#[test]
fn a_token_that_was_given_for_a_certificate_is_good_beside_that_certificate_alone() {
    let authority = authority(AuthMode::Jwt, false, false);
    let certificate = certificate();
    let token = authority.tokens.issue(&Grounds::Certificate(certificate.clone()), now());
    let bearer = format!("Bearer {}", token.expect("there is a secret").text);
    let other = ClientCertificate { sha256: [8; 32], ..certificate.clone() };
    let check = |certificate: Option<&ClientCertificate>, is_good: bool| {
        let shown = Shown { authorization: Some(bearer.as_bytes()), certificate, ..Shown::default() };
        let outcome = authority.admit(Class::Device, shown, now());
        assert_eq!(outcome.is_ok(), is_good, "{certificate:?} {outcome:?}");
    };
    check(Some(&certificate), true);
    check(Some(&other), false);
    check(None, false);
}

#[test]
fn each_role_does_what_the_one_before_does_and_more() {
    let classes = [Class::Read, Class::Box, Class::Device, Class::Write, Class::Act, Class::Admin];
    let check = |role: Role, expected: &str| {
        let found: String = classes.iter().map(|class| if may(*class, role) { '+' } else { '-' }).collect();
        assert_eq!(found, expected, "{role:?}");
    };
    check(Role::Read, "++----");
    check(Role::Write, "++++--");
    check(Role::Act, "+++++-");
    check(Role::Admin, "++++++");
}
