//! Synthetic pictures: a broiler on a scale, seen from above, whose weight is known because it decided the picture.
//!
//! # The rule
//!
//! What a camera above a scale sees of a bird is its outline. Bodies of one shape have surfaces that grow with the
//! power 2/3 of their mass (Meeh's rule; for fowl about 10 cm² per g^(2/3), feathers included), and the mean shadow of
//! a convex body is a quarter of its surface (Cauchy). A bird stands with its broad side down, so a little more than a
//! quarter is seen:
//!
//! ```text
//! area of the body seen from above [m²] = 0.0275 · (weight [kg])^(2/3)
//! ```
//!
//! A bird of 2 kg thus shows 437 cm², an egg-shaped outline about 29 cm long and 19 cm wide. Head and tail come on top.
//! No two birds of one weight look alike: the area of each deviates by 2 % (one standard deviation) and the camera's
//! height by 0.5 %, which nobody can tell from more or less weight. The best judge is therefore wrong by about
//! 2.7 % of the weight on average.
//!
//! Everything else, such as light, blur, turn, place, breed, litter and neighbors, is drawn by chance and says nothing
//! about the weight. The same weight and seed give the same bytes.

mod canvas;
pub mod folder;

use std::f32::consts::{PI, TAU};

use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageEncoder};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use canvas::{Canvas, Color, mix};

/// Width of a picture, pixels.
pub const WIDTH: u32 = 640;
/// Height of a picture, pixels.
pub const HEIGHT: u32 = 480;
/// Lightest bird the rule is made for, kilograms: a chick of a few days.
pub const WEIGHT_KG_MIN: f64 = 0.1;
/// Heaviest bird the rule is made for, kilograms.
pub const WEIGHT_KG_MAX: f64 = 4.0;

/// Area seen from above of a bird of one kilogram, square meters.
const AREA_OF_ONE_KG_M2: f64 = 0.0275;
/// Pixels that a meter on the scale takes.
const PIXELS_PER_METER: f32 = 800.0;
/// Standard deviation of the areas of birds of one weight, as a share.
const AREA_DEVIATION: f32 = 0.02;
/// Standard deviation of the camera's height, as a share.
const HEIGHT_DEVIATION: f32 = 0.005;
/// Side of the square platform of the scale, meters.
const PLATFORM_METERS: f32 = 0.46;
/// Most birds beside the scale.
const NEIGHBORS_MAX: usize = 3;

/// The weight of some bird, in whole grams as a scale says it.
pub fn random_weight_kg(random: &mut StdRng) -> f64 {
    (random.random_range(WEIGHT_KG_MIN..WEIGHT_KG_MAX) * 1000.0).round() / 1000.0
}

/// The area of a bird's body seen from above, square meters.
#[must_use]
pub fn area_m2(weight_kg: f64) -> f64 {
    AREA_OF_ONE_KG_M2 * weight_kg.powf(2.0 / 3.0)
}

/// A picture and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// The file.
    pub jpeg: Vec<u8>,
    /// Pixels of the body on the scale, without head and tail, before anything was blurred.
    pub body_pixels: u64,
}

/// Draws the picture of a bird of this weight.
#[must_use]
pub fn render(weight_kg: f64, seed: u64) -> Picture {
    let mut random = StdRng::seed_from_u64(seed);
    let mut canvas = Canvas::new(WIDTH as usize, HEIGHT as usize);
    let camera = 1.0 + HEIGHT_DEVIATION * normal(&mut random);
    let scale = PIXELS_PER_METER * camera;
    litter(&mut canvas, &mut random);
    let breed = Breed::new(&mut random);
    let shadow_to = (random.random_range(-14.0..14.0), random.random_range(-14.0..14.0));
    let center = (
        WIDTH as f32 / 2.0 + random.random_range(-45.0..45.0),
        HEIGHT as f32 / 2.0 + random.random_range(-30.0..30.0),
    );
    // Drawn by chance before anything whose number of draws depends on the weight, so that one seed is one bird.
    let bird = Bird::of(weight_kg, scale, center, &mut random);
    platform(&mut canvas, &mut random, scale);
    // The flock is of one age: neighbors weigh about as much as the bird on the scale.
    for _ in 0..random.random_range(0..=NEIGHBORS_MAX) {
        let neighbor = Bird::beside(weight_kg, scale, &mut random);
        neighbor.draw(&mut canvas, breed, shadow_to, &mut random);
    }
    let body_pixels = bird.draw(&mut canvas, breed, shadow_to, &mut random);
    light(&mut canvas, &mut random);
    canvas.blur(random.random_range(0..=2));
    let jpeg = develop(&canvas, &mut random);
    Picture { jpeg, body_pixels }
}

/// A number of the normal distribution with mean 0 and deviation 1 (Box and Muller).
pub(crate) fn normal(random: &mut StdRng) -> f32 {
    let radius = (-2.0 * (1.0 - random.random::<f32>()).ln()).sqrt();
    radius * (TAU * random.random::<f32>()).cos()
}

