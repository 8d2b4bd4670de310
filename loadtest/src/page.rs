//! The report of runs: one HTML file that needs nothing else, and the same figures as CSV.

mod chart;

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::ledger::{Entries, Outcome};
use crate::report;
use crate::run::Run;
use crate::threshold::{self, Threshold, short};
use crate::timeline::{Percentiles, Row, Span};

use chart::{Chart, Curve};

/// Differences, refusals and marks that are listed one by one.
const LISTED_MAX: usize = 50;
const STYLE: &str = include_str!("page/style.css");

/// What to report.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Files of runs.
    pub runs: Vec<PathBuf>,
    /// Ledgers to sum up.
    pub ledgers: Vec<PathBuf>,
    /// Where the page is written.
    pub html: Option<PathBuf>,
    /// Where the curves are written.
    pub csv: Option<PathBuf>,
    /// What must not be.
    pub fail_if: Vec<Threshold>,
    /// The title of the page.
    pub title: String,
}

/// What a ledger holds.
struct Sum {
    name: String,
    acknowledged: u64,
    refused: u64,
    unknown: u64,
}

/// Writes the report. True when every run passed and no threshold was passed.
///
/// # Errors
/// When a file cannot be read or written, or a threshold names a figure no run has.
pub fn run(settings: &Settings) -> Result<bool> {
    let runs: Vec<Run> = settings.runs.iter().map(|path| Run::read(path)).collect::<Result<_>>()?;
    let ledgers: Vec<Sum> = settings.ledgers.iter().map(|path| sum(path)).collect::<Result<_>>()?;
    let broken = threshold::broken(&settings.fail_if, &runs)?;
    if let Some(path) = &settings.html {
        let page = html(&settings.title, &runs, &ledgers, &broken)?;
        std::fs::write(path, page).with_context(|| format!("write {}", path.display()))?;
    }
    if let Some(path) = &settings.csv {
        write_csv(path, &runs)?;
    }
    for run in &runs {
        report::say(format!("{} of {}", run.command, run.started.format("%F %T UTC")));
        for line in threshold::summary(run) {
            report::say(format!("  {line}"));
        }
    }
    for reason in &broken {
        report::say(format!("over a threshold: {reason}"));
    }
    Ok(broken.is_empty() && runs.iter().all(|run| run.verdict.passed))
}

fn sum(path: &Path) -> Result<Sum> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut sum = Sum { name, acknowledged: 0, refused: 0, unknown: 0 };
    for entry in Entries::open(path)? {
        match entry?.outcome {
            Outcome::Acknowledged => sum.acknowledged += 1,
            Outcome::Refused => sum.refused += 1,
            Outcome::Unknown => sum.unknown += 1,
        }
    }
    Ok(sum)
}

fn html(title: &str, runs: &[Run], ledgers: &[Sum], broken: &[String]) -> Result<String> {
    let mut out = String::with_capacity(64 * 1024);
    let title = escape(title);
    write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<header><h1>{title}</h1>\n"
    )?;
    let passed = broken.is_empty() && runs.iter().all(|run| run.verdict.passed);
    verdict(&mut out, passed, broken)?;
    out.push_str("</header>\n");
    for run in runs {
        section(&mut out, run)?;
    }
    if !ledgers.is_empty() {
        out.push_str("<section>\n<h2>Ledger</h2>\n<div class=\"wide\"><table><thead><tr><th>file</th>");
        out.push_str("<th>acknowledged</th><th>refused</th><th>unknown</th></tr></thead><tbody>\n");
        for Sum { name, acknowledged, refused, unknown } in ledgers {
            writeln!(
                out,
                "<tr><th>{}</th><td>{acknowledged}</td><td>{refused}</td><td>{unknown}</td></tr>",
                escape(name)
            )?;
        }
        out.push_str("</tbody></table></div>\n</section>\n");
    }
    out.push_str("</body>\n</html>\n");
    Ok(out)
}

