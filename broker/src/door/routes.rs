//! Who wants which topics: the subscriptions that are served from queues, in a tree of topic levels.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use crate::door::queue::{Manner, Parcel};
use crate::door::session::Session;
use crate::filter::Shared;
use crate::message::Qos;
use crate::publication::Publication;
use crate::store::{Owner, Subscription};

/// One subscription of one session.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) session: Arc<Session>,
    pub(crate) subscription: Subscription,
    /// The group that shares it.
    pub(crate) is_shared: bool,
}

/// Who gets a message.
#[derive(Debug, Default)]
pub(crate) struct Matches {
    /// Each of these sessions.
    pub(crate) each: Vec<Match>,
    /// Of each of these groups the first member that has room for it.
    pub(crate) groups: Vec<Vec<Match>>,
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

    /// Whether a session that outlives its connection gets messages of `topic`.
    pub(crate) fn is_kept(&self, topic: &str) -> bool {
        let mut found = Vec::new();
        let parts: Vec<&str> = topic.split('/').collect();
        self.root.collect(&parts, !topic.starts_with('$'), &mut found);
        let is_promised = |route: &Route| route.subscription.qos > Qos::AtMostOnce;
        found.iter().any(|route| is_promised(route) && route.session.expiry_seconds() > 0)
    }

    /// Who gets a message of `topic`, published by the session `publisher`. Of each group, those who are there come before
    /// those who are away, and `turn` decides with whom it begins.
    pub(crate) fn matching(&self, topic: &str, publisher: u64, turn: usize) -> Matches {
        let mut found = Vec::new();
        let parts: Vec<&str> = topic.split('/').collect();
        self.root.collect(&parts, !topic.starts_with('$'), &mut found);
        let (shared, mut own): (Vec<&Route>, Vec<&Route>) =
            found.into_iter().partition(|route| route.is_shared);
        own.retain(|route| !(route.subscription.no_local && route.session.number() == publisher));
        own.sort_by_key(|route| route.session.number());
        let is_same_session = |one: &&Route, next: &&Route| one.session.number() == next.session.number();
        Matches {
            each: own.chunk_by(is_same_session).map(Match::best_of).collect(),
            groups: groups(shared).map(|members| in_turn(&members, turn)).collect(),
        }
    }
}

impl Matches {
    /// Whether nobody gets it.
    pub(crate) fn is_empty(&self) -> bool {
        self.each.is_empty() && self.groups.is_empty()
    }
}

impl Match {
    /// A message as it is sent to it.
    pub(crate) fn parcel(&self, publication: &Arc<Publication>) -> Parcel {
        Parcel {
            publication: Arc::clone(publication),
            manner: Manner {
                qos: publication.qos.min(self.qos),
                retain: publication.retain && self.retain_as_published,
                subscription_ids: self.subscription_ids.clone(),
            },
        }
    }

    /// One message for all subscriptions of one session, at the best quality that was asked for.
    fn best_of(routes: &[&Route]) -> Self {
        let mut best = Self {
            session: Arc::clone(&routes[0].session),
            qos: Qos::AtMostOnce,
            retain_as_published: false,
            subscription_ids: Vec::new(),
        };
        for Route { subscription, .. } in routes {
            best.qos = best.qos.max(subscription.qos);
            best.retain_as_published |= subscription.retain_as_published;
            best.subscription_ids.extend(subscription.id);
        }
        best
    }
}

/// The members of each group. A name of a group belongs to the owner who uses it, so nobody joins the group of another.
fn groups(shared: Vec<&Route>) -> impl Iterator<Item = Vec<&Route>> {
    let mut groups: HashMap<(&Owner, &str), Vec<&Route>> = HashMap::new();
    for route in shared {
        let key = (&route.session.client().owner, &*route.subscription.filter);
        groups.entry(key).or_default().push(route);
    }
    groups.into_values()
}

fn in_turn(members: &[&Route], turn: usize) -> Vec<Match> {
    let (mut present, mut away): (Vec<&Route>, Vec<&Route>) =
        members.iter().partition(|member| member.session.is_connected());
    for candidates in [&mut present, &mut away] {
        let first = turn % candidates.len().max(1);
        candidates.rotate_left(first);
    }
    present.iter().chain(&away).map(|member| Match::best_of(&[member])).collect()
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
    use crate::door::retained::Retained;
    use crate::door::session::SessionParts;
    use crate::filter;
    use crate::store::{Client, Forgetful, Owner};

    fn parts() -> Arc<SessionParts> {
        let limits = QueueLimits { messages_max: 10, bytes_max: 10_000, age_max: Duration::from_secs(1) };
        Arc::new(SessionParts {
            journal: Arc::new(Journal::new(Arc::new(Forgetful))),
            stats: Arc::default(),
            retained: Arc::new(Retained::new(
                Vec::new(),
                Arc::new(Journal::new(Arc::new(Forgetful))),
                Arc::default(),
            )),
            budget: QueueBudget::new(10_000, 10),
            limits,
        })
    }

    fn sessions(count: u64) -> Vec<Arc<Session>> {
        let parts = parts();
        (1..=count).map(|number| Session::new(&parts, number, client(Owner::Anonymous, number), 0)).collect()
    }

    fn client(owner: Owner, number: u64) -> Client {
        Client { owner, client_id: Arc::from(number.to_string()) }
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

    /// Who gets a message while everybody has room.
    fn found(routes: &Routes, topic: &str, turn: usize) -> BTreeSet<u64> {
        let Matches { each, groups } = routes.matching(topic, 0, turn);
        let first = groups.iter().filter_map(|members| members.first());
        each.iter().chain(first).map(|found| found.session.number()).collect()
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
        let matches = routes.matching("a/x", 0, 0).each;
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
        let found: Vec<u64> =
            routes.matching("a", 1, 0).each.iter().map(|found| found.session.number()).collect();
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
        sessions[1].attach(0).unseen();
        for turn in 0..4 {
            assert_eq!(found(&routes, "a/b", turn), BTreeSet::from([2, 3]));
        }
        let groups = routes.matching("a/b", 0, 1).groups;
        let mut members: Vec<Vec<u64>> =
            groups.iter().map(|group| group.iter().map(|member| member.session.number()).collect()).collect();
        members.sort();
        assert_eq!(members, [vec![2, 3, 1], vec![3]], "who is away comes last");
    }

    #[test]
    fn a_group_belongs_to_the_owner_of_its_members() {
        let mut routes = Routes::default();
        let parts = parts();
        for (number, owner) in [(1, Owner::Anonymous), (2, Owner::Operator("ops".into()))] {
            let session = Session::new(&parts, number, client(owner, number), 0);
            routes.insert(&session, subscription("$share/g/a"));
        }
        for turn in 0..2 {
            assert_eq!(found(&routes, "a", turn), BTreeSet::from([1, 2]));
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
