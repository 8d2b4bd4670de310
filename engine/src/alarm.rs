//! `farmiq-edge alarm`: what a person at the box does about alarms. The engine that runs here does the work, since it holds the
//! sirens and the relays.

use std::fmt::Write;
use std::time::Duration;

use anyhow::{Context, bail};
use axum::http::StatusCode;
use bytes::Bytes;
use schema::id::Uuid;
use serde_json::{Value, json};

use crate::cli::alarm::{AlarmCommand, OfBarn, OfTenant, RuleCommand};
use crate::config::Config;
use crate::first_keys::operator_key;
use crate::health::{self, Question};

/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The longest that a try takes, with a little for the way there and back.
const TRY_MAX: Duration = Duration::from_secs(60);
/// Bytes of a rule.
const RULE_BYTES_MAX: u64 = 64 * 1024;

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
/// When no engine runs here, or it does not do it.
pub async fn run(wish: &AlarmCommand, config: &Config) -> anyhow::Result<Outcome> {
    let engine = Engine { config };
    let text = match wish {
        AlarmCommand::TryWay { name, json } => return try_way(name, *json, &engine).await,
        AlarmCommand::List { of, barn, state } => {
            let asked = [("tenant_id", &of.tenant), ("barn_id", barn), ("state", state)];
            let asked = asked.map(|(name, value)| (name, value.as_deref()));
            let found = engine.get("/api/v1/alarms", &asked).await?;
            shown(&found["alarms"], of.json, alarm_line, "nothing stands\n")
        }
        AlarmCommand::Show { alarm, of } => {
            let found = engine
                .get(&format!("/api/v1/alarms/{alarm}"), &[("tenant_id", of.tenant.as_deref())])
                .await?;
            if of.json { format!("{found}\n") } else { story(&found) }
        }
        AlarmCommand::Ack { alarm, occurrence, of } => {
            let body = json!({"occurrence": occurrence});
            act(&engine, *alarm, "ack", body, of).await?
        }
        AlarmCommand::Shelve { alarm, minutes, reason, of } => {
            let body = json!({"minutes": minutes, "reason": reason});
            act(&engine, *alarm, "shelve", body, of).await?
        }
        AlarmCommand::Unshelve { alarm, of } => act(&engine, *alarm, "unshelve", json!({}), of).await?,
        AlarmCommand::OutOfService { alarm, reason, of } => {
            act(&engine, *alarm, "out-of-service", json!({"reason": reason}), of).await?
        }
        AlarmCommand::InService { alarm, of } => act(&engine, *alarm, "in-service", json!({}), of).await?,
        AlarmCommand::Rules(of) => {
            let found = engine.get("/api/v1/alarms/rules", &of.asked()).await?;
            shown(&found["rules"], of.json, rule_line, "there is no rule\n")
        }
        AlarmCommand::Rule(wish) => rule(wish, &engine).await?,
        AlarmCommand::Mode { mode, reason, of } => {
            let found = match mode {
                None => engine.get("/api/v1/alarms/mode", &of.asked()).await?,
                Some(mode) => {
                    let mut body = barn(of);
                    (body["mode"], body["reason"]) = (mode.as_str().into(), reason.clone().into());
                    engine.post("/api/v1/alarms/mode", &body).await?
                }
            };
            if of.json { format!("{found}\n") } else { mode_line(&found) }
        }
        AlarmCommand::Drill(of) => {
            let found = engine.post("/api/v1/alarms/drills", &barn(of)).await?;
            if of.json {
                format!("{found}\n")
            } else {
                let id = found["alarm"]["id"].as_str().unwrap_or_default();
                format!(
                    "the drill has begun: acknowledge it at a siren, on a phone, or by\n  farmiq-edge alarm ack {id}\n"
                )
            }
        }
        AlarmCommand::Drills { of, barn } => {
            let asked = [("tenant_id", of.tenant.as_deref()), ("barn_id", barn.as_deref())];
            let found = engine.get("/api/v1/alarms/drills", &asked).await?;
            shown(&found["drills"], of.json, drill_lines, "no drill was ever held\n")
        }
    };
    Ok(Outcome { text, is_ok: true })
}

/// The engine that runs here.
struct Engine<'a> {
    config: &'a Config,
}

