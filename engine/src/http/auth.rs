//! Who may call what: the classes of routes, the credentials, and the decision that joins them.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, COOKIE, HOST, HeaderValue, ORIGIN};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use broker::Identity;
use schema::clock::Timestamp;
use schema::metrics;
use schema::store::audit::Author;
use tokio::sync::watch;
use tokio::time::Instant;

use super::AppState;
use super::connections::Visitor;
use super::error::{Code, Error};
use super::frame::{CallIds, CalledBy, ToldAt, text_of};
use crate::config::{Auth, AuthMode, Role};

pub(super) mod guest;
mod key;
mod place;
mod scope;
mod token;

use key::Keys;
pub(super) use place::{DevicePlace, device_not_allowed, scope_mismatch};
pub(super) use scope::{Tenants, agrees_with_token, tenant_mismatch};
pub use token::KeyFileError;
pub(super) use token::{Grounds, Scope, Token, Tokens};

/// The header that names the tenant of the caller.
pub(super) const TENANT_ID: &str = "x-tenant-id";
/// The header of an operator's key.
pub(super) const API_KEY: &str = "x-api-key";

/// A character in a path that no column can hold, so that no row has such a name.
const NUL_ENCODED: &str = "%00";

/// What a route asks of its callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Nothing.
    Public,
    /// A device's credential, or an operator key.
    Device,
    /// An operator key: the route shows the whole box.
    Box,
    /// An operator key, or a device's credential for its own tenant.
    Read,
    /// An operator key of the role `write` or `admin`: people's own book.
    Write,
    /// An operator key of the role `admin`.
    Act,
    /// As [`Class::Act`], and `auth.admin_enabled`.
    Admin,
}

/// An operator, as its key describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Operator {
    /// The name of its key, or its place among the keys.
    pub name: Arc<str>,
    /// What it may do.
    pub role: Role,
    /// Whose rows it may see.
    pub tenants: Tenants,
}

/// Who calls, once the route's class has let it in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    /// Somebody, where nobody needs to be known.
    Anyone,
    /// A device without a credential in compat mode: the tenant is what the call says.
    Compat,
    /// A device.
    Device(Scope),
    /// An operator.
    Operator(Operator),
}

/// A client certificate that was verified; an extension of the requests of its connection.
#[derive(Clone, Debug)]
pub struct ClientCertificate {
    /// The device it stands for.
    pub identity: Identity,
    /// SHA-256 of it.
    pub sha256: [u8; 32],
    /// When it is over, as seconds of the Unix epoch.
    pub ends_at_seconds: i64,
}

/// Why a caller is turned away. The label is closed; the credential is never echoed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Refusal {
    code: Code,
    reason: &'static str,
    message: &'static str,
}

impl Refusal {
    const NO_CREDENTIAL: Self = Self::unauthorized("no_credential", "a credential is required");
    const BAD_KEY: Self = Self::unauthorized("bad_key", "x-api-key is not valid");
    const BAD_TOKEN: Self = Self::unauthorized(
        "bad_token",
        "the token is not valid, has expired, or was given for a certificate that is not shown",
    );
    const NO_TOKENS: Self = Self::unauthorized("token_not_accepted", "tokens are not accepted here");
    const NO_ADMIN: Self = Self::forbidden("role", "needs an operator key of the role admin");
    const NO_ENGINEER: Self = Self::forbidden("role", "needs an operator key of the role act or admin");
    const NO_WRITER: Self = Self::forbidden("role", "needs an operator key of the role write or admin");
    const NO_DEVICE: Self = Self::forbidden("device_credential", "not for devices");
    const CROSS_SITE: Self =
        Self::forbidden("cross_site", "the page that calls is not of http.allowed_origins");
    const ADMIN_DISABLED: Self = Self::forbidden("admin_disabled", "auth.admin_enabled is off");

    const fn unauthorized(reason: &'static str, message: &'static str) -> Self {
        Self { code: Code::Unauthorized, reason, message }
    }

    const fn forbidden(reason: &'static str, message: &'static str) -> Self {
        Self { code: Code::Forbidden, reason, message }
    }
}

/// Counts a refusal and makes it an answer.
pub(super) fn refused(code: Code, reason: &'static str, message: &'static str) -> Error {
    metrics::auth_refused(reason).increment(1);
    Error::new(code, message)
}

/// Everything that decides about credentials.
#[derive(Debug)]
pub struct Authority {
    mode: AuthMode,
    is_admin_enabled: bool,
    keys: Keys,
    /// Verifies and signs device tokens.
    pub(super) tokens: Tokens,
}

/// What a request shows of itself.
#[derive(Clone, Copy, Debug, Default)]
struct Shown<'a> {
    authorization: Option<&'a [u8]>,
    api_key: Option<&'a [u8]>,
    certificate: Option<&'a ClientCertificate>,
    /// Whom the cookie of the console stands for.
    guest: Option<&'a Operator>,
}

