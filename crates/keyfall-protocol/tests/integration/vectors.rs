//! The files in `interop/vectors`: written from the code, compared byte for byte.

use std::path::PathBuf;

use serde_json::Value;

/// Compares `content` with the file, or writes the file where `KEYFALL_WRITE_VECTORS` is set.
pub(crate) fn check(name: &str, content: &Value) {
    let mut text = serde_json::to_string_pretty(content).unwrap();
    text.push('\n');
    check_text(&format!("interop/vectors/{name}"), &text);
}

/// As [`check`], for any text; `path` is from the repository's top.
pub(crate) fn check_text(path: &str, text: &str) {
    let file = from_top(path);
    if writing() {
        std::fs::write(&file, text).unwrap();
    }
    let held = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        held == text,
        "{path} is not what the code says; KEYFALL_WRITE_VECTORS=1 writes it anew, and \
         docs/PROTOCOL.md has to follow"
    );
}

pub(crate) fn from_top(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(path)
}

pub(crate) fn writing() -> bool {
    std::env::var_os("KEYFALL_WRITE_VECTORS").is_some()
}

pub(crate) fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}
