//! Checks the tables against the eBPF object.

use std::collections::HashSet;

use super::*;
use crate::object::OBJECT;

/// Returns the names of all programs in the eBPF object.
fn programs() -> HashSet<String> {
    aya_obj::Object::parse(OBJECT).unwrap().programs.into_keys().collect()
}

#[test]
fn every_hook_has_its_programs_in_the_object() {
    let programs = programs();
    let has = |program: &str| assert!(programs.contains(program), "no program {program}");
    let dentries = DENTRY_FUNCTIONS.iter().flat_map(|(newer, _, older)| [*newer, *older]);
    let functions = SPACE.iter().chain(VFS_WRITE).chain(FS_SPACE.iter().map(|(_, f)| f));
    let functions = functions.chain(OPENS).copied().chain(dentries);
    for one in functions.chain(FSYNCS.iter().map(Fsync::function)) {
        assert!(one.fentry.or(one.fexit).is_some(), "{} with trampolines", one.name);
        assert!(one.kprobe.or(one.kretprobe).is_some(), "{} with kprobes", one.name);
        [one.fentry, one.fexit, one.kprobe, one.kretprobe].into_iter().flatten().for_each(has);
    }
    for function in WRITE_ITERS.iter().flat_map(|fs| fs.functions) {
        [function.fexit, function.kprobe, "kretprobe_write_iter"].into_iter().for_each(has);
    }
    for one in CREATES.iter().chain(NAMESPACE) {
        one.fexit.into_iter().chain(one.kprobe).chain([one.kretprobe]).for_each(has);
    }
    let lifecycle = LIFECYCLE.iter().flat_map(|hook| [hook.program, hook.kprobe]);
    let tracepoints = CREATE_TRACEPOINTS.iter().chain([&PATH_TRACEPOINT, &SIGNALS]);
    lifecycle.chain(tracepoints.map(|(_, program)| *program)).for_each(has);
    for entry in RENAMES {
        [entry.fentry, entry.kprobe].into_iter().for_each(has);
    }
}
