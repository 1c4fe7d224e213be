//! The generator: shapes of real histories with random parameters, reproducible from a seed.
//!
//! The kinds are split in two halves: the forecaster is tuned on the kinds of this file and of
//! [`kinds_tuning`], and only reported on those of [`kinds_reporting`].
//!
//! Sizes run from 10 GB to 4 TB, sampling from 0.5 s to 60 s (some of it irregular), and lengths from
//! ten seconds to days, so that nothing can be tuned to one scale.

use crate::sim::Sim;
use crate::trace::{Half, Trace};
use crate::{kinds_reporting, kinds_tuning};

const FAST: &[f64] = &[0.5, 1.0, 1.0, 2.0, 5.0];
const SLOW: &[f64] = &[10.0, 15.0, 30.0, 60.0];
const HOUR: f64 = 3600.0;
const DAY: f64 = 86400.0;

/// Names of the kinds of one half, in the order of the table.
pub fn names(half: Half) -> Vec<&'static str> {
    match half {
        Half::Tuning => SHAPES.iter().chain(kinds_tuning::NAMES).copied().collect(),
        Half::Reporting => kinds_reporting::NAMES.to_vec(),
    }
}

/// Names of the kinds in this file.
const SHAPES: &[&str] = &[
    "leak-slow",
    "leak-fast",
    "runaway",
    "runaway-late",
    "ten-seconds",
    "accelerating",
    "bursts",
    "duty-cycle",
    "hourly-backup",
    "sawtooth",
    "daily-load",
    "delete-refill",
    "enlarged",
    "remounted",
    "compressed",
    "restart-gap",
    "clock-step",
    "suspended",
    "many-writers",
    "leak-then-runaway",
    "lsm-small",
    "wal-small",
    "log-rotation",
    "cache-gc",
    "one-off-copy",
    "temp-files",
    "idle-nearly-full",
    "noise-at-rest",
    "bursts-cleaned",
];

