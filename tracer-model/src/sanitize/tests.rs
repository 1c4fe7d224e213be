use proptest::prelude::*;
use rstest::rstest;
use unicode_width::UnicodeWidthStr as _;

use super::*;

#[rstest]
#[case(b"plain /srv/a b", "plain /srv/a b")]
#[case(b"a\nb\tc\rd", r"a\nb\tc\rd")]
#[case(b"\x1b]0;x\x07", r"\x1b]0;x\x07")]
#[case(b"\x7f", r"\x7f")]
#[case(b"back\\slash", r"back\\slash")]
#[case(b"\xff\xfe", r"\xff\xfe")]
#[case("\u{9b}2J".as_bytes(), r"\u{9b}2J")]
#[case("a\u{202e}b\u{2066}c\u{200b}d\u{2028}e".as_bytes(), r"a\u{202e}b\u{2066}c\u{200b}d\u{2028}e")]
#[case("日本 é e\u{301}".as_bytes(), "日本 é e\u{301}")]
#[case("\u{301}a".as_bytes(), "\\u{301}a")]
#[case("a\u{a0}b\u{3000}".as_bytes(), r"a\u{a0}b\u{3000}")]
#[case(b"\xc3", r"\xc3")]
fn hostile_bytes_are_escaped(#[case] raw: &[u8], #[case] shown: &str) {
    assert_eq!(escape(raw), shown);
    assert_eq!(unescape(shown).unwrap(), raw);
}

#[test]
fn excess_combining_marks_are_escaped() {
    let zalgo = format!("a{}", "\u{301}".repeat(6));
    assert_eq!(escape(zalgo.as_bytes()), "a\u{301}\u{301}\u{301}\u{301}\\u{301}\\u{301}");
}

#[test]
fn ascii_terminals_get_ascii() {
    assert_eq!(escape_for("é日".as_bytes(), Charset::Ascii), r"\u{e9}\u{65e5}");
    assert_eq!(display_for("/é", Charset::Ascii), r"/\u{e9}");
}

#[rstest]
#[case(b"/srv/caf\xc3\xa9\n", "/srv/café\n")]
#[case(br"/run/dev-disk\x2duuid", r"/run/dev-disk\x2duuid")]
#[case(br"/a\\b\", r"/a\\b\")]
#[case(b"/a\\\xff", r"/a\\\xff")]
#[case(br"/a\xc3", r"/a\\xc3")]
fn lossless_keeps_valid_names_unchanged(#[case] raw: &[u8], #[case] text: &str) {
    assert_eq!(lossless(raw), text);
    assert_eq!(restore(text), raw);
}

#[test]
fn an_invalid_byte_is_shown_once_escaped() {
    assert_eq!(display(&lossless(b"/a/\xff")), r"/a/\xff");
    assert_eq!(display(&lossless(br"/a/\xff")), r"/a/\\xff");
}

#[rstest]
#[case("\\")]
#[case("\\x1")]
#[case("\\u{110000}")]
#[case("\\u{12")]
#[case("\\é")]
fn other_text_is_not_unescaped(#[case] text: &str) {
    assert_eq!(unescape(text), None);
}

#[rstest]
#[case("/srv/store/bucket/part.0001", 40, "/srv/store/bucket/part.0001")]
#[case("/srv/store/bucket/part.0001", 26, "/srv/store/…/part.0001")]
#[case("/srv/store/bucket/part.0001", 21, "/srv/…/part.0001")]
#[case("/srv/store/bucket/part.0001", 12, "/…/part.0001")]
#[case("/srv/store/bucket/part.0001", 11, "…/part.0001")]
#[case("/srv/store/bucket/part.0001", 5, "…0001")]
#[case("/srv/store/bucket/part.0001", 1, "…")]
#[case("/srv/store/bucket/part.0001", 0, "")]
#[case("/", 1, "/")]
#[case("/日本/日本/日本", 9, "/…/日本")]
#[case("no-slash-at-all", 6, "…t-all")]
fn paths_keep_their_end(#[case] path: &str, #[case] columns: usize, #[case] want: &str) {
    assert_eq!(fit(path, columns, Charset::Unicode), want);
}

