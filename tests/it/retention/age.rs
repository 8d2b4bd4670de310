//! How old is it? Age counts from when something came in, by a clock that can be believed.

use actors::retention::PassOrder;
use chrono::Duration;
use schema::store::retention::rows;
use tests::postgres::Database;

use super::{House, TENANT, WET, now};

/// A person says that the clock is right.
const CONFIRM: PassOrder = PassOrder { confirms_clock: true, ..WET };

impl House {
    /// A time, so many days before the present.
    fn days_ago(&self, days: i64) -> String {
        (self.now - Duration::days(days)).to_rfc3339()
    }

    /// An image whose device and whose clock say this.
    async fn image_at(&self, name: &str, captured_at: &str, created_at: &str) {
        self.image(name, 0, None).await;
        let set = "UPDATE media_objects SET captured_at = '{}', created_at = '{}' WHERE object_key = ";
        let set = set.replacen("{}", captured_at, 1).replacen("{}", created_at, 1);
        self.db.execute(&format!("{set} 'tenants/{name}'")).await;
    }

    async fn event_at(&self, name: &str, occurred_at: &str, ingested_at: &str) {
        self.db
            .execute(&format!(
                "INSERT INTO device_events (id, tenant_id, farm_id, barn_id, device_id, event_id, event_type, occurred_at, ingested_at)
                 VALUES (gen_random_uuid(), '{TENANT}', 'f', 'b', 'd-1', '{name}', 'door.opened', '{occurred_at}', '{ingested_at}')"
            ))
            .await;
    }

    async fn events(&self) -> Vec<String> {
        let sql = "SELECT event_id FROM device_events ORDER BY 1";
        self.db.client.query(sql, &[]).await.expect("it is right").iter().map(|row| row.get(0)).collect()
    }