fn verdict(out: &mut String, passed: bool, reasons: &[String]) -> Result<()> {
    let (class, word) = if passed { ("pass", "passed") } else { ("fail", "failed") };
    writeln!(out, "<p class=\"verdict {class}\">{word}</p>")?;
    list(out, reasons)
}

fn list(out: &mut String, lines: &[String]) -> Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    out.push_str("<ul>\n");
    for line in lines.iter().take(LISTED_MAX) {
        writeln!(out, "<li>{}</li>", escape(line))?;
    }
    if lines.len() > LISTED_MAX {
        writeln!(out, "<li>… and {} more</li>", lines.len() - LISTED_MAX)?;
    }
    out.push_str("</ul>\n");
    Ok(())
}

fn section(out: &mut String, run: &Run) -> Result<()> {
    writeln!(out, "<section>\n<h2>{}</h2>", escape(&run.command))?;
    verdict(out, run.verdict.passed, &run.verdict.reasons)?;
    tiles(out, run)?;
    latencies(out, run)?;
    for chart in charts(run) {
        out.push_str(&chart.draw());
    }
    if !run.marks.is_empty() {
        out.push_str("<h3>What happened when</h3>\n<ol class=\"marks\">\n");
        for mark in run.marks.iter().take(LISTED_MAX) {
            writeln!(out, "<li><b>{} s</b> {}</li>", short(mark.at_s), escape(&mark.what))?;
        }
        out.push_str("</ol>\n");
    }
    refusals(out, run)?;
    counts(out, run)?;
    out.push_str("</section>\n");
    Ok(())
}

/// The three or four figures one looks for first.
fn tiles(out: &mut String, run: &Run) -> Result<()> {
    let count = |name: &str| run.counts.get(name).copied();
    let mut tiles = vec![("acknowledged per second".to_owned(), short(run.rate().round()))];
    if let Some(due) = run.latency.get(Span::Due.as_str()) {
        tiles.push(("p99 from due, ms".to_owned(), short(due.p99)));
    }
    for name in ["acknowledged", "refused", "unanswered", "lost", "devices"] {
        if let Some(count) = count(name) {
            tiles.push((name.to_owned(), count.to_string()));
        }
    }
    out.push_str("<div class=\"tiles\">\n");
    for (name, value) in tiles {
        writeln!(out, "<div><b>{}</b><span>{}</span></div>", escape(&value), escape(&name))?;
    }
    out.push_str("</div>\n");
    Ok(())
}

fn latencies(out: &mut String, run: &Run) -> Result<()> {
    if run.latency.is_empty() {
        return Ok(());
    }
    out.push_str(
        "<div class=\"wide\"><table><thead><tr><th>latency, ms</th><th>p50</th><th>p90</th><th>p99</th>",
    );
    out.push_str("<th>p99.9</th><th>max</th><th>samples</th></tr></thead><tbody>\n");
    for span in Span::ALL {
        let Some(Percentiles { p50, p90, p99, p999, max, count }) = run.latency.get(span.as_str()) else {
            continue;
        };
        let meaning = match span {
            Span::Due => "from due to acknowledged",
            Span::Sent => "from sent to acknowledged",
            Span::Connect => "from connecting to let in",
            Span::Delivery => "from published to delivered",
        };
        write!(out, "<tr><th>{meaning}</th>")?;
        for value in [p50, p90, p99, p999, max] {
            write!(out, "<td>{}</td>", short(*value))?;
        }
        writeln!(out, "<td>{count}</td></tr>")?;
    }
    out.push_str("</tbody></table></div>\n");
    Ok(())
}

/// The percentiles of one latency in a row.
type OfRow = fn(&Row) -> Option<Percentiles>;

