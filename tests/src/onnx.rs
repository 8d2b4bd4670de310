//! Model packages made by hand: tiny networks as ONNX files, and the settings beside them.

use std::io::Cursor;
use std::path::Path;

use image::{ImageFormat, Rgb, RgbImage};

/// Side of the networks' input, pixels.
const SIDE: u64 = 16;
/// Levels of brightness that the fragile network knows, of 256.
const TABLE: u64 = 250;

/// Cells of the grid in a row, and rows of it.
const GRID: u64 = 4;
/// Side of the box around the middle of a cell, pixels: neighbors overlap by half, cells at a corner by less than a third.
const BOX: f32 = 12.0;
/// What a bird in a white cell weighs, kg.
const WHITE_KG: f32 = 3.0;
/// Side of the input of the detector, pixels.
const YOLO_SIDE: u64 = 128;
/// Size of a drawn picture, pixels: wider than high, as cameras make them.
const DRAWN: (u32, u32) = (512, 384);
/// Brightness from which on something is a bird, and how sharply; litter and the gray of a letterbox lie below.
const BIRD_FROM: f32 = 0.65;
const SHARPNESS: f32 = 60.0;

/// A network that knows nothing but brightness, which goes from 0 to 1.
#[derive(Clone, Copy, Debug)]
pub enum Network {
    /// The weight is the mean brightness, kg.
    Mean,
    /// The same, but it looks the brightness up in a table that is too short for a white image, which is a panic.
    Fragile,
    /// Finds a bird in each of 4 x 4 cells: its score is the cell's brightness, its weight three times that in kg, its
    /// class whether it is in the left or the right half.
    Grid,
    /// Finds the bright body in each quarter of its input, by its middle and spread, and says it as a detector that
    /// Ultralytics' exporter wrote: `[1, 4 + 1 class, 4 boxes]`.
    Yolo,
}

/// A body in a drawn picture, seen from above.
#[derive(Clone, Copy, Debug)]
pub struct Body {
    /// Middle, pixels.
    pub at: (f32, f32),
    /// Half its width and height, pixels.
    pub half: (f32, f32),
}

/// Writes a package into a directory, which the self-test finds good.
///
/// # Panics
/// When the directory cannot be written.
pub fn write_package(place: &Path, version: &str, network: Network) {
    let write =
        |name: &str, bytes: &[u8]| std::fs::write(place.join(name), bytes).expect("it can be written");
    write("model.onnx", &network.onnx());
    let image = match network {
        Network::Yolo => drawn(&[Body { at: (128.0, 96.0), half: (40.0, 30.0) }]),
        Network::Mean | Network::Fragile | Network::Grid => picture(128, ImageFormat::Png),
    };
    write("selftest.png", &image);
    write("model.toml", network.settings(version).as_bytes());
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

/// A PNG of the size that the networks take, black but for cells of the grid with a brightness from 0 to 255, each given
/// as (column, row, brightness).
///
/// # Panics
/// Never: a PNG can hold it.
#[must_use]
pub fn cells(bright: &[(u32, u32, u8)]) -> Vec<u8> {
    let (side, cell) = (SIDE as u32, (SIDE / GRID) as u32);
    let image = RgbImage::from_fn(side, side, |x, y| {
        let found = bright.iter().find(|(column, row, _)| (x / cell, y / cell) == (*column, *row));
        Rgb([found.map_or(0, |(_, _, brightness)| *brightness); 3])
    });
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png).expect("a PNG can hold it");
    bytes.into_inner()
}

/// A PNG of bright bodies on dark litter, 512 x 384 pixels.
///
/// # Panics
/// Never: a PNG can hold it.
#[must_use]
pub fn drawn(bodies: &[Body]) -> Vec<u8> {
    let image = RgbImage::from_fn(DRAWN.0, DRAWN.1, |x, y| {
        let is_in = |Body { at, half }: &Body| {
            let (across, down) = ((x as f32 + 0.5 - at.0) / half.0, (y as f32 + 0.5 - at.1) / half.1);
            across * across + down * down <= 1.0
        };
        let litter = 70 + (x * 7 + y * 13) as u8 % 30;
        Rgb(if bodies.iter().any(is_in) { [235, 230, 215] } else { [litter, litter - 10, litter - 20] })
    });
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png).expect("a PNG can hold it");
    bytes.into_inner()
}

