//! The pages of the devices: those in trouble first, one with the steps of its installation, and a label to stick on it.

use askama::Template;
use schema::clock::Timestamp;
use schema::store::credential::Known;
use schema::store::place::{Place, Role};

use super::air::Probe;
use super::climate::ProbeRow;
use super::frame::Frame;
use super::icon;
use super::text::Texts;
use super::weights::{Fact, Tag, encoded};
use super::words::{number, span};

/// A device that says nothing for so long is silent, seconds.
const SILENT_SECONDS: f64 = 900.0;

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
        let silence = known.last_seen_at.map(|at| (now - at).num_milliseconds() as f64 / 1000.0);
        if known.is_pending {
            return Self::Pending;
        }
        if known.is_allowed != Some(true) {
            return Self::Refused;
        }
        match silence {
            None if probes.is_empty() => Self::New,
            Some(seconds) if seconds > SILENT_SECONDS => Self::Silent,
            None | Some(_) if probes.iter().any(|probe| probe.is_failing) => Self::Failing,
            None | Some(_) if probes.iter().any(|probe| !probe.faults.is_empty()) => Self::Suspect,
            None | Some(_) => Self::Fine,
        }
    }

    fn tag(self, t: &Texts) -> Tag {
        let (class, name, text) = match self {
            Self::Silent => ("act", "act", t.trouble_silent),
            Self::Failing => ("act", "act", t.trouble_failing),
            Self::Pending => ("look", "wait", t.trouble_pending),
            Self::Refused => ("look", "look", t.trouble_refused),
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
pub(crate) fn rows(t: &Texts, devices: &[OneDevice<'_>]) -> Devices {
    let mut sorted: Vec<&OneDevice<'_>> = devices.iter().collect();
    sorted.sort_by_key(|device| (device.trouble(), device.known.device_id.clone()));
    let row = |device: &&OneDevice<'_>| {
        let what: Vec<String> =
            device.probes.iter().map(|probe| super::climate::metric_word(t, &probe.metric)).collect();
        let zone = device.place.and_then(|place| place.zone.clone());
        let parts = [device.seen(t), zone, (!what.is_empty()).then(|| what.join(", "))];
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
    /// Word on the wire, word of people, whether it is so.
    pub(crate) roles: Vec<(&'static str, &'static str, bool)>,
    pub(crate) zone: String,
    pub(crate) height: String,
}

impl DeviceView {
    /// What is to be seen of a device.
    pub(crate) fn of(t: &Texts, device: &OneDevice<'_>) -> Self {
        let known = device.known;
        let role = device.place.map_or(Role::Inside, Place::role);
        Self {
            href: encoded(&known.device_id),
            name: known.device_id.clone(),
            tag: device.trouble().tag(t),
            steps: steps(t, device),
            probes: device.probes.iter().map(|probe| ProbeRow::of(t, probe)).collect(),
            facts: facts(t, device),
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
    let user = known.credential.as_ref().map(|credential| credential.username.clone());
    vec![
        Fact::new(t.last_seen, seen.unwrap_or_else(|| t.none.to_owned()), t.ago),
        Fact::new(t.user_name, user.unwrap_or_else(|| t.none.to_owned()), ""),
        Fact::new(t.station, known.station_id.clone().unwrap_or_else(|| t.none.to_owned()), ""),
    ]
}
