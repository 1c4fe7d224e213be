//! The columns of every table, their cells and their sort order.

pub mod cells;
pub mod columns;
pub mod sort_key;
