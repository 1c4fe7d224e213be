//! The plan: which processes an action would affect, what it would free now, what else it would
//! touch, and why it is refused. A pure, deterministic function of facts.

use serde::{Deserialize, Serialize};

use super::alternatives::Alternative;
use super::blast_radius::BlastRadius;
use super::effects::Effect;
use super::event::StopEvent;
use super::facts::{Facts, File, Subject};
use super::measurement::Measurement;
use super::protect::{Protection, serves_others, unit_rule};
use super::restart::Restart;
use super::{Action, Intent, Process, Role, alternatives, effects};
use crate::units::Units;

/// What a plan is requested for.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanRequest {
    /// The action.
    pub how: Action,
    /// Who decided.
    pub intent: Intent,
    /// The file to truncate: its path before it was deleted, on the host or in its container, or its
    /// descriptor number.
    pub file: Option<String>,
}

/// One of the possible actions, as it would be for this target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The action.
    pub how: Action,
    /// Space that it frees immediately, bytes.
    pub frees_bytes: u64,
    /// The method.
    pub by: Option<String>,
    /// Why it is refused.
    pub refused: Option<String>,
    /// Whether the target would be restarted; `None` if nothing is known to restart it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<Restart>,
    /// For `term`: processes on which SIGTERM has no effect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignored_by: Vec<u32>,
}

/// An affected process in the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AffectedProcess {
    /// Process id.
    pub pid: u32,
    /// Start time in clock ticks since boot.
    pub start_ticks: u64,
    /// Command name, at most 15 bytes.
    pub comm: String,
    /// Arguments separated by single spaces; `None` if unknown.
    pub cmdline: Option<String>,
    /// User name, or the uid if it has no name.
    pub user: String,
    /// Why it is part of the target.
    pub role: Role,
    /// Why it is protected; `None` if it may be acted on.
    pub refused: Option<String>,
}

/// What an action would do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Version of the JSON form.
    pub schema: u32,
    /// [`StopEvent::Plan`].
    pub event: StopEvent,
    /// The target.
    pub target: Subject,
    /// The requested action.
    pub how: Action,
    /// The method; `None` if the action is not possible here.
    pub by: Option<String>,
    /// Space that it frees immediately, bytes. A file that still has a name frees nothing.
    pub frees_bytes: u64,
    /// Why the action is refused; empty if it is allowed.
    pub refused: Vec<String>,
    /// The affected processes, named ones first, then by pid.
    pub processes: Vec<AffectedProcess>,
    /// What is affected in addition to the target.
    #[serde(rename = "blast")]
    pub blast_radius: BlastRadius,
    /// Files that the target has open, largest first, at most [`MAX_FILES`].
    pub files: Vec<File>,
    /// Number of further files.
    pub more_files: usize,
    /// All possible actions for this target.
    pub steps: Vec<Step>,
    /// Side effects of the action on a container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub effects: Vec<Effect>,
    /// If the action is refused because of a container runtime: the containers whose logs it writes.
    #[serde(rename = "instead", default, skip_serializing_if = "Vec::is_empty")]
    pub alternatives: Vec<Alternative>,
    /// What an operator should know before acting, one sentence each.
    pub warnings: Vec<String>,
    /// The command that undoes the action; `None` if it cannot be undone.
    pub undo: Option<String>,
    /// The target's measured growth; `None` if it was not measured.
    pub measured: Option<Measurement>,
}

/// Maximum number of files that a plan lists.
pub const MAX_FILES: usize = 10;