impl Engine<'_> {
    async fn get(&self, path: &str, asked: &[(&str, Option<&str>)]) -> anyhow::Result<Value> {
        let given = asked.iter().filter_map(|(name, value)| Some((name, (*value)?)));
        // Ids have no character in them that a query could not hold, but these.
        let escape = |text: &str| text.replace('%', "%25").replace('&', "%26").replace(' ', "%20");
        let asked: Vec<_> = given.map(|(name, value)| format!("{name}={}", escape(value))).collect();
        let path = if asked.is_empty() { path.to_owned() } else { format!("{path}?{}", asked.join("&")) };
        let key = operator_key(self.config);
        let answer = health::fetch(&self.config.http, &path, key.as_ref(), ANSWER_BYTES_MAX).await;
        self.read(answer).await
    }

    async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let key = operator_key(self.config);
        let answer =
            health::post(&self.config.http, path, key.as_ref(), body, (ANSWER_BYTES_MAX, TRY_MAX)).await;
        self.read(answer).await
    }

    async fn read(&self, answer: std::io::Result<(StatusCode, Bytes)>) -> anyhow::Result<Value> {
        let (status, body) =
            answer.with_context(|| format!("ask the engine on {}", self.config.http.listen))?;
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        if status.is_success() {
            return Ok(answer);
        }
        let why = answer["error"]["message"].as_str().unwrap_or("no reason");
        if health::ask(&self.config.http, Question::Lives).await.is_err() {
            bail!("something else than an engine answers there with {status}");
        }
        bail!("the engine answers {status}: {why}");
    }
}

async fn act(
    engine: &Engine<'_>,
    alarm: Uuid,
    verb: &str,
    mut body: Value,
    of: &OfTenant,
) -> anyhow::Result<String> {
    body["tenant_id"] = of.tenant.clone().into();
    let done = engine.post(&format!("/api/v1/alarms/{alarm}/{verb}"), &body).await?;
    if of.json {
        return Ok(format!("{done}\n"));
    }
    let mut text = alarm_line(&done["alarm"]);
    if done["is_written"] == false {
        text.push_str("the database is away: it is done, and written down when the database is back\n");
    }
    Ok(text)
}

async fn rule(wish: &RuleCommand, engine: &Engine<'_>) -> anyhow::Result<String> {
    match wish {
        RuleCommand::Show { rule, of } => {
            let found = engine.get("/api/v1/alarms/rules", &of.asked()).await?;
            let of_name = |found: &&Value| found["rule"]["id"] == rule.as_str();
            let found = found["rules"].as_array().into_iter().flatten().find(of_name);
            let found =
                found.with_context(|| format!("there is no rule {rule}; `alarm rules` lists them"))?;
            Ok(format!("{:#}\n", found["rule"]))
        }
        RuleCommand::Set { file, reason, version, of } => {
            let name = file.display();
            let size = std::fs::metadata(file).with_context(|| format!("read {name}"))?.len();
            if size > RULE_BYTES_MAX {
                bail!("{name} is larger than {RULE_BYTES_MAX} bytes");
            }
            let text = std::fs::read_to_string(file).with_context(|| format!("read {name}"))?;
            let mut body = barn(of);
            body["rule"] = serde_json::from_str(&text).with_context(|| format!("read {name} as JSON"))?;
            (body["reason"], body["version"]) = (reason.clone().into(), (*version).into());
            let found = engine.post("/api/v1/alarms/rules", &body).await?;
            Ok(if of.json { format!("{found}\n") } else { rule_line(&found) })
        }
        RuleCommand::History { rule, of } => {
            let found = engine.get(&format!("/api/v1/alarms/rules/{rule}/history"), &of.asked()).await?;
            Ok(shown(
                &found["rules"],
                of.json,
                rule_line,
                "nobody has edited it: it is as the program brings it\n",
            ))
        }
    }
}

impl OfBarn {
    fn asked(&self) -> [(&'static str, Option<&str>); 3] {
        [("tenant_id", Some(&self.tenant)), ("farm_id", Some(&self.farm)), ("barn_id", Some(&self.barn))]
    }
}

fn barn(of: &OfBarn) -> Value {
    json!({"tenant_id": of.tenant, "farm_id": of.farm, "barn_id": of.barn})
}

/// A list for people, or one object a line for a program.
fn shown(rows: &Value, is_for_programs: bool, line: fn(&Value) -> String, nothing: &str) -> String {
    let rows = rows.as_array().map(Vec::as_slice).unwrap_or_default();
    if is_for_programs {
        return rows.iter().map(|row| format!("{row}\n")).collect();
    }
    if rows.is_empty() { nothing.to_owned() } else { rows.iter().map(line).collect() }
}

fn text<'a>(row: &'a Value, name: &str) -> &'a str {
    row[name].as_str().unwrap_or_default()
}

