//! The metric catalog: every metric the engine exports is declared here, once, with its labels.
//!
//! A function returns the handle of one series. Looking a handle up costs about 100 ns, so whoever counts per message
//! keeps the handle.

pub use metrics::{Counter, Gauge, Histogram};

use crate::store::dead_letter::Source;
use crate::wire::envelope::Dialect;
use crate::wire::reject::Reason;
use crate::wire::topic::Kind;

/// A label value from a closed list. Never an id.
pub trait Label {
    /// The text of the label.
    fn label(&self) -> &'static str;
}

impl Label for &'static str {
    fn label(&self) -> &'static str {
        self
    }
}

impl Label for Kind {
    fn label(&self) -> &'static str {
        self.as_str()
    }
}

impl Label for Source {
    fn label(&self) -> &'static str {
        self.as_str()
    }
}

impl Label for Dialect {
    fn label(&self) -> &'static str {
        self.as_str()
    }
}

impl Label for Reason {
    fn label(&self) -> &'static str {
        self.code()
    }
}

/// The value of a gauge that cannot be had: the exports leave the gauge out.
pub const UNKNOWN: f64 = f64::NAN;

/// What a metric is: name, type, help text.
#[derive(Clone, Copy, Debug)]
pub struct Declared {
    /// The dotted name; dots become underscores for Prometheus.
    pub name: &'static str,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// One sentence.
    pub help: &'static str,
}

macro_rules! handle {
    (counter $($args:tt)*) => { metrics::counter!($($args)*) };
    (gauge $($args:tt)*) => { metrics::gauge!($($args)*) };
    (histogram $($args:tt)*) => { metrics::histogram!($($args)*) };
}

macro_rules! handle_type {
    (counter) => {
        metrics::Counter
    };
    (gauge) => {
        metrics::Gauge
    };
    (histogram) => {
        metrics::Histogram
    };
}