/// Wood shavings: a brown of chance, darker where it is damp, with bright chips.
fn litter(canvas: &mut Canvas, random: &mut StdRng) {
    let tone = random.random_range(0.30..0.55);
    let base = [tone, tone * random.random_range(0.74..0.90), tone * random.random_range(0.48..0.70)];
    canvas.fill(base);
    canvas.mottle(64, 0.16, random);
    canvas.mottle(9, 0.14, random);
    for _ in 0..random.random_range(150..500) {
        let at = (random.random_range(0.0..WIDTH as f32), random.random_range(0.0..HEIGHT as f32));
        let (length, thickness) = (random.random_range(3.0..11.0), random.random_range(0.8..2.2));
        let turn = random.random_range(0.0..PI);
        let brightness = random.random_range(0.7..1.6);
        let color = base.map(|channel| channel * brightness);
        canvas.ellipse(at, (length, thickness), turn, |_, _, under| mix(under, color, 0.7));
    }
}

/// The platform of the scale: a grey square, turned a little, soiled.
fn platform(canvas: &mut Canvas, random: &mut StdRng, scale: f32) {
    let tone = random.random_range(0.22..0.42);
    let dirt = random.random_range(0.1..0.5);
    let half = PLATFORM_METERS / 2.0 * scale;
    let center = (
        WIDTH as f32 / 2.0 + random.random_range(-10.0..10.0),
        HEIGHT as f32 / 2.0 + random.random_range(-10.0..10.0),
    );
    let turn = random.random_range(-0.15..0.15);
    canvas.square(center, half, turn, |under| mix([tone, tone, tone * 1.05], under, dirt));
}

/// The color of a flock.
#[derive(Clone, Copy)]
struct Breed {
    feathers: Color,
    comb: Color,
}

impl Breed {
    fn new(random: &mut StdRng) -> Self {
        let tone = random.random_range(0.72..0.95);
        let yellow = random.random_range(0.0..0.12);
        Self { feathers: [tone, tone - yellow * 0.4, tone - yellow], comb: [0.62, 0.16, 0.14] }
    }
}

/// A bird as the camera sees it; lengths are pixels.
struct Bird {
    center: (f32, f32),
    /// Half the length and half the width of the body.
    half: (f32, f32),
    turn: f32,
    /// How far the head is turned from the body's direction.
    nod: f32,
    /// Wider before than behind, as a share of the width.
    chest: f32,
}

impl Bird {
    fn of(weight_kg: f64, scale: f32, center: (f32, f32), random: &mut StdRng) -> Self {
        #[expect(clippy::cast_possible_truncation, reason = "a picture needs no more digits")]
        let area = area_m2(weight_kg) as f32 * scale * scale * (1.0 + AREA_DEVIATION * normal(random));
        let slimness = random.random_range(1.45..1.65);
        let half_width = (area / (PI * slimness)).sqrt();
        Self {
            center,
            half: (half_width * slimness, half_width),
            turn: random.random_range(0.0..TAU),
            nod: random.random_range(-0.6..0.6),
            chest: random.random_range(0.05..0.18),
        }
    }

    /// A bird that looks in over the edge of the picture.
    fn beside(weight_kg: f64, scale: f32, random: &mut StdRng) -> Self {
        let weight_kg = weight_kg * random.random_range(0.8..1.2);
        let around = random.random_range(0.0..TAU);
        let away = random.random_range(1.0..1.25);
        let center = (
            WIDTH as f32 * (0.5 + 0.5 * away * around.cos()),
            HEIGHT as f32 * (0.5 + 0.5 * away * around.sin()),
        );
        Self::of(weight_kg, scale, center, random)
    }

    /// Draws shadow, tail, body and head; counts the pixels of the body.
    fn draw(&self, canvas: &mut Canvas, breed: Breed, shadow_to: (f32, f32), random: &mut StdRng) -> u64 {
        let (half_length, half_width) = self.half;
        let shadow = (self.center.0 + shadow_to.0, self.center.1 + shadow_to.1);
        let around = (half_length * 1.08, half_width * 1.1);
        canvas.ellipse(shadow, around, self.turn, |x, y, under| {
            mix(under, [0.05; 3], 0.5 * (1.0 - (x * x + y * y)).clamp(0.0, 1.0))
        });
        let feathers = |brightness: f32| breed.feathers.map(|channel| channel * brightness);
        let tail = self.along(-1.05, 0.0);
        canvas.ellipse(tail, (half_length * 0.25, half_width * 0.35), self.turn, |_, y, _| {
            feathers(0.82 - 0.2 * y * y)
        });
        let plumage = random.random_range(0.02..0.06);
        let body_pixels = canvas.ellipse(self.center, self.half, self.turn, |x, y, _| {
            // Round like a body, with the edges of two wings folded on the back.
            let roundness = 1.0 - 0.38 * (x * x + y * y);
            let is_wing_edge = ((y.abs() - 0.55 + 0.25 * x * x) / 0.05).abs() < 1.0;
            let grain = 1.0 + plumage * random.random_range(-1.0..1.0);
            feathers(roundness * grain * if is_wing_edge { 0.88 } else { 1.0 })
        });
        self.draw_chest_and_head(canvas, breed, random);
        body_pixels
    }

