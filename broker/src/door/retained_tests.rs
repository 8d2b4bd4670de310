//! Retained messages: one for each topic, its owner's share of the room, and searches that never see an old one.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::message::Qos;
use crate::store::{DoorStore, DoorStoreError, Forgetful, Stored};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn publication(topic: &str, payload: impl Into<Bytes>, expires_at: Option<Timestamp>) -> Arc<Publication> {
    Arc::new(Publication {
        topic: Arc::from(topic),
        payload: payload.into(),
        qos: Qos::AtLeastOnce,
        retain: true,
        carried: Bytes::new(),
        expires_at,
        publisher: 1,
    })
}

fn status(device: usize, payload: impl Into<Bytes>) -> Arc<Publication> {
    publication(&format!("iot/status/t/f/b/d{device}"), payload, None)
}

fn retained(stored: Vec<Publication>) -> Retained {
    let journal = Journal::new(Arc::new(Forgetful) as Arc<dyn DoorStore>);
    Retained::new(stored, Arc::new(journal), Arc::default())
}

fn begin(retained: &Retained, filter: &str) -> Search {
    retained.search(&Owner::Anonymous, &Arc::from(filter)).unwrap()
}

/// All that a filter finds, with room for so many messages at a time.
fn found(retained: &Retained, filter: &str, now: Timestamp, room: usize) -> Vec<String> {
    let mut search = begin(retained, filter);
    let mut found = Vec::new();
    loop {
        let mut left = room;
        let progress = retained.look_up(&mut search, now, |known| {
            if left == 0 {
                return false;
            }
            left -= 1;
            found.push(format!("{}={}", known.topic, String::from_utf8_lossy(&known.payload)));
            true
        });
        if progress == Progress::Over {
            return found;
        }
    }
}

#[tokio::test]
async fn the_last_message_of_a_topic_is_kept_until_an_empty_one_or_its_time() {
    let soon = NOW + Duration::from_secs(1);
    let retained = retained(Vec::new());
    retained.set(&publication("a/1", "old", None)).unseen();
    retained.set(&publication("a/1", "new", None)).unseen();
    retained.set(&publication("a/2", "short", Some(soon))).unseen();
    assert_eq!(found(&retained, "a/+", NOW, 1), ["a/1=new", "a/2=short"]);
    assert_eq!(found(&retained, "a/1", NOW, 1), ["a/1=new"]);
    assert_eq!(found(&retained, "#", soon, 1), ["a/1=new"]);
    retained.drop_expired(soon).await;
    assert_eq!(retained.count.taken(), 1);
    retained.set(&publication("a/1", "", None)).unseen();
    assert_eq!(found(&retained, "#", NOW, 1), [] as [&str; 0]);
    assert_eq!((retained.count.taken(), retained.bytes.taken(), retained.bytes.owners()), (0, 0, 0));
}

#[test]
fn one_device_fills_its_share_and_another_keeps_its_status() {
    let retained = retained(Vec::new());
    retained.set(&status(1, "before")).unseen();
    let large = Bytes::from(vec![b'x'; 1 << 20]);
    for farm in 0..90 {
        retained.set(&publication(&format!("iot/status/t/f{farm}/b/d2"), large.clone(), None)).unseen();
    }
    assert!(retained.bytes.taken() <= RETAINED_BYTES_MAX / 3 + 1000);
    assert_eq!(retained.stats.spent(Budget::RetainedBytes), 90 - 21);
    retained.set(&status(1, "after")).unseen();
    assert_eq!(found(&retained, "iot/status/t/f/b/d1", NOW, 1), ["iot/status/t/f/b/d1=after"]);
}

#[test]
fn a_message_that_finds_no_room_leaves_the_one_before_it() {
    let retained = retained(Vec::new());
    retained.set(&status(1, "small")).unseen();
    retained.set(&status(1, vec![b'x'; RETAINED_BYTES_MAX / 3])).unseen();
    assert_eq!(found(&retained, "#", NOW, 1), ["iot/status/t/f/b/d1=small"]);
    assert_eq!(retained.stats.spent(Budget::RetainedBytes), 1);
}

/// Remembers what it is to store.
#[derive(Default)]
struct Recorder(Mutex<Vec<Change>>);

#[async_trait]
impl DoorStore for Recorder {
    async fn keeps_sessions(&self) -> Result<bool, DoorStoreError> {
        Ok(true)
    }