fn charts(run: &Run) -> Vec<Chart<'_>> {
    let rows = &run.series;
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    let per_second = |count: u64, row: &Row| count as f64 / row.seconds.max(1e-3);
    let curve = |name: &'static str, value: &dyn Fn(&Row) -> Option<f64>| Curve {
        name: name.to_owned(),
        points: rows.iter().map(|row| (row.at_s, value(row))).collect(),
    };
    let chart = |title, unit, curves: Vec<Curve>| Chart { title, unit, curves, marks: &run.marks };
    let mut charts = vec![chart(
        "Throughput",
        "messages per second",
        vec![
            curve("acknowledged", &|row| Some(per_second(row.acknowledged, row))),
            curve("published", &|row| Some(per_second(row.published, row))),
            curve("refused", &|row| Some(per_second(row.refused, row))),
            curve("delivered", &|row| Some(per_second(row.delivered, row))),
        ],
    )];
    let spans: [(&str, OfRow); 3] = [
        ("Latency from when a message was due", |row| row.due),
        ("Latency from when it was sent", |row| row.sent),
        ("Latency of deliveries", |row| row.delivery),
    ];
    for (title, of) in spans {
        charts.push(chart(
            title,
            "ms",
            vec![
                curve("p50", &|row| of(row).map(|it| it.p50)),
                curve("p99", &|row| of(row).map(|it| it.p99)),
                curve("p99.9", &|row| of(row).map(|it| it.p999)),
                curve("max", &|row| of(row).map(|it| it.max)),
            ],
        ));
    }
    let mut names: Vec<_> = rows.iter().flat_map(|row| row.usage.iter().map(|usage| &usage.name)).collect();
    names.sort();
    names.dedup();
    let of = |value: &dyn Fn(&crate::timeline::Usage) -> f64| -> Vec<Curve> {
        let points = |name: &String| {
            let found = |row: &Row| row.usage.iter().find(|usage| usage.name == *name).map(value);
            rows.iter().map(|row| (row.at_s, found(row))).collect()
        };
        names.iter().map(|name| Curve { name: (*name).clone(), points: points(name) }).collect()
    };
    charts.push(chart("Memory", "MiB", of(&|usage| usage.memory_mib)));
    charts.push(chart("CPU", "cores", of(&|usage| usage.cores)));
    charts.retain(Chart::has_something);
    charts
}

fn refusals(out: &mut String, run: &Run) -> Result<()> {
    if run.refusals.is_empty() {
        return Ok(());
    }
    out.push_str("<h3>Refused</h3>\n<div class=\"wide\"><table><thead><tr><th>device</th><th>messages</th>");
    out.push_str("<th>code</th><th>meaning</th></tr></thead><tbody>\n");
    for it in run.refusals.iter().take(LISTED_MAX) {
        writeln!(
            out,
            "<tr><th>{}</th><td>{}</td><td>{:#04x}</td><td class=\"text\">{}</td></tr>",
            escape(&it.device),
            it.messages,
            it.code,
            escape(&it.reason)
        )?;
    }
    out.push_str("</tbody></table></div>\n");
    if run.refusals.len() > LISTED_MAX {
        writeln!(out, "<p>… and {} more</p>", run.refusals.len() - LISTED_MAX)?;
    }
    Ok(())
}

