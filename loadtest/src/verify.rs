//! Compares what devices were told is safe with what the cloud has.

use std::collections::{HashMap, HashSet};
use std::io::BufRead;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use schema::id::outbox_id;

use crate::cloud::{SeenImage, SeenSession, Verdict};
use crate::station::Weighed;
use crate::{http, report};

/// Ids shown of a longer list.
pub(crate) const SHOWN_MAX: usize = 20;

/// What to compare.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Acknowledged event ids, one a line.
    pub ids_file: PathBuf,
    /// `http://host:port` of the pretend cloud or of its control address.
    pub cloud: String,
    /// Tenant of the ids.
    pub tenant: String,
    /// Weighings that stations completed, one JSON object a line.
    pub sessions_file: Option<PathBuf>,
    /// Whether the cloud must have a weight read from every picture.
    pub expects_inference: bool,
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
    let faults = match &settings.sessions_file {
        Some(file) => compare_sessions(settings, file).await?,
        None => Vec::new(),
    };
    for fault in faults.iter().take(SHOWN_MAX) {
        report::say(format!("session {fault}"));
    }
    for id in comparison.missing.iter().take(SHOWN_MAX) {
        report::say(format!("missing {id}"));
    }
    for violation in verdict.violations.iter().take(SHOWN_MAX) {
        report::say(format!("violation {}: {}", violation.kind, violation.detail));
    }
    Ok(comparison.missing.is_empty() && faults.is_empty())
}

/// Reads the weighings of a file.
///
/// # Errors
/// When the file cannot be read or holds something else.
pub fn read_weighings(path: &Path) -> Result<Vec<Weighed>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let parse = |line: &str| {
        serde_json::from_str(line).with_context(|| format!("{} has no weighing in {line}", path.display()))
    };
    text.lines().map(parse).collect()
}

async fn compare_sessions(settings: &Settings, file: &Path) -> Result<Vec<String>> {
    let weighings = read_weighings(file)?;
    let (sessions, images) = seen(&settings.cloud, &settings.tenant).await?;
    let faults = faults(&weighings, &sessions, &images, settings.expects_inference);
    report::say(format!(
        "weighings {}, sessions in the cloud {}, images in the cloud {}, faults {}",
        weighings.len(),
        sessions.len(),
        images.len(),
        faults.len(),
    ));
    Ok(faults)
}

/// What the cloud knows of a tenant's sessions and pictures.
///
/// # Errors
/// When the cloud cannot be asked.
pub async fn seen(cloud: &str, tenant: &str) -> Result<(Vec<SeenSession>, Vec<SeenImage>)> {
    let (mut sessions, mut images) = (Vec::new(), Vec::new());
    let path = format!("/judge/sessions?tenant_id={tenant}");
    http::get_lines(cloud, &path, |line| sessions.extend(serde_json::from_str::<SeenSession>(line))).await?;
    let path = format!("/judge/images?tenant_id={tenant}");
    http::get_lines(cloud, &path, |line| images.extend(serde_json::from_str::<SeenImage>(line))).await?;
    Ok((sessions, images))
}

/// What the cloud lacks of these weighings, or has too often: each session one beginning, one end, all weights and
/// pictures; each picture stored once, and read once where that is expected.
#[must_use]
pub fn faults(
    weighings: &[Weighed],
    sessions: &[SeenSession],
    images: &[SeenImage],
    expects_inference: bool,
) -> Vec<String> {
    let sessions: HashMap<&str, _> = sessions.iter().map(|seen| (seen.session_id.as_str(), seen)).collect();
    let images: HashMap<&str, _> = images.iter().map(|seen| (seen.media_id.as_str(), seen)).collect();
    let mut faults = Vec::new();
    for weighed in weighings {
        let id = &weighed.session_id;
        let seen = sessions.get(id.as_str()).copied().cloned().unwrap_or_default();
        let expected = SeenSession {
            session_id: seen.session_id.clone(),
            created: 1,
            finalized: 1,
            weights: weighed.weights as u64,
            image_count: weighed.media_ids.len() as u64,
        };
        if seen != expected {
            faults.push(format!("{id}: expected {expected:?}, the cloud has {seen:?}"));
        }
        for media_id in &weighed.media_ids {
            let seen = images.get(media_id.as_str()).copied().cloned().unwrap_or_default();
            if seen.stored != 1 {
                faults.push(format!("{id}: image {media_id} was stored {} times", seen.stored));
            }
            if expects_inference && seen.inferred != 1 {
                faults.push(format!("{id}: image {media_id} was read {} times", seen.inferred));
            }
        }
    }
    faults
}

async fn verdict(cloud: &str) -> Result<Verdict> {
    let mut text = String::new();
    http::get_lines(cloud, "/judge", |line| text.push_str(line)).await?;
    match serde_json::from_str(&text) {
        Ok(verdict) => Ok(verdict),
        Err(error) => bail!("{cloud}/judge did not answer with a verdict: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weighing_needs_one_start_one_end_and_every_image() {
        let weighed = Weighed {
            session_id: "s-1".into(),
            true_kg: 2.0,
            weights: 1,
            media_ids: vec!["m-1".into()],
            event_ids: Vec::new(),
        };
        let whole =
            SeenSession { session_id: "s-1".into(), created: 1, finalized: 1, weights: 1, image_count: 1 };
        let image = SeenImage { media_id: "m-1".into(), stored: 1, inferred: 1, predicted_kg: Some(2.1) };
        let check = |session: &SeenSession, image: &SeenImage, expected: usize| {
            let found = faults(
                std::slice::from_ref(&weighed),
                std::slice::from_ref(session),
                std::slice::from_ref(image),
                true,
            );
            assert_eq!(found.len(), expected, "{found:?}");
        };
        check(&whole, &image, 0);
        check(&SeenSession::default(), &image, 1);
        check(&SeenSession { created: 2, ..whole.clone() }, &image, 1);
        check(&SeenSession { finalized: 0, ..whole.clone() }, &image, 1);
        check(&SeenSession { image_count: 0, ..whole.clone() }, &image, 1);
        check(&whole, &SeenImage { inferred: 0, ..image.clone() }, 1);
        check(&whole, &SeenImage::default(), 2);
    }
}
