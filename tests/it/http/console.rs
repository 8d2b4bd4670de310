//! The console with a real database: who gets in, what is seen, what is done, and who is kept out.

use actors::console::{ConsoleDesk, Guest, Role as GuestRole};
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, StatusCode};
use chrono::Duration;
use engine::config::{Auth, Role};
use schema::clock::Clock;
use schema::store::audit::Author;
use serde_json::json;
use tower::ServiceExt;

use super::{Face, config, key, request};

/// An answer for a person.
pub(super) struct Page {
    pub(super) status: StatusCode,
    headers: HeaderMap,
    pub(super) text: String,
}

impl Page {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("a text"))
    }

    /// What the browser shows from now on.
    fn cookie(&self) -> String {
        self.header("set-cookie").split(';').next().unwrap_or_default().to_owned()
    }
}

async fn send(face: &Face, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Page {
    let form = ("content-type", "application/x-www-form-urlencoded");
    let headers: Vec<_> = headers.iter().copied().chain((method == "POST").then_some(form)).collect();
    let request = request(method, path, &headers, Body::from(body.to_owned()));
    let response = face.router.clone().oneshot(request).await.expect("a router never fails");
    let (parts, body) = response.into_parts();
    let bytes = to_bytes(body, usize::MAX).await.expect("a body in memory");
    Page { status: parts.status, headers: parts.headers, text: String::from_utf8_lossy(&bytes).into_owned() }
}

pub(super) async fn get(face: &Face, path: &str, cookie: &str) -> Page {
    send(face, "GET", path, &[("cookie", cookie)], "").await
}

pub(super) async fn post(face: &Face, path: &str, cookie: &str, body: &str) -> Page {
    send(face, "POST", path, &[("cookie", cookie)], body).await
}

async fn log_in(face: &Face, key: &str) -> String {
    let page = post(face, "/login", "", &format!("key={key}&to=%2Fweights")).await;
    assert_eq!((page.status, page.header("location")), (StatusCode::SEE_OTHER, "/weights"), "{}", page.text);
    let cookie = page.header("set-cookie").to_owned();
    assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
    page.cookie()
}

fn desk(face: &Face) -> ConsoleDesk {
    ConsoleDesk { store: tests::postgres::store(&face.db.url), clock: Clock::system() }
}

fn author() -> Author {
    Author { actor: "shell:0".to_owned(), origin: "box".to_owned() }
}

pub(super) async fn invited(face: &Face, role: GuestRole, tenants: &[&str]) -> String {
    let tenants = tenants.iter().map(|&tenant| tenant.to_owned()).collect();
    let guest = Guest { name: "Somchai".to_owned(), role, tenants, key_mark: None };
    let code = desk(face).invite(&guest, Duration::minutes(10), &author()).await.expect("an invitation");
    let page = post(face, "/login", "", &format!("code={}", code.to_lowercase())).await;
    assert_eq!(page.status, StatusCode::SEE_OTHER, "{}", page.text);
    let again = post(face, "/login", "", &format!("code={code}")).await;
    assert_eq!(again.status, StatusCode::UNAUTHORIZED, "a code is good once");
    page.cookie()
}

async fn place(face: &Face, tenant_id: &str) -> String {
    let all = ("x-api-key", "all");
    let barn = json!({"tenant_id": tenant_id, "farm_id": "f-001", "barn_id": "b-001", "name": "House <1>",
        "time_zone": "Asia/Bangkok"});
    let (status, body) = face.post("/api/v1/barns", &[all], &barn).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let flock = json!({"tenant_id": tenant_id, "farm_id": "f-001", "barn_id": "b-001", "batch_id": "2026-01",
        "genetic_line_code": "ROSS308", "placed_on": "2026-01-05", "birds": 20000, "target_weight_g": 2800});
    let (status, body) = face.post("/api/v1/flocks", &[all], &flock).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    body["id"].as_str().expect("an id").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_opens_the_console_and_a_stranger_stays_outside() {
    let face = Face::of(config()).await;
    place(&face, "t-001").await;
    let outside = get(&face, "/weights?x=1", "").await;
    assert_eq!(
        (outside.status, outside.header("location")),
        (StatusCode::SEE_OTHER, "/login?to=%2Fweights%3Fx%3D1")
    );
    let wrong = post(&face, "/login", "", "key=nobody").await;
    assert_eq!(wrong.status, StatusCode::UNAUTHORIZED);
    assert!(!wrong.text.contains("nobody") && wrong.text.contains("role=\"alert\""), "{}", wrong.text);
    let cookie = log_in(&face, "one").await;
    let page = get(&face, "/weights", &cookie).await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.text);
    assert!(
        page.text.contains("House &#60;1&#62;") && !page.text.contains("House <1>"),
        "what people type stays a text"
    );
    let policy = page.header("content-security-policy");
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    for word in ["style=", "<script>", "onclick", "onload", "javascript:"] {
        assert!(!page.text.contains(word), "{word}");
    }
    assert_eq!(page.header("cache-control"), "private, no-store");
    let left = post(&face, "/logout", &cookie, "").await;
    assert_eq!(left.status, StatusCode::SEE_OTHER);
    assert_eq!(get(&face, "/weights", &cookie).await.status, StatusCode::SEE_OTHER, "the login is over");
    let (_, audit) = face.get("/api/v1/audit", &[("x-api-key", "all")]).await;
    let actions: Vec<&str> =
        audit["entries"].as_array().expect("rows").iter().filter_map(|row| row["action"].as_str()).collect();
    assert!(actions.contains(&"console.login") && actions.contains(&"console.logout"), "{actions:?}");
    face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cookie_is_a_credential_of_the_api_for_pages_of_the_console_alone() {
    let face = Face::of(config()).await;
    let id = place(&face, "t-001").await;
    let cookie = log_in(&face, "one").await;
    let (status, body) = face.get(&format!("/api/v1/flocks/{id}"), &[("cookie", &cookie)]).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let end = json!({"ended_on": "2026-02-16"});
    let path = format!("/api/v1/flocks/{id}/end");
    let foreign = [("cookie", &*cookie), ("host", "barn:3000"), ("origin", "http://evil.example")];
    assert_eq!(face.post(&path, &foreign, &end).await.0, StatusCode::FORBIDDEN);
    let page =
        send(&face, "POST", &format!("/flocks/{id}/end"), &foreign, "ended_on=2026-02-16&sure=yes").await;
    assert_eq!(page.status, StatusCode::FORBIDDEN, "{}", page.text);
    let own = [("cookie", &*cookie), ("host", "barn:3000"), ("origin", "http://barn:3000")];
    assert_eq!(face.post(&path, &own, &end).await.0, StatusCode::OK);
    face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_does_what_it_may_and_a_tenant_sees_its_own() {
    let face = Face::of(config()).await;
    let (own, other) = (place(&face, "t-001").await, place(&face, "t-002").await);
    let viewer = invited(&face, GuestRole::Viewer, &["t-001"]).await;
    let page = get(&face, &format!("/flocks/{own}"), &viewer).await;
    assert!(
        page.status == StatusCode::OK && !page.text.contains("name=\"part\""),
        "no form for who only looks"
    );
    let record = "kind=MORTALITY&value=3&part=MORNING&day=2026-01-06";
    let path = format!("/flocks/{own}/records");
    assert_eq!(post(&face, &path, &viewer, record).await.status, StatusCode::FORBIDDEN);
    let farmer = invited(&face, GuestRole::Farmer, &["t-001"]).await;
    let written = post(&face, &path, &farmer, record).await;
    assert_eq!(written.header("location"), format!("/flocks/{own}?said=written"), "{}", written.text);
    let (_, records) = face.get(&format!("/api/v1/flocks/{own}/records"), &[("x-api-key", "one")]).await;
    assert_eq!(records["records"][0]["author"], "operator:invited/Somchai", "{records}");
    for path in
        [format!("/flocks/{other}"), format!("/flocks/{other}/sheet"), format!("/weights?flock={other}")]
    {
        assert_eq!(get(&face, &path, &farmer).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    let path = format!("/flocks/{other}/records");
    assert_eq!(post(&face, &path, &farmer, record).await.status, StatusCode::NOT_FOUND);
    assert!(!get(&face, "/places", &farmer).await.text.contains("t-002"));
    let chosen = post(&face, "/places", &farmer, "place=t-002%2Ff-001%2Fb-001").await;
    assert_eq!(chosen.status, StatusCode::NOT_FOUND);
    let smuggled = get(&face, "/flocks", &format!("{farmer}; farmiq_place=t-002/f-001/b-001")).await;
    assert!(smuggled.text.contains(&own) && !smuggled.text.contains(&other));
    face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_put_out_is_out_at_once() {
    let face = Face::of(config()).await;
    let (operator, guest) = (log_in(&face, "one").await, invited(&face, GuestRole::Admin, &["*"]).await);
    for cookie in [&operator, &guest] {
        assert_eq!(get(&face, "/places", cookie).await.status, StatusCode::OK);
    }
    let ended = desk(&face).end_all("Somchai", &author()).await.expect("the database answers");
    assert_eq!((ended, get(&face, "/places", &guest).await.status), (1, StatusCode::SEE_OTHER));
    let auth = Auth { operator_keys: vec![key("another", Role::Admin, &["*"])], ..config().auth };
    face.authority.replace(&auth).expect("no files");
    assert_eq!(get(&face, "/places", &operator).await.status, StatusCode::SEE_OTHER, "its key has gone");
    face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_ends_by_idleness_and_by_age() {
    let face = Face::of(config()).await;
    for change in
        ["seen_at = now() - interval '7 days'", "ends_at = now()", "ends_at = now() + interval '90 days'"]
    {
        let cookie = log_in(&face, "one").await;
        assert_eq!(get(&face, "/places", &cookie).await.status, StatusCode::OK);
        face.db.execute(&format!("UPDATE console_sessions SET {change}")).await;
        assert_eq!(get(&face, "/places", &cookie).await.status, StatusCode::SEE_OTHER, "{change}");
        face.db.execute("DELETE FROM console_sessions").await;
    }
    for _ in 0..25 {
        log_in(&face, "one").await;
    }
    assert_eq!(face.db.count("SELECT count(*) FROM console_sessions").await, 20, "the oldest give way");
    face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn losses_are_written_once_and_taken_back_in_the_open() {
    let face = Face::of(config()).await;
    let id = place(&face, "t-001").await;
    let cookie = log_in(&face, "one").await;
    let body = "kind=MORTALITY&value=12&part=EVENING&day=2026-01-07&ref=0198a6f2-7c1e-7d2a-9f35-0c8a5b1e2d3f";
    for _ in 0..2 {
        assert_eq!(
            post(&face, &format!("/flocks/{id}/records"), &cookie, body).await.status,
            StatusCode::SEE_OTHER
        );
    }
    assert_eq!(face.db.count("SELECT count(*) FROM flock_records").await, 1, "a form that is sent twice");
    let wrong = post(&face, &format!("/flocks/{id}/records"), &cookie, "kind=MORTALITY&value=many").await;
    assert!(wrong.status == StatusCode::UNPROCESSABLE_ENTITY && wrong.text.contains("role=\"alert\""));
    let (_, records) = face.get(&format!("/api/v1/flocks/{id}/records"), &[("x-api-key", "one")]).await;
    let record = records["records"][0]["id"].as_str().expect("an id");
    let back = post(&face, &format!("/flocks/{id}/records/{record}/void"), &cookie, "").await;
    assert_eq!(back.header("location"), format!("/flocks/{id}?said=taken-back"));
    let again = post(&face, &format!("/flocks/{id}/records/{record}/void"), &cookie, "").await;
    assert_eq!(again.status, StatusCode::CONFLICT);
    let thai = send(
        &face,
        "GET",
        &format!("/flocks/{id}/sheet"),
        &[("cookie", &cookie), ("accept-language", "th-TH")],
        "",
    )
    .await;
    assert!(thai.text.contains("lang=\"th\"") && thai.text.contains("ม.ค. 2569"), "{}", thai.text);
    face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_kept_for_good_and_pages_are_packed() {
    let face = Face::of(config()).await;
    let login = get(&face, "/login?code=ab-cd%22%3E", "").await;
    assert!(login.text.contains("value=\"abcd\""), "{}", login.text);
    let style =
        login.text.split("href=\"").find(|rest| rest.starts_with("/assets/console.")).expect("a style");
    let style = style.split('"').next().expect("a path");
    let found = send(&face, "GET", style, &[("accept-encoding", "gzip")], "").await;
    assert_eq!((found.status, found.header("content-encoding")), (StatusCode::OK, "gzip"));
    assert!(found.header("cache-control").contains("immutable"));
    assert_eq!(get(&face, "/assets/console.000000000000.css", "").await.status, StatusCode::NOT_FOUND);
    let page = send(&face, "GET", "/login", &[("accept-encoding", "gzip")], "").await;
    assert_eq!(page.header("content-encoding"), "gzip");
    let spoken = post(&face, "/language", "", "to=th&back=%2F%2Fevil.example").await;
    assert_eq!((spoken.header("location"), &*spoken.cookie()), ("/", "farmiq_lang=th"));
    face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_is_shown_and_only_deeds_need_more_than_a_look() {
    let face = Face::of(config()).await;
    let id = place(&face, "t-001").await;
    face.db.allow_device("t-001", "d-001", "f-001", "b-001").await;
    let viewer = invited(&face, GuestRole::Viewer, &["t-001"]).await;
    let label = "/devices/d-001/label".to_owned();
    let pages = [
        "/",
        "/weights",
        "/climate",
        "/climate?span=week",
        "/climate?span=flock",
        "/review",
        "/review?show=all",
        "/alarms",
        "/alarms?show=aside",
        "/alarms?show=history",
        "/alarms?show=drill",
        "/alarms?show=rules",
    ];
    let pages =
        pages.into_iter().chain(["/devices", "/devices/d-001", "/delivery", "/flocks", "/places", "/more"]);
    let pages =
        pages.map(str::to_owned).chain([label, format!("/flocks/{id}"), format!("/flocks/{id}/sheet")]);
    for path in pages {
        let page = get(&face, &path, &viewer).await;
        assert_eq!(page.status, StatusCode::OK, "{path}: {}", page.text);
        assert!(page.text.contains("<h1") && !page.text.contains(" style="), "{path}");
        let (opened, closed) = (page.text.matches("<form").count(), page.text.matches("</form>").count());
        assert_eq!(opened, closed, "{path}");
    }
    for (path, body) in [
        ("/review/s-1", "deed=fine"),
        ("/delivery/redrive", "which=all&sure=yes"),
        ("/devices/d-001/place", "role=inside"),
        ("/flocks/new", "birds=1"),
        ("/alarms/0198a6f2-7c1e-7d2a-9f35-0c8a5b1e2d3f/ack", ""),
        ("/alarms/drills", ""),
        ("/alarms/mode", "mode=empty"),
    ] {
        assert_eq!(post(&face, path, &viewer, body).await.status, StatusCode::FORBIDDEN, "{path}");
    }
    let farmer = invited(&face, GuestRole::Farmer, &["t-001"]).await;
    let put = post(&face, "/devices/d-001/place", &farmer, "role=outside&zone=north&height=40").await;
    assert_eq!(put.header("location"), "/devices/d-001?said=written", "{}", put.text);
    assert!(get(&face, "/devices/d-001", &farmer).await.text.contains("value=\"north\""));
    assert_eq!(get(&face, "/devices/d-404", &farmer).await.status, StatusCode::NOT_FOUND);
    assert_eq!(post(&face, "/review/s-404", &farmer, "deed=fine").await.status, StatusCode::NOT_FOUND);
    assert_eq!(post(&face, "/delivery/redrive", &farmer, "which=all").await.status, StatusCode::FORBIDDEN);
    for path in ["/alarms/x", "/alarms/0198a6f2-7c1e-7d2a-9f35-0c8a5b1e2d3f"] {
        assert_eq!(get(&face, path, &farmer).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    let admin = log_in(&face, "one").await;
    let asked = post(&face, "/delivery/redrive", &admin, "which=all").await;
    assert!(asked.status == StatusCode::OK && asked.text.contains("name=\"sure\""), "{}", asked.text);
    let done = post(&face, "/delivery/redrive", &admin, "which=all&sure=yes").await;
    assert_eq!(done.header("location"), "/delivery?said=tried-again", "{}", done.text);
    face.end().await;
}
