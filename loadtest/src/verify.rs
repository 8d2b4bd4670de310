//! Compares what devices were told is safe with what the cloud has.

use std::collections::HashSet;
use std::io::BufRead;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use schema::id::outbox_id;

use crate::cloud::Verdict;
use crate::{http, report};

/// Ids shown of a longer list.
const SHOWN_MAX: usize = 20;

/// What to compare.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Acknowledged event ids, one a line.
    pub ids_file: PathBuf,
    /// `http://host:port` of the pretend cloud or of its control address.
    pub cloud: String,
    /// Tenant of the ids.
    pub tenant: String,
}

/// The outcome of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    /// Different acknowledged ids.
    pub acknowledged: usize,
    /// Ids the cloud has of this tenant.
    pub in_cloud: usize,
    /// Acknowledged, mapped to the cloud's form, and not there.
    pub missing: Vec<String>,
    /// In the cloud and never acknowledged; a crash between commit and acknowledgement explains a few.
    pub unacknowledged: usize,
    /// Lines of the file that repeat an id.
    pub repeated: usize,
}

/// Reads acknowledged ids and maps each to the id under which the cloud must have it.
///
/// # Errors
/// When the file cannot be read.
pub fn read_ids(path: &Path, tenant: &str) -> Result<(HashSet<u128>, usize)> {
    let file = std::fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
    let mut ids = HashSet::new();
    let mut repeated = 0;
    for line in std::io::BufReader::new(file).lines() {
        let line = line.with_context(|| format!("read {}", path.display()))?;
        let is_new = line.is_empty() || ids.insert(outbox_id(tenant, line.trim()).as_u128());
        repeated += usize::from(!is_new);
    }
    Ok((ids, repeated))
}

/// Compares mapped ids with those the cloud lists.
///
/// # Errors
/// When the cloud cannot be asked.
pub async fn compare(settings: &Settings) -> Result<Comparison> {
    let (mut waiting, repeated) = read_ids(&settings.ids_file, &settings.tenant)?;
    let mut comparison = Comparison { acknowledged: waiting.len(), repeated, ..Comparison::default() };
    let path = format!("/judge/ids?tenant_id={}", settings.tenant);
    http::get_lines(&settings.cloud, &path, |line| {
        comparison.in_cloud += 1;
        let is_known = crate::ids::parse(line).is_some_and(|id| waiting.remove(&id));
        comparison.unacknowledged += usize::from(!is_known);
    })
    .await?;
    comparison.missing = waiting.into_iter().map(crate::ids::hyphenated).collect();
    comparison.missing.sort();
    Ok(comparison)
}

/// Compares, prints, and says whether nothing is missing.
///
/// # Errors
/// When file or cloud cannot be read.
pub async fn run(settings: &Settings) -> Result<bool> {
    let comparison = compare(settings).await?;
    let verdict = verdict(&settings.cloud).await?;
    report::say(format!(
        "acknowledged {}, in the cloud {}, missing {}, in the cloud but not acknowledged {}, repeated lines {}",
        comparison.acknowledged,
        comparison.in_cloud,
        comparison.missing.len(),
        comparison.unacknowledged,
        comparison.repeated,
    ));
    report::say(format!(
        "duplicates answered {}, violations {}",
        verdict.duplicated, verdict.violations_total
    ));
    for id in comparison.missing.iter().take(SHOWN_MAX) {
        report::say(format!("missing {id}"));
    }
    for violation in verdict.violations.iter().take(SHOWN_MAX) {
        report::say(format!("violation {}: {}", violation.kind, violation.detail));
    }
    Ok(comparison.missing.is_empty())
}

async fn verdict(cloud: &str) -> Result<Verdict> {
    let mut text = String::new();
    http::get_lines(cloud, "/judge", |line| text.push_str(line)).await?;
    match serde_json::from_str(&text) {
        Ok(verdict) => Ok(verdict),
        Err(error) => bail!("{cloud}/judge did not answer with a verdict: {error}"),
    }
}
