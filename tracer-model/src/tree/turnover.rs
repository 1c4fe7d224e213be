//! Directories that come and go: one per upload, per job or per build. Such a directory is not the
//! useful level, because its name is different a few seconds later. The directory above it is.
//!
//! A short memory of each volume's directories shows which ones appeared recently, and which ones
//! are followed by others. The rule is in `docs/decisions/hottest-directories.md`.

use std::collections::{HashMap, HashSet};

use super::{Traffic, Tree};

/// How long an arrival counts, and how long a directory without traffic is remembered, seconds.
const MEMORY_S: f64 = 600.0;
/// A directory that appeared while the volume was watched passes for this long, seconds.
const YOUNG_S: f64 = 60.0;
/// One that no other appeared beside passes for this long, seconds: uploads of a few seconds are not named.
const ALONE_S: f64 = 10.0;
/// A directory that has lasted for this many times as long as the longest of those that have ended beside it
/// is not one of them.
const OUTLASTS: f64 = 3.0;
/// Share of a volume's traffic from which a directory is remembered; far below the share that makes
/// one hot.
const LEAST_SHARE: f64 = 0.02;
/// Maximum number of directories remembered, some 150 bytes each.
const MAX_KNOWN: usize = 4_096;
/// A directory with this share of the traffic of all that appeared beside it is not one of many.
const DOMINANT_SHARE: f64 = 0.8;
/// Directories that appeared closer together than this were made as one, seconds.
const SPREAD_S: f64 = 1.0;
/// Number of arrivals from which the volume's root is the useful level. It says little, and a new
/// volume receives all its directories at some time.
const MIN_ARRIVALS_OF_ROOT: usize = 4;

/// When a directory was created.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Birth {
    /// At this time, seconds, on the clock of [`Turnover::since`].
    At(f64),
    /// It is gone already.
    Gone,
    /// The filesystem does not record it, or it could not be looked up.
    Unknown,
}

/// The memory of one volume's directories.
#[derive(Debug)]
pub struct Turnover {
    /// Since when the volume is watched, seconds.
    began_s: f64,
    known: HashMap<Box<[u8]>, Known>,
}

#[derive(Debug)]
struct Known {
    /// When it appeared; `None` if it has existed for longer than the memory.
    appeared_s: Option<f64>,
    /// End of the first interval in which it received traffic.
    first_s: f64,
    /// End of the last interval in which it received traffic.
    last_s: f64,
    /// Traffic since it is known, bytes.
    heat: u64,
}

/// The recent arrivals in one directory.
#[derive(Debug)]
struct Arrivals {
    count: usize,
    first_s: f64,
    last_s: f64,
    /// How long the longest of those lasted that receive no traffic any more, seconds; `None` if all do.
    ended_after_s: Option<f64>,
    /// Traffic of all of them, bytes.
    heat: u64,
}

impl Turnover {
    /// A memory of a volume that is watched from `began_s` on, in seconds on a clock that does not
    /// step.
    #[must_use]
    pub fn since(began_s: f64) -> Self {
        Self { began_s, known: HashMap::new() }
    }

    /// Adds an interval of `interval_s` seconds that ended at `now_s`, on the same clock. `birth` is asked about each directory that is not known yet and has some share of the
    /// traffic.
    pub fn observe(
        &mut self,
        now_s: f64,
        interval_s: f64,
        tree: &Tree,
        mut birth: impl FnMut(&[u8]) -> Birth,
    ) {
        let start_s = now_s - interval_s;
        for (path, traffic) in tree.large(LEAST_SHARE) {
            if let Some(known) = self.known.get_mut(&*path) {
                known.last_s = now_s;
                known.heat = known.heat.saturating_add(traffic.heat());
                continue;
            }
            let appeared_s = match birth(&path) {
                Birth::At(time_s) => Some(time_s),
                Birth::Gone => Some(now_s),
                // It had no traffic so far, although the directory above it was watched, or the one
                // above it has appeared itself.
                Birth::Unknown => {
                    let was_watched = match parent(&path) {
                        [] => self.began_s < start_s,
                        above => self.known.get(above).is_some_and(|known| {
                            known.first_s < now_s || known.appeared_s.is_some()
                        }),
                    };
                    was_watched.then_some(now_s)
                }
            };
            let appeared_s = appeared_s.filter(|time_s| now_s - time_s < MEMORY_S);
            let heat = Traffic::heat(traffic);
            let known = Known { appeared_s, first_s: now_s, last_s: now_s, heat };
            self.known.insert(path.into(), known);
        }
        self.known.retain(|_, known| now_s - known.last_s < MEMORY_S);
        if self.known.len() > MAX_KNOWN {
            let mut last: Vec<f64> = self.known.values().map(|known| known.last_s).collect();
            let excess = last.len() - MAX_KNOWN / 2;
            let (_, oldest, _) = last.select_nth_unstable_by(excess - 1, f64::total_cmp);
            let oldest = *oldest;
            // Those of this interval are kept, however many they are: a tree has few so large ones.
            self.known.retain(|_, known| known.last_s > oldest || known.last_s >= now_s);
        }
    }

