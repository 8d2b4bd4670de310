//! What a configuration accepts, which source wins, and what is said when it is wrong.

use std::io::Write;
use std::path::PathBuf;

use tempfile::NamedTempFile;

use super::*;

/// A secret that nobody guesses.
const LONG_ENOUGH: &str = "0123456789abcdef0123456789abcdef";

fn file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn inputs<const N: usize>(environment: [(&str, &str); N]) -> Inputs {
    Inputs { environment: environment.into_iter().collect(), ..Inputs::default() }
}

fn shown(loaded: &Loaded, path: &str) -> String {
    let (_, value) = loaded.config.entries().into_iter().find(|(key, _)| key.path == path).unwrap();
    value.to_string()
}

/// The mistakes of a file, one per line, with the name of the file taken out.
fn mistakes_of(text: &str) -> Vec<String> {
    let file = file(text);
    let name = file.path().display().to_string();
    let loaded = load(&Inputs { file: Some(file.path().to_owned()), ..Inputs::default() });
    loaded.unwrap_err().lines().iter().map(|line| line.replace(&name, "file")).collect()
}

#[test]
fn every_default_is_readable_and_has_no_mistake() {
    let loaded = load(&Inputs::default()).unwrap();
    assert_eq!(loaded.notices().len(), 1, "no token can be had: {:?}", loaded.notices());
    assert_eq!(loaded.config.http.listen.to_string(), "0.0.0.0:3000");
    assert_eq!(loaded.config.http.allowed_origins.len(), 5);
    assert_eq!(loaded.config.broker.listen_tls, None);
    assert_eq!(loaded.config.media.backend_in_use(), MediaBackend::Filesystem);
    assert_eq!(loaded.config.edge.version, env!("CARGO_PKG_VERSION"));
    assert!(!loaded.config.edge.id.is_empty());
}

#[test]
fn devices_upload_to_where_the_engine_listens() {
    let address = |environment: &[(&str, &str)]| {
        let inputs = Inputs { environment: environment.iter().copied().collect(), ..Inputs::default() };
        load(&inputs).unwrap().config.media.public_base_url.as_str().to_owned()
    };
    assert_eq!(address(&[]), "http://localhost:3000");
    assert_eq!(address(&[("APP_PORT", "3410")]), "http://localhost:3410");
    assert_eq!(address(&[("FARMIQ_HTTP__LISTEN", "10.0.0.7:80")]), "http://10.0.0.7:80");
    let named = ("FARMIQ_MEDIA__PUBLIC_BASE_URL", "https://box.barn");
    assert_eq!(address(&[("APP_PORT", "3410"), named]), "https://box.barn");
}

#[test]
fn the_stronger_source_wins() {
    let file = file("[outbox]\nlease_seconds = 11\n");
    let with = |environment: &[(&str, &str)], flag: bool, has_file: bool| {
        let mut inputs = Inputs { presets: vec![("outbox.lease_seconds", "9".into())], ..Inputs::default() };
        inputs.environment = environment.iter().copied().collect();
        inputs.file = has_file.then(|| file.path().to_owned());
        inputs.flags = flag
            .then(|| Flag { name: "--lease", path: "outbox.lease_seconds", value: "44".into() })
            .into_iter()
            .collect();
        load(&inputs).unwrap().config.outbox.lease_seconds
    };
    let (new, old) = (("FARMIQ_OUTBOX__LEASE_SECONDS", "33"), ("OUTBOX_LEASE_SECONDS", "22"));
    assert_eq!(with(&[new, old], true, true), 44, "a flag over everything");
    assert_eq!(with(&[new, old], false, true), 33, "the new name over the old one");
    assert_eq!(with(&[old], false, true), 22, "the old name over the file");
    assert_eq!(with(&[], false, true), 11, "the file over the preset");
    assert_eq!(with(&[], false, false), 9, "the preset over the default");
    assert_eq!(Config::default().outbox.lease_seconds, 300);
}

#[test]
fn an_old_variable_set_to_nothing_counts_as_not_set() {
    let loaded = load(&inputs([("OUTBOX_BATCH_SIZE", ""), ("EDGE_ID", ""), ("HOSTNAME", "barn-7")])).unwrap();
    assert_eq!(loaded.config.outbox.batch_events_max, 500);
    assert_eq!(loaded.config.edge.id, "barn-7");
}

