//! What every chart is drawn with: SVG without fonts, scripts or files from elsewhere, light and dark as
//! the reader's screen.

use std::fmt::Write as _;

/// A sheet that grows by what is drawn on it.
pub(crate) struct Sheet(String);

impl Sheet {
    /// `heading` stands on top, `remark` below it.
    pub(crate) fn new(height: f64, title: &str, heading: &str, remark: &str) -> Self {
        Self::sized((WIDTH, height), title, heading, remark)
    }

    /// Of that width and height.
    pub(crate) fn sized(
        (width, height): (f64, f64),
        title: &str,
        heading: &str,
        remark: &str,
    ) -> Self {
        Self(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
             font-family=\"system-ui, sans-serif\" font-size=\"13\">\n\
             <title>{title}</title>\n\
             <style>{STYLE}</style>\n\
             <rect class=\"paper\" width=\"{width}\" height=\"{height}\"/>\n\
             <text x=\"{LEFT}\" y=\"24\" font-size=\"16\" font-weight=\"600\">{heading}</text>\n\
             <text class=\"faint\" x=\"{LEFT}\" y=\"44\">{remark}</text>\n"
        ))
    }

    /// The document.
    pub(crate) fn end(mut self) -> String {
        self.0 += "</svg>\n";
        self.0
    }

    pub(crate) fn line(&mut self, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        self.push(format_args!(
            "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>\n"
        ));
    }

    /// SVG as it is.
    pub(crate) fn push(&mut self, more: std::fmt::Arguments<'_>) {
        self.0.write_fmt(more).expect("a String takes everything");
    }
}

/// Text that is no markup.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

pub(crate) const WIDTH: f64 = 860.0;
/// Where what is drawn begins and ends.
pub(crate) const LEFT: f64 = 56.0;
pub(crate) const RIGHT: f64 = 836.0;
/// Six colours that stay apart for most eyes, on light and on dark.
const STYLE: &str = "\
:root{color-scheme:light dark}\
.paper{fill:#fff}text{fill:#1c2024}.faint{fill:#5f6871}\
.grid{stroke:#d8dde2}.axis{stroke:#5f6871}\
.moment{stroke:#1c2024;stroke-dasharray:3 3}.moment-name{font-weight:600}\
.c0{fill:#c0392b}.c1{fill:#c77800}.c2{fill:#9a8000}.c3{fill:#27865a}.c4{fill:#2070b8}.c5{fill:#8450a8}\
.s0{stroke:#c0392b}.s1{stroke:#c77800}.s2{stroke:#9a8000}.s3{stroke:#27865a}.s4{stroke:#2070b8}.s5{stroke:#8450a8}\
path{fill-opacity:.75}polyline{fill:none;stroke-width:2}.reckoned,.again{stroke-dasharray:5 4}\
.arrow{stroke-width:1.6}\
@media(prefers-color-scheme:dark){.paper{fill:#14171a}text{fill:#e8ebee}.faint{fill:#a3acb5}\
.grid{stroke:#343b42}.axis{stroke:#a3acb5}.moment{stroke:#e8ebee}\
.c0{fill:#f07167}.c1{fill:#f5a742}.c2{fill:#d8c34a}.c3{fill:#58c48e}.c4{fill:#5fa8ee}.c5{fill:#bd8ce0}\
.s0{stroke:#f07167}.s1{stroke:#f5a742}.s2{stroke:#d8c34a}.s3{stroke:#58c48e}.s4{stroke:#5fa8ee}.s5{stroke:#bd8ce0}}";
