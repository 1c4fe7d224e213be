//! Changes to the kernel side's object that kernels before some version need: instructions whose very
//! encoding they refuse, even in code that their verifier finds to be unreachable, which it is there
//! (`Config`).

use std::borrow::Cow;

use anyhow::Context as _;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SectionKind};
use tracer_common::offsets::Config;

/// `BPF_STX | BPF_ATOMIC | BPF_DW`, and the operation in its immediate.
const ATOMIC: u8 = 0xdb;
const CMPXCHG: u32 = 0xf1;
/// `BPF_ALU64 | BPF_MOV | BPF_X`.
const MOVE: u8 = 0xbf;
/// `BPF_LD | BPF_IMM | BPF_DW`: of a function's address for bpf_loop, among others.
const LOAD: u8 = 0x18;

/// The object as this kernel takes it.
///
/// # Errors
/// If it is no ELF file.
pub fn fit<'a>(elf: &'a [u8], config: &Config) -> anyhow::Result<Cow<'a, [u8]>> {
    let mut elf = Cow::Borrowed(elf);
    if config.has_cmpxchg == 0 {
        elf = Cow::Owned(without_cmpxchg(&elf)?);
    }
    if config.has_loop == 0 {
        elf = Cow::Owned(without_callbacks(&elf)?);
    }
    Ok(elf)
}

/// Takes the exchange instructions out (5.12).
fn without_cmpxchg(elf: &[u8]) -> anyhow::Result<Vec<u8>> {
    let file = object::File::parse(elf).context("the kernel side's object")?;
    let mut out = elf.to_vec();
    for section in file.sections().filter(|section| section.kind() == SectionKind::Text) {
        let Some((start, len)) = section.file_range() else { continue };
        let code = out.get_mut(start as usize..(start + len) as usize).context("cut short")?;
        for instruction in code.as_chunks_mut::<8>().0 {
            let [opcode, _registers, _, _, immediate @ ..] = *instruction;
            if opcode == ATOMIC && u32::from_le_bytes(immediate) == CMPXCHG {
                *instruction = [MOVE, instruction[1], 0, 0, 0, 0, 0, 0];
            }
        }
    }
    Ok(out)
}

/// Takes the relocations out that make a load that of a function's address (5.13): what is left loads
/// a number. They are moved to where there is no instruction.
fn without_callbacks(elf: &[u8]) -> anyhow::Result<Vec<u8>> {
    const NOWHERE: u64 = u64::MAX - 7;
    let mut out = elf.to_vec();
    for place in callbacks(elf)? {
        let offset = out.get_mut(place..place + 8).context("cut short")?;
        offset.copy_from_slice(&NOWHERE.to_le_bytes());
    }
    Ok(out)
}

/// Where in the file the offsets of such relocations are (`Elf64_Rel::r_offset`).
fn callbacks(elf: &[u8]) -> anyhow::Result<Vec<usize>> {
    /// `size_of::<Elf64_Rel>()`
    const ENTRY: usize = 16;
    let file = object::File::parse(elf).context("the kernel side's object")?;
    let mut places = Vec::new();
    for section in file.sections() {
        // The kind of a section that holds relocations, by its name: `.relSECTION`.
        let Some(target) = section.name().ok().and_then(|name| name.strip_prefix(".rel")) else {
            continue;
        };
        let Some(target) = file.section_by_name(target) else { continue };
        if target.kind() != SectionKind::Text {
            continue;
        }
        let code = target.data().context("code")?;
        let (start, _) = section.file_range().context("relocations")?;
        for (n, entry) in
            section.data().context("relocations")?.as_chunks::<ENTRY>().0.iter().enumerate()
        {
            let [offset, info] = [&entry[..8], &entry[8..]]
                .map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap_or_default()));
            if code.get(offset as usize) != Some(&LOAD) {
                continue;
            }
            let symbol = object::SymbolIndex((info >> 32) as usize);
            let of_code = file
                .symbol_by_index(symbol)
                .ok()
                .and_then(|symbol| symbol.section_index())
                .and_then(|index| file.section_by_index(index).ok())
                .is_some_and(|section| section.kind() == SectionKind::Text);
            if of_code {
                places.push(start as usize + n * ENTRY);
            }
        }
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use super::{super::OBJECT, *};

    fn exchanges(elf: &[u8]) -> usize {
        let file = object::File::parse(elf).unwrap();
        let text = file.sections().filter(|section| section.kind() == SectionKind::Text);
        text.flat_map(|section| section.data().unwrap().as_chunks::<8>().0)
            .filter(|code| code[0] == ATOMIC && code[4..] == CMPXCHG.to_le_bytes())
            .count()
    }

    #[test]
    fn no_exchange_is_left() {
        let changed = without_cmpxchg(OBJECT).unwrap();
        assert!(exchanges(OBJECT) > 0);
        assert_eq!(exchanges(&changed), 0);
        assert_eq!(changed.len(), OBJECT.len());
    }

    #[test]
    fn no_callback_is_left() {
        let changed = without_callbacks(OBJECT).unwrap();
        assert!(!callbacks(OBJECT).unwrap().is_empty());
        assert!(callbacks(&changed).unwrap().is_empty());
        assert_eq!(changed.len(), OBJECT.len());
    }
}
