//! The cloud's dedupe: which event ids of which tenant it has marked, in 16 bytes each.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result};

use crate::ids;

/// What the cloud remembers of an event id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// Nothing.
    New,
    /// Taken.
    Accepted,
    /// Marked, then rejected: a resend counts as a duplicate although nobody has the event.
    Lost,
}

/// Marked ids by tenant.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    tenants: HashMap<String, Tenant>,
}

#[derive(Debug, Default)]
struct Tenant {
    uuids: HashSet<u128>,
    /// Ids that are no lower-case UUID.
    others: HashSet<String>,
    lost: HashSet<String>,
}

impl Seen {
    /// Reads the lines of a state file: tenant, tab, event id.
    pub(crate) fn read(lines: impl std::io::BufRead) -> Result<Self> {
        let mut seen = Self::default();
        for (index, line) in lines.lines().enumerate() {
            let line = line.context("read the state file")?;
            let (tenant_id, event_id) =
                line.split_once('\t').with_context(|| format!("line {}: no tab in {line:?}", index + 1))?;
            seen.insert(tenant_id, event_id, Mark::Accepted);
        }
        Ok(seen)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.tenants.is_empty()
    }

    pub(crate) fn get(&self, tenant_id: &str, event_id: &str) -> Mark {
        let Some(tenant) = self.tenants.get(tenant_id) else {
            return Mark::New;
        };
        let is_accepted = match ids::parse(event_id) {
            Some(id) => tenant.uuids.contains(&id),
            None => tenant.others.contains(event_id),
        };
        if is_accepted {
            return Mark::Accepted;
        }
        if tenant.lost.contains(event_id) { Mark::Lost } else { Mark::New }
    }

    pub(crate) fn insert(&mut self, tenant_id: &str, event_id: &str, mark: Mark) {
        if !self.tenants.contains_key(tenant_id) {
            self.tenants.insert(tenant_id.to_owned(), Tenant::default());
        }
        let tenant = self.tenants.get_mut(tenant_id).expect("the tenant was just made");
        match (mark, ids::parse(event_id)) {
            (Mark::New, _) => {}
            (Mark::Lost, _) => drop(tenant.lost.insert(event_id.to_owned())),
            (Mark::Accepted, Some(id)) => drop(tenant.uuids.insert(id)),
            (Mark::Accepted, None) => drop(tenant.others.insert(event_id.to_owned())),
        }
    }

    /// Takes an accepted id back. `false`: it was none.
    pub(crate) fn remove(&mut self, tenant_id: &str, event_id: &str) -> bool {
        let Some(tenant) = self.tenants.get_mut(tenant_id) else { return false };
        match ids::parse(event_id) {
            Some(id) => tenant.uuids.remove(&id),
            None => tenant.others.remove(event_id),
        }
    }

    /// The accepted ids of a tenant: the UUIDs as numbers, then the rest.
    pub(crate) fn ids(&self, tenant_id: &str) -> (Vec<u128>, Vec<String>) {
        match self.tenants.get(tenant_id) {
            Some(tenant) => (tenant.uuids.iter().copied().collect(), tenant.others.iter().cloned().collect()),
            None => (Vec::new(), Vec::new()),
        }
    }
}