#[test]
fn every_old_name_still_works_and_other_units_are_converted() {
    let cases = [
        ("EDGE_ID", "b1", "edge.id", "\"b1\""),
        ("HOSTNAME", "b1", "edge.id", "\"b1\""),
        ("INSTANCE_ID", "b1", "edge.id", "\"b1\""),
        ("NODE_ENV", "production", "edge.env", "\"production\""),
        ("DD_ENV", "prod", "edge.env", "\"prod\""),
        ("DD_VERSION", "1.2.3", "edge.version", "\"1.2.3\""),
        ("COMMIT_ID", "abc", "edge.commit", "\"abc\""),
        ("DATABASE_URL", "postgres://a:b@c/d", "database.url", "\"***\""),
        ("APP_PORT", "8080", "http.listen", "\"0.0.0.0:8080\""),
        (
            "ALLOWED_ORIGINS",
            "http://a:1, https://b",
            "http.allowed_origins",
            "[\"http://a:1\", \"https://b\"]",
        ),
        ("INTERNAL_ADMIN_ENABLED", "true", "auth.admin_enabled", "true"),
        ("INTERNAL_ADMIN_ENABLED", "1", "auth.admin_enabled", "false"),
        ("MQTT_BROKER_URL", "mqtt://u:p@h:1", "mqtt.url", "\"mqtt://***@h:1\""),
        ("MQTT_CLIENT_ID", "me", "mqtt.client_id", "\"me\""),
        ("MQTT_USERNAME", "u", "mqtt.username", "\"u\""),
        ("INGRESS_DEDUPE_TTL_HOURS", "48", "ingress.dedupe_ttl_hours", "48"),
        ("DEDUPE_TTL_MS", "3600001", "ingress.dedupe_ttl_hours", "2"),
        ("DEDUPE_CLEANUP_INTERVAL_MS", "300000", "ingress.dedupe_cleanup_minutes", "5"),
        ("MEDIA_BUCKET", "b", "media.bucket", "\"b\""),
        ("MEDIA_PRESIGN_ENDPOINT", "http://p:9000", "media.presign_endpoint", "\"http://p:9000\""),
        ("MEDIA_ACCESS_KEY", "a", "media.access_key", "\"***\""),
        ("MEDIA_SECRET_KEY", "a", "media.secret_key", "\"***\""),
        ("MEDIA_REGION", "eu", "media.region", "\"eu\""),
        ("MEDIA_BASE_PATH", "/m", "media.root", "\"/m\""),
        ("MEDIA_PRESIGN_EXPIRES_IN", "60", "media.presign_seconds", "60"),
        ("MEDIA_MAX_UPLOAD_BYTES", "5", "media.upload_bytes_max", "5"),
        ("MEDIA_BUCKET_AUTO_CREATE", "true", "media.bucket_auto_create", "true"),
        ("MEDIA_BUCKET_BOOTSTRAP_RETRIES", "3", "media.bootstrap_retries", "3"),
        ("MEDIA_BUCKET_BOOTSTRAP_DELAY_MS", "5", "media.bootstrap_delay_ms", "5"),
        ("TRIGGER_INFERENCE_ON_COMPLETE", "false", "inference.on_complete", "false"),
        ("MODEL_PATH", "/m.onnx", "inference.model_path", "\"/m.onnx\""),
        ("MODEL_VERSION", "v2", "inference.model_version", "\"v2\""),
        ("CONFIDENCE_THRESHOLD", "0.25", "inference.confidence_threshold", "0.25"),
        ("NMS_THRESHOLD", "0.75", "inference.nms_threshold", "0.75"),
        ("SYNC_FORWARDER_MODE", "noop", "outbox.mode", "\"noop\""),
        ("OUTBOX_BATCH_SIZE", "7", "outbox.batch_events_max", "7"),
        ("OUTBOX_LEASE_SECONDS", "7", "outbox.lease_seconds", "7"),
        ("OUTBOX_MAX_ATTEMPTS", "7", "outbox.rejections_max", "7"),
        ("OUTBOX_BACKOFF_CAP_SECONDS", "7", "outbox.backoff_seconds_max", "7"),
        ("SYNC_INTERVAL_MS", "60000", "outbox.poll_ms", "60000"),
        ("CLOUD_INGESTION_URL", "https://c/api", "cloud.url", "\"https://c/api\""),
        ("CLOUD_API_KEY", "k", "cloud.api_key", "\"***\""),
        ("CLOUD_HMAC_SECRET", "k", "cloud.hmac_secret", "\"***\""),
        ("CLOUD_AUTH_MODE", "none", "cloud.auth_mode", "\"none\""),
        ("CLOUD_INGESTION_AUTHORIZATION", "Bearer x", "cloud.authorization", "\"***\""),
        ("CLOUD_INGESTION_HEADERS_JSON", "{\"a\":\"b\"}", "cloud.headers_json", "\"***\""),
        ("TELEMETRY_RAW_RETENTION_DAYS", "1", "retention.telemetry_raw_days", "1"),
        ("TELEMETRY_AGG_RETENTION_DAYS", "1", "retention.telemetry_agg_days", "1"),
        ("MEDIA_RETENTION_DAYS", "1", "retention.media_days", "1"),
        ("OUTBOX_RETENTION_DAYS", "1", "retention.outbox_acked_days", "1"),
        ("JANITOR_INTERVAL_SECONDS", "3600", "retention.interval_minutes", "60"),
        ("JANITOR_DRY_RUN", "true", "retention.dry_run", "true"),
        ("MIN_FREE_DISK_GB", "1", "retention.free_disk_gb_min", "1"),
        ("OBS_POLL_INTERVAL_SECONDS", "5", "ops.check_seconds", "5"),
        ("DISK_PATH", "/d", "ops.disk_path", "\"/d\""),
        ("LOG_LEVEL", "WARNING", "log.level", "\"warn\""),
        ("DD_SERVICE", "s", "log.service", "\"s\""),
    ];
    for (name, value, path, expected) in cases {
        let loaded = load(&inputs([(name, value)]))
            .unwrap_or_else(|mistakes| panic!("{name}: {:?}", mistakes.lines()));
        assert_eq!(shown(&loaded, path), expected, "{name}={value}");
        assert_eq!(loaded.origins[path], Origin::Variable(name.into()));
    }
    let needs_company = ["MQTT_PASSWORD", "MEDIA_ENDPOINT"];
    let tested = |name: &str| cases.iter().any(|case| case.0 == name) || needs_company.contains(&name);
    assert!(every_key().flat_map(|key| key.old).all(|old| tested(old.name)), "an old name has no case here");
    let loaded = load(&inputs([("MQTT_USERNAME", "u"), ("MQTT_PASSWORD", "p")])).unwrap();
    assert_eq!(loaded.config.mqtt.password.unwrap().expose(), "p");
    let s3 = [("MEDIA_ENDPOINT", "http://s3:9000"), ("MEDIA_ACCESS_KEY", "a"), ("MEDIA_SECRET_KEY", "b")];
    assert_eq!(load(&inputs(s3)).unwrap().config.media.backend_in_use(), MediaBackend::S3);
}

