//! Who wants which topics: the subscriptions that are served from queues, in a tree of topic levels.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use crate::delivery::Qos;
use crate::door::session::Session;
use crate::filter::Shared;
use crate::store::Subscription;

/// One subscription of one session.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) session: Arc<Session>,
    pub(crate) subscription: Subscription,
    /// The group that shares it.
    pub(crate) is_shared: bool,
}

/// What one session gets of a message: the best of its subscriptions that match.
#[derive(Clone, Debug)]
pub(crate) struct Match {
    pub(crate) session: Arc<Session>,
    pub(crate) qos: Qos,
    pub(crate) retain_as_published: bool,
    pub(crate) subscription_ids: Vec<NonZeroU32>,
}

/// All subscriptions that are served from queues.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    root: Level,
    count: usize,
}

#[derive(Debug, Default)]
struct Level {
    names: HashMap<Box<str>, Level>,
    any: Option<Box<Level>>,
    /// Filters that end here.
    here: Vec<Route>,
    /// Filters that go on with `#`.
    below: Vec<Route>,
}

impl Routes {
    /// Whether there is any.
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds a route, or replaces the one of the same session and filter.
    pub(crate) fn insert(&mut self, session: &Arc<Session>, subscription: Subscription) {
        self.remove(session, &subscription.filter);
        let filter = Arc::clone(&subscription.filter);
        let shared = Shared::parse(&filter);
        let is_shared = shared.is_some();
        let filter = shared.map_or(&*filter, |shared| shared.filter);
        let route = Route { session: Arc::clone(session), subscription, is_shared };
        let mut level = &mut self.root;
        for part in filter.split('/') {
            match part {
                "#" => {
                    level.below.push(route);
                    self.count += 1;
                    return;
                }
                "+" => level = level.any.get_or_insert_default(),
                name => {
                    if !level.names.contains_key(name) {
                        level.names.insert(Box::from(name), Level::default());
                    }
                    level = level.names.get_mut(name).expect("it was just put there");
                }
            }
        }
        level.here.push(route);
        self.count += 1;
    }

    /// Removes the route of a session and filter, if there is one.
    pub(crate) fn remove(&mut self, session: &Arc<Session>, filter: &str) {
        let plain = Shared::parse(filter).map_or(filter, |shared| shared.filter);
        let parts: Vec<&str> = plain.split('/').collect();
        let before =
            |route: &Route| !(Arc::ptr_eq(&route.session, session) && *route.subscription.filter == *filter);
        self.count -= self.root.prune(&parts, &before);
    }

    /// Who gets a message of `topic`, published by the session `publisher`. Of each group one member, for which `turn`
    /// decides among those that are there.
    pub(crate) fn matching(&self, topic: &str, publisher: u64, turn: usize) -> Vec<Match> {
        let mut found = Vec::new();
        let parts: Vec<&str> = topic.split('/').collect();
        self.root.collect(&parts, !topic.starts_with('$'), &mut found);
        let mut matches: Vec<Match> = Vec::new();
        let mut groups: Vec<(&str, Vec<&Route>)> = Vec::new();
        for route in found {
            if route.is_shared {
                match groups.iter_mut().find(|(filter, _)| *filter == &*route.subscription.filter) {
                    Some((_, members)) => members.push(route),
                    None => groups.push((&route.subscription.filter, vec![route])),
                }
            } else if !(route.subscription.no_local && route.session.number() == publisher) {
                add(&mut matches, route);
            }
        }
        for (_, members) in groups {
            let present: Vec<&Route> =
                members.iter().copied().filter(|member| member.session.is_connected()).collect();
            let candidates = if present.is_empty() { &members } else { &present };
            add(&mut matches, candidates[turn % candidates.len()]);
        }
        matches
    }
}

/// One message per session, at the best quality that was asked for.
fn add(matches: &mut Vec<Match>, route: &Route) {
    let Subscription { qos, retain_as_published, id, .. } = route.subscription;
    match matches.iter_mut().find(|known| Arc::ptr_eq(&known.session, &route.session)) {
        Some(known) => {
            known.qos = known.qos.max(qos);
            known.retain_as_published |= retain_as_published;
            known.subscription_ids.extend(id);
        }
        None => matches.push(Match {
            session: Arc::clone(&route.session),
            qos,
            retain_as_published,
            subscription_ids: id.into_iter().collect(),
        }),
    }
}

impl Level {
    fn collect<'a>(&'a self, parts: &[&str], may_start_with_wildcard: bool, found: &mut Vec<&'a Route>) {
        if may_start_with_wildcard {
            found.extend(&self.below);
        }
        let Some((first, rest)) = parts.split_first() else {
            found.extend(&self.here);
            return;
        };
        if let Some(level) = self.names.get(*first) {
            level.collect(rest, true, found);
        }
        if let Some(level) = self.any.as_ref().filter(|_| may_start_with_wildcard) {
            level.collect(rest, true, found);
        }
    }

    /// Takes out the routes at the end of `parts` that are not to be kept, and levels that became empty; says how many.
    fn prune(&mut self, parts: &[&str], is_kept: &dyn Fn(&Route) -> bool) -> usize {
        let retain = |routes: &mut Vec<Route>| {
            let before = routes.len();
            routes.retain(is_kept);
            before - routes.len()
        };
        match parts {
            [] => retain(&mut self.here),
            ["#", ..] => retain(&mut self.below),
            ["+", rest @ ..] => {
                let Some(level) = &mut self.any else { return 0 };
                let removed = level.prune(rest, is_kept);
                if level.is_empty() {
                    self.any = None;
                }
                removed
            }
            [name, rest @ ..] => {
                let Some(level) = self.names.get_mut(*name) else { return 0 };
                let removed = level.prune(rest, is_kept);
                if level.is_empty() {
                    self.names.remove(*name);
                }
                removed
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.names.is_empty() && self.any.is_none() && self.here.is_empty() && self.below.is_empty()
    }
}
