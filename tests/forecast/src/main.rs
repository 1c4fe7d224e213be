//! Scores filltop's forecast and the formulas in use today on the same traces.

mod alerts;
mod anchors;
mod score;
mod shapes;
mod sim;
mod trace;

use std::path::Path;

use clap::Parser;
use score::{Score, mean, median};

/// First seed of the traces that nothing was tuned on. Those from 1000 on and from 3000 on were
/// used for tuning.
const KEPT_ASIDE: u64 = 9000;
/// Minutes and changes of state are given for a set of this many traces.
const SET: f64 = 24.0;

/// Print the table of scores on held-out seeds, as Markdown
#[derive(Parser)]
struct Args {
    /// First seed
    #[arg(long, default_value_t = KEPT_ASIDE)]
    from: u64,
    /// Seeds for each shape
    #[arg(long, default_value_t = 8)]
    seeds: u64,
    /// Only this shape or recorded trace
    #[arg(long)]
    shape: Option<String>,
    /// Only this method
    #[arg(long)]
    method: Option<String>,
    /// Instead of scores, print every row of the first trace: true time, total, used, avail, the
    /// estimate (likely, earliest, latest; -1 for none) and the true remaining seconds
    #[arg(long)]
    dump: bool,
    /// Instead of scores of estimates, print those of alerts
    #[arg(long, conflicts_with_all = ["dump", "method"])]
    alerts: bool,
    /// Instead of scores, push this many samples and print nanoseconds for each and bytes held
    #[arg(long, value_name = "ROWS")]
    bench: Option<u64>,
}

/// The text before the table.
const INTRO: &str = "# What the forecast is worth

Made by `cargo run --release -p forecast-score > docs/forecast-scores.md`; do not edit. Traces come from
the generator in `tests/forecast/src/shapes.rs` with seeds that nothing was tuned on, and from four fills
recorded on real volumes (`tests/forecast/traces/`: RocksDB's db_bench and PostgreSQL under pgbench; those
were looked at while tuning). Every method sees the same rows, one after another.

- **attainable**: from the start of the writing that fills the volume, at most 4 h before full.
- **lead**: share of it in which the alarm (estimate under 4 h) was on, without a break, up to full; mean over fills.
- **kept**: share of it in which the estimate was within a factor of 2; *uncut*: the same from the start on, however long.
- **error**: median over fills of the median |log2(estimate / truth)| in the last 60, 10 and 1 min; no estimate counts as 6.
- **misses**: share of fills with a lead under one half.
- **false**: minutes, for a set of 24 traces, in which it did not fill within three times the estimate: alarms at 4 h
  (and it did not fill in 4 h), estimates under 30 min, any estimate. Warnings before a volume was enlarged are spared.
- **flips**: changes of the alarm's state for 24 traces, at 4 h, at 30 min, and between some estimate and none. Each fill needs one.
- **covered**: share of the time with an interval in which it held the truth; in brackets the mean over fills. 80 is asked for.

Formulas: last minute / last hour = room over the rate from the first to the last row of the window; EWMA with a time
constant of 5 min; `predict_linear` = least squares, solved for zero; Zabbix `timeleft` = the same over 30 min; Netdata's
`out_of_disk_space_time` = room over the last hour's rate, silent at full; node-mixin's `NodeFilesystemSpaceFillingUp` =
`predict_linear` over 6 h, under 4 h ahead and under 20 % available, for an hour.

";

const HEAD: &str = "| | lead % | kept % | kept, uncut % | error 60/10/1 min | misses % | false, 4 h | false, 30 min | false, any | flips, 4 h | 30 min | any | covered % |
|---|---|---|---|---|---|---|---|---|---|---|---|---|";

fn line(name: &str, s: &Score, traces: f64) -> String {
    let med = |v: &[f64]| median(&mut v.iter().map(|x| (*x, 1.0)).collect::<Vec<_>>());
    let per = SET / traces;
    let fills = |text: String| if s.lead.is_empty() { "–".to_owned() } else { text };
    format!(
        "| {name} | {} | {} | {} | {} | {} | {:.0} | {:.0} | {:.0} | {:.1} | {:.1} | {:.1} | {} |",
        fills(format!("{:.1}", 100.0 * mean(&s.lead))),
        fills(format!("{:.1}", 100.0 * mean(&s.kept))),
        fills(format!("{:.1}", 100.0 * mean(&s.kept_all))),
        fills(format!(
            "{:.2} / {:.2} / {:.2}",
            med(&s.errors[0]),
            med(&s.errors[1]),
            med(&s.errors[2])
        )),
        fills(format!("{:.1}", 100.0 * s.misses())),
        s.false_minutes * per,
        s.false_soon * per,
        s.false_any * per,
        s.flips[0] as f64 * per,
        s.flips[1] as f64 * per,
        s.flips[2] as f64 * per,
        if s.coverage.is_empty() {
            "–".to_owned()
        } else {
            format!("{:.0} ({:.0})", 100.0 * s.covered[0] / s.covered[1], 100.0 * mean(&s.coverage))
        },
    )
}

