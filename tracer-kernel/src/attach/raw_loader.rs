//! Programs of trampolines that aya cannot load: for functions of modules, and of one program for a second
//! function. Their code is read, and joined to the maps that aya made, only while one is to be attached.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use aya::Ebpf;
use aya::maps::Map;
use aya_obj::Object;
use tracer_common::Offsets;
use tracer_common::offsets::Config;

use super::error::{HookFailure, error_chain};
use crate::btf::modules::ModuleTypes;
use crate::btf::relocate;
use crate::loader::OBJECT;
use crate::sys::tracing;

/// See the module.
pub(crate) struct ByHand {
    /// All maps, for they are taken out of aya's hands after the start.
    maps: HashMap<String, OwnedFd>,
    offsets: Offsets,
    config: Config,
    code: OnceCell<Code>,
    attached: Vec<Attached>,
}

struct Code {
    object: Object,
    /// The object's own types, as the kernel has them.
    types: Option<OwnedFd>,
}

struct Attached {
    name: String,
    program: OwnedFd,
    _link: OwnedFd,
}

/// Where a program is to be attached.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target<'a> {
    /// The kernel function.
    pub function: &'a str,
    /// Its number among the types of where it is.
    pub id: u32,
    /// The module that it is in; `None`: the kernel itself.
    pub module: Option<&'a str>,
    /// At its exit, or at its entry.
    pub at_exit: bool,
}

impl ByHand {
    /// For the object as it was fitted to this kernel, when it was just loaded.
    ///
    /// # Errors
    /// If there are no more descriptors.
    pub(crate) fn new(ebpf: &Ebpf, offsets: Offsets, config: Config) -> io::Result<Self> {
        let maps = ebpf.maps().filter_map(|(name, map)| Some((name, descriptor(map)?)));
        let maps = maps.map(|(name, map)| Ok((name.to_owned(), map.try_clone_to_owned()?)));
        Ok(Self {
            maps: maps.collect::<io::Result<_>>()?,
            offsets,
            config,
            code: OnceCell::new(),
            attached: Vec::new(),
        })
    }

    /// Loads and attaches a program of the object.
    ///
    /// # Errors
    /// In the kernel's words.
    pub(crate) fn attach(&mut self, program: &str, target: &Target<'_>) -> Result<(), HookFailure> {
        if self.code.get().is_none() {
            let code = self.read()?;
            let _ = self.code.set(code);
        }
        let Some(Code { object, types }) = self.code.get() else { return Ok(()) };
        let (found, code) = object
            .programs
            .get(program)
            .and_then(|found| Some((found, object.functions.get(&found.function_key())?)))
            .ok_or_else(|| format!("the kernel side has no program {program}"))?;
        let module = target.module.map(|module| ModuleTypes::of_process().of(module));
        let module = module.transpose().map_err(HookFailure::NoTypes)?;
        let name =
            format!("{}_{}", ["fentry", "fexit"][usize::from(target.at_exit)], target.function);
        let program = tracing::load(&tracing::Tracing {
            name: &name,
            code,
            license: &found.license,
            types: types.as_ref().map(OwnedFd::as_fd),
            module: module.as_ref().map(|types| types.as_fd()),
            function: target.id,
            at_exit: target.at_exit,
        })
        .map_err(|(error, log)| HookFailure::of_load(&error, &log))?;
        let link =
            tracing::attach(program.as_fd()).map_err(|error| HookFailure::of_call(&error))?;
        self.attached.push(Attached { name, program, _link: link });
        Ok(())
    }

    /// Gives the code's memory back until a program is to be attached again.
    pub(crate) fn forget_code(&mut self) {
        self.code.take();
    }

    /// All that are attached, by kind and function.
    pub(crate) fn programs(&self) -> impl Iterator<Item = (&str, BorrowedFd<'_>)> {
        self.attached.iter().map(|one| (one.name.as_str(), one.program.as_fd()))
    }

    /// The object's code, joined to the maps.
    fn read(&self) -> Result<Code, String> {
        let elf =
            relocate::fit(OBJECT, &self.offsets, &self.config).map_err(|e| format!("{e:#}"))?;
        let mut object = Object::parse(&elf).map_err(|error| error_chain(&error))?;
        let types = match aya::features().btf() {
            Some(features) => {
                let types = object.fixup_and_sanitize_btf(features).map_err(|e| error_chain(&e))?;
                let loaded = types.map(|types| tracing::load_types(&types.to_bytes()));
                loaded.transpose().map_err(|error| format!("own type information: {error}"))?
            }
            None => None,
        };
        let maps = std::mem::take(&mut object.maps);
        let joined = maps.iter().map(|(name, map)| {
            let ours = self.maps.get(name)?;
            Some((name.as_str(), ours.as_raw_fd(), map))
        });
        let joined: Option<Vec<_>> = joined.collect();
        let joined = joined.ok_or("a map of the kernel side is missing")?;
        let code = object.functions.keys().map(|(section, _)| *section).collect();
        object
            .relocate_maps(joined.into_iter(), &code)
            .and_then(|()| object.relocate_calls(&code))
            .map_err(|error| error_chain(&error))?;
        Ok(Code { object, types })
    }
}

/// The descriptor of a map of any kind that the kernel side has.
fn descriptor(map: &Map) -> Option<BorrowedFd<'_>> {
    let (Map::Array(map)
    | Map::HashMap(map)
    | Map::LruHashMap(map)
    | Map::PerCpuArray(map)
    | Map::PerfEventArray(map)
    | Map::RingBuf(map)) = map
    else {
        return None;
    };
    Some(map.fd().as_fd())
}