impl Plan {
    /// Plans an action.
    #[must_use]
    pub fn new(facts: &Facts, request: &PlanRequest, protection: &Protection) -> Self {
        let mut processes: Vec<AffectedProcess> = facts
            .processes
            .iter()
            .map(|process| affected(process, request.intent, protection))
            .collect();
        processes.sort_by_key(|process| (process.role, process.pid));
        let refusals = target_refusals(facts, &processes);
        let file = request.file.as_ref().map(|file| facts.named_file(file));
        let steps: Vec<Step> =
            Action::ALL.into_iter().map(|how| step(how, facts, &refusals, file.as_ref())).collect();
        let chosen = steps.iter().find(|step| step.how == request.how);
        let mut refused: Vec<String> =
            chosen.and_then(|step| step.refused.clone()).into_iter().collect();
        for reason in applying(&refusals, request.how) {
            if !refused.contains(&reason) {
                refused.push(reason);
            }
        }
        let mut files = facts.files.clone();
        files.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.path.cmp(&b.path)));
        let more_files = files.len().saturating_sub(MAX_FILES);
        files.truncate(MAX_FILES);
        Self {
            schema: crate::snapshot::SCHEMA,
            event: StopEvent::Plan,
            target: facts.subject.clone(),
            how: request.how,
            by: chosen.and_then(|step| step.by.clone()),
            frees_bytes: chosen.map_or(0, |step| step.frees_bytes),
            alternatives: if refused.is_empty() {
                Vec::new()
            } else {
                alternatives::of(&facts.files)
            },
            refused,
            blast_radius: BlastRadius::of(facts),
            processes,
            files,
            more_files,
            steps,
            effects: effects::of(&facts.processes, request.how),
            warnings: warnings(facts, request, protection),
            undo: request
                .how
                .reversible()
                .then(|| format!("filltop resume {}", facts.subject.argument)),
            measured: None,
        }
    }

    /// Returns the step of the requested action.
    #[must_use]
    pub fn step(&self) -> Option<&Step> {
        self.steps.iter().find(|step| step.how == self.how)
    }

    /// Adds a reason to refuse the requested action.
    pub fn refuse(&mut self, reason: String) {
        if let Some(step) = self.steps.iter_mut().find(|step| step.how == self.how) {
            step.refused.get_or_insert_with(|| reason.clone());
        }
        self.refused.push(reason);
    }

    /// Adds a measurement: it is shown and may cause warnings, but refuses nothing.
    pub fn attach_measurement(&mut self, measured: Measurement) {
        self.warnings.extend(measured.warnings());
        self.measured = Some(measured);
    }

    /// Returns why the action is refused, in one line: the first three reasons and the number of
    /// further ones.
    #[must_use]
    pub fn refusal(&self) -> String {
        let first: Vec<&str> = self.refused.iter().take(3).map(String::as_str).collect();
        match self.refused.len().saturating_sub(first.len()) {
            0 => first.join("; "),
            more => format!("{}; and {more} more", first.join("; ")),
        }
    }

    /// Whether the action may be carried out.
    #[must_use]
    pub fn allowed(&self) -> bool {
        self.refused.is_empty()
    }
}

/// Why a target must not be acted on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum TargetRefusal {
    #[error("unit {unit} is protected ({rule})")]
    ProtectedUnit { unit: String, rule: &'static str },
    #[error("the root cgroup is the whole machine")]
    RootCgroup,
    #[error("it has already ended: none of its processes is left")]
    Ended,
    #[error("{pid} ({comm}): {reason}")]
    ProtectedProcess { pid: u32, comm: String, reason: String },
}

impl TargetRefusal {
    /// Whether this refuses the action. A unit that starts a new process each time can be stopped
    /// between two of them.
    fn applies_to(&self, how: Action) -> bool {
        !(how == Action::Unit && *self == Self::Ended)
    }
}

/// Returns the reasons that refuse the action.
fn applying(refusals: &[TargetRefusal], how: Action) -> impl Iterator<Item = String> {
    refusals.iter().filter(move |refusal| refusal.applies_to(how)).map(ToString::to_string)
}

