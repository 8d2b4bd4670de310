//! A station that runs iot-weighvision-agent: a will as old as the process, and a second connection per session that
//! takes the place of the first.

use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use schema::clock::Clock;
use schema::id::{Uuid, media_stored_event_id};

use super::camera::Camera;
use super::line::Line;
use super::{Access, Course, Patience, Upload, Weighed, count};
use crate::device::{AgentHealth, EventIds, Station, Weighing};
use crate::ids::new_event_id;
use crate::mqtt::{Login, Will};
use crate::render;

/// How long the device waits for an answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Waits between its attempts to upload a picture.
const UPLOAD_WAIT_SECONDS: [u64; 2] = [1, 2];

/// A station with the connection of its agent.
#[derive(Debug)]
pub struct Agent {
    station: Station,
    access: Access,
    camera: Camera,
    line: Line,
    /// Of both connections: the same id and the same old will.
    login: Login,
    random: StdRng,
    bad_share: f64,
}

impl Agent {
    /// A station that in this share of its weighings has an unrest scale and says everything twice.
    #[must_use]
    pub fn new(station: Station, access: &Access, bad_share: f64) -> Self {
        let mut random = StdRng::from_os_rng();
        let now = Clock::system().now();
        let will = station.agent_status(AgentHealth::Lost, now, &new_event_id(&mut random));
        let will = Will { topic: will.topic.to_string(), payload: will.payload.to_vec(), is_retained: true };
        let login = Login { will: Some(will), ..access.login.clone() };
        let camera = Camera::new(access, TIMEOUT);
        let line = Line::new(access, login.clone());
        Self { station, access: access.clone(), camera, line, login, random, bad_share }
    }

    /// Weighs a bird: one picture, which nobody completes, and a session whose pictures come before its beginning.
    ///
    /// # Errors
    /// When the picture could not be uploaded.
    pub async fn weigh(&mut self, weighing: Weighing<'_>) -> Result<Course> {
        self.say(AgentHealth::Well).await;
        let jpeg = Bytes::from(render::render(weighing.weight_kg, self.random.random()).jpeg);
        let upload = self.upload(&jpeg).await?;
        let uploaded_at = Clock::system().now();
        let is_bad = self.random.random_bool(self.bad_share);
        let images = [upload.image.clone()];
        let ids = EventIds::new(images.len(), &mut self.random);
        let messages = self.station.agent_messages(weighing, &images, &ids, !is_bad);
        // The session's connection has the agent's name: the broker closes the agent's and publishes its will.
        let mut session_line = Line::new(&self.access, self.login.clone());
        let status =
            self.station.agent_status(AgentHealth::Well, weighing.at, &new_event_id(&mut self.random));
        session_line.put(&status).await;
        let times = if is_bad { 2 } else { 1 };
        for message in messages.iter().flat_map(|message| std::iter::repeat_n(message, times)) {
            session_line.put(&message.publish).await;
        }
        session_line.close().await;
        count(&self.camera.tally.weighings);
        let mut event_ids: Vec<_> = messages.into_iter().filter_map(|message| message.expected).collect();
        // Nobody completes the picture, and the cloud must hear of it all the same.
        let media_ids: Vec<_> = images.into_iter().map(|image| image.media_id).collect();
        let stored = media_ids.iter().filter_map(|id| Uuid::parse_str(id).ok()).map(media_stored_event_id);
        event_ids.extend(stored.map(|id| id.to_string()));
        let weighed = Weighed {
            session_id: weighing.session.to_owned(),
            true_kg: weighing.weight_kg,
            weights: usize::from(!is_bad),
            media_ids,
            event_ids,
        };
        Ok(Course { weighed, uploads: vec![(upload, uploaded_at)], finalize: None })
    }

    /// Leaves the broker in order.
    pub async fn close(&mut self) {
        self.say(AgentHealth::Leaving).await;
        self.line.close().await;
    }

    async fn upload(&self, jpeg: &Bytes) -> Result<Upload> {
        let mut patience = Patience::new(&self.camera.tally, &UPLOAD_WAIT_SECONDS);
        loop {
            match self.camera.upload_camel(&self.station, jpeg).await {
                Ok(upload) => return Ok(upload),
                Err(error) => patience.after(error).await?,
            }
        }
    }

    async fn say(&mut self, health: AgentHealth) {
        let event_id = new_event_id(&mut self.random);
        let status = self.station.agent_status(health, Clock::system().now(), &event_id);
        self.line.put(&status).await;
    }
}
