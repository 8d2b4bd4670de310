//! The command line of `farmiq-loadtest`.

mod cli;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::watch;

use loadtest::report::{note, say};
use loadtest::{
    barn, bench, chaos, cloud, door, drain, page, record, render, replay, rest, retention, weigh,
};
use schema::clock::Clock;

use cli::{Cli, Command};

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            note(format!("error: {error:#}"));
            ExitCode::from(2)
        }
    }
}

/// Lets this process open as many files as the system allows it: each simulated device has a socket.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Where that is not allowed, the connection that is one too many says so.
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).ok();
}

fn run(cli: Cli) -> Result<bool> {
    raise_file_limit();
    // A benchmark shares its cores with what it measures: one thread is enough for fifty sockets and a cloud.
    let mut runtime = if matches!(
        cli.command,
        Command::Bench(_) | Command::Door(_) | Command::Drain(_) | Command::Retention(_) | Command::Rest(_)
    ) {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    let runtime = runtime.enable_all().build();
    runtime.context("start the runtime")?.block_on(async {
        let (stop, stopped) = watch::channel(false);
        tokio::select! {
            outcome = execute(cli.command, stopped) => outcome,
            () = interrupts(stop) => Ok(false),
        }
    })
}

/// The first Ctrl-C asks the command to end, the second ends it.
async fn interrupts(stop: watch::Sender<bool>) {
    for is_last in [false, true] {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        if !is_last {
            note("stopping; Ctrl-C again to leave at once");
        }
        stop.send_replace(true);
    }
}

async fn execute(command: Command, stop: watch::Receiver<bool>) -> Result<bool> {
    match command {
        Command::Cloud(args) => serve_cloud(args.settings(), stop).await,
        Command::Record(args) => record::run(args.settings()?, stop).await.map(|()| true),
        Command::Replay(args) if args.print_allowlist_sql => {
            say(replay::allowlist_sql(&args.settings()?)?.trim_end());
            Ok(true)
        }
        Command::Replay(args) => replay::run(args.settings()?, stop).await,
        Command::Barn(args) => live_barn(*args, stop).await,
        Command::Report(args) => page::run(&args.settings()),
        Command::Verify(args) => args.run().await,
        Command::Chaos(args) => chaos::run(args.settings(), stop).await,
        Command::Bench(args) => bench::run(args.settings(), stop).await.map(|()| true),
        Command::Door(args) => door::run(args.settings()?, stop).await.map(|()| true),
        Command::Drain(args) => drain::run(args.settings(), stop).await,
        Command::Rest(args) => rest::run(args.settings(), stop).await,
        Command::Retention(args) => retention::run(args.settings(), stop).await,
        Command::Weigh(args) => weigh::run(args.settings(), stop).await,
        Command::Render(args) => render::folder::run(&args.settings(), stop).await,
    }
}

async fn serve_cloud(settings: cloud::Settings, mut stop: watch::Receiver<bool>) -> Result<bool> {
    let cloud = cloud::PretendCloud::start(settings).await?;
    say(format!("pretend cloud at {}", cloud.url()));
    if let Some(control) = cloud.control_address() {
        say(format!("judge at http://{control}/judge"));
    }
    drop(stop.wait_for(|is_stopped| *is_stopped).await);
    let verdict = cloud.shutdown().await;
    say(serde_json::to_string_pretty(&verdict)?);
    Ok(verdict.violations_total == 0)
}

async fn live_barn(args: cli::barn::BarnArgs, stop: watch::Receiver<bool>) -> Result<bool> {
    let settings = args.settings()?;
    let now = Clock::system().now();
    if args.print_allowlist_sql {
        say(barn::allowlist_sql(&settings, now).trim_end());
        return Ok(true);
    }
    if let Some(file) = &args.allowlist_file {
        std::fs::write(file, barn::allowlist_sql(&settings, now))
            .with_context(|| format!("write {}", file.display()))?;
    }
    barn::run(settings, stop).await
}
