//! The running guard: the pure [`Policy`] decides, the [helper process](super::helper) acts.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::mpsc::error::TryRecvError;
use tracer_model::action::protect::Protection;
use tracer_model::action::{Action, Intent};
use tracer_model::guard::{Decision, Did, GuardConfig, Policy};
use tracer_model::sanitize::shell_word;
use tracer_model::snapshot::{GroupKind, Snapshot};

use super::engine::{Request, Spec};
use super::helper::{Answer, Came, Hands, What};
use super::target::Reach;

/// A guard event, reported by `filltop watch`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Said {
    /// The decision that the event is about.
    pub decision: Decision,
    /// One sentence: chosen because …, or the result.
    pub summary: String,
    /// The equivalent `filltop stop` command; `None` if no action was decided.
    pub command: Option<String>,
    /// The result; `None` until the decision has been carried out.
    pub did: Option<Did>,
}

/// A running guard with its helper process.
pub struct Guard {
    policy: Policy,
    hands: Hands,
    answers: UnboundedReceiver<Answer>,
    /// Requested actions that are not over yet, by request number.
    asked: BTreeMap<u64, Decision>,
    /// Request numbers of the freezes, throttles and fences in force.
    in_force: BTreeSet<u64>,
}

impl Guard {
    /// Starts a guard; `None` if the configuration does not enable it. Must be called before the tracer
    /// drops its privileges.
    ///
    /// # Errors
    /// If the configuration is invalid, or the helper process cannot be started.
    pub fn start(config: GuardConfig) -> anyhow::Result<Option<Self>> {
        config.check().map_err(anyhow::Error::msg)?;
        if !config.enabled {
            return Ok(None);
        }
        let (hands, answers) = Hands::start()?;
        Ok(Some(Self {
            policy: Policy::new(config),
            hands,
            answers,
            asked: BTreeMap::new(),
            in_force: BTreeSet::new(),
        }))
    }

    /// Replaces the configuration, which must be checked.
    pub fn replace(&mut self, config: GuardConfig) {
        self.policy.replace(config);
    }

    /// Evaluates a Snapshot at `now_s` (seconds since boot). Returns the results of earlier decisions
    /// first, then new decisions. Does not block.
    pub fn see(&mut self, now_s: f64, snapshot: &Snapshot) -> Vec<Said> {
        let mut said = self.listen();
        // For the policy, an action that is still being carried out counts as in force.
        let holding: BTreeSet<u64> = self.asked.values().map(|decision| decision.id).collect();
        for decision in self.policy.see(now_s, snapshot, &holding) {
            said.push(self.act(decision));
        }
        said
    }

    fn act(&mut self, decision: Decision) -> Said {
        let summary = decision.explanation.clone();
        let Some(step) = decision.step else {
            return Said { decision, summary, command: None, did: None };
        };
        let command = Some(command(&decision, step));
        let request = request(&decision, step);
        let avoid = self.policy.config().avoid.clone();
        let protection = Protection { avoid, configured: None };
        match self.hands.ask(What::Act { request: Box::new(request), protection }) {
            Ok(number) => {
                self.asked.insert(number, decision.clone());
                Said { decision, summary, command, did: None }
            }
            Err(error) => {
                let did = Did::Failed(format!("{error:#}"));
                self.policy.done(decision.id, &did);
                let summary = format!("{summary}; failed: {error:#}");
                Said { decision, summary, command, did: Some(did) }
            }
        }
    }

    fn listen(&mut self) -> Vec<Said> {
        let mut said = Vec::new();
        loop {
            let Answer { number, came, said: words, .. } = match self.answers.try_recv() {
                Ok(answer) => answer,
                Err(TryRecvError::Empty) => return said,
                Err(TryRecvError::Disconnected) => {
                    // The helper has exited, and every suspension that it owned has ended.
                    self.asked.clear();
                    self.in_force.clear();
                    return said;
                }
            };
            let Some(decision) = self.asked.get(&number).cloned() else { continue };
            let did = match came {
                Came::Done => Did::Done,
                Came::Ended => Did::Ended,
                Came::Refused => Did::Refused(words.clone()),
                Came::Failed => Did::Failed(words.clone()),
                Came::Over => Did::Done,
            };
            let halted = decision.step.is_some_and(Action::reversible) && !decision.dry_run;
            if came == Came::Done && halted {
                self.in_force.insert(number);
            } else {
                self.in_force.remove(&number);
                self.asked.remove(&number);
            }
            if came != Came::Over {
                self.policy.done(decision.id, &did);
            }
            let summary = format!("{}: {words}", decision.group.name);
            said.push(Said { decision, summary, command: None, did: Some(did) });
        }
    }
}

fn request(decision: &Decision, step: Action) -> Request {
    Request {
        spec: Spec::Group(decision.group.clone(), decision.members.clone()),
        reach: Reach::Tree,
        how: step,
        rate: decision.rate,
        volume: Some(decision.volume.clone().into()),
        for_s: decision.for_s,
        file: None,
        intent: Intent::Automatic,
        dry_run: decision.dry_run,
        lifeline: true,
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
