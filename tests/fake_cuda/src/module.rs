//! Modules and functions: PTX, of which no more is read than its version, its target, and the names and parameters of its
//! entries. What an entry does is compiled for the host beside it.

use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::sync::Arc;

use crate::boundary::{In, Out, Text};
use crate::code::{Code, Outcome};
use crate::context::Context;
use crate::device::{COMPUTE_CAPABILITY, MAX_BLOCK};
use crate::settings::settings;

/// What was loaded.
pub struct Module {
    /// The device that it was loaded on.
    ordinal: u32,
    ptx: Ptx,
}

/// One entry.
pub struct Function {
    pub ordinal: u32,
    pub name: CString,
    /// The sizes of its parameters in bytes.
    pub parameters: Vec<usize>,
    version: i32,
}

struct Ptx {
    /// 78 is 7.8.
    version: i32,
    entries: HashMap<String, Vec<usize>>,
}

pub fn load(context: &'static Context, module: Out<usize>, image: Text) -> Outcome {
    const ELF: &str = "\x7fELF";
    let text = image.as_str()?;
    if text.starts_with(ELF) {
        return Err(Code::NO_BINARY_FOR_GPU);
    }
    let new = Module { ordinal: context.ordinal, ptx: Ptx::parse(text)? };
    module.set(context.driver().modules.insert(Arc::new(new)))
}

/// The options of its compiler are for one that is not here.
pub fn load_with(
    context: &'static Context,
    module: Out<usize>,
    image: Text,
    _options: u32,
    _names: In<u32>,
    _values: In<*const c_void>,
) -> Outcome {
    load(context, module, image)
}

pub fn unload(context: &'static Context, module: usize) -> Outcome {
    context.driver().modules.remove(module).map(drop)
}

pub fn function(context: &'static Context, function: Out<usize>, module: usize, name: Text) -> Outcome {
    let module = context.driver().modules.of(module)?;
    let name = name.as_str()?;
    let parameters = module.ptx.entries.get(name).cloned().ok_or(Code::NOT_FOUND)?;
    let name = CString::new(name).map_err(|_| Code::INVALID_VALUE)?;
    let new = Function { ordinal: module.ordinal, name, parameters, version: module.ptx.version };
    function.set(context.driver().functions.insert(Arc::new(new)))
}

pub fn function_attribute(
    context: &'static Context,
    value: Out<i32>,
    attribute: u32,
    function: usize,
) -> Outcome {
    let function = context.driver().functions.of(function)?;
    value.set(match attribute {
        0 => MAX_BLOCK.cast_signed(),
        4 => 32, // registers
        5 => function.version,
        6 => COMPUTE_CAPABILITY.0 * 10 + COMPUTE_CAPABILITY.1,
        1..16 => 0,
        _ => return Err(Code::INVALID_VALUE),
    })
}

impl Ptx {
    fn parse(text: &str) -> Outcome<Self> {
        let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
        let code: String = lines.collect::<Vec<_>>().join("\n");
        let version = after(&code, ".version").and_then(version).ok_or(Code::INVALID_PTX)?;
        if version > newest_ptx(settings().driver_version) {
            return Err(Code::UNSUPPORTED_PTX_VERSION);
        }
        let target = after(&code, ".target").and_then(target).ok_or(Code::INVALID_PTX)?;
        if target > COMPUTE_CAPABILITY.0 * 10 + COMPUTE_CAPABILITY.1 {
            return Err(Code::NO_BINARY_FOR_GPU);
        }
        let entries = code.split(".entry").skip(1).map(entry);
        Ok(Self { version, entries: entries.collect::<Option<_>>().ok_or(Code::INVALID_PTX)? })
    }
}

/// The newest PTX that a driver of this version takes.
fn newest_ptx(driver: i32) -> i32 {
    const SINCE: &[(i32, i32)] = &[
        (13010, 91),
        (13000, 90),
        (12090, 88),
        (12080, 87),
        (12070, 86),
        (12060, 85),
        (12050, 85),
        (12040, 84),
        (12030, 83),
        (12020, 82),
        (12010, 81),
        (12000, 80),
        (11080, 78),
    ];
    SINCE.iter().find(|(since, _)| driver >= *since).map_or(77, |(_, ptx)| *ptx)
}

fn after<'a>(code: &'a str, directive: &str) -> Option<&'a str> {
    code.split_once(directive)?.1.split_whitespace().next()
}

/// `7.8`
fn version(word: &str) -> Option<i32> {
    let (major, minor) = word.split_once('.')?;
    Some(major.parse::<i32>().ok()? * 10 + minor.parse::<i32>().ok()?)
}

/// `sm_80`
fn target(word: &str) -> Option<i32> {
    let digits = word.strip_prefix("sm_")?;
    digits[..digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len())].parse().ok()
}

/// `NAME(PARAMETER, ...)`, or a name alone.
fn entry(rest: &str) -> Option<(String, Vec<usize>)> {
    let end = rest.find(['(', '{'])?;
    let name = rest[..end].split_whitespace().next()?.to_owned();
    let Some(list) = rest[end..].strip_prefix('(') else { return Some((name, Vec::new())) };
    let list = list.split_once(')')?.0;
    let parameters = list.split(',').filter(|parameter| !parameter.trim().is_empty()).map(size);
    Some((name, parameters.collect::<Option<_>>()?))
}

/// `.param .align 8 .b8 NAME[48]` has 48 bytes.
fn size(parameter: &str) -> Option<usize> {
    let width = parameter.split_whitespace().find_map(|word| {
        let bits: usize = word.strip_prefix('.')?.strip_prefix(['b', 'u', 's', 'f'])?.parse().ok()?;
        Some(bits / 8)
    })?;
    let count = match parameter.split_once('[') {
        Some((_, count)) => count.split_once(']')?.0.trim().parse().ok()?,
        None => 1,
    };
    Some(width * count)
}
