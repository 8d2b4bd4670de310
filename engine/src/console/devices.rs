//! The pages of the devices: those in trouble first, one with the steps of its installation, and a label to stick on it.

use actors::device::trouble::silent_seconds;
use askama::Template;
use schema::clock::Timestamp;
use schema::store::credential::Known;
use schema::store::place::{Place, Role};
use schema::wire::topic::readings_of;

use super::air::Probe;
use super::climate::ProbeRow;
use super::frame::Frame;
use super::icon;
use super::refusal::{RefusalRow, in_short};
use super::text::{Lang, Texts};
use super::weights::{Fact, Tag, encoded};
use super::words::{number, span};

/// The list.
#[derive(Template)]
#[template(path = "devices.html")]
pub(crate) struct DevicesPage {
    /// What surrounds it.
    pub(crate) f: Frame,
    /// What is to be seen.
    pub(crate) v: Devices,
}

/// One device.
#[derive(Template)]
#[template(path = "device.html")]
pub(crate) struct DevicePage {
    /// What surrounds it.
    pub(crate) f: Frame,
    /// What is to be seen.
    pub(crate) v: DeviceView,
}

/// A label to print: a phone's camera opens the page of the device.
#[derive(Template)]
#[template(path = "label.html")]
pub(crate) struct LabelPage {
    /// What surrounds it.
    pub(crate) f: Frame,
    /// The device.
    pub(crate) name: String,
    /// The device in an address.
    pub(crate) href: String,
    /// Where in the house it is.
    pub(crate) zone: String,
    /// The address.
    pub(crate) url: String,
    /// The same as a picture.
    pub(crate) code: String,
}

/// A password that is shown this once.
#[derive(Template)]
#[template(path = "issued.html")]
pub(crate) struct IssuedPage {
    /// What surrounds it.
    pub(crate) f: Frame,
    /// The device.
    pub(crate) name: String,
    /// The device in an address.
    pub(crate) href: String,
    /// Its user name.
    pub(crate) username: String,
    /// Its password.
    pub(crate) password: String,
    /// Where it publishes.
    pub(crate) topic: String,
    /// For how long the password before is good, too.
    pub(crate) old_is_good: Option<String>,
}

/// Which device is to be let in.
#[derive(Template)]
#[template(path = "device_new.html")]
pub(crate) struct NewDevicePage {
    /// What surrounds it.
    pub(crate) f: Frame,
    /// What was wrong.
    pub(crate) wrong: Option<&'static str>,
    /// What was typed as its id.
    pub(crate) id: String,
    /// What was typed as its station.
    pub(crate) station: String,
}

/// What is to be seen.
pub(crate) struct Devices {
    pub(crate) count: String,
    pub(crate) devices: Vec<DeviceRow>,
}

/// A device in a line.
pub(crate) struct DeviceRow {
    pub(crate) href: String,
    pub(crate) name: String,
    pub(crate) says: String,
    pub(crate) tag: Tag,
}

/// What ails a device; the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Trouble {
    /// It says nothing any more.
    Silent,
    /// What it says cannot be believed.
    Failing,
    /// It waits to be let in.
    Pending,
    /// It is not let in.
    Refused,
    /// Some of what it sent was refused.
    Rejected,
    /// It was never heard.
    New,
    /// What it says deserves a look.
    Suspect,
    /// Nothing.
    Fine,
}

impl Trouble {
    /// What ails a device of which this is known, and which says this.
    pub(crate) fn of(known: &Known, probes: &[Probe], now: Timestamp) -> Self {
        if known.is_pending {
            return Self::Pending;
        }
        if known.is_allowed != Some(true) {
            return Self::Refused;
        }
        if silent_seconds(known, now).is_some() {
            Self::Silent
        } else if known.signs.state.as_deref() == Some("error") || probes.iter().any(|probe| probe.is_failing)
        {
            Self::Failing
        } else if known.signs.refusals > 0 {
            Self::Rejected
        } else if known.last_seen_at.is_none() && probes.is_empty() {
            Self::New
        } else if probes.iter().any(|probe| !probe.faults.is_empty()) {
            Self::Suspect
        } else {
            Self::Fine
        }
    }

