//! QR codes: for a terminal, and as pictures on labels and pages.

use std::fmt::Write;

use qrcodegen::{QrCode, QrCodeEcc};

/// Empty modules around a code, which readers need.
const QUIET: i32 = 2;

/// A code in half blocks, two rows of modules in a line, dark on light whatever the colors of the terminal.
pub(crate) fn for_terminal(text: &str) -> Option<String> {
    let code = QrCode::encode_text(text, QrCodeEcc::Low).ok()?;
    let end = code.size() + QUIET;
    let mut lines = String::new();
    for y in (-QUIET..end).step_by(2) {
        lines.push_str("\x1b[30;47m");
        for x in -QUIET..end {
            lines.push(match (code.get_module(x, y), code.get_module(x, y + 1)) {
                (true, true) => '█',
                (true, false) => '▀',
                (false, true) => '▄',
                (false, false) => ' ',
            });
        }
        lines.push_str("\x1b[0m\n");
    }
    Some(lines)
}

/// A code as a picture called `title`.
pub(crate) fn svg(text: &str, title: &str) -> Option<String> {
    let code = QrCode::encode_text(text, QrCodeEcc::Medium).ok()?;
    let size = code.size() + 2 * QUIET;
    let title = super::chart::escaped(title);
    let mut picture = format!(
        "<svg class=\"qr\" viewBox=\"0 0 {size} {size}\" role=\"img\" shape-rendering=\"crispEdges\"><title>{title}</title>\
         <path fill=\"#fff\" d=\"M0 0h{size}v{size}H0z\"/><path fill=\"#000\" d=\""
    );
    for y in 0..code.size() {
        for x in (0..code.size()).filter(|x| code.get_module(*x, y)) {
            let _ = write!(picture, "M{} {}h1v1h-1z", x + QUIET, y + QUIET);
        }
    }
    picture.push_str("\"/></svg>");
    Some(picture)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_has_its_corners() {
        let text = "http://192.168.1.20:3000/login?code=ABCDE23456";
        let picture = svg(text, "Login").unwrap();
        // The first row of a finder pattern: seven dark modules behind the quiet zone.
        assert!(
            picture.contains("M2 2h1v1h-1zM3 2h1v1h-1z") && picture.contains("M8 2h1v1h-1z"),
            "{picture}"
        );
        let lines = for_terminal(text).unwrap();
        assert!(lines.lines().count() > 12 && lines.contains('█'), "{lines}");
        assert!(svg(&"x".repeat(10_000), "").is_none(), "too much for any code");
    }
}
