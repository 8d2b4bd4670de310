//! The metrics recorder: every value goes to Prometheus, and what has changed goes to statsd from time to time.
//!
//! An increment costs two additions to atomics; names and labels are turned into text only when a report is sent.

use std::fmt::{Display, Write};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, SharedString, Unit,
};
use metrics_exporter_prometheus::PrometheusRecorder;
use metrics_util::registry::{Registry, Storage};
use metrics_util::storage::reservoir::AtomicSamplingReservoir;
use tokio::net::UdpSocket;

/// Bytes of a datagram that no network on the way has to split.
const DATAGRAM_BYTES_MAX: usize = 1_400;
/// Measurements of one histogram that a report carries at most; the sample rate says how many there were.
const SAMPLES_MAX: usize = 64;
/// The Prometheus recorder asks for it and does not look at it.
static METADATA: Metadata<'static> = Metadata::new("farmiq", metrics::Level::INFO, None);

/// Hands out counters, gauges and histograms that feed both exports.
pub(super) struct Recorder(Registry<Key, Both>);

impl Recorder {
    pub(super) fn new(prometheus: PrometheusRecorder) -> Self {
        Self(Registry::new(Both(prometheus)))
    }

    /// What has changed since the last call, as lines of statsd: counters as differences, gauges as they are,
    /// histograms as a sample of the measurements.
    pub(super) fn changes(&self) -> Vec<String> {
        let mut lines = Vec::new();
        self.0.visit_counters(|key, counter| {
            let difference = counter.since_report.swap(0, Ordering::Relaxed);
            if difference > 0 {
                lines.push(line(key, difference, "c"));
            }
        });
        self.0.visit_gauges(|key, gauge| {
            lines.push(line(key, f64::from_bits(gauge.value.load(Ordering::Relaxed)), "g"));
        });
        self.0.visit_histograms(|key, histogram| {
            histogram.samples.consume(|samples| {
                let kind = format!("ms|@{}", samples.sample_rate());
                lines.extend(samples.map(|value| line(key, value, &kind)));
            });
        });
        lines
    }
}

/// Sends the lines in as few datagrams as they fit in.
pub(super) async fn send(lines: &[String], address: &str) -> io::Result<()> {
    let target = tokio::net::lookup_host(address).await?.next().ok_or(io::ErrorKind::NotFound)?;
    let local = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(local).await?;
    for datagram in datagrams(lines) {
        socket.send_to(datagram.as_bytes(), target).await?;
    }
    Ok(())
}

fn datagrams(lines: &[String]) -> Vec<String> {
    let mut datagrams: Vec<String> = Vec::new();
    for line in lines {
        match datagrams.last_mut() {
            Some(last) if last.len() + line.len() < DATAGRAM_BYTES_MAX => {
                last.push('\n');
                last.push_str(line);
            }
            _ => datagrams.push(line.clone()),
        }
    }
    datagrams
}

fn line(key: &Key, value: impl Display, kind: &str) -> String {
    let mut line = format!("{}:{value}|{kind}", key.name());
    for (position, label) in key.labels().enumerate() {
        let before = if position == 0 { "|#" } else { "," };
        let _ = write!(line, "{before}{}:{}", label.key(), label.value());
    }
    line
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

    #[test]
    fn counters_are_reported_as_differences_and_gauges_as_they_are() {
        let (recorder, prometheus) = recorder();
        let key =
            Key::from_parts("ingress.rejected", vec![Label::new("reason", "a"), Label::new("kind", "b")]);
        let counter = recorder.register_counter(&key, &METADATA);
        counter.increment(3);
        assert_eq!(recorder.changes(), ["ingress.rejected:3|c|#reason:a,kind:b"]);
        assert!(recorder.changes().is_empty());
        counter.increment(2);
        counter.absolute(10);
        counter.absolute(12);
        assert_eq!(recorder.changes(), ["ingress.rejected:14|c|#reason:a,kind:b"]);
        let gauge = recorder.register_gauge(&Key::from_name("db.up"), &METADATA);
        gauge.set(5.0);
        gauge.decrement(1.5);
        gauge.increment(1.0);
        assert_eq!(recorder.changes(), ["db.up:4.5|g"]);
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
        histogram.record(0.25);
        assert_eq!(recorder.changes(), ["x.seconds:0.25|ms|@1"]);
        (0..640).for_each(|_| histogram.record(1.0));
        let lines = recorder.changes();
        assert_eq!(lines.len(), SAMPLES_MAX);
        assert_eq!(lines[0], "x.seconds:1|ms|@0.1");
        assert!(recorder.changes().is_empty());
    }

    #[tokio::test]
    async fn a_report_arrives_whole_in_datagrams_of_bounded_size() {
        let receiver = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let lines: Vec<_> = (0..200).map(|n| format!("metric.number_{n}:1|c|#reason:x")).collect();
        send(&lines, &receiver.local_addr().unwrap().to_string()).await.unwrap();
        let mut received = Vec::new();
        let mut buffer = [0; 2 * DATAGRAM_BYTES_MAX];
        while received.len() < lines.len() {
            let length = receiver.recv(&mut buffer).await.unwrap();
            assert!(length <= DATAGRAM_BYTES_MAX);
            received.extend(std::str::from_utf8(&buffer[..length]).unwrap().lines().map(str::to_owned));
        }
        assert_eq!(received, lines);
    }
}
