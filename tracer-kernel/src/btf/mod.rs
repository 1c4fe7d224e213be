//! A small reader of the kernel's BTF, for field offsets and function arguments only.
//!
//! Format: Documentation/bpf/btf.rst. Only the requested types are looked up, in one pass, because
//! a full parse takes seconds under emulation.

pub(crate) mod cache;
pub(crate) mod helper;
pub(crate) mod inode_layout;
pub(crate) mod modules;
pub(crate) mod overlay_inode;
pub(crate) mod relocate;
pub(crate) mod structs;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use thiserror::Error;
use tracer_common::Offsets;

/// The kernel's type information.
pub(crate) const VMLINUX_BTF: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xEB9F;
const KIND_INT: u32 = 1;
const KIND_PTR: u32 = 2;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_VOLATILE: u32 = 9;
const KIND_CONST: u32 = 10;
const KIND_RESTRICT: u32 = 11;
const KIND_FUNC: u32 = 12;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_ENUM64: u32 = 19;

/// Why the kernel's BTF cannot be used.
#[derive(Debug, Error)]
pub(crate) enum BtfError {
    /// The file cannot be read, most often because the kernel was built without
    /// CONFIG_DEBUG_INFO_BTF.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// Path of the file.
        path: String,
        /// Error of open(2) or read(2).
        source: std::io::Error,
    },
    /// Not BTF, or truncated.
    #[error("damaged BTF: {0}")]
    Damaged(&'static str),
}

/// The requested types of one BTF blob.
pub(crate) struct KernelBtf {
    data: Vec<u8>,
    strings: usize,
    /// The kernel's own BTF, which the BTF of a module extends: type ids and string offsets
    /// continue there.
    base: Option<Arc<KernelBtf>>,
    /// Byte position of each type; the first is id 0 (void), or the id that follows the base's
    /// last.
    types: Vec<u32>,
    strings_len: usize,
    /// (is a function, name) → id.
    found: HashMap<(bool, String), u32>,
}

impl KernelBtf {
    /// Reads `path` and finds the given functions and structs, and all structs that
    /// [`Offsets::TABLE`] names.
    ///
    /// # Errors
    /// [`BtfError`] if there is no such file or it is not BTF.
    pub(crate) fn load(
        path: &Path,
        functions: &[&str],
        structs: &[&str],
    ) -> Result<Self, BtfError> {
        let data = std::fs::read(path)
            .map_err(|source| BtfError::Unreadable { path: path.display().to_string(), source })?;
        let structs: Vec<&str> = Offsets::TABLE
            .iter()
            .map(|(name, _, _)| *name)
            .chain(structs.iter().copied())
            .collect();
        Self::parse(data, functions, &structs, None)
    }

    /// Reads a module's BTF and finds the given functions and structs.
    ///
    /// # Errors
    /// [`BtfError`] if the module is not loaded, or the kernel has no BTF of modules (5.10).
    pub(crate) fn load_module(
        base: &Arc<Self>,
        module: &str,
        functions: &[&str],
        structs: &[&str],
    ) -> Result<Self, BtfError> {
        let path = format!("/sys/kernel/btf/{module}");
        let data = std::fs::read(&path).map_err(|source| BtfError::Unreadable { path, source })?;
        Self::parse(data, functions, structs, Some(Arc::clone(base)))
    }

