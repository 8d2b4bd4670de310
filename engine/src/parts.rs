//! What every part of the engine is made from.

use std::path::PathBuf;
use std::sync::Arc;

use actors::address::Address;
use actors::alarm;
use actors::alarm::feed::AlarmFeed;
use actors::allowlist::Allowlist;
use actors::board::Board;
use actors::credentials::Credentials;
use actors::credentials::desk::DeviceDesk;
use actors::database::DatabaseHealth;
use actors::door::WayInView;
use actors::inference::InferenceHub;
use actors::ingress::stats::IngressStats;
use actors::last_seen::SignsOfLife;
use actors::media::completion::Completer;
use actors::media::filesystem::FilesystemStore;
use actors::media::store::MediaStore;
use actors::media::thumbnail::Thumbnails;
use actors::operators::Operators;
use actors::place::Places;
use actors::retention::RetentionHub;
use actors::session::Sessions;
use actors::sync::SyncHub;
use actors::telemetry::TelemetryWriters;
use actors::telemetry::tap::Tap;
use actors::wake::Wake;
use broker::guesses::Guesses;
use schema::clock::Clock;
use schema::clock::watch::ClockWatch;
use schema::store::Store;
use tokio::sync::watch;

use crate::cluster::Stage;
use crate::config::Config;
use crate::telling::Telling;

/// What every part of the engine is made from, and what HTTP looks at. Cloning shares everything.
#[derive(Clone)]
pub struct Parts {
    /// The database.
    pub store: Store,
    /// Calls over HTTP that write share a part of its connections.
    pub calls: Store,
    /// Wall time.
    pub clock: Clock,
    /// What of it may be believed.
    pub clock_watch: ClockWatch,
    /// Whether the database answers.
    pub database: DatabaseHealth,
    /// What the private cluster is busy with, when there is one.
    pub cluster: Option<watch::Receiver<Stage>>,
    /// Where the database lies, when its server is ours.
    pub own_database: Option<PathBuf>,
    /// Who may speak.
    pub allowlist: Allowlist,
    /// Who is who.
    pub credentials: Credentials,
    /// Whose tools may listen.
    pub operators: Operators,
    /// Who has shown wrong credentials, over MQTT or HTTP.
    pub guesses: Guesses,
    /// Where devices get their passwords.
    pub desk: DeviceDesk,
    /// When devices last called over HTTP.
    pub signs_of_life: SignsOfLife,
    /// Where units of work go.
    pub writers: TelemetryWriters,
    /// Where they tell what is new after each commit.
    pub tap: Tap,
    /// The latest value of each metric of each device.
    pub board: Board,
    /// Where devices are.
    pub places: Places,
    /// What becomes of alarms, for whoever looks on.
    pub alarm_feed: AlarmFeed,
    /// Where orders of weighing sessions go.
    pub sessions: Sessions,
    /// Wakes the watcher of images.
    pub media_wake: Wake,
    /// Counters of what came in.
    pub stats: Arc<IngressStats>,
    /// The way in as others see it.
    pub way_in: WayInView,
    /// The senders' meeting point.
    pub sync: SyncHub,
    /// The place of the images.
    pub media: Arc<dyn MediaStore>,
    /// The same, when it is a directory: its uploads come through the engine.
    pub directory: Option<FilesystemStore>,
    /// Small copies of images.
    pub thumbnails: Thumbnails,
    /// What others need of inference.
    pub inference: InferenceHub,
    /// Passes over what has become old.
    pub retention: RetentionHub,
    /// What tells of alarms, and of the engine's own life and trouble.
    pub telling: Telling,
    /// Where the owner of the alarms is.
    pub alarms: Address<alarm::owner::Msg>,
}

impl Parts {
    /// What completes images.
    pub(crate) fn completer(&self, config: &Config) -> Completer {
        Completer {
            store: self.store.clone(),
            clock: self.clock.clone(),
            media: Arc::clone(&self.media),
            bucket: config.media.bucket.clone(),
            inference: self.inference.clone(),
            wake_sync: self.sync.waker(),
            wake: self.media_wake.clone(),
        }
    }
}
