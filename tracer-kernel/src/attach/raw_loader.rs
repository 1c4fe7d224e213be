//! Loads trampoline programs that aya cannot load: for functions of modules, and the same program
//! for a second function. The code is read, and linked to the maps that aya created, only while a
//! program is being attached.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use aya::Ebpf;
use aya::maps::Map;
use aya_obj::Object;
use tracer_common::Offsets;
use tracer_common::offsets::Config;

use super::error::{AttachError, error_chain};
use crate::btf::modules::ModuleBtf;
use crate::btf::relocate;
use crate::object::OBJECT;
use crate::sys::tracing;

/// Loader of programs that aya cannot load.
pub(crate) struct RawLoader {
    /// All maps; taken from `aya::Ebpf` after startup.
    maps: HashMap<String, OwnedFd>,
    offsets: Offsets,
    config: Config,
    code: OnceCell<Code>,
    attached: Vec<Attached>,
}

struct Code {
    object: Object,
    /// The object's own BTF, as loaded into the kernel.
    types: Option<OwnedFd>,
}

struct Attached {
    name: String,
    program: OwnedFd,
    _link: OwnedFd,
}

/// The function that a program is attached to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target<'a> {
    /// The kernel function.
    pub function: &'a str,
    /// BTF id of the function, in the BTF of the kernel or of the module.
    pub id: u32,
    /// The module that contains it; `None` for the kernel itself.
    pub module: Option<&'a str>,
    /// Whether to attach at the function's exit rather than its entry.
    pub at_exit: bool,
}

impl RawLoader {
    /// Takes the maps of an object that was just loaded, with the values it was relocated with.
    ///
    /// # Errors
    /// If there are no more file descriptors.
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
    /// The kernel's error message.
    pub(crate) fn attach(&mut self, program: &str, target: &Target<'_>) -> Result<(), AttachError> {
        if self.code.get().is_none() {
            let code = self.read()?;
            let _ = self.code.set(code);
        }
        let Some(Code { object, types }) = self.code.get() else { return Ok(()) };
        let (found, code) = object
            .programs
            .get(program)
            .and_then(|found| Some((found, object.functions.get(&found.function_key())?)))
            .ok_or_else(|| format!("the eBPF object has no program {program}"))?;
        let module = target.module.map(|module| ModuleBtf::shared().of(module));
        let module = module.transpose().map_err(AttachError::NoModuleBtf)?;
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
        .map_err(|(error, log)| AttachError::from_load(&error, &log))?;
        let link =
            tracing::attach(program.as_fd()).map_err(|error| AttachError::from_syscall(&error))?;
        self.attached.push(Attached { name, program, _link: link });
        Ok(())
    }

    /// Frees the code's memory until the next program is attached.
    pub(crate) fn release_code(&mut self) {
        self.code.take();
    }

    /// Returns all attached programs, by kind and function.
    pub(crate) fn programs(&self) -> impl Iterator<Item = (&str, BorrowedFd<'_>)> {
        self.attached.iter().map(|one| (one.name.as_str(), one.program.as_fd()))
    }

    /// Reads the object's code and links it to the maps.
    fn read(&self) -> Result<Code, String> {
        let elf = relocate::relocate(OBJECT, &self.offsets, &self.config)
            .map_err(|e| format!("{e:#}"))?;
        let mut object = Object::parse(&elf).map_err(|error| error_chain(&error))?;
        let types = match aya::features().btf() {
            Some(features) => {
                let types = object.fixup_and_sanitize_btf(features).map_err(|e| error_chain(&e))?;
                let loaded = types.map(|types| tracing::load_types(&types.to_bytes()));
                loaded
                    .transpose()
                    .map_err(|error| format!("cannot load the eBPF object's BTF: {error}"))?
            }
            None => None,
        };
        let maps = std::mem::take(&mut object.maps);
        let joined = maps.iter().map(|(name, map)| {
            let ours = self.maps.get(name);
            let ours = ours.ok_or_else(|| format!("map {name} of the eBPF object is missing"))?;
            Ok((name.as_str(), ours.as_raw_fd(), map))
        });
        let joined: Vec<_> = joined.collect::<Result<_, String>>()?;
        let code = object.functions.keys().map(|(section, _)| *section).collect();
        object
            .relocate_maps(joined.into_iter(), &code)
            .and_then(|()| object.relocate_calls(&code))
            .map_err(|error| error_chain(&error))?;
        Ok(Code { object, types })
    }
}

/// Returns the descriptor of a map, for all map types that the eBPF object has.
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
