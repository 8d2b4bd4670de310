//! The table of the contract: class of the route by credential by mode.

use broker::Identity;
use schema::id::{DeviceId, TenantId};
use schema::wire;

use super::*;
use crate::config::{Config, OperatorKey, Secret};

fn now() -> Timestamp {
    wire::time::parse("2026-02-12T09:00:00Z").expect("a time")
}

fn identity() -> Identity {
    Identity {
        tenant_id: TenantId::new("t-001").expect("an id"),
        device_id: DeviceId::new("d-001").expect("an id"),
    }
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
        auth.operator_keys = vec![key("reader", Role::Read), key("admin", Role::Admin)];
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
    AdminKey,
    BadKey,
}

/// Letters: `+` let in, `1` turned away with 401, `3` with 403.
fn outcome(authority: &Authority, class: Class, show: Show) -> char {
    let token = authority.tokens.issue(&identity(), None, now()).expect("there is a secret");
    let bearer = format!("Bearer {token}");
    let identity = identity();
    let nothing = Shown::default();
    let shown = match show {
        Show::Nothing => nothing,
        Show::Token => Shown { authorization: Some(bearer.as_bytes()), ..nothing },
        Show::BadToken => Shown { authorization: Some(b"Bearer x.y.z"), ..nothing },
        Show::Basic => Shown { authorization: Some(b"Basic eDp5"), ..nothing },
        Show::Certificate => Shown { certificate: Some(&identity), ..nothing },
        Show::ReadKey => Shown { api_key: Some(b"reader"), ..nothing },
        Show::AdminKey => Shown { api_key: Some(b"admin"), ..nothing },
        Show::BadKey => Shown { api_key: Some(b"admin "), ..nothing },
    };
    match authority.admit(class, shown, now()) {
        Ok(_) => '+',
        Err(refusal) if refusal.code == Code::Unauthorized => '1',
        Err(refusal) if refusal.code == Code::Forbidden => '3',
        Err(refusal) => panic!("an unexpected refusal: {refusal:?}"),
    }
}

const SHOWS: [Show; 8] = [
    Show::Nothing,
    Show::Token,
    Show::BadToken,
    Show::Basic,
    Show::Certificate,
    Show::ReadKey,
    Show::AdminKey,
    Show::BadKey,
];

/// One line per class; the columns are those of [`SHOWS`].
fn check(authority: &Authority, table: [(Class, &str); 6]) {
    for (class, expected) in table {
        let row: String = SHOWS.iter().map(|&show| outcome(authority, class, show)).collect();
        assert_eq!(row, expected, "{class:?} {authority:?}");
    }
}

// Columns: nothing, token, bad token, basic, certificate, read key, admin key, bad key.

#[test]
fn with_jwt_a_device_shows_a_token() {
    check(
        &authority(AuthMode::Jwt, true, true),
        [
            (Class::Public, "++++++++"),
            (Class::Device, "1+111++1"),
            (Class::Read, "1+111++1"),
            (Class::Box, "13111++1"),
            (Class::Act, "131113+1"),
            (Class::Admin, "131113+1"),
        ],
    );
}

#[test]
fn with_mtls_a_device_shows_a_certificate() {
    check(
        &authority(AuthMode::Mtls, true, true),
        [
            (Class::Public, "++++++++"),
            (Class::Device, "1111+++1"),
            (Class::Read, "1111+++1"),
            (Class::Box, "11113++1"),
            (Class::Act, "111133+1"),
            (Class::Admin, "111133+1"),
        ],
    );
}

#[test]
fn with_both_a_device_shows_either() {
    check(
        &authority(AuthMode::JwtOrMtls, true, false),
        [
            (Class::Public, "++++++++"),
            (Class::Device, "1+11+++1"),
            (Class::Read, "1+11+++1"),
            (Class::Box, "13113++1"),
            (Class::Act, "131133+1"),
            (Class::Admin, "13113331"),
        ],
    );
}

#[test]
fn without_any_key_only_compat_opens_what_needs_an_operator() {
    check(
        &authority(AuthMode::JwtOrMtls, false, true),
        [
            (Class::Public, "++++++++"),
            (Class::Device, "1+11+111"),
            (Class::Read, "1+11+111"),
            (Class::Box, "13113111"),
            (Class::Act, "13113111"),
            (Class::Admin, "13113111"),
        ],
    );
    check(
        &authority(AuthMode::Compat, false, true),
        [
            (Class::Public, "++++++++"),
            (Class::Device, "++11++++"),
            (Class::Read, "++11++++"),
            (Class::Box, "++++++++"),
            (Class::Act, "++++++++"),
            (Class::Admin, "++++++++"),
        ],
    );
}

#[test]
fn in_compat_mode_a_configured_key_is_asked_for() {
    check(
        &authority(AuthMode::Compat, true, false),
        [
            (Class::Public, "++++++++"),
            (Class::Device, "++11+++1"),
            (Class::Read, "1+11+++1"),
            (Class::Box, "13113++1"),
            (Class::Act, "131133+1"),
            (Class::Admin, "13113331"),
        ],
    );
    assert_eq!(outcome(&authority(AuthMode::Compat, false, false), Class::Admin, Show::Nothing), '3');
}

#[test]
fn a_key_goes_before_a_token_and_both_must_be_good() {
    let authority = authority(AuthMode::JwtOrMtls, true, false);
    let token =
        format!("Bearer {}", authority.tokens.issue(&identity(), None, now()).expect("there is a secret"));
    let with_key =
        |key| Shown { authorization: Some(token.as_bytes()), api_key: Some(key), certificate: None };
    let good = authority.admit(Class::Device, with_key(b"reader"), now());
    assert!(matches!(good, Ok(Caller::Operator(operator)) if operator.role == Role::Read));
    assert_eq!(authority.admit(Class::Device, with_key(b"nobody"), now()), Err(Refusal::BAD_KEY));
}
