//! User names from /etc/passwd. Not through the C library: its name services load code, may query
//! the network, and do not work in a static binary.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::SystemTime;

use crate::{host_root, noatime};

/// User names, keyed by uid. The file is read again when it changes.
#[derive(Default)]
pub struct Users {
    names: HashMap<u32, String>,
    changed: Option<SystemTime>,
}

impl Users {
    /// Returns the name of a user, if the file has an entry.
    pub fn name(&self, uid: u32) -> Option<&str> {
        self.names.get(&uid).map(String::as_str)
    }

    /// Reads the file if it has changed since the last time.
    pub fn refresh(&mut self) {
        let passwd = host_root::path(Path::new("/etc/passwd"));
        let changed = fs::metadata(&passwd).and_then(|meta| meta.modified()).ok();
        if changed.is_some() && changed == self.changed {
            return;
        }
        self.changed = changed;
        self.names = parse(&noatime::read(&passwd).unwrap_or_default());
    }
}

/// Parses passwd(5), name:password:uid:…; the first entry of a uid wins, as in getpwuid(3).
fn parse(passwd: &[u8]) -> HashMap<u32, String> {
    let mut names = HashMap::new();
    for line in String::from_utf8_lossy(passwd).lines() {
        let mut fields = line.split(':');
        if let (Some(name), Some(uid)) = (fields.next(), fields.nth(1))
            && let Ok(uid) = uid.parse()
        {
            names.entry(uid).or_insert_with(|| name.to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_name_of_a_uid_wins() {
        let names = parse(b"root:x:0:0::/root:/bin/sh\ntoor:x:0:0::/:\nbad line\nww\xff:x:33:\n");
        assert_eq!(names[&0], "root");
        assert_eq!(names[&33], "ww\u{fffd}");
        assert_eq!(names.len(), 2);
    }
}
