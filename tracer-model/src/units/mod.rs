//! Formats bytes, rates and durations for people.
//!
//! Every format has a bounded width, so that columns stay aligned. A value that is unknown or not a
//! number is shown as `?`.

pub mod parse;
mod time;

pub use time::{duration, eta_short, eta_words, short_duration, until_full};

/// The multiples of a byte.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Units {
    /// Powers of 1024: KiB, MiB.
    #[default]
    Iec,
    /// Powers of 1000: kB, MB.
    Si,
}

/// Shown for an unknown value.
pub const UNKNOWN: &str = "?";

/// Longest result of [`Units::bytes`]: `1023.9 KiB`.
pub const BYTES_WIDTH: usize = 10;
/// Longest result of [`Units::short`]: `1023M`.
pub const SHORT_WIDTH: usize = 5;

impl Units {
    const fn base(self) -> u128 {
        match self {
            Self::Iec => 1024,
            Self::Si => 1000,
        }
    }

    const fn names(self) -> [&'static str; 7] {
        match self {
            Self::Iec => ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"],
            Self::Si => ["B", "kB", "MB", "GB", "TB", "PB", "EB"],
        }
    }

    /// Returns `bytes` in rounded tenths of a unit, and the power of that unit: the smallest one in
    /// which the value is below one of the next unit.
    fn scale(self, bytes: u64) -> (u128, usize) {
        let mut unit = 1;
        let mut power = 0;
        loop {
            let tenths = (u128::from(bytes) * 10 + unit / 2) / unit;
            if tenths < self.base() * 10 || power + 1 == self.names().len() {
                return (tenths, power);
            }
            unit *= self.base();
            power += 1;
        }
    }

    /// Formats bytes in at most [`BYTES_WIDTH`] columns: `512 B`, `71.6 GiB`. Rounds half up, but
    /// never to `1024.0 KiB`.
    #[must_use]
    pub fn bytes(self, bytes: u64) -> String {
        match self.scale(bytes) {
            (tenths, 0) => format!("{} B", tenths / 10),
            (tenths, power) => format!("{}.{} {}", tenths / 10, tenths % 10, self.names()[power]),
        }
    }

    /// Formats bytes in at most [`SHORT_WIDTH`] columns, for narrow screens: `102M`, `9.5G`.
    #[must_use]
    pub fn short(self, bytes: u64) -> String {
        let letters = match self {
            Self::Iec => ["", "K", "M", "G", "T", "P", "E"],
            Self::Si => ["", "k", "M", "G", "T", "P", "E"],
        };
        let (tenths, power) = self.scale(bytes);
        if power > 0 && tenths < 100 {
            return format!("{}.{}{}", tenths / 10, tenths % 10, letters[power]);
        }
        let whole = if power == 0 { tenths / 10 } else { (tenths + 5) / 10 };
        if whole == self.base() && power + 1 < letters.len() {
            return format!("1.0{}", letters[power + 1]);
        }
        format!("{whole}{}", letters[power])
    }

    /// Formats a rate in at most 12 columns: `102.4 MiB/s`. Negative rates become 0;
    /// use [`growth`](Self::growth) for those.
    #[must_use]
    pub fn rate(self, per_s: f64) -> String {
        match whole(per_s) {
            Some(bytes) => format!("{}/s", self.bytes(bytes)),
            None => UNKNOWN.to_owned(),
        }
    }

    /// Formats a rate in the [short](Self::short) form.
    #[must_use]
    pub fn short_rate(self, per_s: f64) -> String {
        whole(per_s).map_or_else(|| UNKNOWN.to_owned(), |bytes| self.short(bytes))
    }

    /// Formats a rate with its sign: `+1.2 MiB/s`, `-3.4 MiB/s`, `0 B/s`.
    #[must_use]
    pub fn growth(self, per_s: f64) -> String {
        self.signed(per_s, Self::rate)
    }

    /// Formats a rate with its sign in the [short](Self::short) form.
    #[must_use]
    pub fn short_growth(self, per_s: f64) -> String {
        self.signed(per_s, Self::short_rate)
    }

    fn signed(self, per_s: f64, form: fn(Self, f64) -> String) -> String {
        let size = form(self, per_s.abs());
        match whole(per_s.abs()) {
            None | Some(0) => size,
            Some(_) if per_s < 0.0 => format!("-{size}"),
            Some(_) => format!("+{size}"),
        }
    }

    /// Formats bytes, `?` if unknown.
    #[must_use]
    pub fn bytes_or_unknown(self, bytes: Option<u64>) -> String {
        bytes.map_or_else(|| UNKNOWN.to_owned(), |bytes| self.bytes(bytes))
    }
}

/// The nearest non-negative whole number; `None` if `value` is not finite.
fn whole(value: f64) -> Option<u64> {
    // `as` saturates at both ends, which suits a display.
    value.is_finite().then(|| value.round() as u64)
}

