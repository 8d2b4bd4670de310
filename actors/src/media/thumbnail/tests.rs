//! Small copies over a directory of images.

use std::io::Cursor;

use image::{DynamicImage, ImageFormat, Rgb, RgbImage};

use super::super::filesystem::{FilesystemSettings, FilesystemStore};
use super::*;

struct House {
    directory: tempfile::TempDir,
    media: FilesystemStore,
}

impl House {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let media = FilesystemStore::new(FilesystemSettings {
            root: directory.path().join("media"),
            public_base_url: String::new(),
            upload_secret: "secret".to_owned(),
        });
        fs::create_dir_all(directory.path().join("media")).expect("a directory");
        Self { directory, media }
    }

    fn shelf(&self) -> PathBuf {
        self.directory.path().join("thumbnails")
    }

    fn put(&self, name: &str, bytes: &[u8]) -> ObjectRef {
        fs::write(self.directory.path().join("media").join(name), bytes).expect("it can be written");
        ObjectRef { object_key: format!("key/{name}"), path: Some(name.to_owned()) }
    }

    fn copies(&self) -> usize {
        let folders = entries(&self.shelf()).expect("it can be listed");
        folders.iter().map(|folder| entries(&folder.path()).expect("it can be listed").len()).sum()
    }
}

fn picture(width: u32, height: u32) -> Vec<u8> {
    let image = RgbImage::from_fn(width, height, |x, y| Rgb([x as u8, y as u8, 99]));
    let mut bytes = Cursor::new(Vec::new());
    DynamicImage::ImageRgb8(image).write_to(&mut bytes, ImageFormat::Png).expect("it can be written");
    bytes.into_inner()
}

fn size(copy: &[u8]) -> (u32, u32) {
    let image = image::load_from_memory_with_format(copy, ImageFormat::Jpeg).expect("a JPEG");
    (image.width(), image.height())
}

#[tokio::test]
async fn a_copy_keeps_its_shape_and_is_never_larger_than_the_picture() {
    let house = House::new();
    let thumbnails = Thumbnails::new(house.shelf(), 1 << 20);
    for (picture_size, width, expected) in
        [((800, 600), 320, (320, 240)), ((600, 800), 160, (160, 213)), ((100, 50), 320, (100, 50))]
    {
        let object = house.put(&format!("{}", picture_size.0), &picture(picture_size.0, picture_size.1));
        for _ in 0..2 {
            let copy = thumbnails.show(&house.media, &object, width).await.expect("a copy");
            assert_eq!(size(&copy), expected, "{picture_size:?}");
        }
    }
    assert_eq!(house.copies(), 3);
    // Kept ones need no picture.
    fs::remove_dir_all(house.directory.path().join("media")).expect("it can be removed");
    let object = ObjectRef { object_key: "key/800".to_owned(), path: Some("800".to_owned()) };
    thumbnails.show(&house.media, &object, 320).await.expect("a copy");
    let other = thumbnails.show(&house.media, &object, 160).await;
    assert!(matches!(other, Err(ThumbnailError::Absent)), "{other:?}");
}

#[tokio::test]
async fn copies_go_with_their_image_and_when_there_are_too_many() {
    let house = House::new();
    let thumbnails = Thumbnails::new(house.shelf(), 1 << 20);
    let object = house.put("a", &picture(800, 600));
    for width in WIDTHS {
        thumbnails.show(&house.media, &object, width).await.expect("a copy");
    }
    assert_eq!(house.copies(), WIDTHS.len());
    assert_eq!(thumbnails.forget("key/a").await.len(), WIDTHS.len());
    assert_eq!((house.copies(), thumbnails.forget("key/a").await.len()), (0, 0));

    let one = thumbnails.show(&house.media, &object, 160).await.expect("a copy").len() as u64;
    let few = Thumbnails::new(house.shelf(), one * 8);
    for number in 0..40 {
        let object = house.put(&number.to_string(), &picture(800, 600));
        few.show(&house.media, &object, 160).await.expect("a copy");
        assert!(house.copies() <= 9, "{}", house.copies());
    }
    assert!(house.copies() >= 6, "{}", house.copies());
}

#[tokio::test]
async fn what_cannot_be_decoded_is_refused_and_kept_nowhere() {
    let house = House::new();
    let thumbnails = Thumbnails::new(house.shelf(), 1 << 20);
    let whole = picture(80, 60);
    let mut bomb = whole.clone();
    bomb[16..20].copy_from_slice(&60_000_u32.to_be_bytes());
    bomb[20..24].copy_from_slice(&60_000_u32.to_be_bytes());
    for (name, bytes) in
        [("text", &b"no picture at all"[..]), ("half", &whole[..whole.len() / 2]), ("bomb", &bomb)]
    {
        let object = house.put(name, bytes);
        let refused = thumbnails.show(&house.media, &object, 320).await;
        assert!(matches!(refused, Err(ThumbnailError::Refused(_))), "{name}: {refused:?}");
    }
    assert_eq!(house.copies(), 0);
}

#[tokio::test]
async fn only_so_many_wait_for_their_turn() {
    let house = House::new();
    let thumbnails = Thumbnails::unkept();
    let object = house.put("a", &picture(80, 60));
    let held = thumbnails.0.turn.acquire().await.expect("a turn");
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..WAITING_MAX {
        let (thumbnails, media, object) = (thumbnails.clone(), house.media.clone(), object.clone());
        waiting.spawn(async move { thumbnails.show(&media, &object, 160).await.is_ok() });
    }
    while thumbnails.0.waiting.available_permits() > 0 {
        tokio::task::yield_now().await;
    }
    let refused = thumbnails.show(&house.media, &object, 160).await;
    assert!(matches!(refused, Err(ThumbnailError::Busy)), "{refused:?}");
    drop(held);
    assert!(waiting.join_all().await.into_iter().all(|is_shown| is_shown));
}
