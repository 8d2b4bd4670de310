//! Model packages made by hand: tiny networks as ONNX files, and the settings beside them.

use std::io::Cursor;
use std::path::Path;

use image::{ImageFormat, Rgb, RgbImage};

/// Side of the networks' input, pixels.
const SIDE: u64 = 16;
/// Levels of brightness that the fragile network knows, of 256.
const TABLE: u64 = 250;

/// A network whose weight is a function of the mean brightness, which goes from 0 to 1.
#[derive(Clone, Copy, Debug)]
pub enum Network {
    /// The weight is the brightness, kg.
    Mean,
    /// The same, but it looks the brightness up in a table that is too short for a white image, which is a panic.
    Fragile,
}

/// Writes a package into a directory, which the self-test finds good.
///
/// # Panics
/// When the directory cannot be written.
pub fn write_package(place: &Path, version: &str, network: Network) {
    let settings = format!(
        "version = \"{version}\"\n\n[input]\nwidth = {SIDE}\nheight = {SIDE}\n\n\
         [output]\nmeaning = \"regression\"\nconfidence = 0.9\n\n\
         [self_test]\nimage = \"selftest.png\"\nweight_kg_min = 0.45\nweight_kg_max = 0.55\n"
    );
    let write =
        |name: &str, bytes: &[u8]| std::fs::write(place.join(name), bytes).expect("it can be written");
    write("model.onnx", &network.onnx());
    write("selftest.png", &picture(128, ImageFormat::Png));
    write("model.toml", settings.as_bytes());
}

/// An image of one brightness, from 0 to 255.
///
/// # Panics
/// Never: every format can hold it.
#[must_use]
pub fn picture(brightness: u8, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let image = RgbImage::from_pixel(64, 48, Rgb([brightness; 3]));
    image.write_to(&mut bytes, format).expect("every format can hold it");
    bytes.into_inner()
}

impl Network {
    /// The network as an ONNX file.
    #[must_use]
    pub fn onnx(self) -> Vec<u8> {
        let (nodes, numbers) = match self {
            Self::Mean => (vec![node("ReduceMean", &["image"], "weight", &[])], Vec::new()),
            Self::Fragile => {
                let nodes = vec![
                    node("ReduceMean", &["image"], "mean", &[]),
                    node("Mul", &["mean", "levels"], "level", &[]),
                    node("Cast", &["level"], "whole", &[("to", 7)]),
                    node("Reshape", &["whole", "line"], "index", &[]),
                    node("Gather", &["table", "index"], "found", &[]),
                    node("Add", &["mean", "found"], "weight", &[]),
                ];
                let numbers = vec![
                    tensor("levels", 1, 1, &255.0_f32.to_le_bytes()),
                    tensor("line", 7, 1, &1_i64.to_le_bytes()),
                    tensor("table", 1, TABLE, &[0; 4 * TABLE as usize]),
                ];
                (nodes, numbers)
            }
        };
        let graph = [nodes.concat(), text(2, "graph"), numbers.concat()].concat();
        let graph = [graph, value(11, "image", &[1, 3, SIDE, SIDE]), value(12, "weight", &[1, 1, 1, 1])];
        let opset = [text(1, ""), number(2, 13)].concat();
        [number(1, 8), message(8, &opset), message(7, &graph.concat())].concat()
    }
}

fn node(operator: &str, inputs: &[&str], output: &str, attributes: &[(&str, u64)]) -> Vec<u8> {
    const INT: u64 = 2;
    let inputs: Vec<u8> = inputs.iter().flat_map(|name| text(1, name)).collect();
    let attribute = |(name, value): &(&str, u64)| {
        message(5, &[text(1, name), number(3, *value), number(20, INT)].concat())
    };
    let attributes: Vec<u8> = attributes.iter().flat_map(attribute).collect();
    message(1, &[inputs, text(2, output), text(4, operator), attributes].concat())
}

/// A list of numbers as a constant of the graph; `kind` is 1 for floats and 7 for whole numbers of 64 bits.
fn tensor(name: &str, kind: u64, length: u64, raw: &[u8]) -> Vec<u8> {
    message(5, &[number(1, length), number(2, kind), text(8, name), message(9, raw)].concat())
}

/// An input or output of floats.
fn value(field: u64, name: &str, dimensions: &[u64]) -> Vec<u8> {
    let shape: Vec<u8> = dimensions.iter().flat_map(|size| message(1, &number(1, *size))).collect();
    let tensor = [number(1, 1), message(2, &shape)].concat();
    message(field, &[text(1, name), message(2, &message(1, &tensor))].concat())
}

fn text(field: u64, text: &str) -> Vec<u8> {
    message(field, text.as_bytes())
}

fn message(field: u64, bytes: &[u8]) -> Vec<u8> {
    [varint(field << 3 | 2), varint(bytes.len() as u64), bytes.to_vec()].concat()
}

fn number(field: u64, number: u64) -> Vec<u8> {
    [varint(field << 3), varint(number)].concat()
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}
