//! README's figure from a run's `summary.json`: `cargo run -p binade-train --example figure --
//! runs/cifar10-1/summary.json > out.svg`.

use binade_cpu as _;
use binade_train::Summary;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: figure SUMMARY.JSON")?;
    let summaries: Vec<Summary> = serde_json::from_str(&std::fs::read_to_string(path)?)?;
    let largest = summaries.iter().map(|s| s.saved_activation_bytes).max().unwrap_or(1) as f64;
    println!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 720 {}\" font-family=\"system-ui, sans-serif\" \
         font-size=\"15\">",
        46 * summaries.len() + 44
    );
    println!("<style>text{{fill:#1a1a1a}}@media(prefers-color-scheme:dark){{text{{fill:#ececec}}}}</style>");
    println!(
        "<text x=\"70\" y=\"22\" font-weight=\"600\">Kept between forward and backward, and what it costs in \
         accuracy</text>"
    );
    for (i, s) in summaries.iter().enumerate() {
        let (y, width) = (40 + 46 * i, s.saved_activation_bytes as f64 / largest * 400.0);
        let accuracy = s.test_accuracy.map_or(String::new(), |a| format!(", {:.1} % test accuracy", 100.0 * a));
        println!("<text x=\"58\" y=\"{}\" text-anchor=\"end\">{}</text>", y + 21, s.precision);
        println!(
            "<rect x=\"70\" y=\"{y}\" width=\"{width:.0}\" height=\"32\" rx=\"3\" fill=\"{}\"/>",
            ["#0072b2", "#d55e00", "#009e73"][i % 3]
        );
        println!(
            "<text x=\"{:.0}\" y=\"{}\">{:.1} MiB{accuracy}</text>",
            80.0 + width,
            y + 21,
            s.saved_activation_bytes as f64 / 1048576.0
        );
    }
    println!("</svg>");
    Ok(())
}
