//! A simulated volume that is written to, and the rows sampled from it.

use crate::trace::{Fill, Row, Trace};

/// SplitMix64: enough for reproducible parameters, and no dependency whose stream may change.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
    pub(crate) fn range(&mut self, lo: f64, hi: f64) -> f64 {
        lo + (hi - lo) * self.unit()
    }
    /// Log-uniform: every order of magnitude is as likely.
    pub(crate) fn scale(&mut self, lo: f64, hi: f64) -> f64 {
        (self.range(lo.ln(), hi.ln())).exp()
    }
    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[(self.next() % of.len() as u64) as usize]
    }
    pub(crate) fn chance(&mut self, p: f64) -> bool {
        self.unit() < p
    }
    /// Sum of uniforms: near enough to a normal deviate.
    pub(crate) fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
    pub(crate) fn exp(&mut self) -> f64 {
        -(1.0 - self.unit()).ln()
    }
}

/// A volume that is being written to, and the rows sampled from it.
pub(crate) struct Sim {
    pub(crate) rng: Rng,
    pub(crate) clock: f64,
    pub(crate) truth: f64,
    pub(crate) dt: f64,
    pub(crate) jitter: f64,
    pub(crate) total: f64,
    pub(crate) reserve: f64,
    pub(crate) used: f64,
    /// Noise of all other writers, as a bounded walk in bytes.
    pub(crate) wobble: f64,
    pub(crate) noise: f64,
    pub(crate) onset: f64,
    pub(crate) full: bool,
    pub(crate) rows: Vec<Row>,
    pub(crate) fills: Vec<Fill>,
    pub(crate) spared: f64,
}

impl Sim {
    pub(crate) fn new(seed: u64, dts: &[f64]) -> Self {
        let mut rng = Rng(seed);
        let total = rng.scale(1e10, 4e12);
        let dt = rng.pick(dts);
        let jitter = if rng.chance(0.3) { 0.4 } else { 0.01 };
        let reserve = if rng.chance(0.6) { 0.05 * total } else { 0.0 };
        let used = total * rng.range(0.15, 0.7);
        let clock = if rng.chance(0.5) { 1.7e9 } else { 0.0 };
        Self {
            rng,
            clock,
            truth: 0.0,
            dt,
            jitter,
            total,
            reserve,
            used,
            wobble: 0.0,
            noise: 0.0,
            onset: 0.0,
            full: false,
            rows: Vec::new(),
            fills: Vec::new(),
            spared: 0.0,
        }
    }
    pub(crate) fn free(&self) -> f64 {
        (self.total - self.reserve - self.used - self.wobble).max(0.0)
    }
    /// Lets `seconds` pass without a sample.
    pub(crate) fn unseen(&mut self, seconds: f64, bytes: f64) {
        self.clock += seconds;
        self.truth += seconds;
        self.used += bytes;
    }
    /// One sampling interval with `rate` bytes written per second. Returns the seconds it took.
    pub(crate) fn step(&mut self, rate: f64) -> f64 {
        let dt = self.dt * (1.0 + self.jitter * self.rng.range(-1.0, 1.0));
        if !self.rows.is_empty() {
            self.clock += dt;
            self.truth += dt;
            self.used += rate * dt;
        }
        self.wobble += self.noise * self.rng.normal() * (dt / self.dt).sqrt() - 0.05 * self.wobble;
        self.sample();
        dt
    }
    pub(crate) fn sample(&mut self) {
        let limit = self.total - self.reserve;
        let shown = (((self.used + self.wobble).clamp(0.0, limit)) / 4096.0).floor() * 4096.0;
        if self.used > limit {
            self.used = limit;
        }
        let avail = if limit - shown < 8192.0 { 0 } else { (limit - shown) as u64 };
        if avail == 0 && !self.full {
            self.fills.push(Fill { onset: self.onset, full: self.truth });
        }
        self.full = avail == 0;
        self.rows.push(Row {
            time: self.clock,
            truth: self.truth,
            total: self.total as u64,
            used: shown as u64,
            avail,
        });
    }
    /// Writes at `rate` for `seconds`, or until the volume is full.
    pub(crate) fn run(&mut self, seconds: f64, rate: f64) {
        let end = self.truth + seconds;
        while self.truth < end && !self.full {
            self.step(rate);
        }
    }
    /// Writes `rate(seconds since start)` until the volume is full, at most for `limit` seconds.
    pub(crate) fn until_full(&mut self, limit: f64, mut rate: impl FnMut(f64, &mut Rng) -> f64) {
        let start = self.truth;
        while !self.full && self.truth - start < limit {
            let r = rate(self.truth - start, &mut self.rng);
            self.step(r);
        }
    }
    pub(crate) fn idle(&mut self, rows: usize) {
        self.noise = 0.0;
        for _ in 0..rows {
            self.step(0.0);
        }
    }
    pub(crate) fn done(mut self) -> Trace {
        if self.full {
            self.idle(20);
        }
        Trace { rows: self.rows, fills: self.fills, spared: self.spared }
    }
}
