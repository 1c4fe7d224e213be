//! Checks that every call chain in the eBPF object fits into the 512 bytes that the verifier allows
//! (`check_max_stack_depth`). Checked here because kernels that give programs their own stack
//! (6.13) accept more, and only older ones would reject it.

use std::collections::{HashMap, HashSet};

use object::{
    Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SectionIndex, SymbolKind,
};

const MAX_BPF_STACK: u32 = 512;
/// Each frame is rounded up to a multiple of this, and is at least this.
const FRAME: u32 = 32;

/// (section, address) of a function.
type Place = (SectionIndex, u64);

struct Function {
    name: String,
    frame: u32,
    calls: HashSet<Place>,
}

/// Returns all functions of the object, with the size of the stack frame of each.
fn functions(file: &object::File<'_>) -> HashMap<Place, Function> {
    let symbols = file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text);
    symbols
        .filter_map(|symbol| {
            let place = (symbol.section_index()?, symbol.address());
            let section = file.section_by_index(place.0).ok()?;
            let code = section.data().ok()?;
            let end = symbol.address() + symbol.size();
            let code = &code[symbol.address() as usize..end as usize];
            let targets: HashMap<u64, Place> = section
                .relocations()
                .filter_map(|(offset, relocation)| {
                    let RelocationTarget::Symbol(index) = relocation.target() else { return None };
                    let target = file.symbol_by_index(index).ok()?;
                    Some((offset, (target.section_index()?, target.address())))
                })
                .collect();
            Some((place, function(symbol.name().ok()?, code, place, &targets)))
        })
        .collect()
}

/// Decodes instructions: opcode, destination and source, offset, immediate.
fn function(name: &str, code: &[u8], place: Place, targets: &HashMap<u64, Place>) -> Function {
    const CALL: u8 = 0x85;
    const LOAD: u8 = 0x18;
    const MOVE: u8 = 0xbf;
    const ADD: u8 = 0x07;
    const FRAME_POINTER: u8 = 10;
    let mut deepest = 0_i64;
    let mut calls = HashSet::new();
    let mut copies = [false; 16];
    for (n, word) in code.as_chunks::<8>().0.iter().enumerate() {
        let [opcode, registers, low, high, immediate @ ..] = *word;
        let (destination, source) = (registers & 15, registers >> 4);
        let offset = i64::from(i16::from_le_bytes([low, high]));
        let immediate = i64::from(i32::from_le_bytes(immediate));
        let at = place.1 + 8 * n as u64;
        // Loads have their address in the source register, stores in the destination register.
        let through = match opcode & 7 {
            1 => Some(source),
            2 | 3 => Some(destination),
            _ => None,
        };
        if through == Some(FRAME_POINTER) {
            deepest = deepest.max(-offset);
        }
        if opcode == MOVE {
            copies[usize::from(destination)] = source == FRAME_POINTER;
        } else if opcode == ADD && copies[usize::from(destination)] {
            deepest = deepest.max(-immediate);
            copies[usize::from(destination)] = false;
        }
        let target = targets.get(&at).map(|(section, address)| {
            // Relative to the section's start if the symbol is the section itself.
            let added = match (opcode, *address) {
                (CALL, 0) => 8 * (immediate + 1),
                (LOAD, 0) => immediate,
                _ => 0,
            };
            (*section, address.wrapping_add_signed(added))
        });
        match (opcode, source) {
            (CALL, 1) => {
                let near = (place.0, at.wrapping_add_signed(8 * (immediate + 1)));
                calls.insert(target.unwrap_or(near));
            }
            // A function's address, for bpf_loop.
            (LOAD, _) => calls.extend(target),
            _ => {}
        }
    }
    let frame = u32::try_from(deepest).unwrap_or(u32::MAX).next_multiple_of(FRAME).max(FRAME);
    Function { name: name.to_owned(), frame, calls }
}

/// Returns the deepest call chain from here, with the names of its functions.
fn deepest(functions: &HashMap<Place, Function>, place: &Place) -> (u32, Vec<String>) {
    let Some(function) = functions.get(place) else { return (0, Vec::new()) };
    let below = function.calls.iter().map(|call| deepest(functions, call));
    let (depth, mut names) = below.max_by_key(|(depth, _)| *depth).unwrap_or_default();
    names.push(format!("{} {}", function.name, function.frame));
    (depth + function.frame, names)
}

#[test]
fn every_call_chain_fits_into_the_stack() {
    let file = object::File::parse(crate::object::OBJECT).unwrap();
    let functions = functions(&file);
    let text = file.section_by_name(".text").map(|section| section.index());
    let programs: Vec<_> = functions.keys().filter(|(section, _)| Some(*section) != text).collect();
    assert!(programs.len() > 50, "only {} programs", programs.len());
    let chains: Vec<_> = programs.iter().map(|place| deepest(&functions, place)).collect();
    // The walk over names is a callback: check that it was found.
    assert!(chains.iter().any(|(_, names)| names.iter().any(|name| name.contains("walk_step"))));
    for (depth, names) in chains {
        assert!(depth <= MAX_BPF_STACK, "{depth} bytes: {names:#?}");
    }
}