impl Network {
    /// The settings of a package with this network. Its self-test is a gray image.
    fn settings(self, version: &str) -> String {
        let (output, weight_kg) = match self {
            // As short as they can be.
            Self::Yolo => {
                return format!(
                    "version = \"{version}\"\ninput = {{ width = {YOLO_SIDE}, height = {YOLO_SIDE} }}\n\
                     output = {{ meaning = \"yolo\", classes = [\"bird\"] }}\n\
                     self_test = {{ image = \"selftest.png\", birds_min = 1, birds_max = 1 }}\n"
                );
            }
            Self::Mean | Self::Fragile => ("meaning = \"regression\"\nconfidence = 0.9", 0.5),
            Self::Grid => (
                "meaning = \"detection\"\nbox_format = \"center\"\nscore_column = 4\nclass_column = 5\n\
                 classes = [\"left\", \"right\"]\nweight_column = 6",
                1.5,
            ),
        };
        let (min, max) = (weight_kg - 0.05, weight_kg + 0.05);
        format!(
            "version = \"{version}\"\n\n[input]\nwidth = {SIDE}\nheight = {SIDE}\n\n[output]\n{output}\n\n\
             [self_test]\nimage = \"selftest.png\"\nweight_kg_min = {min:.2}\nweight_kg_max = {max:.2}\n"
        )
    }

    /// The network as an ONNX file.
    #[must_use]
    pub fn onnx(self) -> Vec<u8> {
        const ONE: [u64; 4] = [1; 4];
        let side = if matches!(self, Self::Yolo) { YOLO_SIDE } else { SIDE };
        let (nodes, numbers, shape): (_, _, &[u64]) = match self {
            Self::Yolo => (yolo_nodes(), yolo_numbers(), &[1, 5, 4]),
            Self::Mean => (vec![node("ReduceMean", &["image"], "found", &[])], Vec::new(), &ONE),
            Self::Fragile => (fragile_nodes(), fragile_numbers(), &ONE),
            Self::Grid => (grid_nodes(), grid_numbers(), &[1, GRID * GRID, 7]),
        };
        let graph = [nodes.concat(), text(2, "graph"), numbers.concat()].concat();
        let graph = [graph, value(11, "image", &[1, 3, side, side]), value(12, "found", shape)];
        let opset = [text(1, ""), number(2, 13)].concat();
        [number(1, 8), message(8, &opset), message(7, &graph.concat())].concat()
    }
}

fn fragile_nodes() -> Vec<Vec<u8>> {
    vec![
        node("ReduceMean", &["image"], "mean", &[]),
        node("Mul", &["mean", "levels"], "level", &[]),
        node("Cast", &["level"], "whole", &[("to", Attribute::Int(7))]),
        node("Reshape", &["whole", "line"], "index", &[]),
        node("Gather", &["table", "index"], "known", &[]),
        node("Add", &["mean", "known"], "found", &[]),
    ]
}

fn fragile_numbers() -> Vec<Vec<u8>> {
    vec![
        floats("levels", &[1], &[255.0]),
        integers("line", &[1]),
        floats("table", &[TABLE], &[0.0; TABLE as usize]),
    ]
}

fn grid_nodes() -> Vec<Vec<u8>> {
    const CELL: Attribute = Attribute::Ints(&[SIDE / GRID; 2]);
    vec![
        node("AveragePool", &["image"], "pooled", &[("kernel_shape", CELL), ("strides", CELL)]),
        node("ReduceMean", &["pooled"], "cells", &[("axes", Attribute::Ints(&[1]))]),
        node("Reshape", &["cells", "column"], "score", &[]),
        node("Mul", &["score", "white_kg"], "weight", &[]),
        node("Concat", &["boxes", "score", "class", "weight"], "found", &[("axis", Attribute::Int(2))]),
    ]
}

fn grid_numbers() -> Vec<Vec<u8>> {
    let cells = || (0..GRID).flat_map(|row| (0..GRID).map(move |column| (column, row)));
    let middle = |place: u64| (place as f32 + 0.5) * (SIDE / GRID) as f32;
    let boxes: Vec<f32> = cells().flat_map(|(column, row)| [middle(column), middle(row), BOX, BOX]).collect();
    let class: Vec<f32> = cells().map(|(column, _)| if column < GRID / 2 { 0.0 } else { 1.0 }).collect();
    vec![
        integers("column", &[1, GRID * GRID, 1]),
        floats("white_kg", &[1], &[WHITE_KG]),
        floats("boxes", &[1, GRID * GRID, 4], &boxes),
        floats("class", &[1, GRID * GRID, 1], &class),
    ]
}