    fn parse(
        data: Vec<u8>,
        functions: &[&str],
        structs: &[&str],
        base: Option<Arc<Self>>,
    ) -> Result<Self, BtfError> {
        let cut = || BtfError::Damaged("truncated");
        if data.len() < 24 || u16::from_ne_bytes([data[0], data[1]]) != MAGIC {
            return Err(BtfError::Damaged("wrong magic number"));
        }
        let word = |at: usize| -> Option<usize> {
            let bytes = data.get(at..at + 4)?;
            Some(u32::from_ne_bytes(bytes.try_into().ok()?) as usize)
        };
        let header = word(4).ok_or_else(cut)?;
        let types_at = header + word(8).ok_or_else(cut)?;
        let types_end = types_at + word(12).ok_or_else(cut)?;
        let strings = header + word(16).ok_or_else(cut)?;
        if types_end > data.len() || strings > data.len() {
            return Err(cut());
        }
        let strings_len = word(20).ok_or_else(cut)?;
        let types = if base.is_some() { Vec::new() } else { vec![0] };
        let mut btf = Self { data, strings, base, types, strings_len, found: HashMap::new() };
        let mut wanted: HashSet<(bool, &str)> =
            functions.iter().map(|name| (true, *name)).collect();
        wanted.extend(structs.iter().map(|name| (false, *name)));
        let mut at = types_at;
        while at < types_end {
            let id = btf.count();
            btf.types.push(u32::try_from(at).map_err(|_| cut())?);
            let kind = btf.kind(id);
            if matches!(kind, KIND_FUNC | KIND_TYPEDEF | KIND_STRUCT) {
                let is_function = kind != KIND_STRUCT;
                let name = btf.name(id);
                if wanted.contains(&(is_function, name)) {
                    let key = (is_function, name.to_owned());
                    btf.found.entry(key).or_insert(id);
                }
            }
            at += 12 + btf.payload(id)?;
        }
        Ok(btf)
    }

    /// Returns all field offsets; [`Offsets::ABSENT`] for fields that this kernel lacks.
    #[must_use]
    pub(crate) fn offsets(&self) -> Offsets {
        let mut offsets = Offsets::UNKNOWN;
        for (name, member, set) in Offsets::TABLE {
            if let Some(offset) = self.member_offset(name, member) {
                set(&mut offsets, offset);
            }
        }
        offsets
    }

    /// Returns the BTF id of a function in the kernel itself, or in the module this BTF belongs to.
    #[must_use]
    pub(crate) fn function(&self, name: &str) -> Option<u32> {
        self.found.get(&(true, name.to_owned())).copied()
    }

    /// Returns the names of the struct types that a function's arguments point to, `None` for
    /// arguments of other types; or `None` if there is no such function. A raw tracepoint is found
    /// as `btf_trace_NAME`; its first argument is the tracepoint's own.
    #[must_use]
    pub(crate) fn arguments(&self, function: &str) -> Option<Vec<Option<&str>>> {
        let id = *self.found.get(&(true, function.to_owned()))?;
        let mut proto = self.strip(self.size_or_type(id));
        if self.kind(proto) == KIND_PTR {
            proto = self.size_or_type(proto);
        }
        (self.kind(proto) == KIND_FUNC_PROTO).then_some(())?;
        let (btf, at) = self.locate(proto);
        Some(
            (0..self.vlen(proto))
                .map(|n| {
                    let argument = btf.u32(at + 12 + n * 8 + 4);
                    let pointer = self.strip(argument);
                    let target = self.strip(self.size_or_type(pointer));
                    let is_struct =
                        self.kind(pointer) == KIND_PTR && self.kind(target) == KIND_STRUCT;
                    is_struct.then(|| self.name(target))
                })
                .collect(),
        )
    }

    /// Whether a member is a pointer to a struct of this name.
    #[must_use]
    pub(crate) fn points_to(&self, name: &str, member: &str, target: &str) -> bool {
        let Some(id) = self.found.get(&(false, name.to_owned())) else { return false };
        let Some((_, found)) = self.find_member(*id, member, 0) else { return false };
        let pointer = self.strip(found);
        let pointee = self.strip(self.size_or_type(pointer));
        self.kind(pointer) == KIND_PTR && self.name(pointee) == target
    }

    /// Returns the size of a struct, bytes.
    #[must_use]
    pub(crate) fn size(&self, name: &str) -> Option<u32> {
        self.found.get(&(false, name.to_owned())).map(|id| self.size_or_type(*id))
    }

    /// Returns the byte offset of a member, given as a dotted path without anonymous parts.
    #[must_use]
    pub(crate) fn member_offset(&self, name: &str, path: &str) -> Option<u32> {
        self.member_place(name, path).map(|bits| bits / 8)
    }

