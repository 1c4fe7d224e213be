//! Directories of rules: their inflow and outflow, and their size between two counts.

use crate::snapshot::{Snapshot, is_below};

/// Inflow and outflow of a directory in one interval.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Flow {
    /// Bytes allocated below the directory; bytes written where space is not traced.
    pub inflow_bytes: u64,
    /// Bytes freed below the directory; `None` where space is not traced.
    pub outflow_bytes: Option<u64>,
}

/// Returns the flow of a directory over the Snapshot's interval, summed from its files.
#[must_use]
pub fn flow(snapshot: &Snapshot, directory: &str) -> Flow {
    let mut flow = Flow { inflow_bytes: 0, outflow_bytes: Some(0) };
    for row in snapshot.paths.iter().filter(|row| is_below(&row.path, directory)) {
        flow.inflow_bytes += row.allocated_bytes.unwrap_or(row.written_bytes);
        flow.outflow_bytes = flow.outflow_bytes.zip(row.freed_bytes).map(|(sum, row)| sum + row);
    }
    flow
}

/// The size of a directory: counted once, then updated from inflow and outflow.
#[derive(Debug, Clone, PartialEq)]
pub struct DirectorySize {
    /// The directory, as seen from the host's root.
    pub path: String,
    /// Space of all files below it, bytes.
    pub bytes: u64,
}

impl DirectorySize {
    /// Adds the flow of one interval.
    pub fn add_flow(&mut self, snapshot: &Snapshot) {
        let flow = flow(snapshot, &self.path);
        self.bytes = self
            .bytes
            .saturating_add(flow.inflow_bytes)
            .saturating_sub(flow.outflow_bytes.unwrap_or(0));
    }
}
