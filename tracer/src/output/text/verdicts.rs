//! The verdicts in the text output: one paragraph for each volume that is in danger.

use tracer_model::snapshot::{Snapshot, State, Verdict, Volume};

use super::{Page, Tone};

/// Maximum number of lines on what can be freed.
const MAX_RECLAIM: usize = 3;

impl Page<'_> {
    /// For each volume that fills or is full: what runs out and who takes it, who suffers, what can be
    /// freed, and the next step or why there is none.
    pub(super) fn verdicts(&mut self, snapshot: &Snapshot) {
        for volume in snapshot.volumes.iter().take(self.options.top) {
            if let Some(verdict) = &volume.verdict
                && matches!(verdict.state, State::Filling | State::Full)
            {
                self.out.push('\n');
                self.verdict(volume, verdict);
            }
        }
    }

    fn verdict(&mut self, volume: &Volume, verdict: &Verdict) {
        let tone = match verdict.state {
            State::Full => Tone::Critical,
            _ => Tone::Warning,
        };
        // Names are escaped in a verdict's own texts already.
        let name = self.safe(volume.shown_as());
        self.paragraph(&format!("{name}: {}", verdict.summary), tone);
        if !verdict.victims.is_empty() {
            let names: Vec<String> = verdict
                .victims
                .iter()
                .take(5)
                .map(|victim| format!("{} ({})", self.safe(&victim.comm), victim.pid))
                .collect();
            self.paragraph(&format!("  affected: {}", names.join(", ")), Tone::Plain);
        }
        for item in verdict.reclaim.iter().take(MAX_RECLAIM) {
            let bytes = item.bytes.map_or_else(|| "?".to_owned(), |bytes| self.bytes(bytes));
            let command =
                item.command.as_ref().map_or_else(String::new, |command| format!(": {command}"));
            let line = format!("  can be freed: {bytes}, {}; {}{command}", item.what, item.how);
            self.paragraph(&line, Tone::Plain);
        }
        match (&verdict.suggestion, &verdict.why_no_suggestion) {
            (Some(next), _) => {
                self.paragraph(&format!("  next step: {}", next.command), Tone::Head);
            }
            (None, Some(why)) => {
                self.paragraph(&format!("  no next step is suggested: {why}"), Tone::Plain);
            }
            (None, None) => {}
        }
    }
}
