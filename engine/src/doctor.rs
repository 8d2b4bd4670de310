//! Looks for what is wrong on this machine, and says what to do about it.

use std::fmt::Write;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use actors::inference::model::{Model, Source};
use actors::inference::rabbitmq::link;
use actors::sync;
use broker::tls::Tls;
use schema::clock::Clock;
use schema::store::health::{self, Problem};
use schema::store::migration::{self, Standing};
use schema::store::{Store, StoreError, StoreSettings, partition};
use serde_json::json;
use tokio::net::TcpListener;

use crate::cluster::Cluster;
use crate::config::{Config, Database, Environment, InferenceQueue, Loaded, MediaBackend, MqttMode};
pub use crate::finding::{Finding, Verdict};
use crate::health::Question;
use crate::{first_keys, http, tree};

mod files;
mod links;
mod machine;
mod ways;

/// Longest wait for one answer.
const ANSWER: Duration = Duration::from_secs(5);
const GIB: u64 = 1024 * 1024 * 1024;

/// What is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// What `farmiq-edge up` would run with, or runs with.
    Up,
    /// The same of `farmiq-edge run`.
    Run,
}

impl Command {
    /// What it would log at its start.
    pub fn notices(self, loaded: &Loaded) -> Vec<String> {
        match self {
            Self::Up => loaded.notices_about(&first_keys::foreseen(&loaded.config)),
            Self::Run => loaded.notices(),
        }
    }
}

/// Looks at everything. The configuration itself was read without a mistake when this is called.
pub async fn examine(loaded: &Loaded, command: Command) -> Vec<Finding> {
    let config = &loaded.config;
    let judged = match command {
        Command::Up => format!("no mistake, as `farmiq-edge up` with {}", config.edge.data_dir.display()),
        Command::Run => "no mistake, as `farmiq-edge run`".to_owned(),
    };
    let mut findings = vec![Finding::ok("configuration", judged)];
    let remarks = command
        .notices(loaded)
        .into_iter()
        .map(|notice| Finding::new(Verdict::Warn, "configuration", notice, ""));
    findings.extend(remarks);
    findings.extend(database(config, command).await);
    findings.push(listener("http", config.http.listen, config).await);
    findings.extend(encryption(config).await);
    findings.extend(files::certificates(config, Clock::system().now()).await);
    findings.extend(mqtt(config).await);
    findings.push(media(config).await);
    findings.extend(links::public_url(config));
    findings.extend(rabbitmq(config).await);
    findings.push(model(config).await);
    findings.extend(ways::findings(config).await);
    findings.extend(machine::volumes(config));
    findings.extend(machine::runway(config));
    findings.push(machine::clock().await);
    findings.push(machine::descriptors(config));
    findings.extend(machine::name(loaded, &Environment::of_process()));
    findings.push(cloud(config).await);
    findings
}

/// The findings, one line each, and what to do below a line that needs it.
pub fn report(findings: &[Finding]) -> String {
    let mut report = String::new();
    for Finding { verdict, subject, text, advice } in findings {
        let mark = match verdict {
            Verdict::Ok => "ok  ",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
        };
        let _ = writeln!(report, "{mark}  {subject:<14} {text}");
        if !advice.is_empty() {
            let _ = writeln!(report, "      {:<14} -> {advice}", "");
        }
    }
    report
}

/// The findings for a program, one object a line.
pub fn lines(findings: &[Finding]) -> String {
    let line = |Finding { verdict, subject, text, advice }: &Finding| {
        let advice = Some(advice).filter(|advice| !advice.is_empty());
        let verdict = verdict.as_str();
        format!("{}\n", json!({"verdict": verdict, "subject": subject, "text": text, "advice": advice}))
    };
    findings.iter().map(line).collect()
}

