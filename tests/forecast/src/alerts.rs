//! Scores alerts instead of estimates: what filltop's rules, node-mixin's and Netdata's would have
//! reported over the same traces.

use std::collections::HashSet;

use tracer_model::alert::replay::Replay;
use tracer_model::alert::{Engine, EventKind, Rule};
use tracer_model::forecast::Sample;

use crate::anchors::{Line, Method, Rate};
use crate::score::{HORIZON, mean};
use crate::trace::{Row, Trace};

const HOUR: f64 = 3600.0;
/// An alert is false if the volume does not fill within this time, seconds, unless it was nearly
/// full.
const PROMISE: f64 = 24.0 * HOUR;
/// A volume with less than this share left is nearly full, which justifies an alert by itself.
const NEARLY: f64 = 0.05;

/// The result of a row: the number of alerts that began or got worse, and whether any is active.
pub struct Alerts {
    began: usize,
    on: bool,
}

/// A set of rules that is given one row after another.
pub trait Rules {
    /// Evaluates the rules after this row.
    fn push(&mut self, row: &Row) -> Alerts;
}

/// filltop's built-in rules, as `filltop watch` runs them without a configuration.
pub struct Filltop {
    replay: Replay,
    engine: Engine,
    on: HashSet<String>,
}

impl Default for Filltop {
    fn default() -> Self {
        let engine = Engine::new(Rule::defaults());
        Self { replay: Replay::new("/srv"), engine, on: HashSet::new() }
    }
}

impl Rules for Filltop {
    fn push(&mut self, row: &Row) -> Alerts {
        let (at, snapshot) = self.replay.push(&Sample {
            time_s: row.time,
            total: row.total,
            used: row.used,
            avail: row.avail,
            ..Sample::default()
        });
        let mut began = 0;
        for event in self.engine.evaluate(&at, &snapshot, &[]) {
            match event.event {
                EventKind::Firing => {
                    began += 1;
                    self.on.insert(event.key);
                }
                EventKind::Resolved => {
                    self.on.remove(&event.key);
                }
                _ => {}
            }
        }
        Alerts { began, on: !self.on.is_empty() }
    }
}

/// A condition that must hold for some time before it fires, and must be gone for some time before
/// it resolves.
struct Pending {
    pending: f64,
    lasts: f64,
    since: Option<f64>,
    until: Option<f64>,
    on: bool,
}

impl Pending {
    const fn new(pending: f64, lasts: f64) -> Self {
        Self { pending, lasts, since: None, until: None, on: false }
    }

    /// Returns whether it began to fire with this row.
    fn push(&mut self, time: f64, holds: bool) -> bool {
        let was = self.on;
        if holds {
            self.until = None;
            let since = *self.since.get_or_insert(time);
            self.on |= time - since >= self.pending;
        } else {
            self.since = None;
            let until = *self.until.get_or_insert(time);
            self.on &= time - until < self.lasts;
        }
        self.on && !was
    }
}

/// node-mixin's NodeFilesystemSpaceFillingUp (warning: full within 24 h and under 40 % left; critical:
/// within 4 h and under 20 %; each for an hour) and NodeFilesystemAlmostOutOfSpace (under 5 % and 3 %
/// left, for half an hour), with its default thresholds.
pub struct NodeMixin {
    line: Line,
    rules: [Pending; 4],
}

impl Default for NodeMixin {
    fn default() -> Self {
        let rules = [HOUR, HOUR, 0.5 * HOUR, 0.5 * HOUR].map(|pending| Pending::new(pending, 0.0));
        Self { line: Line::new(6.0 * HOUR), rules }
    }
}

impl Rules for NodeMixin {
    fn push(&mut self, row: &Row) -> Alerts {
        let eta = self.line.push(row).map_or(f64::INFINITY, |estimate| estimate.eta);
        let left = row.avail as f64 / row.total as f64;
        let holds = [
            eta < 24.0 * HOUR && left < 0.4,
            eta < 4.0 * HOUR && left < 0.2,
            left < 0.05,
            left < 0.03,
        ];
        let began = self
            .rules
            .iter_mut()
            .zip(holds)
            .filter_map(|(rule, holds)| rule.push(row.time, holds).then_some(()));
        Alerts { began: began.count(), on: self.rules.iter().any(|rule| rule.on) }
    }
}

