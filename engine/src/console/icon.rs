//! The pictures beside words: a closed list, drawn with the color of their text.

/// The picture of a name; every name in a template is in the list, as a test makes sure.
pub(crate) fn svg(name: &str) -> String {
    let shape = match name {
        "barn" => r#"<path d="M4 20V9.5L12 4l8 5.5V20H4z"/><path d="M9 20v-6h6v6"/>"#,
        "weights" => r#"<path d="M6 9h12l2 11H4L6 9z"/><path d="M12 9V6m-4 0h8"/><path d="M12 16l2.5-3"/>"#,
        "climate" => r#"<path d="M10 14V5.5a2.5 2.5 0 0 1 5 0V14a4 4 0 1 1-5 0z"/><path d="M12.500 9v7"/>"#,
        "alarms" => r#"<path d="M6 17V11a6 6 0 0 1 12 0v6l1.500 2h-15L6 17z"/><path d="M10 21h4"/>"#,
        "more" => r#"<path d="M4 7h16M4 12h16M4 17h16"/>"#,
        "book" => {
            r#"<path d="M5 4h11a3 3 0 0 1 3 3v13H8a3 3 0 0 1-3-3V4z"/><path d="M5 17a3 3 0 0 1 3-3h11M9 8h6"/>"#
        }
        "review" => r#"<path d="M4 7h4l1.500-2h5L16 7h4v12H4V7z"/><circle cx="12" cy="13" r="3.500"/>"#,
        "devices" => {
            r#"<circle cx="12" cy="12" r="2"/><path d="M8 8a5.700 5.700 0 0 0 0 8m8-8a5.700 5.700 0 0 1 0 8M5 5a10 10 0 0 0 0 14M19 5a10 10 0 0 1 0 14"/>"#
        }
        "delivery" => {
            r#"<path d="M7 18a4 4 0 0 1 0-8 5.500 5.500 0 0 1 10.500 1.500A3.300 3.300 0 0 1 17 18"/><path d="M12 21v-8m-3 3 3-3 3 3"/>"#
        }
        "ok" => r#"<path d="M4 12.500l5 5L20 6.500"/>"#,
        "look" => r#"<path d="M12 4 3 20h18L12 4z"/><path d="M12 10v4m0 3v.2"/>"#,
        "act" => r#"<path d="M8 3h8l5 5v8l-5 5H8l-5-5V8l5-5z"/><path d="M12 7.500v5m0 3.500v.2"/>"#,
        "unknown" => {
            r#"<circle cx="12" cy="12" r="8.500"/><path d="M9.500 9.500a2.500 2.500 0 1 1 2.500 3v1m0 3v.2"/>"#
        }
        "up" => r#"<path d="M12 20V5m-6 6 6-6 6 6"/>"#,
        "down" => r#"<path d="M12 4v15m-6-6 6 6 6-6"/>"#,
        "same" => r#"<path d="M5 9h14M5 15h14"/>"#,
        "wait" => r#"<circle cx="12" cy="12" r="8.500"/>"#,
        "icon" => r#"<path d="M4 20V10l8-6 8 6v10h-5v-6H9v6z"/>"#,
        "key-mean" => {
            return key(r#"<path class="whisker" d="M15 1v14"/><circle class="dot" cx="15" cy="8" r="4"/>"#);
        }
        "key-open" => return key(r#"<circle class="dot open" cx="15" cy="8" r="4"/>"#),
        "key-standard" => {
            return key(r#"<rect class="band" width="30" height="16"/><path class="curve" d="M0 8h30"/>"#);
        }
        "key-hand" => return key(r#"<rect class="hand" x="11" y="4" width="8" height="8"/>"#),
        "key-fan" => return key(r#"<path class="fan" d="M0 15L30 1V9z"/>"#),
        "key-range" => {
            return key(r#"<rect class="range" width="30" height="16"/><path class="line" d="M0 8h30"/>"#);
        }
        "key-thin" => return key(r#"<path class="thin" d="M0 8h30"/>"#),
        "key-night" => return key(r#"<rect class="night" width="30" height="16"/>"#),
        "key-normal" => return key(r#"<path class="normal" d="M0 14C10 14 10 2 15 2s5 12 15 12"/>"#),
        "key-limit" => return key(r#"<path class="limit" d="M0 8h30"/>"#),
        _ => "",
    };
    format!(
        "<svg viewBox=\"0 0 24 24\" width=\"24\" height=\"24\" fill=\"none\" stroke=\"currentColor\" stroke-width=\"1.8\" \
         stroke-linecap=\"round\" stroke-linejoin=\"round\" aria-hidden=\"true\">{shape}</svg>"
    )
}

/// A sample of what a chart is drawn with.
fn key(shape: &str) -> String {
    format!("<svg class=\"chart\" viewBox=\"0 0 30 16\" aria-hidden=\"true\">{shape}</svg>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_picture_that_a_page_names_is_there() {
        let places = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/console/templates");
        let mut seen = 0;
        for entry in std::fs::read_dir(places).unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            for name in text.split("icon::svg(\"").skip(1).map(|rest| rest.split('"').next().unwrap()) {
                seen += 1;
                assert_ne!(svg(name), svg("no such picture"), "{name}");
            }
        }
        assert!(seen > 4);
    }
}
