//! Converting the output of `filltop-workload bench` to rows of figures.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// The name of the measurement without any program.
const NONE: &str = "none";
/// The program whose cost is the unit of [`Row::times_floor`].
pub(crate) const FLOOR: &str = "empty-fexit";
/// The repeatability of figures, in instructions. A smaller added cost counts as none.
const NOISE: f64 = 10.0;

/// A line of output of `filltop-workload bench`.
#[derive(Deserialize, Debug, Clone)]
#[serde(untagged)]
pub(crate) enum Line {
    /// A program that could not be measured, and the reason.
    Skip { program: String, skip: String },
    /// A measurement, in nanoseconds per operation.
    Figure { program: String, case: String, min: f64, median: f64 },
}

impl Line {
    /// Parses the JSON lines of the output and ignores all others.
    pub(crate) fn parse_all(lines: &[String]) -> Result<Vec<Self>> {
        let json = lines.iter().filter(|line| line.starts_with('{'));
        json.map(|line| serde_json::from_str(line).with_context(|| line.clone())).collect()
    }
}

/// The cost of a program in a loop.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
pub(crate) struct Row {
    /// `uname -r` of the kernel.
    pub(crate) kernel: String,
    /// The name of the loop.
    pub(crate) case: String,
    /// The name of the program.
    pub(crate) program: String,
    /// The cost of an operation without the program: instructions in a virtual machine, nanoseconds natively.
    pub(crate) baseline: f64,
    /// What the program adds to the baseline.
    pub(crate) added: f64,
    /// `added` divided by what the empty fexit adds; `null` if that is nothing.
    pub(crate) times_floor: Option<f64>,
    /// The range of the added cost: of the fastest and the median batch in a virtual machine, from the second
    /// lowest to the second highest round natively.
    pub(crate) spread: [f64; 2],
}

/// A program that could not be measured.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
pub(crate) struct Skip {
    /// `uname -r` of the kernel.
    pub(crate) kernel: String,
    /// The name of the program.
    pub(crate) program: String,
    /// The reason.
    pub(crate) skip: String,
}

/// All measurements on one kernel or machine.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
pub(crate) struct Part {
    /// `vm-SERIES`, `native` or `scale-CPUS`; also the name of the stored file.
    pub(crate) name: String,
    /// `uname -r` of the kernel.
    pub(crate) kernel: String,
    /// The unit of the figures: `instructions` or `ns`.
    pub(crate) unit: String,
    /// The figures, in the order measured.
    pub(crate) rows: Vec<Row>,
    /// The programs that could not be measured.
    pub(crate) skips: Vec<Skip>,
    /// The largest change of a loop's baseline between rounds, in the same unit.
    pub(crate) drift: f64,
}

impl Part {
    /// Figures of a machine that counts instructions: the fastest batch with the program minus the fastest without
    /// it.
    pub(crate) fn from_instruction_counts(
        name: &str,
        kernel: &str,
        lines: &[Line],
    ) -> Result<Self> {
        let mut part = Self::empty(name, kernel, "instructions", lines);
        for (program, case) in measured(lines) {
            let alone = batches(lines, NONE, case);
            let least = |values: &[(f64, f64)]| values.iter().map(|v| v.0).reduce(f64::min);
            let most = |values: &[(f64, f64)]| values.iter().map(|v| v.0).reduce(f64::max);
            let baseline = least(&alone).with_context(|| format!("no baseline of {case}"))?;
            part.drift = part.drift.max(most(&alone).unwrap_or(baseline) - baseline);
            let usual = alone.iter().map(|v| v.1).reduce(f64::min).unwrap_or(baseline);
            let (min, median) = batches(lines, program, case)[0];
            let (a, b) = (min - baseline, median - usual);
            part.rows.push(Row {
                kernel: kernel.to_owned(),
                case: case.to_owned(),
                program: program.to_owned(),
                baseline: round(baseline),
                added: round(a),
                times_floor: None,
                spread: [round(a.min(b)), round(a.max(b))],
            });
        }
        part.set_floor();
        Ok(part)
    }

    /// Figures of a machine that measures time: medians over all rounds of the difference within a round. Differences
    /// are of median batches, for loops with several threads of the fastest batches, because in the others some
    /// threads waited for a CPU.
    pub(crate) fn from_timings(name: &str, kernel: &str, lines: &[Line]) -> Result<Self> {
        let mut part = Self::empty(name, kernel, "ns", lines);
        let mut alone: Vec<&Line> = Vec::new();
        /// Program and loop, and for each round the baseline and the added time.
        type Rounds<'a> = ((&'a str, &'a str), Vec<(f64, f64)>);
        let mut differences: Vec<Rounds<'_>> = Vec::new();
        for line in lines {
            let Line::Figure { program, case, min, median } = line else { continue };
            let figure =
                |min: f64, median: f64| if case.starts_with("threads-") { min } else { median };
            if program == NONE {
                alone.retain(|old| !matches!(old, Line::Figure { case: c, .. } if c == case));
                alone.push(line);
                continue;
            }
            let before = alone.iter().find_map(|old| match old {
                Line::Figure { case: c, min, median, .. } if c == case => {
                    Some(figure(*min, *median))
                }
                _ => None,
            });
            let before = before.with_context(|| format!("no baseline of {case}"))?;
            let key = (program.as_str(), case.as_str());
            let difference = (before, figure(*min, *median) - before);
            match differences.iter_mut().find(|(other, _)| *other == key) {
                Some((_, values)) => values.push(difference),
                None => differences.push((key, vec![difference])),
            }
        }
        for ((program, case), values) in differences {
            let sorted = |pick: fn(&(f64, f64)) -> f64| {
                let mut values: Vec<f64> = values.iter().map(pick).collect();
                values.sort_unstable_by(f64::total_cmp);
                values
            };
            let (baselines, added) = (sorted(|v| v.0), sorted(|v| v.1));
            let edge = usize::from(added.len() > 2);
            part.rows.push(Row {
                kernel: kernel.to_owned(),
                case: case.to_owned(),
                program: program.to_owned(),
                baseline: round(baselines[baselines.len() / 2]),
                added: round(added[added.len() / 2]),
                times_floor: None,
                spread: [round(added[edge]), round(added[added.len() - 1 - edge])],
            });
        }
        part.set_floor();
        Ok(part)
    }

