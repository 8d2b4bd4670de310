//! Logins: by a code that lets somebody in once, or by an operator's key; and what everybody may do before.

use std::sync::Arc;

use actors::console::SESSION_MAX;
use axum::extract::{Query, Request, State};
use axum::http::header::SET_COOKIE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::time::Instant;

use super::super::AppState;
use super::super::auth::guest::{self, SESSION_COOKIE, set_cookie};
use super::super::auth::{is_cross_site, refused};
use super::super::connections::Visitor;
use super::super::error::Code;
use super::super::frame::ToldAt;
use super::answer::{LANGUAGE_COOKIE, Words, language, own_place, page, see};
use super::form::Typed;
use crate::console::door::LoginPage;
use crate::console::text::Lang;
use crate::console::weights::encoded;
use axum::extract::FromRequest;

/// Seconds for which a browser remembers its language.
const LANGUAGE_SECONDS: i64 = 366 * 86_400;

/// What the address of the login says.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Wish {
    #[serde(default)]
    to: String,
    #[serde(default)]
    code: String,
}

/// Shows the login. A code in the address is filled in but not used, so that nobody who only looks ahead uses it up.
pub(super) async fn show(Query(wish): Query<Wish>, request: Request) -> Response {
    page(StatusCode::OK, &login_page(language(request.headers()), &wish, None, false))
}

fn login_page(lang: Lang, wish: &Wish, wrong: Option<&'static str>, is_key_open: bool) -> LoginPage {
    let t = lang.texts();
    let to = own_place(&wish.to).to_owned();
    let code: String = wish.code.chars().filter(char::is_ascii_alphanumeric).take(24).collect();
    let back = format!("/login?to={}&code={code}", encoded(&to));
    LoginPage { lang, t, title: t.login_title, wrong, to, code, is_key_open, back }
}

/// Lets somebody in who shows a code or a key. Wrong ones are counted with those of devices, and told late.
pub(super) async fn log_in(State(state): State<Arc<AppState>>, request: Request) -> Response {
    let words = Words::of(&request);
    if is_cross_site(&request, &[]) {
        return words.cross_site();
    }
    let (lang, source) = (language(request.headers()), Visitor::source(request.extensions()));
    let asked_at = Instant::now();
    let origin = request.extensions().get::<Visitor>().map(|visitor| visitor.peer.to_string());
    let origin = origin.unwrap_or_else(|| "unknown".to_owned());
    let typed = match Typed::from_request(request, &()).await {
        Ok(typed) => typed,
        Err(error) => return words.failed(error),
    };
    let is_key = typed.text("key").is_some();
    let shown = match (typed.text("key"), typed.text("code")) {
        (Some(key), _) => match state.authority.now().guest_of_key(key.as_bytes()) {
            Some(guest) => state.console.open(&guest, &origin).await.map(Some),
            None => Ok(None),
        },
        (None, Some(code)) => {
            state.console.redeem(code, &origin).await.map(|let_in| let_in.map(|(_, token)| token))
        }
        (None, None) => Ok(None),
    };
    match shown {
        Ok(Some(token)) => {
            let place = own_place(typed.text("to").unwrap_or("/"));
            let cookie = set_cookie(
                SESSION_COOKIE,
                &token,
                SESSION_MAX.num_seconds(),
                true,
                state.settings.is_encrypted,
            );
            let mut response = see(place);
            response.headers_mut().extend(cookie.map(|cookie| (SET_COOKIE, cookie)));
            response
        }
        Ok(None) => {
            // Counted as any other credential that is no good; the page says what the answer would.
            drop(refused(Code::Unauthorized, "bad_login", "the code or the key is not valid"));
            let wish = Wish { to: typed.copy("to"), code: String::new() };
            let page_of_wrong = login_page(lang, &wish, Some(lang.texts().login_wrong), is_key);
            let mut response = page(StatusCode::UNAUTHORIZED, &page_of_wrong);
            let delay = state.guesses.wrong_credential(source, None, asked_at);
            response.extensions_mut().insert(ToldAt(asked_at + delay));
            response
        }
        Err(error) => words.failed(error.into()),
    }
}

/// Ends the login of the browser.
pub(super) async fn log_out(State(state): State<Arc<AppState>>, request: Request) -> Response {
    let words = Words::of(&request);
    if is_cross_site(&request, &[]) {
        return words.cross_site();
    }
    let origin = request.extensions().get::<Visitor>().map(|visitor| visitor.peer.to_string());
    if let Some(token) = guest::token(request.headers()) {
        let ended = async {
            if let Some(guest) = state.console.find(token).await? {
                state.console.end(token, &guest, origin.as_deref().unwrap_or("unknown")).await?;
            }
            Ok::<_, schema::store::StoreError>(())
        };
        if let Err(error) = ended.await {
            return words.failed(error.into());
        }
    }
    let cookie = set_cookie(SESSION_COOKIE, "", 0, true, state.settings.is_encrypted);
    let mut response = see("/login");
    response.headers_mut().extend(cookie.map(|cookie| (SET_COOKIE, cookie)));
    response
}

/// Changes the language of the browser, and goes back.
pub(super) async fn speak(headers: HeaderMap, typed: Typed) -> Response {
    let lang = typed.text("to").and_then(Lang::parse).unwrap_or_else(|| language(&headers));
    let cookie = set_cookie(LANGUAGE_COOKIE, lang.code(), LANGUAGE_SECONDS, false, false);
    let mut response = see(own_place(typed.text("back").unwrap_or("/")));
    response.headers_mut().extend(cookie.map(|cookie| (SET_COOKIE, cookie)));
    response.into_response()
}
