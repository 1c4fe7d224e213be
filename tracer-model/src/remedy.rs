//! Remedies that more than one crate names.

/// How a container is started so that it sees all, and may do what it has to.
pub const CONTAINER_FLAGS: &str = "start the container with --pid=host --cap-add=BPF --cap-add=PERFMON \
    --cap-add=SYS_PTRACE --cap-add=DAC_READ_SEARCH --cap-add=SYS_ADMIN --cap-add=SETPCAP \
    --security-opt=apparmor=unconfined --security-opt=seccomp=unconfined (a Docker that does not know \
    BPF and PERFMON: without these two; a pod: as contrib/kubernetes has it)";
