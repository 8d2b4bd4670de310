//! Plays recorded traffic back: one JSON object per line, published byte by byte as it was recorded.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use serde::Deserialize;
use tokio::sync::watch;

use schema::clock::Timestamp;
use schema::wire::time;

use crate::mqtt::{Login, Publish};
use crate::publisher::{self, Link, Meter, Source, Turn};
use crate::report::{self, Live};

/// How fast the recording is played.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// As fast as the window allows.
    Max,
    /// With the pauses of the recording.
    Recorded,
    /// So many messages per second.
    PerSecond(f64),
}

impl FromStr for Rate {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        match (text, text.parse::<f64>()) {
            ("max", _) => Ok(Self::Max),
            ("recorded", _) => Ok(Self::Recorded),
            (_, Ok(rate)) if rate.is_finite() && rate > 0.0 => Ok(Self::PerSecond(rate)),
            _ => bail!("{text:?} is none of: max, recorded, a number of messages per second"),
        }
    }
}

/// What to play, and to whom.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The recording.
    pub file: PathBuf,
    /// `host:port` of the broker.
    pub broker: String,
    /// Identity.
    pub login: Login,
    /// Speed.
    pub rate: Rate,
    /// How often the whole file is played.
    pub times: usize,
    /// Unacknowledged messages at most.
    pub window: usize,
}

/// One recorded message.
#[derive(Clone, Debug)]
pub struct Line {
    publish: Publish,
    recorded_at: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Recorded {
    topic: String,
    payload: String,
    qos: u8,
    retain: bool,
    ts: Option<String>,
}

/// Reads a recording.
///
/// # Errors
/// The first bad line, by its number and what is wrong with it.
pub fn parse(text: &str) -> Result<Vec<Line>> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(index, line)| parse_line(line).with_context(|| format!("line {}", index + 1))).collect()
}

fn parse_line(line: &str) -> Result<Line> {
    let recorded: Recorded =
        serde_json::from_str(line).context("expected {topic, payload, qos, retain, ts}")?;
    if recorded.qos > 1 {
        bail!("qos is {}, only 0 and 1 are played", recorded.qos);
    }
    if recorded.topic.is_empty() || recorded.topic.len() > 65_535 || recorded.topic.contains(['+', '#', '\0'])
    {
        bail!("topic {:?} is not one a device may publish to", recorded.topic);
    }
    let recorded_at = match recorded.ts.as_deref() {
        Some(ts) => Some(time::parse(ts).with_context(|| format!("ts {ts:?} is no time"))?),
        None => None,
    };
    let publish = Publish {
        topic: recorded.topic.into(),
        payload: Bytes::from(recorded.payload),
        qos: recorded.qos,
        is_retained: recorded.retain,
    };
    Ok(Line { publish, recorded_at })
}

/// Plays the file and prints what came of it. True when every message was acknowledged.
///
/// # Errors
/// When the file cannot be read or the broker cannot be reached at first.
pub async fn run(settings: Settings, stop: watch::Receiver<bool>) -> Result<bool> {
    let lines = read(&settings.file)?;
    let total = lines.len() * settings.times;
    let link =
        Link { broker: settings.broker, tls: None, login: settings.login, window: settings.window.max(1) };
    let mut source = Player::new(lines, settings.times, settings.rate);
    let meter = Meter::default();
    let started = Instant::now();
    let mut live = Live::start(Some(total as u64));
    let playing = publisher::publish_all(&link, &mut source, &meter, stop);
    let outcome = report::watch(playing, &meter, started, &mut live).await;
    live.finish();
    outcome?;
    report::say(report::publish_line(&meter, started.elapsed()));
    let done = meter.acknowledged() + meter.fire_and_forget();
    if done < total as u64 {
        report::say(format!("stopped after {done} of {total} messages"));
    }
    Ok(done == total as u64)
}

fn read(file: &Path) -> Result<Vec<Line>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let lines = parse(&text).with_context(|| format!("read {}", file.display()))?;
    if lines.is_empty() {
        bail!("{} holds no message", file.display());
    }
    Ok(lines)
}