fn alarm_line(row: &Value) -> String {
    let place = [text(row, "barn_id"), text(row, "place")].join(" ");
    let value = row["value"].as_f64().map(|value| format!("{value:.1} {}", text(row, "unit")));
    let line = format!(
        "{}  {:5}  {:8}  {:20}  {:24}  {:12}  since {}",
        text(row, "id"),
        text(row, "state"),
        text(row, "class"),
        text(row, "rule_id"),
        place.trim(),
        value.unwrap_or_default(),
        text(row, "state_since"),
    );
    format!("{}\n", line.trim_end())
}

fn story(found: &Value) -> String {
    let alarm = &found["alarm"];
    let mut lines = alarm_line(alarm);
    for name in ["title", "cause", "first_action"] {
        let _ = writeln!(lines, "{name:<13} {}", text(&alarm[name], "en"));
    }
    for event in found["events"].as_array().into_iter().flatten() {
        let (at, kind) = (text(event, "happened_at"), text(event, "kind"));
        let (to, by, why) = (text(event, "to_state"), text(event, "author"), text(event, "why"));
        let _ = writeln!(lines, "{}", format!("{at}  {kind:13} {to:5}  by {by}  {why}").trim_end());
    }
    for telling in found["tellings"].as_array().into_iter().flatten() {
        let (at, kind, number) = (text(telling, "begun_at"), text(telling, "kind"), &telling["number"]);
        let _ = writeln!(lines, "{at}  told {number} ({kind})");
        lines.push_str(&result_lines(telling));
    }
    lines
}

fn result_lines(told: &Value) -> String {
    let line = |result: &Value| {
        let (way, failure) = (text(result, "way"), text(result, "failure"));
        let took = result["latency_ms"].as_i64().unwrap_or_default();
        match failure {
            "" => format!("    {way:16} told in {took} ms  {}\n", text(result, "detail")),
            failure => format!("    {way:16} NOT TOLD: {failure}  {}\n", text(result, "detail")),
        }
    };
    told["results"].as_array().into_iter().flatten().map(line).collect()
}

fn rule_line(found: &Value) -> String {
    let rule = &found["rule"];
    let is_off = if rule["is_enabled"] == false { "off" } else { "on" };
    let version = found["version"].as_i64().unwrap_or_default();
    let by = match text(found, "author") {
        "" => "as the program brings it".to_owned(),
        author => format!("by {author} at {}  {}", text(found, "created_at"), text(found, "reason")),
    };
    let line = format!(
        "{:22}  {:8}  {is_off:3}  version {version}  {:32}  {by}",
        text(rule, "id"),
        text(rule, "class"),
        text(&rule["title"], "en"),
    );
    format!("{}\n", line.trim_end())
}

fn mode_line(found: &Value) -> String {
    let mode = text(found, "mode");
    match found["said"].as_object() {
        None => format!("{mode}: by its flock, nobody has said anything else\n"),
        Some(said) => {
            let said = Value::Object(said.clone());
            let (name, author, since) = (text(&said, "mode"), text(&said, "author"), text(&said, "since"));
            format!("{mode}  ({name} was said by {author} at {since})\n")
        }
    }
}

fn drill_lines(row: &Value) -> String {
    let answered = match text(row, "acknowledged_by") {
        "" => String::new(),
        by => format!("by {by} at {}", text(row, "acknowledged_at")),
    };
    let line = format!(
        "{}  {}  {:12}  {:10}  begun by {}  {answered}",
        text(row, "id"),
        text(row, "started_at"),
        text(row, "barn_id"),
        text(row, "result"),
        text(row, "author"),
    );
    format!("{}\n{}", line.trim_end(), result_lines(row))
}

async fn try_way(name: &str, is_for_programs: bool, engine: &Engine<'_>) -> anyhow::Result<Outcome> {
    let answer = engine.post(&format!("/api/v1/alarms/ways/{name}/try"), &json!({})).await?;
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
