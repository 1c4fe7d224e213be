//! Plans and outcomes as text.

use std::fmt::Write as _;

use tracer_model::action::Action;
use tracer_model::action::blast_radius::BlastRadius;
use tracer_model::action::effects::Effect;
use tracer_model::action::facts::File;
use tracer_model::action::measurement::{Measurement, Source};
use tracer_model::action::plan::{AffectedProcess, Plan, Step};
use tracer_model::action::restart::Manager;
use tracer_model::sanitize::{Charset, display_for, shell_word};
use tracer_model::units::Units;

use super::outcome::Outcome;

/// Maximum number of processes that a plan lists.
const MAX_PROCESSES: usize = 12;
/// Maximum number of files that the text of a plan lists.
const MAX_FILES: usize = 5;

/// Formats a plan, as `filltop stop` prints it.
#[must_use]
pub(crate) fn plan(plan: &Plan, units: Units, charset: Charset) -> String {
    let safe = |text: &str| display_for(text, charset).into_owned();
    let mut out = summary(plan, units, charset);
    out.push('\n');
    for affected in plan.processes.iter().take(MAX_PROCESSES) {
        out.push_str(&process(affected, charset));
    }
    let more = plan.processes.len().saturating_sub(MAX_PROCESSES);
    if more > 0 {
        let _ = writeln!(out, "  … and {more} more");
    }
    for open in plan.files.iter().take(MAX_FILES) {
        out.push_str(&file(open, units, charset));
    }
    if let Some(measured) = &plan.measured {
        out.push_str(&measurement(measured, units, charset));
    }
    out.push_str(&blast_radius(&plan.blast_radius, charset));
    out.push('\n');
    for step in &plan.steps {
        let what = match (&step.refused, &step.by) {
            (Some(reason), _) => format!("refused: {reason}"),
            (None, Some(by)) => format!("frees {}: {by}", units.bytes(step.frees_bytes)),
            (None, None) => "-".to_owned(),
        };
        let mark = if step.how == plan.how { ">" } else { " " };
        let _ = writeln!(out, "{mark} {:<9} {}", step.how.name(), safe(&what));
    }
    if let Some(step) = plan.step().filter(|_| plan.allowed()) {
        out.push_str(&step_warnings(step, charset));
    }
    for effect in &plan.effects {
        let _ = writeln!(out, "! {}", self::effect(*effect));
    }
    for warning in &plan.warnings {
        let _ = writeln!(out, "! {}", safe(warning));
    }
    for reason in &plan.refused {
        let _ = writeln!(out, "refused: {}", safe(reason));
    }
    for log in &plan.alternatives {
        let _ = writeln!(
            out,
            "it writes a container's log ({}); stop the container instead: filltop stop {}",
            units.bytes(log.bytes),
            safe(&shell_word(&log.target))
        );
    }
    out
}

/// Describes the action: its target, method and effect, and how to undo it.
fn summary(plan: &Plan, units: Units, charset: Charset) -> String {
    let safe = |text: &str| display_for(text, charset).into_owned();
    let mut out = String::new();
    let target = &plan.target;
    let _ = writeln!(
        out,
        "{} {} ({}), {}",
        plan.how.name(),
        safe(&target.name),
        target.kind,
        processes(plan.processes.len())
    );
    let _ = writeln!(out, "  method {}", safe(plan.by.as_deref().unwrap_or("-")));
    let frees = match plan.frees_bytes {
        0 => "nothing now".to_owned(),
        bytes => format!("{} of deleted files now", units.bytes(bytes)),
    };
    let _ = writeln!(out, "  frees  {frees}");
    if let Some(undo) = &plan.undo {
        let _ = writeln!(out, "  undo   {}", safe(undo));
    }
    out
}

/// Describes an open file of the target: its path, its size, and whether its space is freed.
fn file(file: &File, units: Units, charset: Charset) -> String {
    let safe = |text: &str| display_for(text, charset).into_owned();
    let frees = match (file.deleted, file.others.is_empty()) {
        (false, _) => "not deleted: terminating the process frees nothing".to_owned(),
        (true, true) if file.kernel => {
            "deleted, but the kernel also holds it (a loop device, or swap space)".to_owned()
        }
        (true, true) => "deleted: freed when the process exits".to_owned(),
        (true, false) => {
            let also = if file.others.len() == 1 { "also holds" } else { "also hold" };
            format!("deleted, but {} outside the target {also} it", processes(file.others.len()))
        }
    };
    let inside = file
        .path_in_container
        .as_deref()
        .map(|path| format!(" ({} in the container)", safe(path)))
        .unwrap_or_default();
    format!("  file   {}{inside} {}, {frees}\n", safe(&file.path), units.bytes(file.bytes))
}

