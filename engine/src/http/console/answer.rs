//! Answers for people: pages with their headers, ways to other pages, and words instead of codes.

use askama::Template;
use axum::Extension;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, Request};
use axum::http::StatusCode;
use axum::http::header::{
    ACCEPT_ENCODING, ACCEPT_LANGUAGE, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH,
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, VARY,
};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::super::auth::guest::cookie;
use super::super::error::{Code, Error, ForPeople};
use crate::console::asset;
use crate::console::door::MessagePage;
use crate::console::text::{Lang, Texts};
use crate::console::weights::encoded;

/// The cookie of the language.
pub(super) const LANGUAGE_COOKIE: &str = "farmiq_lang";
/// What a page may do in a browser: use what is ours, and nothing that stands in the page itself.
const PAGE: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; \
     manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
);
/// Pages are of a moment and of one person.
const MOMENT: HeaderValue = HeaderValue::from_static("private, no-store");
/// Files are named after their contents.
const FOR_GOOD: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const GZIP: HeaderValue = HeaderValue::from_static("gzip");
/// Bytes of a page.
const PAGE_BYTES_MAX: usize = 16 << 20;
/// Below this, packing saves nothing.
const PACKED_BYTES_MIN: usize = 512;

/// A page.
pub(super) fn page(status: StatusCode, template: &impl Template) -> Response {
    match template.render() {
        Ok(text) => {
            let headers = [
                (CONTENT_TYPE, HTML),
                (CACHE_CONTROL, MOMENT),
                (CONTENT_SECURITY_POLICY, PAGE),
                (VARY, HeaderValue::from_static("cookie, accept-language")),
            ];
            (status, Extension(ForPeople), headers, text).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "a page could not be written");
            Error::new(Code::InternalError, "internal error").into_response()
        }
    }
}

/// Sends the browser to another page, as after everything that was done.
pub(super) fn see(place: &str) -> Response {
    let place = HeaderValue::from_str(place).unwrap_or(HeaderValue::from_static("/"));
    (StatusCode::SEE_OTHER, [(LOCATION, place), (CACHE_CONTROL, MOMENT)]).into_response()
}

/// A place of this console that somebody named; the home page for anything else.
pub(super) fn own_place(named: &str) -> &str {
    let is_own = named.starts_with('/')
        && !named.starts_with("//")
        && !named.contains(['\\', '\r', '\n'])
        && named.is_ascii();
    if is_own { named } else { "/" }
}

/// The language of a request: chosen, else preferred, else English.
pub(super) fn language(headers: &HeaderMap) -> Lang {
    let preferred = || Lang::preferred(headers.get(ACCEPT_LANGUAGE)?.to_str().ok()?);
    cookie(headers, LANGUAGE_COOKIE).and_then(Lang::parse).or_else(preferred).unwrap_or(Lang::En)
}

/// What is said to somebody who gets no page.
pub(super) struct Words {
    lang: Lang,
    back: String,
}

impl Words {
    /// In the language of a request.
    pub(super) fn of(request: &Request) -> Self {
        let back = request.uri().path_and_query().map_or("/", |path| path.as_str());
        Self { lang: language(request.headers()), back: own_place(back).to_owned() }
    }

    /// In a language, for a page at a place.
    pub(super) fn in_language(lang: Lang, back: &str) -> Self {
        Self { lang, back: own_place(back).to_owned() }
    }