    fn empty(name: &str, kernel: &str, unit: &str, lines: &[Line]) -> Self {
        let skips = lines.iter().filter_map(|line| match line {
            Line::Skip { program, skip } => Some(Skip {
                kernel: kernel.to_owned(),
                program: program.clone(),
                skip: skip.clone(),
            }),
            Line::Figure { .. } => None,
        });
        Self {
            name: name.to_owned(),
            kernel: kernel.to_owned(),
            unit: unit.to_owned(),
            rows: Vec::new(),
            skips: skips.collect(),
            drift: 0.0,
        }
    }

    fn set_floor(&mut self) {
        let floors: Vec<(String, f64)> = self
            .rows
            .iter()
            .filter(|row| row.program == FLOOR && row.added > NOISE)
            .map(|row| (row.case.clone(), row.added))
            .collect();
        for row in &mut self.rows {
            let floor = floors.iter().find(|(case, _)| *case == row.case);
            row.times_floor = floor.map(|(_, floor)| round(row.added / floor));
        }
    }

    /// The figures of a program in a loop.
    pub(crate) fn row(&self, program: &str, case: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.program == program && row.case == case)
    }
}

/// Programs and loops with figures, in the order of the lines.
fn measured(lines: &[Line]) -> Vec<(&str, &str)> {
    let figures = lines.iter().filter_map(|line| match line {
        Line::Figure { program, case, .. } if program != NONE => {
            Some((program.as_str(), case.as_str()))
        }
        _ => None,
    });
    figures.collect()
}

/// The fastest and the median batch of a program in a loop, for each round.
fn batches(lines: &[Line], program: &str, case: &str) -> Vec<(f64, f64)> {
    let figures = lines.iter().filter_map(|line| match line {
        Line::Figure { program: p, case: c, min, median, .. } if p == program && c == case => {
            Some((*min, *median))
        }
        _ => None,
    });
    figures.collect()
}

/// Rounds to hundredths; further digits are noise.
fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// The rows and skips of all parts as a JSON array.
pub(crate) fn json(parts: &[Part]) -> Result<String> {
    let mut all = Vec::new();
    for part in parts {
        for row in &part.rows {
            all.push(serde_json::to_value(row)?);
        }
        for skip in &part.skips {
            all.push(serde_json::to_value(skip)?);
        }
    }
    let lines: Vec<String> = all.iter().map(|row| format!("  {row}")).collect();
    Ok(format!("[\n{}\n]\n", lines.join(",\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<Line> {
        let lines: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
        Line::parse_all(&lines).unwrap()
    }

    #[test]
    fn counted_figures_are_differences_and_multiples_of_the_floor() {
        let lines = lines(
            r#"{"program":"none","case":"a","round":0,"min":1000.0,"median":1010.0,"batches":5}
               {"program":"empty-fexit","case":"a","round":0,"min":1184.0,"median":1194.0,"batches":5}
               {"program":"filltop-fexit","case":"a","round":0,"min":1276.0,"median":1310.0,"batches":5}
               {"program":"biotop","skip":"no such function"}
               {"program":"none","case":"a","round":1,"min":1002.0,"median":1012.0,"batches":5}"#,
        );
        let part = Part::from_instruction_counts("vm-6.1", "6.1.0", &lines).unwrap();
        let row = part.row("filltop-fexit", "a").unwrap();
        assert_eq!((row.baseline, row.added, row.times_floor), (1000.0, 276.0, Some(1.5)));
        assert_eq!(row.spread, [276.0, 300.0]);
        assert_eq!(part.drift, 2.0);
        assert_eq!(part.skips[0].program, "biotop");
    }

    #[test]
    fn a_floor_within_the_noise_is_not_used() {
        let lines = lines(
            r#"{"program":"none","case":"io","round":0,"min":1000.0,"median":1010.0}
               {"program":"empty-fexit","case":"io","round":0,"min":1001.0,"median":1010.0}
               {"program":"filltop-fexit","case":"io","round":0,"min":1276.0,"median":1310.0}"#,
        );
        let part = Part::from_instruction_counts("vm-6.1", "6.1.0", &lines).unwrap();
        assert_eq!(part.row("filltop-fexit", "io").unwrap().times_floor, None);
    }

    #[test]
    fn timed_figures_are_medians_of_differences_within_a_round() {
        let mut text = String::new();
        for (round, (alone, with)) in
            [(100.0, 150.0), (500.0, 551.0), (100.0, 900.0)].into_iter().enumerate()
        {
            text += &format!(
                "{{\"program\":\"none\",\"case\":\"a\",\"round\":{round},\"min\":1.0,\"median\":{alone}}}\n\
                 {{\"program\":\"x\",\"case\":\"a\",\"round\":{round},\"min\":1.0,\"median\":{with}}}\n"
            );
        }
        let part = Part::from_timings("native", "6.18", &lines(&text)).unwrap();
        let row = part.row("x", "a").unwrap();
        assert_eq!((row.baseline, row.added), (100.0, 51.0));
    }
}
