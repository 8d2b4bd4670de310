//! The metrics recorder: every value goes to Prometheus, and what has changed goes to statsd from time to time.
//!
//! The statsd exporter turns each call into a line, which costs half a microsecond, and ignores relative gauges and
//! absolute counters. So values are gathered here, where an increment costs two additions to atomics, and handed to
//! the exporter as differences. Its lines pass through a sink of ours, which adds the rate to those of a sample.

use std::io;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cadence::{BufferedUdpMetricSink, MetricSink};
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, SharedString, Unit,
};
use metrics_exporter_prometheus::PrometheusRecorder;
use metrics_exporter_statsd::{StatsdBuilder, StatsdError};
use metrics_util::registry::{Registry, Storage};
use metrics_util::storage::reservoir::AtomicSamplingReservoir;

/// Bytes of a datagram that no network on the way has to split.
const DATAGRAM_BYTES_MAX: usize = 1_400;
/// What every name begins with.
const PREFIX: &str = "farmiq";
/// Measurements of one histogram that a report carries at most: a fair sample of all.
const SAMPLES_MAX: usize = 64;
/// The recorders ask for it and do not look at it.
static METADATA: Metadata<'static> = Metadata::new("farmiq", metrics::Level::INFO, None);

/// Hands out counters, gauges and histograms that feed both exports.
pub(super) struct Recorder {
    registry: Registry<Key, Both>,
    /// Told to statsd with every line.
    tags: [(&'static str, String); 4],
}

impl Recorder {
    pub(super) fn new(prometheus: PrometheusRecorder, tags: [(&'static str, String); 4]) -> Self {
        Self { registry: Registry::new(Both(prometheus)), tags }
    }

    /// Tells `sink` what has changed since the last call: counters as differences, gauges as they are, histograms as
    /// a sample of the measurements with the `rate` at which it was taken.
    fn tell_changes(&self, sink: &impl metrics::Recorder, rate: &Rate) {
        self.registry.visit_counters(|key, counter| {
            let difference = counter.since_report.swap(0, Ordering::Relaxed);
            if difference > 0 {
                sink.register_counter(key, &METADATA).increment(difference);
            }
        });
        self.registry.visit_gauges(|key, gauge| {
            let value = f64::from_bits(gauge.value.load(Ordering::Relaxed));
            if value.is_nan() {
                return;
            }
            let told = sink.register_gauge(key, &METADATA);
            // A sign makes plain statsd add the value to the one before, unless that is known to be zero.
            if value < 0.0 {
                told.set(0.0);
            }
            told.set(value);
        });
        self.registry.visit_histograms(|key, histogram| {
            let told = sink.register_histogram(key, &METADATA);
            histogram.samples.consume(|samples| {
                rate.set(samples.sample_rate());
                samples.for_each(|value| told.record(value));
            });
        });
        rate.set(1.0);
    }

    /// The series of a gauge that show something, each with the value of its first label.
    pub(super) fn gauges(&self, name: &str) -> Vec<(String, f64)> {
        let mut found = Vec::new();
        self.registry.visit_gauges(|key, gauge| {
            let value = f64::from_bits(gauge.value.load(Ordering::Relaxed));
            if key.name() == name && !value.is_nan() {
                let label = key.labels().next().map(|label| label.value().to_owned());
                found.push((label.unwrap_or_default(), value));
            }
        });
        found
    }

    /// Sends what has changed since the last call. It resolves the host's name, so it may block.
    ///
    /// # Errors
    /// When the host is unknown or no socket can be had.
    pub(super) fn send_changes(&self, host: &str, port: u16) -> Result<(), StatsdError> {
        let lines = BufferedUdpMetricSink::with_capacity(
            (host, port),
            UdpSocket::bind(("0.0.0.0", 0))?,
            DATAGRAM_BYTES_MAX,
        )?;
        let rate = Arc::new(Rate::default());
        let sink = RatedSink { lines, rate: Arc::clone(&rate) };
        let builder = StatsdBuilder::from(host, port).with_sink(sink);
        let builder =
            self.tags.iter().fold(builder, |builder, (name, value)| builder.with_default_tag(name, value));
        self.tell_changes(&builder.build(Some(PREFIX))?, &rate);
        // Dropping the exporter sends what is left in its buffer.
        Ok(())
    }
}

/// The share of the measurements that is told, as the bits of a number of 0 to 1.
struct Rate(AtomicU64);

impl Default for Rate {
    fn default() -> Self {
        Self(AtomicU64::new(1f64.to_bits()))
    }
}

impl Rate {
    fn set(&self, rate: f64) {
        self.0.store(rate.to_bits(), Ordering::Relaxed);
    }

    fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

/// Sends lines, with the rate of a sample after the type: `name:value|h|@0.1|#tags`.
struct RatedSink {
    lines: BufferedUdpMetricSink,
    rate: Arc<Rate>,
}

impl MetricSink for RatedSink {
    fn emit(&self, line: &str) -> io::Result<usize> {
        let rate = self.rate.get();
        match line.split_once("|#") {
            Some((measured, tags)) if rate < 1.0 => self.lines.emit(&format!("{measured}|@{rate}|#{tags}")),
            Some(_) | None => self.lines.emit(line),
        }
    }

    fn flush(&self) -> io::Result<()> {
        self.lines.flush()
    }
}

/// Makes a metric for both exports when it is first named.
struct Both(PrometheusRecorder);

impl Storage<Key> for Both {
    type Counter = Arc<BothCounter>;
    type Gauge = Arc<BothGauge>;
    type Histogram = Arc<BothHistogram>;

    fn counter(&self, key: &Key) -> Self::Counter {
        let prometheus = metrics::Recorder::register_counter(&self.0, key, &METADATA);
        Arc::new(BothCounter { prometheus, since_report: AtomicU64::new(0), total: AtomicU64::new(0) })
    }

    fn gauge(&self, key: &Key) -> Self::Gauge {
        let prometheus = metrics::Recorder::register_gauge(&self.0, key, &METADATA);
        Arc::new(BothGauge { prometheus, value: AtomicU64::new(0f64.to_bits()) })
    }

    fn histogram(&self, key: &Key) -> Self::Histogram {
        let prometheus = metrics::Recorder::register_histogram(&self.0, key, &METADATA);
        Arc::new(BothHistogram { prometheus, samples: AtomicSamplingReservoir::new(SAMPLES_MAX) })
    }
}

impl metrics::Recorder for Recorder {
    fn describe_counter(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.registry.storage().0.describe_counter(key, unit, description);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.registry.storage().0.describe_gauge(key, unit, description);
    }

    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.registry.storage().0.describe_histogram(key, unit, description);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        self.registry.get_or_create_counter(key, |counter| Counter::from_arc(Arc::clone(counter)))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        self.registry.get_or_create_gauge(key, |gauge| Gauge::from_arc(Arc::clone(gauge)))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        self.registry.get_or_create_histogram(key, |histogram| Histogram::from_arc(Arc::clone(histogram)))
    }
}

struct BothCounter {
    prometheus: Counter,
    since_report: AtomicU64,
    /// The largest total that was set as a whole.
    total: AtomicU64,
}

impl CounterFn for BothCounter {
    fn increment(&self, value: u64) {
        self.prometheus.increment(value);
        self.since_report.fetch_add(value, Ordering::Relaxed);
    }

    fn absolute(&self, value: u64) {
        self.prometheus.absolute(value);
        let before = self.total.fetch_max(value, Ordering::Relaxed);
        self.since_report.fetch_add(value.saturating_sub(before), Ordering::Relaxed);
    }
}

struct BothGauge {
    prometheus: Gauge,
    /// The bits of the value.
    value: AtomicU64,
}

impl BothGauge {
    fn add(&self, value: f64) {
        let sum = |bits| Some((f64::from_bits(bits) + value).to_bits());
        let _ = self.value.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum);
    }
}

impl GaugeFn for BothGauge {
    fn increment(&self, value: f64) {
        self.prometheus.increment(value);
        self.add(value);
    }

    fn decrement(&self, value: f64) {
        self.prometheus.decrement(value);
        self.add(-value);
    }

    fn set(&self, value: f64) {
        self.prometheus.set(value);
        self.value.store(value.to_bits(), Ordering::Relaxed);
    }
}

struct BothHistogram {
    prometheus: Histogram,
    samples: AtomicSamplingReservoir,
}

impl HistogramFn for BothHistogram {
    fn record(&self, value: f64) {
        self.prometheus.record(value);
        self.samples.push(value);
    }
}

#[cfg(test)]
mod tests {
    use metrics::{Label, Recorder as _};
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    fn recorder() -> (Recorder, metrics_exporter_prometheus::PrometheusHandle) {
        let prometheus = PrometheusBuilder::new().build_recorder();
        let handle = prometheus.handle();
        let tags = [("service", "s"), ("env", "e"), ("version", "1"), ("edge_id", "barn-7")];
        (Recorder::new(prometheus, tags.map(|(name, value)| (name, value.to_owned()))), handle)
    }

    /// What every line ends with.
    const TAGS: &str = "service:s,env:e,version:1,edge_id:barn-7";

    /// The lines that arrive at a statsd server, sorted, without prefix and default tags.
    fn received(recorder: &Recorder, expected: usize) -> Vec<String> {
        let mut lines = received_whole(recorder, expected);
        for line in &mut lines {
            let text = line.strip_prefix("farmiq.").expect("a prefix").replacen(TAGS, "", 1);
            assert!(text.len() < line.len() - 7, "{line} has the tags");
            *line = text.replace("|#,", "|#").trim_end_matches("|#").to_owned();
        }
        lines.sort();
        lines
    }

    /// The lines that arrive at a statsd server.
    fn received_whole(recorder: &Recorder, expected: usize) -> Vec<String> {
        let server = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        recorder.send_changes("127.0.0.1", server.local_addr().unwrap().port()).unwrap();
        let mut lines: Vec<String> = Vec::new();
        let mut buffer = [0; 2 * DATAGRAM_BYTES_MAX];
        while lines.len() < expected {
            let length = server.recv(&mut buffer).unwrap();
            assert!(length <= DATAGRAM_BYTES_MAX);
            lines.extend(std::str::from_utf8(&buffer[..length]).unwrap().lines().map(str::to_owned));
        }
        lines
    }

    #[test]
    fn a_negative_gauge_is_set_and_not_added() {
        let (recorder, _) = recorder();
        recorder.register_gauge(&Key::from_name("sync.clock_skew_ms"), &METADATA).set(-420_000.0);
        let expected = ["0", "-420000"].map(|value| format!("farmiq.sync.clock_skew_ms:{value}|g|#{TAGS}"));
        assert_eq!(received_whole(&recorder, 2), expected, "plain statsd adds what has a sign");
    }

    #[test]
    fn counters_are_reported_as_differences_and_gauges_as_they_are() {
        let (recorder, prometheus) = recorder();
        let key =
            Key::from_parts("ingress.rejected", vec![Label::new("reason", "a"), Label::new("kind", "b")]);
        let counter = recorder.register_counter(&key, &METADATA);
        counter.increment(3);
        assert_eq!(received(&recorder, 1), ["ingress.rejected:3|c|#reason:a,kind:b"]);
        counter.increment(2);
        counter.absolute(10);
        counter.absolute(12);
        let gauge = recorder.register_gauge(&Key::from_name("db.up"), &METADATA);
        gauge.set(5.0);
        gauge.decrement(1.5);
        gauge.increment(1.0);
        assert_eq!(received(&recorder, 2), ["db.up:4.5|g", "ingress.rejected:14|c|#reason:a,kind:b"]);
        assert_eq!(received(&recorder, 1), ["db.up:4.5|g"], "a counter at rest is not reported");
        assert!(
            prometheus.render().contains("ingress_rejected{reason=\"a\",kind=\"b\"} 12"),
            "{}",
            prometheus.render()
        );
        assert!(prometheus.render().contains("db_up 4.5"));
    }

    #[test]
    fn a_histogram_is_reported_as_a_sample_whose_size_is_bounded_with_its_rate() {
        let (recorder, _) = recorder();
        let histogram = recorder.register_histogram(&Key::from_name("x.seconds"), &METADATA);
        (0..640).for_each(|_| histogram.record(0.25));
        let lines = received(&recorder, SAMPLES_MAX);
        assert_eq!(lines.len(), SAMPLES_MAX);
        assert_eq!(lines[0], "x.seconds:0.25|h|@0.1");
        recorder.register_counter(&Key::from_name("x.count"), &METADATA).increment(1);
        histogram.record(0.5);
        assert_eq!(received(&recorder, 2), ["x.count:1|c", "x.seconds:0.5|h"], "what is whole has no rate");
    }

    #[test]
    fn a_large_report_arrives_whole() {
        let (recorder, _) = recorder();
        for number in 0..1_000 {
            recorder
                .register_counter(&Key::from_name(format!("metric.number_{number}")), &METADATA)
                .increment(1);
        }
        assert_eq!(received(&recorder, 1_000).len(), 1_000);
    }
}