#[test]
fn variables_of_the_old_services_that_mean_nothing_are_said_once_and_do_no_harm() {
    let loaded =
        load(&inputs([("RUN_MODE", "x"), ("PORT", "1"), ("EDGE_FEED_URL", "x"), ("PATH", "/bin")])).unwrap();
    assert_eq!(
        loaded.notices()[..3],
        [
            "EDGE_FEED_URL is set and no longer used",
            "PORT is set and no longer used",
            "RUN_MODE is set and no longer used"
        ]
    );
}

#[test]
fn a_secret_may_be_in_a_file_named_by_the_environment_or_by_the_configuration() {
    let secret = file("s3cret\n");
    let path = secret.path().to_str().unwrap();
    let loaded = load(&inputs([("FARMIQ_CLOUD__API_KEY_FILE", path)])).unwrap();
    assert_eq!(loaded.config.cloud.api_key.unwrap().expose(), "s3cret");
    let secrets = file(&format!("{LONG_ENOUGH}1\n{LONG_ENOUGH}2\n"));
    let named = file(&format!("[auth]\njwt_secrets_file = {:?}\n", secrets.path().to_str().unwrap()));
    let loaded = load(&Inputs { file: Some(named.path().to_owned()), ..Inputs::default() }).unwrap();
    let exposed: Vec<_> = loaded.config.auth.jwt_secrets.iter().map(Secret::expose).collect();
    assert_eq!(exposed, [format!("{LONG_ENOUGH}1"), format!("{LONG_ENOUGH}2")]);
}

