//! What is wrong with a device, in words: the first thing that a person should do something about.

use schema::clock::Timestamp;
use schema::store::credential::{Known, Signs};
use schema::wire::reject::Reason;

/// A device that sends readings is silent after this many of its usual intervals.
const SILENT_INTERVALS: i64 = 3;
/// And never sooner, seconds.
const SILENT_SECONDS_MIN: i64 = 180;
/// Seconds that a clock may be ahead.
const AHEAD_SECONDS_MAX: i64 = 600;

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// One of a few words: `pending`, `not_allowed`, `revoked`, `no_password`, `error`, `silent`, `offline`, `clock_ahead`,
    /// `refused`, `never_seen`.
    pub word: &'static str,
    /// The same for a person.
    pub text: String,
}

/// How long a device has been silent, seconds, where that is longer than it usually is. One that sends no readings comes
/// when something happens, so that its silence says nothing.
#[must_use]
pub fn silent_seconds(known: &Known, now: Timestamp) -> Option<i64> {
    let usual_seconds = known.signs.usual_seconds?;
    let silent = now.signed_duration_since(known.last_seen_at?).num_seconds();
    let patience = usual_seconds.saturating_mul(SILENT_INTERVALS).max(SILENT_SECONDS_MIN);
    (silent > patience).then_some(silent)
}

/// The first thing that is wrong with a device; `None` when all is well.
///
/// | is | word |
/// |---|---|
/// | not let in: it waits for approval, has no row, was put out, or its password is not good | `pending`, `not_allowed`, `revoked`, `no_password` |
/// | let in, and says of itself that something is wrong | `error` |
/// | let in, and has sent readings, but none for three of its usual intervals | `silent` |
/// | let in, and said goodbye, or its last will did | `offline` |
/// | let in, and a clock of its is more than ten minutes ahead | `clock_ahead` |
/// | let in, and some of what it sent within a day was refused | `refused` |
/// | let in, and nobody has heard of it | `never_seen` |
#[must_use]
pub fn trouble(known: &Known, now: Timestamp) -> Option<Trouble> {
    let of = |word, text: String| Some(Trouble { word, text });
    let is_locked = known.credential.as_ref().is_some_and(|credential| !credential.is_enabled);
    match known.is_allowed {
        Some(false) if known.is_pending => return of("pending", "waits for approval".to_owned()),
        Some(false) => return of("revoked", "was put out".to_owned()),
        None => return of("not_allowed", "has a password and no row in the allowlist".to_owned()),
        Some(true) if is_locked => return of("no_password", "its password is not good".to_owned()),
        Some(true) => {}
    }
    let Signs { state, message, refusals, refused_for, usual_seconds, ahead_seconds, .. } = &known.signs;
    if state.as_deref() == Some("error") {
        let message = message.as_deref().filter(|message| !message.is_empty()).unwrap_or("without a message");
        return of("error", format!("says of itself: {message}"));
    }
    if let Some(silent) = silent_seconds(known, now) {
        let usual = span(usual_seconds.unwrap_or_default());
        return of("silent", format!("silent for {}; it usually sends every {usual}", span(silent)));
    }
    if state.as_deref() == Some("offline") {
        return of("offline", "said goodbye, or its connection broke".to_owned());
    }
    if let Some(ahead) = ahead_seconds.filter(|ahead| *ahead > AHEAD_SECONDS_MAX) {
        return of("clock_ahead", format!("its clock is {} ahead", span(ahead)));
    }
    if *refusals > 0 {
        let reason =
            refused_for.as_deref().and_then(Reason::parse).map_or("for several reasons", Reason::text);
        return of(
            "refused",
            format!("{refusals} messages refused within a day, the last because: {reason}"),
        );
    }
    if known.last_seen_at.is_none() {
        return of("never_seen", "has not been heard of yet".to_owned());
    }
    None
}

/// A length of time in the largest unit that it has two of.
fn span(seconds: i64) -> String {
    let units = [(86_400, "days"), (3600, "h"), (60, "min"), (1, "s")];
    let (unit_seconds, unit) =
        units.into_iter().find(|(unit_seconds, _)| seconds >= 2 * unit_seconds).unwrap_or((1, "s"));
    format!("{} {unit}", seconds / unit_seconds)
}

#[cfg(test)]
mod tests {
    use chrono::Duration;

    use super::*;

    fn known() -> Known {
        Known {
            tenant_id: "t-001".to_owned(),
            device_id: "d-001".to_owned(),
            farm_id: None,
            barn_id: None,
            station_id: None,
            is_allowed: Some(true),
            is_pending: false,
            credential: None,
            last_seen_at: Some(Timestamp::UNIX_EPOCH),
            signs: Signs { usual_seconds: Some(60), ..Signs::default() },
        }
    }

    #[test]
    fn the_first_thing_that_is_wrong_is_told() {
        let check = |seconds: i64, change: fn(&mut Known), expected: Option<(&str, &str)>| {
            let mut known = known();
            change(&mut known);
            let found = trouble(&known, Timestamp::UNIX_EPOCH + Duration::seconds(seconds));
            let found = found.as_ref().map(|found| (found.word, found.text.as_str()));
            assert_eq!(found, expected, "{known:?}");
        };
        check(180, |_| {}, None);
        let silent = Some(("silent", "silent for 3 min; it usually sends every 60 s"));
        check(181, |_| {}, silent);
        check(181, |k| k.signs.state = Some("offline".to_owned()), silent);
        check(9999, |k| k.signs.usual_seconds = None, None);
        check(3600, |k| k.signs.usual_seconds = Some(1200), None);
        let goodbye = Some(("offline", "said goodbye, or its connection broke"));
        check(1, |k| k.signs.state = Some("offline".to_owned()), goodbye);
        let error = |k: &mut Known| {
            (k.signs.state, k.signs.message) = (Some("error".to_owned()), Some("scale".to_owned()));
        };
        check(9999, error, Some(("error", "says of itself: scale")));
        check(1, |k| k.signs.ahead_seconds = Some(600), None);
        check(1, |k| k.signs.ahead_seconds = Some(25_200), Some(("clock_ahead", "its clock is 7 h ahead")));
        let refused = |k: &mut Known| {
            (k.signs.refusals, k.signs.refused_for) = (12, Some("TS_INVALID".to_owned()));
        };
        let told = "12 messages refused within a day, the last because: ts is not a time";
        check(1, refused, Some(("refused", told)));
        check(1, |k| k.last_seen_at = None, Some(("never_seen", "has not been heard of yet")));
        let revoked = Some(("revoked", "was put out"));
        check(9999, |k| k.is_allowed = Some(false), revoked);
        let pending = |k: &mut Known| (k.is_allowed, k.is_pending) = (Some(false), true);
        check(1, pending, Some(("pending", "waits for approval")));
        let foreign = Some(("not_allowed", "has a password and no row in the allowlist"));
        check(1, |k| k.is_allowed = None, foreign);
    }
}