/// Netdata's disk_space_usage (warning over 90 % until 80 %; critical over 98 % until 90 % while
/// under 5 GiB are left; reported after a minute, ended after a quarter of an hour) and
/// out_of_disk_space_time (warning under 8 h until 48 h, critical under 2 h until 24 h, from the
/// last hour's rate; ended after a quarter of an hour), as in health.d/disks.conf.
pub struct Netdata {
    rate: Rate,
    usage: [Pending; 2],
    time: [Pending; 2],
}

impl Default for Netdata {
    fn default() -> Self {
        Self {
            rate: Rate::new(HOUR, true),
            usage: [60.0, 60.0].map(|pending| Pending::new(pending, 900.0)),
            time: [0.0, 0.0].map(|pending| Pending::new(pending, 900.0)),
        }
    }
}

impl Rules for Netdata {
    fn push(&mut self, row: &Row) -> Alerts {
        let used = 100.0 * row.used as f64 / (row.used + row.avail).max(1) as f64;
        let little = row.avail < 5 << 30;
        let hours = self.rate.push(row).map_or(f64::INFINITY, |estimate| estimate.eta / HOUR);
        let [usage_warns, usage_critical] = [self.usage[0].on, self.usage[1].on];
        let [time_warns, time_critical] = [self.time[0].on, self.time[1].on];
        let usage = [
            used > if usage_warns { 80.0 } else { 90.0 },
            used > if usage_critical { 90.0 } else { 98.0 } && little,
        ];
        let time = [
            hours > 0.0 && hours < if time_warns { 48.0 } else { 8.0 },
            hours > 0.0 && hours < if time_critical { 24.0 } else { 2.0 },
        ];
        let mut began = 0;
        for (rules, holds) in [(&mut self.usage, usage), (&mut self.time, time)] {
            let before = level(rules);
            for (rule, holds) in rules.iter_mut().zip(holds) {
                rule.push(row.time, holds);
            }
            // An alert that gets worse is reported again; both in one row count as one message.
            began += usize::from(level(rules) > before);
        }
        Alerts { began, on: level(&self.usage) > 0 || level(&self.time) > 0 }
    }
}

fn level(rules: &[Pending; 2]) -> u8 {
    if rules[1].on { 2 } else { u8::from(rules[0].on) }
}

/// Sums over traces.
#[derive(Default)]
struct Score {
    traces: usize,
    began: usize,
    wrong: usize,
    wrong_minutes: f64,
    /// Per fill: share of the attainable time in which the alert was active, without a break, up to
    /// full.
    lead: Vec<f64>,
    /// Fills without any alert before.
    silent: usize,
    /// Seconds from the beginning of the writing that fills the volume to the first alert, for
    /// fills within an hour.
    delay: Vec<f64>,
    /// Fills whose alert was not active while the volume was full.
    cleared: usize,
}

impl Score {
    fn add(&mut self, trace: &Trace, rules: &mut dyn Rules) {
        self.traces += 1;
        let results: Vec<Alerts> = trace.rows.iter().map(|row| rules.push(row)).collect();
        let mut is_wrong = false;
        for (i, row) in trace.rows.iter().enumerate() {
            self.began += results[i].began;
            let nearly = (row.avail as f64) < NEARLY * row.total as f64;
            let due = trace.remaining(row.truth) <= PROMISE || row.truth < trace.spared;
            if results[i].began > 0 && !nearly && !due {
                self.wrong += results[i].began;
                is_wrong = true;
            }
            is_wrong &= results[i].on && !nearly && !due;
            if is_wrong {
                let next = trace.rows.get(i + 1).map_or(row.truth, |next| next.truth);
                self.wrong_minutes += (next - row.truth).min(600.0) / 60.0;
            }
            let was = i > 0 && trace.rows[i - 1].avail == 0 && results[i - 1].on;
            self.cleared += usize::from(was && row.avail == 0 && !results[i].on);
        }
        for fill in &trace.fills {
            let from = fill.onset.max(fill.full - HORIZON);
            let (mut on, mut first) = (f64::NAN, f64::NAN);
            for (row, result) in trace.rows.iter().zip(&results) {
                if row.truth < from || row.truth >= fill.full {
                    continue;
                }
                if !result.on {
                    on = f64::NAN;
                } else if on.is_nan() {
                    on = row.truth;
                    first = if first.is_nan() { on } else { first };
                }
            }
            if fill.full <= from {
                continue;
            }
            let lead = if on.is_nan() { 0.0 } else { (fill.full - on) / (fill.full - from) };
            self.lead.push(lead);
            self.silent += usize::from(on.is_nan());
            if fill.full - fill.onset <= HOUR && !first.is_nan() {
                self.delay.push(first - fill.onset);
            }
        }
    }

