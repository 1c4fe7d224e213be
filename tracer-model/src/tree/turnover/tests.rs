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
