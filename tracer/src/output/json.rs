//! The Snapshot as printed by `--json`.

use tracer_model::snapshot::Snapshot;

/// Formats a Snapshot as one line of JSON without a newline: its serde form.
///
/// # Errors
/// A Snapshot cannot cause any; serde_json's signature is kept so that none is hidden.
pub fn to_string(snapshot: &Snapshot) -> serde_json::Result<String> {
    serde_json::to_string(snapshot)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use tracer_model::fixtures;

    /// The stable fields and their types, by table: `i` integer, `f` number, `s` text, `b` boolean,
    /// `a` array, `o` object, `t` RFC 3339 in UTC; `?` may be null.
    const PROMISED: &[(&str, &str)] = &[
        ("", "schema:i host:s taken_at:t interval_s:f backend:o volumes:a writers:a dirs:a"),
        ("", "paths:a held:a victims:a"),
        ("backend", "write:s kernel:s hooks:a blind_spots:a lost_events:i unattributed_bytes:i"),
        ("backend", "overhead_ns_per_write:f?"),
        ("backend.hooks", "name:s how:s state:s"),
        ("volumes", "mount_point:s mount_points:a device:s fs_type:s total_bytes:i used_bytes:i"),
        ("volumes", "avail_bytes:i reserved_bytes:i inodes_total:i inodes_free:i held_bytes:i?"),
        ("volumes", "written_bytes:i allocated_bytes:i? freed_bytes:i? used_delta_bytes:i"),
        ("volumes", "growth_bytes_per_s:f explained:f? full:b limit:s eta_s:f? eta_lo_s:f?"),
        ("volumes", "eta_hi_s:f? pace_s:f? pace_lo_s:f? pace_hi_s:f?"),
        ("writers", "pid:i start_time:t comm:s exe:s? cmdline:s? uid:i user:s? group:o? alive:b"),
        ("writers", "volume:s written_bytes:i allocated_bytes:i? freed_bytes:i? held_bytes:i?"),
        ("writers", "written_bytes_per_s:f growth_bytes_per_s:f share:f files:i errors:o"),
        ("writers", "fsync:o?"),
        ("writers.group", "kind:s name:s cgroup:s?"),
        ("writers.errors", "ENOSPC:i EDQUOT:i"),
        ("writers.fsync", "count:i max_ms:f p99_ms:f"),
        ("dirs", "path:s volume:s inflow_bytes_per_s:f outflow_bytes_per_s:f drain:f?"),
        ("dirs", "files_created:i? files_removed:i?"),
        ("paths", "path:s volume:s dev:s ino:i written_bytes:i allocated_bytes:i? freed_bytes:i?"),
        ("paths", "deleted:b approximate:b writers:a"),
        ("held", "pid:i comm:s fd:i? path:s volume:s bytes:i growing:b"),
        ("victims", "pid:i comm:s volume:s errors:o waiting_ms:f?"),
    ];

    /// All values at `path`, descending into arrays and skipping nulls.
    fn at<'v>(value: &'v Value, path: &str) -> Vec<&'v Value> {
        let mut found = vec![value];
        for name in path.split('.').filter(|name| !name.is_empty()) {
            found = found
                .into_iter()
                .flat_map(|value| match &value[name] {
                    Value::Array(rows) => rows.iter().collect(),
                    Value::Null => vec![],
                    one => vec![one],
                })
                .collect();
        }
        found
    }

    fn fits(value: &Value, kind: &str) -> bool {
        match kind.trim_end_matches('?') {
            _ if value.is_null() => kind.ends_with('?'),
            "i" => value.is_u64() || value.is_i64(),
            "f" => value.is_number(),
            "s" => value.is_string(),
            "b" => value.is_boolean(),
            "a" => value.is_array(),
            "o" => value.is_object(),
            "t" => value
                .as_str()
                .is_some_and(|text| text.ends_with('Z') && text.parse::<jiff::Timestamp>().is_ok()),
            other => panic!("no such kind: {other}"),
        }
    }

    #[test]
    fn every_promised_field_is_present() {
        let text = to_string(&fixtures::busy()).unwrap();
        let json: Value = serde_json::from_str(&text).unwrap();
        for (table, fields) in PROMISED {
            let rows = at(&json, table);
            assert!(!rows.is_empty(), "the fixture has no {table}");
            for field in fields.split(' ') {
                let (name, kind) = field.split_once(':').unwrap();
                for row in &rows {
                    let value = row.get(name).unwrap_or_else(|| panic!("{table} lacks {name}"));
                    assert!(fits(value, kind), "{table}.{name} is {value}, not {kind}");
                }
            }
        }
    }

    #[test]
    fn unknown_is_null_and_one_line() {
        let mut snapshot = fixtures::busy();
        snapshot.volumes[0].explained = None;
        snapshot.writers[0].allocated_bytes = None;
        let text = to_string(&snapshot).unwrap();
        assert!(!text.contains('\n'));
        let json: Value = serde_json::from_str(&text).unwrap();
        assert!(json["volumes"][0]["explained"].is_null());
        assert!(json["writers"][0]["allocated_bytes"].is_null());
        assert_eq!(serde_json::from_str::<Snapshot>(&text).unwrap(), snapshot);
    }
}