/// The traces of a shape, or the one recording of that name.
fn traces(args: &Args, name: &str) -> anyhow::Result<Vec<trace::Trace>> {
    if let Some((_, onset)) = trace::RECORDED.iter().find(|(n, _)| *n == name) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("traces");
        return Ok(vec![trace::recorded(&folder.join(format!("{name}.csv")), *onset)?]);
    }
    Ok((args.from..args.from + args.seeds).map(|seed| shapes::generate(name, seed)).collect())
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if let Some(rows) = args.bench {
        bench(rows);
        return Ok(());
    }
    let names: Vec<&str> = shapes::SHAPES
        .iter()
        .copied()
        .chain(trace::RECORDED.iter().map(|(n, _)| *n))
        .filter(|s| args.shape.as_deref().is_none_or(|want| want == *s))
        .collect();
    if args.alerts {
        let with_traces = |name: &&'static str| Ok((*name, traces(&args, name)?));
        let shapes: Vec<_> = names.iter().map(with_traces).collect::<anyhow::Result<_>>()?;
        alerts::print(&shapes);
        return Ok(());
    }
    let methods: Vec<(usize, &str)> = anchors::all()
        .iter()
        .enumerate()
        .map(|(m, (name, _))| (m, *name))
        .filter(|(_, name)| args.method.as_deref().is_none_or(|want| want == *name))
        .collect();
    let mut totals = vec![Score::default(); methods.len()];
    let mut count = 0;
    let mut by_shape = Vec::new();
    for name in names {
        let traces = traces(&args, name)?;
        if let (true, Some(first)) = (args.dump, traces.first()) {
            dump(first, methods.first().map_or(0, |m| m.0));
            return Ok(());
        }
        count += traces.len();
        for (i, (m, _)) in methods.iter().enumerate() {
            let mut score = Score::default();
            for trace in &traces {
                score.add(trace, anchors::all().swap_remove(*m).1.as_mut());
            }
            totals[i].merge(&score);
            if i == 0 {
                // For a single shape, minutes and changes are given for one trace.
                by_shape.push(line(name, &score, traces.len() as f64 * SET));
            }
        }
    }
    if args.shape.is_none() && args.method.is_none() {
        print!("{INTRO}");
    }
    println!("{HEAD}");
    for ((_, name), total) in methods.iter().zip(&totals) {
        println!("{}", line(name, total, count as f64));
    }
    if let Some((_, name)) = methods.first() {
        println!(
            "\nOf these {count} traces {} fills; **{name}** shape by shape, minutes and changes for one trace:\n",
            totals[0].lead.len()
        );
        println!("{HEAD}");
        by_shape.iter().for_each(|l| println!("{l}"));
    }
    Ok(())
}

/// Measures the cost of a sample and the memory, over a leak with noise and occasional clean-ups.
fn bench(rows: u64) {
    use tracer_model::forecast::{Forecaster, Policy, Sample};
    let mut forecaster = Forecaster::new(Policy::default());
    let start = std::time::Instant::now();
    let total = 1u64 << 50;
    for i in 0..rows {
        let used = (i * 1_000_000 + (i.wrapping_mul(0x9e37_79b9) >> 16) % 5_000_000) % (total / 2);
        forecaster.push(&Sample {
            time_s: i as f64,
            total,
            used,
            avail: total - used,
            ..Sample::default()
        });
    }
    let each = start.elapsed().as_nanos() as f64 / rows as f64;
    println!("{rows} samples: {each:.0} ns each, {} bytes held", forecaster.bytes());
}

fn dump(trace: &trace::Trace, m: usize) {
    let mut method = anchors::all().swap_remove(m).1;
    for row in &trace.rows {
        let said = method.see(row);
        let (eta, lo, hi) = said.map_or((-1.0, -1.0, -1.0), |e| {
            let (lo, hi) = e.interval.unwrap_or((0.0, 0.0));
            (e.eta, lo, hi)
        });
        println!(
            "{:.1},{},{},{},{eta:.1},{lo:.1},{hi:.1},{:.1}",
            row.truth,
            row.total,
            row.used,
            row.avail,
            trace.remaining(row.truth)
        );
    }
}
