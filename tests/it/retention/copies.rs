//! Small copies of images: they go with their image, whoever made them, and count as its files.

use actors::media::filesystem::{FilesystemSettings, FilesystemStore};
use actors::media::store::ObjectRef;
use actors::media::thumbnail::Thumbnails;
use tests::picture::JPEG;

use super::{House, WET};

#[tokio::test]
async fn small_copies_go_with_their_image_and_count_as_files() {
    let house = House::new().await;
    let media = FilesystemStore::new(FilesystemSettings {
        root: house.root.path().to_owned(),
        public_base_url: "http://localhost".to_owned(),
        upload_secret: "secret".to_owned(),
    });
    let shelf = tempfile::tempdir().expect("a directory");
    let thumbnails = Thumbnails::new(shelf.path().to_owned(), 1 << 20);
    let mut copies = Vec::new();
    for (name, days_ago) in [("old", 91), ("new", 1)] {
        house.image(name, days_ago, None).await;
        let path = house.path(name);
        std::fs::write(house.root.path().join(&path), JPEG).expect("it can be written");
        let object = ObjectRef { object_key: format!("tenants/{name}"), path: Some(path) };
        for width in [160, 320] {
            copies.push(thumbnails.show(&media, &object, width).await.expect("a copy").len() as u64);
        }
    }
    let report = house.hub(|settings| settings.thumbnails = thumbnails.clone()).pass(WET).await;
    assert_eq!(report.errors, Vec::<String>::new());
    assert_eq!(report.deleted_files, 3, "the old image and its two copies");
    assert_eq!(report.freed_bytes, JPEG.len() as u64 + copies[0] + copies[1]);
    assert_eq!(thumbnails.forget("tenants/old").await, Vec::<u64>::new());
    assert_eq!(thumbnails.forget("tenants/new").await, copies[2..]);
}
