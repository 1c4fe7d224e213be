//! Plots the available space and the forecast, in the terminal or as an SVG file.

use std::fmt::Write as _;
use std::io::{self, Write};

use tracer_model::units;
use tracer_model::units::Units;

use super::report::{Point, Summary};

/// Columns and rows of the terminal chart without its labels; fits in 80×24.
const COLUMNS: usize = 66;
const ROWS: usize = 14;

/// The axes of a chart: from the first row to the latest time to full, and from 0 to the most that
/// was available.
struct Axes {
    start: f64,
    now: f64,
    end: f64,
    top: f64,
}

impl Axes {
    fn of(points: &[Point]) -> Option<Self> {
        let (first, last) = (points.first()?, points.last()?);
        let start = points.iter().map(|p| p.time).fold(first.time, f64::min);
        let now = last.time.max(start);
        let past = (now - start).max(1.0);
        // The forecast gets as much of the axis as it needs, at most two thirds.
        let end = now + last.eta.map_or(0.0, |[_, eta, hi]| hi.min(2.0 * eta).min(2.0 * past));
        let top = points.iter().map(|p| p.avail).max()?.max(1) as f64;
        Some(Self { start, now, end: end.max(start + 1.0), top })
    }

    fn x(&self, t: f64, width: f64) -> f64 {
        ((t - self.start) / (self.end - self.start)).clamp(0.0, 1.0) * width
    }

    fn y(&self, bytes: f64, height: f64) -> f64 {
        (bytes / self.top).clamp(0.0, 1.0) * height
    }
}

/// Bytes available `t` seconds from now if the volume is full in `eta` seconds.
fn ahead(avail: u64, eta: f64, t: f64) -> f64 {
    if eta <= 0.0 { 0.0 } else { (avail as f64 * (1.0 - t / eta)).max(0.0) }
}

/// Draws in characters: `█` for the past, `░` for the likely forecast.
pub(super) fn terminal(summary: &Summary, colour: bool, out: &mut impl Write) -> io::Result<()> {
    let points = summary.points();
    let (Some(axes), Some(last)) = (Axes::of(&points), points.last()) else { return Ok(()) };
    let mut columns = vec![(0.0f64, ' '); COLUMNS];
    let mut seen = vec![None::<u64>; COLUMNS];
    for p in &points {
        let c = (axes.x(p.time, COLUMNS as f64) as usize).min(COLUMNS - 1);
        // The least that was available in this column, so that dips are not averaged away.
        seen[c] = Some(seen[c].map_or(p.avail, |a| a.min(p.avail)));
    }
    let now_column = axes.x(axes.now, COLUMNS as f64) as usize;
    let mut carry = points[0].avail;
    for (c, column) in columns.iter_mut().enumerate() {
        if c <= now_column {
            carry = seen[c].unwrap_or(carry);
            *column = (carry as f64, '█');
        } else if let Some([_, eta, _]) = last.eta {
            let t = axes.start + (c as f64 + 0.5) / COLUMNS as f64 * (axes.end - axes.start);
            *column = (ahead(last.avail, eta, t - axes.now), '░');
        }
    }
    writeln!(out)?;
    for row in (0..ROWS).rev() {
        let label = match row {
            r if r == ROWS - 1 => Units::Iec.bytes(axes.top as u64),
            0 => "0 B".to_owned(),
            _ => String::new(),
        };
        let mut text = String::new();
        let mut painted = false;
        for (value, ink) in &columns {
            let height = axes.y(*value, ROWS as f64);
            let part = ((height - row as f64) * 8.0).round();
            let cell = match (*ink, part) {
                (_, p) if p <= 0.0 => ' ',
                ('█', p) if p < 8.0 => ['▁', '▂', '▃', '▄', '▅', '▆', '▇'][p as usize - 1],
                (ink, _) => ink,
            };
            let future = *ink == '░';
            if colour && future != painted {
                text.push_str(if future { "\x1b[33m" } else { "\x1b[0m" });
                painted = future;
            }
            text.push(cell);
        }
        if painted {
            text.push_str("\x1b[0m");
        }
        writeln!(out, "{label:>11} │{}", text.trim_end())?;
    }
    writeln!(out, "{:>11} └{}", "", "─".repeat(COLUMNS))?;
    let end = if axes.end > axes.now {
        format!("in {}", units::duration(axes.end - axes.now))
    } else {
        "now".to_owned()
    };
    let start = format!("{} ago", units::duration(axes.now - axes.start));
    let gap = COLUMNS.saturating_sub(start.chars().count() + end.chars().count());
    writeln!(out, "{:>11}  {start}{}{end}", "", " ".repeat(gap))?;
    writeln!(out, "{:>11}  █ available   ░ if growth continues as forecast", "")
}

/// Size of a panel of the SVG file, and its position.
const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 90.0;
const UPPER_TOP: f64 = 30.0;
const LOWER_TOP: f64 = UPPER_TOP + HEIGHT + 60.0;

