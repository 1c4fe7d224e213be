//! Why a hook cannot be attached.

use std::error::Error;
use std::io;

use aya::programs::ProgramError;
use tracer_model::snapshot::HookState;

/// Why a hook cannot be attached. The texts are the kernel's own messages where it has any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AttachError {
    /// This kernel has no such function, or no type information for it.
    Absent(String),
    /// EPERM or EACCES: a required privilege is missing.
    Denied(String),
    /// The function is in a module, and filltop has no descriptor of the module's BTF.
    NoModuleBtf(NoModuleBtf),
    /// Any other failure.
    Other(String),
}

/// Why there is no descriptor of a module's BTF. The kernel returns one only with CAP_SYS_ADMIN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NoModuleBtf {
    /// filltop was started without CAP_SYS_ADMIN.
    NeverAllowed,
    /// filltop had CAP_SYS_ADMIN and dropped it; the helper process that kept it could not be
    /// started, or has exited.
    NoHelper(String),
    /// The kernel has no BTF of that module: it was unloaded meanwhile.
    NotLoaded(String),
}

impl AttachError {
    /// Classifies the error of loading or attaching a program.
    pub(crate) fn from_program(error: &ProgramError) -> Self {
        match error {
            ProgramError::LoadError { io_error, .. } => {
                Self::from_load_message(io_error, kernel_message(error))
            }
            other => Self::from_syscall(other),
        }
    }

    /// Same as `from_program`, with the verifier's log. EACCES from the verifier is about the
    /// program, not about privileges.
    pub(crate) fn from_load(error: &io::Error, log: &str) -> Self {
        Self::from_load_message(error, verifier_message(error, log))
    }

    fn from_load_message(error: &io::Error, message: String) -> Self {
        if error.raw_os_error() == Some(libc::EPERM) {
            Self::Denied(message)
        } else {
            Self::Other(message)
        }
    }

    /// Classifies the error of any other system call.
    pub(crate) fn from_syscall(error: &(dyn Error + 'static)) -> Self {
        let message = error_chain(error);
        let mut cause = Some(error);
        while let Some(error) = cause {
            if error.downcast_ref().map(io::Error::kind) == Some(io::ErrorKind::PermissionDenied) {
                return Self::Denied(message);
            }
            cause = error.source();
        }
        Self::Other(message)
    }

    /// Prepends what the error is about.
    pub(crate) fn context(self, what: &str) -> Self {
        match self {
            Self::Denied(message) => Self::Denied(format!("{what}: {message}")),
            Self::Other(message) => Self::Other(format!("{what}: {message}")),
            other => other,
        }
    }

    /// Converts the error to the state of a hook. `forced`: the backend was chosen by the user.
    /// `started`: startup has finished and privileges were dropped. `had_admin`: CAP_SYS_ADMIN was
    /// among them.
    pub(crate) fn state(self, forced: bool, started: bool, had_admin: bool) -> HookState {
        let broken = match &self {
            Self::Absent(_) => false,
            Self::Denied(_) | Self::NoModuleBtf(_) => forced || started,
            Self::Other(_) => forced,
        };
        let reason = match self {
            Self::Denied(message) if started && had_admin => {
                format!(
                    "{message}: the required privileges were dropped after startup; restart filltop"
                )
            }
            Self::Denied(message) if started => {
                format!("{message}: filltop was started without CAP_SYS_ADMIN; {ADD_ADMIN}")
            }
            Self::Absent(message) | Self::Denied(message) | Self::Other(message) => message,
            Self::NoModuleBtf(why) => why.text(),
        };
        if broken { HookState::Broken { reason } } else { HookState::Unsupported { reason } }
    }
}

/// The fix is the same for a unit, a manifest and file capabilities.
const ADD_ADMIN: &str = "add it (docs/service.md)";

impl NoModuleBtf {
    fn text(&self) -> String {
        match self {
            Self::NeverAllowed => format!(
                "reading the type information of modules requires CAP_SYS_ADMIN, which filltop was \
                 started without; {ADD_ADMIN}"
            ),
            Self::NoHelper(why) => format!(
                "reading the type information of modules requires CAP_SYS_ADMIN, which was dropped \
                 after startup, and the helper process that kept it is not running ({why}); restart \
                 filltop"
            ),
            Self::NotLoaded(module) => format!("module {module} is no longer loaded"),
        }
    }
}

/// filltop's own messages, which are not about privileges.
impl From<String> for AttachError {
    fn from(message: String) -> Self {
        Self::Other(message)
    }
}

impl From<&str> for AttachError {
    fn from(message: &str) -> Self {
        Self::Other(message.to_owned())
    }
}

/// Formats an error with its causes, in one line.
pub(crate) fn error_chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Returns the kernel's message about a program that it did not load or attach, in one line.
pub(crate) fn kernel_message(error: &ProgramError) -> String {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            verifier_message(io_error, &verifier_log.to_string())
        }
        other => error_chain(other),
    }
}

/// Returns why a program was not loaded, with the last message of the verifier.
pub(crate) fn verifier_message(error: &io::Error, log: &str) -> String {
    tracing::debug!("verifier: {log}");
    // The message comes before the statistics.
    const STATISTICS: [&str; 5] =
        ["processed ", "verification time", "stack depth", "max_states", "subprog "];
    let last = log
        .lines()
        .rev()
        .map(str::trim)
        .find(|line| !line.is_empty() && !STATISTICS.iter().any(|word| line.starts_with(word)));
    match last {
        Some(last) => format!("{error}: {last}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(error: AttachError, started: bool, had_admin: bool) -> (bool, String) {
        match error.state(false, started, had_admin) {
            HookState::Broken { reason } => (true, reason),
            HookState::Unsupported { reason } => (false, reason),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_restart_is_advised_only_where_it_helps() {
        let errors = || {
            let denied = io::Error::from_raw_os_error(libc::EPERM);
            let denied = AttachError::from_load(&denied, "");
            [denied, AttachError::NoModuleBtf(NoModuleBtf::NeverAllowed)]
        };
        for error in errors() {
            let (is_broken, message) = reason(error, true, false);
            assert!(is_broken && message.ends_with("add it (docs/service.md)"), "{message}");
            assert!(!message.contains("restart"), "{message}");
        }
        let [denied, _] = errors();
        let gone = AttachError::NoModuleBtf(NoModuleBtf::NoHelper("it ended".to_owned()));
        for error in [denied, gone] {
            let (is_broken, message) = reason(error, true, true);
            assert!(is_broken && message.ends_with("restart filltop"), "{message}");
        }
        let absent = AttachError::Absent("no such function".to_owned());
        assert_eq!(reason(absent, true, false), (false, "no such function".to_owned()));
    }

    #[test]
    fn a_rejection_by_the_verifier_is_not_a_missing_privilege() {
        let denied = || io::Error::from_raw_os_error(libc::EACCES);
        assert!(matches!(AttachError::from_load(&denied(), ""), AttachError::Other(_)));
        assert!(matches!(AttachError::from_syscall(&denied()), AttachError::Denied(_)));
        let error = io::Error::from_raw_os_error(libc::ENOENT);
        assert!(matches!(AttachError::from_syscall(&error), AttachError::Other(_)));
    }
}
