//! The certificates that the configuration names, and the watch over their lives, which are metrics of the running engine.

use std::convert::Infallible;
use std::path::PathBuf;
use std::time::Duration;

use actors::chore::Chore;
use broker::tls::inspect::inspect;
use schema::clock::{Clock, Timestamp};
use schema::metrics;

use crate::config::{Config, MqttMode};

const DAY_SECONDS: f64 = 86_400.0;

/// The files of certificates: of listeners, of clients and of authorities, each with the key that names it.
pub(crate) fn files(config: &Config) -> Vec<(&'static str, PathBuf)> {
    let (http, broker, mqtt, cloud) = (&config.http, &config.broker, &config.mqtt, &config.cloud);
    let own = [("http.tls_cert", &http.tls_cert), ("http.client_ca", &http.client_ca)];
    let door = [("broker.tls_cert", &broker.tls_cert), ("broker.client_ca", &broker.client_ca)];
    let link = [("mqtt.tls_ca", &mqtt.tls_ca), ("mqtt.tls_cert", &mqtt.tls_cert)];
    let of_mqtt = if config.mqtt.mode == MqttMode::Embedded { door } else { link };
    let of_cloud = [("cloud.tls_ca", &cloud.tls_ca), ("cloud.tls_cert", &cloud.tls_cert)];
    let all = own.into_iter().chain(of_mqtt).chain(of_cloud);
    all.filter_map(|(key, path)| Some((key, path.clone()?))).collect()
}

/// Shows how many days the certificates have left.
#[derive(Clone)]
pub(crate) struct CertificateWatch {
    /// What is watched.
    pub(crate) files: Vec<(&'static str, PathBuf)>,
    /// Wall time.
    pub(crate) clock: Clock,
    /// Seconds between two looks.
    pub(crate) check_seconds: u64,
}

impl Chore for CertificateWatch {
    const NAME: &'static str = "certificates";
    type Error = Infallible;

    async fn run(&mut self) -> Result<Duration, Infallible> {
        let now = self.clock.now();
        for (key, path) in &self.files {
            // A file that cannot be read is complained about by whoever uses it, and by the doctor.
            let ends = inspect(path)
                .await
                .ok()
                .and_then(|file| file.certificates.iter().map(|certificate| certificate.ends_at).min());
            metrics::tls_certificate_days_left(key).set(days_left(ends, now));
        }
        Ok(Duration::from_secs(self.check_seconds))
    }
}

/// Below zero once it is over.
fn days_left(ends_at: Option<Timestamp>, now: Timestamp) -> f64 {
    ends_at.map_or(metrics::UNKNOWN, |ends_at| (ends_at - now).as_seconds_f64() / DAY_SECONDS)
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn days_are_counted_down_and_below_zero() {
        let now = schema::wire::time::parse("2026-11-30T00:00:00Z").unwrap();
        assert!((days_left(Some(now + TimeDelta::hours(36)), now) - 1.5).abs() < 1e-9);
        assert!(days_left(Some(now - TimeDelta::days(2)), now) < -1.9);
        assert!(days_left(None, now).is_nan());
    }
}
