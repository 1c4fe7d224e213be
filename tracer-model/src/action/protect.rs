//! Processes that no action may affect, no matter who requests it: pure rules over facts about one
//! process.

use serde::{Deserialize, Serialize};

use super::pattern::Pattern;
use super::{Intent, Process, Relation};
use crate::sanitize::display;
use crate::snapshot::{GroupKind, Writer};

/// Units that the machine depends on: stopping one of them locks operators out or leaves them blind.
/// A name that ends with `*` matches every name with that prefix.
pub const PROTECTED_UNITS: &[&str] = &[
    "init.scope",
    "sshd*",
    "ssh.service",
    "ssh@*",
    "ssh.socket",
    "dropbear*",
    "systemd-*",
    "dbus*",
    "polkit*",
    "NetworkManager*",
    "networking.service",
    "getty@*",
    "serial-getty@*",
    "-.slice",
    "system.slice",
    "user.slice",
    "machine.slice",
    "containerd.service",
    "docker.service",
    "crio.service",
    "kubelet.service",
    "lxcfs.service",
    "filltop*",
];

/// The same by process name, for machines and containers without systemd, and for processes in a
/// cgroup other than their unit's. These programs host containers, sessions or the machine itself.
pub const PROTECTED_NAMES: &[&str] = &[
    "init",
    "systemd",
    "systemd-*",
    "(sd-pam)",
    "sshd*",
    "dropbear",
    "dbus-daemon",
    "dbus-broker*",
    "polkitd",
    "containerd",
    "containerd-shim*",
    "dockerd",
    "conmon",
    "crio",
    "kubelet",
    "lxc-start",
    "lxc-monitord",
    "lxd",
    "incusd",
    "libvirtd",
];

/// Databases: no automatic action terminates or suspends one, because other programs depend on what
/// a database has acknowledged. An operator may act on them.
pub const DATABASES: &[&str] = &[
    "postgres",
    "postmaster",
    "mysqld",
    "mariadbd",
    "etcd",
    "mongod",
    "redis-server",
    "valkey-server",
    "cockroach",
    "clickhouse*",
    "influxd",
    "cassandra",
    "scylla",
    "rocksdb*",
];

/// Log daemons: programs that log wait for one that does not read, so no automatic action suspends
/// one, and what they write is the doing of those programs. An operator may act on them, and is warned.
pub const LOG_DAEMONS: &[&str] = &[
    "rsyslogd",
    "syslog-ng",
    "syslogd",
    "metalog",
    "systemd-journal*",
    "auditd",
    "fluentd",
    "fluent-bit*",
    "vector",
    "promtail",
    "filebeat",
    "svlogd",
    "multilog",
    "socklog",
    "logd",
];

/// The program that a process runs: its name, or for a program that contains many (busybox, toybox) the one
/// that its command line names.
#[must_use]
pub fn program<'p>(comm: &'p str, cmdline: Option<&'p str>) -> &'p str {
    if !matches!(comm, "busybox" | "toybox") {
        return comm;
    }
    let mut words = cmdline.unwrap_or_default().split_ascii_whitespace();
    let base = |word: &'p str| word.rsplit('/').next().unwrap_or(word);
    match (words.next().map(base), words.next().map(base)) {
        (Some(own), Some(named)) if own == comm && !named.starts_with('-') => named,
        (Some(own), _) if !own.is_empty() => own,
        _ => comm,
    }
}

/// Whether a writer is a log daemon.
#[must_use]
pub fn is_log_daemon(writer: &Writer) -> bool {
    matching_rule(LOG_DAEMONS, program(&writer.comm, writer.cmdline.as_deref())).is_some()
}

/// Whether a writer is protected by its name, or serves programs that would hang without it.
#[must_use]
pub fn is_protected_name(comm: &str, cmdline: Option<&str>) -> bool {
    let program = program(comm, cmdline);
    matching_rule(PROTECTED_NAMES, comm).is_some() || matching_rule(LOG_DAEMONS, program).is_some()
}

/// Whether a writer is a kernel thread: it writes on behalf of others and cannot be acted on.
#[must_use]
pub fn is_kernel_thread(writer: &Writer) -> bool {
    writer.comm == "kthreadd" || writer.parents.iter().any(|parent| parent.comm == "kthreadd")
}

/// Protection in addition to the built-in rules; empty by default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Protection {
    /// Processes and groups that are never acted on.
    pub avoid: Vec<Pattern>,
    /// Patterns from the configuration file.
    pub configured: Option<ConfiguredGuard>,
}

