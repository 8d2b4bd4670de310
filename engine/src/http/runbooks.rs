//! The runbooks of the alerts as pages: whoever is called in the night needs them in the barn, where there may be no internet.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use pulldown_cmark::{CowStr, Event, Options, Parser, Tag, TagEnd, html};
use sha2::{Digest, Sha256};

use super::error::{Code, Error};

/// The document, of which each heading of the second level is that of an alert.
const RUNBOOKS: &str = include_str!("../../../docs/runbooks.md");
/// What begins the part of an alert.
const HEADING: &str = "\n## ";
const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem}\
    code{background:#8882;padding:.1em .3em;border-radius:3px}:root{color-scheme:light dark}";

/// What a page may do: show itself with its own style.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let digest = BASE64_STANDARD.encode(Sha256::digest(STYLE));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    HeaderValue::from_str(&policy).expect("base64 and plain words")
});

/// Shows the runbooks of all alerts.
#[utoipa::path(get, path = "/docs/runbooks", tag = "documentation",
    responses((status = 200, description = "A page", body = String, content_type = "text/html")))]
pub(super) async fn all() -> Response {
    page("Runbooks", RUNBOOKS)
}

/// Shows the runbook of one alert.
#[utoipa::path(get, path = "/docs/runbooks/{alert}", tag = "documentation",
    params(("alert" = String, Path, description = "The name of the alert", example = "FarmiqDown")),
    responses((status = 200, description = "A page", body = String, content_type = "text/html")))]
pub(super) async fn of_alert(Path(alert): Path<String>) -> Result<Response, Error> {
    let part = part(&alert).ok_or_else(|| Error::new(Code::NotFound, "there is no alert of this name"))?;
    Ok(page(&alert, part))
}

/// The part of an alert, whatever the case of its name.
fn part(alert: &str) -> Option<&'static str> {
    let starts = RUNBOOKS.match_indices(HEADING).map(|(at, _)| at + 1);
    let mut parts = starts.map(|at| {
        let part = &RUNBOOKS[at..];
        &part[..part.find(HEADING).unwrap_or(part.len())]
    });
    parts.find(|part| {
        let title = part.lines().next().and_then(|line| line.strip_prefix("## "));
        title.is_some_and(|title| title.eq_ignore_ascii_case(alert))
    })
}

fn page(title: &str, markdown: &str) -> Response {
    let mut body = String::new();
    html::push_html(&mut body, without_links(Parser::new_ext(markdown, Options::empty())));
    let body = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style></head>\
         <body>{body}<p><a href=\"/docs/runbooks\">All runbooks</a></p></body></html>"
    );
    let content_type = HeaderValue::from_static("text/html; charset=utf-8");
    ([(CONTENT_TYPE, content_type), (CONTENT_SECURITY_POLICY, POLICY.clone())], body).into_response()
}

/// The other documents are not here: their names stand in place of links to them.
fn without_links<'a>(events: impl Iterator<Item = Event<'a>>) -> impl Iterator<Item = Event<'a>> {
    let mut targets = Vec::new();
    events.filter_map(move |event| {
        if let Event::Start(Tag::Link { dest_url, .. }) = event {
            targets.push(dest_url);
            None
        } else if let Event::End(TagEnd::Link) = event {
            let target = targets.pop()?;
            let file = target.split('#').next().unwrap_or_default().trim_start_matches("../");
            let name = file.rsplit('/').next().unwrap_or_default();
            Some(Event::Text(CowStr::from(format!(" (docs/{name})")))).filter(|_| name.ends_with(".md"))
        } else {
            Some(event)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_alert_has_its_part_alone() {
        let down = part("farmiqdown").unwrap();
        assert!(down.starts_with("## FarmiqDown\n") && !down.contains("FarmiqNotReady\n"), "{down}");
        assert!(part("Watchdog").unwrap().contains("Its end is the alarm"));
        for nobody in ["", "Runbooks", "FarmiqDow", "FarmiqDown\n"] {
            assert!(part(nobody).is_none(), "{nobody:?}");
        }
    }

    #[test]
    fn links_to_documents_become_their_names() {
        let mut html = String::new();
        html::push_html(
            &mut html,
            without_links(Parser::new("[operate.md](operate.md#start) and [rules](../deploy/x)")),
        );
        assert_eq!(html, "<p>operate.md (docs/operate.md) and rules</p>\n");
    }
}
