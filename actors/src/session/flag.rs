//! What a person should look at in a weighing.

use chrono::Duration;
use schema::clock::Timestamp;
use schema::store::session::Status;
use schema::store::session::list::Listed;

/// Scale and image disagree when the image says this much more or less, as a share of the scale's weight. A judgement.
const DISAGREE_ABOVE: f64 = 0.15;
/// A result below it is a guess. A judgement.
const LOW_CONFIDENCE_BELOW: f64 = 0.6;
/// A weighing takes seconds; a session that is open for longer than this was left.
const OPEN_MINUTES_MAX: i64 = 60;
/// Minutes that the clock of a device may be ahead before its weighings count for the time at which they came in.
const AHEAD_MINUTES_MAX: i64 = 10;

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident = $word:literal;)*) => {
        /// A reason to look at a weighing.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Flag { $($(#[$doc])* $name),* }

        impl Flag {
            /// Every flag with its word, in the order in which they are shown.
            pub const ALL: &[(&str, Self)] = &[$(($word, Self::$name)),*];

            /// The word.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word),* }
            }
        }
    };
}

flags! {
    /// The image says more than 15 % more or less than the scale. A demonstration's results say nothing.
    Disagree = "disagree";
    /// The model is not sure.
    LowConfidence = "low_confidence";
    /// It ended without a weight.
    NoWeight = "no_weight";
    /// It ended without an image.
    NoPicture = "no_picture";
    /// It is open for more than an hour.
    OpenLong = "open_long";
    /// A weight or an image came after its end.
    Amended = "amended";
    /// The device's clock was more than ten minutes ahead: it counts for the time at which it came in.
    ClockAhead = "clock_ahead";
    /// What an image says comes from a demonstration.
    Demo = "demo";
    /// A person keeps it, or one of its weights, out of the statistics.
    Excluded = "excluded";
}

/// The flags of a weighing.
#[must_use]
pub fn flags(listed: &Listed, now: Timestamp) -> Vec<Flag> {
    let all = Flag::ALL.iter().map(|(_, flag)| *flag);
    all.filter(|flag| has(listed, *flag, now)).collect()
}

/// Whether a weighing has a flag.
#[must_use]
pub fn has(listed: &Listed, flag: Flag, now: Timestamp) -> bool {
    let Listed { session, reading, .. } = listed;
    let is_over = session.status == Status::Finalized;
    let told = reading.as_ref().filter(|reading| !reading.is_demo);
    match flag {
        Flag::Disagree => {
            let read_kg = told.and_then(|reading| reading.weight_kg);
            let apart = session.final_weight_kg.zip(read_kg);
            apart.is_some_and(|(scale, image)| (image - scale).abs() > DISAGREE_ABOVE * scale)
        }
        Flag::LowConfidence => told.is_some_and(|reading| reading.confidence < LOW_CONFIDENCE_BELOW),
        Flag::NoWeight => is_over && session.final_weight_kg.is_none(),
        Flag::NoPicture => is_over && session.image_count == 0,
        Flag::OpenLong => {
            let open = now.signed_duration_since(session.created_at);
            session.status == Status::Created && open > Duration::minutes(OPEN_MINUTES_MAX)
        }
        Flag::Amended => session.amendment_count > 0,
        Flag::ClockAhead => {
            let ahead = session.start_at.signed_duration_since(session.created_at);
            ahead > Duration::minutes(AHEAD_MINUTES_MAX)
        }
        Flag::Demo => reading.as_ref().is_some_and(|reading| reading.is_demo),
        Flag::Excluded => listed.is_excluded,
    }
}

#[cfg(test)]
mod tests {
    use schema::store::session::Session;
    use schema::store::session::list::Reading;

    use super::*;

    fn at(minutes: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + Duration::minutes(minutes)
    }

    /// A weighing of a kilogram with an image that agrees.
    fn weighing() -> Listed {
        let session = Session {
            id: schema::id::new_id(),
            tenant_id: "t-001".to_owned(),
            session_id: "s-1".to_owned(),
            farm_id: "f-001".to_owned(),
            barn_id: "b-001".to_owned(),
            device_id: "wv-001".to_owned(),
            station_id: "st-01".to_owned(),
            batch_id: None,
            status: Status::Finalized,
            start_at: at(0),
            end_at: Some(at(1)),
            initial_weight_kg: Some(1.0),
            final_weight_kg: Some(1.0),
            image_count: 1,
            inference_result_id: None,
            created_event_id: "e-1".to_owned(),
            finalized_event_id: Some("e-2".to_owned()),
            amendment_count: 0,
            trace_id: None,
            created_at: at(0),
            updated_at: at(1),
        };
        let reading = reading(1.1, 0.9, false);
        Listed { session, weighed_at: at(0), image_id: None, reading, is_excluded: false, is_reviewed: false }
    }

    fn reading(weight_kg: f64, confidence: f64, is_demo: bool) -> Option<Reading> {
        Some(Reading { weight_kg: Some(weight_kg), confidence, model_version: "v1".to_owned(), is_demo })
    }

    #[test]
    fn each_flag_has_its_reason() {
        let check = |change: fn(&mut Listed), expected: &[Flag]| {
            let mut listed = weighing();
            change(&mut listed);
            assert_eq!(flags(&listed, at(61)), expected, "{listed:?}");
        };
        check(|_| {}, &[]);
        check(|w| w.reading = reading(1.149, 0.9, false), &[]);
        check(|w| w.reading = reading(0.84, 0.9, false), &[Flag::Disagree]);
        check(|w| w.reading = reading(1.16, 0.5, false), &[Flag::Disagree, Flag::LowConfidence]);
        check(|w| w.reading = reading(9.0, 0.1, true), &[Flag::Demo]);
        check(|w| w.reading = None, &[]);
        check(|w| w.session.final_weight_kg = None, &[Flag::NoWeight]);
        check(|w| w.session.image_count = 0, &[Flag::NoPicture]);
        check(|w| w.session.amendment_count = 1, &[Flag::Amended]);
        check(|w| w.is_excluded = true, &[Flag::Excluded]);
        check(|w| w.session.start_at = at(10), &[]);
        check(|w| w.session.start_at = at(11), &[Flag::ClockAhead]);
        let open = |w: &mut Listed| {
            (w.session.status, w.session.end_at) = (Status::Created, None);
            (w.session.final_weight_kg, w.session.image_count) = (None, 0);
        };
        check(open, &[Flag::OpenLong]);
    }
}