/// The patterns of the `[guard]` section of a configuration file. They apply to operators, too, who
/// can choose another configuration file or none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConfiguredGuard {
    /// Path of the configuration file.
    pub file: String,
    /// Processes and groups that are never acted on.
    pub avoid: Vec<Pattern>,
    /// Processes and groups to act on in preference to others.
    pub prefer: Vec<Pattern>,
    /// Processes and groups that are expected to grow; acting on them causes a warning.
    pub ignore: Vec<Pattern>,
}

impl Protection {
    /// Returns why `process` must not be acted on; `None` if it may be. One short clause without a
    /// full stop.
    #[must_use]
    pub fn refusal(&self, process: &Process, intent: Intent) -> Option<String> {
        if process.pid <= 1 {
            return Some("PID 1 is never acted on".to_owned());
        }
        if process.kernel_thread {
            return Some("it is a kernel thread".to_owned());
        }
        match process.relation {
            Relation::Ourselves => return Some("it is filltop itself".to_owned()),
            Relation::Ancestor => {
                return Some("filltop was started from it (your own session)".to_owned());
            }
            Relation::None => {}
        }
        if let Some(unit) = unit_of(process)
            && let Some(rule) = matching_rule(PROTECTED_UNITS, unit)
        {
            return Some(format!("unit {unit} is protected ({rule})"));
        }
        if let Some(rule) = matching_rule(PROTECTED_NAMES, &process.comm) {
            // A container's own systemd can be stopped only with the whole container.
            let whose = if process.namespace_init { "the init of a container" } else { rule };
            return Some(format!("{} is protected ({whose})", process.comm));
        }
        if let Some(pattern) = self.avoid.iter().find(|pattern| matches_process(process, pattern)) {
            return Some(format!("avoid = {:?}", pattern.text()));
        }
        if let Some(configured) = &self.configured
            && let Some(pattern) = configured.avoid.iter().find(|p| matches_process(process, p))
        {
            return Some(format!("guard.avoid = {:?} in {}", pattern.text(), configured.file));
        }
        if intent == Intent::Automatic
            && let Some(why) = serves_others(process)
        {
            return Some(why);
        }
        if intent == Intent::Automatic
            && let Some(database) = database(process)
        {
            return Some(format!("it is a database ({database})"));
        }
        None
    }
}

impl ConfiguredGuard {
    /// Returns warnings about these processes that refuse nothing, one sentence each.
    #[must_use]
    pub fn warnings(&self, processes: &[Process]) -> Vec<String> {
        let found = |patterns: &[Pattern]| {
            let named = |pattern: &&Pattern| processes.iter().any(|p| matches_process(p, pattern));
            patterns.iter().find(named).map(|pattern| format!("{:?}", pattern.text()))
        };
        let ignored = found(&self.ignore).map(|pattern| {
            format!(
                "guard.ignore = {pattern} in {}: its growth is expected, and the guard would not act \
                 on it",
                self.file
            )
        });
        let preferred = found(&self.prefer).map(|pattern| {
            format!(
                "guard.prefer = {pattern} in {}: the guard acts on it in preference to others",
                self.file
            )
        });
        ignored.into_iter().chain(preferred).collect()
    }
}

/// Returns the database that a process runs, recognised by its open files or its name.
#[must_use]
pub fn database(process: &Process) -> Option<&str> {
    process
        .databases
        .first()
        .map(String::as_str)
        .or_else(|| matching_rule(DATABASES, &process.comm))
}

/// Returns for whom a process works, so that others hang if it stops: programs that log, or those that
/// use the FUSE filesystem that it serves. One short clause without a full stop.
#[must_use]
pub fn serves_others(process: &Process) -> Option<String> {
    if let Some(mount_point) = &process.serves {
        return Some(format!("it serves the FUSE filesystem {}", display(mount_point)));
    }
    let program = program(&process.comm, process.cmdline.as_deref());
    let rule = matching_rule(LOG_DAEMONS, program)?;
    Some(format!("it is a log daemon ({rule})"))
}

/// Whether `pattern` occurs in the name of the process or of its group.
#[must_use]
pub fn matches_process(process: &Process, pattern: &Pattern) -> bool {
    pattern.matches(&process.comm)
        || process.group.as_ref().is_some_and(|group| pattern.matches(&group.name))
}

/// Returns the rule that protects a group by its name; `None` if there is none.
#[must_use]
pub fn unit_rule(kind: GroupKind, name: &str) -> Option<&'static str> {
    if kind != GroupKind::Unit {
        return None;
    }
    matching_rule(PROTECTED_UNITS, name)
}