/// What encrypts the listeners.
async fn encryption(config: &Config) -> Vec<Finding> {
    let is_door = config.mqtt.mode == MqttMode::Embedded;
    let listeners = [
        ("http tls", "http", http::tls::files(&config.http)),
        ("mqtt tls", "broker", tree::door_files(&config.broker).filter(|_| is_door)),
    ];
    let mut findings = Vec::new();
    for (subject, section, files) in listeners {
        let Some(files) = files else { continue };
        findings.push(match Tls::open(files).await {
            Ok(_) => Finding::ok(subject, "certificate and key fit"),
            Err(error) => {
                let advice = format!(
                    "check tls_cert, tls_key, client_ca and client_crl of [{section}], and who may read these files"
                );
                Finding::new(Verdict::Fail, subject, causes(&error), advice)
            }
        });
    }
    findings
}

async fn database(config: &Config, command: Command) -> Vec<Finding> {
    let data_dir = &config.edge.data_dir;
    let (url, advice) = match (&config.database.url, command) {
        (Some(url), _) => (
            url.expose().to_owned(),
            "check database.url, that the server runs, and that it lets this user in",
        ),
        (None, Command::Up) => match Cluster::running(data_dir) {
            Some(url) => (url, "see the end of the log in the directory postgres/log of the data directory"),
            None => return vec![private_database(data_dir).await],
        },
        (None, Command::Run) => {
            let advice = "set FARMIQ_DATABASE__URL; for a box with a database of its own ask `farmiq-edge doctor --up`";
            return vec![Finding::new(
                Verdict::Fail,
                "database",
                "no database.url, and `run` needs one",
                advice,
            )];
        }
    };
    let Database { pool_max, read_pool_max, read_timeout_seconds, .. } = config.database;
    let settings = StoreSettings {
        pool_max,
        read_pool_max,
        read_timeout_seconds,
        statement_timeout_seconds: ANSWER.as_secs(),
        ..StoreSettings::new(&url, "farmiq-edge doctor")
    };
    let looked = async { look_at_database(&Store::new(&settings)?).await };
    looked.await.unwrap_or_else(|error: StoreError| {
        let advice = if matches!(error, StoreError::Unfit(_)) {
            "what is acknowledged would not be kept: the engine does not start like this"
        } else {
            advice
        };
        vec![Finding::new(Verdict::Fail, "database", causes(&error), advice)]
    })
}

fn problem(problem: Problem) -> Finding {
    let verdict = if problem.is_fatal { Verdict::Fail } else { Verdict::Warn };
    Finding::new(verdict, "database", problem.text, problem.advice)
}

/// Whether the private database of a box could be started; none runs now.
async fn private_database(data_dir: &Path) -> Finding {
    match Cluster::examine(data_dir).await {
        Ok(text) => Finding::ok("database", text),
        Err(error) => {
            Finding::new(Verdict::Fail, "database", causes(&error), "do what the line says, then ask again")
        }
    }
}

async fn look_at_database(store: &Store) -> Result<Vec<Finding>, StoreError> {
    let conn = store.conn().await?;
    let version = health::server_version(&conn).await?;
    let mut findings = vec![Finding::ok("database", format!("answers, PostgreSQL {version}"))];
    findings.extend(health::problems(store).await?.into_iter().map(problem));
    let standing = migration::standing(&conn).await?;
    let has_tables = matches!(standing, Standing::Current(_) | Standing::Ahead { .. });
    findings.push(tables(standing));
    if has_tables {
        let missing = partition::missing_ahead(&conn, Clock::system().now()).await?;
        findings.push(match missing.first() {
            None => Finding::ok("partitions", "made ahead of time"),
            Some(first) => {
                let text = format!("{} missing, the first is {first}", missing.len());
                Finding::new(
                    Verdict::Warn,
                    "partitions",
                    text,
                    "start the engine: it makes them at start and daily",
                )
            }
        });
    }
    Ok(findings)
}

fn tables(standing: Standing) -> Finding {
    match standing {
        Standing::Current(is) => Finding::ok("tables", format!("migrated to {is}")),
        Standing::Ahead { is, ours } => Finding::ok(
            "tables",
            format!("migrated to {is} by a newer program, which lets this one run; its own last is {ours}"),
        ),
        Standing::Behind { is, wanted } => {
            let is = is.map_or("nothing".to_owned(), |is| is.to_string());
            let text = format!("migrated to {is}, wanted {wanted}");
            Finding::new(Verdict::Warn, "tables", text, "run `farmiq-edge migrate`, or just start the engine")
        }
        Standing::Misfit(misfit) => {
            Finding::new(Verdict::Fail, "tables", misfit.to_string(), "run the program that made the tables")
        }
    }
}

