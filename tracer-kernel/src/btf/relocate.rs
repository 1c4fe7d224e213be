//! Relocates the eBPF object for the running kernel before it is loaded: patches field offsets and
//! the configuration into the instructions that need them, and removes instructions that older
//! kernels reject for their encoding alone, even in code that `Config` makes unreachable for their
//! verifier.

use anyhow::Context as _;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SectionKind};
use tracer_common::Offsets;
use tracer_common::offsets::{CONFIG_MARKS, Config, FIELD_MARKS};

/// `BPF_STX | BPF_ATOMIC | BPF_DW`; the operation is in its immediate.
const ATOMIC: u8 = 0xdb;
const CMPXCHG: u32 = 0xf1;
/// `BPF_ALU64 | BPF_MOV | BPF_X`.
const MOVE: u8 = 0xbf;
/// `BPF_ALU64 | BPF_MOV | BPF_K`.
const MOVE_NUMBER: u8 = 0xb7;
/// `BPF_LD | BPF_IMM | BPF_DW`: loads a function's address for bpf_loop, among others.
const LOAD: u8 = 0x18;

/// Class and mode of a load from memory, `BPF_LDX | BPF_MEM`.
const LOAD_MEMORY: u8 = 0x61;
/// The bits of an opcode that encode class and mode.
const LOAD_BITS: u8 = 0xe7;
/// An offset that the verifier rejects, because no structure is long enough to have a field there.
const NO_FIELD: u16 = i16::MAX as u16;

/// Returns the object as this kernel accepts it.
///
/// # Errors
/// If it is not an ELF file.
pub(crate) fn relocate(elf: &[u8], offsets: &Offsets, config: &Config) -> anyhow::Result<Vec<u8>> {
    let mut elf = with_config(&with_offsets(elf, offsets)?, config)?;
    if config.has_cmpxchg == 0 {
        elf = without_cmpxchg(&elf)?;
    }
    if config.has_loop == 0 {
        elf = without_callbacks(&elf)?;
    }
    Ok(elf)
}

/// Patches field offsets into the loads that are marked for them (`offsets::field_mark`).
fn with_offsets(elf: &[u8], offsets: &Offsets) -> anyhow::Result<Vec<u8>> {
    let places = bytemuck::bytes_of(offsets);
    each_instruction(elf, |instruction| {
        let [opcode, _registers, low, high, ..] = *instruction;
        let place = usize::from(u16::from_le_bytes([low, high])).checked_sub(FIELD_MARKS);
        let field = place.and_then(|place| places.get(place..place + size_of::<u32>()));
        let (LOAD_MEMORY, Some(field)) = (opcode & LOAD_BITS, field) else { return };
        let offset = u32::from_le_bytes(field.try_into().unwrap_or([0xff; size_of::<u32>()]));
        let offset = u16::try_from(offset).ok().filter(|offset| usize::from(*offset) < FIELD_MARKS);
        instruction[2..4].copy_from_slice(&offset.unwrap_or(NO_FIELD).to_le_bytes());
    })
}

/// Patches configuration values into the moves that are marked for them (`offsets::config_mark`).
fn with_config(elf: &[u8], config: &Config) -> anyhow::Result<Vec<u8>> {
    let places = bytemuck::bytes_of(config);
    each_instruction(elf, |instruction| {
        let [opcode, _registers, _, _, immediate @ ..] = *instruction;
        let place = (u32::from_le_bytes(immediate) as usize).checked_sub(CONFIG_MARKS);
        let number = place.and_then(|place| places.get(place..place + size_of::<u32>()));
        if let (MOVE_NUMBER, Some(number)) = (opcode, number) {
            instruction[4..].copy_from_slice(number);
        }
    })
}

/// Removes the atomic exchange instructions (5.12).
fn without_cmpxchg(elf: &[u8]) -> anyhow::Result<Vec<u8>> {
    each_instruction(elf, |instruction| {
        let [opcode, _registers, _, _, immediate @ ..] = *instruction;
        if opcode == ATOMIC && u32::from_le_bytes(immediate) == CMPXCHG {
            *instruction = [MOVE, instruction[1], 0, 0, 0, 0, 0, 0];
        }
    })
}

/// Returns a copy of the object with `change` applied to all instructions.
fn each_instruction(elf: &[u8], change: impl Fn(&mut [u8; 8])) -> anyhow::Result<Vec<u8>> {
    let file = object::File::parse(elf).context("cannot parse the eBPF object")?;
    let mut out = elf.to_vec();
    for section in file.sections().filter(|section| section.kind() == SectionKind::Text) {
        let Some((start, len)) = section.file_range() else { continue };
        let code =
            out.get_mut(start as usize..(start + len) as usize).context("truncated eBPF object")?;
        code.as_chunks_mut::<8>().0.iter_mut().for_each(&change);
    }
    Ok(out)
}

/// Removes the relocations that turn a load into that of a function's address (5.13), so it loads a
/// plain number. They are moved to an offset without an instruction.
fn without_callbacks(elf: &[u8]) -> anyhow::Result<Vec<u8>> {
    const NOWHERE: u64 = u64::MAX - 7;
    let mut out = elf.to_vec();
    for place in callbacks(elf)? {
        let offset = out.get_mut(place..place + 8).context("truncated eBPF object")?;
        offset.copy_from_slice(&NOWHERE.to_le_bytes());
    }
    Ok(out)
}