#[test]
fn operator_keys_come_from_the_file_or_as_text() {
    let in_file = file("[[auth.operator_keys]]\nkey = \"k1\"\nrole = \"admin\"\ntenants = [\"*\"]\n");
    let from_file = load(&Inputs { file: Some(in_file.path().to_owned()), ..Inputs::default() }).unwrap();
    let json = "[{\"key\":\"k1\",\"role\":\"admin\",\"tenants\":[\"*\"]}]";
    let from_json = load(&inputs([("FARMIQ_AUTH__OPERATOR_KEYS", json)])).unwrap();
    let toml = "[{ key = 'k1', role = 'admin', tenants = ['*'] }]";
    let from_toml = load(&inputs([("FARMIQ_AUTH__OPERATOR_KEYS", toml)])).unwrap();
    for loaded in [from_file, from_json, from_toml] {
        let [key] = &loaded.config.auth.operator_keys[..] else { panic!("one key") };
        assert_eq!(
            (key.key.expose(), key.role, &key.tenants[..]),
            ("k1", Role::Admin, &["*".to_owned()][..])
        );
    }
}

#[test]
fn no_secret_is_ever_shown() {
    let text = "[database]\nurl = \"postgres://u:hush1@h/d\"\n[auth]\njwt_secrets = [\"hush2 hush2 hush2 hush2 hush2 hush2\"]\n\
                operator_keys = [{ key = \"hush3\", role = \"read\", tenants = [\"t-001\"] }]\n\
                [mqtt]\nurl = \"mqtt://u:hush4@h\"\n[inference]\nrabbitmq_url = \"amqp://u:hush11@h\"\n\
                [cloud]\nheaders_json = '{\"x\":\"hush5\"}'\nauthorization = \"hush6\"\napi_key = \"hush7\"\n";
    let good = file(text);
    let loaded = load(&Inputs { file: Some(good.path().to_owned()), ..Inputs::default() }).unwrap();
    let texts = [format!("{loaded:?}"), loaded.effective(), format!("{:#?}", loaded.config)];
    assert!(texts.iter().all(|text| !text.contains("hush") && text.contains("***")), "{texts:#?}");
    let bad =
        file(&format!("{text}apikey = \"hush8\"\nhmac_secret = [\n  \"hush9\"]\nauth_mode \"hush10\"\n"));
    let mistakes = load(&Inputs { file: Some(bad.path().to_owned()), ..Inputs::default() }).unwrap_err();
    let texts = [format!("{mistakes:?}"), mistakes.report(false), mistakes.lines().join("\n")];
    assert!(texts[1..].iter().all(|text| !text.contains("hush")), "{texts:#?}");
    assert!(mistakes.mistakes.len() >= 3, "{:?}", mistakes.lines());
}

#[test]
fn every_mistake_is_reported_at_once_with_place_and_way_out() {
    let text = "[outbox]\nlease_second = 300\nbackoff_seconds_max = 3600\npoll_ms = \"1000\"\n\
                [cloud]\nurl = \"ftp://cloud\"\nauth_mode = \"hmac\"\n[clod]\n[auth]\njwt_lifetime_seconds = 60\n\
                operator_keys = [{ key = \"k\", role = \"root\", tenants = [\"*\"] }]\n\
                [telemetry]\naggregate = maybe\n";
    let lines = mistakes_of(text);
    let expected = [
        "file:13:13: string values must be quoted, expected literal string; this is not TOML",
        "file:8:2: `clod` is not a section of the configuration; did you mean `[cloud]`?",
        "file:2:1: `outbox.lease_second` is not a key of the configuration; did you mean `outbox.lease_seconds`?",
        "file:10:24: `auth.jwt_lifetime_seconds` is 60; expected a number from 300 to 900",
        "file:11:17: `auth.operator_keys` is not readable; expected a list, each item one of read, write, act, admin",
        "file:3:23: `outbox.backoff_seconds_max` is 3600; expected a number from 1 to 300",
        "file:4:11: `outbox.poll_ms` is \"1000\"; expected a whole number, without quotes",
        "file:6:7: `cloud.url` begins with ftp://; it must begin with http:// or https://",
        "file:7:13: `cloud.auth_mode` is hmac without cloud.hmac_secret; set cloud.hmac_secret or cloud.hmac_secret_file",
    ];
    assert_eq!(lines, expected, "{lines:#?}");
}

