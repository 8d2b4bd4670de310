//! The table of keys: one line each, from which everything about a key is made.

use std::net::SocketAddr;
use std::path::PathBuf;

use actors::alarm::drill::Weekly;

use super::steps::Steps;
use super::table::settings;
use super::value::{
    AuthMode, CloudAuth, Fraction, Headers, HostPort, InferenceQueue, LiveWay, LogLevel, MediaBackend,
    MqttMode, OperatorKey, OutboxMode, Secret, Url,
};
use super::ways::WaysSetting;

settings! {
    /// Who this box is.
    edge: Edge {
        /// Name of this box in logs and towards the cloud; empty means the host name, else one that is generated and kept.
        id: String = "" old [EDGE_ID, HOSTNAME, INSTANCE_ID];
        /// Where it runs, for logs and metrics.
        env: String = "dev" old [NODE_ENV, DD_ENV];
        /// Version for logs and metrics; empty means the version of this build.
        version: String = "" old [DD_VERSION];
        /// Commit of the build, answered as `x-commit-id`.
        commit: String = "Unknown" old [COMMIT_ID];
        /// Directory for what is generated once and kept, such as a name or the upload secret; for `up` also the database.
        data_dir: PathBuf = "/data";
    }

    /// PostgreSQL.
    database: Database {
        /// Address, such as `postgresql://farmiq:password@host/farmiq?sslmode=verify-full` or `host=/run/postgresql user=farmiq dbname=farmiq`.
        url: Option<Secret> = "" old [DATABASE_URL];
        /// Connections for work at most: what is acknowledged, sent, weighed, deleted.
        pool_max: usize = "16" in 3..=1000;
        /// Longest time one statement of work may run.
        statement_timeout_seconds: u64 = "30" in 1..=3600;
        /// Connections for those who only look at most: lists over HTTP, gauges.
        read_pool_max: usize = "4" in 1..=1000;
        /// Longest time one statement of theirs may run.
        read_timeout_seconds: u64 = "5" in 1..=3600;
    }

    /// The HTTP listener: devices, operators, health, metrics.
    http: Http {
        /// Address and port.
        listen: SocketAddr = "0.0.0.0:3000" old [APP_PORT by any_address_at_port];
        /// Connections at most. Beyond them, health, readiness and metrics are still answered.
        connections_max: usize = "1024" in 1..=100000;
        /// Connections of one address; 0 means half of connections_max.
        connections_per_address_max: usize = "0" in 0..=100000;
        /// Largest JSON body.
        body_bytes_max: usize = "1048576" in 1024..=67108864;
        /// Origins of browsers that may call.
        allowed_origins: Vec<String> = "http://localhost:5110,http://localhost:5113,http://localhost:5135,http://localhost:5143,http://localhost:3000" old [ALLOWED_ORIGINS];
        /// Certificate chain (PEM file); with it the port speaks TLS.
        tls_cert: Option<PathBuf> = "";
        /// Private key of the certificate (PEM file).
        tls_key: Option<PathBuf> = "";
        /// CA of client certificates (PEM file).
        client_ca: Option<PathBuf> = "";
        /// Revocation lists of these CAs (PEM file); taken up when they change.
        client_crl: Option<PathBuf> = "";
    }

    /// Who may call over HTTP.
    auth: Auth {
        /// What devices must show: jwt, mtls, jwt_or_mtls, or compat (also nothing at all: insecure).
        mode: AuthMode = "jwt_or_mtls";
        /// One or two secrets that sign device tokens (HS256); the first signs, both verify.
        jwt_secrets: Vec<Secret> = "";
        /// Public keys (PEM files) that verify device tokens (RS256).
        jwt_public_key_files: Vec<PathBuf> = "";
        /// Audience a device token must name; empty means any.
        jwt_audience: Option<String> = "";
        /// Life of a device token that is issued here.
        jwt_lifetime_seconds: u64 = "600" in 300..=900;
        /// Keys of operators: a list of { name = "…", key = "…", role = "read", "write", "act" or "admin", tenants = ["t-001"] or ["*"] };
        /// with its name, a key also lets the MQTT user operator:name listen to its tenants.
        operator_keys: Vec<OperatorKey> = "";
        /// Whether the repair endpoints (redrive, unclaim) are open to admin keys.
        admin_enabled: bool = "false" old [INTERNAL_ADMIN_ENABLED by only_true];
    }

    /// The link to an external MQTT broker.
    mqtt: Mqtt {
        /// external (a broker of its own) or embedded (the broker inside, see [broker]).
        mode: MqttMode = "external";
        /// Address of the external broker: mqtt:// or mqtts://.
        url: Url = "mqtt://localhost:5100" old [MQTT_BROKER_URL];
        /// Client id; the broker keeps the session of this name.
        client_id: String = "edge-ingress-gateway" old [MQTT_CLIENT_ID];
        /// User name at the broker.
        username: Option<String> = "" old [MQTT_USERNAME];
        /// Password at the broker.
        password: Option<Secret> = "" old [MQTT_PASSWORD];
        /// CA of the broker's certificate (PEM file); empty means the system's.
        tls_ca: Option<PathBuf> = "";
        /// Client certificate chain (PEM file).
        tls_cert: Option<PathBuf> = "";
        /// Private key of the client certificate (PEM file).
        tls_key: Option<PathBuf> = "";
        /// Messages in flight without acknowledgement.
        ack_window: u16 = "100" in 1..=65535;
        /// Largest packet.
        packet_bytes_max: usize = "1048576" in 1024..=268435455;
        /// Keepalive.
        keepalive_seconds: u64 = "60" in 5..=3600;
    }

    /// The embedded MQTT broker (mqtt.mode = "embedded").
    broker: Broker {
        /// Plain listener; "off" closes it.
        listen: Option<SocketAddr> = "0.0.0.0:1883";
        /// TLS listener, such as 0.0.0.0:8883; "off" closes it.
        listen_tls: Option<SocketAddr> = "off";
        /// Listener of WebSockets in the clear, such as 0.0.0.0:8083, with MQTT at /mqtt; "off" closes it.
        listen_ws: Option<SocketAddr> = "off";
        /// Listener of WebSockets over TLS, such as 0.0.0.0:8084, with MQTT at /mqtt; "off" closes it.
        listen_wss: Option<SocketAddr> = "off";
        /// Origins of pages that may open a WebSocket, such as https://barn.example; empty means all.
        ws_allowed_origins: Vec<String> = "";
        /// Certificate chain of the TLS listeners (PEM file).
        tls_cert: Option<PathBuf> = "";
        /// Private key of the certificate (PEM file).
        tls_key: Option<PathBuf> = "";
        /// CAs of client certificates, as many as there are (PEM file): a device may show one instead of a password.
        client_ca: Option<PathBuf> = "";
        /// Revocation lists of these CAs (PEM file); taken up when they change, and connections of the revoked close.
        client_crl: Option<PathBuf> = "";
        /// Whether devices may connect without a credential: insecure.
        allow_anonymous: bool = "false";
        /// Clients that are logged in, at most; one credential has at most a third of what the others leave.
        connections_max: usize = "1000" in 1..=100000;
        /// Connections of one address that are not logged in yet, more are closed at once; 0 means a third of what others leave.
        handshakes_per_address_max: usize = "0" in 0..=100000;
        /// What carries messages to subscribers at QoS 0: queues (those of the broker) or rumqttd (a router inside it; slower).
        live: LiveWay = "queues";
        /// Messages in flight per client.
        inflight_max: u16 = "100" in 1..=65535;
        /// Messages that wait for one subscriber; one more is not queued.
        queued_max: usize = "1000" in 1..=65535;
        /// Bytes that wait for one subscriber; what does not fit is not queued.
        queued_bytes_max: usize = "8388608" in 4096..=17179869184;
        /// Bytes that wait for all subscribers together, of which one device or operator has at most a third; what does not fit is not queued.
        queued_total_bytes_max: usize = "67108864" in 4096..=17179869184;
        /// How long a message waits for its subscriber.
        queued_age_hours: u64 = "168" in 1..=8760;
        /// Sessions that may outlive their connections; for one more, one ends of whoever has the most of them.
        sessions_max: usize = "1000" in 1..=100000;
        /// How long a session outlives its connection at most.
        session_expiry_hours: u32 = "168" in 1..=8760;
        /// Filters one client may subscribe to.
        subscriptions_max: usize = "100" in 1..=10000;
        /// Longest keepalive of a client of MQTT 5, which is told so when it asks for more or for none.
        keep_alive_seconds_max: u16 = "60" in 5..=65535;
        /// Largest message.
        message_bytes_max: usize = "1048576" in 1024..=268435455;
        /// Messages in flight of all clients together; then the sockets are not read.
        credit_messages_max: usize = "20000" in 1..=10000000;
        /// Bytes in flight of all clients together; then the sockets are not read.
        credit_bytes_max: usize = "33554432" in 1048576..=17179869184;
        /// Database trouble after which new clients are turned away with "server unavailable".
        stall_seconds: u64 = "10" in 1..=3600;
    }

    /// What devices may send.
    ingress: Ingress {
        /// Whether the canonical envelope is accepted.
        dialect_canonical: bool = "true";
        /// Whether envelopes with explicit nulls or numeric offsets are accepted.
        dialect_null_fields: bool = "true";
        /// Whether flat telemetry and bare status are accepted.
        dialect_flat: bool = "true";
        /// How long an event_id is remembered.
        dedupe_ttl_hours: u64 = "72" in 1..=8760 old [INGRESS_DEDUPE_TTL_HOURS, DEDUPE_TTL_MS by hours_of_ms];
        /// How often forgotten event_ids are deleted.
        dedupe_cleanup_minutes: u64 = "15" in 1..=1440 old [DEDUPE_CLEANUP_INTERVAL_MS by minutes_of_ms];
        /// Whether an unknown device or station gets a pending allowlist row.
        auto_provision: bool = "false";
        /// Pending rows of a tenant in each allowlist at most; further strangers are refused without one.
        auto_provision_rows_max: u64 = "1000" in 1..=1000000;
        /// Whether a weighing needs the allowlist row of its device too, not only of its station.
        weighvision_require_device: bool = "false";
        /// Refused messages that are kept on record.
        rejects_rows_max: u64 = "10000" in 0..=10000000;
        /// Device event types that go to the cloud as they are.
        forward_events: Vec<String> = "";
    }

    /// Devices.
    device: Device {
        /// How often "last seen" of one device is written at most.
        last_seen_write_seconds: u64 = "15" in 1..=3600;
        /// How long the old password of a device stays good beside a new one, unless somebody says otherwise.
        rotation_overlap_hours: u64 = "24" in 0..=8760;
        /// How often it is looked who may come in, when the database did not tell of a change at once.
        access_refresh_seconds: u64 = "5" in 1..=3600;
    }

    /// Readings.
    telemetry: Telemetry {
        /// Whether minute, hour and day aggregates are kept.
        aggregate: bool = "true";
        /// Whether closed aggregates go to the cloud.
        emit_aggregates: bool = "false";
        /// Writers that commit batches side by side.
        writers: usize = "2" in 1..=32;
    }

    /// Weighing sessions.
    session: Session {
        /// How long a finalize waits for its session.
        finalize_wait_hours: u64 = "24" in 1..=8760;
        /// Idle time after which an open session is cancelled; 0 means never.
        idle_cancel_hours: u64 = "0" in 0..=87600;
    }

    /// Images.
    media: Media {
        /// filesystem or s3; empty means s3 when media.endpoint is set, else filesystem.
        backend: Option<MediaBackend> = "";
        /// Bucket.
        bucket: String = "farmiq-media" old [MEDIA_BUCKET];
        /// Address of the S3 server.
        endpoint: Option<Url> = "" old [MEDIA_ENDPOINT];
        /// Address of the S3 server as devices see it; empty means media.endpoint.
        presign_endpoint: Option<Url> = "" old [MEDIA_PRESIGN_ENDPOINT];
        /// Access key of the S3 server.
        access_key: Option<Secret> = "" old [MEDIA_ACCESS_KEY];
        /// Secret key of the S3 server.
        secret_key: Option<Secret> = "" old [MEDIA_SECRET_KEY];
        /// Region of the S3 server.
        region: String = "us-east-1" old [MEDIA_REGION];
        /// Directory of the filesystem backend; unless set, `media` in edge.data_dir.
        root: PathBuf = "/data/media" old [MEDIA_BASE_PATH];
        /// Address of this box as devices see it, for upload URLs of the filesystem backend; unless set, that of http.listen.
        public_base_url: Url = "http://localhost:3000";
        /// Secret that signs upload URLs of the filesystem backend; empty means one that is generated and kept.
        upload_secret: Option<Secret> = "";
        /// Life of an upload URL.
        presign_seconds: u64 = "900" in 1..=604800 old [MEDIA_PRESIGN_EXPIRES_IN];
        /// Largest upload.
        upload_bytes_max: u64 = "10485760" in 1..=5368709120 old [MEDIA_MAX_UPLOAD_BYTES];
        /// Small copies of images that are kept in edge.data_dir, bytes together; 0 makes them anew each time.
        thumbnail_bytes_max: u64 = "268435456" in 0..=1099511627776;
        /// Upload URLs per device and minute.
        presign_per_minute: u32 = "10" in 1..=60000;
        /// How long an upload nobody completed waits before it is completed from what lies there.
        implicit_grace_seconds: u64 = "30" in 1..=86400;
        /// Whether a missing bucket is made.
        bucket_auto_create: bool = "false" old [MEDIA_BUCKET_AUTO_CREATE];
        /// Attempts to reach the bucket at start.
        bootstrap_retries: u32 = "30" in 0..=100000 old [MEDIA_BUCKET_BOOTSTRAP_RETRIES];
        /// Wait between these attempts.
        bootstrap_delay_ms: u64 = "1000" in 1..=600000 old [MEDIA_BUCKET_BOOTSTRAP_DELAY_MS];
    }

    /// Weight from images.
    inference: Inference {
        /// Whether jobs are run at all.
        enabled: bool = "true";
        /// Whether a completed image makes a job.
        on_complete: bool = "true" old [TRIGGER_INFERENCE_ON_COMPLETE];
        /// Model package: an ONNX file with its settings beside it, or a directory with both; empty means the bundled one.
        model_path: Option<PathBuf> = "" old [MODEL_PATH];
        /// Version to report; empty means what the model says, else v1.0.0.
        model_version: Option<String> = "" old [MODEL_VERSION];
        /// Least confidence of a detection; empty means what the model says, else 0.5.
        confidence_threshold: Option<Fraction> = "" old [CONFIDENCE_THRESHOLD];
        /// Overlap above which two detections are one; empty means what the model says, else 0.4.
        nms_threshold: Option<Fraction> = "" old [NMS_THRESHOLD];
        /// Whether a picture is turned as its EXIF data says; empty means what the model says, else true.
        exif_orientation: Option<bool> = "";
        /// postgres, or rabbitmq: work orders reach workers on other machines at once; the jobs stay rows all the same.
        queue: InferenceQueue = "postgres";
        /// Address of RabbitMQ: amqp:// or amqps://, with user, password and virtual host.
        rabbitmq_url: Option<Secret> = "";
        /// Jobs side by side.
        workers: usize = "1" in 1..=64;
        /// Attempts before a job is a dead letter.
        attempts_max: u32 = "5" in 1..=100;
        /// How long a worker may hold a job.
        lease_seconds: u64 = "120" in 5..=86400;
        /// Minutes without an image after which the model leaves memory until the next one comes; 0 keeps it there.
        idle_unload_minutes: u64 = "10" in 0..=10080;
    }

    /// Events on their way to the cloud.
    outbox: Outbox {
        /// send, or noop: sends nothing, acknowledges nothing.
        mode: OutboxMode = "send" old [SYNC_FORWARDER_MODE];
        /// Events of one batch.
        batch_events_max: usize = "500" in 1..=10000 old [OUTBOX_BATCH_SIZE];
        /// Bytes of one batch.
        batch_bytes_max: usize = "1000000" in 1024..=100000000;
        /// How long a sender may hold a batch.
        lease_seconds: u64 = "300" in 5..=86400 old [OUTBOX_LEASE_SECONDS];
        /// Refusals by the cloud before an event is a dead letter.
        rejections_max: u32 = "10" in 1..=1000 old [OUTBOX_MAX_ATTEMPTS];
        /// Longest wait between two attempts.
        backoff_seconds_max: u64 = "300" in 1..=300 old [OUTBOX_BACKOFF_CAP_SECONDS];
        /// How often the outbox is looked at when nothing wakes it.
        poll_ms: u64 = "1000" in 10..=3600000 old [SYNC_INTERVAL_MS];
        /// Senders side by side; events of one lane stay with one of them.
        partitions: usize = "4" in 1..=16;
    }

    /// The cloud.
    cloud: Cloud {
        /// Where batches are posted, the whole address; empty means nothing is sent and rows are kept.
        url: Option<Url> = "" old [CLOUD_INGESTION_URL];
        /// none, api_key or hmac.
        auth_mode: CloudAuth = "none" old [CLOUD_AUTH_MODE];
        /// Key for auth_mode api_key.
        api_key: Option<Secret> = "" old [CLOUD_API_KEY];
        /// Secret for auth_mode hmac.
        hmac_secret: Option<Secret> = "" old [CLOUD_HMAC_SECRET];
        /// Value of the Authorization header.
        authorization: Option<Secret> = "" old [CLOUD_INGESTION_AUTHORIZATION];
        /// More headers, as a JSON object of strings.
        headers_json: Headers = "" old [CLOUD_INGESTION_HEADERS_JSON];
        /// CA of the cloud's certificate (PEM file); empty means the system's.
        tls_ca: Option<PathBuf> = "";
        /// Client certificate chain (PEM file).
        tls_cert: Option<PathBuf> = "";
        /// Private key of the client certificate (PEM file).
        tls_key: Option<PathBuf> = "";
        /// Proxy on the way, such as http://user:password@proxy:3128; empty means none, whatever HTTPS_PROXY says.
        proxy: Option<Secret> = "";
        /// Longest time of one request.
        timeout_seconds: u64 = "60" in 1..=600;
        /// How often the cloud is greeted when there is nothing to send.
        handshake_seconds: u64 = "60" in 5..=86400;
    }

    /// How long data is kept.
    retention: Retention {
        /// Readings.
        telemetry_raw_days: u64 = "90" in 1..=36500 old [TELEMETRY_RAW_RETENTION_DAYS];
        /// Aggregates.
        telemetry_agg_days: u64 = "365" in 1..=36500 old [TELEMETRY_AGG_RETENTION_DAYS];
        /// Images.
        media_days: u64 = "90" in 1..=36500 old [MEDIA_RETENTION_DAYS];
        /// Outbox rows the cloud has acknowledged; others are never deleted.
        outbox_acked_days: u64 = "30" in 1..=36500 old [OUTBOX_RETENTION_DAYS];
        /// Time between two passes.
        interval_minutes: u64 = "60" in 1..=10080 old [JANITOR_INTERVAL_SECONDS by minutes_of_seconds];
        /// Whether a pass only says what it would delete.
        dry_run: bool = "false" old [JANITOR_DRY_RUN];
        /// Free space of the media volume below which no new upload is accepted.
        free_disk_gb_min: u64 = "5" in 0..=1000000 old [MIN_FREE_DISK_GB];
        /// Free space of the database's volume below which events that the cloud has go before their time, then aggregates of one minute; 0 means never.
        database_free_gb_min: u64 = "3" in 0..=1000000;
        /// Whether low space deletes the oldest images of finalized sessions before their time.
        emergency_delete: bool = "false";
    }

    /// Backups of a box with a database of its own (`farmiq-edge backup`).
    backup: Backup {
        /// Where they go: a directory, such as that of a mounted disk, or s3://bucket/prefix. Each box needs a place of its own.
        target: Option<String> = "";
        /// What they are sealed with: a passphrase, or the text of a key file (passphrase_file). Without it nobody can restore them.
        passphrase: Option<Secret> = "";
        /// Backups that are kept: the oldest goes once a new one is whole.
        keep: usize = "14" in 1..=1000;
        /// Address of the S3 server; empty means that of its region.
        endpoint: Option<Url> = "";
        /// Access key of the S3 server.
        access_key: Option<Secret> = "";
        /// Secret key of the S3 server.
        secret_key: Option<Secret> = "";
        /// Region of the S3 server.
        region: String = "us-east-1";
    }

    /// Who is told when something is wrong with the birds or the box.
    alarms: Alarms {
        /// The ways out of the barn: a table [alarms.ways.NAME] for each, with a kind of siren, webhook, ntfy, program, relay or email; docs/alarms.md has them.
        ways: WaysSetting = "";
        /// Who is told of a critical alarm that nobody acknowledges: seconds, a colon and ways with a plus between, such as
        /// 0:siren+ntfy,120:phone; all means every way, quiet those that make no noise.
        critical_steps: Steps = "0:all";
        /// Time until the last of these steps is repeated while nobody acknowledges; 0 means never.
        critical_repeat_seconds: u64 = "300" in 0..=86400;
        /// The same of a high alarm.
        high_steps: Steps = "0:quiet";
        /// Time until the last of these steps is repeated; 0 means never.
        high_repeat_seconds: u64 = "1800" in 0..=604800;
        /// The same of a low alarm; empty means that it is listed, and nobody is told.
        low_steps: Steps = "";
        /// Time until the last of these steps is repeated; 0 means never.
        low_repeat_seconds: u64 = "0" in 0..=604800;
        /// Time until an acknowledged alarm that still stands is told again by ways that make no noise; 0 means never.
        remind_minutes: u64 = "30" in 0..=10080;
        /// Who is told of a drill.
        drill_steps: Steps = "0:all";
        /// When the weekly drill begins, in the barn's time zone, such as mon 10:00; empty means by hand alone.
        drill_at: Option<Weekly> = "";
        /// Time between two signs of life for a second box; it rings when it misses three.
        heartbeat_seconds: u64 = "10" in 1..=300;
        /// Where each sign of life is posted besides: another box on the network of the barn, or a watcher outside.
        heartbeat_url: Option<Url> = "";
        /// CA of its certificate (PEM file); empty means the system's.
        heartbeat_tls_ca: Option<PathBuf> = "";
        /// GPIO chip of a normally-closed relay that is held while the engine lives, such as /dev/gpiochip0.
        heartbeat_gpio_chip: Option<PathBuf> = "";
        /// The line of that relay on its chip.
        heartbeat_gpio_line: u32 = "0" in 0..=1023;
        /// Whether that relay pulls while the line is low.
        heartbeat_gpio_active_low: bool = "false";
        /// Whether the line is pulsed once a second and not held, for a watchdog relay that lets go when pulses stop.
        heartbeat_gpio_pulse: bool = "false";
    }

    /// Watching the box itself.
    ops: Ops {
        /// How often disk and services are looked at.
        check_seconds: u64 = "30" in 1..=3600 old [OBS_POLL_INTERVAL_SECONDS];
        /// Volume that is watched.
        disk_path: PathBuf = "/" old [DISK_PATH];
    }

    /// Metrics.
    metrics: Metrics {
        /// Where statsd listens (UDP); empty means off.
        statsd_address: Option<HostPort> = "127.0.0.1:8125";
        /// Whether GET /metrics answers.
        prometheus: bool = "true";
    }

    /// Logs.
    log: Log {
        /// trace, debug, info, warn or error.
        level: LogLevel = "info" old [LOG_LEVEL];
        /// Name of the service in each line.
        service: String = "farmiq-edge" old [DD_SERVICE];
    }
}