/// Describes what is affected in addition to the named processes.
fn blast_radius(radius: &BlastRadius, charset: Charset) -> String {
    let safe = |text: &str| display_for(text, charset).into_owned();
    let mut out = String::new();
    if radius.processes > 0 || !radius.volumes.is_empty() {
        let more = match radius.processes {
            0 => String::new(),
            more => format!("{} not named; ", processes(more)),
        };
        let _ = writeln!(
            out,
            "  also   {more}users {}; writes to {}",
            safe(&radius.users.join(", ")),
            safe(&list(&radius.volumes)),
        );
    }
    if !radius.databases.is_empty() {
        let _ = writeln!(out, "  runs   database {}", safe(&radius.databases.join(", ")));
    }
    out
}

/// Returns the warnings about a terminating action: restarts, and processes that ignore SIGTERM.
fn step_warnings(step: &Step, charset: Charset) -> String {
    let mut out = String::new();
    if let Some(restart) = &step.restart {
        let by = restart.by.name();
        let policy = restart.policy.as_deref().map(|policy| display_for(policy, charset));
        let warning = match (restart.by, restart.returns, policy) {
            (_, Some(true), Some(policy)) => {
                Some(format!("will be restarted by {by}: restart policy {policy}"))
            }
            (_, Some(false), _) => None,
            (Manager::Kubelet, ..) => Some(
                "kubelet restarts it according to the pod's restartPolicy (default: Always)"
                    .to_owned(),
            ),
            (_, _, Some(policy)) => {
                Some(format!("may be restarted by {by}: restart policy {policy}"))
            }
            (_, _, None) => {
                Some(format!("may be restarted by {by}: its restart policy cannot be read here"))
            }
        };
        if let Some(warning) = warning {
            let _ = writeln!(out, "! {warning}");
        }
    }
    if !step.ignored_by.is_empty() {
        let pids: Vec<String> = step.ignored_by.iter().take(8).map(u32::to_string).collect();
        let _ = writeln!(
            out,
            "! SIGTERM has no effect on {} (ignored, or PID 1 of a container without a handler); use \
             `--how kill`",
            pids.join(", ")
        );
    }
    out
}

/// Describes a side effect of a freeze, in one line.
const fn effect(effect: Effect) -> &'static str {
    match effect {
        Effect::Exec => "while frozen, commands in it (exec, attach) hang or are refused",
        Effect::HealthChecks => "while frozen, its health checks fail",
        Effect::Probes => {
            "while frozen, its probes fail; kubelet restarts a container whose liveness probe fails"
        }
        Effect::ShownAsRunning => "while frozen, its runtime still lists it as running",
        Effect::SlowStop => {
            "while frozen, its runtime's own stop waits (docker and podman: 10 s), then kills it"
        }
    }
}

fn measurement(measured: &Measurement, units: Units, charset: Charset) -> String {
    let by = match measured.source {
        Source::Service => "the service",
        Source::Here => "this command",
    };
    let mut out = String::new();
    for grown in &measured.volumes {
        let _ = writeln!(
            out,
            "  grows  {} on {} ({:.0} % of the volume's growth over {:.0} s, measured by {by})",
            units.growth(grown.growth_bytes_per_s),
            display_for(&grown.volume, charset),
            grown.share * 100.0,
            measured.seconds,
        );
    }
    out
}

/// Returns `1 process`, `2 processes`.
fn processes(count: usize) -> String {
    if count == 1 { "1 process".to_owned() } else { format!("{count} processes") }
}

fn list(items: &[String]) -> String {
    if items.is_empty() { "no volume".to_owned() } else { items.join(", ") }
}

fn process(process: &AffectedProcess, charset: Charset) -> String {
    let command = process.cmdline.as_deref().unwrap_or(&process.comm);
    let command = display_for(command, charset);
    let command: String = command.chars().take(60).collect();
    let refused = process.refused.as_ref().map(|reason| format!("  refused: {reason}"));
    format!(
        "  {:<7}{:>8} {:<10} {command}{}\n",
        process.role.name(),
        process.pid,
        process.user,
        refused.unwrap_or_default()
    )
}

