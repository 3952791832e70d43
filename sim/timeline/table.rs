//! The last transitions as text: one line each, one column a machine.

use super::Timeline;

/// Characters of a column.
const COLUMN: usize = 26;

/// The last `most` transitions.
pub fn table(t: &Timeline, most: usize) -> String {
    // Time, place in the list (so that equal times keep their order), column, words.
    let mut rows: Vec<(u64, usize, String)> = Vec::new();
    for p in &t.points {
        let other = p.other.map_or_else(String::new, |o| format!(" {}", t.lanes[o]));
        rows.push((p.t, p.lane, format!("{}{other}", p.text)));
    }
    for m in &t.messages {
        let what = if m.label.is_empty() { format!("{} bytes", m.bytes) } else { m.label.clone() };
        rows.push((m.sent, m.from, format!("> {}: {what}", t.lanes[m.to])));
        if let Some(read) = m.read {
            rows.push((read, m.to, format!("< {}: {what}", t.lanes[m.from])));
        }
    }
    rows.sort_by_key(|r| r.0);
    let mut out = format!("{:>16}", "ns");
    for name in &t.lanes {
        out += &format!(" {name:<COLUMN$}");
    }
    out = out.trim_end().to_owned() + "\n";
    let from = rows.len().saturating_sub(most);
    for (time, lane, text) in &rows[from..] {
        let short: String = text.chars().take(COLUMN).map(|c| if c.is_control() { ' ' } else { c }).collect();
        let line = format!("{time:>16} {:indent$}{short}", "", indent = lane * (COLUMN + 1));
        out += line.trim_end();
        out += "\n";
    }
    for v in &t.violations {
        out += &format!("{}: {}\n", v.id, v.text);
    }
    out
}