macro_rules! catalog {
    ($(#[doc = $help:literal] $kind:ident $function:ident($($label:ident: $type:ty),*) = $name:literal;)*) => {
        $(
            #[doc = $help]
            pub fn $function($($label: $type),*) -> handle_type!($kind) {
                handle!($kind $name $(, stringify!($label) => Label::label(&$label))*)
            }
        )*

        /// Every metric of the catalog, in its order.
        pub const CATALOG: &[Declared] =
            &[$(Declared { name: $name, kind: stringify!($kind), help: $help.trim_ascii() }),*];

        /// Tells the installed exporters the help texts.
        pub fn describe() {
            CATALOG.iter().for_each(describe_one);
        }
    };
}

fn describe_one(declared: &Declared) {
    let Declared { name, kind, help } = *declared;
    match kind {
        "counter" => metrics::describe_counter!(name, help),
        "gauge" => metrics::describe_gauge!(name, help),
        _ => metrics::describe_histogram!(name, help),
    }
}

catalog! {
    /// Messages that reached the ingress, by topic kind.
    counter ingress_received(kind: Kind) = "ingress.received";
    /// Messages that passed every check, duplicates included.
    counter ingress_accepted(kind: Kind) = "ingress.accepted";
    /// Messages refused for good, by reason.
    counter ingress_rejected(reason: Reason) = "ingress.rejected";
    /// Messages whose event had been seen before.
    counter ingress_deduped(kind: Kind) = "ingress.deduped";
    /// Duplicates on the same topic whose body differs from the first one.
    counter ingress_dedupe_conflict(kind: Kind) = "ingress.dedupe_conflict";
    /// Strangers that got no pending row since as many as may have one already.
    counter ingress_provision_full() = "ingress.provision_full";
    /// Accepted messages, by the dialect they were written in.
    counter ingress_dialect(dialect: Dialect) = "ingress.dialect";
    /// Messages without a trace id, which got a new one.
    counter ingress_trace_generated(kind: Kind) = "ingress.trace_generated";
    /// Messages whose time came from `occurred_at`.
    counter ingress_ts_alias(kind: Kind) = "ingress.ts_alias";
    /// Deliveries that came back undone and were delivered again.
    counter ingress_handed_back(kind: Kind) = "ingress.handed_back";
    /// Messages whose time is more than an hour away from their arrival.
    counter ingress_ts_skew(direction: &'static str) = "ingress.ts_skew";
    /// Seconds from receipt to acknowledgement.
    histogram mqtt_message_latency_seconds(kind: Kind) = "mqtt.message_latency_seconds";
    /// 1 while the broker, embedded or external, is usable.
    gauge mqtt_connected() = "mqtt.connected";
    /// 1 while lasting sessions are kept by this engine, 0 while another one on the same database keeps them.
    gauge mqtt_keeps_sessions() = "mqtt.keeps_sessions";
    /// Messages received and not yet acknowledged.
    gauge mqtt_unacked() = "mqtt.unacked";
    /// Clients connected to the embedded broker.
    gauge mqtt_connections() = "mqtt.connections";
    /// Messages that did not reach a subscriber, by the limit they met.
    counter mqtt_queue_dropped(reason: &'static str) = "mqtt.queue_dropped";
    /// Messages that were not retained because as many are as may be.
    counter mqtt_not_retained() = "mqtt.not_retained";
    /// What clients of the embedded broker were refused for want of room, by budget, and whose part was used up.
    counter mqtt_budget_spent(budget: &'static str, limit: &'static str) = "mqtt.budget_spent";
    /// Seconds a named transaction took.
    histogram db_query_duration_seconds(transaction: &'static str) = "db.query_duration_seconds";
    /// Connections in use, by what they are for: work, reads, and those kept for a lock.
    gauge db_pool_in_use(pool: &'static str) = "db.pool_in_use";
    /// Age of the oldest snapshot that somebody else holds, seconds: nothing deleted since is removed.
    gauge db_oldest_snapshot_age_seconds() = "db.oldest_snapshot_age_seconds";
    /// 1 while the engine can do its work: what `/api/ready` says.
    gauge engine_ready() = "engine.ready";
    /// Days that the certificate of a file has left, by the setting that names the file; below zero it is over.
    gauge tls_certificate_days_left(file: &'static str) = "tls.certificate_days_left";
    /// 1 while the database takes writes.
    gauge db_up() = "db.up";
    /// 1 while the database tells of changed access at once; otherwise it is looked for now and then.
    gauge access_listening() = "access.listening";
    /// Credentials and scopes that were refused, by reason.
    counter auth_refused(reason: &'static str) = "auth.refused";
    /// HTTP connections that found no place.
    counter http_connections_refused() = "http.connections_refused";
    /// Calls that were let in without a credential in compat mode, by route.
    counter auth_compat_calls(route: &'static str) = "auth.compat_calls";
    /// Readings stored.
    counter telemetry_stored() = "telemetry.stored";
    /// Series (a metric of a device) on the board of latest values.
    gauge board_series() = "board.series";
    /// Readings of series for which the board had no room.
    counter board_refused() = "board.refused";
    /// Commits that the board did not hear of and reads rows for.
    counter board_missed() = "board.missed";
    /// Readings that a test of the sensors flagged, by the test.
    counter quality_flagged(test: &'static str) = "quality.flagged";
    /// Live streams that are open.
    gauge stream_open() = "stream.open";
    /// Live streams that ended, by why.
    counter stream_ended(reason: &'static str) = "stream.ended";
    /// Live streams that found no place, by the limit they met.
    counter stream_refused(limit: &'static str) = "stream.refused";
    /// Rows whose time lies outside every monthly partition.
    gauge telemetry_default_partition_rows() = "telemetry.default_partition_rows";
    /// Weighing sessions that began.
    counter session_created() = "session.created";
    /// Weighing sessions that ended.
    counter session_finalized() = "session.finalized";
    /// Weights and images that came after the end of their session.
    counter session_amended() = "session.amended";
    /// Weighing sessions that were given up since nothing came any more.
    counter session_cancelled() = "session.cancelled";
    /// Messages under a session id that another station uses.
    counter session_conflict() = "session.conflict";
    /// Finalizes that wait for their session.
    gauge session_parked() = "session.parked";
    /// Weights and images that wait for their session.
    gauge session_unbound_children() = "session.unbound_children";
    /// What was accepted, could not be applied and waits for a person, by source.
    gauge dead_letters_open(source: Source) = "dead_letters.open";
    /// Dead letters written, by source and reason.
    counter dead_letters_added(source: Source, reason: &'static str) = "dead_letters.added";
    /// Outbox rows that wait to be sent.
    gauge outbox_pending() = "outbox.pending";
    /// Outbox rows claimed and not yet on the line.
    gauge outbox_claimed() = "outbox.claimed";
    /// Outbox rows on the line.
    gauge outbox_sent() = "outbox.sent";
    /// Outbox rows the cloud refused for good.
    gauge outbox_failed() = "outbox.failed";
    /// Age of the oldest pending row, seconds.
    gauge outbox_oldest_pending_age_seconds() = "outbox.oldest_pending_age_seconds";
    /// Events the cloud has acknowledged.
    counter outbox_acked() = "outbox.acked";
    /// Of these, events the cloud had already.
    counter outbox_duplicated() = "outbox.duplicated";
    /// Events that were acknowledged as duplicates after a rejection: the cloud may have lost them.
    counter outbox_acked_after_rejection() = "outbox.acked_after_rejection";
    /// Events the cloud rejected, by error code.
    counter outbox_rejected(reason: &'static str) = "outbox.rejected";
    /// Events that became `failed`, by error code.
    counter outbox_dead_lettered(reason: &'static str) = "outbox.dead_lettered";
    /// Events and dead letters that a person discarded.
    counter outbox_discarded() = "outbox.discarded";
    /// Lanes held by a failed `session.created`.
    gauge outbox_lanes_held() = "outbox.lanes_held";
    /// Messages and events since the ledger began, by state; `waiting` and `failed` as of now.
    gauge ledger_events(state: &'static str) = "ledger.events";
    /// Messages and events of which the ledger does not know what became, summed over tenants and days. Zero means whole.
    gauge ledger_difference() = "ledger.difference";
    /// Batches the cloud took.
    counter sync_send_success() = "sync.send_success";
    /// Batches it did not take, by kind.
    counter sync_send_failure(kind: &'static str) = "sync.send_failure";
    /// Milliseconds a batch took from request to settled rows.
    histogram sync_batch_latency_ms() = "sync.batch_latency_ms";
    /// Events per batch.
    histogram sync_batch_events() = "sync.batch_events";
    /// Bytes per batch.
    histogram sync_batch_bytes() = "sync.batch_bytes";
    /// Failures in a row; the largest of all tenants.
    gauge sync_consecutive_failures() = "sync.consecutive_failures";
    /// Seconds since a batch was taken; since the start when none ever was.
    gauge sync_last_success_age_seconds() = "sync.last_success_age_seconds";
    /// 1 when the last exchange with the cloud succeeded.
    gauge sync_cloud_up() = "sync.cloud_up";
    /// The cloud's clock minus ours, milliseconds.
    gauge sync_clock_skew_ms() = "sync.clock_skew_ms";
    /// Seconds from the arrival of a finalize to its commit.
    histogram session_finalize_seconds() = "session.finalize_seconds";
    /// Uploads offered to devices.
    counter media_presigned() = "media.presigned";
    /// Images completed, by what completed them.
    counter media_completed(mode: impl Label) = "media.completed";
    /// Uploads whose URL expired before anything came.
    counter media_expired() = "media.expired";
    /// Images whose SHA-256 is not the one that their device declared.
    counter media_sha256_mismatch() = "media.sha256_mismatch";
    /// Bytes of all stored images.
    gauge media_stored_bytes() = "media.stored_bytes";
    /// Inference jobs that are not done.
    gauge inference_queue_depth() = "inference.queue_depth";
    /// Age of the oldest inference job that is not done, seconds.
    gauge inference_oldest_age_seconds() = "inference.oldest_age_seconds";
    /// Attempts of inference jobs, by what became of them: completed, retried, failed, late.
    counter inference_jobs(result: &'static str) = "inference.jobs";
    /// Seconds an attempt took, by what became of it.
    histogram inference_duration_seconds(result: &'static str) = "inference.duration_seconds";
    /// Seconds from the last byte of an image, when its job is made, to the stored result.
    histogram inference_pipeline_seconds() = "inference.pipeline_seconds";
    /// 1 while RabbitMQ carries work orders.
    gauge inference_rabbitmq_up() = "inference.rabbitmq_up";
    /// Work orders, by what became of them: sent, lost on the way there; taken, stale when their job was not to be claimed.
    counter inference_orders(result: &'static str) = "inference.orders";
    /// Rows deleted by retention, by table.
    counter retention_deleted_rows(table: &'static str) = "retention.deleted_rows";
    /// Files deleted by retention.
    counter retention_deleted_files() = "retention.deleted_files";
    /// Of these, images that went before their time because room was needed.
    counter retention_emergency_files() = "retention.emergency_files";
    /// Bytes that deleted files had taken.
    counter retention_freed_bytes() = "retention.freed_bytes";
    /// 1 while the store of images does not bear the marker of this database alone, so that files stay which no row knows.
    gauge retention_store_not_ours() = "retention.store_not_ours";
    /// Files that no row knows and that a pass kept, since they were more than a tenth of what it looked at.
    gauge retention_orphans_kept() = "retention.orphans_kept";
    /// 1 while nothing is deleted by age, since the clock stands further ahead than anything bears out.
    gauge retention_clock_unbelievable() = "retention.clock_unbelievable";
    /// Months and days that are over and kept, since the cloud lacks an event of their time.
    gauge retention_held_tables() = "retention.held_tables";
    /// The share of a volume that is in use, 0 to 1.
    gauge disk_used_ratio(volume: &'static str) = "disk.used_ratio";
    /// Bytes free on a volume.
    gauge disk_free_bytes(volume: &'static str) = "disk.free_bytes";
    /// Days that the cloud may stay away until the volume of the database is full; left out while it is not known.
    gauge disk_runway_days() = "disk.runway_days";
    /// Days of acknowledged events that went before their time, since the volume of the database was nearly full.
    counter retention_emergency_tables() = "retention.emergency_tables";
    /// Seconds since the moment that the last backup of this box shows; left out while there is none.
    gauge backup_age_seconds() = "backup.age_seconds";
    /// Messages about alarms by kind of way, and what became of them: told, or why not.
    counter alarm_tellings_total(way: &'static str, result: &'static str) = "alarm.tellings_total";
    /// Alarms that stand and are neither put aside nor hidden, by class: low, high, critical.
    gauge alarm_standing(class: &'static str) = "alarm.standing";
    /// Alarms of which nobody has said that he knows, those that are over included.
    gauge alarm_unacknowledged() = "alarm.unacknowledged";
    /// From the commit of the last readings to their judgment by the rules.
    gauge alarm_evaluation_lag_seconds() = "alarm.evaluation_lag_seconds";
    /// 1 while something that happened to alarms is not written down yet.
    gauge alarm_unwritten() = "alarm.unwritten";
    /// Since somebody last answered a drill, in the barn where that is longest ago.
    gauge alarm_drill_age_seconds() = "alarm.drill_age_seconds";
    /// 1 while the heart of the engine beats: its supervision tree answers, and every vital part of it.
    gauge engine_heart_beats() = "engine.heart_beats";
    /// Actors that were restarted after a failure, by kind.
    counter engine_restarts(actor: &'static str) = "engine.restarts";
    /// Times the wall clock was set, by direction: `ahead` or `back`.
    counter engine_clock_steps(direction: &'static str) = "engine.clock_steps";
    /// When a chore last succeeded, seconds since 1970.
    gauge engine_chore_last_success_seconds(chore: &'static str) = "engine.chore_last_success_seconds";
}

/// Always 1: the engine's name, version, commit and environment, which are labels here and nowhere else.
pub fn engine_info(edge_id: &str, version: &str, commit: &str, env: &str) -> metrics::Gauge {
    let labels = [("edge_id", edge_id), ("version", version), ("commit", commit), ("env", env)];
    let labels = labels.map(|(name, value)| metrics::Label::new(name, value.to_owned()));
    metrics::gauge!("engine.info", labels.iter())
}

/// Requests answered, by route template, method and status.
pub fn http_requests_total(route: &str, method: &'static str, status: u16) -> metrics::Counter {
    metrics::counter!("http.requests_total", "route" => route.to_owned(), "method" => method, "status" => status.to_string())
}

/// Seconds a request took, by route template, method and status.
pub fn http_request_duration_seconds(route: &str, method: &'static str, status: u16) -> metrics::Histogram {
    metrics::histogram!("http.request_duration_seconds", "route" => route.to_owned(), "method" => method, "status" => status.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dotted_and_unique() {
        let mut names: Vec<_> = CATALOG.iter().map(|declared| declared.name).collect();
        assert!(names.iter().all(|name| name.contains('.') && !name.contains(|c: char| c.is_uppercase())));
        assert!(CATALOG.iter().all(|declared| declared.help == declared.help.trim()), "help is a sentence");
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
