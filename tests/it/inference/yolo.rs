//! A detector as Ultralytics' exporter writes it: birds on drawn pictures, and the law of their weights.

use std::process::Output;

use serde_json::Value;
use tests::engine::{binary, get};
use tests::onnx::{Body, drawn};
use tokio::process::Command;

use super::*;

/// What a drawn picture shows from left to right, cm, and the law by which the drawn birds weigh.
const PICTURE_WIDTH_CM: f32 = 100.0;
const A: f32 = 0.0009;
const B: f32 = 1.4;

/// A body in a quarter of a picture, counted from the left above, that is so large.
fn body(quarter: u8, half: (f32, f32)) -> Body {
    let at = (128.0 + 256.0 * f32::from(quarter % 2), 96.0 + 192.0 * f32::from(quarter / 2));
    Body { at, half }
}

/// What a body of this size weighs, kg, by the box around it.
fn weight_kg(half: (f32, f32)) -> f64 {
    let cm = PICTURE_WIDTH_CM / 512.0;
    f64::from(A * (4.0 * half.0 * half.1 * cm * cm).powf(B))
}

/// Runs `farmiq-edge model` with more arguments.
async fn program(arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.arg("model").args(arguments).env_clear().kill_on_drop(true);
    command.output().await.expect("the program can be run")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn birds_are_found_and_weighed_by_the_law_in_the_settings() {
    let package = tempfile::tempdir().expect("a directory");
    write_package(package.path(), "v1", Network::Yolo);
    let settings = package.path().join("model.toml");
    let short = std::fs::read_to_string(&settings).expect("settings");
    let law = format!(
        "classes = [\"bird\"], weight = {{ a = {A}, b = {B}, picture_width_cm = {PICTURE_WIDTH_CM} }}"
    );
    std::fs::write(&settings, short.replace("classes = [\"bird\"]", &law)).expect("settings");
    let path = package.path().display().to_string();
    let barn = Barn::start_with(|settings| settings.set("inference.model_path", &path)).await;

    let root = media_root(&barn.settings);
    let halves = [(40.0, 30.0), (60.0, 45.0), (30.0, 50.0)];
    let bodies: Vec<Body> = halves.iter().zip(0..).map(|(half, quarter)| body(quarter, *half)).collect();
    put_image_job(&barn.db, &root, &drawn(&bodies), Some("s-1")).await;
    until("the picture is looked at", async || in_status(&barn.db, "completed").await == 1).await;

    let path = format!("/api/v1/inference/results?sessionId=s-1&tenant_id={TENANT}");
    let answer: Value = serde_json::from_str(&get(barn.settings.http, &path).await.1).expect("a JSON body");
    let result = &answer["results"][0];
    assert_eq!(result["metadata"]["count"], 3, "{result}");
    let mean = halves.iter().map(|half| weight_kg(*half)).sum::<f64>() / 3.0;
    let said = result["predicted_weight_kg"].as_f64().expect("a weight");
    assert!((said / mean - 1.0).abs() < 0.03, "{said} kg, and {mean} kg were drawn: {result}");
    for found in result["metadata"]["detections"].as_array().expect("a list") {
        assert!(found["class"] == "bird" && found["weight_kg"].is_number(), "{found}");
    }
    barn.delivered(1).await;
    barn.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calibration_finds_the_law_that_made_the_pictures() {
    let place = tempfile::tempdir().expect("a directory");
    let package = place.path().join("package");
    std::fs::create_dir(&package).expect("a directory");
    write_package(&package, "v1", Network::Yolo);
    let file = |name: &str| place.path().join(name);
    let write = |name: &str, bytes: &[u8]| std::fs::write(file(name), bytes).expect("a file");
    let mut lines = "picture,weight_kg\n".to_owned();
    for at in 0_u8..40 {
        let half = (20.0 + f32::from(at), 18.0 + f32::from(u16::from(at) * 7 % 40));
        // Weights scatter by some percent around the law; one was written down wrong.
        let scatter = [1.02, 0.98, 1.01, 0.97, 1.03][usize::from(at % 5)] * if at == 11 { 3.0 } else { 1.0 };
        write(&format!("{at}.png"), &drawn(&[body(at % 4, half)]));
        lines += &format!("{at}.png,{:.4}\n", weight_kg(half) * scatter);
    }
    write("two.png", &drawn(&[body(0, (30.0, 30.0)), body(3, (30.0, 30.0))]));
    write("cut.png", &drawn(&[Body { at: (10.0, 96.0), half: (40.0, 40.0) }]));
    write("none.png", &drawn(&[]));
    lines += "two.png,2.0\ncut.png,2.0\nnone.png,2.0\nmissing.png,2.0\n";
    write("weighings.csv", lines.as_bytes());

    let (package, weighings, plot) = (
        package.display().to_string(),
        file("weighings.csv").display().to_string(),
        file("law.svg").display().to_string(),
    );
    let common = ["calibrate", &package, "--weighings", &weighings];
    let wide = PICTURE_WIDTH_CM.to_string();
    let output =
        program(&[&common[..], &["--picture-width-cm", &wide, "--plot", &plot, "--json"]].concat()).await;
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said: Value = serde_json::from_slice(&output.stdout).expect("a JSON object");
    let law = &said["law"];
    let number = |value: &Value| value.as_f64().expect("a number");
    let [least, most] = [0, 1].map(|end| number(&law["b_interval"][end]));
    assert!(least <= f64::from(B) && f64::from(B) <= most && most - least < 0.1, "{said}");
    let weight_kg_of = |area: f64| number(&law["a"]) * area.powf(number(&law["b"]));
    let true_kg = f64::from(A) * 200_f64.powf(f64::from(B));
    // The boxes that are found are some 3 % smaller than the drawn ones, for which the law makes up.
    assert!((weight_kg_of(200.0) / true_kg - 1.0).abs() < 0.06, "{said}");
    assert_eq!((law["n"].as_u64(), &said["outliers"][0]), (Some(39), &"11.png".into()), "{said}");
    let skipped: Vec<(&str, &str)> = said["skipped"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|pair| (pair[0].as_str().expect("a name"), pair[1].as_str().expect("a reason")))
        .collect();
    let reasons = ["2 birds are found", "the edge of the picture cuts", "no bird is found", "No such file"];
    for ((name, why), expected) in skipped.iter().zip(reasons) {
        assert!(why.contains(expected), "{name}: {why}");
    }
    assert_eq!(skipped.len(), reasons.len(), "{skipped:?}");
    let drawn = std::fs::read_to_string(&plot).expect("a plot");
    assert_eq!(drawn.matches("<circle").count(), 40, "{drawn}");

    // What is printed for a person is what the settings take.
    let output = program(&[&common[..], &["--picture-width-cm", &wide]].concat()).await;
    let said = text(&output.stdout);
    let line = said.lines().find(|line| line.starts_with("weight = ")).expect("a line of settings");
    let settings = std::path::Path::new(&package).join("model.toml");
    let short = std::fs::read_to_string(&settings).expect("settings");
    let law = format!("classes = [\"bird\"], {line}");
    std::fs::write(&settings, short.replace("classes = [\"bird\"]", &law)).expect("settings");
    let output = program(&["check", &package, "--workers", "1"]).await;
    let said = text(&output.stdout);
    assert!(
        output.status.success() && said.contains("shows 1 birds, mean "),
        "{said}{}",
        text(&output.stderr)
    );
    // The package says how wide a picture is now.
    assert!(program(&common).await.status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_law_can_be_found_with_is_said() {
    let place = tempfile::tempdir().expect("a directory");
    write_package(place.path(), "v1", Network::Yolo);
    let package = place.path().display().to_string();
    let weighings = place.path().join("weighings.csv");
    let check = async |lines: &str, more: &[&str], expected: &str| {
        std::fs::write(&weighings, lines).expect("a file");
        let weighings = weighings.display().to_string();
        let output = program(&[&["calibrate", &package, "--weighings", &weighings][..], more].concat()).await;
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains(expected), "{lines}: {said}");
    };
    let wide = ["--picture-width-cm", "100"];
    check("picture,weight_kg\n", &[], "say how wide a picture is").await;
    check("picture,weight_kg\n", &["--picture-width-cm", "0"], "greater than 0").await;
    check("picture,weight_kg\n", &wide, "0 weighings are too few").await;
    check("picture,kg\nx.png,2\n", &wide, "missing field `weight_kg`").await;
    check("picture,weight_kg\nx.png,heavy\n", &wide, "line: 2").await;
    check("picture,weight_kg\nx.png,2\n", &wide, "1 pictures were of no use, the first x.png: No such file")
        .await;
    let output = program(&["calibrate", "--weighings", "x.csv", "--picture-width-cm", "100"]).await;
    assert!(text(&output.stderr).contains("it says weights itself"), "{}", text(&output.stderr));
}
