use rstest::rstest;
use tracer_model::snapshot::{CountedBy, Gap, Moved};

use super::*;
use crate::fixtures;

fn at(width: usize) -> TextOptions {
    TextOptions { width, ..TextOptions::default() }
}

#[rstest]
#[case(40)]
#[case(80)]
#[case(120)]
fn a_busy_host(#[case] width: usize) {
    insta::assert_snapshot!(format!("busy_{width}"), snapshot(&fixtures::busy(), &at(width)));
}

#[test]
fn an_idle_host() {
    insta::assert_snapshot!(snapshot(&fixtures::idle(), &at(80)));
}

#[test]
fn colour_marks_the_danger() {
    let options = TextOptions { color: true, ..at(80) };
    insta::assert_snapshot!(snapshot(&fixtures::busy(), &options).replace('\x1b', "ESC"));
}

#[test]
fn held_files() {
    insta::assert_snapshot!(held(&fixtures::busy().held, &at(80)));
    assert_eq!(held(&[], &at(80)), "No deleted file is held open.\n");
}

#[test]
fn no_line_is_too_long_and_no_name_gets_through() {
    let mut busy = fixtures::busy();
    busy.writers[0].cmdline = Some("x\x1b[2J\n日本".repeat(50));
    busy.volumes[0].mount_point = "/\u{202e}".repeat(40);
    for width in 20..200 {
        for charset in [Charset::Unicode, Charset::Ascii] {
            let options = TextOptions { charset, ..at(width) };
            let text = snapshot(&busy, &options);
            assert_eq!(charset == Charset::Ascii, text.is_ascii(), "{text}");
            for line in text.lines() {
                assert!(!line.contains(['\x1b', '\u{202e}']));
                // Below 40 columns the columns of rank 0 are cut where the line ends.
                assert!(sanitize::width(line) <= width, "{width}: {line}");
            }
        }
    }
}

#[test]
fn what_is_left_out_is_summed_up() {
    let options = TextOptions { top: 1, ..at(80) };
    let text = snapshot(&fixtures::busy(), &options);
    assert!(text.contains("… and 3 more writers: 12.6 MiB/s"), "{text}");
    assert!(text.contains("… and 3 more files: 48.6 MiB/s"), "{text}");
    assert!(text.contains("… and 1 more held files: 88.0 MiB"), "{text}");
}

#[test]
fn what_is_not_seen_is_said_first_and_nobody_wrote_is_not_said() {
    let mut hidden = fixtures::idle();
    let volume = &mut hidden.volumes[0];
    volume.used_delta_bytes = 5 << 30;
    volume.gap = Some(Gap::NeedsSysAdmin);
    volume.counted_by = Some(CountedBy::VfsWrite);
    volume.blind = Moved::of(volume, 5.0).blind(volume.gap);
    volume.growth_bytes_per_s = f64::from(1 << 30);
    insta::assert_snapshot!(snapshot(&hidden, &at(80)));
}
