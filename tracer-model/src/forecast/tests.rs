//! Tests of simple histories, and properties that hold for every history.

use proptest::prelude::*;

use super::*;

const GB: u64 = 1_000_000_000;

fn sample(time_s: f64, total: u64, used: u64) -> Sample {
    Sample { time_s, total, used, avail: total - used, ..Sample::default() }
}

/// The estimate after each row.
fn etas(samples: &[Sample]) -> Vec<Option<f64>> {
    let mut forecaster = Forecaster::new(Policy::default());
    samples
        .iter()
        .map(|s| {
            forecaster.push(s);
            forecaster.forecast().outcome.eta_s()
        })
        .collect()
}

fn after(samples: &[Sample]) -> Forecast {
    let mut forecaster = Forecaster::new(Policy::default());
    for s in samples {
        forecaster.push(s);
    }
    forecaster.forecast()
}

/// A volume of 100 GB with 10 GB used, growing by these increments of bytes per second.
fn history(rates: impl IntoIterator<Item = f64>) -> Vec<Sample> {
    let mut used = 10.0 * GB as f64;
    rates
        .into_iter()
        .enumerate()
        .map(|(i, rate)| {
            used = (used + rate).clamp(0.0, 100.0 * GB as f64);
            sample(i as f64, 100 * GB, used as u64)
        })
        .collect()
}

fn within(got: Option<f64>, want: f64, factor: f64) {
    let got = got.expect("an estimate");
    assert!(got <= want * factor && got >= want / factor, "{got} s, expected about {want} s");
}

#[test]
fn a_constant_leak_is_right_within_a_few_percent() {
    let rows = history((0..600).map(|_| 5e7));
    within(etas(&rows)[599], (90e9 - 600.0 * 5e7) / 5e7, 1.05);
}

#[test]
fn a_runaway_after_a_quiet_day_is_seen_within_a_tenth_of_its_time() {
    let quiet = 86_400 / 10;
    let rows: Vec<Sample> = (0..quiet + 200)
        .map(|i| {
            let written = u64::try_from(i - quiet).unwrap_or(0) * 450_000_000;
            sample(i as f64 * 10.0, 100 * GB, 10 * GB + written)
        })
        .collect();
    let seen = etas(&rows).iter().position(Option::is_some).expect("a warning") as i64;
    assert!((quiet + 3..=quiet + 20).contains(&seen), "seen {} rows after it began", seen - quiet);
    within(etas(&rows)[quiet as usize + 60], 1400.0, 1.4);
}

#[test]
fn a_copy_that_stops_is_forgotten() {
    let rows = history((0..6000).map(|i| if (3000..3300).contains(&i) { 1e8 } else { 0.0 }));
    let etas = etas(&rows);
    within(etas[3250], 65e9 / 1e8, 1.5);
    let forgotten = (3300..6000).find(|i| etas[*i].is_none()).expect("the estimate is withdrawn");
    assert!(forgotten < 3300 + 300, "only {} s after it stopped", forgotten - 3300);
    assert!(etas[forgotten..].iter().all(Option::is_none));
}

#[test]
fn a_cache_that_is_cleaned_up_does_not_fill_and_gives_the_reason() {
    let rows = history((0..4000).map(|i| if i % 200 < 160 { 2e8 } else { -8e8 }));
    assert!(etas(&rows)[1000..].iter().all(Option::is_none));
    let Outcome::DoesNotFill { reason: Reason::Cleaned { at_bytes } } = after(&rows).outcome else {
        panic!("{:?}", after(&rows).outcome)
    };
    assert!((40 * GB..46 * GB).contains(&at_bytes), "cleaned at {at_bytes}");
}

#[test]
fn the_peak_of_a_sawtooth_hits_first() {
    // Gains 1 GB per minute with swings of 15 GB: the mean would predict 25 minutes more.
    let rows = history((0..6000).map(|i| if i % 60 < 45 { 16e9 / 45.0 } else { -1e9 }));
    let full = rows.iter().position(|r| r.avail == 0).expect("it fills");
    within(etas(&rows)[full - 600], 600.0, 1.3);
}