fn yolo_nodes() -> Vec<Vec<u8>> {
    const QUARTER: Attribute = Attribute::Ints(&[YOLO_SIDE / 2; 2]);
    let pool = |from: &str, to: &str| {
        node("AveragePool", &[from], to, &[("kernel_shape", QUARTER), ("strides", QUARTER)])
    };
    // The middle of a body along an axis, and four times its spread, which is the width of an ellipse.
    let along = |axis: &str| {
        let name = |what: &str| format!("{what}_{axis}");
        let (moment, square, middle, spread, size) =
            (name("moment"), name("square"), name("middle"), name("spread"), name("size"));
        vec![
            node("Mul", &["mask", axis], &moment, &[]),
            node("Mul", &[&moment, axis], &square, &[]),
            pool(&moment, &name("pooled")),
            pool(&square, &name("pooled_square")),
            node("Div", &[&name("pooled"), "body"], &middle, &[]),
            node("Div", &[&name("pooled_square"), "body"], &name("mean_square"), &[]),
            node("Mul", &[&middle, &middle], &name("middle_square"), &[]),
            node("Sub", &[&name("mean_square"), &name("middle_square")], &name("variance"), &[]),
            node("Abs", &[&name("variance")], &name("positive"), &[]),
            node("Sqrt", &[&name("positive")], &spread, &[]),
            node("Mul", &[&spread, "four"], &size, &[]),
        ]
    };
    let mut nodes = vec![
        node("ReduceMean", &["image"], "gray", &[("axes", Attribute::Ints(&[1]))]),
        node("Add", &["gray", "threshold"], "above", &[]),
        node("Mul", &["above", "sharpness"], "steep", &[]),
        node("Sigmoid", &["steep"], "mask", &[]),
        pool("mask", "share"),
        node("Add", &["share", "little"], "body", &[]),
    ];
    nodes.extend(along("x"));
    nodes.extend(along("y"));
    nodes.extend([
        node("Add", &["share", "smallest"], "larger", &[]),
        node("Mul", &["larger", "certainty"], "logit", &[]),
        node("Sigmoid", &["logit"], "score", &[]),
        node(
            "Concat",
            &["middle_x", "middle_y", "size_x", "size_y", "score"],
            "quarters",
            &[("axis", Attribute::Int(1))],
        ),
        node("Reshape", &["quarters", "table"], "found", &[]),
    ]);
    nodes
}

fn yolo_numbers() -> Vec<Vec<u8>> {
    let side = YOLO_SIDE as u16;
    let pixels = || (0..side).flat_map(|y| (0..side).map(move |x| (x, y)));
    let middles =
        |of: fn((u16, u16)) -> u16| pixels().map(|at| f32::from(of(at)) + 0.5).collect::<Vec<f32>>();
    let shape = [1, 1, YOLO_SIDE, YOLO_SIDE];
    vec![
        floats("threshold", &[1], &[-BIRD_FROM]),
        floats("sharpness", &[1], &[SHARPNESS]),
        floats("little", &[1], &[1e-6]),
        floats("four", &[1], &[4.0]),
        floats("smallest", &[1], &[-0.005]),
        floats("certainty", &[1], &[2000.0]),
        floats("x", &shape, &middles(|(x, _)| x)),
        floats("y", &shape, &middles(|(_, y)| y)),
        integers("table", &[1, 5, 4]),
    ]
}

/// The value of an attribute of a node.
#[derive(Clone, Copy)]
enum Attribute {
    Int(u64),
    Ints(&'static [u64]),
}

fn node(operator: &str, inputs: &[&str], output: &str, attributes: &[(&str, Attribute)]) -> Vec<u8> {
    let inputs: Vec<u8> = inputs.iter().flat_map(|name| text(1, name)).collect();
    let attribute = |(name, value): &(&str, Attribute)| {
        let value = match value {
            Attribute::Int(int) => [number(3, *int), number(20, 2)].concat(),
            Attribute::Ints(ints) => {
                [ints.iter().flat_map(|int| number(8, *int)).collect(), number(20, 7)].concat()
            }
        };
        message(5, &[text(1, name), value].concat())
    };
    let attributes: Vec<u8> = attributes.iter().flat_map(attribute).collect();
    message(1, &[inputs, text(2, output), text(4, operator), attributes].concat())
}

/// A table of floats as a constant of the graph.
fn floats(name: &str, shape: &[u64], numbers: &[f32]) -> Vec<u8> {
    let raw: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    tensor(name, 1, shape, &raw)
}

/// A list of whole numbers of 64 bits as a constant of the graph.
fn integers(name: &str, numbers: &[u64]) -> Vec<u8> {
    let raw: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    tensor(name, 7, &[numbers.len() as u64], &raw)
}

fn tensor(name: &str, kind: u64, shape: &[u64], raw: &[u8]) -> Vec<u8> {
    let shape: Vec<u8> = shape.iter().flat_map(|size| number(1, *size)).collect();
    message(5, &[shape, number(2, kind), text(8, name), message(9, raw)].concat())
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