/// Returns the first rule that matches `name`; a `*` at the end of a rule matches any suffix.
#[must_use]
pub fn matching_rule(rules: &[&'static str], name: &str) -> Option<&'static str> {
    rules.iter().copied().find(|rule| match rule.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => *rule == name,
    })
}

fn unit_of(process: &Process) -> Option<&str> {
    let group = process.group.as_ref().filter(|group| group.kind == GroupKind::Unit)?;
    Some(&group.name)
}

#[cfg(test)]
pub(crate) mod tests {
    use rstest::rstest;

    use super::*;
    use crate::action::Role;
    use crate::snapshot::Group;

    /// Returns an unprotected process.
    pub(crate) fn process(pid: u32, comm: &str) -> Process {
        Process {
            pid,
            start_ticks: 100 + u64::from(pid),
            ppid: 1,
            comm: comm.to_owned(),
            cmdline: None,
            user: "www".to_owned(),
            group: None,
            kernel_thread: false,
            namespace_init: false,
            ignores_term: false,
            relation: Relation::None,
            databases: Vec::new(),
            serves: None,
            role: Role::Target,
        }
    }

    fn in_unit(comm: &str, unit: &str) -> Process {
        let group = Group { kind: GroupKind::Unit, name: unit.to_owned(), ..Group::default() };
        Process { group: Some(group), ..process(70, comm) }
    }

    #[rstest]
    #[case(process(1, "init"), "PID 1")]
    #[case(Process { kernel_thread: true, ..process(9, "kworker/0:1") }, "kernel thread")]
    #[case(Process { relation: Relation::Ourselves, ..process(9, "x") }, "itself")]
    #[case(Process { relation: Relation::Ancestor, ..process(9, "bash") }, "session")]
    #[case(in_unit("x", "ssh.service"), "ssh.service")]
    #[case(in_unit("x", "sshd@3.service"), "sshd*")]
    #[case(in_unit("x", "systemd-journald.service"), "systemd-*")]
    #[case(in_unit("x", "dbus.service"), "dbus*")]
    #[case(process(70, "sshd-session"), "sshd*")]
    #[case(process(70, "containerd-shim"), "containerd-shim*")]
    #[case(Process { namespace_init: true, ..process(70, "systemd") }, "init of a container")]
    fn a_protected_process_is_refused_to_everyone(#[case] process: Process, #[case] reason: &str) {
        for intent in [Intent::Asked, Intent::Automatic] {
            let refusal = Protection::default().refusal(&process, intent).unwrap();
            assert!(refusal.contains(reason), "{refusal}");
        }
    }

    #[test]
    fn only_an_operator_may_act_on_a_database() {
        let rules = Protection::default();
        let postgres = process(70, "postgres");
        let holder = Process { databases: vec!["etcd".to_owned()], ..process(71, "server") };
        for process in [postgres, holder] {
            assert_eq!(rules.refusal(&process, Intent::Asked), None);
            assert!(rules.refusal(&process, Intent::Automatic).unwrap().contains("database"));
        }
    }

    #[test]
    fn avoid_applies_to_names_and_groups() {
        let rules = Protection { avoid: vec!["^back".parse().unwrap()], configured: None };
        for process in [process(70, "backup"), in_unit("x", "backup.service")] {
            assert_eq!(rules.refusal(&process, Intent::Asked).unwrap(), "avoid = \"^back\"");
        }
        assert_eq!(rules.refusal(&process(70, "httpd"), Intent::Automatic), None);
    }

    #[test]
    fn configured_patterns_apply_to_operators_too() {
        let pattern = |text: &str| vec![text.parse().unwrap()];
        let configured = ConfiguredGuard {
            file: "/etc/f.toml".to_owned(),
            avoid: pattern("^back"),
            prefer: pattern("^gzip"),
            ignore: pattern("^log"),
        };
        let rules = Protection { avoid: Vec::new(), configured: Some(configured.clone()) };
        let refusal = rules.refusal(&process(70, "backup"), Intent::Asked).unwrap();
        assert_eq!(refusal, "guard.avoid = \"^back\" in /etc/f.toml");
        for (comm, remark) in [("gzip", "guard.prefer"), ("logd", "guard.ignore = \"^log\"")] {
            assert_eq!(rules.refusal(&process(70, comm), Intent::Asked), None);
            let warnings = configured.warnings(&[process(70, comm)]);
            assert!(warnings.len() == 1 && warnings[0].contains(remark), "{warnings:?}");
        }
        assert!(configured.warnings(&[process(70, "httpd")]).is_empty());
    }
}
