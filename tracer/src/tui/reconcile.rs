//! Reconciles the state with a new Snapshot: selection, rows and scroll position. Pure.

use std::sync::Arc;

use tracer_model::snapshot::Snapshot;

use super::action_menu::target_of;
use super::query::VolumeChoice;
use super::rows::Rows;
use super::rows::item::Item;
use super::state::{Overlay, UiState};

impl UiState {
    /// Reconciles the state with this Snapshot: resolves the volume, builds the rows, and keeps the
    /// selection on the same item, or at its position if the item is gone.
    #[must_use]
    pub fn reconcile(mut self, snapshot: &Snapshot) -> Self {
        self.mounts = snapshot.volumes.iter().map(|volume| volume.mount_point.clone()).collect();
        let focus = self.current_volume(snapshot);
        if focus != self.focus && self.volume == VolumeChoice::MostUrgent {
            // The selection belonged to the previous volume.
            self.user_selected = false;
            self.selected = None;
            self.selection_missing = false;
        }
        self.focus = focus;
        if !self.rows.are_for(snapshot, &self.query()) {
            self.rows = Arc::new(Rows::build(snapshot, &self.query()));
        }
        if std::mem::take(&mut self.toggle_fold_pending) {
            if let Some((name, open)) = self.rows.fold_name(snapshot, self.cursor) {
                self.folds.set(name, !open);
                self.rows = Arc::new(Rows::build(snapshot, &self.query()));
            } else {
                self.notice = Some("nothing to expand here".to_owned());
            }
        }
        let last = self.rows.rows.len().saturating_sub(1);
        let place = self.selected.as_ref().and_then(|key| self.rows.find(snapshot, key));
        self.cursor = match place {
            Some(place) if self.user_selected => place,
            // The user did not select it: show the first row, which matters most.
            Some(_) | None if !self.user_selected => 0,
            _ => self.cursor.min(last),
        };
        // A selected item that is idle for a moment must not turn into another one: the next key
        // may be the one that stops it.
        self.selection_missing = place.is_none() && self.selected.is_some() && self.user_selected;
        if !self.selection_missing {
            self.selected = self.rows.key(snapshot, self.cursor);
        }
        let item = self.item();
        self.target = item.and_then(|item| target_of(snapshot, &self.rows.groups, item));
        if let Some(layout) = self.layout() {
            if layout.second.is_some() {
                let query = self.second_query();
                if !self.second_rows.are_for(snapshot, &query) {
                    self.second_rows = Arc::new(Rows::build(snapshot, &query));
                }
            }
            let page = layout.page();
            self.scroll = self
                .scroll
                .min(self.cursor)
                .max((self.cursor + 1).saturating_sub(page))
                .min((last + 1).saturating_sub(page));
        }
        self
    }

    /// The selected item; `None` if it is not in the Snapshot.
    #[must_use]
    pub fn item(&self) -> Option<Item> {
        self.rows.rows.get(self.cursor).filter(|_| !self.selection_missing).map(|row| row.item)
    }

    fn current_volume(&self, snapshot: &Snapshot) -> String {
        let has = |mount: &String| self.mounts.contains(mount);
        match &self.volume {
            VolumeChoice::Mount(mount) if has(mount) => mount.clone(),
            // The user is working on this volume: do not switch the table under the cursor.
            VolumeChoice::MostUrgent
                if self.user_selected && has(&self.focus) && !self.focus_should_move(snapshot) =>
            {
                self.focus.clone()
            }
            VolumeChoice::All if has(&self.focus) => self.focus.clone(),
            _ => self.mounts.first().cloned().unwrap_or_default(),
        }
    }

    /// Whether the volume the user is working on gives way to the most urgent one: the selected row
    /// is idle, nothing is open, and only the other volume is filling.
    fn focus_should_move(&self, snapshot: &Snapshot) -> bool {
        let fills = |mount: &str| {
            let found = snapshot.volumes.iter().find(|volume| volume.mount_point == mount);
            found.is_some_and(|volume| volume.full || volume.eta_s.is_some())
        };
        self.selection_missing
            && self.overlay == Overlay::None
            && !fills(&self.focus)
            && self.mounts.first().is_some_and(|first| fills(first))
    }
}
