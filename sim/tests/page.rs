//! Timelines in a real browser: headless Chromium lays the page out, and a script that only the test adds measures what
//! a person would see. Without a Chromium (Debian's package, or one that playwright fetched) the tests say so and end.
#![cfg(madsim)]
#![allow(clippy::disallowed_methods)] // A browser is a real process with real files.

use std::{path::PathBuf, process::Command};

use sim::{history::Violation, timeline};

/// The browser: `CHROMIUM`, or what is usual.
fn browser() -> Option<PathBuf> {
    if let Some(named) = sim::real_var("CHROMIUM") {
        return Some(named.into());
    }
    let path = sim::real_var("PATH").unwrap_or_default();
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let usual = path.split(':').flat_map(|d| names.map(|n| PathBuf::from(d).join(n)));
    let home = PathBuf::from(sim::real_var("HOME").unwrap_or_default()).join(".cache/ms-playwright");
    let fetched = std::fs::read_dir(home).into_iter().flatten().flatten();
    let fetched = fetched
        .flat_map(|d| ["chrome-linux/chrome", "chrome-linux/headless_shell"].map(|n| d.path().join(n)));
    usual.chain(fetched).find(|p| p.is_file())
}

/// Measures the page after it is laid out and leaves the result in it.
const MEASURE: &str = r#"<script>
const box = e => { const b = e.getBoundingClientRect(); return [Math.round(b.left), Math.round(b.top), Math.round(b.width), Math.round(b.height)]; };
const all = s => [...document.querySelectorAll(s)];
const shown = all("svg .violation line").map(e => { const s = getComputedStyle(e); return [s.stroke, s.visibility, ...box(e)]; });
const picture = document.querySelector("svg").getBoundingClientRect();
const outside = all("svg line, svg circle").filter(e => { const b = e.getBoundingClientRect();
  return b.left < picture.left - 1 || b.right > picture.right + 1 || b.top < picture.top - 1 || b.bottom > picture.bottom + 1; }).length;
const out = { lanes: all("line.lane").map(e => box(e)[0]), names: all("text.name").map(e => e.textContent), messages: all("line.message").length,
  elect: all("g.elect").map(e => e.textContent), commit: all("g.commit").length, fault: all("g.fault").length, death: all("g.death").length,
  violations: all("li.violation").map(e => [e.textContent, getComputedStyle(e).color]), shown, outside, errors: all("parsererror").length };
const pre = document.createElement("pre"); pre.id = "measured"; pre.textContent = JSON.stringify(out); document.body.appendChild(pre);
</script>"#;

/// Lays a page out and measures it; none without a browser.
fn measured(name: &str, page: &str) -> Option<serde_json::Value> {
    let Some(browser) = browser() else {
        println!("not shown in a browser: this machine has no Chromium (CHROMIUM names one)");
        return None;
    };
    let dir = std::env::temp_dir().join(format!("timeline-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a folder");
    let file = dir.join("page.html");
    std::fs::write(&file, page.replace("</body>", &format!("{MEASURE}</body>"))).expect("a file");
    let out = Command::new(browser)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--virtual-time-budget=2000",
        ])
        .arg(format!("--user-data-dir={}", dir.join("profile").display()))
        .args(["--window-size=1600,1200", "--dump-dom"])
        .arg(format!("file://{}", file.display()))
        .output()
        .expect("the browser starts");
    std::fs::remove_dir_all(&dir).ok();
    let dom = String::from_utf8_lossy(&out.stdout).into_owned();
    let said = dom.split("<pre id=\"measured\">").nth(1).and_then(|t| t.split("</pre>").next());
    let said =
        said.unwrap_or_else(|| panic!("the page was not laid out: {}", String::from_utf8_lossy(&out.stderr)));
    let said = said.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    Some(serde_json::from_str(&said).expect("the script wrote JSON"))
}

fn looks_right(m: &serde_json::Value, lanes: &[&str], id: &str) {
    assert_eq!(m["names"], serde_json::json!(lanes));
    let x: Vec<i64> =
        m["lanes"].as_array().expect("lanes").iter().filter_map(serde_json::Value::as_i64).collect();
    assert!(x.len() == lanes.len() && x.windows(2).all(|w| w[1] - w[0] > 100), "lanes stand apart: {x:?}");
    assert_eq!(
        (&m["outside"], &m["errors"]),
        (&0.into(), &0.into()),
        "nothing lies outside the picture: {m}"
    );
    let listed = &m["violations"][0];
    assert!(listed[0].as_str().is_some_and(|t| t.starts_with(id)), "{m}");
    assert_eq!(listed[1], "rgb(204, 0, 0)");
    let line = &m["shown"][0];
    assert_eq!((&line[0], &line[1]), (&"rgb(238, 0, 0)".into(), &"visible".into()), "{m}");
    assert!(line[4].as_i64().is_some_and(|w| w > 100 * lanes.len() as i64), "it crosses all lanes: {m}");
}

#[test]
fn a_storm_is_seen_in_a_browser() {
    let trace = "trace 0 start [1, 1]\ntrace 100 start [2, 1]\nserver: a < b & c\ntrace 2000 established [7, 40000, 4222, 2, 1]\n\
        trace 3000 sent [7, 0, 10]\ntrace 9000 read [7, 1, 10]\ntrace 12000 sent [7, 1, 6]\ntrace 13000 cut [2, 1]\n\
        trace 5000000 died [1, 1]\ntrace 9000000 start [1, 2]\n";
    let mut t = timeline::read(trace, &["harness", "server", "c0"].map(str::to_owned));
    t.violations = vec![Violation::new("B-1", "publish 3 (by client 0 at 12000 ns) came twice".into())];
    let Some(m) = measured("storm", &timeline::html(&t)) else { return };
    looks_right(&m, &["harness", "server", "c0"], "B-1");
    assert_eq!((&m["messages"], &m["fault"], &m["death"]), (&2.into(), &1.into(), &1.into()));
}

#[test]
fn an_election_is_seen_in_a_browser() {
    let said = "seed 9: R-3 at 140 ms: n1 leads without the log\nPlan { machines: 3, voters: 3 }\n    0.000 n1 starts\n\
        \x20 100.000 partition [true, false, false] one way true\n  120.000 n1 Candidate t2 d1 l1 c1 a1 <- Tick\n\
        \x20           => Ready { messages: [Message { from: NodeId { id: 1, incarnation: 0 }, to: NodeId { id: 2, incarnation: 0 }, term: Term(2), body: Vote { last: 1 } }], writes: [] }\n\
        \x20 130.000 n1 Leader t2 d1 l1 c1 a1 <- Tick\n            => Ready { messages: [], writes: [] }\n\
        \x20 140.000 n1 Leader t2 d1 l2 c2 a1 <- Tick\n            => Ready { messages: [], writes: [] }\n";
    let Some(m) = measured("core", &timeline::html(&timeline::raft::read(said))) else { return };
    looks_right(&m, &["n1", "n2", "n3"], "R-3");
    assert_eq!((&m["messages"], &m["commit"], &m["fault"]), (&1.into(), &1.into(), &1.into()));
    assert!(m["elect"][0].as_str().is_some_and(|t| t.contains("leads, term 2")), "{m}");
}
