//! Changes to the kernel side's object that kernels before some version need.

use anyhow::Context as _;
use object::{Object as _, ObjectSection as _, SectionKind};

/// `BPF_STX | BPF_ATOMIC | BPF_DW`, and the operation in its immediate.
const ATOMIC: u8 = 0xdb;
const XCHG: u32 = 0xe1;
/// `BPF_ALU64 | BPF_MOV | BPF_X`.
const MOVE: u8 = 0xbf;

/// Takes the exchange instructions out. Kernels before 5.12 refuse their very encoding, even in code
/// that the verifier finds to be unreachable, which these are there (`Config::has_xchg`).
///
/// # Errors
/// If it is no ELF file.
pub fn without_xchg(elf: &[u8]) -> anyhow::Result<Vec<u8>> {
    let file = object::File::parse(elf).context("the kernel side's object")?;
    let mut out = elf.to_vec();
    for section in file.sections().filter(|section| section.kind() == SectionKind::Text) {
        let Some((start, len)) = section.file_range() else { continue };
        let code = out.get_mut(start as usize..(start + len) as usize).context("cut short")?;
        for instruction in code.as_chunks_mut::<8>().0 {
            let [opcode, _registers, _, _, immediate @ ..] = *instruction;
            if opcode == ATOMIC && u32::from_le_bytes(immediate) == XCHG {
                *instruction = [MOVE, instruction[1], 0, 0, 0, 0, 0, 0];
            }
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchanges(elf: &[u8]) -> usize {
        let file = object::File::parse(elf).unwrap();
        let text = file.sections().filter(|section| section.kind() == SectionKind::Text);
        text.flat_map(|section| section.data().unwrap().as_chunks::<8>().0)
            .filter(|code| code[0] == ATOMIC && code[4..] == XCHG.to_le_bytes())
            .count()
    }

    #[test]
    fn no_exchange_is_left() {
        let changed = without_xchg(super::super::OBJECT).unwrap();
        assert!(exchanges(super::super::OBJECT) > 0);
        assert_eq!(exchanges(&changed), 0);
        assert_eq!(changed.len(), super::super::OBJECT.len());
    }
}