    /// Returns the byte offset of the 32-bit word that contains the given bit fields, and the mask
    /// of those that exist.
    #[must_use]
    pub(crate) fn bits(&self, name: &str, members: &[&str]) -> (u32, u32) {
        let places = || members.iter().filter_map(|member| self.member_place(name, member));
        let at = places().min().unwrap_or(0) / 8;
        let within = places().filter_map(|place| place.checked_sub(at * 8));
        (at, within.fold(0, |bits, place| bits | 1_u32.checked_shl(place).unwrap_or(0)))
    }

    /// Returns the offset of a member in bits from the start of the struct.
    fn member_place(&self, name: &str, path: &str) -> Option<u32> {
        let mut id = *self.found.get(&(false, name.to_owned()))?;
        let mut place = 0;
        for part in path.split('.') {
            let (bits, member) = self.find_member(self.strip(id), part, 0)?;
            place += bits;
            id = member;
        }
        Some(place)
    }

    /// Returns (offset in bits, type) of a member of a struct or union, including anonymous
    /// members.
    fn find_member(&self, id: u32, name: &str, depth: u32) -> Option<(u32, u32)> {
        if depth > 8 || !matches!(self.kind(id), KIND_STRUCT | KIND_UNION) {
            return None;
        }
        let (btf, at) = self.locate(id);
        // With the kind flag set, the upper byte holds the size of a bitfield.
        let mask = if self.word(id, 1) >> 31 == 1 { 0x00ff_ffff } else { u32::MAX };
        (0..self.vlen(id)).find_map(|n| {
            let member = at + 12 + n * 12;
            let bits = btf.u32(member + 8) & mask;
            let member_type = btf.u32(member + 4);
            match btf.string(btf.u32(member)) {
                "" => {
                    let (inner, found) =
                        self.find_member(self.strip(member_type), name, depth + 1)?;
                    Some((bits + inner, found))
                }
                found if found == name => Some((bits, member_type)),
                _ => None,
            }
        })
    }

    /// Strips typedefs and qualifiers.
    fn strip(&self, mut id: u32) -> u32 {
        for _ in 0..32 {
            match self.kind(id) {
                KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT | 18 => {
                    id = self.size_or_type(id);
                }
                _ => break,
            }
        }
        id
    }

    fn payload(&self, id: u32) -> Result<usize, BtfError> {
        let n = self.vlen(id);
        Ok(match self.kind(id) {
            KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
            KIND_ARRAY => 12,
            KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => n * 12,
            KIND_ENUM | KIND_FUNC_PROTO => n * 8,
            0 | 20.. => return Err(BtfError::Damaged("unknown type kind")),
            _ => 0,
        })
    }

    /// Number of types, including the base's: the next id.
    fn count(&self) -> u32 {
        self.first_id() + self.types.len() as u32
    }

    fn first_id(&self) -> u32 {
        self.base.as_ref().map_or(0, |base| base.count())
    }

    /// Returns one of the three words that each type starts with.
    fn word(&self, id: u32, n: usize) -> u32 {
        let (btf, at) = self.locate(id);
        btf.u32(at + n * 4)
    }

    /// Returns the blob that contains a type, and the position in it.
    fn locate(&self, id: u32) -> (&Self, usize) {
        match &self.base {
            Some(base) if id < base.count() => base.locate(id),
            _ => {
                let index = id.wrapping_sub(self.first_id()) as usize;
                (self, self.types.get(index).map_or(0, |at| *at as usize))
            }
        }
    }

    fn u32(&self, at: usize) -> u32 {
        self.data
            .get(at..at + 4)
            .and_then(|bytes| bytes.try_into().ok())
            .map_or(0, u32::from_ne_bytes)
    }

    fn kind(&self, id: u32) -> u32 {
        if id == 0 { 0 } else { self.word(id, 1) >> 24 & 0x1f }
    }

    fn vlen(&self, id: u32) -> usize {
        (self.word(id, 1) & 0xffff) as usize
    }

    fn size_or_type(&self, id: u32) -> u32 {
        self.word(id, 2)
    }

    fn name(&self, id: u32) -> &str {
        self.string(self.word(id, 0))
    }

