//! Further kinds of history that the forecaster was tuned on. See [`crate::shapes`].

use crate::sim::Sim;

const HOUR: f64 = 3600.0;
const DAY: f64 = 86400.0;

/// Names of these kinds.
pub const NAMES: &[&str] = &[
    "index-updates",
    "package-upgrade",
    "exact-leak",
    "rough-leak",
    "git-gc",
    "exponential",
    "cache-to-cap",
    "long-duty-cycle",
    "scheduled-steps",
    "frozen",
    "throttled",
    "drain-then-leak",
    "burst-after-rest",
    "growing-sawtooth",
    "two-cycles",
    "short-bursts-at-rest",
];

/// Writes the history of one kind.
#[expect(clippy::too_many_lines, reason = "one arm per kind, each short")]
pub fn write(kind: &str, s: &mut Sim) {
    match kind {
        // Rests, and downloads of a few seconds that use little of the room.
        "index-updates" => {
            s.dt = s.rng.pick(&[0.5, 1.0, 1.0, 2.0]);
            let rest = s.rng.scale(120.0, 1800.0);
            for _ in 0..6 {
                let (pause, takes) = (rest * s.rng.range(0.5, 1.5), s.rng.range(2.0, 9.0));
                s.run(pause, 0.0);
                let rate = s.free() * s.rng.range(0.003, 0.04) / takes;
                let rough = s.rng.range(0.7, 1.3);
                s.run(takes, rate * rough);
            }
            s.run(rest, 0.0);
        }
        // Many packages are unpacked and configured, one after another; some old files go.
        "package-upgrade" => {
            s.dt = s.rng.pick(&[0.5, 1.0, 1.0, 2.0]);
            let rest = s.rng.scale(60.0, 1200.0);
            s.run(rest, 0.0);
            let packages = s.rng.range(10.0, 80.0) as usize;
            let each = s.free() * s.rng.range(0.05, 0.35) / packages as f64;
            for _ in 0..packages {
                let (size, takes, pause) =
                    (s.rng.exp(), s.rng.range(1.0, 8.0), s.rng.range(0.0, 6.0));
                s.run(takes, each * size / takes);
                if s.rng.chance(0.4) {
                    s.used -= 0.5 * each * size;
                }
                s.run(pause, 0.0);
            }
            s.run(4.0 * rest, 0.0);
        }
        "exact-leak" => {
            s.dt = s.rng.pick(&[0.5, 1.0, 1.0, 2.0]);
            s.jitter = 0.001;
            let rest = s.rng.scale(30.0, 1200.0);
            s.run(rest, 0.0);
            s.onset = s.truth;
            let rate = s.free() / s.rng.scale(60.0, 4.0 * HOUR);
            s.until_full(DAY, |_, _| rate);
        }
        // Increments of very different sizes.
        "rough-leak" => {
            let rest = s.dt * s.rng.scale(10.0, 1000.0);
            s.run(rest, 0.0);
            s.onset = s.truth;
            let spread = s.rng.range(0.5, 1.5);
            let rate =
                s.free() / (s.dt * s.rng.scale(100.0, 4000.0)) / (0.5 * spread * spread).exp();
            s.until_full(DAY, |_, r| rate * (spread * r.normal()).exp());
        }
        // Loose objects grow; a repack writes all of it once more and removes what it replaces.
        "git-gc" => {
            s.dt = s.rng.pick(&[0.5, 1.0, 2.0]);
            let mut size = s.free() * s.rng.range(0.05, 0.15);
            let loose = size * s.rng.range(0.3, 0.8);
            let (grows, packs) = (s.rng.scale(60.0, 900.0), s.rng.range(15.0, 90.0));
            for _ in 0..10 {
                let rough = s.rng.range(0.3, 1.7);
                s.run(grows * rough, loose / grows);
                let all = size + loose * rough;
                s.run(packs, 0.7 * all / packs);
                if s.full {
                    break;
                }
                s.used -= size + loose * rough;
                size = 0.7 * all;
                s.run(5.0, 0.0);
            }
        }
        "exponential" => {
            let rest = s.dt * s.rng.scale(5.0, 200.0);
            s.run(rest, 0.0);
            s.onset = s.truth;
            let doubles = s.dt * s.rng.scale(20.0, 600.0);
            let rate = s.free() / doubles * s.rng.range(0.01, 0.08);
            let rough = s.rng.range(0.0, 0.4);
            s.until_full(DAY, |t, r| {
                rate * (t / doubles).exp2() * r.range(1.0 - rough, 1.0 + rough)
            });
        }
        // Fills ever more slowly up to its configured size, then stays there.
        "cache-to-cap" => {
            let cap = s.free() * s.rng.range(0.4, 0.95);
            let time = s.dt * s.rng.scale(60.0, 1500.0);
            let start = s.used;
            let noise = s.rng.range(0.0, 0.5);
            while s.rows.len() < 6000 && s.truth < 10.0 * time {
                let rate = (start + cap - s.used).max(0.0) / time;
                let rate = rate * s.rng.range(1.0 - noise, 1.0 + noise);
                s.step(rate);
            }
        }
        "long-duty-cycle" => {
            s.dt = s.rng.pick(&[1.0, 2.0, 5.0]);
            let period = s.rng.scale(120.0, 1800.0);
            let duty = s.rng.range(0.15, 0.7);
            let rate = s.free() / (period * s.rng.scale(4.0, 25.0)) / duty;
            s.onset = period;
            let phase = s.rng.range(0.0, period);
            s.until_full(2.0 * DAY, |t, r| {
                if (t + phase) % period < duty * period { rate * r.range(0.8, 1.2) } else { 0.0 }
            });
        }
        // A job that adds the same amount at fixed times, within a few samples.
        "scheduled-steps" => {
            s.dt = s.rng.pick(&[1.0, 2.0, 5.0]);
            let period = s.dt * s.rng.scale(60.0, 700.0);
            let takes = s.dt * s.rng.range(1.0, 8.0);
            let bytes = s.free() / s.rng.range(6.0, 25.0);
            s.onset = 2.0 * period;
            let phase = s.rng.range(0.0, period);
            s.until_full(2.0 * DAY, |t, r| {
                if (t + phase) % period < takes { bytes / takes * r.range(0.95, 1.05) } else { 0.0 }
            });
        }
        // The culprit is frozen in mid-fill.
        "frozen" => {
            let rest = s.dt * s.rng.scale(20.0, 300.0);
            s.run(rest, 0.0);
            let length = s.dt * s.rng.scale(60.0, 2000.0);
            let rate = s.free() / length;
            let (part, rough) = (s.rng.range(0.2, 0.9), s.rng.range(0.0, 0.5));
            let until = s.truth + part * length;
            s.spared = until;
            while s.truth < until {
                let r = rate * s.rng.range(1.0 - rough, 1.0 + rough);
                s.step(r);
            }
            s.noise = 1e-6 * s.total * s.rng.pick(&[0.0, 1.0]);
            s.run(2.0 * length, 0.0);
        }
        // The culprit is slowed down to a small part of its rate.
        "throttled" => {
            s.dt = s.rng.pick(&[0.5, 1.0, 2.0]);
            let rest = s.dt * s.rng.scale(20.0, 300.0);
            s.run(rest, 0.0);
            let length = s.dt * s.rng.scale(60.0, 1000.0);
            let rate = s.free() / length;
            let part = s.rng.range(0.2, 0.8);
            s.run(part * length, rate);
            s.spared = s.truth;
            s.onset = s.truth;
            let slow = rate / s.rng.range(4.0, 20.0);
            s.until_full(DAY, |_, r| slow * r.range(0.7, 1.3));
        }
        "drain-then-leak" => {
            s.dt = s.rng.pick(&[1.0, 5.0, 10.0]);
            let drains = s.dt * s.rng.scale(200.0, 3000.0);
            let freed = s.used * s.rng.range(0.05, 0.4);
            s.noise = freed / drains * s.dt;
            s.run(drains, -freed / drains);
            s.onset = s.truth;
            let rate = s.free() / (s.dt * s.rng.scale(100.0, 3000.0));
            s.until_full(DAY, |_, r| rate * r.range(0.5, 1.5));
        }
        // One burst after hours of rest; about half of them fill the volume.
        "burst-after-rest" => {
            s.dt = s.rng.pick(&[1.0, 2.0, 5.0]);
            s.noise = s.total * s.rng.pick(&[0.0, 1e-6]);
            let rest = s.rng.scale(HOUR, 6.0 * HOUR);
            s.run(rest, s.free() / (100.0 * DAY));
            s.onset = s.truth;
            let rate = s.free() / s.rng.scale(20.0, 1200.0);
            if s.rng.chance(0.5) {
                s.until_full(DAY, |_, r| rate * r.range(0.6, 1.4));
            } else {
                let part = s.free() * s.rng.range(0.02, 0.4);
                s.run(part / rate, rate);
                s.run(rest, 0.0);
            }
        }
        // Each tooth is a little larger than the one before.
        "growing-sawtooth" => {
            let period = s.dt * s.rng.range(40.0, 200.0);
            let room = s.free();
            let mut tooth = room * s.rng.range(0.05, 0.2);
            let grows = s.rng.range(1.05, 1.25);
            s.onset = 2.0 * period;
            while !s.full && s.rows.len() < 20000 {
                let p = period * s.rng.range(0.9, 1.1);
                s.run(0.9 * p, tooth / (0.9 * p));
                if !s.full {
                    s.used -= 0.9 * tooth;
                    s.run(0.1 * p, 0.0);
                }
                tooth *= grows;
            }
        }
        // Two writers, each with pauses of its own.
        "two-cycles" => {
            let room = s.free();
            let p = [s.dt * s.rng.scale(10.0, 80.0), s.dt * s.rng.scale(100.0, 600.0)];
            let duty = [s.rng.range(0.2, 0.7), s.rng.range(0.2, 0.7)];
            let length = p[1] * s.rng.range(5.0, 20.0);
            let part = s.rng.range(0.2, 0.8);
            let rates = [part * room / length / duty[0], (1.0 - part) * room / length / duty[1]];
            s.onset = p[1];
            s.until_full(2.0 * DAY, |t, r| {
                let on = |i: usize| if t % p[i] < duty[i] * p[i] { rates[i] } else { 0.0 };
                (on(0) + on(1)) * r.range(0.8, 1.2)
            });
        }
        // Bursts of some seconds at random times; in all they never use much.
        "short-bursts-at-rest" => {
            s.dt = s.rng.pick(&[0.5, 1.0, 2.0]);
            let room = s.free();
            let base = s.used;
            let every = s.rng.scale(60.0, 900.0);
            for _ in 0..15 {
                let (pause, takes) = (every * s.rng.exp(), s.rng.scale(2.0, 30.0));
                s.run(pause, 0.0);
                let bytes = room * s.rng.scale(0.002, 0.06);
                s.run(takes, bytes / takes);
                if s.used > base + 0.2 * room {
                    s.run(5.0 * s.dt, 0.0);
                    s.used = base;
                }
            }
        }
        other => panic!("unknown shape {other}"),
    }
}