/// Returns one of the possible actions, as it would be for this target. `file`: the result of searching
/// for the file to truncate, if one was named.
fn step(
    how: Action,
    facts: &Facts,
    refusals: &[TargetRefusal],
    file: Option<&Result<&File, String>>,
) -> Step {
    let by = facts.method(how);
    let refused = match (how, &by, file) {
        (Action::Truncate, _, None) => {
            Some("name the file with --file, as `filltop held` prints it".to_owned())
        }
        (Action::Truncate, _, Some(Err(reason))) | (_, Err(reason), _) => Some(reason.clone()),
        (_, Ok(_), _) => applying(refusals, how).next(),
    };
    let freed = facts.files.iter().filter(|file| file.is_freed_with_target());
    Step {
        how,
        frees_bytes: match (how, file) {
            (Action::Truncate, Some(Ok(file))) => file.bytes,
            _ if how.ends() => freed.map(|file| file.bytes).sum(),
            _ => 0,
        },
        by: by.ok(),
        refused,
        restart: facts.restart.as_ref().and_then(|policy| policy.after(how)),
        ignored_by: match how {
            Action::Term => ignoring_term(&facts.processes),
            _ => Vec::new(),
        },
    }
}

/// Returns the pids of the processes on which SIGTERM has no effect.
fn ignoring_term(processes: &[Process]) -> Vec<u32> {
    processes.iter().filter(|process| process.ignores_term).map(|process| process.pid).collect()
}

fn affected(process: &Process, intent: Intent, protection: &Protection) -> AffectedProcess {
    AffectedProcess {
        pid: process.pid,
        start_ticks: process.start_ticks,
        comm: process.comm.clone(),
        cmdline: process.cmdline.clone(),
        user: process.user.clone(),
        role: process.role,
        refused: protection.refusal(process, intent),
    }
}

/// Returns the reasons not to act on this target, whatever the action.
fn target_refusals(facts: &Facts, processes: &[AffectedProcess]) -> Vec<TargetRefusal> {
    let mut refusals = Vec::new();
    let subject = &facts.subject;
    if let Some(rule) = subject.kind.group().and_then(|kind| unit_rule(kind, &subject.name)) {
        refusals.push(TargetRefusal::ProtectedUnit { unit: subject.name.clone(), rule });
    }
    if subject.cgroup.as_deref().is_some_and(|path| path.trim_matches('/').is_empty()) {
        refusals.push(TargetRefusal::RootCgroup);
    }
    if processes.is_empty() {
        refusals.push(TargetRefusal::Ended);
    }
    for AffectedProcess { pid, comm, refused, .. } in processes {
        if let Some(reason) = refused.clone() {
            refusals.push(TargetRefusal::ProtectedProcess {
                pid: *pid,
                comm: comm.clone(),
                reason,
            });
        }
    }
    refusals
}

fn warnings(facts: &Facts, request: &PlanRequest, protection: &Protection) -> Vec<String> {
    let mut warnings = facts.warnings.clone();
    if let Some(configured) = &protection.configured {
        warnings.extend(configured.warnings(&facts.processes));
    }
    if matches!(
        request.how,
        Action::Freeze | Action::Throttle | Action::Fence | Action::Kill | Action::Term
    ) {
        for process in &facts.processes {
            if let Some(why) = serves_others(process) {
                warnings.push(format!(
                    "{} ({}): {why}; programs that use it may hang or fail",
                    process.pid, process.comm
                ));
            }
        }
    }
    let shared_files = || facts.files.iter().filter(|file| file.deleted && file.is_shared());
    let shared: u64 = shared_files().map(|file| file.bytes).sum();
    if shared > 0 && request.how.ends() {
        warnings.push(format!(
            "{} of deleted files remain held by processes outside the target{}",
            Units::Iec.bytes(shared),
            if shared_files().any(|file| file.kernel) { ", or by the kernel" } else { "" }
        ));
    }
    match request.how {
        Action::Truncate => warnings.push(
            "truncating destroys the file's contents: the process that still reads and writes it may \
             fail or write wrong data"
                .to_owned(),
        ),
        Action::Fence => warnings.push(
            "a process that cannot write may give up or lose the data; what other processes write for \
             it (a loop device, a log daemon, a server) is not blocked"
                .to_owned(),
        ),
        Action::Kill => {
            warnings.push("SIGKILL gives the processes no time to write out their data".to_owned());
        }
        _ => {}
    }
    warnings
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
