//! Budgets with shares: what one owner may have, what is left for the next one, and that everything is given back.

use std::thread;

use proptest::prelude::*;

use super::*;

fn share(max: usize, floor: usize) -> Share<u8> {
    Share::new(Budget::QueuedBytes, max, floor)
}

/// Takes `step` at a time until it is refused.
fn take_all(share: &Share<u8>, owner: u8, step: usize) -> (Vec<Permit<u8>>, Spent) {
    let mut permits = Vec::new();
    loop {
        match share.take(&owner, step) {
            Ok(permit) => permits.push(permit),
            Err(spent) => return (permits, spent),
        }
    }
}

#[test]
fn each_owner_gets_a_third_of_what_the_others_leave() {
    let share = share(900, 0);
    let (first, spent) = take_all(&share, 1, 1);
    assert_eq!((first.len(), spent.limit), (300, Limit::Share));
    let (second, _) = take_all(&share, 2, 1);
    assert_eq!(second.len(), 200, "a third of 600");
    let (more, _) = take_all(&share, 1, 1);
    assert_eq!(more.len(), 0, "what others take makes nobody's part larger");
    drop(second);
    assert_eq!(share.taken(), 300);
}

#[test]
fn the_floor_is_had_while_anything_is_free_and_no_longer() {
    let share = share(10, 2);
    let owners: Vec<_> = (0..8).map(|owner| take_all(&share, owner, 1).0).collect();
    let counts: Vec<usize> = owners.iter().map(Vec::len).collect();
    assert_eq!(counts, [3, 2, 2, 2, 1, 0, 0, 0]);
    let spent = share.take(&9, 1).unwrap_err();
    assert_eq!(spent, Spent { budget: Budget::QueuedBytes, limit: Limit::Total });
    assert_eq!(spent.to_string(), "budget queued_bytes is spent: total");
}

#[test]
fn a_permit_grows_and_shrinks_and_a_refusal_changes_nothing() {
    let share = share(300, 0);
    let mut permit = share.take(&1, 60).unwrap();
    assert_eq!(permit.grow(41).unwrap_err().limit, Limit::Share);
    assert_eq!((permit.amount(), share.taken()), (60, 60));
    permit.resize(100).unwrap();
    permit.resize(10).unwrap();
    assert_eq!((permit.amount(), share.taken()), (10, 10));
    let stored = share.account(&1).take_anyway(1000);
    assert_eq!(permit.grow(1).unwrap_err().limit, Limit::Total);
    permit.grow(0).unwrap();
    permit.shrink(10);
    drop(stored);
    drop(permit);
    assert_eq!((share.taken(), share.owners()), (0, 0));
}

#[test]
fn an_account_is_forgotten_with_its_last_holder_and_not_before() {
    let share = share(300, 0);
    let account = share.account(&1);
    let permit = account.take(1).unwrap();
    drop(account);
    assert_eq!(share.account(&1).taken(), 1);
    drop(permit);
    assert_eq!(share.owners(), 0);
}

#[test]
fn many_threads_never_take_more_than_there_is_and_give_all_of_it_back() {
    let share = share(1000, 10);
    thread::scope(|scope| {
        for owner in 0..4 {
            let share = share.clone();
            scope.spawn(move || {
                for amount in (1..500).chain(1..500) {
                    let permit = share.take(&(owner % 3), amount);
                    assert!(share.taken() <= 1000);
                    drop(permit);
                }
            });
        }
    });
    assert_eq!((share.taken(), share.owners()), (0, 0));
}

proptest! {
    /// Whatever one owner takes and gives back, in whatever steps: another one gets a third of what is left, and two thirds
    /// of everything are always left.
    #[test]
    fn whatever_one_owner_does_another_gets_something(
        max in 3usize..10_000,
        steps in proptest::collection::vec((1usize..5_000, any::<bool>()), 1..60),
    ) {
        let share = share(max, 0);
        let mut held = Vec::new();
        for (amount, is_given_back) in steps {
            if is_given_back {
                held.pop();
            }
            held.extend(share.take(&1, amount));
            let left = max - share.taken();
            prop_assert!(left >= max - max / OWNER_PART);
            prop_assert!(share.take(&2, left / OWNER_PART).is_ok());
        }
    }

    /// With many owners: no total above the budget, nobody above its part when it takes, and all of it comes back.
    #[test]
    fn nobody_passes_its_part_and_everything_is_given_back(
        max in 0usize..2_000,
        floor in 0usize..50,
        steps in proptest::collection::vec((0u8..5, 1usize..700, any::<bool>()), 1..100),
    ) {
        let share = share(max, floor);
        let mut held: Vec<(u8, Permit<u8>)> = Vec::new();
        for (owner, amount, is_given_back) in steps {
            if is_given_back && !held.is_empty() {
                held.remove(amount % held.len());
            }
            let taken_by = |of: u8| -> usize {
                held.iter().filter(|(owner, _)| *owner == of).map(|(_, permit)| permit.amount()).sum()
            };
            let (own, all) = (taken_by(owner), (0..5).map(taken_by).sum::<usize>());
            let part = ((max - (all - own)) / OWNER_PART).max(floor);
            let is_due = own + amount <= part && all + amount <= max;
            let taken = share.take(&owner, amount);
            prop_assert_eq!(taken.is_ok(), is_due);
            held.extend(taken.ok().map(|permit| (owner, permit)));
            prop_assert!(share.taken() <= max);
        }
        drop(held);
        prop_assert_eq!((share.taken(), share.owners()), (0, 0));
    }
}
