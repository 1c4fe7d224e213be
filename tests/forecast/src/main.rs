//! Scores filltop's forecast, the formulas in use today and published methods on the same traces.

mod alerts;
mod anchors;
mod kinds_reporting;
mod kinds_tuning;
mod published;
mod score;
mod shapes;
mod sim;
mod table;
mod trace;

use std::path::Path;

use clap::Parser;
use score::Score;
use table::Kind;
use trace::Half;

/// First seed of the traces that were not used for tuning. Those from 1000 and from 3000 on were.
const HELD_OUT_SEED: u64 = 9000;

/// Print the tables of scores on held-out seeds, as Markdown
#[derive(Parser)]
struct Args {
    /// First seed
    #[arg(long, default_value_t = HELD_OUT_SEED)]
    from: u64,
    /// Seeds for each shape
    #[arg(long, default_value_t = 8)]
    seeds: u64,
    /// Only this half of the kinds of history
    #[arg(long)]
    half: Option<Half>,
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
    /// Print every row of this history, a CSV as `filltop forecast` reads it, as `--dump` does
    #[arg(long, value_name = "CSV")]
    file: Option<std::path::PathBuf>,
    /// Instead of scores, push this many samples, and print nanoseconds per sample and memory in bytes
    #[arg(long, value_name = "ROWS")]
    bench: Option<u64>,
}

impl Args {
    /// The names of the kinds to score.
    fn names(&self, half: Half) -> Vec<&'static str> {
        let recorded = trace::RECORDED.iter().filter(|r| r.half == half).map(|r| r.name);
        let all = shapes::names(half).into_iter().chain(recorded);
        all.filter(|name| self.shape.as_deref().is_none_or(|want| want == *name)).collect()
    }

    /// The traces of a shape, or the one recording of that name.
    fn traces(&self, name: &str) -> anyhow::Result<Vec<trace::Trace>> {
        if let Some(recording) = trace::RECORDED.iter().find(|r| r.name == name) {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("traces");
            return Ok(vec![trace::recorded(
                &folder.join(format!("{name}.csv")),
                recording.onset,
            )?]);
        }
        Ok((self.from..self.from + self.seeds).map(|seed| shapes::generate(name, seed)).collect())
    }
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if let Some(rows) = args.bench {
        bench(rows);
        return Ok(());
    }
    if let Some(path) = &args.file {
        let method = args.method.as_deref().unwrap_or("filltop");
        let at = anchors::all().iter().position(|(name, _)| *name == method);
        dump(&trace::recorded(path, 0.0)?, at.unwrap_or(0));
        return Ok(());
    }
    let halves: Vec<Half> = [Half::Tuning, Half::Reporting]
        .into_iter()
        .filter(|half| args.half.is_none_or(|want| want == *half))
        .collect();
    if args.alerts {
        let names = halves.iter().flat_map(|half| args.names(*half));
        let with_traces = |name: &'static str| Ok((name, args.traces(name)?));
        let shapes: Vec<_> = names.map(with_traces).collect::<anyhow::Result<_>>()?;
        alerts::print(&shapes);
        return Ok(());
    }
    let methods: Vec<(usize, &'static str)> = anchors::all()
        .iter()
        .enumerate()
        .map(|(m, (name, _))| (m, *name))
        .filter(|(_, name)| args.method.as_deref().is_none_or(|want| want == *name))
        .collect();
    let mut kinds = Vec::new();
    for half in halves {
        for name in args.names(half) {
            let traces = args.traces(name)?;
            if let (true, Some(first)) = (args.dump, traces.first()) {
                dump(first, methods.first().map_or(0, |m| m.0));
                return Ok(());
            }
            let scores = methods.iter().map(|(m, _)| {
                let mut score = Score::default();
                for trace in &traces {
                    score.add(trace, anchors::all().swap_remove(*m).1.as_mut());
                }
                score
            });
            kinds.push(Kind { name, half, traces: traces.len(), scores: scores.collect() });
        }
    }
    let names: Vec<&str> = methods.iter().map(|(_, name)| *name).collect();
    table::print(&names, &kinds, args.shape.is_none() && args.method.is_none());
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
    println!("{rows} samples: {each:.0} ns each, {} bytes of memory", forecaster.bytes());
}

fn dump(trace: &trace::Trace, m: usize) {
    let mut method = anchors::all().swap_remove(m).1;
    for row in &trace.rows {
        let estimate = method.push(row);
        let (eta, lo, hi) = estimate.map_or((-1.0, -1.0, -1.0), |e| {
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