/// Formats the result of an action, in one or a few lines.
#[must_use]
pub(crate) fn outcome(outcome: &Outcome, units: Units, charset: Charset) -> String {
    let safe = |text: &str| display_for(text, charset).into_owned();
    let mut out = String::new();
    if outcome.dry_run {
        out.push_str("dry run: nothing was done; it would:\n");
        for line in &outcome.would {
            let _ = writeln!(out, "  {}", safe(line));
        }
        return out;
    }
    let how = outcome.how.name();
    if let Some(report) = &outcome.suspended {
        let id = outcome.id.as_deref().unwrap_or("?");
        let (state, end) = match outcome.how {
            Action::Fence => ("fenced", "ends"),
            Action::Throttle => ("throttled", "ends"),
            _ => ("suspended", "resumes"),
        };
        let _ = writeln!(
            out,
            "{how}: {} {state} in {:.0} ms; undo with `filltop resume {id}`",
            processes(report.processes),
            report.took_ms
        );
        if let Some(until) = outcome.until {
            let _ = writeln!(out, "{end} automatically at {}", until.strftime("%F %T UTC"));
        }
        for note in &report.notes {
            let _ = writeln!(out, "! {}", safe(note));
        }
    } else if let Some(report) = &outcome.terminated {
        let gone = report.signalled.saturating_sub(report.left.len());
        let _ = match outcome.how {
            Action::Unit => writeln!(out, "{how}: {gone} of {} ended", processes(report.signalled)),
            _ => writeln!(out, "{how}: {} signalled", processes(report.signalled)),
        };
        if !report.left.is_empty() {
            let _ = writeln!(out, "! still there: {}", safe(&report.left.join(", ")));
        }
        if let Some(back) = report.restarted.as_ref().filter(|back| !back.is_empty()) {
            let pids: Vec<String> = back.iter().take(8).map(u32::to_string).collect();
            let _ = writeln!(out, "! it was restarted: now pid {}", pids.join(", "));
        }
    } else if let Some(bytes) = outcome.freed_bytes {
        let _ = writeln!(out, "{how}: freed {}", units.bytes(bytes));
    } else {
        let _ = writeln!(out, "{how}: done");
    }
    out
}

#[cfg(test)]
mod tests {
    use tracer_model::action::facts::{Facts, Method, Subject};
    use tracer_model::action::plan::PlanRequest;
    use tracer_model::action::protect::Protection;
    use tracer_model::action::restart::RestartPolicy;
    use tracer_model::action::subject_kind::SubjectKind;
    use tracer_model::action::{Intent, Process, Relation, Role};
    use tracer_model::snapshot::{Group, GroupKind};

    use super::*;

    fn process(pid: u32, comm: &str) -> Process {
        Process {
            pid,
            start_ticks: 4_200,
            ppid: 1,
            comm: comm.to_owned(),
            cmdline: Some(format!("{comm} --serve /srv")),
            user: "www-data".to_owned(),
            group: Some(Group {
                kind: GroupKind::Docker,
                name: "web".to_owned(),
                ..Group::default()
            }),
            kernel_thread: false,
            namespace_init: pid == 70,
            ignores_term: pid == 70,
            relation: Relation::default(),
            databases: Vec::new(),
            serves: None,
            role: Role::Member,
        }
    }

    fn file(path: &str, bytes: u64, deleted: bool, others: &[u32]) -> File {
        File {
            path: path.to_owned(),
            path_in_container: deleted.then(|| "/data/a.log".to_owned()),
            link: None,
            volume: "/srv".to_owned(),
            bytes,
            deleted,
            pid: 70,
            fd: Some(3),
            others: others.to_vec(),
            kernel: false,
        }
    }

    /// The output of `filltop stop --dry-run` for a container that Docker restarts, for each action.
    #[test]
    fn plans_of_every_step() {
        let facts = Facts {
            subject: Subject {
                argument: "web".to_owned(),
                kind: SubjectKind::Group(GroupKind::Docker),
                name: "web".to_owned(),
                cgroup: Some("/docker/3f1c".to_owned()),
            },
            processes: vec![process(70, "httpd"), process(71, "postgres")],
            files: vec![
                file("/srv/web/named.log", 9 << 20, false, &[]),
                file("/srv/web/held.log", 5 << 20, true, &[]),
                file("/srv/web/shared.log", 1 << 20, true, &[99]),
            ],
            methods: Action::ALL
                .into_iter()
                .map(|how| Method { how, by: Ok("the method".to_owned()) })
                .collect(),
            restart: Some(RestartPolicy { by: Manager::Docker, policy: Some("always".to_owned()) }),
            warnings: vec!["a warning".to_owned()],
        };
        for how in Action::ALL {
            let request = PlanRequest {
                how,
                intent: Intent::Asked,
                file: Some("/srv/web/held.log".to_owned()),
            };
            let made = Plan::new(&facts, &request, &Protection::default());
            let text = plan(&made, Units::Iec, Charset::Unicode);
            insta::assert_snapshot!(format!("plan_{}", how.name()), text);
        }
    }
}
