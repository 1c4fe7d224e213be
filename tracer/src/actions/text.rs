//! Plans and outcomes for people.

use std::fmt::Write as _;

use tracer_model::{
    action::{
        How,
        measured::Measured,
        plan::{Hit, Plan},
    },
    sanitize::{Charset, display_for},
    units::Units,
};

use super::engine::Outcome;

/// Processes that a plan shows by name.
const MAX_PROCESSES: usize = 12;

/// The plan, as `filltop stop` prints it.
#[must_use]
pub fn plan(plan: &Plan, units: Units, charset: Charset) -> String {
    let safe = |text: &str| display_for(text, charset).into_owned();
    let mut out = String::new();
    let target = &plan.target;
    let _ = writeln!(
        out,
        "{} {} ({}), {}",
        plan.how.name(),
        safe(&target.name),
        target.kind,
        match plan.processes.len() {
            1 => "1 process".to_owned(),
            count => format!("{count} processes"),
        }
    );
    let _ = writeln!(out, "  by     {}", safe(plan.by.as_deref().unwrap_or("-")));
    let frees = match plan.frees_bytes {
        0 => "nothing now".to_owned(),
        bytes => format!("{} of deleted files now", units.bytes(bytes)),
    };
    let _ = writeln!(out, "  frees  {frees}");
    if let Some(undo) = &plan.undo {
        let _ = writeln!(out, "  undo   {}", safe(undo));
    }
    out.push('\n');
    for hit in plan.processes.iter().take(MAX_PROCESSES) {
        out.push_str(&process(hit, charset));
    }
    let more = plan.processes.len().saturating_sub(MAX_PROCESSES);
    if more > 0 {
        let _ = writeln!(out, "  … and {more} more");
    }
    for file in plan.files.iter().take(5) {
        let frees = match (file.deleted, file.others.is_empty()) {
            (false, _) => "has a name: ending its holder frees nothing".to_owned(),
            (true, true) => "deleted: ends with its holder".to_owned(),
            (true, false) => format!("deleted, but held by {} others, too", file.others.len()),
        };
        let bytes = units.bytes(file.bytes);
        let inside =
            file.path_in_container.as_deref().map(|path| format!(" ({} in there)", safe(path)));
        let (path, inside) = (safe(&file.path), inside.unwrap_or_default());
        let _ = writeln!(out, "  file   {path}{inside} {bytes}, {frees}");
    }
    let blast = &plan.blast;
    if let Some(measured) = &plan.measured {
        out.push_str(&self::measured(measured, units, charset));
    }
    if blast.processes > 0 {
        let _ = writeln!(
            out,
            "  also   {} more than was named; users {}; writes on {}",
            blast.processes,
            safe(&blast.users.join(", ")),
            safe(&list(&blast.volumes)),
        );
    }
    if !blast.databases.is_empty() {
        let _ = writeln!(out, "  holds  {}", safe(&blast.databases.join(", ")));
    }
    out.push('\n');
    for step in &plan.steps {
        let what = match (&step.refused, &step.by) {
            (Some(reason), _) => format!("refused: {reason}"),
            (None, Some(by)) => format!("frees {}, by {by}", units.bytes(step.frees_bytes)),
            (None, None) => "-".to_owned(),
        };
        let mark = if step.how == plan.how { ">" } else { " " };
        let _ = writeln!(out, "{mark} {:<9} {}", step.how.name(), safe(&what));
    }
    for warning in &plan.warnings {
        let _ = writeln!(out, "! {}", safe(warning));
    }
    for reason in &plan.refused {
        let _ = writeln!(out, "refused: {}", safe(reason));
    }
    out
}

fn measured(measured: &Measured, units: Units, charset: Charset) -> String {
    let by = if measured.source == "service" { "the service" } else { "this filltop" };
    let mut out = String::new();
    for grown in &measured.volumes {
        let _ = writeln!(
            out,
            "  grows  {} on {} ({:.0} % of its growth; over {:.0} s, measured by {by})",
            units.growth(grown.growth_bytes_per_s),
            display_for(&grown.volume, charset),
            grown.share * 100.0,
            measured.seconds,
        );
    }
    out
}

fn list(items: &[String]) -> String {
    if items.is_empty() { "no volume".to_owned() } else { items.join(", ") }
}

fn process(hit: &Hit, charset: Charset) -> String {
    let command = hit.cmdline.as_deref().unwrap_or(&hit.comm);
    let command = display_for(command, charset);
    let command: String = command.chars().take(60).collect();
    let role = format!("{:?}", hit.role).to_lowercase();
    let refused = hit.refused.as_ref().map(|reason| format!("  never: {reason}"));
    format!(
        "  {:<7}{:>8} {:<10} {command}{}\n",
        role,
        hit.pid,
        hit.user,
        refused.unwrap_or_default()
    )
}

/// What was done, in a line or a few.
#[must_use]
pub fn outcome(outcome: &Outcome, units: Units, charset: Charset) -> String {
    let safe = |text: &str| display_for(text, charset).into_owned();
    let mut out = String::new();
    if outcome.dry_run {
        out.push_str("dry run: nothing was done; it would\n");
        for line in &outcome.would {
            let _ = writeln!(out, "  {}", safe(line));
        }
        return out;
    }
    let how = outcome.how.name();
    if let Some(halted) = &outcome.halted {
        let id = outcome.id.as_deref().unwrap_or("?");
        let _ = writeln!(
            out,
            "{how}: {} processes {} after {:.0} ms; `filltop resume {id}` undoes it",
            halted.processes,
            if outcome.how == How::Fence { "are kept off it" } else { "stand still" },
            halted.took_ms
        );
        if let Some(until) = outcome.until {
            let _ = writeln!(out, "it ends by itself at {}", until.strftime("%F %T UTC"));
        }
        for note in &halted.notes {
            let _ = writeln!(out, "! {}", safe(note));
        }
    } else if let Some(ended) = &outcome.ended {
        let _ = writeln!(out, "{how}: {} processes signalled", ended.signalled);
        if !ended.left.is_empty() {
            let _ = writeln!(out, "! still there: {}", safe(&ended.left.join(", ")));
        }
    } else if let Some(bytes) = outcome.freed_bytes {
        let _ = writeln!(out, "{how}: gave back {}", units.bytes(bytes));
    } else {
        let _ = writeln!(out, "{how}: done");
    }
    out
}
