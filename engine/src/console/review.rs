//! The page on which weighings are looked at: cards of those that deserve it, with what is odd about each.

use actors::session::flag::{Flag, flags};
use askama::Template;
use schema::clock::Timestamp;
use schema::store::session::list::Listed;

use super::frame::Frame;
use super::icon;
use super::text::Texts;
use super::weights::{Tag, encoded};
use super::words::{maybe, number};

/// Pixels of the width of a picture on a card.
const PICTURE_WIDTH: u32 = 320;

/// The page.
#[derive(Template)]
#[template(path = "review.html")]
pub(crate) struct ReviewPage {
    /// What surrounds it.
    pub(crate) f: Frame,
    /// What is to be seen.
    pub(crate) v: Review,
}

/// What is to be seen.
pub(crate) struct Review {
    /// Which ones are shown, as the address names them.
    pub(crate) show: &'static str,
    /// Name in the address, word, whether one is there.
    pub(crate) tabs: Vec<(&'static str, &'static str, bool)>,
    pub(crate) count: String,
    pub(crate) cards: Vec<Card>,
    /// Where the older ones are.
    pub(crate) next: Option<String>,
}

/// A weighing.
pub(crate) struct Card {
    pub(crate) id: String,
    /// The small picture, and the whole one.
    pub(crate) image: Option<(String, String)>,
    pub(crate) when: String,
    pub(crate) scale: String,
    pub(crate) says: String,
    pub(crate) flags: Vec<Tag>,
    pub(crate) is_excluded: bool,
}

impl Card {
    /// A weighing, at a time by the clocks of the barn.
    pub(crate) fn of(t: &Texts, listed: &Listed, when: String, now: Timestamp) -> Self {
        let session = &listed.session;
        let image = listed.image_id.as_ref().map(|id| {
            let whole =
                format!("/api/v1/media/objects/{}?tenant_id={}", encoded(id), encoded(&session.tenant_id));
            (format!("{whole}&width={PICTURE_WIDTH}"), whole)
        });
        let reading = listed.reading.as_ref().map(|reading| {
            let sure = number(100.0 * reading.confidence, 0);
            format!("{} {} {} ({sure} %)", t.from_picture, maybe(reading.weight_kg, 2), t.kg)
        });
        let parts = [Some(when.clone()), Some(session.station_id.clone()), reading];
        Self {
            id: encoded(&session.session_id),
            image,
            when,
            scale: maybe(session.final_weight_kg, 2),
            says: parts.into_iter().flatten().collect::<Vec<_>>().join(" · "),
            flags: flags(listed, now).into_iter().map(|flag| flag_tag(t, flag)).collect(),
            is_excluded: listed.is_excluded,
        }
    }
}

/// What is odd about a weighing, in words.
fn flag_tag(t: &Texts, flag: Flag) -> Tag {
    let (class, name, text) = match flag {
        Flag::Disagree => ("look", "look", t.flag_disagree),
        Flag::LowConfidence => ("look", "look", t.flag_low_confidence),
        Flag::NoWeight => ("act", "act", t.flag_no_weight),
        Flag::NoPicture => ("look", "look", t.flag_no_picture),
        Flag::OpenLong => ("look", "wait", t.flag_open_long),
        Flag::Amended => ("", "wait", t.flag_amended),
        Flag::ClockAhead => ("look", "look", t.flag_clock_ahead),
        Flag::Demo => ("", "unknown", t.flag_demo),
        Flag::Excluded => ("", "wait", t.flag_excluded),
    };
    Tag { class, icon: icon::svg(name), text: text.to_owned() }
}