    fn tag(self, t: &Texts) -> Tag {
        let (class, name, text) = match self {
            Self::Silent => ("act", "act", t.trouble_silent),
            Self::Failing => ("act", "act", t.trouble_failing),
            Self::Pending => ("look", "wait", t.trouble_pending),
            Self::Refused => ("look", "look", t.trouble_refused),
            Self::Rejected => ("look", "look", t.trouble_rejected),
            Self::New => ("", "wait", t.trouble_new),
            Self::Suspect => ("look", "look", t.trouble_suspect),
            Self::Fine => ("good", "ok", t.trouble_fine),
        };
        Tag { class, icon: icon::svg(name), text: text.to_owned() }
    }
}

/// A device with everything that is known of it.
pub(crate) struct OneDevice<'a> {
    /// What the desk knows.
    pub(crate) known: &'a Known,
    /// What it says now.
    pub(crate) probes: &'a [Probe],
    /// Where it is.
    pub(crate) place: Option<&'a Place>,
    /// Now.
    pub(crate) now: Timestamp,
}

impl OneDevice<'_> {
    fn trouble(&self) -> Trouble {
        Trouble::of(self.known, self.probes, self.now)
    }

    fn seen(&self, t: &Texts) -> Option<String> {
        let at = self.known.last_seen_at?;
        Some(format!("{} {} {}", t.last_seen, span(t, (self.now - at).num_seconds() as f64), t.ago))
    }
}

/// Devices in lines, those in trouble first.
pub(crate) fn rows(lang: Lang, devices: &[OneDevice<'_>]) -> Devices {
    let t = lang.texts();
    let mut sorted: Vec<&OneDevice<'_>> = devices.iter().collect();
    sorted.sort_by_key(|device| (device.trouble(), device.known.device_id.clone()));
    let row = |device: &&OneDevice<'_>| {
        let what: Vec<String> =
            device.probes.iter().map(|probe| super::climate::metric_word(t, &probe.metric)).collect();
        let zone = device.place.and_then(|place| place.zone.clone());
        let refused = device.known.signs.refused_for.as_deref().and_then(|reason| in_short(lang, reason));
        let refused = refused.map(str::to_owned);
        let parts = [refused, device.seen(t), zone, (!what.is_empty()).then(|| what.join(", "))];
        DeviceRow {
            href: encoded(&device.known.device_id),
            name: device.known.device_id.clone(),
            says: parts.into_iter().flatten().collect::<Vec<_>>().join(" · "),
            tag: device.trouble().tag(t),
        }
    };
    Devices { count: number(devices.len() as f64, 0), devices: sorted.iter().map(row).collect() }
}

/// A step of an installation.
pub(crate) struct Step {
    pub(crate) is_done: bool,
    pub(crate) icon: String,
    pub(crate) text: &'static str,
}

/// What is to be seen of a device.
pub(crate) struct DeviceView {
    pub(crate) href: String,
    pub(crate) name: String,
    pub(crate) tag: Tag,
    pub(crate) steps: Vec<Step>,
    pub(crate) probes: Vec<ProbeRow>,
    pub(crate) facts: Vec<Fact>,
    pub(crate) refusals: Vec<RefusalRow>,
    /// Where it publishes its readings.
    pub(crate) topic: Option<String>,
    pub(crate) credential: Vec<Fact>,
    /// Whether it can get another password.
    pub(crate) is_rotatable: bool,
    /// Whether it is to be let in.
    pub(crate) is_outside: bool,
    /// What was wrong with what somebody wanted.
    pub(crate) wrong: Option<&'static str>,
    /// Word on the wire, word of people, whether it is so.
    pub(crate) roles: Vec<(&'static str, &'static str, bool)>,
    pub(crate) zone: String,
    pub(crate) height: String,
}

