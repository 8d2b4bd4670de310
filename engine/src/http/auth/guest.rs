//! Browsers that have logged in at the console: their cookie, and whom it stands for.

use axum::http::HeaderMap;
use axum::http::header::{COOKIE, HeaderValue};
use schema::store::StoreError;

use super::{Authority, Operator, Tenants};
use crate::config::Role;
use crate::http::AppState;
use actors::console::{self, Guest};

/// The cookie of a login.
pub(in crate::http) const SESSION_COOKIE: &str = "farmiq_session";

/// The value of a cookie, of which a browser sends the most specific first.
pub(in crate::http) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let all = headers.get_all(COOKIE).into_iter().filter_map(|header| header.to_str().ok());
    all.flat_map(|header| header.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(found, value)| (found == name).then_some(value))
}

/// What a browser shows for its login, if it does.
pub(in crate::http) fn token(headers: &HeaderMap) -> Option<&str> {
    cookie(headers, SESSION_COOKIE).filter(|token| !token.is_empty())
}

/// Whom the cookie of a request stands for now; `None` without one, and when the login is over or its operator was removed.
///
/// # Errors
/// When the database fails.
pub(in crate::http) async fn operator(
    state: &AppState,
    headers: &HeaderMap,
) -> Result<Option<Operator>, StoreError> {
    let Some(token) = token(headers) else { return Ok(None) };
    let guest = state.console.find(token).await?;
    Ok(guest.and_then(|guest| state.authority.now().operator_of(guest)))
}

impl Authority {
    /// A guest as an operator: who came by a key is what that key says now, and nobody once it has gone.
    #[must_use]
    pub(in crate::http) fn operator_of(&self, guest: Guest) -> Option<Operator> {
        if let Some(mark) = guest.key_mark {
            return self.keys.of_mark(&mark).cloned();
        }
        Some(Operator {
            name: console::invited(&guest.name).into(),
            role: role_of(guest.role),
            tenants: Tenants::of_key(&guest.tenants),
        })
    }

    /// Whoever shows an operator's key, as a guest.
    #[must_use]
    pub(in crate::http) fn guest_of_key(&self, key: &[u8]) -> Option<Guest> {
        let operator = self.keys.find(key)?;
        let tenants = match &operator.tenants {
            Tenants::All => vec!["*".to_owned()],
            Tenants::Of(tenants) => tenants.clone(),
        };
        Some(Guest {
            name: operator.name.to_string(),
            role: guest_role_of(operator.role),
            tenants,
            key_mark: Some(self.keys.mark(key)),
        })
    }

    /// Whether the repair calls are open at all.
    pub(in crate::http) fn is_admin_enabled(&self) -> bool {
        self.is_admin_enabled
    }
}

/// The rights of a role of the console.
fn role_of(role: console::Role) -> Role {
    match role {
        console::Role::Viewer => Role::Read,
        console::Role::Farmer => Role::Write,
        console::Role::Engineer => Role::Act,
        console::Role::Admin => Role::Admin,
    }
}

/// The role of the console that has these rights.
fn guest_role_of(role: Role) -> console::Role {
    match role {
        Role::Read => console::Role::Viewer,
        Role::Write => console::Role::Farmer,
        Role::Act => console::Role::Engineer,
        Role::Admin => console::Role::Admin,
    }
}

/// The header that gives a browser its cookie, for so many seconds; none take it away.
pub(in crate::http) fn set_cookie(
    name: &str,
    value: &str,
    seconds: i64,
    is_secret: bool,
    is_encrypted: bool,
) -> Option<HeaderValue> {
    let secret = if is_secret { "; HttpOnly" } else { "" };
    let secure = if is_encrypted { "; Secure" } else { "" };
    let text = format!("{name}={value}; Path=/; Max-Age={seconds}; SameSite=Strict{secret}{secure}");
    HeaderValue::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("a=1; farmiq_session=abc"));
        headers.append(COOKIE, HeaderValue::from_static("farmiq_session=later; xfarmiq_session=no"));
        assert_eq!(token(&headers), Some("abc"));
        assert_eq!(cookie(&headers, "a"), Some("1"));
        assert_eq!(cookie(&headers, "b"), None);
        assert_eq!(token(&HeaderMap::new()), None);
    }

    #[test]
    fn roles_go_there_and_back() {
        for role in console::Role::ALL {
            assert_eq!(guest_role_of(role_of(role)), role);
        }
    }
}
