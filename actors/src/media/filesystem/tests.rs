//! A directory of images, with a real file system.

use super::*;

const PATH: &str = "t-001/f-001/b-001/s-1/20260212T093215.052Z_a.jpg";

struct Place {
    directory: tempfile::TempDir,
    store: FilesystemStore,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let store = FilesystemStore::new(FilesystemSettings {
            root: directory.path().join("media"),
            public_base_url: "http://box".to_owned(),
            upload_secret: "secret".to_owned(),
        });
        Self { directory, store }
    }

    async fn put(&self, path: &str, bytes: &[u8]) -> Written {
        let mut draft = self.store.begin(path).await.expect("a draft");
        draft.write(bytes).await.expect("room");
        let draft = draft.finish().await.expect("room");
        let written = draft.written.clone();
        draft.commit().await.expect("a place");
        written
    }

    async fn read(&self, path: &str) -> Option<Vec<u8>> {
        let mut open = self.store.open(&object(path), Part::Whole).await.expect("a directory")?;
        let mut bytes = Vec::new();
        while let Some(chunk) = open.body.chunk().await.expect("a file") {
            bytes.extend_from_slice(&chunk);
        }
        assert_eq!(bytes.len() as u64, open.meta.size_bytes);
        Some(bytes)
    }

    async fn list(&self, after: Option<&str>, limit: usize) -> Vec<String> {
        let found = self.store.list(after, limit).await.expect("a directory");
        found.into_iter().map(|listed| listed.place).collect()
    }
}

fn object(path: &str) -> ObjectRef {
    ObjectRef { object_key: "key".to_owned(), path: Some(path.to_owned()) }
}

#[tokio::test]
async fn an_image_is_there_from_its_commit_to_its_deletion() {
    let place = Place::new();
    let bytes = vec![7; 3 * CHUNK_BYTES + 1];
    assert_eq!(place.read(PATH).await, None);
    let written = place.put(PATH, &bytes).await;
    let expected = hex::encode(Sha256::digest(&bytes));
    assert_eq!(written, Written { size_bytes: bytes.len() as u64, sha256: expected });
    assert_eq!(place.read(PATH).await.as_deref(), Some(&bytes[..]));
    place.put(PATH, b"other").await;
    assert_eq!(place.read(PATH).await.as_deref(), Some(&b"other"[..]));
    assert_eq!(place.store.delete(&object(PATH)).await.expect("a directory"), Some(5));
    assert_eq!(place.store.delete(&object(PATH)).await.expect("a directory"), None);
    assert_eq!(place.store.head(&object(PATH)).await.expect("a directory"), None);
    let left = fs::read_dir(place.directory.path().join("media")).expect("the root").count();
    assert_eq!(left, 0, "directories go with their last image");
}

#[tokio::test]
async fn a_draft_that_is_given_up_leaves_nothing_and_keeps_what_was_there() {
    let place = Place::new();
    place.put(PATH, b"first").await;
    let mut draft = place.store.begin(PATH).await.expect("a draft");
    draft.write(b"half").await.expect("room");
    assert_eq!(place.list(None, 10).await.len(), 2);
    drop(draft);
    let mut draft = place.store.begin(PATH).await.expect("a draft");
    draft.write(b"whole").await.expect("room");
    drop(draft.finish().await.expect("room"));
    assert_eq!(place.list(None, 10).await, [PATH]);
    assert_eq!(place.read(PATH).await.as_deref(), Some(&b"first"[..]));
}

#[tokio::test]
async fn no_path_leaves_the_directory() {
    let place = Place::new();
    fs::write(place.directory.path().join("secret"), "s").expect("a file");
    for path in ["../secret", "a/../../secret", "/etc/passwd", "", ".", "a/./../b", "a\0b"] {
        assert!(place.store.head(&object(path)).await.is_err(), "{path:?}");
        assert!(place.store.open(&object(path), Part::Whole).await.is_err(), "{path:?}");
        assert!(place.store.delete(&object(path)).await.is_err(), "{path:?}");
        assert!(place.store.begin(path).await.is_err(), "{path:?}");
    }
}

#[tokio::test]
async fn a_listing_goes_on_where_the_last_one_ended() {
    let place = Place::new();
    let paths = ["a/1", "a/b/1", "a/b/2", "a/b-c/1", "a-b/1", "b"];
    for path in paths {
        place.put(path, b"x").await;
    }
    let all = place.list(None, 100).await;
    assert_eq!(all.len(), paths.len());
    for limit in 1..=paths.len() {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = place.list(after.as_deref(), limit).await;
            let is_last = page.len() < limit;
            after = page.last().cloned().or(after);
            found.extend(page);
            if is_last {
                break;
            }
        }
        assert_eq!(found, all, "{limit} at a time");
    }
}

#[tokio::test]
async fn a_directory_is_usable_when_it_can_be_written_to() {
    let place = Place::new();
    place.store.probe().await.expect("it is made");
    let file = place.directory.path().join("file");
    fs::write(&file, "").expect("a file");
    let settings = FilesystemSettings { root: file, ..(*place.store.0).clone() };
    assert!(FilesystemStore::new(settings).probe().await.is_err());
}

#[test]
fn signatures_follow_the_vector_of_the_contract() {
    let place = Place::new();
    let media_id = Uuid::parse_str("226550f6-c262-5647-a6c9-2545e81f2a84").expect("an id");
    let upload = SignedUpload {
        media_id,
        object_key: "tenants/t-001/farms/f-001/barns/b-001/devices/wv-001/images/2026/02/12/11111111-1111-4111-8111-111111111111.jpg",
        content_type: "image/jpeg",
        expires: 1_770_890_400,
    };
    let signature = "de429fe58c3575d50a2edfd5d93e685e316c03791523162aec7802c999843d83";
    assert!(place.store.is_signed(upload, signature));
    assert!(!place.store.is_signed(upload, &signature.to_uppercase()));
    assert!(!place.store.is_signed(upload, &signature[..62]));
    assert!(!place.store.is_signed(upload, ""));
    assert!(!place.store.is_signed(SignedUpload { expires: 1_770_890_401, ..upload }, signature));
    assert!(!place.store.is_signed(SignedUpload { content_type: "image/png", ..upload }, signature));
}
