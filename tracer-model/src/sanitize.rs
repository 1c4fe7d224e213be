//! File names and command lines are hostile text: made safe to show, and unambiguous.
