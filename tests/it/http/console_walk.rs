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
    let viewer = invited(&face, Role::Viewer, &[OWNER]).await;
    let before = rows_of_owner(&face).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_let_in_changed_and_put_out_on_its_page() {
    let face = Face::of(config()).await;
    face.db.allow_device(OWNER, "d-001", "f-001", "b-001").await;
    let farmer = invited(&face, Role::Farmer, &[OWNER]).await;
    let engineer = invited(&face, Role::Engineer, &[OWNER]).await;
    assert_eq!(post(&face, "/devices/new", &farmer, "id=d-014").await.status, StatusCode::FORBIDDEN);
    let wrong = post(&face, "/devices/new", &engineer, "id=d%2F014").await;
    assert!(wrong.status == StatusCode::UNPROCESSABLE_ENTITY && wrong.text.contains("role=\"alert\""));
    let page = post(&face, "/devices/new", &engineer, "id=d-014").await;
    let password = |text: &str| {
        let field = text.split("id=\"password\"").nth(1).expect("a password");
        field.split("value=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default().to_owned()
    };
    let first = password(&page.text);
    assert!(first.len() == 32 && page.text.contains("t-001/d-014"), "{}", page.text);
    let again = post(&face, "/devices/new", &engineer, "id=d-014").await;
    assert_eq!(again.status, StatusCode::CONFLICT, "it has a password");
    let shown = get(&face, "/devices/d-014", &engineer).await.text;
    assert!(!shown.contains(&first) && shown.contains("/devices/d-014/rotate"), "{shown}");
    let second = password(&post(&face, "/devices/d-014/rotate", &engineer, "").await.text);
    assert_ne!(first, second);
    let early = post(&face, "/devices/d-014/rotate", &engineer, "").await;
    assert_eq!(early.status, StatusCode::CONFLICT, "two are good");
    assert_ne!(password(&post(&face, "/devices/d-014/rotate", &engineer, "at-once=yes").await.text), second);
    let unsure = post(&face, "/devices/d-014/revoke", &engineer, "").await;
    assert_eq!(unsure.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(
        post(&face, "/devices/d-014/revoke", &engineer, "sure=yes").await.status,
        StatusCode::SEE_OTHER
    );
    assert!(get(&face, "/devices/d-014", &engineer).await.text.contains("not let in"));
    let actions =
        "SELECT count(*) FROM audit_log WHERE target = 'd-014' AND actor = 'operator:invited/Somchai'";
    assert_eq!(face.db.count(actions).await, 4, "let in, changed twice, put out");
    let refused = "INSERT INTO ingress_rejects (id, reason, topic, detail, tenant_id, device_id, size_bytes, sha256, rejected_at)
        VALUES (gen_random_uuid(), 'TS_INVALID', 'a/topic', 'ts', 't-001', 'd-001', 9, '', now())";
    face.db.execute(refused).await;
    let shown = get(&face, "/devices/d-001", &farmer).await.text;
    assert!(shown.contains("Its time cannot be read") && shown.contains("Set the clock"), "{shown}");
    assert!(get(&face, "/devices", &farmer).await.text.contains("Its time cannot be read"));
    face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_given_up_is_discarded_with_a_reason() {
    let face = Face::of(config()).await;
    furnish(&face).await;
    let admin = invited(&face, Role::Admin, &[OWNER]).await;
    let id = FOREIGN.id;
    let page = get(&face, "/delivery", &admin).await.text;
    assert!(page.matches("s3cr3t-reason").count() == 1 && page.contains("s3cr3t.type"), "{page}");
    let none = post(&face, "/delivery/redrive", &admin, "which=discard").await;
    assert_eq!(none.status, StatusCode::SEE_OTHER, "nothing was chosen");
    let asked = post(&face, "/delivery/redrive", &admin, &format!("which=discard&id={id}")).await;
    assert!(asked.status == StatusCode::OK && asked.text.contains("name=\"reason\""), "{}", asked.text);
    let failed = "SELECT count(*) FROM dead_letters WHERE redriven_at IS NULL";
    let open = face.db.count(failed).await;
    let hasty = post(&face, "/delivery/redrive", &admin, &format!("which=discard&id={id}&sure=yes")).await;
    assert_eq!((hasty.status, face.db.count(failed).await), (StatusCode::UNPROCESSABLE_ENTITY, open));
    let form = format!("which=discard&id={id}&sure=yes&reason=a+test");
    assert_eq!(post(&face, "/delivery/redrive", &admin, &form).await.status, StatusCode::SEE_OTHER);
    assert!(!get(&face, "/delivery", &admin).await.text.contains(id), "it is gone from the list");
    let written = "SELECT count(*) FROM audit_log WHERE detail_json->>'reason' = 'a test'";
    assert_eq!(face.db.count(written).await, 1);
    face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_looked_at_first_and_written_once() {
    let face = Face::of(config()).await;
    furnish(&face).await;
    let farmer = invited(&face, Role::Farmer, &[OWNER]).await;
    let path = format!("/flocks/{}/import", FOREIGN.id);
    let records = "SELECT count(*) FROM flock_records WHERE kind <> 'NOTE'";
    let wrong = post(&face, &path, &farmer, "csv=day%2Ckind%2Cvalue%0A2026-01-04%2CCULL%2C1%0A").await;
    assert!(
        wrong.status == StatusCode::UNPROCESSABLE_ENTITY && wrong.text.contains("line 2"),
        "{}",
        wrong.text
    );
    let table = "csv=day%2Ckind%2Cvalue%0A2026-01-06%2CCULL%2C1%0A2026-01-06%2CFEED_INTAKE%2C250%0A";
    let looked = post(&face, &path, &farmer, table).await;
    assert_eq!((looked.status, face.db.count(records).await), (StatusCode::OK, 0), "{}", looked.text);
    for _ in 0..2 {
        let brought = post(&face, &path, &farmer, &format!("{table}&sure=yes")).await;
        assert_eq!(
            (brought.status, face.db.count(records).await),
            (StatusCode::SEE_OTHER, 2),
            "{}",
            brought.text
        );
    }
    let form = "name=Own&line=ROSS308&sex=MALE&source=our+flocks&year=2026&csv=age_day%2Cbody_weight_g%0A0%2C44%0A1%2C62%0A";
    let sets = "SELECT count(*) FROM standard_sets WHERE name = 'Own'";
    let looked = post(&face, "/standards/import", &farmer, form).await;
    assert_eq!((looked.status, face.db.count(sets).await), (StatusCode::OK, 0), "{}", looked.text);
    let form = format!("{form}&sure=yes");
    assert_eq!(post(&face, "/standards/import", &farmer, &form).await.status, StatusCode::SEE_OTHER);
    assert_eq!(face.db.count(sets).await, 1);
    assert!(get(&face, "/standards", &farmer).await.text.contains("Own"));
    let again = post(&face, "/standards/import", &farmer, &form).await;
    assert!(again.text.contains("There is a standard of this name"), "{}", again.text);
    face.end().await;
}
