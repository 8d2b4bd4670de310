//! The program: reads the command line and the configuration, and runs the engine until it is told to stop.

use std::convert::Infallible;
use std::future::Future;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;
use engine::cli::model::{ModelCalibrate, ModelCheck, ModelCommand};
use engine::cli::upkeep::ClusterCommand;
use engine::cli::{BrokerConfigCommand, Cli, Command};
use engine::cluster::upgrade::{self, UpgradeError, Upgraded};
use engine::cluster::{Cluster, Stage};
use engine::config::{self, Config, Environment, Inputs, Loaded, Secret};
use engine::first_keys::{self, FirstKeys};
use engine::health::Question;
use engine::reload::Reload;
use engine::systemd::Systemd;
use engine::tree::Beside;
use engine::tree::worker::{self, Work};
use engine::{
    alarm, backup, broker_config, descriptors, device, doctor, flock, greeting, health, init, invite, model,
    observe, restore, session, standard, station, support, tree, update,
};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The configuration has a mistake.
const EXIT_CONFIGURATION: u8 = 2;
/// Longest time from the first signal to the end, the private database not counted.
const SHUTDOWN_SECONDS_MAX: u64 = 10;
/// From the first signal to the end of the private database.
const DATABASE_STOP: Duration = Duration::from_secs(9);
/// What the private database has to end, however long everything else took.
const DATABASE_STOP_MIN: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    // The allocator asks the system for huge pages, and at rest fills a small part of each. A system that has none is fine.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    let mut cli = Cli::parse();
    if let Command::CheckConfig { example: true, .. } = cli.command {
        return say(&config::example());
    }
    if cli.command.is_long_running() && init::is_first() {
        return init::run().unwrap_or_else(|error| {
            complain(&format!("farmiq-edge: start as a child of the first process: {error}\n"));
            ExitCode::FAILURE
        });
    }
    let environment = Environment::of_process();
    cli.settle(&environment);
    let systemd = if cli.command.is_long_running() { Systemd::of(&environment) } else { Ok(None) };
    let inputs = cli.inputs(environment);
    let loaded = match config::load(&inputs) {
        Ok(loaded) => loaded,
        Err(mistakes) => {
            complain(&mistakes.report(io::stderr().is_terminal()));
            return ExitCode::from(EXIT_CONFIGURATION);
        }
    };
    if let Command::CheckConfig { judged, .. } = &cli.command {
        return check_config(&loaded, judged.command());
    }
    let started =
        systemd.context("tell systemd").and_then(|systemd| start(cli.command, inputs, loaded, systemd));
    match started {
        Ok(code) => code,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "gave up");
            complain(&format!("farmiq-edge: {error:#}\n"));
            ExitCode::FAILURE
        }
    }
}

fn check_config(loaded: &Loaded, command: doctor::Command) -> ExitCode {
    for notice in command.notices(loaded) {
        complain(&format!("note: {notice}\n"));
    }
    say(&loaded.effective())
}

fn check_model(wish: &ModelCheck, config: &Config) -> ExitCode {
    match model::check(wish, config) {
        Ok(report) if wish.json => say(&format!("{}\n", report.json())),
        Ok(report) => say(&report.to_string()),
        Err(error) => {
            complain(&format!("farmiq-edge: {error}\n"));
            ExitCode::FAILURE
        }
    }
}

fn calibrate_model(wish: &ModelCalibrate, config: &Config) -> ExitCode {
    match model::calibrate::calibrate(wish, config) {
        Ok(found) if wish.json => say(&format!("{}\n", found.json())),
        Ok(found) => say(&found.to_string()),
        Err(error) => {
            complain(&format!("farmiq-edge: {error}\n"));
            ExitCode::FAILURE
        }
    }
}

