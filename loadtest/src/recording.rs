//! Recordings: what went through a broker, message by message, in files that are read one line at a time.
//!
//! The format is described in `docs/loadtest.md`. The buffer files of devices are read as well.

pub mod reader;
pub mod writer;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use schema::clock::Timestamp;
use schema::wire::time;

use crate::mqtt::properties::Properties;

/// What the header of a recording calls the format.
pub const FORMAT: &str = "farmiq-recording";
/// The version of the format that is written; no other is read.
pub const VERSION: u32 = 1;

/// The first line of a file.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Header {
    /// [`FORMAT`].
    pub format: String,
    /// [`VERSION`].
    pub version: u32,
    /// What all times count from; the same in every part.
    pub started: Timestamp,
    /// Where it was recorded.
    pub broker: String,
    /// Version of MQTT it was recorded with: `3.1.1` or `5`.
    pub mqtt: String,
    /// The subscriptions.
    pub topics: Vec<String>,
    /// Whether ids and values were replaced.
    pub redacted: bool,
    /// Number of this file in its recording, from one.
    pub part: u32,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// When it arrived.
    pub at: Timestamp,
    /// Topic.
    pub topic: String,
    /// 0, 1 or 2.
    pub qos: u8,
    /// The retain flag.
    pub is_retained: bool,
    /// Body.
    pub payload: Bytes,
    /// Properties of MQTT 5.
    pub properties: Properties,
    /// Who published it, where that is known: a broker does not say so.
    pub client: Option<String>,
}

/// A line after the header.
#[derive(Serialize, Deserialize)]
struct Line {
    at_us: u64,
    topic: String,
    qos: u8,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    retain: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payload: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payload_b64: Option<String>,
    #[serde(default, skip_serializing_if = "Properties::is_empty")]
    properties: Properties,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client: Option<String>,
}

/// A line about the recording itself.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Remark {
    /// The recorder was not connected.
    Gap {
        /// Microseconds since the start.
        from_us: u64,
        /// Microseconds since the start.
        until_us: u64,
    },
    /// The last line of a file that was ended in order.
    End {
        /// Messages of this file.
        messages: u64,
    },
}

/// A line of the buffer file of a device.
#[derive(Deserialize)]
struct DeviceLine {
    topic: String,
    payload: String,
    qos: u8,
    retain: bool,
    ts: Option<String>,
}

impl Header {
    fn check(&self) -> Result<()> {
        ensure!(self.format == FORMAT, "the format is {:?}, not {FORMAT:?}", self.format);
        ensure!(self.version == VERSION, "version {} of the format is not known here", self.version);
        Ok(())
    }
}

impl Message {
    /// The line of this message in a recording that began at `started`.
    ///
    /// # Errors
    /// When it arrived before that.
    pub fn to_line(&self, started: Timestamp) -> Result<Vec<u8>> {
        let text = std::str::from_utf8(&self.payload).ok().map(str::to_owned);
        let line = Line {
            at_us: micros_since(started, self.at)?,
            topic: self.topic.clone(),
            qos: self.qos,
            retain: self.is_retained,
            payload_b64: text.is_none().then(|| STANDARD.encode(&self.payload)),
            payload: text,
            properties: self.properties.clone(),
            client: self.client.clone(),
        };
        serde_json::to_vec(&line).context("write a message as JSON")
    }

    fn of_line(line: Line, started: Timestamp) -> Result<Self> {
        let payload = match (line.payload, line.payload_b64) {
            (Some(text), None) => Bytes::from(text),
            (None, Some(base64)) => STANDARD.decode(base64).context("payload_b64 is no base64")?.into(),
            (None, None) => bail!("there is neither payload nor payload_b64"),
            (Some(_), Some(_)) => bail!("there is payload and payload_b64"),
        };
        let after = i64::try_from(line.at_us).context("at_us is too large")?;
        let message = Self {
            at: started + chrono::Duration::microseconds(after),
            topic: line.topic,
            qos: line.qos,
            is_retained: line.retain,
            payload,
            properties: line.properties,
            client: line.client,
        };
        message.checked()
    }

    /// `at` stands in for a time the line does not have.
    fn of_device(line: DeviceLine, at: Timestamp) -> Result<Self> {
        let at = match line.ts.as_deref() {
            Some(ts) => time::parse(ts).with_context(|| format!("ts {ts:?} is no time"))?,
            None => at,
        };
        let message = Self {
            at,
            topic: line.topic,
            qos: line.qos,
            is_retained: line.retain,
            payload: Bytes::from(line.payload),
            properties: Properties::default(),
            client: None,
        };
        message.checked()
    }

    fn checked(self) -> Result<Self> {
        ensure!(self.qos <= 2, "qos is {}", self.qos);
        let is_topic =
            !self.topic.is_empty() && self.topic.len() <= 65_535 && !self.topic.contains(['+', '#', '\0']);
        ensure!(is_topic, "topic {:?} is not one a device may publish to", self.topic);
        Ok(self)
    }
}

fn micros_since(started: Timestamp, at: Timestamp) -> Result<u64> {
    let micros = (at - started).num_microseconds().and_then(|micros| u64::try_from(micros).ok());
    micros.context("a message is older than its recording")
}
