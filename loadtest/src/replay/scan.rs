//! A first look through the files of a replay: how much there is, over how long, and who speaks.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};

use schema::clock::Timestamp;

use super::rewrite::copy_name;
use crate::connection::Device;
use crate::connection::provision::Newcomer;
use crate::device::Place;
use crate::recording::Message;
use crate::recording::reader::{Reader, Remarks};
use crate::traffic::Said;

/// Who speaks where nobody is known to: all such messages go through one connection.
const NOBODY: &str = "replay";

/// What is in the files.
#[derive(Debug)]
pub(super) struct Scan {
    pub(super) messages: u64,
    pub(super) first_at: Timestamp,
    pub(super) last_at: Timestamp,
    senders: BTreeMap<Device, Option<Place>>,
    stations: BTreeSet<(Device, Option<Place>)>,
    remarks: Remarks,
}

/// Ids of devices and stations.
type Ids = (Vec<String>, Vec<String>);

impl Scan {
    /// Reads everything once.
    ///
    /// # Errors
    /// When a file cannot be read, or there is nothing in them.
    pub(super) fn of(files: &[PathBuf]) -> Result<Self> {
        let mut reader = Reader::new(files.to_vec());
        let mut scan = Self {
            messages: 0,
            first_at: Timestamp::UNIX_EPOCH,
            last_at: Timestamp::UNIX_EPOCH,
            senders: BTreeMap::new(),
            stations: BTreeSet::new(),
            remarks: Remarks::default(),
        };
        while let Some(message) = reader.next_message()? {
            if scan.messages == 0 {
                scan.first_at = message.at;
            }
            scan.messages += 1;
            scan.last_at = message.at;
            let said = Said::of(&message.topic, &message.payload);
            let place = place(&said);
            if let (Some(tenant), Some(id)) = (&said.tenant, &said.station) {
                scan.stations.insert((Device { tenant: tenant.clone(), id: id.clone() }, place.clone()));
            }
            let known = scan.senders.entry(sender(&message, &said)).or_default();
            *known = known.take().or(place);
        }
        ensure!(scan.messages > 0, "there is no message in the files");
        scan.remarks = reader.remarks().clone();
        Ok(scan)
    }

    /// The time from the first message to the last.
    pub(super) fn length(&self) -> Duration {
        (self.last_at - self.first_at).to_std().unwrap_or_default()
    }

    /// Everybody who speaks, in every copy of the barn.
    pub(super) fn senders(&self, copies: usize) -> impl Iterator<Item = Device> {
        let copied = |device: &Device, copy| match *device == nobody() {
            true => device.clone(),
            false => Device { tenant: device.tenant.clone(), id: copy_name(&device.id, copy) },
        };
        let all: BTreeSet<Device> = self
            .senders
            .keys()
            .flat_map(|device| (0..copies).map(move |copy| copied(device, copy)))
            .collect();
        all.into_iter()
    }

    /// Everybody whose place is known, to be let in.
    pub(super) fn newcomers(&self, copies: usize) -> Vec<Newcomer> {
        let mut newcomers = Vec::new();
        for (device, place) in &self.senders {
            let Some(place) = place else { continue };
            newcomers.extend((0..copies).map(|copy| Newcomer {
                device: Device { tenant: device.tenant.clone(), id: copy_name(&device.id, copy) },
                farm: place.farm.clone(),
                barn: copy_name(&place.barn, copy),
            }));
        }
        newcomers
    }

    /// Devices and stations by their place.
    pub(super) fn places(&self) -> Vec<(Place, Ids)> {
        let mut places: Vec<(Place, Ids)> = Vec::new();
        let mut at = |place: &Place| -> usize {
            if let Some(at) = places.iter().position(|(known, _)| known == place) {
                return at;
            }
            places.push((place.clone(), Ids::default()));
            places.len() - 1
        };
        let devices: Vec<_> = self
            .senders
            .iter()
            .filter_map(|(device, place)| Some((at(place.as_ref()?), device.id.clone())))
            .collect();
        let stations: Vec<_> = self
            .stations
            .iter()
            .filter_map(|(station, place)| Some((at(place.as_ref()?), station.id.clone())))
            .collect();
        for (at, device) in devices {
            places[at].1.0.push(device);
        }
        for (at, station) in stations {
            places[at].1.1.push(station);
        }
        places
    }

    /// What a user wants to know before it begins.
    pub(super) fn describe(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "{} messages of {} devices over {:.1} s",
            self.messages,
            self.senders.len(),
            self.length().as_secs_f64()
        )];
        lines.extend(self.remarks.cut.iter().cloned());
        if self.remarks.gaps > 0 {
            let millis = self.remarks.gaps_us / 1000;
            lines.push(format!("{} gaps in the recording, {millis} ms together", self.remarks.gaps));
        }
        lines
    }
}

fn place(said: &Said) -> Option<Place> {
    Some(Place { tenant: said.tenant.clone()?, farm: said.farm.clone()?, barn: said.barn.clone()? })
}

/// Whose connection a message goes through.
pub(super) fn sender(message: &Message, said: &Said) -> Device {
    let named = message
        .client
        .as_ref()
        .map(|client| Device { tenant: said.tenant.clone().unwrap_or_default(), id: client.clone() });
    named.or_else(|| said.sender()).unwrap_or_else(nobody)
}

fn nobody() -> Device {
    Device { tenant: String::new(), id: NOBODY.to_owned() }
}
