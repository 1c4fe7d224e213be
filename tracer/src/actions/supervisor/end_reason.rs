//! Why a suspension ends, for the audit line.

/// The reason why a supervisor resumes its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EndReason {
    /// `--for` or the guard's `hold` is over.
    #[error("time limit reached")]
    TimeLimit,
    /// SIGTERM, sent by `filltop resume`.
    #[error("resume requested")]
    Requested,
    /// The process that requested the suspension, and that it is bound to, has exited.
    #[error("the requesting filltop has exited")]
    OwnerExited,
    /// No process of the target is left.
    #[error("the target has ended")]
    TargetEnded,
    /// The first attempt to suspend the target failed.
    #[error("the target could not be suspended")]
    NotSuspended,
    /// A throttle could not suspend or resume the target.
    #[error("the target could not be suspended or resumed")]
    ThrottleFailed,
    /// A system call that the supervisor depends on failed.
    #[error("the supervisor failed")]
    SupervisorFailed,
}
