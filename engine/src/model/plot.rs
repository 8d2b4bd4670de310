//! A picture of weighings and the law that was found in them.

use std::fmt::Write;

use actors::inference::area::{Fit, Weighing};

/// Size of the picture, and of what stands beside the axes.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 420.0;
const MARGIN: f64 = 56.0;
/// Points of the law's curve.
const CURVE_POINTS: u32 = 60;
/// Lines across, about.
const GRID_LINES: f64 = 8.0;

/// One axis: from a value to a place.
struct Axis {
    most: f64,
    from: f64,
    to: f64,
}

impl Axis {
    fn place(&self, value: f64) -> f64 {
        self.from + (self.to - self.from) * value / self.most
    }

    /// Round values from 0 to the end of the axis.
    fn marks(&self) -> impl Iterator<Item = f64> {
        let rough = self.most / GRID_LINES;
        let power = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|times| times * power).find(|step| *step >= rough);
        let (step, most) = (step.unwrap_or(rough), self.most);
        (0..).map(move |at| f64::from(at) * step).take_while(move |value| *value <= most)
    }
}

/// Draws area across and weight up, each weighing a dot, those that were left out hollow, and the law a line.
#[must_use]
pub(super) fn draw(weighings: &[Weighing], law: &Fit) -> String {
    let most = |value: fn(&Weighing) -> f64| weighings.iter().map(value).fold(0.0, f64::max) * 1.05;
    let across = Axis { most: most(|it| it.area_cm2), from: MARGIN, to: WIDTH - 12.0 };
    let up = Axis { most: most(|it| it.weight_kg), from: HEIGHT - MARGIN, to: 12.0 };
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<title>Weight by area: {} birds</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n",
        law.n
    );
    let mut put = |text: std::fmt::Arguments<'_>| {
        // Writing to a string cannot fail.
        let _ = writeln!(svg, "{text}");
    };
    for area in across.marks() {
        let x = across.place(area);
        put(format_args!("<path d=\"M{x:.1} {:.1}V{:.1}\" stroke=\"#e5e7eb\"/>", up.from, up.to));
        put(format_args!(
            "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{area}</text>",
            up.from + 16.0
        ));
    }
    for weight in up.marks() {
        let y = up.place(weight);
        put(format_args!("<path d=\"M{:.1} {y:.1}H{:.1}\" stroke=\"#e5e7eb\"/>", across.from, across.to));
        put(format_args!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{weight:.1}</text>",
            across.from - 6.0,
            y + 4.0
        ));
    }
    for (at, it) in weighings.iter().enumerate() {
        let (x, y) = (across.place(it.area_cm2), up.place(it.weight_kg));
        let fill = if law.outliers.contains(&at) { "none" } else { "#2563eb" };
        put(format_args!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{fill}\" stroke=\"#2563eb\"/>"));
    }
    let [least, greatest] = law.area_cm2;
    let curve: Vec<String> = (0..=CURVE_POINTS)
        .map(|at| {
            let area = least + (greatest - least) * f64::from(at) / f64::from(CURVE_POINTS);
            format!("{:.1},{:.1}", across.place(area), up.place(law.a * area.powf(law.b)))
        })
        .collect();
    put(format_args!(
        "<polyline points=\"{}\" fill=\"none\" stroke=\"#b91c1c\" stroke-width=\"2\"/>",
        curve.join(" ")
    ));
    put(format_args!(
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">area, cm²</text>",
        across.to,
        HEIGHT - 14.0
    ));
    put(format_args!("<text x=\"14\" y=\"{:.1}\" transform=\"rotate(-90 14 90)\">weight, kg</text>", 90.0));
    svg + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dot_stands_where_its_numbers_say_and_one_left_out_is_hollow() {
        let mut weighings: Vec<Weighing> = (1..=20)
            .map(|at| {
                let area_cm2 = 50.0 * f64::from(at);
                Weighing {
                    area_cm2,
                    weight_kg: 0.001 * area_cm2.powf(1.2) * if at % 2 == 0 { 1.02 } else { 0.98 },
                }
            })
            .collect();
        weighings[4].weight_kg *= 3.0;
        let law = Fit::of(&weighings).unwrap();
        let svg = draw(&weighings, &law);
        assert_eq!(svg.matches("<circle").count(), 20);
        assert_eq!(svg.matches("fill=\"none\" stroke=\"#2563eb\"").count(), 1);
        // The largest area stands at 100/105 of the axis.
        let x = MARGIN + (WIDTH - 12.0 - MARGIN) / 1.05;
        assert!(svg.contains(&format!("<circle cx=\"{x:.1}\"")), "{svg}");
        assert!(svg.contains(">200</text>") && !svg.contains("NaN"), "{svg}");
    }
}