fn start(
    command: Command,
    inputs: Inputs,
    mut loaded: Loaded,
    systemd: Option<Systemd>,
) -> anyhow::Result<ExitCode> {
    let first_keys = match command {
        Command::Up(_) => Some(first_keys::provide(&mut loaded.config)?),
        Command::Run
        | Command::Worker(_)
        | Command::Migrate
        | Command::CheckConfig { .. }
        | Command::Doctor(_)
        | Command::Health(_)
        | Command::Alarm(_)
        | Command::Device(_)
        | Command::Console(_)
        | Command::Flock(_)
        | Command::Session(_)
        | Command::Standard(_)
        | Command::Station(_)
        | Command::BrokerConfig(_)
        | Command::Model(_)
        | Command::Backup(_)
        | Command::Restore(_)
        | Command::Support(_)
        | Command::Update(_)
        | Command::Cluster(_) => None,
    };
    let reload = Reload::new(inputs, loaded.config.clone(), first_keys.is_some());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the runtime")?;
    let http = loaded.config.http.clone();
    let running = execute(command, loaded, reload, first_keys.unwrap_or_default());
    let outcome = runtime.block_on(informing(systemd, &http, running));
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

async fn execute(
    command: Command,
    loaded: Loaded,
    reload: Reload,
    first_keys: FirstKeys,
) -> anyhow::Result<ExitCode> {
    let beside = Beside { auth: Some(reload.auth()), ..Beside::default() };
    match command {
        Command::Up(_) => obeying_hangups(reload, up(loaded, beside, first_keys)).await,
        Command::Run => {
            start_logging(&loaded, observe::LogStyle::Json);
            let signals = &mut Signals::listen()?;
            obeying_hangups(reload, run_until_signal(Role::Engine, loaded.config, beside, signals)).await
        }
        Command::Worker(worker) => {
            start_logging(&loaded, observe::LogStyle::Json);
            let signals = &mut Signals::listen()?;
            let role = Role::Worker(worker.works);
            obeying_hangups(reload, run_until_signal(role, loaded.config, beside, signals)).await
        }
        Command::Migrate => {
            start_logging(&loaded, style_for_people());
            tree::migrate(&loaded.config).await?;
            tracing::info!("the tables are up to date");
            Ok(ExitCode::SUCCESS)
        }
        Command::Doctor(wish) => {
            let findings = doctor::examine(&loaded, wish.judged.command()).await;
            say(&if wish.json { doctor::lines(&findings) } else { doctor::report(&findings) });
            Ok(if findings.iter().any(doctor::Finding::is_failure) {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            })
        }
        Command::Health(wish) => {
            let question = if wish.ready { Question::IsReady } else { Question::Lives };
            match health::ask(&loaded.config.http, question).await {
                Ok(good) => Ok(say(&format!("{good}\n"))),
                Err(error) => {
                    say(&format!("{error}\n"));
                    Ok(ExitCode::FAILURE)
                }
            }
        }
        Command::CheckConfig { judged, .. } => Ok(check_config(&loaded, judged.command())),
        Command::BrokerConfig(BrokerConfigCommand::Mosquitto(wish)) => {
            if wish.watch {
                start_logging(&loaded, style_for_people());
            }
            Ok(say(&broker_config::run(&wish, &loaded.config).await?))
        }
        Command::Alarm(wish) => {
            let outcome = alarm::run(&wish, &loaded.config).await?;
            let code = say(&outcome.text);
            Ok(if outcome.is_ok { code } else { ExitCode::FAILURE })
        }
        Command::Device(wish) => Ok(say(&device::run(&wish, &loaded.config).await?)),
        Command::Console(wish) => Ok(say(&invite::run(wish, &loaded.config).await?)),
        Command::Flock(wish) => Ok(say(&flock::run(wish, &loaded.config).await?)),
        Command::Session(wish) => Ok(say(&session::run(wish, &loaded.config).await?)),
        Command::Standard(wish) => Ok(say(&standard::run(wish, &loaded.config).await?)),
        Command::Station(wish) => Ok(say(&station::run(wish, &loaded.config).await?)),
        Command::Model(ModelCommand::Check(wish)) => Ok(check_model(&wish, &loaded.config)),
        Command::Model(ModelCommand::Calibrate(wish)) => Ok(calibrate_model(&wish, &loaded.config)),
        Command::Model(ModelCommand::Candidate(wish)) => {
            Ok(say(&model::candidate::run(wish, &loaded.config).await?))
        }
        Command::Backup(wish) if wish.list => Ok(say(&backup::list(&wish.wish(), &loaded.config).await?)),
        Command::Backup(wish) => {
            let report = backup::run(&wish.wish(), &loaded).await?;
            Ok(say_report(&report, wish.json))
        }
        Command::Cluster(wish) => Ok(say(&look_after_cluster(&wish, &loaded.config.edge.data_dir).await?)),
        Command::Support(wish) => {
            let report = support::run(&wish.wish(), &loaded, wish.judged.command()).await?;
            Ok(say_report(&report, wish.json))
        }
        Command::Update(wish) => {
            let tell = |step: &str| complain(&format!("{step}\n"));
            Ok(say(&format!("{}\n", update::run(&wish, &loaded, &tell).await?)))
        }
        Command::Restore(wish) => {
            let report = restore::run(&wish.wish(), &loaded.config).await?;
            let code = say_report(&report, wish.json);
            Ok(if report.is_whole() { code } else { ExitCode::FAILURE })
        }
    }
}

/// Does what is wished about the private cluster, and says what came of it.
async fn look_after_cluster(wish: &ClusterCommand, data_dir: &Path) -> Result<String, UpgradeError> {
    match wish {
        ClusterCommand::Upgrade { to, .. } => {
            let Upgraded { from, to, kept } = upgrade::upgrade(data_dir, *to).await?;
            let kept = kept.display();
            Ok(format!(
                "PostgreSQL {to} has the data that {from} had; start the engine\n\
                 {kept} is kept until `farmiq-edge cluster forget-old`\n"
            ))
        }
        ClusterCommand::ForgetOld { .. } => {
            Ok(format!("{} is removed\n", upgrade::forget_old(data_dir).await?.display()))
        }
    }
}

/// Says a report for people, or for a program.
fn say_report(report: &(impl std::fmt::Display + serde::Serialize), is_for_programs: bool) -> ExitCode {
    if is_for_programs {
        let text = serde_json::to_string(report).expect("a report is made of texts, numbers and times");
        return say(&format!("{text}\n"));
    }
    say(&report.to_string())
}

/// Runs with everything embedded. HTTP answers before the private database does, which is stopped last.
async fn up(mut loaded: Loaded, mut beside: Beside, first_keys: FirstKeys) -> anyhow::Result<ExitCode> {
    start_logging(&loaded, style_for_people());
    first_keys.remark();
    let mut signals = Signals::listen()?;
    let operator = first_keys.operator.as_ref();
    if loaded.config.database.url.is_some() {
        complain(&greeting::of(&loaded.config, None, operator));
        return run_until_signal(Role::Engine, loaded.config, beside, &mut signals).await;
    }
    let cluster = Cluster::hold(&loaded.config.edge.data_dir).await?;
    loaded.config.database.url = Some(Secret::from(cluster.url()));
    let greeting = greeting::of(&loaded.config, Some(&cluster.url()), operator);
    let stage = cluster.stage();
    beside.cluster = Some(stage.clone());
    beside.own_database = Some(cluster.directory().to_owned());
    let (tell, told) = oneshot::channel();
    let mut kept = std::pin::pin!(cluster.keep(async { told.await.unwrap_or_else(|_| Instant::now()) }));
    let outcome = tokio::select! {
        outcome = run_until_signal(Role::Engine, loaded.config, beside, &mut signals) => outcome,
        ended = &mut kept => return ended.map(|()| ExitCode::FAILURE).context("run the private database"),
        never = greet(stage, &greeting) => match never {},
    };
    let _ = tell.send(signals.stop_by());
    kept.await.context("run the private database")?;
    outcome
}

/// Shows the greeting once the private database can be used as it says.
async fn greet(mut stage: watch::Receiver<Stage>, greeting: &str) -> Infallible {
    if stage.wait_for(|stage| *stage == Stage::Ready).await.is_ok() {
        complain(greeting);
    }
    std::future::pending().await
}

/// Runs, and keeps the service manager informed, if one started this process.
async fn informing(
    systemd: Option<Systemd>,
    http: &config::Http,
    running: impl Future<Output = anyhow::Result<ExitCode>>,
) -> anyhow::Result<ExitCode> {
    let Some(systemd) = systemd else { return running.await };
    tokio::select! {
        outcome = running => outcome,
        error = systemd.keep_informed(http) => match error.context("tell systemd")? {},
    }
}

/// Runs, and reads the configuration again whenever a SIGHUP says so.
async fn obeying_hangups(
    mut reload: Reload,
    running: impl Future<Output = anyhow::Result<ExitCode>>,
) -> anyhow::Result<ExitCode> {
    let mut hangup = signal(SignalKind::hangup()).context("listen for signals")?;
    let mut running = std::pin::pin!(running);
    loop {
        tokio::select! {
            outcome = &mut running => return outcome,
            _ = hangup.recv() => reload.again(),
        }
    }
}

/// What a process is.
enum Role {
    /// Everything.
    Engine,
    /// Does some work for an engine.
    Worker(Vec<Work>),
}

/// Runs in a role. The first signal ends it in order, a second one, or time running out, at once.
async fn run_until_signal(
    role: Role,
    mut config: Config,
    beside: Beside,
    signals: &mut Signals,
) -> anyhow::Result<ExitCode> {
    if let Err(error) = descriptors::fit(&mut config, descriptors::raise()) {
        let (mqtt, http) = (config.broker.connections_max, config.http.connections_max);
        tracing::warn!(%error, mqtt, http, "fewer places for connections than configured");
    }
    let metrics = observe::metrics(&config);
    let (tell, told) = oneshot::channel();
    let impatience = async {
        signals.next().await;
        tracing::info!("stopping");
        let _ = tell.send(());
        tokio::select! {
            () = signals.next() => {}
            () = tokio::time::sleep(Duration::from_secs(SHUTDOWN_SECONDS_MAX)) => {}
        }
    };
    let shutdown = async { drop(told.await) };
    let running = async {
        match role {
            Role::Engine => tree::run_beside(config, beside, shutdown).await,
            Role::Worker(works) => worker::run(config, &works, beside, shutdown).await,
        }
    };
    let outcome = tokio::select! {
        outcome = running => outcome.map(|()| ExitCode::SUCCESS),
        () = impatience => bail!("stopped before everything was done; what was not acknowledged comes again"),
        never = metrics.report() => match never {},
    };
    metrics.report_last().await;
    outcome
}

/// The two signals that end the program.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// When the first one came.
    first_at: Option<Instant>,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("listen for signals");
        let (terminate, interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
        Ok(Self { terminate, interrupt, first_at: None })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        self.first_at.get_or_insert_with(Instant::now);
    }

    /// By when the private database is to have ended.
    fn stop_by(&self) -> Instant {
        let now = Instant::now();
        (self.first_at.unwrap_or(now) + DATABASE_STOP).max(now + DATABASE_STOP_MIN)
    }
}

/// Starts logging, with what the configuration wants to have said once.
fn start_logging(loaded: &Loaded, style: observe::LogStyle) {
    observe::log(&loaded.config, style);
    for notice in loaded.notices() {
        tracing::warn!(notice, "configuration");
    }
    let edge = &loaded.config.edge;
    tracing::info!(edge_id = edge.id, commit = edge.commit, "farmiq-edge starts");
}

fn style_for_people() -> observe::LogStyle {
    if io::stderr().is_terminal() { observe::LogStyle::Terminal } else { observe::LogStyle::Json }
}

/// Writes to stdout; whoever closed the other end has read enough.
fn say(text: &str) -> ExitCode {
    let _ = io::stdout().lock().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

/// Writes to stderr, for people.
fn complain(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}
