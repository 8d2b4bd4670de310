//! `farmiq-edge model candidate`: tries a model on stored pictures, says how it differs from the one in use, and switches to it
//! and back.
//!
//! The engine that runs on the database reads the pictures. Switching is the work of this command: `inference.model_path`
//! names a link, which is turned to the candidate in one step; `<link>.before` keeps where it pointed.

use std::fmt::Write;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use actors::inference::trial::{self, Candidate, Difference, Report};
use anyhow::{Context, anyhow, bail, ensure};
use schema::clock::Clock;
use schema::store::audit::{self, Action, Deed};
use schema::store::inference::trial::{self as rows, Trial};
use schema::store::{Conn, Store};
use serde_json::{Value, json};

use crate::author::author;
use crate::cli::model::CandidateCommand;
use crate::config::Config;
use crate::device::with_database;
use crate::tree;

/// Does what is wished, and says what came of it.
///
/// # Errors
/// When there is no database, it has not the tables of this version, or the wish cannot be fulfilled.
pub async fn run(wish: CandidateCommand, config: &Config) -> anyhow::Result<String> {
    let desk = Desk { store: tree::store_alone(&with_database(config)?)?, clock: Clock::system(), config };
    match wish {
        CandidateCommand::Set { package, pictures, tenant } => desk.begin(&package, pictures, tenant).await,
        CandidateCommand::State { json } => {
            let trial = desk.newest().await?;
            Ok(if json { format!("{}\n", object(&trial)) } else { line(&trial) })
        }
        CandidateCommand::Stop => desk.stop().await,
        CandidateCommand::Report { worst, json } => {
            let trial = desk.newest().await?;
            let find = async |conn: &mut Conn| rows::findings(conn, trial.id).await;
            let findings = desk.store.run("model_trial_findings", find).await?;
            let report = trial::report(&findings, usize::from(worst));
            if json {
                return Ok(format!("{}\n", json!({"trial": object(&trial), "report": report})));
            }
            Ok(format!("{}{}", line(&trial), told(&report)))
        }
        CandidateCommand::Switch { now } => desk.switch(now).await,
        CandidateCommand::Back => desk.back().await,
    }
}

struct Desk<'a> {
    store: Store,
    clock: Clock,
    config: &'a Config,
}

impl Desk<'_> {
    async fn newest(&self) -> anyhow::Result<Trial> {
        let find = async |conn: &mut Conn| rows::newest(conn).await;
        let trial = self.store.run("model_trial", find).await?;
        trial.context("no model is tried: farmiq-edge model candidate set PACKAGE")
    }

    async fn begin(
        &self,
        package: &Path,
        pictures_max: i32,
        tenant_id: Option<String>,
    ) -> anyhow::Result<String> {
        let path = std::fs::canonicalize(package).with_context(|| format!("find {}", package.display()))?;
        let path = path.into_os_string().into_string();
        let path = path.map_err(|path| anyhow!("{} is no UTF-8", path.display()))?;
        let loaded = trial::load(&path, &tree::inference::overrides(self.config)).await;
        let Candidate { model, package_sha256 } = loaded.map_err(|fault| anyhow!("{path}: {fault}"))?;
        let now = self.clock.now();
        let trial = Trial {
            id: schema::id::new_id(),
            tenant_id,
            path,
            model_version: model.version().to_owned(),
            model_sha256: model.sha256().to_owned(),
            package_sha256,
            state: "reading".to_owned(),
            fault: None,
            pictures_max,
            pictures: 0,
            captured_at: None,
            media_id: None,
            created_at: now,
            updated_at: now,
        };
        let put = async |conn: &Conn| rows::put(conn, &trial).await;
        self.store
            .run("model_trial_put", async |conn| conn.transaction("model_trial_put", put).await)
            .await?;
        Ok(format!(
            "{}the engine reads up to {pictures_max} stored pictures with it while no job waits; what it finds:\n  farmiq-edge model candidate report\n",
            line(&trial)
        ))
    }

    async fn stop(&self) -> anyhow::Result<String> {
        let (trial, now) = (self.newest().await?, self.clock.now());
        let end = async |conn: &mut Conn| rows::set_state(conn, trial.id, ("ended", None), now).await;
        ensure!(self.store.run("model_trial_end", end).await?, "it does not go on: it is {}", trial.state);
        Ok(line(&self.newest().await?))
    }

    async fn switch(&self, is_at_once: bool) -> anyhow::Result<String> {
        let trial = self.newest().await?;
        let is_judged = trial.state == "done" || (is_at_once && trial.pictures > 0);
        ensure!(
            is_judged,
            "its trial is {}, after {} pictures: wait until it is done, or say --now",
            trial.state,
            trial.pictures
        );
        let loaded = trial::load(&trial.path, &tree::inference::overrides(self.config)).await;
        let candidate = loaded.map_err(|fault| anyhow!("{}: {fault}", trial.path))?;
        ensure!(
            candidate.package_sha256 == trial.package_sha256,
            "{} has other files now than those that were tried: begin a new trial",
            trial.path
        );
        let link = self.link()?;
        let before = std::fs::read_link(link).with_context(|| format!("read {}", link.display()))?;
        let target = Path::new(&trial.path);
        ensure!(
            link.is_dir() == target.is_dir(),
            "{} names a {}, and so must the candidate",
            link.display(),
            if link.is_dir() { "directory" } else { "file" }
        );
        let absolute = std::fs::canonicalize(link).ok();
        ensure!(absolute.as_deref() != Some(target), "{} is in use already", trial.path);
        self.note(&before, target).await?;
        turn(&before_of(link), &before)
            .and_then(|()| turn(link, target))
            .with_context(|| format!("turn {}", link.display()))?;
        Ok(format!(
            "{} names {} now; the engine takes it within seconds, or says why not in its log\nthe way back: farmiq-edge model candidate back\n",
            link.display(),
            trial.path
        ))
    }

    async fn back(&self) -> anyhow::Result<String> {
        let link = self.link()?;
        let kept = before_of(link);
        let before = std::fs::read_link(&kept)
            .with_context(|| format!("read {}: was a candidate ever switched to?", kept.display()))?;
        let now = std::fs::read_link(link).with_context(|| format!("read {}", link.display()))?;
        // Links are read from where they stand.
        let is_there = link.parent().unwrap_or(Path::new("/")).join(&before).exists();
        ensure!(is_there, "{} is not there any more", before.display());
        self.note(&now, &before).await?;
        turn(&kept, &now)
            .and_then(|()| turn(link, &before))
            .with_context(|| format!("turn {}", link.display()))?;
        Ok(format!("{} names {} again\n", link.display(), before.display()))
    }

    /// The link that names the model in use.
    fn link(&self) -> anyhow::Result<&Path> {
        let Some(path) = self.config.inference.model_path.as_deref() else {
            bail!("inference.model_path names no package: let it name a link, ln -s PACKAGE current");
        };
        ensure!(
            path.is_symlink(),
            "{} is no link, so it cannot be turned: mv it away, and ln -s to it in its place",
            path.display()
        );
        Ok(path)
    }

    async fn note(&self, from: &Path, to: &Path) -> anyhow::Result<()> {
        let detail = json!({"from": from.display().to_string(), "to": to.display().to_string()});
        let deed = Deed { action: Action::ModelSwitch, tenants: None, target: None, detail };
        let now = self.clock.now();
        let note = async |conn: &mut Conn| audit::record(conn, &author(), &deed, now).await;
        Ok(self.store.run("model_switch", note).await?)
    }
}