#[test]
fn mistakes_of_the_environment_name_the_variable() {
    let loaded = load(&inputs([
        ("FARMIQ_OUTBOX__LEASE_SECOND", "5"),
        ("FARMIQ_EDGE_ID", "x"),
        ("FARMIQ_HTTP__LISTEN", "3000"),
        ("OUTBOX_BATCH_SIZE", "many"),
        ("DEDUPE_TTL_MS", "3 days"),
        ("FARMIQ_CLOUD__API_KEY", "a"),
        ("FARMIQ_CLOUD__API_KEY_FILE", "/nowhere"),
        ("FARMIQ_EDGE_SERVICE_HOST", "10.0.0.1"),
        ("FARMIQ_EDGE_PORT_3000_TCP_ADDR", "10.0.0.1"),
    ]));
    let expected = [
        "the environment variable FARMIQ_EDGE_ID is not a key of the configuration; did you mean FARMIQ_EDGE__ID?",
        "the environment variable FARMIQ_OUTBOX__LEASE_SECOND is not a key of the configuration; did you mean FARMIQ_OUTBOX__LEASE_SECONDS?",
        "FARMIQ_HTTP__LISTEN (http.listen) is \"3000\"; expected an IP address and port, such as 0.0.0.0:3000 or [::]:3000",
        "DEDUPE_TTL_MS (ingress.dedupe_ttl_hours) is \"3 days\"; expected a whole number of milliseconds",
        "OUTBOX_BATCH_SIZE (outbox.batch_events_max) is \"many\"; expected a whole number, not negative",
        "FARMIQ_CLOUD__API_KEY and FARMIQ_CLOUD__API_KEY_FILE are both set; keep one of them",
    ];
    assert_eq!(loaded.unwrap_err().lines(), expected);
}

#[test]
fn rules_between_keys_are_checked() {
    let cases = [
        ("[cloud]\nauth_mode = \"api_key\"", "cloud.auth_mode"),
        ("[cloud]\nauth_mode = \"basic\"", "cloud.auth_mode"),
        ("[mqtt]\nmode = \"inside\"", "mqtt.mode"),
        ("[mqtt]\nurl = \"http://h\"", "mqtt.url"),
        ("[mqtt]\npassword = \"p\"", "mqtt.password"),
        ("[mqtt]\nmode = \"embedded\"\n[broker]\nlisten = \"off\"", "broker.listen"),
        ("[mqtt]\nmode = \"embedded\"\n[broker]\nlisten = \"0.0.0.0:3000\"", "broker.listen"),
        ("[broker]\nlisten_tls = \"0.0.0.0:8883\"", "broker.listen_tls"),
        ("[broker]\nlisten_wss = \"0.0.0.0:8084\"", "broker.listen_wss"),
        ("[broker]\nws_allowed_origins = [\"barn\"]", "broker.ws_allowed_origins"),
        ("[mqtt]\nmode = \"embedded\"\n[broker]\nlisten_ws = \"0.0.0.0:3000\"", "broker.listen_ws"),
        ("[broker]\nhandshakes_per_address_max = 100001", "broker.handshakes_per_address_max"),
        ("[http]\ntls_cert = \"/c\"", "http.tls_cert"),
        ("[http]\nclient_ca = \"/c\"", "http.client_ca"),
        ("[http]\nclient_crl = \"/c\"", "http.client_crl"),
        ("[broker]\nclient_crl = \"/c\"", "broker.client_crl"),
        ("[http]\nallowed_origins = [\"localhost\"]", "http.allowed_origins"),
        ("[auth]\nmode = \"plain\"", "auth.mode"),
        ("[auth]\nmode = \"mtls\"", "auth.mode"),
        ("[auth]\njwt_secrets = [\"a\", \"b\", \"c\"]", "auth.jwt_secrets"),
        ("[auth]\njwt_secrets = [\"0123456789012345678901234567890\"]", "auth.jwt_secrets"),
        (
            "[auth]\noperator_keys = [{ key = \"\", role = \"read\", tenants = [\"*\"] }]",
            "auth.operator_keys",
        ),
        ("[auth]\noperator_keys = [{ key = \"k\", role = \"read\", tenants = [] }]", "auth.operator_keys"),
        ("[media]\nbackend = \"s3\"\naccess_key = \"a\"", "media.secret_key"),
        ("[inference]\nqueue = \"kafka\"", "inference.queue"),
        ("[inference]\nqueue = \"rabbitmq\"", "inference.queue"),
        ("[inference]\nrabbitmq_url = \"http://h\"", "inference.rabbitmq_url"),
        ("[outbox]\nbatch_events_max = 0", "outbox.batch_events_max"),
        (
            "[ingress]\ndialect_canonical = false\ndialect_null_fields = false\ndialect_flat = false",
            "ingress.dialect",
        ),
        ("[metrics]\nstatsd_address = \"localhost\"", "metrics.statsd_address"),
    ];
    for (text, path) in cases {
        let lines = mistakes_of(text);
        assert!(!lines.is_empty() && lines.iter().all(|line| line.contains(path)), "{text}: {lines:?}");
    }
    let without_database = Inputs { needs_database: true, ..Inputs::default() };
    assert!(load(&without_database).unwrap_err().lines()[0].starts_with("`database.url` is not set"));
}

