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
mod tests {
    use super::*;

    /// One second of traffic after another, and the hot directories of each.
    struct Watch {
        turnover: Turnover,
        now_s: f64,
    }

    impl Watch {
        fn new() -> Self {
            Self { turnover: Turnover::since(1_000.0), now_s: 1_000.0 }
        }

        fn second(&mut self, traffic: &[(&str, u64)], birth: impl Fn(&str) -> Birth) -> String {
            self.now_s += 1.0;
            let mut tree = Tree::default();
            for (path, inflow) in traffic {
                let inflow = Traffic { inflow: *inflow, ..Traffic::default() };
                tree.add(path.as_bytes(), &inflow);
            }
            let birth = |path: &[u8]| birth(str::from_utf8(path).unwrap());
            self.turnover.observe(self.now_s, 1.0, &tree, birth);
            let passing = self.turnover.passing();
            let rows = tree.rows(usize::MAX, |path| passing.contains(path));
            let mut hot: Vec<_> = rows
                .into_iter()
                .filter(|row| row.hot)
                .map(|row| String::from_utf8(row.path).unwrap())
                .collect();
            hot.sort();
            hot.join(" ")
        }
    }

    const fn old(_: &str) -> Birth {
        Birth::At(0.0)
    }

    /// Uploads of `length` seconds, one after the other, named by number.
    fn upload(second: u32, length: u32) -> (String, u32) {
        let number = second / length;
        (format!("staging/uploads/{number:08x}"), number * length)
    }

    #[test]
    fn the_directory_above_uploads_is_the_useful_level() {
        for length in [1, 5, 40, 100] {
            let mut watch = Watch::new();
            let mut named: Vec<String> = Vec::new();
            for second in 0..600 {
                let (path, since) = upload(second, length);
                let birth = |asked: &str| match asked == path {
                    true => Birth::At(1_000.0 + f64::from(since)),
                    false => old(asked),
                };
                named.push(watch.second(&[(&path, 100), ("log", 5)], birth));
            }
            named.dedup();
            // The first one is named if it lasts, as nothing tells it from a directory that stays.
            let first = if length > 10 { 3 } else { 1 };
            assert_eq!(named.len(), first, "{length}: {named:?}");
            assert_eq!(named.last().unwrap(), "staging/uploads", "{length}");
        }
    }

    #[test]
    fn uploads_with_directories_of_their_own_and_without_birth_times() {
        let mut watch = Watch::new();
        let mut named: Vec<String> = Vec::new();
        for second in 0..120 {
            let (path, _) = upload(second, 4);
            let (part, meta) = (format!("{path}/part-{}", second % 4), format!("{path}/meta"));
            named.push(watch.second(&[(&part, 100), (&meta, 30)], |_| Birth::Unknown));
        }
        named.dedup();
        // In the first interval, everything may have existed for long.
        assert_eq!(named.pop().unwrap(), "staging/uploads", "{named:?}");
        assert!(named.len() <= 2, "{named:?}");
    }

    #[test]
    fn all_of_it_is_new() {
        let mut watch = Watch::new();
        let mut named: Vec<String> = Vec::new();
        for second in 0..300 {
            let (path, since) = upload(second, 3);
            let since = if path.starts_with("staging") { since } else { 0 };
            let birth = |asked: &str| match asked == path {
                true => Birth::At(1_000.0 + f64::from(since)),
                false => Birth::At(1_000.0),
            };
            named.push(watch.second(&[(&path, 100)], birth));
        }
        named.dedup();
        assert_eq!(named, ["staging", "staging/uploads"]);
    }

    #[test]
    fn a_short_measurement_that_sees_one_of_them_begin() {
        let mut turnover = Turnover::since(1_000.0);
        let mut tree = Tree::default();
        let inflow = |inflow| Traffic { inflow, ..Traffic::default() };
        tree.add(b"staging/uploads/a", &inflow(800));
        tree.add(b"staging/uploads/b", &inflow(500));
        turnover.observe(1_005.0, 5.0, &tree, |path| match path {
            b"staging/uploads/a" => Birth::At(998.0),
            b"staging/uploads/b" => Birth::At(1_003.0),
            _ => Birth::At(990.0),
        });
        let passing = turnover.passing();
        let hot = &tree.rows(1, |path| passing.contains(path))[0];
        assert_eq!(hot.path, b"staging/uploads");
    }

    #[test]
    fn directories_that_stay_are_named_also_beside_others_that_pass() {
        let mut watch = Watch::new();
        for second in 0..200 {
            let tmp = format!("var/{second}");
            let traffic = [(&*tmp, 30), ("var/lib/db", 60), ("var/www/cache", 40)];
            let hot = watch.second(&traffic, |path| match path.strip_prefix("var/") {
                Some(number) if number.parse::<u32>().is_ok() => Birth::Gone,
                _ => old(path),
            });
            assert!(hot.contains("var/lib/db") && hot.contains("var/www/cache"), "{hot}");
        }
    }