async fn mqtt(config: &Config) -> Vec<Finding> {
    if config.mqtt.mode == MqttMode::External {
        return vec![links::broker(config).await];
    }
    let broker = &config.broker;
    let listeners = [
        ("mqtt", broker.listen),
        ("mqtt tls", broker.listen_tls),
        ("mqtt ws", broker.listen_ws),
        ("mqtt wss", broker.listen_wss),
    ];
    let mut findings = Vec::new();
    for (subject, listen) in listeners {
        let Some(listen) = listen else { continue };
        findings.push(listener(subject, listen, config).await);
    }
    findings
}

/// Whether a port can be listened on, or is taken by an engine that runs already.
async fn listener(subject: &'static str, listen: SocketAddr, config: &Config) -> Finding {
    match TcpListener::bind(listen).await {
        Ok(_) => Finding::ok(subject, format!("{listen} is free")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if crate::health::ask(&config.http, Question::Lives).await.is_ok() {
                return Finding::ok(
                    subject,
                    format!("{listen} is in use, and a farmiq-edge answers on this machine"),
                );
            }
            let advice =
                format!("see who it is with `ss -ltnp 'sport = :{}'`, or choose another port", listen.port());
            Finding::new(Verdict::Fail, subject, format!("{listen} is in use by another program"), advice)
        }
        Err(error) => Finding::new(
            Verdict::Fail,
            subject,
            format!("{listen}: {error}"),
            "choose an address and port this user may listen on",
        ),
    }
}

async fn media(config: &Config) -> Finding {
    let media = &config.media;
    if media.backend_in_use() == MediaBackend::S3 {
        return links::bucket(config).await;
    }
    let root = nearest_existing(&media.root);
    let draft = root.join(format!(".farmiq-doctor-{}", std::process::id()));
    match std::fs::write(&draft, b"ok").and_then(|()| std::fs::remove_file(&draft)) {
        Ok(()) => Finding::ok("images", format!("{} can be written", root.display())),
        Err(error) => {
            let kind = error.kind();
            let advice = if matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
                "make room on its volume: bytes, or files (`df -h` and `df -i` show both)".to_owned()
            } else if kind == io::ErrorKind::ReadOnlyFilesystem {
                "mount its volume for writing".to_owned()
            } else {
                let (root, uid) = (media.root.display(), rustix::process::geteuid().as_raw());
                format!("`mkdir -p {root}` and `chown` it to this user (uid {uid})")
            };
            Finding::new(Verdict::Fail, "images", format!("{}: {error}", root.display()), advice)
        }
    }
}

/// Whether RabbitMQ lets us in, where it is wanted. When it does not, that is no failure: jobs are found without it.
async fn rabbitmq(config: &Config) -> Option<Finding> {
    if config.inference.queue != InferenceQueue::Rabbitmq {
        return None;
    }
    let url = tree::inference::rabbitmq_url(config)?;
    Some(match link::probe(&url).await {
        Ok(()) => Finding::ok("rabbitmq", format!("{url} lets us in")),
        Err(error) => {
            let advice = "check inference.rabbitmq_url, and that the server runs and knows the user; workers look for jobs in the database meanwhile";
            Finding::new(Verdict::Warn, "rabbitmq", format!("{url}: {}", causes(&error)), advice)
        }
    })
}

/// Whether the model can be used: the engine does not start without one.
async fn model(config: &Config) -> Finding {
    let source = Source::of(config.inference.model_path.as_deref());
    match Model::load(source.clone(), tree::inference::overrides(config)).await {
        Ok(model) if model.is_demo() => Finding::new(
            Verdict::Warn,
            "model",
            format!(
                "{source}: {}, a demonstration: its weights are not those of real birds",
                model.version()
            ),
            "set inference.model_path to a package of your own: docs/models.md",
        ),
        Ok(model) => Finding::ok("model", format!("{source}: {} passes its self-test", model.version())),
        Err(error) => {
            let text = format!("{source}: {}", error.explanation());
            Finding::new(
                Verdict::Fail,
                "model",
                text,
                "see `farmiq-edge model check --help` and docs/models.md",
            )
        }
    }
}