    /// The directories that pass, of those with traffic in the last interval, by path: another
    /// level is the useful one for what happens in them.
    #[must_use]
    pub fn passing(&self) -> HashSet<Vec<u8>> {
        let now_s = self.known.values().map(|known| known.last_s).fold(f64::MIN, f64::max);
        let arrivals = self.arrivals(now_s);
        let present = self.known.iter().filter(|(_, known)| known.last_s >= now_s);
        present
            .map(|(path, _)| &**path)
            .filter(|path| self.level(path, now_s, &arrivals) != *path)
            .map(<[u8]>::to_vec)
            .collect()
    }

    /// The useful level for what happens in a directory: itself, or one above it.
    fn level<'p>(
        &self,
        path: &'p [u8],
        now_s: f64,
        arrivals: &HashMap<&[u8], Arrivals>,
    ) -> &'p [u8] {
        let mut chain: Vec<&[u8]> = Vec::new();
        let mut at = path;
        while !at.is_empty() && self.passes(at, now_s, arrivals) {
            chain.push(at);
            at = parent(at);
        }
        let Some(top) = chain.last() else { return path };
        if !at.is_empty() || self.has_turnover(at, now_s, arrivals) {
            return at;
        }
        // All of it is new. The root says less than the directory below it.
        let mut down = chain.iter().rev();
        down.find(|level| self.has_turnover(level, now_s, arrivals)).unwrap_or(top)
    }

    /// Whether a directory is too new to be named, or one of many that come and go.
    fn passes(&self, path: &[u8], now_s: f64, arrivals: &HashMap<&[u8], Arrivals>) -> bool {
        let Some(known) = self.known.get(path) else { return false };
        let Some(appeared_s) = known.appeared_s else { return false };
        let age_s = now_s - appeared_s;
        let above = parent(path);
        let beside = arrivals.get(above);
        let stays = match beside {
            Some(Arrivals { count: 2.., ended_after_s: Some(longest_s), .. }) => {
                age_s >= (OUTLASTS * longest_s).max(ALONE_S)
            }
            // Which of them go on, nobody can tell yet.
            Some(Arrivals { count: 2.., .. }) => false,
            _ => age_s >= ALONE_S,
        };
        if stays {
            return false;
        }
        let is_young = age_s < YOUNG_S;
        if is_young && self.is_new(appeared_s) {
            return true;
        }
        let siblings = beside.map_or(0, |arrivals| arrivals.heat);
        let is_dominant = known.heat as f64 >= DOMINANT_SHARE * siblings as f64;
        (is_young || !is_dominant) && self.has_turnover(above, now_s, arrivals)
    }

    /// Whether other directories come and go in this one.
    fn has_turnover(&self, path: &[u8], now_s: f64, arrivals: &HashMap<&[u8], Arrivals>) -> bool {
        let Some(seen) = arrivals.get(path) else { return false };
        let is_root = path.is_empty();
        let least = if is_root { MIN_ARRIVALS_OF_ROOT } else { 2 };
        seen.count >= least
            && seen.last_s - seen.first_s >= SPREAD_S
            && self.is_new(seen.last_s)
            && (seen.ended_after_s.is_some() || (!is_root && now_s - seen.last_s < YOUNG_S))
    }

    /// Whether something appeared while the volume was watched.
    fn is_new(&self, appeared_s: f64) -> bool {
        appeared_s >= self.began_s
    }

    /// The recent arrivals, keyed by the path of the directory in which they appeared.
    fn arrivals(&self, now_s: f64) -> HashMap<&[u8], Arrivals> {
        let mut all: HashMap<&[u8], Arrivals> = HashMap::new();
        for (path, known) in &self.known {
            let Some(time_s) = known.appeared_s else { continue };
            if now_s - time_s >= MEMORY_S {
                continue;
            }
            let none = Arrivals {
                count: 0,
                first_s: time_s,
                last_s: time_s,
                ended_after_s: None,
                heat: 0,
            };
            let arrivals = all.entry(parent(path)).or_insert(none);
            arrivals.count += 1;
            arrivals.first_s = arrivals.first_s.min(time_s);
            arrivals.last_s = arrivals.last_s.max(time_s);
            if known.last_s < now_s {
                let lasted_s = known.last_s - time_s;
                let longest_s = arrivals.ended_after_s.map_or(lasted_s, |it| it.max(lasted_s));
                arrivals.ended_after_s = Some(longest_s);
            }
            arrivals.heat = arrivals.heat.saturating_add(known.heat);
        }
        all
    }
}

/// The path of the directory above; empty for one in the root.
fn parent(path: &[u8]) -> &[u8] {
    path.iter().rposition(|byte| *byte == b'/').map_or(&[], |at| &path[..at])
}

#[cfg(test)]
mod tests;