/// Where a link keeps what it named before.
fn before_of(link: &Path) -> PathBuf {
    let mut name = link.as_os_str().to_owned();
    name.push(".before");
    name.into()
}

/// Lets a link name something else, in one step: there is no moment without it.
fn turn(link: &Path, target: &Path) -> io::Result<()> {
    let mut next = link.as_os_str().to_owned();
    next.push(".next");
    let next = PathBuf::from(next);
    // What an attempt that was cut off has left.
    match std::fs::remove_file(&next) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    symlink(target, &next)?;
    std::fs::rename(&next, link)
}

fn object(trial: &Trial) -> Value {
    let time = schema::wire::time::format;
    json!({"id": trial.id, "tenant_id": trial.tenant_id, "path": trial.path, "model_version": trial.model_version,
        "model_sha256": trial.model_sha256, "state": trial.state, "fault": trial.fault, "pictures": trial.pictures,
        "pictures_max": trial.pictures_max, "created_at": time(trial.created_at), "updated_at": time(trial.updated_at)})
}

fn line(trial: &Trial) -> String {
    let fault = trial.fault.as_ref().map_or_else(String::new, |fault| format!(": {fault}"));
    format!(
        "{} ({})  {} of {} pictures, {}{fault}\n",
        trial.model_version, trial.path, trial.pictures, trial.pictures_max, trial.state
    )
}

fn told(report: &Report) -> String {
    let mut text = format!(
        "{} pictures: {} failed, {} without a result of the model in use; a bird is seen by the candidate alone in {}, by the model in use alone in {}\n",
        report.pictures,
        report.failed,
        report.unread,
        report.seen_by_candidate_only,
        report.seen_by_present_only
    );
    let _ = writeln!(text, "in use: {}", report.present_versions.join(", "));
    let _ = writeln!(
        text,
        "                          N   BIAS KG       ±  LOWER KG  UPPER KG    BIAS %  LOWER %  UPPER %"
    );
    for (name, difference) in [
        ("candidate − in use", &report.candidate_to_present),
        ("candidate − scale", &report.candidate_to_scale),
        ("in use − scale", &report.present_to_scale),
    ] {
        text += &difference_line(name, difference);
    }
    if !report.worst.is_empty() {
        let _ = writeln!(text, "the models differ most in:");
    }
    for apart in &report.worst {
        let scale = apart.scale_kg.map_or_else(|| "-".to_owned(), |kilograms| format!("{kilograms:.3}"));
        let _ = writeln!(
            text,
            "  {}  {}  {}  candidate {:.3} kg, in use {:.3} kg, scale {scale}",
            apart.media_id, apart.tenant_id, apart.device_id, apart.candidate_kg, apart.present_kg
        );
    }
    text
}

fn difference_line(name: &str, difference: &Difference) -> String {
    let number = |value: Option<f64>, digits: usize| {
        value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
    };
    let (kilograms, percent) = (difference.kg, difference.percent);
    format!(
        "{name:<20} {:>6}  {:>8} {:>7}  {:>8}  {:>8}  {:>8}  {:>7}  {:>7}\n",
        difference.n,
        number(kilograms.map(|it| it.bias), 3),
        number(kilograms.and_then(|it| it.bias_half_width), 3),
        number(kilograms.and_then(|it| it.lower), 3),
        number(kilograms.and_then(|it| it.upper), 3),
        number(percent.map(|it| it.bias), 2),
        number(percent.and_then(|it| it.lower), 2),
        number(percent.and_then(|it| it.upper), 2),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_turned_in_one_step_also_over_what_a_broken_try_has_left() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("current");
        symlink("one", &link).unwrap();
        symlink("rubbish", folder.path().join("current.next")).unwrap();
        turn(&link, Path::new("two")).unwrap();
        assert_eq!(std::fs::read_link(&link).unwrap(), Path::new("two"));
        assert!(!folder.path().join("current.next").is_symlink());
        assert_eq!(before_of(&link), folder.path().join("current.before"));
    }
}
