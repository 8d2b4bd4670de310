//! A picture while it is being drawn: linear colors, simple shapes, blur and noise.

use rand::Rng;
use rand::rngs::StdRng;

/// Red, green and blue; 0 is black, 1 is white, and more is cut off at the end.
pub(super) type Color = [f32; 3];

/// `share` of `over` on `under`.
pub(super) fn mix(under: Color, over: Color, share: f32) -> Color {
    std::array::from_fn(|channel| under[channel] + (over[channel] - under[channel]) * share)
}

/// The pixels, row by row.
pub(super) struct Canvas {
    width: usize,
    height: usize,
    pixels: Vec<Color>,
}

impl Canvas {
    pub(super) fn new(width: usize, height: usize) -> Self {
        Self { width, height, pixels: vec![[0.0; 3]; width * height] }
    }

    pub(super) fn fill(&mut self, color: Color) {
        self.pixels.fill(color);
    }

    /// Makes patches of about `size` pixels brighter or darker by up to `strength`.
    pub(super) fn mottle(&mut self, size: usize, strength: f32, random: &mut StdRng) {
        let columns = self.width / size + 2;
        let rows = self.height / size + 2;
        let knots: Vec<f32> = (0..columns * rows).map(|_| random.random_range(-1.0..1.0)).collect();
        for y in 0..self.height {
            let (row, down) = (y / size, (y % size) as f32 / size as f32);
            for x in 0..self.width {
                let (column, right) = (x / size, (x % size) as f32 / size as f32);
                let at = row * columns + column;
                let above = knots[at] + (knots[at + 1] - knots[at]) * right;
                let below = knots[at + columns] + (knots[at + columns + 1] - knots[at + columns]) * right;
                let gain = 1.0 + strength * (above + (below - above) * down);
                let pixel = &mut self.pixels[y * self.width + x];
                *pixel = pixel.map(|channel| channel * gain);
            }
        }
    }

    /// Paints the pixels inside an ellipse and counts them. `paint` gets the place in half axes (-1 to 1, along and
    /// across) and the color that is there.
    pub(super) fn ellipse(
        &mut self,
        center: (f32, f32),
        half: (f32, f32),
        turn: f32,
        mut paint: impl FnMut(f32, f32, Color) -> Color,
    ) -> u64 {
        let mut painted = 0;
        self.inside(center, half.0.max(half.1), turn, |along, across, pixel| {
            let (x, y) = (along / half.0, across / half.1);
            if x * x + y * y < 1.0 {
                *pixel = paint(x, y, *pixel);
                painted += 1;
            }
        });
        painted
    }

    /// Paints the pixels inside a square.
    pub(super) fn square(
        &mut self,
        center: (f32, f32),
        half: f32,
        turn: f32,
        mut paint: impl FnMut(Color) -> Color,
    ) {
        self.inside(center, half * std::f32::consts::SQRT_2, turn, |along, across, pixel| {
            if along.abs() < half && across.abs() < half {
                *pixel = paint(*pixel);
            }
        });
    }

    /// Visits the pixels around a center with their distances along and across a direction.
    fn inside(
        &mut self,
        center: (f32, f32),
        radius: f32,
        turn: f32,
        mut visit: impl FnMut(f32, f32, &mut Color),
    ) {
        let (sin, cos) = turn.sin_cos();
        let columns = span(center.0, radius, self.width);
        for y in span(center.1, radius, self.height) {
            for x in columns.clone() {
                let (dx, dy) = (x as f32 - center.0, y as f32 - center.1);
                let pixel = &mut self.pixels[y * self.width + x];
                visit(dx * cos + dy * sin, dy * cos - dx * sin, pixel);
            }
        }
    }

    /// Changes every pixel; its place goes from -1 to 1 both ways.
    pub(super) fn change(&mut self, change: impl Fn(f32, f32, Color) -> Color) {
        let (width, height) = (self.width as f32, self.height as f32);
        for (index, pixel) in self.pixels.iter_mut().enumerate() {
            let (x, y) = ((index % self.width) as f32, (index / self.width) as f32);
            *pixel = change(2.0 * x / width - 1.0, 2.0 * y / height - 1.0, *pixel);
        }
    }

    /// Blurs over three by three pixels, so many times.
    pub(super) fn blur(&mut self, times: usize) {
        for _ in 0..times {
            self.smooth(1);
            self.smooth(self.width);
        }
    }

    /// The weighted mean of each pixel and its neighbors `stride` before and behind it.
    fn smooth(&mut self, stride: usize) {
        let sharp = self.pixels.clone();
        for index in stride..sharp.len() - stride {
            let (before, here, behind) = (sharp[index - stride], sharp[index], sharp[index + stride]);
            self.pixels[index] = std::array::from_fn(|c| (before[c] + 2.0 * here[c] + behind[c]) / 4.0);
        }
    }

    /// The picture as bytes; `noise` is the widest deviation of a value, of 255.
    pub(super) fn bytes(&self, noise: f32, random: &mut StdRng) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.pixels.len() * 3);
        for value in self.pixels.iter().flatten() {
            let value = value * 255.0 + noise * random.random_range(-1.0..1.0);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "it was clamped to a byte"
            )]
            bytes.push(value.clamp(0.0, 255.0) as u8);
        }
        bytes
    }
}

/// The pixels of a line of `length` that lie at most `radius` from `center`.
fn span(center: f32, radius: f32, length: usize) -> std::ops::Range<usize> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it was clamped to the line")]
    let bound = |at: f32| at.clamp(0.0, length as f32) as usize;
    bound(center - radius)..bound(center + radius + 1.0)
}