    fn string(&self, offset: u32) -> &str {
        let mut offset = offset as usize;
        if let Some(base) = &self.base {
            if offset < base.strings_len {
                return base.string(offset as u32);
            }
            offset -= base.strings_len;
        }
        let Some(rest) = self.data.get(self.strings + offset..) else { return "" };
        let end = rest.iter().position(|byte| *byte == 0).unwrap_or(0);
        std::str::from_utf8(&rest[..end]).unwrap_or("")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Builds a blob: `struct inode { union { u32 i_nlink; }; u64 i_ino; }`, `void f(struct inode *)`.
    fn blob() -> Vec<u8> {
        let strings = b"\0inode\0i_nlink\0i_ino\0f\0u\0";
        let pos = |s: &str| {
            let needle = format!("\0{s}\0");
            strings.windows(needle.len()).position(|w| w == needle.as_bytes()).unwrap() as u32 + 1
        };
        let mut types: Vec<u32> = Vec::new();
        types.extend([pos("u"), KIND_INT << 24, 4, 32]); // 1: u32
        types.extend([0, KIND_UNION << 24 | 1, 4, pos("i_nlink"), 1, 0]); // 2
        types.extend([pos("inode"), KIND_STRUCT << 24 | 2, 16]); // 3
        types.extend([0, 2, 0, pos("i_ino"), 1, 64]);
        types.extend([0, KIND_PTR << 24, 3]); // 4
        types.extend([0, KIND_FUNC_PROTO << 24 | 1, 0, 0, 4]); // 5
        types.extend([pos("f"), KIND_FUNC << 24, 5]); // 6
        let mut data = Vec::new();
        data.extend(MAGIC.to_ne_bytes());
        data.extend([1, 0]);
        let type_len = types.len() as u32 * 4;
        for word in [24, 0, type_len, type_len, strings.len() as u32] {
            data.extend(u32::to_ne_bytes(word));
        }
        types.iter().for_each(|word| data.extend(word.to_ne_bytes()));
        data.extend(strings);
        data
    }

    fn parse(data: Vec<u8>) -> Result<KernelBtf, BtfError> {
        KernelBtf::parse(data, &["f", "absent"], &["inode"], None)
    }

    #[test]
    fn finds_members_and_arguments() {
        let btf = parse(blob()).unwrap();
        assert_eq!(btf.member_offset("inode", "i_ino"), Some(8));
        assert_eq!(btf.member_offset("inode", "i_nlink"), Some(0));
        assert_eq!(btf.member_offset("inode", "i_gone"), None);
        assert_eq!(btf.bits("inode", &["i_ino", "i_gone"]), (8, 1));
        assert_eq!(btf.bits("inode", &["i_gone"]), (0, 0));
        assert_eq!(btf.arguments("f"), Some(vec![Some("inode")]));
        assert_eq!(btf.arguments("absent"), None);
        assert_eq!(btf.offsets().inode_ino, 8);
        assert_eq!(btf.offsets().task_tgid, Offsets::ABSENT);
    }

    #[test]
    fn damaged_btf_is_an_error_or_empty_never_a_panic() {
        let whole = blob();
        for len in 0..whole.len() {
            let _ = parse(whole[..len].to_vec()).map(|btf| btf.offsets());
        }
        for at in 0..whole.len() {
            let mut bent = whole.clone();
            bent[at] ^= 0xff;
            let _ = parse(bent).map(|btf| (btf.offsets(), btf.arguments("f").is_some()));
        }
    }

    #[test]
    fn reads_the_running_kernel() {
        let path = Path::new("/sys/kernel/btf/vmlinux");
        if !path.exists() {
            println!("SKIP reads_the_running_kernel: no BTF");
            return;
        }
        let btf = KernelBtf::load(path, &["vfs_unlink"], &[]).unwrap();
        let offsets = btf.offsets();
        assert_ne!(offsets.inode_ino, Offsets::ABSENT);
        assert_ne!(offsets.dentry_name_len, Offsets::ABSENT);
        assert!(btf.arguments("vfs_unlink").unwrap().contains(&Some("dentry")));
    }
}