    fn draw_chest_and_head(&self, canvas: &mut Canvas, breed: Breed, random: &mut StdRng) {
        let (half_length, half_width) = self.half;
        let feathers = |brightness: f32| breed.feathers.map(|channel| channel * brightness);
        let chest = self.along(0.45, 0.0);
        let chest_half = (half_length * 0.5, half_width * (0.9 + self.chest * 0.5));
        canvas.ellipse(chest, chest_half, self.turn, |x, y, under| {
            mix(under, feathers(1.0 - 0.3 * (x * x + y * y)), 0.5)
        });
        let head = self.along(1.0 + 0.18 * self.nod.cos(), 0.35 * self.nod.sin());
        let toward = self.turn + self.nod;
        let size = half_width * random.random_range(0.30..0.36);
        canvas.ellipse(head, (size * 1.25, size), toward, |x, y, _| feathers(1.02 - 0.25 * (x * x + y * y)));
        let comb = (head.0 + size * 0.3 * toward.cos(), head.1 + size * 0.3 * toward.sin());
        canvas.ellipse(comb, (size * 0.8, size * 0.22), toward, |_, _, _| breed.comb);
        let beak = (head.0 + size * 1.3 * toward.cos(), head.1 + size * 1.3 * toward.sin());
        canvas.ellipse(beak, (size * 0.35, size * 0.18), toward, |_, _, _| [0.75, 0.55, 0.2]);
    }

    /// The place so many half lengths before and half widths beside the center.
    fn along(&self, ahead: f32, aside: f32) -> (f32, f32) {
        let (x, y) = (ahead * self.half.0, aside * self.half.1);
        let (sin, cos) = self.turn.sin_cos();
        (self.center.0 + x * cos - y * sin, self.center.1 + x * sin + y * cos)
    }
}

/// Lamps: how bright, how warm, brighter on one side, darker toward the corners.
fn light(canvas: &mut Canvas, random: &mut StdRng) {
    let brightness = random.random_range(0.55..1.15);
    let warmth = random.random_range(-0.10..0.16);
    let (slope, vignette) = (random.random_range(0.0..0.25), random.random_range(0.0..0.25));
    let (sin, cos) = random.random_range(0.0..TAU).sin_cos();
    canvas.change(|x, y, color| {
        let falloff = 1.0 + slope * (x * cos + y * sin) - vignette * (x * x + y * y);
        let gain = brightness * falloff;
        [color[0] * gain * (1.0 + warmth), color[1] * gain, color[2] * gain * (1.0 - warmth)]
    });
}

/// The sensor's noise and the camera's JPEG.
fn develop(canvas: &Canvas, random: &mut StdRng) -> Vec<u8> {
    let noise = random.random_range(1.0..7.0);
    let pixels = canvas.bytes(noise, random);
    let quality = random.random_range(72..=92);
    let mut jpeg = Vec::with_capacity(64 * 1024);
    JpegEncoder::new_with_quality(&mut jpeg, quality)
        .write_image(&pixels, WIDTH, HEIGHT, ExtendedColorType::Rgb8)
        .expect("a picture of this size can be written to memory");
    jpeg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_weight_and_seed_give_the_same_bytes() {
        assert_eq!(render(2.0, 7), render(2.0, 7));
        assert_ne!(render(2.0, 7).jpeg, render(2.0, 8).jpeg);
        assert_ne!(render(2.0, 7).jpeg, render(2.1, 7).jpeg);
    }

    #[test]
    fn a_picture_is_a_jpeg_of_the_promised_size() {
        let picture = image::load_from_memory(&render(1.0, 1).jpeg).unwrap();
        assert_eq!((picture.width(), picture.height()), (WIDTH, HEIGHT));
    }

    #[test]
    fn a_heavier_bird_covers_more_pixels_by_the_rule() {
        // With one seed the deviations are the same, so the pixels must follow the weight alone.
        let pixels = |weight_kg: f64| f64::from(u32::try_from(render(weight_kg, 3).body_pixels).unwrap());
        let weights: Vec<f64> = (1..=8).map(|step| 0.5 * f64::from(step)).collect();
        let seen: Vec<f64> = weights.iter().map(|weight| pixels(*weight)).collect();
        assert!(seen.windows(2).all(|pair| pair[0] < pair[1]), "{seen:?}");
        for (weight, pixels) in weights.iter().zip(&seen) {
            let expected = seen[0] * area_m2(*weight) / area_m2(0.5);
            assert!((pixels / expected - 1.0).abs() < 0.01, "{weight} kg: {pixels} pixels, not {expected}");
        }
    }

    #[test]
    fn two_kilograms_show_four_hundred_and_thirty_seven_square_centimeters() {
        assert!((area_m2(2.0) - 0.0437).abs() < 0.0001);
    }
}
