//! Lists and how they go on: no row twice, none left out, whatever comes in between two pages; and weighings as they are
//! listed.

mod dead;
mod devices;
mod large;
mod marks;
mod sessions;

use std::collections::HashSet;

use axum::http::StatusCode;

use super::{Face, code, config};

const ONE: (&str, &str) = ("x-api-key", "one");
/// Rows of each list that the test begins with; three share each time.
const ROWS: usize = 30;

/// Rows of one list, of which three share each time; `{n}` counts them, `{at}` is the time.
struct Listed {
    path: &'static str,
    list: &'static str,
    insert: &'static str,
}

const LISTS: [Listed; 6] = [
    Listed {
        path: "/api/v1/telemetry/readings?tenant_id=t-001",
        list: "readings",
        insert: "INSERT INTO telemetry_raw (id, tenant_id, farm_id, barn_id, device_id, event_id, metric_type, metric_value,
                occurred_at, ingested_at)
             VALUES (gen_random_uuid(), 't-001', 'f', 'b', 'd', 'e-{n}', 'm', 1, {at}, now())",
    },
    Listed {
        path: "/api/v1/telemetry/aggregates?tenant_id=t-001",
        list: "aggregates",
        insert: "INSERT INTO telemetry_agg (id, tenant_id, device_id, \"window\", bucket_start_at, bucket_end_at, metric_type,
                avg_value, min_value, max_value, count, created_at)
             VALUES (gen_random_uuid(), 't-001', 'd-' || {n} % 2, '1h', {at}, {at} + interval '1 hour', 'm-' || {n}, 1, 1, 1, 1, now())",
    },
    Listed {
        path: "/api/v1/events?tenant_id=t-001",
        list: "events",
        insert: "INSERT INTO device_events (id, tenant_id, farm_id, barn_id, device_id, event_id, event_type, occurred_at, ingested_at)
             VALUES (gen_random_uuid(), 't-001', 'f', 'b', 'd', 'e-{n}', 'x', {at}, now())",
    },
    Listed {
        path: "/api/v1/weighvision/sessions?tenant_id=t-001",
        list: "sessions",
        insert: "INSERT INTO weight_sessions (id, tenant_id, farm_id, barn_id, device_id, session_id, station_id, start_at,
                created_event_id, created_at, updated_at)
             VALUES (gen_random_uuid(), 't-001', 'f', 'b', 'd', 's-{n}', 'st', {at}, 'e', now(), now())",
    },
    Listed {
        path: "/api/v1/flocks?tenant_id=t-001",
        list: "flocks",
        insert: "INSERT INTO flocks (id, tenant_id, farm_id, barn_id, batch_id, genetic_line_code, sex, placed_on, birds, created_at, updated_at)
             VALUES (gen_random_uuid(), 't-001', 'f', 'b-{n}', 'x', 'l', 'MALE', date '2026-01-01' + extract(minute FROM {at})::int, 1, now(), now())",
    },
    Listed {
        path: "/api/v1/inference/results?tenant_id=t-001",
        list: "results",
        insert: "INSERT INTO inference_results (id, tenant_id, farm_id, barn_id, device_id, confidence, model_version,
                occurred_at, created_at, event_id)
             VALUES (gen_random_uuid(), 't-001', 'f', 'b', 'd', 0.5, 'v', {at}, now(), gen_random_uuid())",
    },
];

impl Listed {
    /// Puts a row into the list: the `n`th, whose time is `place` thirds of a minute after nine.
    async fn put(&self, face: &Face, n: usize, place: usize) {
        let at = format!("timestamptz '2026-02-12T09:00:00.000001Z' + interval '1 minute' * {}", place / 3);
        face.db.execute(&self.insert.replace("{n}", &n.to_string()).replace("{at}", &at)).await;
    }

    async fn page(&self, face: &Face, after: Option<&str>) -> (Vec<String>, Option<String>) {
        let after = after.map(|after| format!("&after={after}")).unwrap_or_default();
        let (status, body) = face.get(&format!("{}&limit=7{after}", self.path), &[ONE]).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        let ids = body[self.list].as_array().expect("a list").iter();
        let ids = ids.map(|row| row["id"].as_str().expect("an id").to_owned()).collect();
        (ids, body["next"].as_str().map(str::to_owned))
    }

    /// Every row from the newest to the oldest, page by page.
    async fn all(&self, face: &Face, mut between: impl AsyncFnMut(usize)) -> Vec<String> {
        let (mut all, mut after, mut pages) = (Vec::new(), None, 0);
        loop {
            let (ids, next) = self.page(face, after.as_deref()).await;
            all.extend(ids);
            pages += 1;
            assert!(pages < 100, "{} ends", self.list);
            let Some(next) = next else { return all };
            after = Some(next);
            between(pages).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_row_is_shown_twice_or_left_out_whatever_comes_in_between_two_pages() {
    let face = Face::of(config()).await;
    for list in &LISTS {
        for n in 0..ROWS {
            list.put(&face, n, n).await;
        }
        let before = list.all(&face, async |_| {}).await;
        assert_eq!(before.len(), ROWS, "{}", list.list);
        let mut n = ROWS;
        // At the newest and the oldest time, and at those where pages end.
        let shown = list.all(&face, async |page| {
            let end = ROWS.saturating_sub(page * 7);
            for place in [ROWS, 0, end, end.saturating_sub(3)] {
                list.put(&face, n, place).await;
                n += 1;
            }
        });
        let shown = shown.await;
        let distinct: HashSet<_> = shown.iter().collect();
        assert_eq!(distinct.len(), shown.len(), "{} shows a row twice", list.list);
        let missing: Vec<_> = before.iter().filter(|id| !distinct.contains(id)).collect();
        assert!(missing.is_empty(), "{} leaves out {missing:?}", list.list);
        let known: HashSet<_> = before.iter().collect();
        let in_order: Vec<_> = shown.iter().filter(|id| known.contains(id)).collect();
        assert_eq!(in_order, before.iter().collect::<Vec<_>>(), "{} keeps its order", list.list);
    }
    face.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_is_good_for_its_own_list_and_opens_no_other_tenant() {
    let face = Face::of(config()).await;
    for list in &LISTS {
        for n in 0..ROWS {
            list.put(&face, n, n).await;
        }
    }
    for list in &LISTS {
        let (_, next) = list.page(&face, None).await;
        let next = next.expect("there is more");
        for other in &LISTS {
            let (status, body) = face.get(&format!("{}&after={next}", other.path), &[ONE]).await;
            let expected = if other.list == list.list { StatusCode::OK } else { StatusCode::BAD_REQUEST };
            assert_eq!(status, expected, "{} {body}", other.list);
        }
        let foreign = format!("{}&after={next}", list.path.replace("t-001", "t-002"));
        let (status, body) = face.get(&foreign, &[ONE]).await;
        assert_eq!((status, code(&body)), (StatusCode::FORBIDDEN, "TENANT_MISMATCH"), "{foreign}");
        let (status, body) = face.get(&foreign, &[("x-api-key", "all")]).await;
        assert_eq!(
            (status, body[list.list].as_array().map(Vec::len)),
            (StatusCode::OK, Some(0)),
            "{foreign}"
        );
        for bad in ["x", "AAAA", "%00"] {
            let (status, body) = face.get(&format!("{}&after={bad}", list.path), &[ONE]).await;
            assert_eq!((status, code(&body)), (StatusCode::BAD_REQUEST, "VALIDATION_ERROR"), "{bad}");
        }
    }
    face.end().await;
}