#[test]
fn full_is_latched_until_space_is_free_again_and_a_refill_is_reported() {
    let mut rows = history((0..300).map(|_| 5e8));
    let full_at = rows.iter().position(|r| r.avail == 0).expect("it fills");
    assert!(matches!(after(&rows).outcome, Outcome::Full { since_s } if since_s == full_at as f64));
    // A few blocks that come and go do not count as space.
    rows.push(sample(300.0, 100 * GB, 100 * GB - 8192));
    assert_eq!(after(&rows).outcome.eta_s(), Some(0.0));
    rows.extend(
        (0..5).map(|i| sample(301.0 + f64::from(i), 100 * GB, 98 * GB + i as u64 * GB / 2)),
    );
    let again = after(&rows);
    assert_eq!(again.limit, Limit::Avail);
    let Outcome::Full { since_s } = again.outcome else { panic!("{:?}", again.outcome) };
    assert_eq!(since_s, 305.0);
    let refill = again.refill.expect("it was filled again");
    assert_eq!((refill.freed_bytes, refill.gone_in_s), (2 * GB - 8192, 4.0));
}

#[test]
fn a_clean_up_over_several_samples_is_one() {
    let mut rows = history((0..210).map(|_| 5e8));
    let at = rows.len() as f64;
    let tenths = |free: u64, second: u32| {
        sample(at + f64::from(second), 100 * GB, 100 * GB - free * (GB / 10))
    };
    // `rm` is still running at the first and the second sample.
    let free = [0, 0, 0, 10, 21, 26, 23, 19, 16, 12, 9, 5, 2];
    rows.extend(free.into_iter().zip(0..).map(|(free, second)| tenths(free, second)));
    assert_eq!(after(&rows).refill, None, "two tenths are left");
    rows.push(tenths(0, 13));
    let refill = after(&rows).refill.expect("it was filled again");
    assert_eq!((refill.freed_bytes, refill.gone_in_s), (26 * (GB / 10), 8.0));
}

#[test]
fn an_enlarged_volume_keeps_its_growth_and_gets_its_new_space() {
    let mut rows = history((0..900).map(|_| 9e7));
    for (i, row) in rows.iter_mut().enumerate().skip(600) {
        *row = sample(i as f64, 200 * GB, row.used);
    }
    within(etas(&rows)[599], (100e9 - rows[599].used as f64) / 9e7, 1.1);
    within(etas(&rows)[601], (200e9 - rows[601].used as f64) / 9e7, 1.1);
}

#[test]
fn a_remounted_volume_does_not_jump() {
    let mut rows = history((0..900).map(|_| 5e7));
    for row in rows.iter_mut().skip(600) {
        *row = sample(row.time_s, 300 * GB, row.used + 150 * GB);
    }
    within(etas(&rows)[620], (300e9 - rows[620].used as f64) / 5e7, 1.1);
}

#[test]
fn clock_steps_hardly_change_the_estimate() {
    for step in [-1e6, -60.0, 3600.0, 1e7] {
        let mut rows = history((0..900).map(|_| 5e7));
        for row in rows.iter_mut().skip(500) {
            row.time_s += step;
        }
        within(etas(&rows)[520], (100e9 - rows[520].used as f64) / 5e7, 1.1);
    }
}

#[test]
fn growth_continues_across_a_gap_in_which_filltop_was_not_running() {
    let rows: Vec<Sample> = history((0..1700).map(|_| 5e7))
        .into_iter()
        .filter(|r| !(400.0..1400.0).contains(&r.time_s))
        .collect();
    within(etas(&rows)[450], (100e9 - rows[450].used as f64) / 5e7, 1.1);
}

#[test]
fn after_an_action_the_forecast_is_that_of_what_is_left() {
    // 100 MB/s, of which 80 are stopped after five minutes; the rest goes on.
    for (removed, left) in [(8e7, 2e7), (1e8, 0.0)] {
        let rows = history((0..400).map(|i| match i {
            0..60 => 0.0,
            60..360 => 1e8,
            _ => left,
        }));
        let mut forecaster = Forecaster::new(Policy::default());
        for row in &rows[..360] {
            forecaster.push(row);
        }
        within(forecaster.forecast().outcome.eta_s(), rows[359].avail as f64 / 1e8, 1.05);
        forecaster.acted(removed);
        for row in &rows[360..] {
            forecaster.push(row);
            let outcome = forecaster.forecast().outcome;
            if left > 0.0 {
                within(outcome.eta_s(), row.avail as f64 / left, 1.1);
            } else {
                assert_eq!(outcome, Outcome::DoesNotFill { reason: Reason::Stopped });
            }
        }
    }
}

#[test]
fn a_writer_that_goes_on_after_an_action_is_seen_again() {
    let rows = history((0..400).map(|i| if i < 60 { 0.0 } else { 1e8 }));
    let mut forecaster = Forecaster::new(Policy::default());
    for row in &rows[..300] {
        forecaster.push(row);
    }
    forecaster.acted(1e8);
    for row in &rows[300..] {
        forecaster.push(row);
    }
    within(forecaster.forecast().outcome.eta_s(), rows[399].avail as f64 / 1e8, 1.1);
}