/// A recording under way.
struct Player {
    lines: Vec<Line>,
    next: usize,
    total: usize,
    rate: Rate,
    started_at: Option<Instant>,
}

impl Player {
    fn new(lines: Vec<Line>, times: usize, rate: Rate) -> Self {
        let total = lines.len() * times;
        Self { lines, next: 0, total, rate, started_at: None }
    }

    /// When the message is due, counted from the start.
    fn due_after(&self, index: usize) -> Duration {
        #[expect(clippy::cast_precision_loss, reason = "a recording has fewer than 2^52 lines")]
        let due = |rate: f64| Duration::from_secs_f64(index as f64 / rate);
        match self.rate {
            Rate::Max => Duration::ZERO,
            Rate::PerSecond(rate) => due(rate),
            Rate::Recorded => self.recorded_offset(index),
        }
    }

    fn recorded_offset(&self, index: usize) -> Duration {
        let round = u32::try_from(index / self.lines.len()).unwrap_or(u32::MAX);
        self.offset_in_round(self.lines.len() - 1) * round + self.offset_in_round(index % self.lines.len())
    }

    fn offset_in_round(&self, at: usize) -> Duration {
        let start = self.lines.iter().find_map(|line| line.recorded_at);
        match (start, self.lines[at].recorded_at) {
            (Some(start), Some(at)) => (at - start).to_std().unwrap_or_default(),
            _ => Duration::ZERO,
        }
    }
}

impl Source for Player {
    fn turn(&mut self, now: Instant) -> Turn {
        if self.next == self.total {
            return Turn::Done;
        }
        let started_at = *self.started_at.get_or_insert(now);
        let due_at = started_at + self.due_after(self.next);
        if due_at > now {
            return Turn::WaitUntil(due_at);
        }
        let publish = self.lines[self.next % self.lines.len()].publish.clone();
        self.next += 1;
        Turn::Publish(self.next as u64, publish)
    }

    fn acknowledged(&mut self, _: &[u64]) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"topic":"iot/status/t/f/b/d","payload":"{}","qos":1,"retain":true,"ts":"2026-02-12T09:32:15.052269Z"}"#;

    #[test]
    fn a_bad_line_is_named_by_its_number_and_flaw() {
        let check = |bad: &str, flaw: &str| {
            let error = parse(&format!("{GOOD}\n\n{bad}\n")).unwrap_err();
            let text = format!("{error:#}");
            assert!(text.starts_with("line 3: ") && text.contains(flaw), "{text}");
        };
        check("not json", "expected {topic, payload, qos, retain, ts}");
        check(&GOOD.replace(r#""{}""#, "{}"), "expected a string");
        check(&GOOD.replace(r#""qos":1"#, r#""qos":2"#), "qos is 2");
        check(&GOOD.replace("iot/status/t/f/b/d", "iot/#"), "not one a device may publish to");
        check(&GOOD.replace("2026-02-12T", "yesterday"), "is no time");
    }

    #[test]
    fn a_good_line_keeps_its_bytes() {
        let lines = parse(GOOD).unwrap();
        assert_eq!(&lines[0].publish.payload[..], b"{}");
        assert!(lines[0].publish.is_retained);
    }

    #[test]
    fn the_recorded_pauses_are_kept_and_repeated() {
        let later = GOOD.replace("15.052269", "17.052269");
        let player = Player::new(parse(&format!("{GOOD}\n{later}")).unwrap(), 2, Rate::Recorded);
        let offsets: Vec<_> = (0..4).map(|index| player.due_after(index).as_secs()).collect();
        assert_eq!(offsets, [0, 2, 2, 4]);
    }

    #[test]
    fn rates_are_read_as_documented() {
        assert_eq!("max".parse::<Rate>().unwrap(), Rate::Max);
        assert_eq!("recorded".parse::<Rate>().unwrap(), Rate::Recorded);
        assert_eq!("20".parse::<Rate>().unwrap(), Rate::PerSecond(20.0));
        assert!("0".parse::<Rate>().is_err());
    }
}