    fn texts(&self) -> &'static Texts {
        self.lang.texts()
    }

    fn say(&self, status: StatusCode, title: &'static str, text: impl Into<String>) -> Response {
        let message = MessagePage {
            lang: self.lang,
            t: self.texts(),
            title,
            text: text.into(),
            onward: "/",
            back: self.back.clone(),
        };
        page(status, &message)
    }

    /// The page is of another site.
    pub(super) fn cross_site(&self) -> Response {
        self.say(StatusCode::FORBIDDEN, self.texts().not_allowed, self.texts().cross_site)
    }

    /// Whoever is not known goes to the login; a part of a page that is fetched again has the whole page do so.
    pub(super) fn login_first(&self, request: &Request) -> Response {
        let place = format!("/login?to={}", encoded(&self.back));
        if request.headers().contains_key("hx-request") {
            let place = HeaderValue::from_str(&place).unwrap_or(HeaderValue::from_static("/login"));
            let answer = (StatusCode::UNAUTHORIZED, Extension(ForPeople), [("hx-redirect", place)]);
            return answer.into_response();
        }
        if request.method().is_safe() { see(&place) } else { see("/login") }
    }

    /// The role is too small.
    pub(super) fn not_allowed(&self) -> Response {
        self.say(StatusCode::FORBIDDEN, self.texts().not_allowed, self.texts().not_allowed_text)
    }

    /// There is nothing there, or it is another's.
    pub(super) fn not_found(&self) -> Response {
        self.say(StatusCode::NOT_FOUND, self.texts().not_found, self.texts().not_found_text)
    }

    /// Something failed. What lies behind it stands in the log.
    pub(super) fn failed(&self, error: Error) -> Response {
        let t = self.texts();
        if error.code == Code::NotFound {
            return self.not_found();
        }
        let response = if matches!(error.code, Code::DatabaseUnavailable | Code::NotReady) {
            self.say(StatusCode::SERVICE_UNAVAILABLE, t.no_database, t.no_database_text)
        } else {
            self.say(error.code.status(), t.try_again, error.message.clone())
        };
        if let Some(cause) = &error.cause {
            tracing::warn!(error_code = error.code.as_str(), %cause, "a page could not be made");
        }
        response
    }
}

/// A file of the console.
pub(super) async fn asset(Path(file): Path<String>, headers: HeaderMap) -> Response {
    let Some(found) = asset::at(&format!("{}/{file}", asset::PATH)) else {
        return Error::new(Code::NotFound, "there is no such file").into_response();
    };
    let named = [(CONTENT_TYPE, HeaderValue::from_static(found.content_type)), (CACHE_CONTROL, FOR_GOOD)];
    match found.packed.as_ref().filter(|_| takes_gzip(&headers)) {
        Some(packed) => {
            let packing = [(CONTENT_ENCODING, GZIP), (VARY, HeaderValue::from_static("accept-encoding"))];
            (named, packing, packed.clone()).into_response()
        }
        None => (named, found.plain.clone()).into_response(),
    }
}

/// Packs pages for browsers that take them so.
pub(super) async fn packed(request: Request, next: Next) -> Response {
    let takes_gzip = takes_gzip(request.headers());
    let response = next.run(request).await;
    let is_page = response.headers().get(CONTENT_TYPE).is_some_and(|found| found == HTML);
    if !takes_gzip || !is_page {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let Ok(bytes) = to_bytes(body, PAGE_BYTES_MAX).await else {
        return Error::new(Code::InternalError, "internal error").into_response();
    };
    if bytes.len() < PACKED_BYTES_MIN {
        return Response::from_parts(parts, Body::from(bytes));
    }
    parts.headers.insert(CONTENT_ENCODING, GZIP);
    parts.headers.append(VARY, HeaderValue::from_static("accept-encoding"));
    parts.headers.remove(CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(asset::pack(&bytes)))
}

fn takes_gzip(headers: &HeaderMap) -> bool {
    let all = headers.get_all(ACCEPT_ENCODING).into_iter().filter_map(|value| value.to_str().ok());
    all.flat_map(|value| value.split(',')).any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        parts.next() == Some("gzip") && parts.next().is_none_or(|q| q != "q=0")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_sent_elsewhere() {
        let check = |named: &str, expected: &str| assert_eq!(own_place(named), expected, "{named}");
        check("/weights?flock=1", "/weights?flock=1");
        check("//evil.example/", "/");
        check("/\\evil.example", "/");
        check("https://evil.example", "/");
        check("/a\r\nset-cookie: x", "/");
        check("", "/");
    }

    #[test]
    fn a_page_is_packed_for_whoever_takes_it() {
        let check = |value: &'static str, expected: bool| {
            let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static(value))]);
            assert_eq!(takes_gzip(&headers), expected, "{value}");
        };
        check("gzip, deflate, br", true);
        check("br;q=1.0, gzip;q=0.8", true);
        check("gzip;q=0", false);
        check("identity", false);
    }
}