#[test]
fn what_is_not_safe_is_said_at_start() {
    let loaded = load(&inputs([
        ("FARMIQ_AUTH__MODE", "compat"),
        ("FARMIQ_MQTT__MODE", "embedded"),
        ("FARMIQ_BROKER__ALLOW_ANONYMOUS", "true"),
    ]));
    assert_eq!(loaded.unwrap().notices().len(), 3);
    let weak = load(&inputs([
        ("FARMIQ_AUTH__OPERATOR_KEYS", "[{ key = 'k', role = 'write', tenants = ['*'] }]"),
        ("FARMIQ_AUTH__JWT_SECRETS", LONG_ENOUGH),
        ("FARMIQ_MEDIA__UPLOAD_SECRET", "secret"),
    ]));
    let notices = weak.unwrap().notices();
    for (notice, expected) in
        notices.iter().zip(["http.listen is not encrypted", "a key of less than 16", "media.upload_secret"])
    {
        assert!(notice.contains(expected), "{notice}");
    }
    assert_eq!(notices.len(), 3);
}

#[test]
fn the_effective_configuration_says_where_each_value_came_from_and_can_be_read_again() {
    let file = file("[outbox]\nlease_seconds = 11\n");
    let mut inputs = inputs([("EDGE_ID", "barn-1")]);
    inputs.file = Some(file.path().to_owned());
    let text = load(&inputs).unwrap().effective();
    let line = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap().to_owned();
    assert!(line("id = ").ends_with("# env EDGE_ID"), "{text}");
    assert!(line("lease_seconds = 11").ends_with(":2"), "{text}");
    assert!(line("ack_window = 100").ends_with("# default"), "{text}");
    let again = self::file(&text);
    assert_eq!(
        load(&Inputs { file: Some(again.path().to_owned()), ..Inputs::default() }).unwrap().config.edge.id,
        "barn-1"
    );
}

#[test]
fn the_example_file_is_up_to_date_and_free_of_mistakes() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy/farmiq-edge.example.toml");
    let on_disk = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        on_disk,
        example(),
        "write it again: farmiq-edge check-config --example > deploy/farmiq-edge.example.toml"
    );
    let all_on = on_disk.lines().map(|line| match line.strip_prefix('#') {
        Some(key) if !key.starts_with(' ') => format!("{key}\n"),
        _ => format!("{line}\n"),
    });
    let all_on = file(&all_on.collect::<String>());
    let loaded = load(&Inputs { file: Some(all_on.path().to_owned()), ..Inputs::default() });
    loaded.unwrap_or_else(|mistakes| panic!("{:?}", mistakes.lines()));
}

#[test]
fn what_is_generated_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let below = directory.path().join("not/yet/there");
    let first = kept_secret(&below, "upload-secret").unwrap();
    assert_eq!(first.value.expose().len(), 64);
    assert_eq!(kept_secret(&below, "upload-secret").unwrap().value, first.value);
}