/// What the caller of a read showed, for calls that last: it is judged by it again and again.
#[derive(Clone)]
pub(super) struct Kept {
    authorization: Option<HeaderValue>,
    api_key: Option<HeaderValue>,
    certificate: Option<ClientCertificate>,
    /// Among them, what the console has given a browser.
    cookies: HeaderMap,
}

impl Kept {
    /// Whether whoever was let in as `caller` would be now, with the same rights.
    pub(super) async fn is_still_in(&self, state: &AppState, caller: &Caller) -> bool {
        let is_key_shown = self.authorization.is_some() || self.api_key.is_some();
        let guest = if is_key_shown { Ok(None) } else { guest::operator(state, &self.cookies).await };
        // A database that is away is no reason to put anybody out.
        let Ok(guest) = guest else { return true };
        let shown = Shown {
            authorization: self.authorization.as_ref().map(HeaderValue::as_bytes),
            api_key: self.api_key.as_ref().map(HeaderValue::as_bytes),
            certificate: self.certificate.as_ref(),
            guest: guest.as_ref(),
        };
        let admitted = state.authority.now().admit(Class::Read, shown, state.clock.now());
        match (&admitted, caller) {
            (Ok(now), before) if now != before => false,
            (Ok(Caller::Device(scope)), _) => {
                !matches!(check_still_in(state, scope).await, Err(error) if error.code != Code::DatabaseUnavailable)
            }
            (Ok(Caller::Anyone | Caller::Compat | Caller::Operator(_)), _) => true,
            (Err(_), _) => false,
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Kept {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self {
            authorization: parts.headers.get(AUTHORIZATION).cloned(),
            api_key: parts.headers.get(API_KEY).filter(|key| !key.is_empty()).cloned(),
            certificate: parts.extensions.get::<ClientCertificate>().cloned(),
            cookies: parts
                .headers
                .get_all(COOKIE)
                .into_iter()
                .map(|cookie| (COOKIE, cookie.clone()))
                .collect(),
        })
    }
}

/// A credential that was verified.
enum Verified {
    Device(Scope),
    Operator(Operator),
}

/// The authority that decides now. Cloning shares it.
#[derive(Clone, Debug)]
pub struct CurrentAuthority(watch::Sender<Arc<Authority>>);

impl CurrentAuthority {
    /// The authority of these settings, until others take their place.
    ///
    /// # Errors
    /// When a public key file cannot be read.
    pub fn new(auth: &Auth) -> Result<Self, KeyFileError> {
        Ok(Self(watch::Sender::new(Arc::new(Authority::new(auth)?))))
    }

    /// Who decides about the request at hand.
    pub(super) fn now(&self) -> Arc<Authority> {
        Arc::clone(&self.0.borrow())
    }

    /// Word of each that takes its place.
    pub(super) fn watch(&self) -> watch::Receiver<Arc<Authority>> {
        self.0.subscribe()
    }

    /// Decides by other settings from the next request on.
    ///
    /// # Errors
    /// When a public key file cannot be read; then nothing changes.
    pub fn replace(&self, auth: &Auth) -> Result<(), KeyFileError> {
        let authority = Arc::new(Authority::new(auth)?);
        self.0.send_replace(authority);
        Ok(())
    }
}

impl Authority {
    /// Reads the public keys and keeps hashes of the operator keys.
    ///
    /// # Errors
    /// When a public key file cannot be read.
    pub fn new(auth: &Auth) -> Result<Self, KeyFileError> {
        Ok(Self {
            mode: auth.mode,
            is_admin_enabled: auth.admin_enabled,
            keys: Keys::new(&auth.operator_keys),
            tokens: Tokens::new(auth)?,
        })
    }

    /// Whether what needs an operator is open to everybody: compat mode while no key is configured.
    fn is_open(&self) -> bool {
        self.mode == AuthMode::Compat && self.keys.is_empty()
    }

    /// The table of the contract: class by credential by mode.
    fn admit(&self, class: Class, shown: Shown<'_>, now: Timestamp) -> Result<Caller, Refusal> {
        let caller = match class {
            Class::Public => Caller::Anyone,
            Class::Box | Class::Write | Class::Act | Class::Admin
                if self.is_open() && shown.guest.is_none() =>
            {
                Caller::Anyone
            }
            Class::Box | Class::Write | Class::Act | Class::Admin => match self.verify(shown, now)? {
                Some(Verified::Operator(operator)) => Caller::Operator(operator),
                Some(Verified::Device(_)) => return Err(Refusal::NO_DEVICE),
                None => return Err(Refusal::NO_CREDENTIAL),
            },
            Class::Device | Class::Read => match self.verify(shown, now)? {
                Some(Verified::Operator(operator)) => Caller::Operator(operator),
                Some(Verified::Device(scope)) => Caller::Device(scope),
                None if self.mode == AuthMode::Compat && class == Class::Device => Caller::Compat,
                None if self.is_open() => Caller::Compat,
                None => return Err(Refusal::NO_CREDENTIAL),
            },
        };
        if let Caller::Operator(operator) = &caller {
            check_role(class, operator.role)?;
        }
        if class == Class::Admin && !self.is_admin_enabled {
            return Err(Refusal::ADMIN_DISABLED);
        }
        Ok(caller)
    }

