//! The past: rows of every kind that retention deletes, and some beside them that it must not.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use chrono::{Datelike, Days, Duration, Months, NaiveDate};
use tokio::sync::watch;

use schema::clock::{Clock, Timestamp};
use schema::id::new_id;
use schema::store::bench::past::{
    IMAGE_BYTES, Old, Span, add_refused_event, analyze, fill, fill_acked, fill_images, image_count,
    skip_aggregation,
};
use schema::store::bench::reading_count;
use schema::store::partition::ensure_ahead;

use crate::bench::Bench;
use crate::report::{note, say};

use super::janitor::Deleted;

/// Readings of a month whose event waits for a person.
const HELD_READINGS: u64 = 10_000;
/// Images of sessions that are open.
const OPEN_IMAGES: u64 = 1000;
/// Refusals that the engine keeps.
const REFUSALS_KEPT: u64 = 10_000;
/// Days of acknowledged events.
const ACKED_DAYS: u64 = 5;
/// Rows of one statement.
const ROWS_PER_STATEMENT_MAX: u64 = 50_000;
/// Days of a month over which its rows are spread.
const MONTH: Duration = Duration::days(25);

/// How many old rows of which kind there are, and whose.
pub(super) struct Past {
    now: Timestamp,
    tenant: String,
    rows: u64,
    expected: Deleted,
}

/// What is left after the pass, and should be.
pub(super) struct Left {
    readings: u64,
    images: u64,
    files: u64,
}

impl Past {
    pub(super) fn new(rows: u64, tenant: &str) -> Self {
        let share = |per_mille: u64| rows * per_mille / 1000;
        let expected = BTreeMap::from(
            [
                ("telemetry_raw", share(2 * 200 + 10)),
                ("device_events", share(2 * 15)),
                ("sync_outbox", share(50) * ACKED_DAYS),
                ("telemetry_agg", share(100)),
                ("ingress_dedupe", share(150)),
                ("ingress_rejects", share(10)),
                ("media_objects", share(20)),
                ("media_uploads", share(20)),
                ("dead_letters", share(10)),
            ]
            .map(|(table, rows)| (table.to_owned(), rows)),
        );
        Self { now: Clock::system().now(), tenant: tenant.to_owned(), rows, expected }
    }

    /// Rows that must go, by table.
    pub(super) fn expected(&self) -> &Deleted {
        &self.expected
    }

    /// Whether every row went. Of large tables that are dropped the engine knows the number roughly only: of the readings
    /// what is left is counted.
    pub(super) fn is_deleted(&self, deleted: &Deleted) -> bool {
        let exact = self.expected.iter().filter(|(table, _)| *table != "telemetry_raw");
        exact.into_iter().all(|(table, rows)| deleted.get(table) == Some(rows))
    }

    /// Fills the tables, but for dedupe marks and refusals.
    pub(super) async fn fill(&self, bench: &Bench, media: &Path, stop: &watch::Receiver<bool>) -> Result<()> {
        note(format!("making {} old rows", self.rows));
        let months_ago = |months| self.month_start(months);
        let mut conn = bench.store.conn().await.context("connect to the database")?;
        ensure_ahead(&mut conn, months_ago(6)).await.context("make partitions of the past")?;
        drop(conn);
        for month in [months_ago(5), months_ago(6)] {
            self.add(bench, Old::Readings, month, MONTH, self.rows / 5).await?;
            self.add(bench, Old::Events, month, MONTH, self.rows * 15 / 1000).await?;
            ensure!(!*stop.borrow(), "stopped while filling the tables");
        }
        let odd = NaiveDate::from_ymd_opt(2000, 1, 1).expect("a day");
        self.add(bench, Old::Readings, midnight(odd), MONTH, self.rows / 100).await?;
        for (old, table, days_ago) in [
            (Old::Aggregates, "telemetry_agg", 400),
            (Old::Uploads, "media_uploads", 40),
            (Old::Letters, "dead_letters", 60),
        ] {
            self.add(bench, old, self.days_ago(days_ago), MONTH, self.expected[table]).await?;
        }
        ensure!(!*stop.borrow(), "stopped while filling the tables");
        self.fill_acked(bench).await?;
        self.fill_images(bench, media, self.expected["media_objects"], false).await?;
        self.fill_images(bench, media, OPEN_IMAGES, true).await?;
        self.add(bench, Old::Readings, months_ago(7), MONTH, HELD_READINGS).await?;
        let conn = bench.store.conn().await.context("connect to the database")?;
        let refused_at = months_ago(7) + Duration::days(3);
        add_refused_event(&conn, new_id(), &self.tenant, refused_at).await.context("add a refused event")?;
        skip_aggregation(&conn, self.now).await.context("take the past for aggregated")?;
        analyze(&conn).await.context("analyze the tables")
    }

