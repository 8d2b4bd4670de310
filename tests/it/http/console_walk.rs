//! Every page of the console, as its router has them: another tenant's rows on it, and who may act.

use actors::console::Role;
use axum::http::StatusCode;

use super::console::{get, invited, post};
use super::tenants::{FOREIGN, Names, OWNER, SECRET, STRANGER, furnish, rows_of_owner};
use super::{Face, config};

/// A form with what every page asks for, so that nothing but rights stands between it and its deed.
const FORM: &str = "sure=yes&which=chosen&reason=s&minutes=30&occurrence=1&kind=MORTALITY&value=1&day=2026-01-06&ended_on=2026-01-06\
    &deed=exclude&role=inside&mode=empty&name=x&line=ROSS308&sex=MALE&source=x&year=2026&placed_on=2026-01-06&birds=9&batch=b-9\
    &csv=day%2Ckind%2Cvalue%0A2026-01-06%2CCULL%2C1%0A";

/// A page of the router.
#[derive(Debug)]
struct Row {
    class: String,
    path: String,
    is_shown: bool,
    is_deed: bool,
}

impl Row {
    /// Its path with the names of somebody's rows.
    fn named(&self, names: &Names) -> String {
        let id = match self.path.split('/').nth(1) {
            Some("devices") => names.device_id,
            Some("review") => names.session_id,
            _ => names.id,
        };
        self.path.replace("{id}", id).replace("{record_id}", names.id)
    }
}

/// The pages as the router has them; one that is added is walked from then on.
fn rows() -> Vec<Row> {
    let source = include_str!("../../../engine/src/http/console.rs");
    let row = |line: &str| {
        let (class, rest) = line.trim().strip_prefix("row(")?.split_once(", \"")?;
        let (path, methods) = rest.split_once("\", ")?;
        let (is_shown, is_deed) = (methods.contains("get("), methods.contains("post("));
        Some(Row { class: class.to_owned(), path: path.to_owned(), is_shown, is_deed })
    };
    let rows: Vec<Row> = source.lines().filter_map(row).collect();
    assert!(rows.len() > 30 && rows.iter().all(|row| row.is_shown || row.is_deed), "{rows:?}");
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn no_page_shows_or_changes_what_is_anothers() {
    let face = Face::of(config()).await;
    furnish(&face).await;
    let before = rows_of_owner(&face).await;
    let stranger = invited(&face, Role::Admin, &[STRANGER]).await;
    let smuggled = format!("{stranger}; farmiq_place={OWNER}/s3cr3t-farm/s3cr3t-barn");
    let form = format!("id={}&{FORM}", FOREIGN.id);
    for row in rows() {
        let path = row.named(&FOREIGN);
        for cookie in [&stranger, &smuggled] {
            if row.is_shown {
                for query in ["", "?show=all", "?show=history", "?show=drill", "?show=rules", "?span=flock"] {
                    let page = get(&face, &format!("{path}{query}"), cookie).await;
                    let told = page.text.replace(FOREIGN.device_id, "");
                    assert!(!told.contains(SECRET), "GET {path}{query}: {}", page.text);
                    let is_named = row.path.contains('{');
                    let is_hidden = !is_named || page.status == StatusCode::NOT_FOUND;
                    assert!(is_hidden, "GET {path}{query}: {}", page.status);
                }
            }
            if row.is_deed {
                let page = post(&face, &path, cookie, &form).await;
                assert!(
                    !page.text.replace(FOREIGN.device_id, "").contains(SECRET),
                    "POST {path}: {}",
                    page.text
                );
            }
        }
    }
    for ((table, before), (_, after)) in before.iter().zip(rows_of_owner(&face).await) {
        assert_eq!(*before, after, "{table}");
    }
    face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_only_looks_finds_no_form_and_can_do_nothing() {
    let face = Face::of(config()).await;
    furnish(&face).await;
    let before = rows_of_owner(&face).await;
    let viewer = invited(&face, Role::Viewer, &[OWNER]).await;
    let form = format!("id={}&{FORM}", FOREIGN.id);
    let of_everybody = ["/language", "/logout", "/places"];
    for row in rows() {
        let path = row.named(&FOREIGN);
        let is_to_look_at = matches!(row.class.as_str(), "Read" | "Box");
        if row.is_shown {
            let page = get(&face, &path, &viewer).await;
            let expected = if is_to_look_at { StatusCode::OK } else { StatusCode::FORBIDDEN };
            assert_eq!(page.status, expected, "GET {path}: {}", page.text);
            for form in page.text.split("<form ").skip(1) {
                let action = form.split("action=\"").nth(1).and_then(|rest| rest.split('"').next());
                let action = action.unwrap_or_default();
                assert!(of_everybody.contains(&action), "{path} has a form for {action}");
            }
        }
        if row.is_deed && row.path != "/places" {
            assert_eq!(post(&face, &path, &viewer, &form).await.status, StatusCode::FORBIDDEN, "POST {path}");
        }
    }
    for ((table, before), (_, after)) in before.iter().zip(rows_of_owner(&face).await) {
        assert_eq!(*before, after, "{table}");
    }
    face.end().await;
}