fn counts(out: &mut String, run: &Run) -> Result<()> {
    let mut facts: Vec<(String, String)> = vec![
        ("started".to_owned(), run.started.format("%F %T UTC").to_string()),
        ("seconds".to_owned(), short(run.seconds())),
        ("machine".to_owned(), run.machine.clone()),
        ("farmiq-loadtest".to_owned(), run.program.clone()),
    ];
    facts.extend(run.engine.iter().map(|version| ("engine".to_owned(), version.clone())));
    facts.extend(run.seed.iter().map(|seed| ("seed".to_owned(), seed.to_string())));
    facts.extend(run.settings.iter().map(|(name, value)| (name.clone(), value.clone())));
    facts.extend(run.counts.iter().map(|(name, count)| (name.clone(), count.to_string())));
    out.push_str("<details open><summary>Settings and counts</summary>\n<dl>\n");
    for (name, value) in facts {
        writeln!(out, "<div><dt>{}</dt><dd>{}</dd></div>", escape(&name), escape(&value))?;
    }
    out.push_str("</dl></details>\n");
    Ok(())
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn write_csv(path: &Path, runs: &[Run]) -> Result<()> {
    let mut writer = csv::Writer::from_path(path).with_context(|| format!("open {}", path.display()))?;
    let percentiles = ["p50", "p90", "p99", "p99.9", "max"];
    let mut head: Vec<String> =
        ["run", "at_s", "seconds", "published", "acknowledged", "refused", "delivered"]
            .map(str::to_owned)
            .into();
    for span in ["due", "sent", "delivery"] {
        head.extend(percentiles.map(|name| format!("{span}_{name}_ms")));
    }
    let usages = ["engine", "PostgreSQL"];
    for name in usages {
        head.extend([format!("{name}_mib"), format!("{name}_cores")]);
    }
    writer.write_record(&head)?;
    for run in runs {
        for row in &run.series {
            let mut line = vec![run.command.clone(), short(row.at_s), short(row.seconds)];
            line.extend(
                [row.published, row.acknowledged, row.refused, row.delivered].map(|it| it.to_string()),
            );
            for span in [row.due, row.sent, row.delivery] {
                let values = span.map(|it| [it.p50, it.p90, it.p99, it.p999, it.max]);
                line.extend(
                    values.map_or_else(|| [const { String::new() }; 5], |it| it.map(|ms| ms.to_string())),
                );
            }
            for name in usages {
                let usage = row.usage.iter().find(|usage| usage.name == name);
                line.push(usage.map(|usage| short(usage.memory_mib)).unwrap_or_default());
                line.push(usage.map(|usage| short(usage.cores)).unwrap_or_default());
            }
            writer.write_record(&line)?;
        }
    }
    writer.flush().with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeline::Timeline;
    use schema::clock::Clock;
    use std::time::Duration;

    fn a_run() -> Run {
        let now = Clock::system().now();
        let mut run = Run::new("replay", now, now + chrono::Duration::seconds(2));
        let timeline = Timeline::start();
        timeline.published();
        timeline.acknowledged(Duration::from_millis(7), Duration::from_millis(3));
        timeline.mark("postmaster <killed>");
        run.take(&timeline);
        run.counts.insert("acknowledged".into(), 1);
        run.settings.insert("files".into(), "<script>alert(1)</script>".into());
        run.verdict.passed = true;
        run
    }

    #[test]
    fn a_page_needs_nothing_else_and_runs_nothing() {
        let page = html("A & B", &[a_run()], &[], &["p99>5ms: it is 7".into()]).unwrap();
        assert!(page.contains("A &amp; B") && page.contains("postmaster &lt;killed&gt;"), "{page}");
        for outside in ["<script", "http://", "https://", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(page.contains("<svg") && page.contains("failed"), "{page}");
        assert_eq!(page.matches("<section>").count(), page.matches("</section>").count());
    }

    #[test]
    fn a_report_fails_when_a_threshold_is_passed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        a_run().write(&path("run.json")).unwrap();
        let mut settings = Settings {
            runs: vec![path("run.json")],
            ledgers: Vec::new(),
            html: Some(path("report.html")),
            csv: Some(path("report.csv")),
            fail_if: vec!["p99>1s".parse().unwrap()],
            title: "report".into(),
        };
        assert!(run(&settings).unwrap());
        settings.fail_if = vec!["p99>5ms".parse().unwrap()];
        assert!(!run(&settings).unwrap());
        let csv = std::fs::read_to_string(path("report.csv")).unwrap();
        assert!(csv.starts_with("run,at_s,") && csv.lines().count() == 2, "{csv}");
    }
}
