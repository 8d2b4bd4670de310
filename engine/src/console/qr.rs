//! QR codes: for a terminal.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_has_its_lines() {
        let text = "http://192.168.1.20:3000/login?code=ABCDE23456";
        let lines = for_terminal(text).unwrap();
        assert!(lines.lines().count() > 12 && lines.contains('█'), "{lines}");
        assert!(for_terminal(&"x".repeat(10_000)).is_none(), "too much for any code");
    }
}
