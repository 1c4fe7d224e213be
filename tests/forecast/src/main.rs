//! Scores filltop's forecast and the formulas in use today on the same traces.

mod anchors;
mod score;
mod shapes;
mod trace;

use std::path::Path;

use clap::Parser;
use score::{Score, mean, median};

#[derive(Parser)]
struct Args {
    /// First seed.
    #[arg(long, default_value_t = 1000)]
    from: u64,
    /// Seeds for each shape.
    #[arg(long, default_value_t = 8)]
    seeds: u64,
    /// Only this shape.
    #[arg(long)]
    shape: Option<String>,
    /// A line for each shape.
    #[arg(long)]
    by_shape: bool,
    /// Only this method.
    #[arg(long)]
    method: Option<String>,
    /// Write the CSV of the shape's first seed to stdout with what is said and the truth.
    #[arg(long)]
    dump: bool,
}

fn line(name: &str, s: &Score, traces: f64) -> String {
    let med = |v: &[f64]| median(&mut v.iter().map(|x| (*x, 1.0)).collect::<Vec<_>>());
    // Minutes and flips for a set of 24 traces.
    let per = 24.0 / traces;
    format!(
        "| {name:<20} | {:>5.1} | {:>5.1} | {:>5.1} | {:.2}/{:.2}/{:.2} | {:>5.1} | {:>7.0} | {:>7.0} | {:>7.0} | {:>5.1} | {:>5.1} | {:>5.1} | {:>3.0}/{:>3.0} |",
        100.0 * mean(&s.lead),
        100.0 * mean(&s.kept),
        100.0 * mean(&s.kept_all),
        med(&s.errors[0]),
        med(&s.errors[1]),
        med(&s.errors[2]),
        100.0 * s.misses(),
        s.false_minutes * per,
        s.false_soon * per,
        s.false_any * per,
        s.flips[0] as f64 * per,
        s.flips[1] as f64 * per,
        s.flips[2] as f64 * per,
        100.0 * s.covered[0] / s.covered[1],
        100.0 * mean(&s.coverage),
    )
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let recorded = recorded(args.shape.as_deref())?;
    let shapes: Vec<&'static str> = shapes::SHAPES
        .iter()
        .copied()
        .filter(|s| args.shape.as_deref().is_none_or(|want| want == *s))
        .collect();
    println!("| method | lead | kept | kept all | err 60/10/1 | misses | false4h | false30m | false any | flips4h | 30m | any | cover |");
    for (m, (name, _)) in anchors::all().iter().enumerate() {
        if args.method.as_deref().is_some_and(|want| want != *name) {
            continue;
        }
        let mut total = Score::default();
        for shape in &shapes {
            let mut score = Score::default();
            for seed in args.from..args.from + args.seeds {
                let trace = shapes::generate(shape, seed);
                if args.dump {
                    dump(&trace, m);
                    return Ok(());
                }
                let mut method = anchors::all().swap_remove(m).1;
                score.add(&trace, method.as_mut());
            }
            if args.by_shape {
                println!("{}", line(shape, &score, args.seeds as f64 * 24.0));
            }
            total.merge(&score);
        }
        for trace in &recorded {
            if args.dump {
                dump(trace, m);
                return Ok(());
            }
            let mut score = Score::default();
            score.add(trace, anchors::all().swap_remove(m).1.as_mut());
            if args.by_shape {
                println!("{}", line(trace.shape, &score, 24.0));
            }
            total.merge(&score);
        }
        let traces = args.seeds as usize * shapes.len() + recorded.len();
        println!("{}", line(name, &total, traces as f64));
    }
    Ok(())
}

fn recorded(only: Option<&str>) -> anyhow::Result<Vec<trace::Trace>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("traces");
    trace::RECORDED
        .iter()
        .filter(|(name, _)| only.is_none_or(|o| o == *name))
        .map(|(name, onset)| trace::recorded(name, &folder.join(format!("{name}.csv")), *onset))
        .collect()
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
