//! `farmiq-edge alarm`: what a person at the box does about alarms. The engine that runs here does the work, since it holds the
//! sirens and the relays.

use std::fmt::Write;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::cli::alarm::AlarmCommand;
use crate::config::Config;
use crate::first_keys::operator_key;
use crate::health::{self, Question};

/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// The longest that a try takes, with a little for the way there and back.
const TRY_MAX: Duration = Duration::from_secs(60);

/// What came of a wish, and whether it succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// For people, or for a program.
    pub text: String,
    /// Whether it is as it should be.
    pub is_ok: bool,
}

/// Does what is wished.
///
/// # Errors
/// When no engine runs here, or it does not know the way.
pub async fn run(wish: &AlarmCommand, config: &Config) -> anyhow::Result<Outcome> {
    match wish {
        AlarmCommand::TryWay { name, json } => try_way(name, *json, config).await,
    }
}

async fn try_way(name: &str, is_for_programs: bool, config: &Config) -> anyhow::Result<Outcome> {
    let path = format!("/api/v1/alarms/ways/{name}/try");
    let key = operator_key(config);
    let (status, body) = health::post(&config.http, &path, key.as_ref(), ANSWER_BYTES_MAX, TRY_MAX)
        .await
        .with_context(|| format!("ask the engine on {}", config.http.listen))?;
    let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
    if !status.is_success() {
        let why = answer["error"]["message"].as_str().unwrap_or("no reason");
        let lives = health::ask(&config.http, Question::Lives).await.is_ok();
        if !lives {
            bail!("something else than an engine answers there with {status}");
        }
        bail!("the engine answers {status}: {why}");
    }
    let data = &answer["data"];
    let is_ok = data["ok"] == true;
    let text = if is_for_programs { format!("{data}\n") } else { receipt(data) };
    Ok(Outcome { text, is_ok })
}

fn receipt(data: &Value) -> String {
    let text = |name: &str| data[name].as_str().unwrap_or_default().to_owned();
    let mut lines = String::new();
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            let _ = writeln!(lines, "{name:<13} {}", value.replace('\n', "\n              "));
        }
    };
    line("way", text("way"));
    line("told", if data["ok"] == true { "yes" } else { "NO" }.to_owned());
    line("failure", text("failure"));
    line("says", text("detail"));
    line("confirmed by", text("confirmed_by"));
    line("took", data["latency_ms"].as_u64().map(|ms| format!("{ms} ms")).unwrap_or_default());
    line("do", text("advice"));
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_receipt_is_lines_for_people() {
        let data = json!({"way": "horn", "ok": true, "detail": "line 17 is pulled\nand released", "confirmed_by": null,
            "latency_ms": 2004, "failure": null, "advice": null});
        let expected = "way           horn\ntold          yes\nsays          line 17 is pulled\n              and released\ntook          2004 ms\n";
        assert_eq!(receipt(&data), expected);
        let data = json!({"way": "siren", "ok": false, "detail": "d did not answer", "failure": "unanswered", "advice": "look"});
        assert!(
            receipt(&data).contains("told          NO\nfailure       unanswered\n"),
            "{}",
            receipt(&data)
        );
    }
}
