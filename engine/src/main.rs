//! The program: reads the command line and the configuration, and runs the engine until it is told to stop.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;
use engine::cli::{BrokerConfigCommand, Cli, Command, ModelCheck, ModelCommand};
use engine::cluster::Cluster;
use engine::config::{self, Config, Environment, Loaded, Secret};
use engine::{broker_config, device, doctor, greeting, model, observe, tree};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The configuration has a mistake.
const EXIT_CONFIGURATION: u8 = 2;
/// Longest time from the first signal to the end, the private database not counted.
const SHUTDOWN_SECONDS_MAX: u64 = 10;

fn main() -> ExitCode {
    // The allocator asks the system for huge pages, and at rest fills a small part of each. A system that has none is fine.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    let cli = Cli::parse();
    if let Command::CheckConfig { example: true } = cli.command {
        return say(&config::example());
    }
    let loaded = match config::load(&cli.inputs(Environment::of_process())) {
        Ok(loaded) => loaded,
        Err(mistakes) => {
            complain(&mistakes.report(io::stderr().is_terminal()));
            return ExitCode::from(EXIT_CONFIGURATION);
        }
    };
    if let Command::CheckConfig { .. } = cli.command {
        return check_config(&loaded);
    }
    match in_runtime(cli.command, loaded) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "gave up");
            complain(&format!("farmiq-edge: {error:#}\n"));
            ExitCode::FAILURE
        }
    }
}

fn check_config(loaded: &Loaded) -> ExitCode {
    for notice in &loaded.notices {
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

fn in_runtime(command: Command, loaded: Loaded) -> anyhow::Result<ExitCode> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the runtime")?;
    let outcome = runtime.block_on(execute(command, loaded));
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

async fn execute(command: Command, loaded: Loaded) -> anyhow::Result<ExitCode> {
    match command {
        Command::Up(_) => up(loaded).await,
        Command::Run => {
            start_logging(&loaded, observe::LogStyle::Json);
            run_until_signal(Role::Engine, loaded.config, Signals::listen()?).await
        }
        Command::Worker => {
            start_logging(&loaded, observe::LogStyle::Json);
            run_until_signal(Role::Worker, loaded.config, Signals::listen()?).await
        }
        Command::Migrate => {
            start_logging(&loaded, style_for_people());
            tree::migrate(&loaded.config).await?;
            tracing::info!("the tables are up to date");
            Ok(ExitCode::SUCCESS)
        }
        Command::Doctor => {
            let findings = doctor::examine(&loaded).await;
            say(&doctor::report(&findings));
            Ok(if findings.iter().any(doctor::Finding::is_failure) {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            })
        }
        Command::CheckConfig { .. } => Ok(check_config(&loaded)),
        Command::BrokerConfig(BrokerConfigCommand::Mosquitto(wish)) => {
            if wish.watch {
                start_logging(&loaded, style_for_people());
            }
            Ok(say(&broker_config::run(&wish, &loaded.config).await?))
        }
        Command::Device(wish) => Ok(say(&device::run(&wish, &loaded.config).await?)),
        Command::Model(ModelCommand::Check(wish)) => Ok(check_model(&wish, &loaded.config)),
    }
}

/// Runs with everything embedded; the private database is stopped last.
async fn up(mut loaded: Loaded) -> anyhow::Result<ExitCode> {
    start_logging(&loaded, style_for_people());
    let mut signals = Signals::listen()?;
    let mut private = None;
    if loaded.config.database.url.is_none() {
        // A server that is left half way is found by the next start.
        let cluster = tokio::select! {
            started = Cluster::start(&loaded.config.edge.data_dir) => started?,
            () = signals.next() => bail!("stopped while the private database was starting"),
        };
        loaded.config.database.url = Some(Secret::from(cluster.url()));
        private = Some(cluster);
    }
    complain(&greeting::of(&loaded.config, private.as_ref().map(Cluster::url).as_deref()));
    let outcome = run_until_signal(Role::Engine, loaded.config, signals).await;
    if let Some(cluster) = private {
        cluster.stop().await.context("stop the private database")?;
    }
    outcome
}

/// What a process is.
#[derive(Clone, Copy)]
enum Role {
    /// Everything.
    Engine,
    /// Inference workers alone.
    Worker,
}

/// Runs in a role. The first signal ends it in order, a second one, or time running out, at once.
async fn run_until_signal(role: Role, config: Config, mut signals: Signals) -> anyhow::Result<ExitCode> {
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
            Role::Engine => tree::run(config, shutdown).await,
            Role::Worker => tree::run_worker(config, shutdown).await,
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
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("listen for signals");
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Starts logging, with what the configuration wants to have said once.
fn start_logging(loaded: &Loaded, style: observe::LogStyle) {
    observe::log(&loaded.config, style);
    for notice in &loaded.notices {
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