    /// Fills the tables that the engine cleans at a rhythm of their own.
    pub(super) async fn fill_marks(&self, bench: &Bench) -> Result<()> {
        let (day, refusals) = (Duration::days(1), self.expected["ingress_rejects"] + REFUSALS_KEPT);
        self.add(bench, Old::Refusals, self.days_ago(2), day, refusals).await?;
        self.add(bench, Old::Marks, self.days_ago(1), day, self.expected["ingress_dedupe"]).await
    }

    /// Looks at what is left.
    pub(super) async fn left(&self, bench: &Bench, media: &Path) -> Result<Left> {
        let conn = bench.store.conn().await.context("connect to the database")?;
        let readings = reading_count(&conn, &self.tenant).await.context("count readings")?;
        let images = image_count(&conn, &self.tenant).await.context("count images")?;
        let files = count_files(media).context("count files")?;
        Ok(Left { readings: readings.unsigned_abs(), images: images.unsigned_abs(), files })
    }

    async fn add(
        &self,
        bench: &Bench,
        old: Old,
        begins_at: Timestamp,
        length: Duration,
        rows: u64,
    ) -> Result<()> {
        let step =
            Duration::microseconds(length.num_microseconds().unwrap_or(1) / i64::try_from(rows.max(1))?);
        let mut done = 0;
        while done < rows {
            let count = (rows - done).min(ROWS_PER_STATEMENT_MAX);
            let begins_at = begins_at + step * i32::try_from(done)?;
            let span = Span { tenant: &self.tenant, begins_at, step, rows: i64::try_from(count)? };
            let conn = bench.store.conn().await.context("connect to the database")?;
            let added = fill(&conn, old, &span).await.with_context(|| format!("add {old:?}"))?;
            ensure!(added == count, "{added} of {count} {old:?} were added");
            done += count;
        }
        Ok(())
    }

    async fn fill_acked(&self, bench: &Bench) -> Result<()> {
        let conn = bench.store.conn().await.context("connect to the database")?;
        let rows = i64::try_from(self.expected["sync_outbox"] / ACKED_DAYS)?;
        for day in 0..ACKED_DAYS {
            let day = self.days_ago(40 + day).date_naive();
            fill_acked(&conn, &self.tenant, day, rows).await.context("add acknowledged events")?;
        }
        Ok(())
    }

    async fn fill_images(&self, bench: &Bench, media: &Path, rows: u64, is_open: bool) -> Result<()> {
        let span = Span {
            tenant: &self.tenant,
            begins_at: self.days_ago(150),
            step: Duration::seconds(1),
            rows: i64::try_from(rows)?,
        };
        let conn = bench.store.conn().await.context("connect to the database")?;
        let bytes = [0; IMAGE_BYTES];
        for path in fill_images(&conn, &span, is_open).await.context("add images")? {
            let place = media.join(path);
            std::fs::create_dir_all(place.parent().context("an image lies in a directory")?)
                .and_then(|()| std::fs::write(&place, bytes))
                .with_context(|| format!("write {}", place.display()))?;
        }
        Ok(())
    }

    fn days_ago(&self, days: u64) -> Timestamp {
        self.now - Days::new(days)
    }

    fn month_start(&self, months_ago: u32) -> Timestamp {
        let this_month = self.now.date_naive().with_day(1).expect("every month has a first day");
        midnight(this_month - Months::new(months_ago))
    }
}

impl Left {
    pub(super) fn tell(&self) {
        for (what, left, expected) in self.parts() {
            say(format!("{what}: {left} of {expected} are left"));
        }
    }

    /// Whether nothing was deleted too much or too little.
    pub(super) fn is_as_expected(&self) -> bool {
        self.parts().iter().all(|(_, left, expected)| left == expected)
    }

    fn parts(&self) -> [(&'static str, u64, u64); 3] {
        [
            ("readings of a month with a refused event", self.readings, HELD_READINGS),
            ("images of open sessions", self.images, OPEN_IMAGES),
            ("their files", self.files, OPEN_IMAGES),
        ]
    }
}

fn midnight(day: NaiveDate) -> Timestamp {
    day.and_time(chrono::NaiveTime::MIN).and_utc()
}

fn count_files(place: &Path) -> std::io::Result<u64> {
    let mut count = 0;
    for entry in std::fs::read_dir(place)? {
        let entry = entry?;
        // The mark of the store is no image.
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        count += if entry.file_type()?.is_dir() { count_files(&entry.path())? } else { 1 };
    }
    Ok(count)
}
