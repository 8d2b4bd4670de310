//! Whether alarms would get out: each way is reached, and none is heard.

use std::sync::Arc;

use actors::alarm::way::line::{KernelLines, Lines};
use actors::alarm::way::siren::{Post, SirenDesk};
use actors::door::WayInView;
use schema::clock::Clock;
use serde_json::Value;

use super::{Finding, Verdict};
use crate::config::{Config, WaySettings};
use crate::first_keys::operator_key;
use crate::health;
use crate::telling::{self, heartbeat_line};

const SUBJECT: &str = "alarm way";
/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// A line for each way, and one for the relay of the heartbeat.
pub(super) async fn findings(config: &Config) -> Vec<Finding> {
    let post: Arc<dyn Post> = Arc::new(WayInView::default());
    let ways = telling::ways(config, &SirenDesk::default(), &post, &Clock::system());
    let mut findings = Vec::new();
    if config.alarms.ways.iter().next().is_none() {
        let text = "there is none: nobody is told when something is wrong with the birds";
        findings.push(Finding::new(Verdict::Warn, SUBJECT, text, "see docs/alarms.md"));
    }
    for (name, settings) in config.alarms.ways.iter() {
        // Only the running engine speaks with sirens.
        if let WaySettings::Siren(_) = settings {
            findings.push(siren(config, name).await);
            continue;
        }
        findings.push(match ways.reach(name).await {
            Ok(text) => Finding::ok(SUBJECT, format!("{name}: {text}")),
            Err(error) => {
                Finding::new(Verdict::Warn, SUBJECT, format!("{name}: {}", error.what), error.advice)
            }
        });
    }
    if let Some(line) = heartbeat_line(config) {
        findings.push(match KernelLines.look(&line) {
            Ok(text) => Finding::ok("heartbeat", text),
            Err(error) => {
                let advice =
                    "see `gpioinfo`: the line must be there and free, and this user in the group gpio";
                Finding::new(Verdict::Warn, "heartbeat", error.to_string(), advice)
            }
        });
    }
    findings
}

async fn siren(config: &Config, name: &str) -> Finding {
    let path = format!("/api/v1/alarms/ways/{name}");
    let key = operator_key(config);
    let asked = health::fetch(&config.http, &path, key.as_ref(), ANSWER_BYTES_MAX).await;
    let Ok((status, body)) = asked else {
        return Finding::ok(SUBJECT, format!("{name}: a siren, which is asked once the engine runs"));
    };
    let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    if !status.is_success() {
        let why = format!("{name}: the engine answers {status} {}", text(&answer["error"]["message"]));
        return Finding::new(
            Verdict::Warn,
            SUBJECT,
            why,
            "restart the engine with this configuration, or give an operator key",
        );
    }
    let (data, said) = (&answer["data"], text(&answer["data"]["detail"]));
    if data["ok"] == true {
        return Finding::ok(SUBJECT, format!("{name}: {said}"));
    }
    Finding::new(Verdict::Warn, SUBJECT, format!("{name}: {said}"), text(&data["advice"]))
}
