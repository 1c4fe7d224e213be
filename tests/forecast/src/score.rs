//! Scores a forecast: the same strict measures for every method.
//!
//! Attainable warning of a fill: from its onset, at most [`HORIZON`] before full. An alarm is an
//! estimate under the horizon. A row without an estimate is wrong, with an error of [`CAP`] octaves.

use crate::anchors::{Estimate, Method};
use crate::trace::Trace;

/// An estimate under this many seconds is an alarm.
pub const HORIZON: f64 = 4.0 * 3600.0;
/// log2 error charged where there is no estimate, and the most that is charged at all.
pub const CAP: f64 = 6.0;

/// Sums over traces.
#[derive(Clone, Debug, Default)]
pub struct Score {
    /// Per fill: share of the attainable time in which the alarm was active, without a break, up to
    /// full.
    pub lead: Vec<f64>,
    /// Per fill: share of the attainable time in which the estimate was within a factor of 2.
    pub kept: Vec<f64>,
    /// As `kept`, the attainable time not cut at the horizon.
    pub kept_all: Vec<f64>,
    /// Per fill: median |log2 error| in the last 60, 10 and 1 min, from the onset on.
    pub errors: [Vec<f64>; 3],
    /// Minutes of alarm (4 h) in which it did not fill within three times the estimate, nor in 4 h.
    pub false_minutes: f64,
    /// Minutes in which the estimate was under 30 min and it did not fill within three times that.
    pub false_soon: f64,
    /// Minutes in which there was an estimate but it never filled within three times that.
    pub false_any: f64,
    /// Changes of the alarm's state (4 h), of the one at 30 min, and of there being an estimate.
    pub flips: [usize; 3],
    /// Seconds within the 80 % interval, and seconds with one, of rows from the onset on.
    pub covered: [f64; 2],
    /// The same by the time that was left: under 1 min, 1 to 10 min, 10 to 60 min, more.
    pub bands: [[f64; 2]; 4],
    /// Per fill: median log2(estimate / truth) of the rows with an estimate, from the onset on.
    pub bias: Vec<f64>,
}

/// Upper ends of the bands of [`Score::bands`], seconds.
const BAND_ENDS: [f64; 3] = [60.0, 600.0, 3600.0];

fn octaves(estimate: Option<Estimate>, truth: f64) -> f64 {
    match estimate {
        Some(e) if e.eta > 0.0 && truth > 0.0 => (e.eta / truth).log2().abs().min(CAP),
        _ => CAP,
    }
}

/// Weighted median.
pub fn median(values: &mut [(f64, f64)]) -> f64 {
    values.sort_by(|a, b| a.0.total_cmp(&b.0));
    let half = values.iter().map(|v| v.1).sum::<f64>() / 2.0;
    let mut sum = 0.0;
    for (v, w) in values.iter() {
        sum += w;
        if sum >= half {
            return *v;
        }
    }
    f64::NAN
}

impl Score {
    /// Runs a method over a trace and adds its score.
    pub fn add(&mut self, trace: &Trace, method: &mut dyn Method) {
        let estimates: Vec<Option<Estimate>> = trace.rows.iter().map(|r| method.push(r)).collect();
        let mut state = [false; 3];
        for (i, row) in trace.rows.iter().enumerate() {
            let width = trace.rows.get(i + 1).map_or(0.0, |n| n.truth - row.truth);
            let eta = estimates[i].map(|e| e.eta);
            let now = [HORIZON, 1800.0, f64::INFINITY].map(|h| eta.is_some_and(|e| e < h));
            for k in 0..3 {
                self.flips[k] += usize::from(now[k] != state[k]);
            }
            state = now;
            let Some(eta) = eta else { continue };
            let left = trace.remaining(row.truth);
            if row.avail == 0 || left <= 3.0 * eta || row.truth < trace.spared {
                continue;
            }
            let minutes = width.min(600.0) / 60.0;
            self.false_any += minutes;
            if eta < HORIZON && left > HORIZON {
                self.false_minutes += minutes;
            }
            if eta < 1800.0 {
                self.false_soon += minutes;
            }
        }
        for fill in &trace.fills {
            self.fill(trace, &estimates, fill.onset, fill.full);
        }
    }

    fn fill(&mut self, trace: &Trace, estimates: &[Option<Estimate>], onset: f64, full: f64) {
        let from = onset.max(full - HORIZON);
        let (mut on, mut all, mut good, mut good_all) = (f64::NAN, 0.0, 0.0, 0.0);
        let mut last: [Vec<(f64, f64)>; 3] = Default::default();
        let mut signed = Vec::new();
        for (i, row) in trace.rows.iter().enumerate() {
            if row.truth < onset || row.truth >= full {
                continue;
            }
            let width = trace.rows.get(i + 1).map_or(0.0, |n| n.truth - row.truth);
            let left = full - row.truth;
            let off = octaves(estimates[i], left);
            all += width;
            good_all += if off <= 1.0 { width } else { 0.0 };
            for (k, span) in [3600.0, 600.0, 60.0].into_iter().enumerate() {
                if left <= span {
                    last[k].push((off, width));
                }
            }
            if let Some((lo, hi)) = estimates[i].and_then(|e| e.interval) {
                let held = if lo <= left && left <= hi { width } else { 0.0 };
                let band = BAND_ENDS.iter().filter(|end| left > **end).count();
                for sums in [&mut self.covered, &mut self.bands[band]] {
                    sums[0] += held;
                    sums[1] += width;
                }
            }
            if let Some(e) = estimates[i].filter(|e| e.eta > 0.0) {
                signed.push(((e.eta / left).log2(), width));
            }
            if row.truth >= from {
                good += if off <= 1.0 { width } else { 0.0 };
                if estimates[i].is_some_and(|e| e.eta < HORIZON) {
                    if on.is_nan() {
                        on = row.truth;
                    }
                } else {
                    on = f64::NAN;
                }
            }
        }
        let most = full - from;
        if most <= 0.0 || all <= 0.0 {
            return;
        }
        self.lead.push(if on.is_nan() { 0.0 } else { (full - on) / most });
        self.kept.push(good / most);
        self.kept_all.push(good_all / all);
        for (k, list) in last.iter_mut().enumerate() {
            if !list.is_empty() {
                self.errors[k].push(median(list));
            }
        }
        if !signed.is_empty() {
            self.bias.push(median(&mut signed));
        }
    }

    /// Adds another score's sums.
    pub fn merge(&mut self, o: &Self) {
        self.lead.extend(&o.lead);
        self.kept.extend(&o.kept);
        self.kept_all.extend(&o.kept_all);
        for k in 0..3 {
            self.errors[k].extend(&o.errors[k]);
            self.flips[k] += o.flips[k];
        }
        self.false_minutes += o.false_minutes;
        self.false_soon += o.false_soon;
        self.false_any += o.false_any;
        for (sums, other) in self.bands.iter_mut().zip(&o.bands) {
            sums[0] += other[0];
            sums[1] += other[1];
        }
        self.covered[0] += o.covered[0];
        self.covered[1] += o.covered[1];
        self.bias.extend(&o.bias);
    }

    /// Share of fills for which the warning lasted less than half of the attainable time.
    pub fn misses(&self) -> f64 {
        self.lead.iter().filter(|l| **l < 0.5).count() as f64 / self.lead.len().max(1) as f64
    }
}

/// Arithmetic mean; 0 for nothing.
pub fn mean(v: &[f64]) -> f64 {
    v.iter().sum::<f64>() / v.len().max(1) as f64
}
