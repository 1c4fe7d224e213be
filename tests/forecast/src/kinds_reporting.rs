//! Kinds of history that the forecaster was never tuned on: they are scored only for the report. See
//! [`crate::shapes`].

use crate::sim::Sim;

const HOUR: f64 = 3600.0;
const DAY: f64 = 86400.0;

/// Names of these kinds.
pub const NAMES: &[&str] = &[
    "image-build",
    "vacuum-full",
    "tsdb-blocks",
    "backup-retention",
    "core-dumps",
    "compound-poisson",
    "killed-and-cleaned",
    "slowing",
    "changing-pace",
    "queue",
    "video-segments",
    "download-then-extract",
    "build-farm",
    "half-day-load",
    "doubling-from-rest",
    "checkpoints",
    "burst-within-leak",
    "slow-leak-after-rest",
    "ramp-then-constant",
    "uneven-sawtooth",
    "cron-at-rest",
    "test-runs",
    "thin-bursts",
    "joining-writers",
    "cooling-exponential",
    "quota-steps",
];

/// Writes the history of one kind.
#[expect(clippy::too_many_lines, reason = "one arm per kind, each short")]
pub fn write(kind: &str, s: &mut Sim) {
    match kind {
        // Layers: copy, archive, remove what is intermediate. Only the images remain.
        "image-build" => {
            s.dt = s.rng.pick(&[0.5, 1.0, 2.0]);
            let rest = s.rng.scale(30.0, 900.0);
            s.run(rest, 0.0);
            s.onset = s.truth;
            let layer = s.free() * s.rng.range(0.05, 0.2);
            let keeps = s.rng.range(0.15, 0.5);
            for _ in 0..12 {
                let (copy, pack) = (s.rng.range(5.0, 40.0), s.rng.range(10.0, 60.0));
                let size = layer * s.rng.range(0.6, 1.4);
                s.run(copy, size / copy);
                s.run(s.dt * 3.0, 0.0);
                s.run(pack, keeps * size / pack);
                if s.full {
                    break;
                }
                s.used -= size;
                let pause = s.rng.range(2.0, 60.0);
                s.run(pause, 0.0);
            }
        }
        // A table swells; it is rewritten, which needs room for a copy.
        "vacuum-full" => {
            s.dt = s.rng.pick(&[1.0, 2.0, 5.0]);
            let mut table = s.free() * s.rng.range(0.1, 0.25);
            let (grows, copies) = (s.rng.scale(300.0, 3600.0), s.rng.range(20.0, 200.0));
            s.onset = s.truth;
            for _ in 0..15 {
                let bloat = table * s.rng.range(0.2, 0.6);
                s.run(grows, bloat / grows);
                let copy = table * 1.1;
                s.onset = s.truth;
                s.run(copies, copy / copies);
                if s.full {
                    break;
                }
                s.used -= table + bloat;
                table = copy;
                s.run(10.0, 0.0);
            }
        }
        // A write-ahead log that is cut off at each compaction into a smaller block.
        "tsdb-blocks" => {
            s.dt = s.rng.pick(&[5.0, 10.0, 15.0]);
            let period = s.rng.pick(&[900.0, 1800.0, 7200.0]);
            let wal = s.free() * s.rng.range(0.02, 0.1);
            let block = s.rng.range(0.15, 0.4);
            s.onset = 2.0 * period;
            while !s.full && s.rows.len() < 30000 {
                let rough = s.rng.range(0.97, 1.03);
                s.run(period, wal / period * rough);
                s.run(4.0 * s.dt, block * wal / (4.0 * s.dt));
                if !s.full {
                    s.used -= wal;
                }
            }
        }
        "backup-retention" => {
            s.dt = s.rng.pick(&[10.0, 30.0, 60.0]);
            let period = s.rng.pick(&[HOUR, 4.0 * HOUR, DAY]);
            let size = s.free() * s.rng.range(0.05, 0.17);
            let takes = s.rng.range(0.02, 0.15) * period;
            let keep = s.rng.range(2.0, 4.9) as usize;
            let mut kept = std::collections::VecDeque::new();
            for _ in 0..14 {
                s.run(period - takes, 0.0);
                let bytes = size * s.rng.range(0.9, 1.1);
                s.run(takes, bytes / takes);
                kept.push_back(bytes);
                if kept.len() > keep {
                    s.used -= kept.pop_front().unwrap_or(0.0);
                }
            }
        }
        // A service crashes again and again, and each time leaves a dump.
        "core-dumps" => {
            s.dt = s.rng.pick(&[0.5, 1.0, 2.0]);
            let rest = s.rng.scale(60.0, 1800.0);
            s.run(rest, 0.0);
            s.onset = s.truth;
            let every = s.rng.scale(10.0, 120.0);
            let dump = s.free() / s.rng.range(15.0, 60.0);
            while !s.full && s.rows.len() < 20000 {
                let pause = every * s.rng.range(0.8, 1.2);
                let rough = s.rng.range(0.9, 1.1);
                s.run(3.0, dump / 3.0 * rough);
                s.run(pause, 0.0);
            }
        }
        // Events at random times, with sizes of two orders of magnitude.
        "compound-poisson" => {
            s.dt = s.rng.pick(&[1.0, 2.0, 5.0, 10.0]);
            let length = s.dt * s.rng.scale(300.0, 5000.0);
            let each = s.rng.range(0.02, 0.5);
            let rate = s.free() / length / each / 1.65;
            s.until_full(
                5.0 * DAY,
                |_, r| {
                    if r.chance(each) { rate * r.normal().exp() } else { 0.0 }
                },
            );
        }
        // The culprit is killed in mid-fill and its file removed a little later.
        "killed-and-cleaned" => {
            let rest = s.dt * s.rng.scale(20.0, 600.0);
            s.run(rest, 0.0);
            let length = s.dt * s.rng.scale(60.0, 2000.0);
            let (start, rate) = (s.used, s.free() / length);
            let part = s.rng.range(0.3, 0.9);
            s.run(part * length, rate);
            s.spared = s.truth;
            let until = s.dt * s.rng.range(2.0, 60.0);
            s.run(until, 0.0);
            s.used = start;
            s.run(3.0 * length, 0.0);
        }
        // Grows with the square root of time, or with its logarithm.
        "slowing" => {
            let time = s.dt * s.rng.scale(20.0, 200.0);
            let room = s.free() * s.rng.range(0.5, 1.3);
            let power = s.rng.range(0.4, 0.75);
            let scale = room / 25.0f64.powf(power) * power / time;
            let noise = s.rng.range(0.0, 0.4);
            s.until_full(25.0 * time, |t, r| {
                scale
                    * ((t + 0.2 * time) / time).powf(power - 1.0)
                    * r.range(1.0 - noise, 1.0 + noise)
            });
        }
        // A leak whose pace changes several times.
        "changing-pace" => {
            s.dt = s.rng.pick(&[0.5, 1.0, 2.0, 5.0]);
            let length = s.dt * s.rng.scale(300.0, 4000.0);
            let mut rate = s.free() / length;
            while !s.full {
                let phase = length * s.rng.range(0.1, 0.4);
                s.onset = s.truth;
                let r = rate;
                let until = s.truth + phase;
                while !s.full && s.truth < until {
                    let rough = s.rng.range(0.7, 1.3);
                    s.step(r * rough);
                }
                rate *=
                    if s.rng.chance(0.5) { s.rng.range(2.0, 4.0) } else { s.rng.range(0.3, 0.5) };
                rate = rate.max(0.1 * s.total / length / 10.0);
            }
        }
        // A spool: what comes in and what goes out vary at random around each other.
        "queue" => {
            s.dt = s.rng.pick(&[1.0, 5.0, 10.0, 30.0]);
            let (base, room) = (s.used, s.free());
            let memory = s.rng.scale(30.0, 600.0);
            let step = room * s.rng.range(0.1, 0.3) / memory.sqrt();
            let mut level = 0.0;
            for _ in 0..5000 {
                level += -level / memory + step * s.rng.normal() * 1.2;
                level = level.clamp(0.0, 0.7 * room);
                s.used = base + level;
                s.step(0.0);
            }
        }
        // Segments at a constant bit rate; old ones are removed at a cap, or there is none.
        "video-segments" => {
            s.dt = s.rng.pick(&[1.0, 2.0, 5.0]);
            let segment = s.free() / s.rng.range(30.0, 120.0);
            let takes = s.dt * s.rng.range(15.0, 60.0);
            let has_cap = s.rng.chance(0.5);
            let cap = s.used + s.free() * s.rng.range(0.5, 0.9);
            while !s.full && s.rows.len() < 8000 {
                let rough = s.rng.range(0.95, 1.05);
                s.run(takes, segment / takes * rough);
                if has_cap && s.used > cap {
                    s.used -= segment;
                }
            }
        }
        // A download, then its unpacking at another pace, then rest or full.
        "download-then-extract" => {
            s.dt = s.rng.pick(&[0.5, 1.0, 2.0]);
            let rest = s.rng.scale(60.0, 1200.0);
            s.run(rest, 0.0);
            let part = s.free() * s.rng.range(0.05, 0.3);
            let takes = s.rng.scale(20.0, 400.0);
            s.run(takes, part / takes);
            s.run(3.0, 0.0);
            s.onset = s.truth;
            let (times, faster) = (s.rng.range(1.5, 5.0), s.rng.range(0.5, 4.0));
            s.run(takes * times / faster, part / takes * faster);
            if !s.full {
                s.run(5.0 * takes + rest, 0.0);
            }
        }
        // Objects, links, and cleans of part of it.
        "build-farm" => {
            s.dt = s.rng.pick(&[1.0, 2.0, 5.0]);
            let (base, room) = (s.used, s.free());
            let size = room * s.rng.range(0.1, 0.35);
            for _ in 0..14 {
                let takes = s.rng.scale(60.0, 600.0);
                let until = s.truth + takes;
                while s.truth < until {
                    let rate = size / takes * 2.0 * s.rng.exp() * s.rng.unit();
                    s.step(rate);
                }
                let pause = s.rng.scale(10.0, 600.0);
                s.run(pause, 0.0);
                if s.used > base + 0.5 * room || s.rng.chance(0.5) {
                    s.used = base + (s.used - base) * s.rng.range(0.0, 0.3);
                }
            }
        }
        "half-day-load" => {
            s.dt = s.rng.pick(&[30.0, 60.0]);
            let days = s.rng.range(2.0, 6.0);
            let rate = s.free() / (days * DAY) * 2.0;
            s.onset = DAY;
            let starts = s.rng.range(0.0, DAY);
            s.until_full(15.0 * DAY, |t, r| {
                if (t + starts) % DAY < 0.5 * DAY { rate * r.range(0.3, 1.7) } else { 0.0 }
            });
        }
        "doubling-from-rest" => {
            s.dt = s.rng.pick(&[0.5, 1.0, 2.0, 5.0]);
            let rest = s.dt * s.rng.scale(60.0, 1500.0);
            s.run(rest, 0.0);
            s.onset = s.truth;
            // Doubles in steps, as retries with a growing number of clients do.
            let holds = s.dt * s.rng.scale(8.0, 120.0);
            let rate = s.free() / holds / s.rng.scale(50.0, 800.0);
            s.until_full(DAY, |t, r| rate * (t / holds).floor().exp2() * r.range(0.8, 1.2));
        }
        // Exactly every period, one file of the same size.
        "checkpoints" => {
            s.dt = s.rng.pick(&[1.0, 2.0, 5.0]);
            let period = s.rng.scale(60.0, 1200.0);
            let bytes = s.free() / s.rng.range(8.0, 40.0);
            s.onset = 2.0 * period;
            while !s.full && s.rows.len() < 40000 {
                let takes = s.dt * s.rng.range(2.0, 6.0);
                s.run(takes, bytes / takes);
                s.run(period - takes, 0.0);
            }
        }
        // A slow leak, a burst that takes a part and ends, and the leak again.
        "burst-within-leak" => {
            s.dt = s.rng.pick(&[1.0, 5.0, 10.0]);
            let length = s.dt * s.rng.scale(1500.0, 8000.0);
            let rate = s.free() / length;
            let before = length * s.rng.range(0.15, 0.4);
            s.noise = rate * s.dt * 0.3;
            s.run(before, rate);
            let part = s.free() * s.rng.range(0.1, 0.4);
            let fast = rate * s.rng.range(8.0, 40.0);
            s.run(part / fast, fast);
            s.onset = s.truth;
            s.until_full(9.0 * DAY, |_, r| rate * r.range(0.6, 1.4));
        }
        "slow-leak-after-rest" => {
            s.dt = s.rng.pick(&[1.0, 5.0, 10.0]);
            let rest = s.rng.scale(600.0, 5.0 * HOUR);
            s.noise = s.total * s.rng.pick(&[0.0, 1e-7]);
            s.run(rest, 0.0);
            s.onset = s.truth;
            let rate = s.free() / s.rng.scale(0.5 * HOUR, 6.0 * HOUR);
            let rough = s.rng.range(0.0, 0.9);
            s.until_full(DAY, |_, r| rate * r.range(1.0 - rough, 1.0 + rough));
        }
        "ramp-then-constant" => {
            s.dt = s.rng.pick(&[0.5, 1.0, 2.0, 5.0]);
            let rest = s.dt * s.rng.scale(20.0, 600.0);
            s.run(rest, 0.0);
            s.onset = s.truth;
            let length = s.dt * s.rng.scale(100.0, 3000.0);
            let (ramp, rate) = (length * s.rng.range(0.05, 0.5), s.free() / length);
            s.until_full(DAY, |t, r| rate * (t / ramp).min(1.0) * r.range(0.8, 1.2));
        }
        // Clean-ups that come at random and free a random part.
        "uneven-sawtooth" => {
            s.dt = s.rng.pick(&[1.0, 2.0, 5.0]);
            let length = s.dt * s.rng.scale(1000.0, 6000.0);
            let frees = s.rng.range(0.3, 0.8);
            let rate = s.free() / length / (1.0 - frees);
            let every = length * s.rng.range(0.02, 0.06);
            s.onset = 2.0 * every;
            let mut tooth = 0.0;
            while !s.full && s.truth < 5.0 * length {
                let rises = every * s.rng.range(0.4, 1.6);
                s.run(rises, rate);
                tooth += rate * rises;
                if !s.full && s.rng.chance(0.7) {
                    s.used -= (frees / 0.7).min(0.95) * tooth;
                    tooth = 0.0;
                }
            }
        }
        // Small regular writes, and a log that is emptied now and then.
        "cron-at-rest" => {
            s.dt = s.rng.pick(&[1.0, 5.0, 10.0]);
            let bytes = s.free() * s.rng.scale(1e-5, 1e-3);
            let base = s.used;
            for n in 0..80 {
                s.run(60.0 - 2.0 * s.dt, 0.0);
                let rough = s.rng.range(0.5, 1.5);
                s.run(2.0 * s.dt, bytes / (2.0 * s.dt) * rough);
                if n % 20 == 19 {
                    s.used = base;
                }
            }
        }
        // Test runs: each fills a part, of any size, and removes it.
        "test-runs" => {
            s.dt = s.rng.pick(&[0.5, 1.0, 2.0, 5.0]);
            let (base, room) = (s.used, s.free());
            for _ in 0..9 {
                let pause = s.dt * s.rng.scale(20.0, 600.0);
                s.run(pause, 0.0);
                let (part, takes) = (room * s.rng.range(0.1, 0.6), s.dt * s.rng.scale(10.0, 200.0));
                s.run(takes, part / takes);
                let stays = s.dt * s.rng.range(1.0, 30.0);
                s.run(stays, 0.0);
                s.used = base;
                s.step(0.0);
            }
        }
        // Bursts of a few seconds, minutes apart, until there is no room left.
        "thin-bursts" => {
            s.dt = s.rng.pick(&[0.5, 1.0, 2.0]);
            let every = s.rng.scale(60.0, 900.0);
            let bytes = s.free() / s.rng.range(25.0, 80.0);
            s.onset = 2.0 * every;
            while !s.full && s.rows.len() < 60000 {
                let (pause, takes) = (every * s.rng.range(0.5, 1.5), s.rng.range(2.0, 6.0));
                s.run(pause, 0.0);
                let rough = s.rng.range(0.5, 1.5);
                s.run(takes, bytes * rough / takes);
            }
        }
        // Writers that start at random times and stay.
        "joining-writers" => {
            let length = s.dt * s.rng.scale(300.0, 3000.0);
            let each = s.free() / length / 3.0;
            let starts: Vec<f64> = (0..5).map(|_| length * s.rng.range(0.0, 1.2)).collect();
            let sizes: Vec<f64> = (0..5).map(|_| s.rng.range(0.5, 2.0)).collect();
            s.onset = starts.iter().copied().fold(f64::MAX, f64::min);
            s.until_full(DAY, |t, r| {
                let on = starts.iter().zip(&sizes).filter(|(start, _)| t >= **start);
                on.map(|(_, size)| each * size * r.range(0.7, 1.3)).sum()
            });
        }
        // Exponential at first, then constant, then ever slower.
        "cooling-exponential" => {
            let rest = s.dt * s.rng.scale(10.0, 100.0);
            s.run(rest, 0.0);
            let (middle, width) = (s.dt * s.rng.scale(100.0, 1000.0), s.rng.range(0.1, 0.3));
            let room = s.free() * s.rng.range(0.5, 1.6);
            s.onset = s.truth;
            let scale = room / (width * middle);
            s.until_full(4.0 * middle, |t, r| {
                let e = (-(t - middle) / (width * middle)).exp();
                scale * e / (1.0 + e).powi(2) * r.range(0.8, 1.2)
            });
        }
        // Jumps by a fixed share of what is used, at growing distances.
        "quota-steps" => {
            s.dt = s.rng.pick(&[1.0, 5.0]);
            let mut pause = s.dt * s.rng.range(20.0, 100.0);
            let step = s.free() / s.rng.range(8.0, 16.0);
            while !s.full && s.rows.len() < 20000 {
                s.onset = s.truth;
                s.run(3.0 * s.dt, step / (3.0 * s.dt));
                s.run(pause, 0.0);
                pause *= s.rng.range(0.95, 1.2);
            }
        }
        other => panic!("unknown shape {other}"),
    }
}
