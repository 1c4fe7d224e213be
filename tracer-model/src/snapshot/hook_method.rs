//! How a hook is attached.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The kind of program, or of event, that a hook uses.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HookMethod {
    /// A trampoline at a function's entry.
    Fentry,
    /// A trampoline at a function's exit.
    Fexit,
    /// Trampolines in general: the row that states why none is used.
    #[serde(rename = "fentry, fexit")]
    Trampolines,
    /// A kprobe at a function's entry.
    Kprobe,
    /// A kretprobe at a function's return.
    Kretprobe,
    /// A tracepoint, with its arguments as they are.
    RawTracepoint,
    /// A tracepoint whose argument types the verifier knows.
    TpBtf,
    /// A trace event of tracefs, with its fields as formatted.
    Tracepoint,
    /// A BPF iterator.
    Iterator,
    /// The lookup of an overlay's upper file.
    #[serde(rename = "upper file")]
    UpperFile,
    /// A method of another version of filltop.
    #[serde(untagged)]
    Other(String),
}

impl HookMethod {
    /// The word that JSON and the screen use.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Fentry => "fentry",
            Self::Fexit => "fexit",
            Self::Trampolines => "fentry, fexit",
            Self::Kprobe => "kprobe",
            Self::Kretprobe => "kretprobe",
            Self::RawTracepoint => "raw_tracepoint",
            Self::TpBtf => "tp_btf",
            Self::Tracepoint => "tracepoint",
            Self::Iterator => "iterator",
            Self::UpperFile => "upper file",
            Self::Other(name) => name,
        }
    }
}

impl fmt::Display for HookMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_has_its_word_in_json() {
        let methods = [
            HookMethod::Fentry,
            HookMethod::Fexit,
            HookMethod::Trampolines,
            HookMethod::Kprobe,
            HookMethod::Kretprobe,
            HookMethod::RawTracepoint,
            HookMethod::TpBtf,
            HookMethod::Tracepoint,
            HookMethod::Iterator,
            HookMethod::UpperFile,
            HookMethod::Other("uprobe".to_owned()),
        ];
        for method in methods {
            let json = serde_json::to_value(&method).unwrap();
            assert_eq!(json, method.name());
            assert_eq!(serde_json::from_value::<HookMethod>(json).unwrap(), method);
        }
    }
}
