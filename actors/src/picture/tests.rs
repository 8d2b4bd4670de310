//! Pictures that are whole, cut at every place, and damaged, of each type.

use std::io::Cursor;

use image::{DynamicImage, Rgb, RgbImage};

use super::*;

fn encoded(format: ImageFormat) -> Vec<u8> {
    let image = RgbImage::from_fn(70, 50, |x, y| Rgb([(x * y) as u8, (x * 3) as u8, (y * 5) as u8]));
    let mut bytes = Cursor::new(Vec::new());
    DynamicImage::from(image).write_to(&mut bytes, format).expect("a picture");
    bytes.into_inner()
}

/// 52 x 37, in three ways that the encoder of the tests does not know.
const PROGRESSIVE: &[u8] = include_bytes!("tests/progressive.jpg");
const SUBSAMPLED_WITH_RESTARTS: &[u8] = include_bytes!("tests/restarts.jpg");
const GRAY_OPTIMIZED: &[u8] = include_bytes!("tests/gray.jpg");

fn jpegs() -> [Vec<u8>; 4] {
    let known = [PROGRESSIVE, SUBSAMPLED_WITH_RESTARTS, GRAY_OPTIMIZED].map(<[u8]>::to_vec);
    let [progressive, restarts, gray] = known;
    [encoded(ImageFormat::Jpeg), progressive, restarts, gray]
}

#[test]
fn what_is_no_picture_says_so() {
    let check = |bytes: &[u8], expected| assert_eq!(super::check(bytes), Err(expected));
    check(b"", PictureFault::Empty);
    for text in
        [&b"<html>no room</html>"[..], b"GIF89a\x01\0\x01\0", b"RIFF\x04\0\0\0WAVE", b"\xff\xd8", &[0; 5000]]
    {
        check(text, PictureFault::Unknown);
    }
}

#[test]
fn a_whole_picture_is_what_its_first_bytes_say() {
    for (format, picture) in [
        (ImageFormat::Jpeg, PictureType::Jpeg),
        (ImageFormat::Png, PictureType::Png),
        (ImageFormat::WebP, PictureType::Webp),
    ] {
        assert_eq!(check(&encoded(format)), Ok(picture));
        assert_eq!(PictureType::of(&encoded(format)[..FIRST_BYTES]), Some(picture));
    }
    for jpeg in jpegs() {
        assert_eq!(check(&jpeg), Ok(PictureType::Jpeg));
    }
}

#[test]
fn a_jpeg_that_is_cut_anywhere_before_its_last_bytes_is_broken() {
    for (number, jpeg) in jpegs().into_iter().enumerate() {
        // The last byte of the data may hold nothing but filling.
        for length in 3..jpeg.len() - 3 {
            let cut = &jpeg[..length];
            assert!(matches!(check(cut), Err(PictureFault::Broken(_))), "picture {number} at {length}");
        }
    }
}

#[test]
fn an_end_mark_makes_no_half_of_a_jpeg_whole() {
    for (number, jpeg) in jpegs().into_iter().enumerate() {
        for share in [5, 7, 9] {
            let cut = [&jpeg[..jpeg.len() * share / 10], &[0, 0xff, 0xd9][..]].concat();
            assert!(check(&cut).is_err(), "picture {number} at {share} tenths");
        }
    }
}

#[test]
fn a_jpeg_whose_end_was_never_filled_is_broken() {
    for (number, jpeg) in jpegs().into_iter().enumerate() {
        for share in [5, 7, 9] {
            let mut filled = jpeg[..jpeg.len() * share / 10].to_vec();
            filled.resize(jpeg.len().max(filled.len() + 64), 0);
            assert!(check(&filled).is_err(), "picture {number} at {share} tenths");
        }
    }
}

#[test]
fn a_jpeg_without_its_end_mark_or_with_bytes_behind_it_is_whole() {
    for (number, jpeg) in jpegs().into_iter().enumerate() {
        let end = jpeg.len() - 2;
        assert_eq!(jpeg[end..], [0xff, 0xd9]);
        for bytes in
            [&jpeg[..end], &jpeg[..=end], &[&*jpeg, b"behind"].concat(), &[&*jpeg, &[0; 4096]].concat()]
        {
            assert_eq!(check(bytes), Ok(PictureType::Jpeg), "picture {number}");
        }
    }
}

#[test]
fn a_frame_of_motion_jpeg_brings_no_tables_of_codes() {
    let jpeg = encoded(ImageFormat::Jpeg);
    let mut frame = Vec::new();
    let mut at = 2;
    frame.extend(&jpeg[..2]);
    while jpeg[at + 1] != 0xda {
        let end = at + 2 + usize::from(u16::from_be_bytes([jpeg[at + 2], jpeg[at + 3]]));
        if jpeg[at + 1] != 0xc4 {
            frame.extend(&jpeg[at..end]);
        }
        at = end;
    }
    frame.extend(&jpeg[at..]);
    assert!(frame.len() < jpeg.len());
    assert_eq!(check(&frame), Ok(PictureType::Jpeg));
    assert!(check(&frame[..frame.len() * 2 / 3]).is_err());
}

#[test]
fn no_bytes_bring_it_down() {
    // Every picture, with each of its first bytes changed in turn.
    for bytes in jpegs().into_iter().chain([encoded(ImageFormat::Png), encoded(ImageFormat::WebP)]) {
        for at in 0..bytes.len().min(1500) {
            for change in [0x81, 0xff] {
                let mut changed = bytes.clone();
                changed[at] ^= change;
                let _ = check(&changed);
            }
        }
    }
}

#[test]
fn a_png_or_webp_that_is_cut_is_broken() {
    for format in [ImageFormat::Png, ImageFormat::WebP] {
        let whole = encoded(format);
        for length in [12, 20, whole.len() / 2, whole.len() - 20] {
            assert!(
                matches!(check(&whole[..length]), Err(PictureFault::Broken(_))),
                "{format:?} at {length}"
            );
        }
        assert!(check(&[&*whole, b"behind"].concat()).is_ok());
    }
}