/// Returns the file offsets of `r_offset` of such relocations (`Elf64_Rel::r_offset`).
fn callbacks(elf: &[u8]) -> anyhow::Result<Vec<usize>> {
    /// `size_of::<Elf64_Rel>()`
    const ENTRY: usize = 16;
    let file = object::File::parse(elf).context("cannot parse the eBPF object")?;
    let mut places = Vec::new();
    for section in file.sections() {
        // A section that holds relocations is recognized by its name: `.relSECTION`.
        let Some(target) = section.name().ok().and_then(|name| name.strip_prefix(".rel")) else {
            continue;
        };
        let Some(target) = file.section_by_name(target) else { continue };
        if target.kind() != SectionKind::Text {
            continue;
        }
        let code = target.data().context("cannot read the code section")?;
        let (start, _) = section.file_range().context("cannot read the relocation section")?;
        for (n, entry) in section
            .data()
            .context("cannot read the relocation section")?
            .as_chunks::<ENTRY>()
            .0
            .iter()
            .enumerate()
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
    use super::*;
    use crate::object::OBJECT;

    fn instructions(elf: &[u8]) -> Vec<[u8; 8]> {
        let file = object::File::parse(elf).unwrap();
        let text = file.sections().filter(|section| section.kind() == SectionKind::Text);
        text.flat_map(|section| section.data().unwrap().as_chunks::<8>().0.to_vec()).collect()
    }

    fn exchanges(elf: &[u8]) -> usize {
        let code = instructions(elf);
        code.iter().filter(|code| code[0] == ATOMIC && code[4..] == CMPXCHG.to_le_bytes()).count()
    }

    /// Returns the offsets of all loads.
    fn loads(elf: &[u8]) -> Vec<i16> {
        let loads = instructions(elf).into_iter().filter(|code| code[0] & LOAD_BITS == LOAD_MEMORY);
        loads.map(|code| i16::from_le_bytes([code[2], code[3]])).collect()
    }

    #[test]
    fn marked_loads_get_the_offsets_of_their_fields_and_no_others() {
        const MARKS: i16 = FIELD_MARKS as i16;
        let mut offsets = Offsets::UNKNOWN;
        for (n, (_, _, set)) in Offsets::TABLE.iter().enumerate() {
            set(&mut offsets, 0x6000 + n as u32);
        }
        let before = loads(OBJECT);
        assert!(before.iter().any(|offset| *offset >= MARKS));
        // `Offsets` has a u32 for each row of its table, in the same order.
        let relocated = |mark: i16| if mark < MARKS { mark } else { 0x6000 + (mark - MARKS) / 4 };
        let expected: Vec<i16> = before.into_iter().map(relocated).collect();
        assert_eq!(loads(&with_offsets(OBJECT, &offsets).unwrap()), expected);
    }

    /// Returns the immediates of all moves.
    fn numbers(elf: &[u8]) -> Vec<u32> {
        let moves = instructions(elf).into_iter().filter(|code| code[0] == MOVE_NUMBER);
        moves.map(|code| u32::from_le_bytes([code[4], code[5], code[6], code[7]])).collect()
    }

    #[test]
    fn marked_moves_get_the_numbers_of_the_configuration_and_no_others() {
        const MARKS: u32 = CONFIG_MARKS as u32;
        let mut words = [0u32; size_of::<Config>() / 4];
        words.iter_mut().zip(1000..).for_each(|(word, n)| *word = n);
        let config: Config = bytemuck::cast(words);
        let before = numbers(OBJECT);
        let is_mark = |number: u32| (MARKS..MARKS + size_of::<Config>() as u32).contains(&number);
        assert!(before.iter().any(|number| is_mark(*number)));
        let relocated = |n: u32| if is_mark(n) { 1000 + (n - MARKS) / 4 } else { n };
        let expected: Vec<u32> = before.into_iter().map(relocated).collect();
        assert_eq!(numbers(&with_config(OBJECT, &config).unwrap()), expected);
    }

    #[test]
    fn a_field_that_this_kernel_lacks_cannot_be_read() {
        let changed = with_offsets(OBJECT, &Offsets::UNKNOWN).unwrap();
        let far = |elf: &[u8]| loads(elf).into_iter().filter(|offset| *offset >= 0x7000).collect();
        let (before, after): (Vec<i16>, Vec<i16>) = (far(OBJECT), far(&changed));
        assert!(!before.is_empty());
        assert_eq!(after, vec![NO_FIELD as i16; before.len()]);
    }

    #[test]
    fn no_atomic_exchange_remains() {
        let changed = without_cmpxchg(OBJECT).unwrap();
        assert!(exchanges(OBJECT) > 0);
        assert_eq!(exchanges(&changed), 0);
        assert_eq!(changed.len(), OBJECT.len());
    }

    #[test]
    fn no_callback_remains() {
        let changed = without_callbacks(OBJECT).unwrap();
        assert!(!callbacks(OBJECT).unwrap().is_empty());
        assert!(callbacks(&changed).unwrap().is_empty());
        assert_eq!(changed.len(), OBJECT.len());
    }
}