#[test]
fn a_leak_from_rest_has_an_exact_pace_after_ten_samples() {
    let rows = history((0..190).map(|i| if i < 120 { 0.0 } else { 5e6 }));
    let mut forecaster = Forecaster::new(Policy::default());
    for (i, row) in rows.iter().enumerate() {
        forecaster.push(row);
        let pace = forecaster.forecast().pace;
        if i < 120 {
            assert_eq!(pace, None, "row {i}");
        } else if i >= 122 {
            let pace = pace.expect("a pace from the third sample on");
            let truth = row.avail as f64 / 5e6;
            let most = if i < 130 { 0.5 } else { 0.03 };
            assert!((pace.eta_s / truth - 1.0).abs() < most, "row {i}: {pace:?}, {truth}");
            assert!(pace.lo_s <= truth && truth <= pace.hi_s, "row {i}: {pace:?}, {truth}");
        }
    }
}

#[test]
fn the_limit_that_is_reached_first_is_named() {
    let rows: Vec<Sample> = history((0..500).map(|_| 1e7))
        .into_iter()
        .enumerate()
        .map(|(i, s)| Sample {
            limits: vec![
                LimitUsage { limit: Limit::Inodes, used: 1000 * i as u64, max: 1_000_000 },
                LimitUsage { limit: Limit::Quota("web".to_owned()), used: i as u64, max: u64::MAX },
                LimitUsage { limit: Limit::RootReserve, used: 999, max: 1000 },
            ],
            ..s
        })
        .collect();
    let got = after(&rows);
    assert_eq!(got.limit, Limit::Inodes);
    within(got.outcome.eta_s(), 500.0, 1.05);
}

#[test]
fn freeing_that_keeps_up_is_given_as_the_reason() {
    let rows: Vec<Sample> = history((0..200).map(|_| 0.0))
        .into_iter()
        .map(|s| Sample { flow: Some([1000, 990]), ..s })
        .collect();
    let Outcome::DoesNotFill { reason: Reason::Drained { ratio } } = after(&rows).outcome else {
        panic!("{:?}", after(&rows).outcome)
    };
    assert!((ratio - 0.99).abs() < 0.001);
}

#[test]
fn memory_is_bounded() {
    let mut forecaster = Forecaster::new(Policy::default());
    for i in 0..60_000u64 {
        forecaster.push(&sample(i as f64, 1000 * GB, i * 1000 + i % 7 * 4096));
    }
    // The levels that 11 doublings can fill, the scales and the horizons.
    assert!(forecaster.bytes() < 48_000, "{} bytes", forecaster.bytes());
}

#[test]
fn a_restored_forecaster_continues() {
    let rows = history((0..800).map(|i| 4e7 + f64::from(i % 7) * 1e6));
    let mut forecaster = Forecaster::new(Policy::default());
    for row in &rows[..400] {
        forecaster.push(row);
    }
    let text = serde_json::to_string(&forecaster).unwrap();
    let mut restored: Forecaster = serde_json::from_str(&text).unwrap();
    for row in &rows[400..] {
        forecaster.push(row);
        restored.push(row);
        within(
            restored.forecast().outcome.eta_s(),
            forecaster.forecast().outcome.eta_s().unwrap(),
            1.000_001,
        );
    }
}

/// Increments of a history that only grows: steadily, with noise, with pauses.
fn growth() -> impl Strategy<Value = Vec<f64>> {
    (1e6..5e8f64, 0.0..1.0f64, 1..40usize, 0.2..1.0f64, prop::collection::vec(0.0..1.0f64, 300))
        .prop_map(|(rate, noise, period, duty, dice)| {
            dice.iter()
                .enumerate()
                .map(|(i, d)| {
                    let on = (i % period) as f64 <= duty * period as f64;
                    if on { (rate * (1.0 - noise + 2.0 * noise * d)).round() } else { 0.0 }
                })
                .collect()
        })
}

/// Increments of a history with a few writes of any length, separated by pauses of any length.
fn writings() -> impl Strategy<Value = Vec<f64>> {
    prop::collection::vec((1..60usize, 0.0..3e8f64, 0..120usize), 1..8).prop_map(|phases| {
        let increments = phases.into_iter().flat_map(|(on, rate, off)| {
            std::iter::repeat_n(rate.round(), on).chain(std::iter::repeat_n(0.0, off))
        });
        increments.collect()
    })
}

