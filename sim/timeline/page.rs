//! Draws a timeline as one HTML page with an SVG picture in it: no script, no other file.
//!
//! Time runs downwards and is not to scale: between two moments there are at least [`STEP`] pixels if something happens at
//! both, and at most [`GAP`], so that the microseconds of an exchange and the minutes of a silence can be seen on one page. Each
//! moment has its time at the left.

use std::collections::BTreeMap;

use super::{Timeline, What};

/// Pixels between two moments, at least.
const STEP: u64 = 12;
/// And at most.
const GAP: u64 = 60;
/// Pixels from lane to lane.
const LANE: u64 = 190;
/// Where the first lane stands.
const LEFT: u64 = 130;
/// Where time begins.
const TOP: u64 = 60;

/// Text that stands in HTML and SVG.
fn escape(s: &str) -> String {
    let mut out = String::with_capacity(s.len());
    for c in s.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // No control character may stand in XML.
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// `12.345678 s`, in full nanoseconds.
fn clock(t: u64) -> String {
    format!("{}.{:09} s", t / 1_000_000_000, t % 1_000_000_000)
}

/// Where each moment stands.
fn scale(moments: impl Iterator<Item = u64>) -> BTreeMap<u64, u64> {
    let mut all: Vec<u64> = moments.collect();
    all.sort_unstable();
    all.dedup();
    let (mut y, mut last): (u64, Option<u64>) = (TOP, None);
    let mut at = BTreeMap::new();
    for t in all {
        if let Some(last) = last {
            // One more step for each power of four in microseconds.
            let micros = (t - last) / 1_000;
            y += (STEP + STEP / 2 * u64::from(micros.max(1).ilog2() / 2)).min(GAP);
        }
        at.insert(t, y);
        last = Some(t);
    }
    at
}

/// Moments that a violation's text names, as `… at 123 ns` or `123 ns`.
fn named(text: &str) -> Vec<u64> {
    let words: Vec<&str> =
        text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty()).collect();
    words.windows(2).filter(|w| w[1] == "ns").filter_map(|w| w[0].parse().ok()).collect()
}

/// The page.
pub fn html(t: &Timeline) -> String {
    // Where each violation is marked; its number leads from the list to the first of its marks.
    let marked: Vec<(u64, &str, usize)> = (t.violations.iter().enumerate())
        .flat_map(|(i, v)| named(&v.text).into_iter().map(move |at| (at, v.id.as_str(), i)))
        .collect();
    let moments = t.points.iter().map(|p| p.t);
    let moments = moments.chain(t.messages.iter().flat_map(|m| [Some(m.sent), m.read]).flatten());
    let at = scale(moments.chain(marked.iter().map(|m| m.0)));
    let x = |lane: usize| LEFT + LANE / 2 + LANE * lane as u64;
    let width = LEFT + LANE * t.lanes.len().max(1) as u64 + 20;
    let bottom = at.values().last().copied().unwrap_or(TOP) + 40;
    let mut svg = String::new();
    for (i, name) in t.lanes.iter().enumerate() {
        let x = x(i);
        svg += &format!("<line class=\"lane\" x1=\"{x}\" y1=\"{TOP}\" x2=\"{x}\" y2=\"{bottom}\"/>\n");
        svg += &format!("<text class=\"name\" x=\"{x}\" y=\"30\">{}</text>\n", escape(name));
    }
    // A time for each line of text that has room.
    let mut free = 0;
    for (time, y) in &at {
        if *y >= free {
            svg += &format!("<text class=\"time\" x=\"{}\" y=\"{y}\">{}</text>\n", LEFT - 10, clock(*time));
            free = y + STEP;
        }
    }
    svg += &down(t, &at, bottom, x);
    for m in &t.messages {
        let (from, to, y) = (x(m.from), x(m.to), at[&m.sent]);
        let what = match m.label.as_str() {
            "" => format!("connection {}: {} bytes", m.conn, m.bytes),
            label => label.to_owned(),
        };
        let title = format!(
            "{what} from {} to {}, sent at {}, {}",
            t.lanes[m.from],
            t.lanes[m.to],
            clock(m.sent),
            m.read.map_or_else(|| "never read".into(), |r| format!("read at {}", clock(r)))
        );
        // Bytes that were never read go half the way.
        let (class, end, y2) = match m.read {
            Some(r) => ("message", to, at[&r]),
            None => ("message unread", (from + to) / 2, y + STEP),
        };
        svg += &format!(
            "<line class=\"{class}\" x1=\"{from}\" y1=\"{y}\" x2=\"{end}\" y2=\"{y2}\"><title>{}</title></line>\n",
            escape(&title)
        );
        if !m.label.is_empty() {
            // A quarter of the way, so that what goes and what comes do not hide each other.
            let (x, y) = ((3 * from + end) / 4, (3 * y + y2) / 4);
            svg += &format!("<text class=\"label\" x=\"{x}\" y=\"{y}\">{}</text>\n", escape(&m.label));
        }
    }
    for p in &t.points {
        let (from, y, class) = (x(p.lane), at[&p.t], p.what.class());
        let title = format!("<title>{} {}</title>", clock(p.t), escape(&p.text));
        svg += &format!("<g class=\"{class}\">{title}");
        if let Some(to) = p.other.map(x) {
            svg += &format!("<line x1=\"{from}\" y1=\"{y}\" x2=\"{to}\" y2=\"{y}\"/>");
        }
        svg += &format!("<circle cx=\"{from}\" cy=\"{y}\" r=\"4\"/>");
        // What is seen at every moment would hide the rest.
        if !matches!(p.what, What::Open | What::Close) {
            let short: String = p.text.chars().take(60).collect();
            svg += &format!("<text x=\"{}\" y=\"{}\">{}</text>", from + 7, y + 4, escape(&short));
        }
        svg += "</g>\n";
    }
    for (n, (time, id, which)) in marked.iter().enumerate() {
        let y = at[time];
        let first = marked[..n].iter().all(|m| m.2 != *which);
        let name = if first { format!(" id=\"v{which}\"") } else { String::new() };
        svg += &format!(
            "<g class=\"violation\"{name}><line x1=\"0\" y1=\"{y}\" x2=\"{width}\" y2=\"{y}\"/><text x=\"4\" y=\"{}\">{}</text></g>\n",
            y - 3,
            escape(id)
        );
    }
    let mut list = String::new();
    for (i, v) in t.violations.iter().enumerate() {
        let to = if marked.iter().any(|m| m.2 == i) {
            format!(" <a href=\"#v{i}\">see it</a>")
        } else {
            String::new()
        };
        list += &format!("<li class=\"violation\"><b>{}</b> {}{to}</li>\n", escape(&v.id), escape(&v.text));
    }
    if t.violations.is_empty() {
        list += "<li>nothing was violated</li>\n";
    }
    let left_out = match t.left_out {
        0 => String::new(),
        n => format!("<p class=\"left\">{n} earlier events and messages are left out.</p>\n"),
    };
    let height = bottom + 20;
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/><title>{title}</title>\n<style>{STYLE}</style></head>\n<body>\n<h1>{title}</h1>\n<ul>\n{list}</ul>\n{left_out}<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\">\n<defs><marker id=\"tip\" markerWidth=\"8\" markerHeight=\"8\" refX=\"8\" refY=\"4\" orient=\"auto\"><path d=\"M0,0 L8,4 L0,8 z\"/></marker></defs>\n{svg}</svg>\n</body></html>\n",
        title = escape(&t.title),
    )
}