/// Formats a ratio: `42%`. A small positive ratio is `<1%` instead of 0%, and one just below 1 is
/// `>99%` instead of 100%. At most 4 columns up to 999%.
#[must_use]
pub fn percent(ratio: f64) -> String {
    if !ratio.is_finite() {
        return UNKNOWN.to_owned();
    }
    if ratio < 0.0 {
        return format!("-{}", percent(-ratio));
    }
    let rounded = (ratio * 100.0).round();
    if ratio > 0.0 && rounded < 1.0 {
        "<1%".to_owned()
    } else if ratio < 1.0 && rounded >= 100.0 {
        ">99%".to_owned()
    } else if rounded > 999.0 {
        ">999%".to_owned()
    } else {
        format!("{rounded}%")
    }
}

/// Formats a ratio like [`percent`], `?` if unknown.
#[must_use]
pub fn percent_or_unknown(ratio: Option<f64>) -> String {
    ratio.map_or_else(|| UNKNOWN.to_owned(), percent)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    /// Longest result of [`Units::rate`]. The sign of [`Units::growth`] adds one.
    const RATE_WIDTH: usize = 12;

    #[rstest]
    #[case(0, "0 B", "0")]
    #[case(1, "1 B", "1")]
    #[case(1000, "1000 B", "1000")]
    #[case(1023, "1023 B", "1023")]
    #[case(1024, "1.0 KiB", "1.0K")]
    #[case(1075, "1.0 KiB", "1.0K")]
    #[case(1076, "1.1 KiB", "1.1K")]
    #[case(10_189, "10.0 KiB", "10K")]
    #[case(10_188, "9.9 KiB", "9.9K")]
    #[case(1_048_524, "1023.9 KiB", "1.0M")]
    #[case(1_048_525, "1.0 MiB", "1.0M")]
    #[case(1_048_575, "1.0 MiB", "1.0M")]
    #[case(1_048_576, "1.0 MiB", "1.0M")]
    #[case(107_374_182, "102.4 MiB", "102M")]
    #[case(76_879_914_598, "71.6 GiB", "72G")]
    #[case(u64::MAX, "16.0 EiB", "16E")]
    fn iec(#[case] bytes: u64, #[case] long: &str, #[case] short: &str) {
        assert_eq!(Units::Iec.bytes(bytes), long);
        assert_eq!(Units::Iec.short(bytes), short);
    }

    #[rstest]
    #[case(999, "999 B", "999")]
    #[case(1000, "1.0 kB", "1.0k")]
    #[case(999_949, "999.9 kB", "1.0M")]
    #[case(999_950, "1.0 MB", "1.0M")]
    #[case(102_400_000, "102.4 MB", "102M")]
    #[case(u64::MAX, "18.4 EB", "18E")]
    fn si(#[case] bytes: u64, #[case] long: &str, #[case] short: &str) {
        assert_eq!(Units::Si.bytes(bytes), long);
        assert_eq!(Units::Si.short(bytes), short);
    }

    #[rstest]
    #[case(0.0, "0 B/s", "0 B/s")]
    #[case(0.4, "0 B/s", "0 B/s")]
    #[case(-0.4, "0 B/s", "0 B/s")]
    #[case(107_374_182.4, "102.4 MiB/s", "+102.4 MiB/s")]
    #[case(-2048.0, "0 B/s", "-2.0 KiB/s")]
    #[case(f64::NAN, "?", "?")]
    #[case(f64::INFINITY, "?", "?")]
    #[case(f64::NEG_INFINITY, "?", "?")]
    #[case(f64::MAX, "16.0 EiB/s", "+16.0 EiB/s")]
    fn rates(#[case] per_s: f64, #[case] rate: &str, #[case] growth: &str) {
        assert_eq!(Units::Iec.rate(per_s), rate);
        assert_eq!(Units::Iec.growth(per_s), growth);
    }

    #[test]
    fn short_growth_has_its_sign() {
        assert_eq!(Units::Iec.short_growth(-107_374_182.4), "-102M");
        assert_eq!(Units::Iec.short_growth(0.0), "0");
        assert_eq!(Units::Si.short_growth(5_000_000.0), "+5.0M");
    }

    #[rstest]
    #[case(0.0, "0 s", "0s")]
    #[case(0.3, "<1 s", "<1s")]
    #[case(45.4, "45 s", "45s")]
    #[case(59.6, "1 min", "1m")]
    #[case(90.0, "1 min 30 s", "1m30")]
    #[case(240.0, "4 min", "4m")]
    #[case(3599.0, "1 h", "1h")]
    #[case(4800.0, "1 h 20 min", "1h20")]
    #[case(86_399.0, "1 d", "1d")]
    #[case(187_200.0, "2 d 4 h", "2d4h")]
    #[case(259_200.0, "3 d", "3d")]
    #[case(864_000.0, "10 d", "10d")]
    #[case(94_608_000.0, "3 y", "3y")]
    #[case(1e300, ">99 y", ">99y")]
    #[case(f64::NAN, "?", "?")]
    #[case(f64::INFINITY, "?", "?")]
    #[case(-1.0, "?", "?")]
    fn durations(#[case] seconds: f64, #[case] long: &str, #[case] short: &str) {
        assert_eq!(duration(seconds), long);
        assert_eq!(short_duration(seconds), short);
    }

    #[rstest]
    #[case(0.0, "0%")]
    #[case(0.001, "<1%")]
    #[case(0.42, "42%")]
    #[case(0.999, ">99%")]
    #[case(1.0, "100%")]
    #[case(1.5, "150%")]
    #[case(1e9, ">999%")]
    #[case(-0.25, "-25%")]
    #[case(f64::NAN, "?")]
    fn percentages(#[case] ratio: f64, #[case] want: &str) {
        assert_eq!(percent(ratio), want);
    }

    #[rstest]
    #[case(true, Some(0.0), Some(0.0), Some(0.0), "FULL")]
    #[case(true, None, None, None, "FULL")]
    #[case(false, None, None, None, "not filling")]
    #[case(false, Some(240.0), None, None, "full in 4 min")]
    #[case(false, Some(240.0), Some(180.0), Some(360.0), "full in 4 min (3–6)")]
    #[case(false, Some(240.0), Some(50.0), Some(360.0), "full in 4 min (50 s – 6 min)")]
    #[case(false, Some(240.0), Some(180.0), None, "full in 4 min (3–?)")]
    #[case(false, Some(4800.0), Some(3600.0), Some(7200.0), "full in 1 h 20 min (1 h – 2 h)")]
    #[case(false, Some(1.2), Some(0.6), Some(1.4), "full in 1 s (0–1)")]
    #[case(false, Some(0.6), Some(0.2), Some(0.9), "full in <1 s")]
    #[case(false, Some(0.6), Some(0.2), Some(3.2), "full in <1 s (0–3)")]
    #[case(false, Some(240.0), Some(230.0), Some(250.0), "full in 4 min")]
    fn fill_times(
        #[case] full: bool,
        #[case] eta: Option<f64>,
        #[case] lo: Option<f64>,
        #[case] hi: Option<f64>,
        #[case] want: &str,
    ) {
        assert_eq!(until_full(full, eta, lo, hi), want);
    }

    #[rstest]
    #[case(true, Some(0.0), "FULL")]
    #[case(false, None, "-")]
    #[case(false, Some(240.0), "4m (3m–6m)")]
    #[case(false, Some(300.0), "5m (3m–6m)")]
    fn short_fill_times(#[case] full: bool, #[case] eta: Option<f64>, #[case] want: &str) {
        assert_eq!(eta_short(full, eta, eta.map(|_| 180.0), eta.map(|_| 360.0)), want);
        assert_eq!(eta_short(false, Some(4800.0), Some(3300.0), None), "1h20 (55m–?)");
        assert_eq!(eta_short(false, Some(4800.0), None, None), "1h20");
    }

    proptest! {
        #[test]
        fn no_value_is_wider_than_its_column(bytes in any::<u64>(), shift in 0u32..64, per_s in any::<f64>()) {
            for units in [Units::Iec, Units::Si] {
                prop_assert!(units.bytes(bytes >> shift).len() <= BYTES_WIDTH);
                prop_assert!(units.short(bytes >> shift).len() <= SHORT_WIDTH);
                prop_assert!(units.growth(per_s).len() <= RATE_WIDTH + 1);
                prop_assert!(!units.bytes(bytes >> shift).starts_with("1024."));
            }
            prop_assert!(short_duration(per_s).len() <= 5);
            prop_assert!(duration(per_s).len() <= 11);
            let (eta, ends) = (Some(per_s.abs()), Some(per_s.abs() * 0.9));
            prop_assert!(eta_short(false, eta, ends, eta).chars().count() <= 19);
            prop_assert!(!eta_words(false, eta, ends, eta).contains("(<"));
        }

        #[test]
        fn rounding_is_within_half_a_tenth(bytes in any::<u64>(), shift in 0u32..64) {
            let bytes = bytes >> shift;
            let text = Units::Iec.bytes(bytes);
            let (number, unit) = text.split_once(' ').unwrap();
            let power = Units::Iec.names().iter().position(|name| *name == unit).unwrap();
            let size = 1024f64.powi(i32::try_from(power).unwrap());
            let shown: f64 = number.parse().unwrap();
            prop_assert!((shown * size - bytes as f64).abs() <= size * 0.0501);
        }
    }
}