fn is_never_longer(slow: &[Sample], fast: &[Sample], factor: f64) -> Result<(), TestCaseError> {
    for (i, (slow, fast)) in etas(slow).into_iter().zip(etas(fast)).enumerate() {
        if let Some(slow) = slow {
            let fast = fast.unwrap_or(f64::INFINITY);
            prop_assert!(fast <= slow * factor + 1e-6, "row {}: {} s became {} s", i, slow, fast);
        }
    }
    Ok(())
}

/// Arbitrary rows, as a file could contain.
fn anything() -> impl Strategy<Value = Vec<Sample>> {
    let number = || prop_oneof![0..1000u64, any::<u64>(), Just(0), Just(u64::MAX)];
    let time = prop_oneof![-1e3..1e6f64, any::<f64>(), Just(0.0), Just(f64::MAX)];
    prop::collection::vec((time, number(), number(), number()), 0..120).prop_map(|rows| {
        rows.into_iter()
            .map(|(time_s, total, used, avail)| Sample {
                time_s,
                total,
                used,
                avail,
                ..Sample::default()
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_input_gives_an_ordered_and_non_negative_estimate(rows in anything()) {
        let mut forecaster = Forecaster::new(Policy::default());
        for row in &rows {
            forecaster.push(row);
            if let Outcome::Fills { lo_s, eta_s, hi_s } = forecaster.forecast().outcome {
                prop_assert!(0.0 <= lo_s && lo_s <= eta_s && eta_s <= hi_s && hi_s.is_finite());
            }
            if row.avail == 0 && is_time(row.time_s) {
                prop_assert_eq!(forecaster.forecast().outcome.eta_s(), Some(0.0));
            }
        }
    }

    #[test]
    fn a_uniformly_faster_fill_never_gives_a_longer_estimate(
        rates in growth(), factor in 1.0..4.0f64,
    ) {
        let slow = history(rates.iter().copied());
        let fast = history(rates.iter().map(|r| r * factor));
        is_never_longer(&slow, &fast, 1.000_001)?;
    }

    #[test]
    fn a_faster_fill_with_pauses_never_gives_a_longer_estimate(rates in writings(), power in 1..4u32) {
        let slow = history(rates);
        let fast: Vec<Sample> = slow
            .iter()
            .map(|s| sample(s.time_s, s.total, (10 * GB + ((s.used - 10 * GB) << power)).min(s.total)))
            .collect();
        is_never_longer(&slow, &fast, 1.000_001)?;
    }

    #[test]
    fn a_faster_fill_by_any_factor_never_gives_a_much_longer_estimate(rates in writings(), factor in 1.0..4.0f64) {
        let slow = history(rates.iter().copied());
        let fast = history(rates.iter().map(|r| r * factor));
        // Bytes are integers: a decision that depends on a single byte may come one row later.
        is_never_longer(&slow, &fast, 1.1)?;
    }

    #[test]
    fn scaling_all_bytes_does_not_change_the_estimate(rates in growth(), power in 1..20u32) {
        let rows = history(rates);
        let scaled: Vec<Sample> = rows
            .iter()
            .map(|r| sample(r.time_s, r.total << power, r.used << power))
            .collect();
        prop_assert_eq!(etas(&rows), etas(&scaled));
    }

    #[test]
    fn slower_time_scales_the_estimate(rates in growth(), power in 0..8i32) {
        let rows = history(rates);
        let stretch = f64::from(1 << power);
        let scaled: Vec<Sample> =
            rows.iter().map(|r| Sample { time_s: r.time_s * stretch, ..r.clone() }).collect();
        let expected: Vec<Option<f64>> = etas(&rows).iter().map(|e| e.map(|e| e * stretch)).collect();
        prop_assert_eq!(expected, etas(&scaled));
    }

    #[test]
    fn any_stretch_of_time_scales_a_steady_fill(rate in 1e7..4e8f64, stretch in 0.05..5000.0f64) {
        let rows = history((0..200).map(|_| rate));
        let scaled: Vec<Sample> =
            rows.iter().map(|r| Sample { time_s: r.time_s * stretch, ..r.clone() }).collect();
        // Rounding, like the grid of scales, may shift by a few rows when growth is accepted.
        let mut differ = 0;
        for (a, b) in etas(&rows).iter().zip(etas(&scaled)) {
            let same = match (a, b) {
                (Some(a), Some(b)) => *a == b || (b / (a * stretch)).log2().abs() < 0.05,
                (a, b) => a.is_some() == b.is_some(),
            };
            differ += usize::from(!same);
        }
        prop_assert!(differ <= 6, "{} rows differ", differ);
    }

    #[test]
    fn a_replay_gives_the_live_estimates(rates in growth()) {
        let rows = history(rates);
        prop_assert_eq!(etas(&rows), etas(&rows));
    }
}