    /// Passes a day apart, as many as these.
    async fn pass_days(&mut self, days: i64) {
        for _ in 0..days {
            self.now += Duration::days(1);
            self.pass().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_in_lately_stays_and_what_came_in_long_ago_goes_whatever_its_time_says() {
    let house = House::new().await;
    let times = ["1970-01-01T00:00:00Z", "2025-09-23T10:00:00Z", "2099-01-01T00:00:00Z"];
    // A replay of months that have partitions, and of this one.
    let replayed = [house.days_ago(150), house.days_ago(210), house.days_ago(1)];
    let times: Vec<&str> = times.into_iter().chain(replayed.iter().map(String::as_str)).collect();
    let mut lately = Vec::new();
    for (number, time) in times.iter().enumerate() {
        for (age, days) in [("lately", 1), ("long-ago", 125)] {
            let name = format!("{age}-{number}");
            house.reading_at(&name, time, &house.days_ago(days)).await;
            house.event_at(&name, time, &house.days_ago(days)).await;
            house.image_at(&name, time, &house.days_ago(days)).await;
            if days == 1 {
                lately.push(name);
            }
        }
    }
    house.pass().await;
    assert_eq!(house.rows().await, lately);
    assert_eq!(house.files(), lately);
    // A month goes as a whole: with what came in lately stays what lies beside it.
    let left = ["long-ago-3", "long-ago-4", "long-ago-5"].map(str::to_owned);
    let expected: Vec<String> = lately.iter().cloned().chain(left).collect();
    assert_eq!(house.readings().await, expected);
    assert_eq!(house.events().await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_month_that_a_replay_filled_goes_when_the_replay_is_old() {
    let mut house = House::new().await;
    house.reading_at("replayed", &house.days_ago(150), &house.days_ago(80)).await;
    let hub = house.hub(|_| ());
    hub.pass(WET).await;
    let held = hub.held_tables();
    assert_eq!(held.values().copied().collect::<Vec<_>>(), ["some of it came in late and is not old enough"]);
    house.pass_days(9).await;
    assert_eq!(house.readings().await, ["replayed"]);
    house.pass_days(2).await;
    assert_eq!(house.readings().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_in_under_a_wrong_clock_is_as_old_as_the_pass_that_notices() {
    let mut house = House::new().await;
    for (name, stamp) in [
        ("boot", "2000-01-01T00:00:30Z"),
        ("epoch", "1970-01-01T00:00:30Z"),
        ("jump", "2036-11-30T00:00:00Z"),
    ] {
        house.image_at(name, stamp, stamp).await;
        house.reading_at(name, stamp, stamp).await;
        house.event_at(name, &house.days_ago(150), stamp).await;
    }
    let all = ["boot", "epoch", "jump"].map(str::to_owned).to_vec();
    let check = async |house: &House, expected: &[String]| {
        assert_eq!(house.rows().await, expected);
        assert_eq!(house.files(), expected);
        assert_eq!(house.readings().await, expected);
        assert_eq!(house.events().await, expected);
    };
    house.pass().await;
    check(&house, &all).await;
    house.pass_days(89).await;
    check(&house, &all).await;
    house.pass_days(3).await;
    check(&house, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_ahead_deletes_nothing_until_a_person_says_that_it_is_right() {
    let mut house = House::new().await;
    let everything = async |house: &House| {
        (house.rows().await, house.files(), house.readings().await, house.events().await)
    };
    house.image("new", 1, None).await;
    house.reading("new", 1).await;
    house.reading_at("odd", "1970-01-01T00:00:00Z", &house.days_ago(1)).await;
    house.event_at("new", &house.days_ago(1), &house.days_ago(1)).await;
    house.old_file("known-to-nobody", 1);
    let before = everything(&house).await;
    house.now += Duration::days(400);
    let hub = house.hub(|_| ());
    for _ in 0..2 {
        let error = hub.pass(WET).await.error().expect("it is said");
        assert!(error.contains("the clock is not believed") && error.contains("399 days past"), "{error}");
    }
    assert_eq!(everything(&house).await, before);
    assert_eq!(hub.troubles().keys().copied().collect::<Vec<_>>(), ["clock"]);
    // The clock is put right by itself.
    house.now -= Duration::days(400);
    house.pass().await;
    assert_eq!(everything(&house).await, before);
    house.now += Duration::days(400);
    let hub = house.hub(|_| ());
    let report = hub.pass(PassOrder { confirms_orphans: true, ..CONFIRM }).await;
    assert_eq!(report.error(), None);
    assert_eq!(everything(&house).await, Default::default());
    assert_eq!(hub.troubles().len(), 0);
    // What a person has said holds for the next pass.
    house.pass().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_may_be_a_week_ahead_of_the_last_pass() {
    let mut house = House::new().await;
    house.now += Duration::days(7);
    house.pass().await;
    house.now += Duration::days(7) + Duration::seconds(1);
    assert!(house.hub(|_| ()).pass(WET).await.error().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_never_had_a_pass_is_measured_by_what_came_in_last() {
    for what in ["readings", "events", "images"] {
        let root = std::sync::Arc::new(tempfile::tempdir().expect("a directory"));
        let mut house = House::beside(Database::fresh_at(now()).await, root, now()).await;
        match what {
            "readings" => house.reading("new", 1).await,
            "events" => house.event_at("new", &house.days_ago(1), &house.days_ago(1)).await,
            _ => drop(house.image("new", 1, None).await),
        }
        // Stamped by a clock that was wrong before.
        house.event_at("ahead", &house.days_ago(1), &house.days_ago(-4000)).await;
        house.now += Duration::days(400);
        let error = house.hub(|_| ()).pass(WET).await.error();
        assert!(error.is_some_and(|error| error.contains("clock")), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn months_and_days_that_a_wrong_clock_made_go_again() {
    let house = House::new().await;
    house
        .db
        .store
        .run("test", async |conn| {
            schema::store::partition::ensure_ahead(conn, now() + Duration::days(3650)).await.map(drop)
        })
        .await
        .expect("they are made");
    house.reading_at("young", "2036-11-23T00:00:00Z", &house.days_ago(1)).await;
    let tables =
        "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relname ~ '_2036[0-9]+$|_2037[0-9]+$'";
    assert!(house.db.count(tables).await > 8);
    house.pass().await;
    assert_eq!(house.db.count(tables).await, 1);
    assert_eq!(house.readings().await, ["young"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_month_that_is_held_is_named_with_its_reason() {
    let house = House::new().await;
    house.reading("refused", 150).await;
    house.unacked(schema::id::new_id(), "telemetry.ingested", 150, "failed").await;
    house.reading("waits", 210).await;
    house.unacked(schema::id::new_id(), "telemetry.ingested", 210, "pending").await;
    let hub = house.hub(|_| ());
    assert_eq!(hub.pass(WET).await.error(), None);
    let held: Vec<_> = hub.held_tables().into_iter().collect();
    let expected = [
        ("telemetry_raw_202604".to_owned(), "an event of its time waits for the cloud"),
        (
            "telemetry_raw_202606".to_owned(),
            "the cloud has refused an event of its time: redrive or discard it",
        ),
    ];
    assert_eq!(held, expected);
    house.db.execute("DELETE FROM sync_outbox").await;
    hub.pass(WET).await;
    assert_eq!(hub.held_tables().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_inference_go_thirty_days_after_their_completion() {
    let house = House::new().await;
    for (name, status, days) in [
        ("old", "completed", 31),
        ("new", "completed", 29),
        ("failed", "failed", 300),
        ("open", "pending", 300),
    ] {
        let at = house.days_ago(days);
        house
            .db
            .execute(&format!(
                "INSERT INTO inference_jobs (id, tenant_id, farm_id, barn_id, device_id, media_id, object_key, model_version, status,
                    next_attempt_at, created_at, updated_at)
                 VALUES (gen_random_uuid(), '{TENANT}', 'f', 'b', 'd', gen_random_uuid(), '{name}', 'm', '{status}', '{at}', '{at}', '{at}')"
            ))
            .await;
    }
    let report = house.pass().await;
    assert_eq!(report.deleted_rows.get("inference_jobs"), Some(&1));
    assert_eq!(house.db.count("SELECT count(*) FROM inference_jobs WHERE object_key = 'old'").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_so_many_strangers_are_remembered() {
    let house = House::new().await;
    let max = rows::STRANGERS_MAX;
    house.db.allow_device(TENANT, "ours", "f", "b").await;
    house
        .db
        .execute(&format!(
            "INSERT INTO device_last_seen (tenant_id, device_id, last_seen_at, last_topic, updated_at)
             SELECT '{TENANT}', 'x-' || i, now() - i * interval '1 second', 't', now() FROM generate_series(1, {max} + 3000) AS i
             UNION ALL SELECT '{TENANT}', 'ours', now() - interval '1 year', 't', now()"
        ))
        .await;
    let trim = async || {
        house.db.store.run("test", async |conn| rows::trim_strangers(conn).await).await.expect("it is right")
    };
    assert_eq!((trim().await, trim().await, trim().await), (2000, 1000, 0));
    let newest =
        format!("SELECT count(*) FROM device_last_seen WHERE device_id IN ('x-1', 'x-{max}', 'ours')");
    assert_eq!(house.db.count(&newest).await, 3);
    assert_eq!(house.db.count("SELECT count(*) FROM device_last_seen").await, max + 1);
}

/// Six times as long as things are kept, a few days at a time.
#[tokio::test(flavor = "multi_thread")]
async fn six_cycles_later_every_table_is_as_large_as_after_the_first() {
    const STEP_DAYS: i64 = 6;
    const KEPT_DAYS: i64 = 18;
    let mut house = House::new().await;
    let (mut most, mut first) = (std::collections::BTreeMap::new(), None);
    for step in 0..6 * KEPT_DAYS / STEP_DAYS {
        house.now += Duration::days(STEP_DAYS);
        let at = house.days_ago(0);
        for number in 0..20 {
            house.image(&format!("image-{step}-{number}"), 0, None).await;
        }
        house
            .db
            .execute(&format!(
                "INSERT INTO telemetry_raw (id, tenant_id, device_id, event_id, metric_type, metric_value, occurred_at, ingested_at)
                 SELECT gen_random_uuid(), '{TENANT}', 'd', 'r-{step}-' || i, 'm', 1, CASE i % 3 WHEN 0 THEN '1970-01-01' WHEN 1 THEN '2099-01-01'
                    ELSE '{at}'::timestamptz END, '{at}' FROM generate_series(1, 300) AS i;
                 INSERT INTO inference_jobs (id, tenant_id, farm_id, barn_id, device_id, media_id, object_key, model_version, status,
                    next_attempt_at, created_at, updated_at)
                 SELECT gen_random_uuid(), '{TENANT}', 'f', 'b', 'd', gen_random_uuid(), 'k', 'm', 'completed', '{at}', '{at}', '{at}'
                 FROM generate_series(1, 50);
                 INSERT INTO media_uploads (media_id, tenant_id, farm_id, barn_id, device_id, bucket, object_key, content_type,
                    status, expires_at, completed_at, created_at)
                 SELECT gen_random_uuid(), '{TENANT}', 'f', 'b', 'd', 'b', 'k-{step}-' || i, 'image/jpeg',
                    CASE i % 2 WHEN 0 THEN 'expired' ELSE 'completed' END, '{at}', '{at}', '{at}' FROM generate_series(1, 40) AS i"
            ))
            .await;
        house
            .db
            .store
            .run("test", async |conn| schema::store::partition::ensure_ahead(conn, house.now).await.map(drop))
            .await
            .expect("made");
        let report = house
            .hub(|settings| {
                settings.telemetry_raw_days = KEPT_DAYS.unsigned_abs();
                settings.media_days = KEPT_DAYS.unsigned_abs();
                settings.outbox_acked_days = KEPT_DAYS.unsigned_abs();
            })
            .pass(WET)
            .await;
        assert_eq!(report.error(), None);
        for table in
            ["media_objects", "telemetry_raw_default", "telemetry_raw", "inference_jobs", "media_uploads"]
        {
            let rows = house.db.count(&format!("SELECT count(*) FROM {table}")).await;
            let most: &mut i64 = most.entry(table).or_default();
            *most = rows.max(*most);
        }
        assert_eq!(house.files().len(), house.rows().await.len());
        if step == 2 * 30 / STEP_DAYS {
            first = Some(most.clone());
        }
    }
    assert_eq!(first.as_ref(), Some(&most), "no table grows after its first cycle");
    let tables = house.db.count("SELECT count(*) FROM pg_inherits").await;
    assert!(tables < 60, "{tables} partitions");
}