#[rstest]
#[case(
    "/var/lib/docker/containers/{ID}/{ID}-json.log",
    68,
    "/var/lib/docker/containers/3f1c2a9be0d8…/3f1c2a9be0d8…-json.log"
)]
#[case(
    "/var/lib/docker/containers/{ID}/{ID}-json.log",
    40,
    "/var/lib/docker/…/3f1c2a9be0d8…-json.log"
)]
#[case(
    "/var/log/pods/shop_web-7d9_{UID}/nginx/0.log",
    50,
    "/var/log/pods/shop_web-7d9_5fb2a3c4…/nginx/0.log"
)]
#[case(
    "/var/log/pods/shop_web-7d9_{UID}/nginx/0.log",
    200,
    "/var/log/pods/shop_web-7d9_{UID}/nginx/0.log"
)]
#[case("/srv/deadbeef/cafe-1234/日本/face.log", 30, "/srv/deadbeef/…/日本/face.log")]
#[case("/srv/x{ID}/a-long-name-of-a-file", 30, "/srv/…/a-long-name-of-a-file")]
fn ids_are_shortened_before_names_are_cut(
    #[case] path: &str,
    #[case] columns: usize,
    #[case] want: &str,
) {
    let fill = |text: &str| {
        let id = "3f1c2a9be0d84c7f8a65b1c2d3e4f5061728394a5b6c7d8e9fa0b1c2d3e4f506";
        text.replace("{ID}", id).replace("{UID}", "5fb2a3c4-d5e6-4789-8abc-0123456789ab")
    };
    assert_eq!(fit(&fill(path), columns, Charset::Unicode), fill(want));
}

#[rstest]
#[case("postgres: checkpointer", 10, "postgres:…")]
#[case("日本語", 4, "日…")]
#[case("e\u{301}e\u{301}e\u{301}", 2, "e\u{301}…")]
#[case("ab", 2, "ab")]
fn labels_keep_their_start(#[case] text: &str, #[case] columns: usize, #[case] want: &str) {
    assert_eq!(truncate(text, columns, Charset::Unicode), want);
}

/// Strings of problematic pieces, with ordinary text in between.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        any::<Vec<u8>>(),
        any::<String>().prop_map(String::into_bytes),
        Just(b"\\".to_vec()),
        Just(b"\\x".to_vec()),
        Just(b"\\xff".to_vec()),
        Just(b"\\u{202e}".to_vec()),
        Just(b"\xff".to_vec()),
        Just("\u{301}".as_bytes().to_vec()),
        Just("日/".as_bytes().to_vec()),
    ];
    prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn unescape_undoes_escape(raw in hostile()) {
        prop_assert_eq!(unescape(&escape(&raw)), Some(raw.clone()));
        prop_assert_eq!(unescape(&escape_for(&raw, Charset::Ascii)), Some(raw));
    }

    #[test]
    fn restore_undoes_lossless(raw in hostile()) {
        prop_assert_eq!(restore(&lossless(&raw)), raw);
    }

    #[test]
    fn valid_names_without_our_escape_are_exact(name in "[^\\\\]*") {
        prop_assert_eq!(lossless(name.as_bytes()), name);
    }

    #[test]
    fn displayed_names_are_harmless(raw in hostile()) {
        let shown = display(&lossless(&raw)).into_owned();
        prop_assert_eq!(&shown, &escape(&raw));
        for c in shown.chars() {
            prop_assert!(c == ' ' || (!c.is_control() && !c.is_whitespace()));
            let hidden = matches!(
                c,
                '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            );
            prop_assert!(!hidden);
        }
        prop_assert!(escape_for(&raw, Charset::Ascii).bytes().all(|b| (b' '..=b'~').contains(&b)));
    }

    #[test]
    fn nothing_is_wider_than_its_column(raw in hostile(), columns in 0usize..40) {
        let shown = escape(&raw);
        for charset in [Charset::Unicode, Charset::Ascii] {
            prop_assert!(fit(&shown, columns, charset).width() <= columns);
            prop_assert!(truncate(&shown, columns, charset).width() <= columns);
        }
    }
}
