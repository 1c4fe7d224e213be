//! Why a hook could not be attached.

use std::error::Error;
use std::io;

use aya::programs::ProgramError;
use tracer_model::snapshot::HookState;

/// See the module. The texts are the kernel's own words where it has any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HookFailure {
    /// This kernel has no such function, or none whose types it tells.
    Absent(String),
    /// EPERM or EACCES: it takes a right that is not there.
    Refused(String),
    /// The function is in a module, whose types filltop has no descriptor of.
    NoTypes(NoTypes),
    /// Anything else.
    Other(String),
}

/// Why there is no descriptor of a module's types. The kernel gives one to nobody without CAP_SYS_ADMIN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum NoTypes {
    /// filltop was started without that right.
    NeverAllowed,
    /// It had the right and gave it up; the process that kept it could not be started, or has ended.
    NoHelper(String),
    /// The kernel has none of that module: it was unloaded meanwhile.
    NotLoaded(String),
}

impl HookFailure {
    /// What the kernel says of a program that it does not load or attach.
    pub(crate) fn of_program(error: &ProgramError) -> Self {
        match error {
            ProgramError::LoadError { io_error, .. } => {
                Self::of_load_in_words(io_error, kernel_words(error))
            }
            other => Self::of_call(other),
        }
    }

    /// The same with the verifier's log. EACCES is the verifier's word on one program, and no matter of rights.
    pub(crate) fn of_load(error: &io::Error, log: &str) -> Self {
        Self::of_load_in_words(error, verdict(error, log))
    }

    fn of_load_in_words(error: &io::Error, words: String) -> Self {
        if error.raw_os_error() == Some(libc::EPERM) {
            Self::Refused(words)
        } else {
            Self::Other(words)
        }
    }

    /// What the kernel says of any other call.
    pub(crate) fn of_call(error: &(dyn Error + 'static)) -> Self {
        let words = error_chain(error);
        let mut cause = Some(error);
        while let Some(error) = cause {
            if error.downcast_ref().map(io::Error::kind) == Some(io::ErrorKind::PermissionDenied) {
                return Self::Refused(words);
            }
            cause = error.source();
        }
        Self::Other(words)
    }

    /// The same, which was said of that.
    pub(crate) fn about(self, what: &str) -> Self {
        match self {
            Self::Refused(words) => Self::Refused(format!("{what}: {words}")),
            Self::Other(words) => Self::Other(format!("{what}: {words}")),
            other => other,
        }
    }

    /// The hook's row. `forced`: was the kind of probe asked for? `started`: has the start ended, after which
    /// rights were given up? `had_admin`: was CAP_SYS_ADMIN among them?
    pub(crate) fn state(self, forced: bool, started: bool, had_admin: bool) -> HookState {
        let broken = match &self {
            Self::Absent(_) => false,
            Self::Refused(_) | Self::NoTypes(_) => forced || started,
            Self::Other(_) => forced,
        };
        let reason = match self {
            Self::Refused(words) if started && had_admin => {
                format!("{words}: what it takes was given up after the start: restart filltop")
            }
            Self::Refused(words) if started => {
                format!("{words}: filltop was started without CAP_SYS_ADMIN: {ADD_ADMIN}")
            }
            Self::Absent(words) | Self::Refused(words) | Self::Other(words) => words,
            Self::NoTypes(why) => why.text(),
        };
        if broken { HookState::Broken { reason } } else { HookState::Unsupported { reason } }
    }
}

/// The cure in a unit, a manifest and of a file's capabilities alike.
const ADD_ADMIN: &str = "add it (docs/service.md)";

impl NoTypes {
    fn text(&self) -> String {
        match self {
            Self::NeverAllowed => format!(
                "type information of modules takes CAP_SYS_ADMIN, which filltop was started \
                 without: {ADD_ADMIN}"
            ),
            Self::NoHelper(why) => format!(
                "type information of modules takes CAP_SYS_ADMIN, which was given up after the \
                 start, and the process that kept it is not there ({why}): restart filltop"
            ),
            Self::NotLoaded(module) => format!("module {module} is not loaded any more"),
        }
    }
}

/// Our own words, about something else than rights.
impl From<String> for HookFailure {
    fn from(words: String) -> Self {
        Self::Other(words)
    }
}

impl From<&str> for HookFailure {
    fn from(words: &str) -> Self {
        Self::Other(words.to_owned())
    }
}

/// An error with its causes, in one line.
pub fn error_chain(error: &(dyn Error + 'static)) -> String {
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

/// The kernel's own words about a program that it did not load or attach, in one line.
pub(crate) fn kernel_words(error: &ProgramError) -> String {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            verdict(io_error, &verifier_log.to_string())
        }
        other => error_chain(other),
    }
}

/// Why a program was not loaded, with the verifier's last word on it.
pub(crate) fn verdict(error: &io::Error, log: &str) -> String {
    tracing::debug!("verifier: {log}");
    // The verdict stands before the statistics.
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

    fn reason(failure: HookFailure, started: bool, had_admin: bool) -> (bool, String) {
        match failure.state(false, started, had_admin) {
            HookState::Broken { reason } => (true, reason),
            HookState::Unsupported { reason } => (false, reason),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_restart_is_advised_only_where_it_helps() {
        let failures = || {
            let refused = io::Error::from_raw_os_error(libc::EPERM);
            let refused = HookFailure::of_load(&refused, "");
            [refused, HookFailure::NoTypes(NoTypes::NeverAllowed)]
        };
        for failure in failures() {
            let (is_broken, words) = reason(failure, true, false);
            assert!(is_broken && words.ends_with("add it (docs/service.md)"), "{words}");
            assert!(!words.contains("restart"), "{words}");
        }
        let [refused, _] = failures();
        let gone = HookFailure::NoTypes(NoTypes::NoHelper("it ended".to_owned()));
        for failure in [refused, gone] {
            let (is_broken, words) = reason(failure, true, true);
            assert!(is_broken && words.ends_with("restart filltop"), "{words}");
        }
        let absent = HookFailure::Absent("no such function".to_owned());
        assert_eq!(reason(absent, true, false), (false, "no such function".to_owned()));
    }

    #[test]
    fn the_verifiers_word_on_one_program_is_no_refusal() {
        let denied = || io::Error::from_raw_os_error(libc::EACCES);
        assert!(matches!(HookFailure::of_load(&denied(), ""), HookFailure::Other(_)));
        assert!(matches!(HookFailure::of_call(&denied()), HookFailure::Refused(_)));
        let error = io::Error::from_raw_os_error(libc::ENOENT);
        assert!(matches!(HookFailure::of_call(&error), HookFailure::Other(_)));
    }
}