/// The directory itself, or the nearest one above it that is there: the doctor makes nothing.
fn nearest_existing(place: &Path) -> PathBuf {
    place.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/")).to_owned()
}

/// Whether the cloud answers to our name. When it does not, that is no failure: a barn works offline.
async fn cloud(config: &Config) -> Finding {
    let Some(settings) = tree::cloud_settings(config) else {
        return Finding::ok("cloud", "off: rows wait until cloud.url is set");
    };
    let diagnosis = match sync::greet(&settings, Clock::system()).await {
        Ok(diagnosis) => diagnosis,
        Err(error) => {
            return Finding::new(Verdict::Fail, "cloud", causes(&error), "correct the cloud settings");
        }
    };
    if diagnosis.is_ok {
        return Finding::ok("cloud", diagnosis.message);
    }
    let (text, advice) = match (diagnosis.skew_ms, diagnosis.status) {
        (Some(skew_ms), _) => (
            format!("its clock and ours differ by {skew_ms} ms"),
            "set the clock: `timedatectl set-ntp true`",
        ),
        (None, Some(401 | 403)) => (diagnosis.message, "check cloud.auth_mode and the key or secret"),
        (None, _) => {
            (diagnosis.message, "check cloud.url, the network and the name servers; rows wait meanwhile")
        }
    };
    Finding::new(Verdict::Warn, "cloud", text, advice)
}

/// An error with its causes.
fn causes(error: &dyn std::error::Error) -> String {
    std::iter::successors(error.source(), |error| error.source())
        .fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Flag, Inputs, load};

    #[tokio::test]
    async fn a_port_taken_by_another_program_is_a_failure_with_a_way_out() {
        let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let taken = other.local_addr().unwrap();
        let mut config = Config::default();
        config.http.listen = "127.0.0.1:1".parse().unwrap();
        let finding = listener("mqtt", taken, &config).await;
        assert!(finding.is_failure() && finding.advice.contains(&taken.port().to_string()), "{finding:?}");
        drop(other);
        assert!(!listener("mqtt", taken, &config).await.is_failure());
    }

    #[test]
    fn an_up_is_not_warned_of_secrets_that_it_makes() {
        let loaded = load(&Inputs::default()).unwrap();
        let warns = |command: Command| {
            command.notices(&loaded).iter().any(|notice| notice.contains("auth.jwt_secrets"))
        };
        assert!(warns(Command::Run) && !warns(Command::Up));
    }

    #[tokio::test]
    async fn a_database_that_is_away_is_one_failure_and_the_rest_is_still_looked_at() {
        let directory = tempfile::tempdir().unwrap();
        let set = |path, value: &str| Flag { name: "--test", path, value: value.to_owned() };
        let flags = vec![
            set("database.url", "host=/nowhere user=farmiq password=hush"),
            set("media.root", directory.path().to_str().unwrap()),
            set("http.listen", "127.0.0.1:0"),
            set("mqtt.mode", "embedded"),
            set("broker.listen", "127.0.0.1:0"),
            set("inference.queue", "rabbitmq"),
            set("inference.rabbitmq_url", "amqp://u:hush@127.0.0.1:1"),
        ];
        let loaded = load(&Inputs { flags, ..Inputs::default() }).unwrap();
        let findings = examine(&loaded, Command::Run).await;
        let failures: Vec<_> = findings.iter().filter(|finding| finding.is_failure()).collect();
        assert_eq!(failures.len(), 1, "{}", report(&findings));
        assert_eq!(failures[0].subject, "database");
        let report = report(&findings);
        assert!(report.contains("ok    images") && report.contains("ok    clock"), "{report}");
        assert!(report.contains("warn  rabbitmq"), "{report}");
        let lines = lines(&findings);
        let line = lines.lines().find(|line| line.contains("rabbitmq")).unwrap_or_default();
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!((&line["verdict"], lines.lines().count()), (&json!("warn"), findings.len()), "{line}");
        assert!(!report.contains("hush"));
    }
}