impl DeviceView {
    /// What is to be seen of a device.
    pub(crate) fn of(t: &Texts, device: &OneDevice<'_>, refusals: Vec<RefusalRow>) -> Self {
        let known = device.known;
        let credential = known.credential.as_ref();
        let role = device.place.map_or(Role::Inside, Place::role);
        Self {
            href: encoded(&known.device_id),
            name: known.device_id.clone(),
            tag: device.trouble().tag(t),
            steps: steps(t, device),
            probes: device.probes.iter().map(|probe| ProbeRow::of(t, probe)).collect(),
            facts: facts(t, device),
            refusals,
            topic: topic(known),
            credential: credential_facts(t, device),
            is_rotatable: credential.is_some_and(|credential| credential.is_enabled),
            is_outside: known.is_allowed != Some(true) || credential.is_none_or(|one| !one.is_enabled),
            wrong: None,
            roles: Role::ALL.into_iter().map(|own| (own.as_str(), role_name(t, own), own == role)).collect(),
            zone: device.place.and_then(|place| place.zone.clone()).unwrap_or_default(),
            height: device
                .place
                .and_then(|place| place.height_cm)
                .map(|height| number(height, 0))
                .unwrap_or_default(),
        }
    }
}

fn role_name(t: &Texts, role: Role) -> &'static str {
    match role {
        Role::Inside => t.role_inside,
        Role::Outside => t.role_outside,
        Role::Water => t.role_water,
        Role::Scale => t.role_scale,
        Role::Light => t.role_light,
        Role::Air => t.role_air,
    }
}

/// From let in to placed: each turns green as soon as it is so.
fn steps(t: &Texts, device: &OneDevice<'_>) -> Vec<Step> {
    let is_in = device.known.is_allowed == Some(true);
    let is_seen = device.known.last_seen_at.is_some();
    let is_heard = !device.probes.is_empty();
    let is_plausible = is_heard && device.probes.iter().all(|probe| probe.faults.is_empty());
    let all = [
        (is_in, t.step_in),
        (is_seen || is_heard, t.step_seen),
        (is_heard, t.step_accepted),
        (is_plausible, t.step_plausible),
        (device.place.is_some(), t.step_placed),
    ];
    let step = |(is_done, text)| Step { is_done, icon: icon::svg(if is_done { "ok" } else { "wait" }), text };
    all.into_iter().map(step).collect()
}

fn facts(t: &Texts, device: &OneDevice<'_>) -> Vec<Fact> {
    let known = device.known;
    let seen = known.last_seen_at.map(|at| span(t, (device.now - at).num_seconds() as f64));
    let usual = known.signs.usual_seconds.map(|seconds| span(t, seconds as f64));
    let firmware = known.signs.firmware_version.clone();
    let seen = seen.map_or_else(|| (t.none.to_owned(), ""), |seen| (seen, t.ago));
    vec![
        Fact::new(t.last_seen, seen.0, seen.1),
        Fact::new(t.usual_interval, usual.unwrap_or_else(|| t.none.to_owned()), ""),
        Fact::new(t.refusals_day, number(known.signs.refusals as f64, 0), ""),
        Fact::new(t.firmware, firmware.unwrap_or_else(|| t.none.to_owned()), ""),
        Fact::new(t.station, known.station_id.clone().unwrap_or_else(|| t.none.to_owned()), ""),
    ]
}

/// Where a device publishes its readings, where its barn is known.
fn topic(known: &Known) -> Option<String> {
    let (farm, barn) = (known.farm_id.as_ref()?, known.barn_id.as_ref()?);
    Some(readings_of([&known.tenant_id, farm, barn], &known.device_id))
}

fn credential_facts(t: &Texts, device: &OneDevice<'_>) -> Vec<Fact> {
    let Some(credential) = device.known.credential.as_ref().filter(|one| one.is_enabled) else {
        return Vec::new();
    };
    let made = credential.rotated_at.unwrap_or(credential.created_at);
    let age = span(t, (device.now - made).num_seconds() as f64);
    let mut facts =
        vec![Fact::new(t.user_name, credential.username.clone(), ""), Fact::new(t.password_made, age, t.ago)];
    let left = credential.overlap_ends_at.filter(|until| credential.has_two && *until > device.now);
    let left = left.map(|until| span(t, (until - device.now).num_seconds() as f64));
    facts.extend(left.map(|left| Fact::new(t.password_two, left, "")));
    facts
}
