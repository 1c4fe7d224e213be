//! Remedies that more than one crate names.

/// Flags for starting a container in which filltop sees everything and has all its privileges.
pub const CONTAINER_FLAGS: &str = "start the container with --pid=host --cap-add=BPF --cap-add=PERFMON \
    --cap-add=SYS_PTRACE --cap-add=DAC_READ_SEARCH --cap-add=SYS_ADMIN --cap-add=SETPCAP \
    --security-opt=apparmor=unconfined --security-opt=seccomp=unconfined (leave out BPF and PERFMON if \
    Docker does not know them; for a pod see contrib/kubernetes)";
