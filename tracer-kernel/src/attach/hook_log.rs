//! The outcome of each attempt to attach a hook, one row per attempt.

use tracer_model::snapshot::{Hook, HookMethod, HookState};

use crate::attach::error::AttachError;
use crate::btf::modules::ModuleBtf;

/// The result of one attempt to attach a hook.
pub(crate) type Attempt = Result<(), AttachError>;

/// The rows so far, in the order of the attempts.
pub(crate) struct HookLog {
    rows: Vec<Hook>,
    /// Whether the user chose the backend.
    is_forced: bool,
    /// Whether startup has finished, and with it CAP_SYS_ADMIN was dropped.
    has_started: bool,
}

impl HookLog {
    /// Creates an empty log. `is_forced`: the backend was chosen by the user.
    pub(crate) const fn new(is_forced: bool) -> Self {
        Self { rows: Vec::new(), is_forced, has_started: false }
    }

    /// Records the outcome of an attempt; returns whether it succeeded.
    pub(crate) fn record_outcome(&mut self, name: &str, how: HookMethod, result: Attempt) -> bool {
        let state = match result {
            Ok(()) => HookState::Ok,
            Err(error) => {
                let had_admin = ModuleBtf::shared().had_admin();
                error.state(self.is_forced, self.has_started, had_admin)
            }
        };
        let is_attached = state == HookState::Ok;
        self.rows.push(Hook { name: name.to_owned(), how, state });
        is_attached
    }

    /// Records that a hook is not needed.
    pub(crate) fn record_not_applicable(&mut self, name: &str, how: HookMethod, reason: &str) {
        let state = HookState::NotApplicable { reason: reason.to_owned() };
        self.rows.push(Hook { name: name.to_owned(), how, state });
    }

    /// Removes earlier attempts, because the hook is attached anew.
    pub(crate) fn forget(&mut self, name: &str) {
        self.rows.retain(|row| row.name != name);
    }

    /// Marks startup as finished: from now on, missing privileges are those that were dropped.
    pub(crate) const fn finish_startup(&mut self) {
        self.has_started = true;
    }

    /// Whether startup has finished.
    pub(crate) const fn has_started(&self) -> bool {
        self.has_started
    }

    /// Returns all rows, in the order of the attempts.
    pub(crate) fn rows(&self) -> &[Hook] {
        &self.rows
    }

    /// Returns the first failed attempt with its reason, as text.
    pub(crate) fn first_failure(&self) -> Option<String> {
        self.rows.iter().find_map(|row| match &row.state {
            HookState::Unsupported { reason } | HookState::Broken { reason } => {
                Some(format!("{} with {}: {reason}", row.name, row.how))
            }
            HookState::Ok | HookState::NotApplicable { .. } => None,
        })
    }
}
