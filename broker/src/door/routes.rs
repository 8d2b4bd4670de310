//! Who wants which topics: the subscriptions that are served from queues, in a tree of topic levels.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use crate::door::session::Session;
use crate::filter::Shared;
use crate::message::Qos;
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::door::journal::Journal;
    use crate::door::queue::{QueueBudget, QueueLimits};
    use crate::door::session::SessionParts;
    use crate::filter;
    use crate::store::{Client, Forgetful, Owner};

    fn sessions(count: u64) -> Vec<Arc<Session>> {
        let limits = QueueLimits { messages_max: 10, bytes_max: 10_000, age_max: Duration::from_secs(1) };
        let parts = Arc::new(SessionParts {
            journal: Arc::new(Journal::new(Arc::new(Forgetful))),
            stats: Arc::default(),
            budget: QueueBudget::new(10_000),
            limits,
        });
        let client =
            |number: u64| Client { owner: Owner::Anonymous, client_id: Arc::from(number.to_string()) };
        (1..=count).map(|number| Session::new(&parts, number, client(number), 0)).collect()
    }

    fn subscription(filter: &str) -> Subscription {
        Subscription {
            filter: Arc::from(filter),
            qos: Qos::AtLeastOnce,
            no_local: false,
            retain_as_published: false,
            id: None,
        }
    }

    fn found(routes: &Routes, topic: &str, turn: usize) -> BTreeSet<u64> {
        routes.matching(topic, 0, turn).iter().map(|found| found.session.number()).collect()
    }

    #[test]
    fn one_message_reaches_a_client_once_at_its_best_quality_with_all_its_numbers() {
        let mut routes = Routes::default();
        let session = &sessions(1)[0];
        for (filter, qos, id) in
            [("a/#", Qos::AtLeastOnce, 1), ("a/+", Qos::ExactlyOnce, 2), ("b", Qos::AtMostOnce, 3)]
        {
            routes.insert(session, Subscription { qos, id: NonZeroU32::new(id), ..subscription(filter) });
        }
        let matches = routes.matching("a/x", 0, 0);
        assert_eq!(matches.len(), 1);
        assert_eq!(matches[0].qos, Qos::ExactlyOnce);
        let mut ids: Vec<u32> = matches[0].subscription_ids.iter().map(|id| id.get()).collect();
        ids.sort_unstable();
        assert_eq!(ids, [1, 2]);
    }

    #[test]
    fn nobody_gets_their_own_message_who_does_not_want_it() {
        let mut routes = Routes::default();
        let sessions = sessions(2);
        for session in &sessions {
            routes.insert(session, Subscription { no_local: true, ..subscription("a") });
        }
        let found: Vec<u64> = routes.matching("a", 1, 0).iter().map(|found| found.session.number()).collect();
        assert_eq!(found, [2]);
    }

    #[test]
    fn a_group_takes_turns_among_those_who_are_there() {
        let mut routes = Routes::default();
        let sessions = sessions(3);
        for session in &sessions {
            routes.insert(session, subscription("$share/g/a/+"));
        }
        routes.insert(&sessions[2], subscription("$share/other/a/b"));
        let absent = |turn| found(&routes, "a/b", turn);
        assert_eq!(
            absent(0).len() + absent(1).len() + absent(2).len(),
            5,
            "one of each group, once the same"
        );
        sessions[1].attach(0);
        for turn in 0..4 {
            assert_eq!(found(&routes, "a/b", turn), BTreeSet::from([2, 3]));
        }
    }

    proptest! {
        /// The tree finds exactly those whose filter matches, after whatever was added and removed.
        #[test]
        fn the_tree_agrees_with_matching_every_filter(
            steps in proptest::collection::vec((0usize..4, "[ab+]?(/([ab+]?)){0,3}(/#)?", any::<bool>()), 1..40),
            topic in "[ab$]?(/[ab]?){0,4}",
        ) {
            let sessions = sessions(4);
            let mut routes = Routes::default();
            let mut model: BTreeSet<(u64, String)> = BTreeSet::new();
            for (index, filter, is_added) in steps {
                prop_assume!(filter::is_valid(&filter));
                let session = &sessions[index];
                if is_added {
                    routes.insert(session, subscription(&filter));
                    model.insert((session.number(), filter));
                } else {
                    routes.remove(session, &filter);
                    model.remove(&(session.number(), filter));
                }
            }
            prop_assert_eq!(routes.count, model.len());
            let expected: BTreeSet<u64> = (model.iter())
                .filter(|(_, filter)| filter::matches(filter, &topic))
                .map(|(number, _)| *number)
                .collect();
            prop_assert_eq!(found(&routes, &topic, 0), expected);
            for (number, filter) in &model {
                routes.remove(&sessions[usize::try_from(*number).unwrap() - 1], filter);
            }
            prop_assert!(routes.is_empty() && routes.root.is_empty());
        }
    }
}