    #[test]
    fn a_new_directory_that_stays_is_named_soon() {
        let mut watch = Watch::new();
        let birth = |path: &str| match path {
            "srv/dump" | "srv/dump/x" | "srv/dump/y" => Birth::At(1_010.0),
            _ => old(path),
        };
        let mut named = Vec::new();
        for second in 0..200 {
            let path = if second < 10 { "srv/log" } else { "srv/dump" };
            named.push(watch.second(&[(path, 100)], birth));
        }
        let above = named.iter().filter(|named| *named == "srv").count();
        assert!(above < 11, "{above} s");
        named.dedup();
        assert_eq!(named, ["srv/log", "srv", "srv/dump"]);
        // The root is no useful level because one directory in it is new.
        let mut watch = Watch::new();
        for second in 0..100 {
            let hot = watch.second(&[("queue", 100)], |_| Birth::At(1_000.5 + f64::from(second)));
            assert_eq!(hot, "queue");
        }
    }

    /// A container's layer: an earlier container has ended, and the engine prepared the layer beside it.
    #[test]
    fn a_new_directory_that_outlasts_those_beside_it_is_named() {
        let mut watch = Watch::new();
        let born = |path: &str| match path.split('/').nth(1) {
            Some("first") => Birth::At(1_001.0),
            Some("second-init") => Birth::At(1_030.0),
            Some("second") => Birth::At(1_030.5),
            _ => old(path),
        };
        let mut named: Vec<String> = Vec::new();
        for second in 0..70 {
            let path = match second {
                ..2 => "log",
                2..6 => "layers/first/diff/tmp",
                6..30 => "log",
                30 => "layers/second-init/etc",
                _ => "layers/second/diff/tmp",
            };
            named.push(watch.second(&[(path, 100)], born));
        }
        let last = named[31..].iter().position(|named| named == "layers/second/diff/tmp");
        assert!(last.is_some_and(|second| second <= 15), "{named:?}");
        assert!(named[50..].iter().all(|named| named == "layers/second/diff/tmp"), "{named:?}");
    }

    #[test]
    fn dates_are_not_named_by_the_second() {
        // Since 12:29:50; the hour has existed for long.
        let (began_s, hour_s) = (1_000.0, 1_000.0 - 29.0 * 60.0 - 50.0);
        let mut watch = Watch::new();
        let mut named: Vec<String> = Vec::new();
        for second in 0..2_400_u32 {
            let of_hour = 29 * 60 + 50 + second;
            let (hour, minute) = (12 + of_hour / 3600, of_hour / 60 % 60);
            let path = format!("inbox/{hour}/{minute:02}/{:02}", of_hour % 60);
            let born = |asked: &str| match asked.split('/').count() {
                1 => old(asked),
                2 => Birth::At(hour_s + f64::from(hour - 12) * 3600.0),
                3 => Birth::At(hour_s + f64::from(of_hour / 60) * 60.0),
                _ => Birth::At(began_s + f64::from(second)),
            };
            named.push(watch.second(&[(&path, 100), ("log", 5)], born));
        }
        // Never a second, and a minute only while it is the first that is seen, or the first of an hour.
        let minutes: HashSet<String> =
            named.iter().filter(|named| named.split('/').count() > 2).cloned().collect();
        named.dedup();
        assert!(minutes.len() <= 3, "{named:?}");
        assert!(minutes.iter().all(|named| named.split('/').count() == 3), "{named:?}");
        assert!(named.len() <= 7, "{named:?}");
        assert_eq!(named.last().unwrap(), "inbox/13", "{named:?}");
    }

    #[test]
    fn the_root_is_named_if_its_directories_come_and_go() {
        let mut watch = Watch::new();
        let mut hot = String::new();
        for second in 0..60 {
            let born = Birth::At(1_000.0 + f64::from(second));
            hot = watch.second(&[(&format!("{second}"), 100)], |_| born);
        }
        assert_eq!(hot, "");
    }

    #[test]
    fn memory_is_bounded() {
        let mut watch = Watch::new();
        for second in 0..2_000 {
            let paths: Vec<String> = (0..20).map(|n| format!("s/{second}-{n}")).collect();
            let traffic: Vec<(&str, u64)> = paths.iter().map(|path| (&**path, 5)).collect();
            let hot = watch.second(&traffic, |_| Birth::Gone);
            assert_eq!(hot, "s");
            assert!(watch.turnover.known.len() <= MAX_KNOWN);
        }
    }
}