    /// The credential that is shown. One that is shown must be good, whatever else is shown beside it; an operator key
    /// goes before a token, a token before a certificate. A key may come as a bearer, which is all that some monitors send.
    fn verify(&self, shown: Shown<'_>, now: Timestamp) -> Result<Option<Verified>, Refusal> {
        // The operator page may send a key to a box that knows none.
        if let Some(key) = shown.api_key.filter(|_| !self.is_open()) {
            let operator = self.keys.find(key).ok_or(Refusal::BAD_KEY)?;
            return Ok(Some(Verified::Operator(operator.clone())));
        }
        if let Some(header) = shown.authorization {
            let bearer = bearer(header);
            if let Some(operator) = bearer.and_then(|bearer| self.keys.find(bearer.as_bytes())) {
                return Ok(Some(Verified::Operator(operator.clone())));
            }
            if self.mode == AuthMode::Mtls {
                return Err(Refusal::NO_TOKENS);
            }
            let certificate = shown.certificate.map(|certificate| &certificate.sha256);
            let scope = bearer.and_then(|token| self.tokens.verify(token, certificate, now));
            return Ok(Some(Verified::Device(scope.ok_or(Refusal::BAD_TOKEN)?)));
        }
        if let Some(operator) = shown.guest {
            return Ok(Some(Verified::Operator(operator.clone())));
        }
        let certificate = shown.certificate.filter(|_| self.mode != AuthMode::Jwt);
        Ok(certificate.map(|certificate| Verified::Device(Scope::of(&certificate.identity))))
    }
}

/// What an operator's role lets it do: look, act in a device's stead, or all of it.
fn check_role(class: Class, role: Role) -> Result<(), Refusal> {
    match (class, role) {
        (Class::Act, Role::Read | Role::Write) => Err(Refusal::NO_ENGINEER),
        (Class::Admin, Role::Read | Role::Write | Role::Act) => Err(Refusal::NO_ADMIN),
        (Class::Device | Class::Write, Role::Read) => Err(Refusal::NO_WRITER),
        (Class::Act, Role::Act)
        | (Class::Device | Class::Write, Role::Write | Role::Act)
        | (Class::Public | Class::Box | Class::Read, Role::Read | Role::Write | Role::Act)
        | (_, Role::Admin) => Ok(()),
    }
}

/// Whether a role may do what a class of routes does.
pub(super) fn may(class: Class, role: Role) -> bool {
    check_role(class, role).is_ok()
}

fn bearer(header: &[u8]) -> Option<&str> {
    let (scheme, token) = std::str::from_utf8(header).ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Lets a request in or turns it away, before its handler sees it.
pub(super) async fn guard(
    State((state, class, route)): State<(Arc<AppState>, Class, &'static str)>,
    mut request: Request,
    next: Next,
) -> Response {
    let authority = state.authority.now();
    let asked_at = Instant::now();
    let guest = match guest_of(&state, class, request.headers()).await {
        Ok(guest) => guest,
        Err(error) => return error.into_response(),
    };
    let shown = Shown { guest: guest.as_ref(), ..shown(&request) };
    let caller = match authority.admit(class, shown, state.clock.now()) {
        Ok(caller) => caller,
        Err(refusal) => {
            let mut response = refused(refusal.code, refusal.reason, refusal.message).into_response();
            if refusal == Refusal::BAD_KEY {
                let source = Visitor::source(request.extensions());
                let delay = state.guesses.wrong_credential(source, None, asked_at);
                response.extensions_mut().insert(ToldAt(asked_at + delay));
            }
            return response;
        }
    };
    if let Caller::Device(scope) = &caller {
        if let Err(error) = check_still_in(&state, scope).await {
            return error.into_response();
        }
        state.signs_of_life.note(&scope.tenant_id, &scope.device_id, route);
    }
    let is_unknown = class != Class::Public && matches!(caller, Caller::Compat | Caller::Anyone);
    if (is_unknown || guest.is_some()) && is_cross_site(&request, &state.settings.allowed_origins) {
        let Refusal { code, reason, message } = Refusal::CROSS_SITE;
        return refused(code, reason, message).into_response();
    }
    if request.uri().path().contains(NUL_ENCODED) {
        return Error::new(Code::NotFound, "nothing is stored under such a name").into_response();
    }
    if is_unknown && authority.mode == AuthMode::Compat {
        metrics::auth_compat_calls(route).increment(1);
    }
    let called_by = called_by(&caller, request.headers());
    request.extensions_mut().insert(caller);
    let mut response = next.run(request).await;
    response.extensions_mut().insert(called_by);
    response
}

/// Whom the cookie of the console stands for, where it counts: a key or a token that is shown beside it goes first.
async fn guest_of(state: &AppState, class: Class, headers: &HeaderMap) -> Result<Option<Operator>, Error> {
    let is_shown = |name: &str| headers.get(name).is_some_and(|shown| !shown.is_empty());
    if class == Class::Public || is_shown(AUTHORIZATION.as_str()) || is_shown(API_KEY) {
        return Ok(None);
    }
    Ok(guest::operator(state, headers).await?)
}

/// Whether a device that showed a good token or certificate was put out since: its password must still be stored, and its
/// row in the allowlist be there and enabled.
async fn check_still_in(state: &AppState, scope: &Scope) -> Result<(), Error> {
    if let Some(login) = &scope.login
        && !state.credentials.is_current(login).await?
    {
        return Err(refused(Code::Unauthorized, "revoked", Refusal::BAD_TOKEN.message));
    }
    let row = state.allowlist.device_row(&scope.tenant_id, &scope.device_id, Instant::now()).await?;
    if row.is_some_and(|row| row.is_enabled) { Ok(()) } else { Err(device_not_allowed()) }
}

/// Whether a page of another site has its reader's browser act here. Whoever shows a credential is no reader of such a page,
/// and what only reads shows that page nothing.
pub(super) fn is_cross_site(request: &Request, allowed: &[HeaderValue]) -> bool {
    let headers = request.headers();
    let Some(origin) = headers.get(ORIGIN).filter(|_| !request.method().is_safe()) else { return false };
    let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, rest)| rest);
    let is_own = authority.is_some_and(|own| headers.get(HOST).is_some_and(|host| host == own));
    !is_own && !allowed.contains(origin)
}

fn shown(request: &Request) -> Shown<'_> {
    let header = |name: &str| request.headers().get(name).map(HeaderValue::as_bytes);
    Shown {
        authorization: header(AUTHORIZATION.as_str()),
        api_key: header(API_KEY).filter(|key| !key.is_empty()),
        certificate: request.extensions().get::<ClientCertificate>(),
        guest: None,
    }
}