/// Generates the trace of one shape and seed.
#[expect(clippy::too_many_lines, reason = "one arm per shape, each short")]
pub fn generate(shape: &str, seed: u64) -> Trace {
    let salt = shape.bytes().fold(7u64, |h, b| h.wrapping_mul(131).wrapping_add(u64::from(b)));
    let mut s = Sim::new(seed.wrapping_mul(0x1000_0001).wrapping_add(salt), FAST);
    match shape {
        "leak-slow" => {
            s.dt = s.rng.pick(SLOW);
            let rate = s.free() / s.rng.scale(8.0 * HOUR, 6.0 * DAY);
            s.noise = rate * s.dt * s.rng.pick(&[0.0, 0.5, 3.0]);
            s.until_full(9.0 * DAY, |_, _| rate);
        }
        "leak-fast" => {
            let rate = s.free() / s.rng.scale(300.0, 3.0 * HOUR);
            s.noise = rate * s.dt * s.rng.pick(&[0.0, 0.3, 1.0]);
            s.until_full(DAY, |_, r| rate * r.range(0.5, 1.5));
        }
        "runaway" | "runaway-late" => {
            let quiet = if shape == "runaway" {
                s.rng.scale(120.0, 1800.0)
            } else {
                s.dt = s.rng.pick(&[5.0, 10.0, 30.0]);
                s.rng.scale(4.0 * HOUR, 30.0 * HOUR)
            };
            s.noise = s.total * s.rng.pick(&[0.0, 1e-6, 1e-5]);
            let drift = s.free() / s.rng.scale(20.0 * DAY, 200.0 * DAY);
            s.run(quiet, drift);
            s.onset = s.truth;
            let rate = s.free() / (s.dt * s.rng.scale(25.0, 900.0));
            let rough = s.rng.pick(&[0.05, 0.3, 0.8]);
            s.until_full(DAY, |_, r| rate * r.range(1.0 - rough, 1.0 + rough));
        }
        "ten-seconds" => {
            s.dt = s.rng.pick(&[0.5, 1.0]);
            s.run(s.dt * 30.0, 0.0);
            s.onset = s.truth;
            let rate = s.free() / (s.dt * s.rng.range(10.0, 40.0));
            s.until_full(DAY, |_, r| rate * r.range(0.7, 1.3));
        }
        "accelerating" => {
            let slow = s.rng.chance(0.5);
            let length = if slow {
                s.rng.scale(5.0 * HOUR, 2.0 * DAY)
            } else {
                s.rng.scale(600.0, 2.0 * HOUR)
            };
            if slow {
                s.dt = s.rng.pick(SLOW);
            }
            let power = s.rng.range(1.0, 3.0);
            let scale = s.free() * (power + 1.0) / length;
            s.until_full(3.0 * length, |t, r| scale * (t / length).powf(power) * r.range(0.6, 1.4));
        }
        "bursts" => {
            let length = s.rng.scale(2.0 * HOUR, 2.0 * DAY);
            s.dt = if length > 8.0 * HOUR { 30.0 } else { 5.0 };
            let on = length / s.rng.range(100.0, 300.0);
            let off = on * s.rng.range(1.0, 8.0);
            let rate = s.free() / length * (on + off) / on;
            s.onset = 2.0 * (on + off);
            while !s.full && s.truth < 4.0 * length {
                let (a, b, c) = (s.rng.exp(), s.rng.exp(), s.rng.range(0.4, 1.6));
                s.run(on * a, rate * c);
                s.run(off * b, 0.0);
            }
        }
        "duty-cycle" => {
            s.dt = s.rng.pick(&[0.5, 1.0, 2.0]);
            let period = s.dt * s.rng.range(20.0, 80.0);
            let duty = s.rng.range(0.1, 0.5);
            let rate = s.free() / (period * s.rng.scale(12.0, 120.0)) / duty;
            s.onset = period;
            let phase = s.rng.range(0.0, period);
            s.until_full(DAY, |t, r| {
                if (t + phase) % period < duty * period { rate * r.range(0.8, 1.2) } else { 0.0 }
            });
        }
        "hourly-backup" => {
            s.dt = s.rng.pick(&[10.0, 30.0, 60.0]);
            let period = s.rng.pick(&[HOUR, HOUR, 2.0 * HOUR, 6.0 * HOUR]);
            let takes = s.rng.range(120.0, 900.0);
            let bytes = s.free() / s.rng.range(12.0, 60.0);
            s.onset = period * 2.0;
            let phase = s.rng.range(0.0, period);
            s.until_full(20.0 * DAY, |t, r| {
                if (t + phase) % period < takes { bytes / takes * r.range(0.8, 1.2) } else { 0.0 }
            });
        }
        "sawtooth" => {
            let period = s.dt * s.rng.range(30.0, 150.0);
            let n = s.rng.scale(8.0, 60.0);
            let amp = s.free() * s.rng.range(0.08, 0.3);
            let net = (s.free() - amp) / n;
            s.onset = 2.0 * period;
            while !s.full && s.truth < 4.0 * n * period {
                let p = period * s.rng.range(0.8, 1.2);
                let a = amp * s.rng.range(0.8, 1.1);
                s.run(0.75 * p, (a + net) / (0.75 * p));
                s.run(0.25 * p, -a / (0.25 * p));
            }
        }
        "daily-load" => {
            s.dt = 60.0;
            let days = s.rng.range(2.5, 8.0);
            let rate = s.free() / (days * DAY);
            s.onset = DAY;
            let night = s.rng.range(0.0, 0.4);
            s.until_full(20.0 * DAY, |t, r| {
                let day = 1.0 + (t / DAY * std::f64::consts::TAU).sin();
                rate * (night + (1.0 - night) * day) * r.range(0.3, 1.7)
            });
        }
        "delete-refill" => {
            let span = s.dt * s.rng.range(30.0, 200.0);
            s.run(span, 0.0);
            s.onset = s.truth;
            let rate = s.free() / (s.dt * s.rng.scale(60.0, 600.0));
            for again in 0..s.rng.pick(&[2, 3, 4]) {
                s.until_full(DAY, |_, r| rate * r.range(0.6, 1.4));
                if again > 0 && s.rng.chance(0.3) {
                    break;
                }
                let pause = s.rng.pick(&[5, 20, 60]);
                s.idle(pause);
                s.used -= rate * s.dt * s.rng.range(8.0, 80.0);
                s.sample();
                s.onset = s.truth;
            }
            s.until_full(DAY, |_, r| rate * r.range(0.6, 1.4));
        }
        "enlarged" => {
            s.dt = s.rng.pick(SLOW);
            let length = s.rng.scale(4.0 * HOUR, 2.0 * DAY);
            let rate = s.free() / length;
            s.noise = rate * s.dt * 0.5;
            let span = length * s.rng.range(0.5, 0.95);
            s.run(span, rate);
            s.total *= s.rng.range(1.2, 1.6);
            s.spared = s.truth;
            s.onset = s.truth;
            s.until_full(20.0 * DAY, |_, r| rate * r.range(0.5, 1.5));
        }
        "remounted" => {
            s.dt = s.rng.pick(SLOW);
            let length = s.rng.scale(3.0 * HOUR, DAY);
            let rate = s.free() / length;
            let span = length * s.rng.range(0.3, 0.8);
            s.run(span, rate);
            s.total *= s.rng.range(0.5, 3.0);
            s.reserve = 0.05 * s.total;
            s.used = s.total * s.rng.range(0.1, 0.5);
            s.spared = s.truth;
            s.onset = s.truth;
            let rate = rate * s.rng.range(0.6, 1.5);
            s.until_full(20.0 * DAY, |_, r| rate * r.range(0.5, 1.5));
        }
        "compressed" => {
            s.dt = s.rng.pick(&[1.0, 5.0, 10.0]);
            // Space is charged at commits; how much depends on how well the day's data compresses.
            let commit = s.rng.pick(&[5.0f64, 30.0, 60.0]).max(2.0 * s.dt);
            let rate = s.free() / (commit * s.rng.scale(30.0, 400.0));
            let mut due = commit;
            let mut ratio = 1.0;
            s.until_full(3.0 * DAY, |t, r| {
                if t < due {
                    return 0.0;
                }
                due += commit;
                ratio = (ratio * r.range(0.7, 1.4f64)).clamp(0.4, 1.6);
                rate * ratio * commit / 5.0
            });
        }
        "restart-gap" => {
            s.dt = s.rng.pick(&[1.0, 5.0, 10.0, 30.0]);
            let length = s.dt * s.rng.scale(600.0, 6000.0);
            let rate = s.free() / length;
            s.noise = rate * s.dt * 0.5;
            let span = length * s.rng.range(0.1, 0.3);
            s.run(span, rate);
            let gap = length * s.rng.range(0.05, 0.3);
            s.unseen(gap, gap * rate);
            s.until_full(9.0 * DAY, |_, r| rate * r.range(0.5, 1.5));
        }
        "clock-step" => {
            let length = s.dt * s.rng.scale(300.0, 3000.0);
            let rate = s.free() / length;
            s.clock += 5.0 * length;
            let span = length * s.rng.range(0.1, 0.5);
            s.run(span, rate);
            s.clock += s.rng.pick(&[-4.0 * HOUR, -60.0, -5.0, 60.0, HOUR, 30.0 * DAY]);
            s.until_full(9.0 * DAY, |_, r| rate * r.range(0.5, 1.5));
        }
        "suspended" => {
            let length = s.dt * s.rng.scale(300.0, 3000.0);
            let rate = s.free() / length;
            let span = length * s.rng.range(0.1, 0.5);
            s.run(span, rate);
            let pause = s.rng.scale(HOUR, 12.0 * HOUR);
            s.unseen(pause, 0.0);
            s.spared = s.truth;
            s.onset = s.truth;
            s.until_full(9.0 * DAY, |_, r| rate * r.range(0.5, 1.5));
        }
        "many-writers" => {
            s.dt = s.rng.pick(&[5.0, 10.0, 30.0, 60.0]);
            let length = s.dt * s.rng.scale(1500.0, 8000.0);
            let rate = s.free() / length;
            s.noise = rate * s.dt * s.rng.scale(5.0, 60.0);
            s.until_full(30.0 * DAY, |_, r| rate * r.normal().mul_add(3.0, 1.0));
        }
        "leak-then-runaway" => {
            s.dt = s.rng.pick(&[1.0, 5.0, 10.0]);
            let length = s.dt * s.rng.scale(3000.0, 20000.0);
            let rate = s.free() / length;
            s.noise = rate * s.dt;
            let span = length * s.rng.range(0.1, 0.5);
            s.run(span, rate);
            s.onset = s.truth;
            let fast = s.free() / (s.dt * s.rng.scale(40.0, 600.0));
            s.until_full(DAY, |_, r| fast * r.range(0.5, 1.5));
        }
        "lsm-small" => {
            s.dt = s.rng.pick(&[0.2, 0.5, 1.0]);
            s.total = s.rng.range(5e8, 2e9);
            s.reserve = 0.05 * s.total;
            s.used = s.total * 0.05;
            let span = s.rng.range(2.0, 8.0);
            s.run(span, 0.0);
            s.onset = s.truth;
            let flush = s.rng.pick(&[4e6, 8e6, 16e6, 64e6]);
            let every = s.free() / flush;
            let seconds = s.rng.range(40.0, 300.0) / every * 0.6;
            let mut debt = 0.0;
            let growth = s.rng.range(0.2, 0.8);
            while !s.full && s.truth < 2000.0 {
                let (span, rate) =
                    (seconds * s.rng.range(0.5, 1.5), flush / seconds * s.rng.range(0.9, 1.1));
                s.run(span, rate);
                debt += flush;
                if debt > flush * s.rng.range(3.0, 8.0) {
                    // A compaction writes its output first and removes its input at the end.
                    s.run(seconds * 2.0, debt / seconds / 2.0 * 0.8);
                    if !s.full {
                        s.used -= debt * (1.0 - growth) + debt * 0.8;
                    }
                    debt = 0.0;
                }
            }
        }
        "wal-small" => {
            s.dt = s.rng.pick(&[0.2, 0.5, 1.0]);
            s.total = s.rng.range(5e8, 2e9);
            s.reserve = 0.05 * s.total;
            s.used = s.total * 0.07;
            let span = s.rng.range(3.0, 10.0);
            s.run(span, 0.0);
            s.onset = s.truth;
            let segment = 16.0 * 1048576.0;
            let length = s.rng.range(40.0, 400.0);
            let rate = s.free() / length;
            let recycled = s.rng.chance(0.5);
            let mut wal = 0.0;
            let mut seen = 0.0;
            while !s.full && s.truth < 3.0 * length {
                wal += rate * s.dt * s.rng.range(0.5, 1.5);
                // Segments are zero-filled in one go, table files grow by extents of up to 1 MB.
                let whole = (wal / segment).floor() * segment + 0.2 * (wal / 1e6).floor() * 1e6;
                let mut delta = whole - seen;
                seen = whole;
                if recycled && s.rng.chance(0.01) {
                    delta -= segment * 2.0;
                }
                let dt = s.dt;
                s.step(delta / dt);
            }
        }
        "log-rotation" => {
            s.dt = s.rng.pick(SLOW);
            let period = s.rng.pick(&[HOUR, 6.0 * HOUR, DAY]);
            let amp = s.free() * s.rng.range(0.1, 0.6);
            let noise = s.rng.range(0.1, 0.8);
            let phase = s.rng.range(0.2, 1.0);
            s.run(period * phase, amp / period);
            for _ in 0..6 {
                let rows = (period / s.dt) as usize;
                s.used -= amp * phase;
                for _ in 0..rows {
                    let r = amp * phase / period * s.rng.range(1.0 - noise, 1.0 + noise);
                    s.step(r);
                }
            }
        }
        "cache-gc" => {
            s.dt = s.rng.pick(&[1.0, 10.0, 30.0]);
            let high = s.total * s.rng.range(0.78, 0.92);
            let low = high - s.total * s.rng.range(0.05, 0.25);
            s.reserve = 0.0;
            s.used = s.rng.range(low, high);
            let period = s.dt * s.rng.scale(60.0, 1500.0);
            let rate = (high - low) / period;
            let rows = (period * 12.0 / s.dt).min(15000.0) as usize;
            let mut clean = false;
            for _ in 0..rows {
                clean = if clean { s.used > low } else { s.used > high };
                let r = if clean { -rate * 8.0 } else { rate * s.rng.range(0.4, 1.6) };
                s.step(r);
            }
        }
        "one-off-copy" => {
            let history = s.dt * s.rng.scale(60.0, 3000.0);
            s.noise = s.total * s.rng.pick(&[0.0, 1e-6]);
            s.run(history, s.free() / (60.0 * DAY));
            let part = s.free() * s.rng.range(0.05, 0.6);
            let takes = s.dt * s.rng.scale(20.0, 1200.0);
            s.run(takes, part / takes);
            let after = (takes * 4.0 + 600.0).max(history);
            s.run(after, s.free() / (60.0 * DAY));
        }
        "temp-files" => {
            s.dt = s.rng.pick(&[1.0, 5.0, 30.0]);
            let amp = s.free() * s.rng.range(0.2, 0.7);
            let up = s.dt * s.rng.scale(20.0, 300.0);
            for _ in 0..10 {
                let part = s.rng.range(0.7, 1.0);
                s.run(up * part, amp / up);
                s.run(up * 0.2, 0.0);
                s.used -= amp * part;
                let pause = up * 3.0 * s.rng.exp();
                s.run(pause, 0.0);
            }
        }
        "idle-nearly-full" => {
            s.dt = s.rng.pick(&[1.0, 10.0, 60.0]);
            s.used = (s.total - s.reserve) * s.rng.range(0.95, 0.998);
            s.noise = s.free() * s.rng.pick(&[0.0, 1e-4, 3e-3]);
            for _ in 0..5000 {
                s.step(0.0);
            }
        }
        "noise-at-rest" => {
            s.dt = s.rng.pick(&[1.0, 10.0, 60.0]);
            s.noise = s.free() * s.rng.scale(1e-4, 8e-3);
            for _ in 0..6000 {
                s.step(0.0);
            }
        }
        "bursts-cleaned" => {
            s.dt = s.rng.pick(&[5.0, 30.0]);
            let floor = s.used;
            let amp = s.free() * s.rng.range(0.1, 0.4);
            let every = s.dt * s.rng.scale(40.0, 400.0);
            for _ in 0..20 {
                let (a, b) = (s.rng.range(0.3, 1.0), s.rng.range(0.3, 2.0));
                s.run(0.2 * every, a * amp / (0.2 * every));
                s.run(0.8 * every * b, 0.0);
                if s.used > floor + 0.6 * amp {
                    s.used = floor;
                }
            }
        }
        other if kinds_tuning::NAMES.contains(&other) => kinds_tuning::write(other, &mut s),
        other => kinds_reporting::write(other, &mut s),
    }
    s.done()
}
