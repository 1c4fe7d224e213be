//! The running guard: the pure [`Policy`] decides, the [helper process](super::helper) acts.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::mpsc::error::TryRecvError;
use tracer_model::action::protect::Protection;
use tracer_model::action::{Action, Intent};
use tracer_model::guard::{ActionResult, Decision, GuardConfig, Policy};
use tracer_model::sanitize::shell_word;
use tracer_model::snapshot::{GroupKind, Snapshot};

use super::helper::client::PrivilegedHelper;
use super::helper::protocol::{Command, Response, Status};
use super::request::{StopRequest, TargetSpec};
use super::target::Reach;

/// A guard event, reported by `filltop watch`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct GuardEvent {
    /// The decision that the event is about.
    pub decision: Decision,
    /// One sentence: why the group was chosen, or the result.
    pub summary: String,
    /// The equivalent `filltop stop` command; `None` if no action was decided.
    pub command: Option<String>,
    /// The result; `None` until the decision has been carried out.
    pub result: Option<ActionResult>,
}

/// A running guard with its helper process.
pub(crate) struct Guard {
    policy: Policy,
    helper: PrivilegedHelper,
    responses: UnboundedReceiver<Response>,
    /// Requested actions that are not over yet, by request number.
    pending: BTreeMap<u64, Decision>,
    /// Request numbers of the freezes, throttles and fences in force.
    in_force: BTreeSet<u64>,
}

impl Guard {
    /// Starts a guard; `None` if the configuration does not enable it. Must be called before the tracer
    /// drops its privileges.
    ///
    /// # Errors
    /// If the configuration is invalid, or the helper process cannot be started.
    pub(crate) fn start(config: GuardConfig) -> anyhow::Result<Option<Self>> {
        config.check().map_err(anyhow::Error::msg)?;
        if !config.enabled {
            return Ok(None);
        }
        let (helper, responses) = PrivilegedHelper::start()?;
        Ok(Some(Self {
            policy: Policy::new(config),
            helper,
            responses,
            pending: BTreeMap::new(),
            in_force: BTreeSet::new(),
        }))
    }

    /// Replaces the configuration, which must be checked.
    pub(crate) fn replace(&mut self, config: GuardConfig) {
        self.policy.replace(config);
    }

    /// Evaluates a Snapshot at `now_s` (seconds since boot). Returns the results of earlier decisions
    /// first, then new decisions. Does not block.
    pub(crate) fn evaluate(&mut self, now_s: f64, snapshot: &Snapshot) -> Vec<GuardEvent> {
        let mut events = self.poll_responses();
        // For the policy, an action that is still being carried out counts as in force.
        let in_force: BTreeSet<u64> = self.pending.values().map(|decision| decision.id).collect();
        for decision in self.policy.evaluate(now_s, snapshot, &in_force) {
            events.push(self.act(decision));
        }
        events
    }

    fn act(&mut self, decision: Decision) -> GuardEvent {
        let summary = decision.explanation.clone();
        let Some(step) = decision.step else {
            return GuardEvent { decision, summary, command: None, result: None };
        };
        let command = Some(command(&decision, step));
        let request = request(&decision, step);
        let avoid = self.policy.config().avoid.clone();
        let protection = Protection { avoid, configured: None };
        match self.helper.send(Command::Act { request: Box::new(request), protection }) {
            Ok(number) => {
                self.pending.insert(number, decision.clone());
                GuardEvent { decision, summary, command, result: None }
            }
            Err(error) => {
                let result = ActionResult::Failed(format!("{error:#}"));
                self.policy.record_result(decision.id, &result);
                let summary = format!("{summary}; failed: {error:#}");
                GuardEvent { decision, summary, command, result: Some(result) }
            }
        }
    }

    fn poll_responses(&mut self) -> Vec<GuardEvent> {
        let mut events = Vec::new();
        loop {
            let Response { number, status, message, .. } = match self.responses.try_recv() {
                Ok(response) => response,
                Err(TryRecvError::Empty) => return events,
                Err(TryRecvError::Disconnected) => {
                    // The helper has exited, and every suspension that it owned has ended.
                    self.pending.clear();
                    self.in_force.clear();
                    return events;
                }
            };
            let Some(decision) = self.pending.get(&number).cloned() else { continue };
            let result = match status {
                Status::Done => ActionResult::Done,
                Status::Ended => ActionResult::Ended,
                Status::Refused => ActionResult::Refused(message.clone()),
                Status::Failed => ActionResult::Failed(message.clone()),
                Status::Over => ActionResult::Done,
            };
            let suspends = decision.step.is_some_and(Action::reversible) && !decision.dry_run;
            if status == Status::Done && suspends {
                self.in_force.insert(number);
            } else {
                self.in_force.remove(&number);
                self.pending.remove(&number);
            }
            if status != Status::Over {
                self.policy.record_result(decision.id, &result);
            }
            let summary = format!("{}: {message}", decision.group.name);
            events.push(GuardEvent { decision, summary, command: None, result: Some(result) });
        }
    }
}

fn request(decision: &Decision, step: Action) -> StopRequest {
    StopRequest {
        spec: TargetSpec::Group(decision.group.clone(), decision.members.clone()),
        reach: Reach::Tree,
        how: step,
        rate: decision.rate,
        volume: Some(decision.volume.clone().into()),
        for_s: decision.for_s,
        file: None,
        intent: Intent::Automatic,
        dry_run: decision.dry_run,
        ends_with_owner: true,
        who: "the guard".to_owned(),
        reason: decision.explanation.clone(),
        log: None,
    }
}

fn command(decision: &Decision, step: Action) -> String {
    let group = &decision.group;
    let target = match (&group.cgroup, decision.members.first()) {
        (Some(path), _) if matches!(group.kind, GroupKind::Cgroup | GroupKind::Monitor) => {
            path.clone()
        }
        (None, Some((pid, _))) => pid.to_string(),
        _ if group.kind.has_manager() && group.kind != GroupKind::Unit => {
            format!("{}/{}", group.kind, group.name)
        }
        _ => group.name.clone(),
    };
    format!("filltop stop {} --how {}", shell_word(&target), step.name())
}
