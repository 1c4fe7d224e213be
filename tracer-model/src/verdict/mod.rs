//! The verdict: who fills a volume, on whose behalf, what is held, and what to do.
//!
//! Pure: Snapshots go in, one [`Verdict`] per volume comes out. The only place that names culprits,
//! suspects, held space and next steps; every output shows its result. `docs/verdict.md` lists the
//! rules in order, with the reason for each.

mod assess;
mod behalf;
mod directory;
mod engine;
mod ledger;
mod limits;
mod over;
mod protected;
mod reclaim;
mod suggestion;
pub(crate) mod text;
mod window;

pub use engine::{Conclusion, Engine};
pub use ledger::{GroupKey, group_key};
pub(crate) use over::over_both;
pub(crate) use suggestion::{SIGNIFICANT_HELD_SHARE, end_holder, for_culprit};