/// When a machine was down or stood still: a broad line over its lane.
fn down(t: &Timeline, at: &BTreeMap<u64, u64>, bottom: u64, x: impl Fn(usize) -> u64) -> String {
    let mut out = String::new();
    for lane in 0..t.lanes.len() {
        let mut open: Option<(u64, &str)> = None;
        let mut bar = |from: u64, to: u64, class: &str| {
            let x = x(lane);
            out += &format!("<line class=\"{class}\" x1=\"{x}\" y1=\"{from}\" x2=\"{x}\" y2=\"{to}\"/>\n");
        };
        for p in t.points.iter().filter(|p| p.lane == lane) {
            let y = at[&p.t];
            match (p.what, open) {
                (What::Death, before) => {
                    if let Some((from, class)) = before {
                        bar(from, y, class);
                    }
                    open = Some((y, "down"));
                }
                (What::Pause, None) => open = Some((y, "still")),
                (What::Start | What::Resume, Some((from, class))) => {
                    bar(from, y, class);
                    open = None;
                }
                _ => {}
            }
        }
        if let Some((from, class)) = open {
            bar(from, bottom, class);
        }
    }
    out
}

const STYLE: &str = "body{font:13px sans-serif;margin:16px}svg text{font:10px monospace}.name{font-weight:bold;text-anchor:middle}.time{text-anchor:end;fill:#888}.lane{stroke:#ccc}.message{stroke:#36c;stroke-opacity:.5;marker-end:url(#tip)}.unread{stroke-dasharray:3 3;stroke:#c60}.down{stroke:#000;stroke-width:6;stroke-opacity:.6}.still{stroke:#f90;stroke-width:6;stroke-opacity:.6}.start circle,.resume circle,.heal circle{fill:#2a2}.death circle{fill:#000}.pause circle{fill:#f90}.fault circle{fill:#d22}.fault line{stroke:#d22;stroke-width:2}.heal line{stroke:#2a2}.signal circle{fill:#93c}.open line{stroke:#9c9}.open circle{fill:#9c9}.close circle{fill:#999}.log circle{fill:#bbb}.log text{fill:#777}.role circle{fill:#888}.elect circle{fill:#06c;r:6px}.elect text{fill:#06c;font-weight:bold}.commit circle{fill:#2a2}.commit text{fill:#282}svg .label{fill:#36c;fill-opacity:.7;font-size:8px;text-anchor:middle}svg .violation line{stroke:#e00;stroke-width:2}svg .violation text{fill:#e00;font-weight:bold}li.violation{color:#c00}";
