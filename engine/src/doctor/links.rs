//! What the engine reaches over a network and must be let in by: an external broker, a bucket. And how devices reach it.

use std::net::IpAddr;
use std::time::Duration;

use actors::media::rights::{Right, try_rights};
use broker::ProbeError;
use schema::clock::Clock;
use tokio::time::timeout;

use super::{Finding, Verdict, causes};
use crate::config::{Config, MediaBackend};
use crate::tree;

/// Longest wait for a bucket to answer everything.
const BUCKET_ANSWER: Duration = Duration::from_secs(30);

/// Whether an external broker lets the engine in and listen.
pub(super) async fn broker(config: &Config) -> Finding {
    let url = &config.mqtt.url;
    let settings = match tree::link_settings(config) {
        Ok(settings) => settings,
        Err(error) => return Finding::new(Verdict::Fail, "mqtt", format!("{error:#}"), "correct mqtt.url"),
    };
    let error = match broker::probe(&settings).await {
        Ok(()) => {
            return Finding::ok("mqtt", format!("{url} lets us in, and listen to all topics of devices"));
        }
        Err(error) => error,
    };
    let advice = match &error {
        ProbeError::Files(_) => "check mqtt.tls_ca, tls_cert and tls_key, and who may read these files",
        ProbeError::Connect(_) | ProbeError::Silent => {
            "check mqtt.url, that the broker runs, and with mqtts that mqtt.tls_ca names the CA of its certificate and the host its name"
        }
        ProbeError::Refused(_) => "check mqtt.username and mqtt.password, and that the broker knows them",
        ProbeError::Filter(_) => "give the engine's user the right to read these topics in the broker's ACL",
    };
    Finding::new(Verdict::Fail, "mqtt", format!("{url}: {}", causes(&error)), advice)
}

/// Whether a bucket lets the engine do what it must.
pub(super) async fn bucket(config: &Config) -> Finding {
    let media = &config.media;
    let endpoint = media.endpoint.as_ref().map_or("S3".to_owned(), ToString::to_string);
    let place = format!("bucket {} at {endpoint}", media.bucket);
    let store = tree::media::store(config, None);
    let clock = Clock::system();
    let tried = timeout(BUCKET_ANSWER, try_rights(&*store, &clock)).await;
    let (right, error) = match tried {
        Ok(Ok(())) => {
            return Finding::ok("images", format!("{place} can be listed, written, read and deleted from"));
        }
        Ok(Err((right, error))) => (right, causes(&error)),
        Err(_) => (Right::Reach, format!("no answer in {} s", BUCKET_ANSWER.as_secs())),
    };
    let advice = match right {
        Right::Reach => {
            "check media.endpoint, media.bucket, that the server runs, and media.access_key and secret_key"
        }
        Right::Look | Right::List => "give the key the right to list the bucket (s3:ListBucket)",
        Right::Write => {
            "give the key the right s3:PutObject, and check that media.presign_endpoint is reached from devices"
        }
        Right::Read => "give the key the right s3:GetObject",
        Right::Delete => "give the key the right s3:DeleteObject: retention needs it",
    };
    Finding::new(Verdict::Fail, "images", format!("cannot {} {place}: {error}", right.as_str()), advice)
}

/// Whether cameras can reach the address that upload URLs name.
pub(super) fn public_url(config: &Config) -> Option<Finding> {
    let url = &config.media.public_base_url;
    let (host, _) = url.host_and_port()?;
    let is_here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    let is_offered =
        config.media.backend_in_use() == MediaBackend::Filesystem && !config.http.listen.ip().is_loopback();
    (is_here && is_offered).then(|| {
        let text = format!("upload URLs begin with {url}, which leads every other machine to itself");
        Finding::new(
            Verdict::Warn,
            "public url",
            text,
            "set media.public_base_url to the address of this box as cameras see it",
        )
    })
}