    fn line(&self, name: &str) -> String {
        let per = |count: f64| count / self.traces.max(1) as f64;
        let fills = self.lead.len();
        let of_fills = |text: String| if fills == 0 { "–".to_owned() } else { text };
        let mut delay = self.delay.clone();
        delay.sort_by(f64::total_cmp);
        let delay = match delay.get(delay.len() / 2) {
            Some(median) => format!("{median:.0} ({})", delay.len()),
            None => "–".to_owned(),
        };
        format!(
            "| {name} | {:.2} | {} | {} | {} | {:.2} | {:.1} | {} |",
            per(self.began as f64),
            of_fills(format!("{:.1}", 100.0 * mean(&self.lead))),
            of_fills(format!("{:.1}", 100.0 * self.silent as f64 / fills.max(1) as f64)),
            of_fills(delay),
            per(self.wrong as f64),
            per(self.wrong_minutes),
            self.cleared
        )
    }

    fn merge(&mut self, other: &Self) {
        self.traces += other.traces;
        self.began += other.began;
        self.wrong += other.wrong;
        self.wrong_minutes += other.wrong_minutes;
        self.lead.extend(&other.lead);
        self.silent += other.silent;
        self.delay.extend(&other.delay);
        self.cleared += other.cleared;
    }
}

const INTRO: &str = "# Scores of the alerts

Generated by `cargo run --release -p forecast-score -- --alerts > docs/alert-scores.md`; do not edit. The traces are
those of [forecast-scores.md](forecast-scores.md), with seeds that were not used for tuning. Each set of rules is
given the same rows. The scores are about the notifications that users get, not about the estimates behind them.

- **alerts**: notifications that an alert began or got worse, per trace. Reminders are not counted. A fill needs one
  (`time-to-full`), and gets up to three: warning, critical, full.
- **lead**: share of the attainable warning time (from the start of the writing that fills the volume, at most 4 h) in
  which some alert was active, without a break, up to full; mean over fills.
- **silent**: share of fills before which no alert was active.
- **delay**: median seconds from the start of the writing to the first alert, over the fills that take under an hour
  and had an alert; in brackets the number of these fills. An alert that was already active counts as immediate.
- **false**: alerts per trace after which the volume was not full within 24 h, while more than 5 % was left;
  **minutes**: how long these alerts were active.
- **cleared**: how often the alerts ended while the volume was full.

filltop: without a configuration. node-mixin: `NodeFilesystemSpaceFillingUp` and `NodeFilesystemAlmostOutOfSpace`,
warning and critical, default thresholds. Netdata: `disk_space_usage` and `out_of_disk_space_time` of
health.d/disks.conf (its stock configuration does not send the latter to anyone); delays with their initial values.

";

const HEAD: &str = "| | alerts | lead % | silent % | delay s | false | minutes | cleared |
|---|---|---|---|---|---|---|---|";

fn all() -> [(&'static str, Box<dyn Rules>); 3] {
    [
        ("filltop", Box::<Filltop>::default()),
        ("node-mixin", Box::<NodeMixin>::default()),
        ("Netdata", Box::<Netdata>::default()),
    ]
}

/// Prints the tables over these shapes with their traces.
pub fn print(shapes: &[(&str, Vec<Trace>)]) {
    print!("{INTRO}");
    let mut totals: [Score; 3] = Default::default();
    let mut lines = Vec::new();
    for (name, traces) in shapes {
        for (at, total) in totals.iter_mut().enumerate() {
            let mut score = Score::default();
            for trace in traces {
                score.add(trace, all()[at].1.as_mut());
            }
            if at == 0 {
                lines.push(score.line(name));
            }
            total.merge(&score);
        }
    }
    println!("{HEAD}");
    for ((name, _), total) in all().iter().zip(&totals) {
        println!("{}", total.line(name));
    }
    let [filltop, ..] = &totals;
    println!(
        "\nThe {} traces contain {} fills. **filltop**, shape by shape:\n",
        filltop.traces,
        filltop.lead.len()
    );
    println!("{HEAD}");
    lines.iter().for_each(|line| println!("{line}"));
}
