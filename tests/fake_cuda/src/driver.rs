//! The driver of this process, and its tables of handles.

use std::collections::HashMap;
use std::process;
use std::sync::{Arc, OnceLock};

use parking_lot::{Mutex, RwLock};

use crate::backing::Physical;
use crate::boundary::{Out, Text};
use crate::code::{Code, Outcome};
use crate::context::Context;
use crate::event::Event;
use crate::launch;
use crate::module::{Function, Module};
use crate::settings::{Settings, settings};
use crate::space::Space;
use crate::stream::Stream;

/// All that `cuInit` brings about.
pub struct Driver {
    /// The process that called it: a child has no driver.
    process: u32,
    /// The primary context of each visible device.
    pub contexts: Vec<Context>,
    /// Who has what mapped where. Held for reading while a stream works on memory, so what is mapped stays mapped.
    pub space: RwLock<Space>,
    pub streams: Table<Stream>,
    pub events: Table<Event>,
    pub modules: Table<Module>,
    pub functions: Table<Function>,
    /// Handles of `cuMemCreate` and how often each is held.
    pub physical: Mutex<HashMap<u64, (Arc<Physical>, u32)>>,
}

static DRIVER: OnceLock<Driver> = OnceLock::new();

pub fn init(settings: &'static Settings, flags: u32) -> Outcome {
    if DRIVER.get().is_some_and(|driver| driver.process != process::id()) {
        return Err(Code::NOT_INITIALIZED);
    }
    if flags != 0 {
        return Err(Code::INVALID_VALUE);
    }
    if settings.init != 0 {
        return Err(Code(settings.init));
    }
    if settings.visible.is_empty() {
        return Err(Code::NO_DEVICE);
    }
    DRIVER.get_or_init(Driver::new);
    launch::prepare();
    Ok(())
}

pub fn version(settings: &'static Settings, version: Out<i32>) -> Outcome {
    version.set(settings.driver_version)
}

/// By a name without its version, as `cuGetProcAddress` has it: the newest is meant.
pub fn address_of(
    _: &'static Settings,
    name: Text,
    function: Out<usize>,
    _version: i32,
    _flags: u64,
    status: Out<u32>,
) -> Outcome {
    const FOUND: u32 = 0;
    const NOT_FOUND: u32 = 1;
    let name = name.as_str()?;
    let found = crate::api::symbol(&format!("{name}_v2")).or_else(|| crate::api::symbol(name));
    function.set(found.unwrap_or(0))?;
    match (found, status.set(if found.is_some() { FOUND } else { NOT_FOUND })) {
        (None, Err(_)) => Err(Code::NOT_FOUND),
        _ => Ok(()),
    }
}

/// The driver, where this process has one.
pub fn initialized() -> Outcome<&'static Driver> {
    DRIVER.get().filter(|driver| driver.process == process::id()).ok_or(Code::NOT_INITIALIZED)
}

impl Driver {
    fn new() -> Self {
        let visible = settings().visible.iter().zip(0..);
        Self {
            process: process::id(),
            contexts: visible.map(|(physical, ordinal)| Context::new(ordinal, *physical)).collect(),
            space: RwLock::new(Space::new()),
            streams: Table::new(),
            events: Table::new(),
            modules: Table::new(),
            functions: Table::new(),
            physical: Mutex::new(HashMap::new()),
        }
    }

    /// The context of a device by its ordinal.
    pub fn device(&self, ordinal: i32) -> Outcome<&Context> {
        usize::try_from(ordinal)
            .ok()
            .and_then(|ordinal| self.contexts.get(ordinal))
            .ok_or(Code::INVALID_DEVICE)
    }
}

/// Objects by the handle that their users hold.
pub struct Table<T> {
    objects: Mutex<(usize, HashMap<usize, Arc<T>>)>,
}

impl<T> Table<T> {
    fn new() -> Self {
        // Neither null nor one of the handles that stand for a stream of every context.
        Self { objects: Mutex::new((0x1000, HashMap::new())) }
    }

    /// A handle for it, never given before.
    pub fn insert(&self, object: Arc<T>) -> usize {
        let (next, objects) = &mut *self.objects.lock();
        *next += 16;
        objects.insert(*next, object);
        *next
    }

    pub fn of(&self, handle: usize) -> Outcome<Arc<T>> {
        self.objects.lock().1.get(&handle).cloned().ok_or(Code::INVALID_HANDLE)
    }

    pub fn remove(&self, handle: usize) -> Outcome<Arc<T>> {
        self.objects.lock().1.remove(&handle).ok_or(Code::INVALID_HANDLE)
    }

    /// Takes out what `is_gone` says.
    pub fn remove_all(&self, is_gone: impl Fn(&T) -> bool) -> Vec<Arc<T>> {
        let mut objects = self.objects.lock();
        objects.1.extract_if(|_, object| is_gone(object)).map(|(_, object)| object).collect()
    }
}
