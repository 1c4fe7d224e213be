//! The message for a blind volume, one of which filltop sees too little.

use crate::sanitize::display;
use crate::snapshot::{Blind, BlindCause, Volume};
use crate::units::Units;

/// Describes what filltop cannot see on a volume, why, and the remedy; `None` if the volume is not
/// blind. One sentence that starts with the volume's name.
#[must_use]
pub fn blind_message(volume: &Volume, units: Units) -> Option<String> {
    let blind = volume.blind.as_ref()?;
    let name = format!("{} ({})", display(&volume.mount_point), display(&volume.fs_type));
    let unexplained = unexplained_part(blind, units);
    Some(match blind.cause {
        BlindCause::NeedsSysAdmin => format!(
            "{name}: some writes are not traced because filltop was started without CAP_SYS_ADMIN{}; grant \
             it (docs/service.md), it is dropped after startup",
            in_parentheses(unexplained)
        ),
        BlindCause::HooksFailed => format!(
            "{name}: some writes are not traced because hooks for {} could not be attached{}; run `filltop \
             doctor` for the reason",
            display(&volume.fs_type),
            in_parentheses(unexplained)
        ),
        BlindCause::Unexplained => format!(
            "{name}: {} of growth unexplained, the process that causes it may not be listed; run `filltop \
             doctor` for what it cannot see here",
            unexplained.unwrap_or_default()
        ),
    })
}

fn in_parentheses(unexplained: Option<String>) -> String {
    unexplained
        .map_or_else(String::new, |unexplained| format!(" ({unexplained} of growth unexplained)"))
}

/// The unexplained part of the growth, as `4.9 of 5.0 GiB`; `None` if nearly all is explained.
#[must_use]
pub fn unexplained_part(blind: &Blind, units: Units) -> Option<String> {
    let missing = blind.unexplained_bytes;
    // Sampled space is inaccurate by up to a tenth anyway.
    (missing > 0 && missing >= blind.grown_bytes / 10).then(|| {
        let (part, whole) = (units.bytes(missing), units.bytes(blind.grown_bytes));
        match (part.split_once(' '), whole.split_once(' ')) {
            (Some((number, unit)), Some((_, same))) if unit == same => {
                format!("{number} of {whole}")
            }
            _ => format!("{part} of {whole}"),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(cause: BlindCause, unexplained_bytes: u64) -> Blind {
        Blind { cause, unexplained_bytes, grown_bytes: 5 << 30, over_s: 5.0 }
    }

    #[test]
    fn parts_share_a_unit_where_they_can() {
        let part = |bytes| unexplained_part(&of(BlindCause::Unexplained, bytes), Units::Iec);
        assert_eq!(part(4900 << 20).as_deref(), Some("4.8 of 5.0 GiB"));
        assert_eq!(part(600 << 20).as_deref(), Some("600.0 MiB of 5.0 GiB"));
        assert_eq!(part(100 << 20), None);
        assert_eq!(part(0), None);
    }
}