fn called_by(caller: &Caller, headers: &HeaderMap) -> CalledBy {
    match caller {
        Caller::Device(scope) => {
            CalledBy { tenant_id: Some(scope.tenant_id.clone()), device_id: Some(scope.device_id.clone()) }
        }
        Caller::Anyone | Caller::Compat | Caller::Operator(_) => {
            CalledBy { tenant_id: tenant_header(headers).ok().flatten(), device_id: None }
        }
    }
}

/// A call that was let in: who makes it, for which tenant by its header, under which ids.
#[derive(Debug)]
pub(super) struct Call {
    /// Who calls.
    pub caller: Caller,
    /// The tenant of `x-tenant-id`.
    pub tenant_header: Option<String>,
    /// Request and trace id.
    pub ids: CallIds,
    /// Where the call comes from; `None` when it came over no socket.
    pub peer: Option<SocketAddr>,
}

impl Call {
    /// Who is written down as having done what the call does.
    pub(super) fn author(&self) -> Author {
        let actor = match &self.caller {
            Caller::Operator(operator) => format!("operator:{}", operator.name),
            Caller::Device(scope) => format!("device:{}/{}", scope.tenant_id, scope.device_id),
            Caller::Anyone | Caller::Compat => "anyone".to_owned(),
        };
        let origin = self.peer.map_or_else(|| "unknown".to_owned(), |peer| peer.to_string());
        Author { actor, origin }
    }
}

impl<S: Sync> FromRequestParts<S> for Call {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let ids = CallIds::from_request_parts(parts, state).await?;
        let caller =
            parts.extensions.get::<Caller>().expect("handlers that take a call stand behind the guard");
        let peer = parts.extensions.get::<Visitor>().map(|visitor| visitor.peer);
        Ok(Self { caller: caller.clone(), tenant_header: tenant_header(&parts.headers)?, ids, peer })
    }
}

fn tenant_header(headers: &HeaderMap) -> Result<Option<String>, Error> {
    let Some(value) = headers.get(TENANT_ID).filter(|value| !value.is_empty()) else { return Ok(None) };
    let text = text_of(value).filter(|text| schema::id::is_id(text));
    let text = text.ok_or_else(|| Error::validation("x-tenant-id: is not a tenant id"))?;
    Ok(Some(text.to_owned()))
}

#[cfg(test)]
mod tests;