/// Draws as SVG. The upper panel has the available space and the present forecast with its 80 %
/// interval; the lower one has every past estimate with its 80 % interval, on a logarithmic axis.
pub(super) fn svg(summary: &Summary) -> String {
    let points = summary.points();
    let mut s = String::new();
    let _ = write!(
        s,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" font-family=\"sans-serif\" font-size=\"12\">\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>",
        LEFT + WIDTH + 20.0,
        LOWER_TOP + HEIGHT + 40.0
    );
    let Some((axes, last)) = Axes::of(&points).zip(points.last()) else {
        s.push_str("</svg>\n");
        return s;
    };
    available(&mut s, &axes, &points, last);
    estimates(&mut s, &axes, &points);
    let ago = format!("{} ago", units::duration(axes.now - axes.start));
    for top in [UPPER_TOP, LOWER_TOP] {
        let baseline = top + HEIGHT + 16.0;
        text(&mut s, LEFT, baseline, "start", &ago);
        text(&mut s, LEFT + axes.x(axes.now, WIDTH), baseline, "end", "now");
    }
    s.push_str("</svg>\n");
    s
}

fn text(s: &mut String, x: f64, y: f64, anchor: &str, content: &str) {
    let _ = write!(s, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{content}</text>");
}

/// Draws the axes of a panel and its title.
fn frame(s: &mut String, top: f64, title: &str) {
    let _ = write!(
        s,
        "<path d=\"M{LEFT} {top}V{}H{}\" fill=\"none\" stroke=\"#888888\"/>",
        top + HEIGHT,
        LEFT + WIDTH
    );
    text(s, LEFT, top - 10.0, "start", title);
}

/// Draws the upper panel: the available space, and from its last point on the forecast.
fn available(s: &mut String, axes: &Axes, points: &[Point], last: &Point) {
    let x = |t: f64| LEFT + axes.x(t, WIDTH);
    let y = |bytes: f64| UPPER_TOP + HEIGHT - axes.y(bytes, HEIGHT);
    frame(s, UPPER_TOP, "available");
    text(s, LEFT - 6.0, UPPER_TOP + 10.0, "end", &Units::Iec.bytes(axes.top as u64));
    text(s, LEFT - 6.0, UPPER_TOP + HEIGHT, "end", "0 B");
    let mut line = String::new();
    for p in points {
        let _ = write!(line, "{:.1},{:.1} ", x(p.time), y(p.avail as f64));
    }
    let _ = write!(
        s,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"#1f6fb4\" stroke-width=\"1.5\"/>",
        line.trim_end()
    );
    if let Some([lo, eta, hi]) = last.eta {
        let (nx, ny) = (x(axes.now), y(last.avail as f64));
        // Where a line that reaches 0 in `eta` leaves the chart: at its bottom or right edge.
        let leaves = |eta: f64| {
            let t = eta.min(axes.end - axes.now);
            format!("L{:.1} {:.1}", x(axes.now + t), y(ahead(last.avail, eta, t)))
        };
        let corner = format!("L{:.1} {:.1}", x(axes.end.min(axes.now + hi)), y(0.0));
        let corner = if axes.now + lo < axes.end { corner } else { String::new() };
        let _ = write!(
            s,
            "<path d=\"M{nx:.1} {ny:.1}{}{corner}{}Z\" fill=\"#e8a33d\" fill-opacity=\"0.3\"/>\
             <path d=\"M{nx:.1} {ny:.1}{}\" stroke=\"#c46a00\" stroke-dasharray=\"5 3\"/>",
            leaves(lo),
            leaves(hi),
            leaves(eta),
        );
    }
}

/// Draws the lower panel: a band from the earliest to the latest and a line for the likely time to
/// full, from 1 s to a year.
fn estimates(s: &mut String, axes: &Axes, points: &[Point]) {
    let most = points.iter().filter_map(|p| p.eta).map(|e| e[2]).fold(60.0, f64::max);
    let y =
        |eta: f64| LOWER_TOP + HEIGHT - (eta.max(1.0).ln() / most.ln()).clamp(0.0, 1.0) * HEIGHT;
    let x = |t: f64| LEFT + axes.x(t, WIDTH);
    for mark in [1.0, 60.0, 3600.0, 86400.0, 604_800.0, 31_536_000.0] {
        if mark <= most {
            let py = y(mark);
            let _ = write!(
                s,
                "<path d=\"M{LEFT} {py:.1}h{WIDTH}\" stroke=\"#dddddd\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 6.0,
                py + 4.0,
                units::duration(mark)
            );
        }
    }
    // Interrupt the line wherever there was no estimate.
    for run in points.split(|p| p.eta.is_none()).filter(|r| !r.is_empty()) {
        let line = |i: usize| {
            run.iter()
                .filter_map(|p| p.eta.map(|e| format!("{:.1},{:.1}", x(p.time), y(e[i]))))
                .collect::<Vec<_>>()
        };
        let mut band = line(0);
        band.extend(line(2).into_iter().rev());
        let _ = write!(
            s,
            "<polygon points=\"{}\" fill=\"#e8a33d\" fill-opacity=\"0.3\"/>\
             <polyline points=\"{}\" fill=\"none\" stroke=\"#c46a00\" stroke-width=\"1.5\"/>",
            band.join(" "),
            line(1).join(" ")
        );
    }
    frame(s, LOWER_TOP, "time to full as forecast, with its 80 % interval");
}
