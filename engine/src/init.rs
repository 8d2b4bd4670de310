//! The first process of a container: starts the program as its child, passes signals on to it, buries whoever is left
//! to it, and ends as the program ends.
//!
//! Processes whose parent has died become children of the first process, and stay as zombies until it asks how they
//! ended. The program itself cannot ask for all of them, since it waits for children of its own.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, wait};
use tokio::signal::unix::{SignalKind, signal};

/// How a shell says that a signal ended a program: this, and the number of the signal.
const ENDED_BY_SIGNAL: i32 = 128;

/// Whether this process is the first one.
pub fn is_first() -> bool {
    std::process::id() == 1
}

/// Runs the program with the same arguments as a child, until it ends.
///
/// # Errors
/// When it cannot be started, or signals cannot be listened for.
pub fn run() -> io::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(look_after_the_program())
}

async fn look_after_the_program() -> io::Result<ExitCode> {
    // A first process has no default for signals: what comes before it listens is lost, so it listens first.
    let mut children = signal(SignalKind::child())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let program = start()?;
    loop {
        let pass_on = tokio::select! {
            _ = children.recv() => None,
            _ = terminate.recv() => Some(Signal::TERM),
            _ = interrupt.recv() => Some(Signal::INT),
            _ = hangup.recv() => Some(Signal::HUP),
        };
        if let Some(signal) = pass_on {
            // It may have ended a moment ago, which is seen below.
            let _ = kill_process(program, signal);
        }
        while let Some((pid, status)) = wait(WaitOptions::NOHANG)? {
            if pid == program {
                return Ok(code_of(status));
            }
        }
    }
}

/// Starts the program in a process group of its own, so that a Ctrl-C reaches it once, through us.
fn start() -> io::Result<Pid> {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    let mut command = Command::new(std::env::current_exe()?);
    let child = command.arg0(name).args(arguments).process_group(0).spawn()?;
    Ok(Pid::from_child(&child))
}

fn code_of(status: WaitStatus) -> ExitCode {
    let code = status.exit_status().or_else(|| Some(ENDED_BY_SIGNAL + status.terminating_signal()?));
    code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}
