//! The metrics recorder: every value goes to Prometheus, and what has changed goes to statsd from time to time.
//!
//! The statsd exporter turns each call into a line, which costs half a microsecond, and ignores relative gauges and
//! absolute counters. So values are gathered here, where an increment costs two additions to atomics, and handed to
//! the exporter as differences.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, SharedString, Unit,
};
use metrics_exporter_prometheus::PrometheusRecorder;
use metrics_exporter_statsd::{StatsdBuilder, StatsdError};
use metrics_util::registry::{Registry, Storage};
use metrics_util::storage::reservoir::AtomicSamplingReservoir;

/// Bytes of a datagram that no network on the way has to split.
const DATAGRAM_BYTES_MAX: usize = 1_400;
/// Lines of one report; what is more is dropped.
const REPORT_LINES_MAX: usize = 65_536;
/// Measurements of one histogram that a report carries at most: a fair sample of all.
const SAMPLES_MAX: usize = 64;
/// The recorders ask for it and do not look at it.
static METADATA: Metadata<'static> = Metadata::new("farmiq", metrics::Level::INFO, None);

/// Hands out counters, gauges and histograms that feed both exports.
pub(super) struct Recorder(Registry<Key, Both>);

impl Recorder {
    pub(super) fn new(prometheus: PrometheusRecorder) -> Self {
        Self(Registry::new(Both(prometheus)))
    }

    /// Tells `sink` what has changed since the last call: counters as differences, gauges as they are, histograms as
    /// a sample of the measurements.
    fn tell_changes(&self, sink: &impl metrics::Recorder) {
        self.0.visit_counters(|key, counter| {
            let difference = counter.since_report.swap(0, Ordering::Relaxed);
            if difference > 0 {
                sink.register_counter(key, &METADATA).increment(difference);
            }
        });
        self.0.visit_gauges(|key, gauge| {
            let value = f64::from_bits(gauge.value.load(Ordering::Relaxed));
            if !value.is_nan() {
                sink.register_gauge(key, &METADATA).set(value);
            }
        });
        self.0.visit_histograms(|key, histogram| {
            let told = sink.register_histogram(key, &METADATA);
            histogram.samples.consume(|samples| samples.for_each(|value| told.record(value)));
        });
    }

    /// Sends what has changed since the last call. It resolves the host's name, so it may block.
    ///
    /// # Errors
    /// When the host is unknown or no socket can be had.
    pub(super) fn send_changes(&self, host: &str, port: u16) -> Result<(), StatsdError> {
        let exporter = StatsdBuilder::from(host, port)
            .with_queue_size(REPORT_LINES_MAX)
            .with_buffer_size(DATAGRAM_BYTES_MAX)
            .build(None)?;
        self.tell_changes(&exporter);
        // Dropping the exporter sends what is left in its buffer.
        Ok(())
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
        self.0.storage().0.describe_counter(key, unit, description);
    }

    fn describe_gauge(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.0.storage().0.describe_gauge(key, unit, description);
    }

    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, description: SharedString) {
        self.0.storage().0.describe_histogram(key, unit, description);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        self.0.get_or_create_counter(key, |counter| Counter::from_arc(Arc::clone(counter)))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        self.0.get_or_create_gauge(key, |gauge| Gauge::from_arc(Arc::clone(gauge)))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        self.0.get_or_create_histogram(key, |histogram| Histogram::from_arc(Arc::clone(histogram)))
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
        (Recorder::new(prometheus), handle)
    }

    /// The lines that arrive at a statsd server, sorted.
    fn received(recorder: &Recorder, expected: usize) -> Vec<String> {
        let server = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        recorder.send_changes("127.0.0.1", server.local_addr().unwrap().port()).unwrap();
        let mut lines: Vec<String> = Vec::new();
        let mut buffer = [0; 2 * DATAGRAM_BYTES_MAX];
        while lines.len() < expected {
            let length = server.recv(&mut buffer).unwrap();
            assert!(length <= DATAGRAM_BYTES_MAX);
            lines.extend(std::str::from_utf8(&buffer[..length]).unwrap().lines().map(str::to_owned));
        }
        lines.sort();
        lines
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
    fn a_histogram_is_reported_as_a_sample_whose_size_is_bounded() {
        let (recorder, _) = recorder();
        let histogram = recorder.register_histogram(&Key::from_name("x.seconds"), &METADATA);
        (0..640).for_each(|_| histogram.record(0.25));
        let lines = received(&recorder, SAMPLES_MAX);
        assert_eq!(lines.len(), SAMPLES_MAX);
        assert_eq!(lines[0], "x.seconds:0.25|h");
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