    async fn load(&self) -> Result<Stored, DoorStoreError> {
        Ok(Stored::default())
    }

    async fn apply(&self, changes: &[Change]) -> Result<Vec<uuid::Uuid>, DoorStoreError> {
        self.0.lock().unwrap().extend_from_slice(changes);
        Ok(Vec::new())
    }
}

#[tokio::test]
async fn stored_spellings_of_one_topic_become_one_message_and_one_row() {
    let recorder = Arc::new(Recorder::default());
    let journal = Arc::new(Journal::new(Arc::clone(&recorder) as Arc<dyn DoorStore>));
    let stored = |topic: &str, payload: &'static str| Arc::unwrap_or_clone(publication(topic, payload, None));
    let rows = vec![
        stored("iot//status/t/f/b/d1", "odd"),
        stored("iot/status/t/f/b/d1", "canonical"),
        stored("/iot/status/t/f/b/d2", "only"),
        stored("other//topic", "foreign"),
    ];
    let retained = Retained::new(rows, Arc::clone(&journal), Arc::default());
    assert_eq!(
        found(&retained, "#", NOW, 1),
        ["iot/status/t/f/b/d1=canonical", "iot/status/t/f/b/d2=only", "other//topic=foreign"]
    );
    assert_eq!(retained.count.taken(), 3);
    journal.store_all().await.unwrap();
    let expected = [
        Change::Unretained(Arc::from("iot//status/t/f/b/d1")),
        Change::Unretained(Arc::from("/iot/status/t/f/b/d2")),
        Change::Retained(publication("iot/status/t/f/b/d2", "only", None)),
    ];
    assert_eq!(*recorder.0.lock().unwrap(), expected);
}

#[test]
fn a_search_yields_to_others_and_finds_what_is_the_latest_when_there_is_room() {
    let retained = retained(Vec::new());
    for device in 0..LOOKED_AT_MAX + 2 {
        retained.set(&status(device, "old")).unseen();
    }
    let mut search = begin(&retained, "iot/status/+/other/#");
    assert_eq!(retained.look_up(&mut search, NOW, |_| unreachable!("nothing matches")), Progress::Paused);
    assert_eq!(retained.look_up(&mut search, NOW, |_| unreachable!("nothing matches")), Progress::Over);
    let mut search = begin(&retained, "#");
    assert_eq!(retained.look_up(&mut search, NOW, |_| false), Progress::NoRoom);
    retained.set(&status(0, "new")).unseen();
    let mut looked_up = Vec::new();
    retained.look_up(&mut search, NOW, |known| {
        looked_up.push(known.payload.clone());
        false
    });
    assert_eq!(looked_up, ["new"]);
}

#[test]
fn one_owner_has_many_searches_and_another_finds_its_place() {
    let retained = retained(Vec::new());
    let filter = Arc::from("#");
    let searches: Vec<Search> =
        std::iter::from_fn(|| retained.search(&Owner::Anonymous, &filter).ok()).collect();
    assert_eq!(searches.len(), SEARCHES_MAX / 3);
    assert!(retained.search(&owner_of("iot/status/t/f/b/d"), &filter).is_ok());
    drop(searches);
    assert_eq!((retained.searches.taken(), retained.stats.spent(Budget::RetainedPending)), (0, 1));
}

proptest! {
    /// However little room there is at a time, a search finds what matches, each once.
    #[test]
    fn a_search_finds_what_matches(
        topics in proptest::collection::btree_set("[ab$]?(/[ab]?){0,3}", 0..30),
        filter in "[ab+]?(/([ab+]?)){0,3}(/#)?",
        room in 1usize..4,
    ) {
        prop_assume!(filter::is_valid(&filter));
        let retained = retained(Vec::new());
        let topics: Vec<&str> = topics.iter().map(String::as_str).filter(|topic| !topic.is_empty()).collect();
        for topic in &topics {
            retained.set(&publication(topic, "x", None)).unseen();
        }
        let mut expected: Vec<String> =
            topics.iter().filter(|topic| filter::matches(&filter, topic)).map(|topic| format!("{topic}=x")).collect();
        expected.sort();
        let mut found = found(&retained, &filter, NOW, room);
        found.sort();
        prop_assert_eq!(found, expected);
    }
}
