//! The few calls into the MPI that the host has loaded: finds them, and makes them.
//!
//! MPI has three binary interfaces, told apart by what the library exports and calls itself: Open MPI's handles are
//! addresses of data that it exports, MPICH's (Intel's, MVAPICH's) are integers fixed in its header, those of the
//! standard ABI of MPI 5 are fixed values of pointer type. Of a library that is none of the three nothing is called
//! but what takes no handle.
//!
//! The communicator is that of TensorRT-LLM's session (`tensorrt_llm::mpi::MpiComm`, whose first field it is), as
//! the stock library uses it: where several instances share one MPI job, MPI_COMM_WORLD spans them all. Without a session,
//! MPI_COMM_WORLD.
//!
//! Nothing is loaded: objects that are loaded already are asked. An open handle is kept, as MPI cannot be unloaded
//! once it is initialised. One thread uses a [`Library`]: the one that found it.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_void};
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

/// An MPI that is loaded and initialised.
#[derive(Debug)]
pub struct Library {
    calls: Flavour,
    name: String,
}

/// Why the host's MPI cannot be used.
#[derive(Debug)]
pub struct Unusable {
    /// Which it is.
    pub library: String,
    /// Why not.
    pub why: String,
}

/// Why a call did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Failure {
    /// The caller wanted no more of it. Other ranks may still come: what they would write to is never freed.
    #[error("it was given up")]
    Stopped,
    /// MPI says so.
    #[error("{call} failed with MPI error {code}")]
    Code {
        /// Which call.
        call: &'static str,
        /// Its answer.
        code: c_int,
    },
    /// An answer that cannot be.
    #[error("{call} answers {value}")]
    Nonsense {
        /// Which call.
        call: &'static str,
        /// Its answer.
        value: c_int,
    },
}

impl fmt::Display for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Library {
    /// The MPI of this process that is initialised and not finalised, if there is one.
    ///
    /// # Errors
    /// There is one, but its handles are unknown, a call is missing, or this thread may not call it.
    pub fn find() -> Result<Option<Self>, Unusable> {
        for object in [Object(libc::RTLD_DEFAULT)].into_iter().chain(loaded_objects(is_libmpi)) {
            let (Some(initialized), Some(finalized)) =
                (object.symbol(c"MPI_Initialized"), object.symbol(c"MPI_Finalized"))
            else {
                continue;
            };
            if flag(initialized) && !flag(finalized) {
                return Self::of(&object, initialized).map(Some);
            }
        }
        Ok(None)
    }

    /// This process's rank in the communicator, and its size.
    pub fn rank_and_size(&self) -> Result<(u32, u32), Failure> {
        match &self.calls {
            Flavour::Pointers(calls) => calls.rank_and_size(),
            Flavour::Integers(calls) => calls.rank_and_size(),
        }
    }

    /// Gathers `mine`, of the same length on all ranks, from all `size` of them. Asks `going_on` between looks.
    pub fn all_gather(
        &self,
        mine: &[u8],
        size: u32,
        going_on: impl FnMut() -> bool,
    ) -> Result<Vec<u8>, Failure> {
        match &self.calls {
            Flavour::Pointers(calls) => calls.all_gather(mine, size, going_on),
            Flavour::Integers(calls) => calls.all_gather(mine, size, going_on),
        }
    }

    fn of(object: &Object, initialized: Address) -> Result<Self, Unusable> {
        let path = object_of(initialized).unwrap_or_default();
        let version = version(object);
        let library = format!("{version} at {}", path.display());
        let unusable = |why: &str| Unusable { library: library.clone(), why: why.to_owned() };
        let Some(abi) = Abi::of(object, &path, &version) else {
            return Err(unusable("it is neither Open MPI nor MPICH nor of MPI 5's standard ABI"));
        };
        if !may_call_here(object, abi.serialized()) {
            return Err(unusable("it was initialised for its main thread alone, and this is another"));
        }
        let session = host_session();
        let calls = match abi {
            Abi::OpenMpi { world, byte, null } => {
                Calls::load(object, world.0, byte.0, null.0, std::ptr::null_mut())
                    .map(|calls| Flavour::Pointers(calls.within(session)))
            }
            Abi::Standard => Calls::load(
                object,
                std::ptr::without_provenance_mut(0x101),
                std::ptr::without_provenance_mut(0x247),
                std::ptr::without_provenance_mut(0x180),
                std::ptr::null_mut(),
            )
            .map(|calls| Flavour::Pointers(calls.within(session))),
            Abi::Mpich => {
                let ignored_status = std::ptr::without_provenance_mut(1);
                Calls::load(object, 0x4400_0000, 0x4c00_010d, 0x2c00_0000, ignored_status)
                    .map(|calls| Flavour::Integers(calls.within(session)))
            }
        };
        let calls = calls.ok_or_else(|| unusable("it lacks MPI_Iallgather or another call of MPI 3"))?;
        let communicator =
            if session.is_some() { "communicator of TensorRT-LLM's session" } else { "MPI_COMM_WORLD" };
        Ok(Self { calls, name: format!("{library}, {communicator}") })
    }
}

/// Calls over handles of one of the two sizes.
#[derive(Debug)]
enum Flavour {
    Pointers(Calls<*mut c_void>),
    Integers(Calls<c_int>),
}

type Gather<H> = unsafe extern "C" fn(*const c_void, c_int, H, *mut c_void, c_int, H, H, *mut H) -> c_int;
type Test<H> = unsafe extern "C" fn(*mut H, *mut c_int, *mut c_void) -> c_int;
type Query<H> = unsafe extern "C" fn(H, *mut c_int) -> c_int;

/// The calls of one MPI, whose handles are of type `H`, and the handles they need.
#[derive(Debug)]
struct Calls<H> {
    gather: Gather<H>,
    test: Test<H>,
    rank: Query<H>,
    size: Query<H>,
    communicator: H,
    byte: H,
    no_request: H,
    ignored_status: *mut c_void,
}

/// What an operation under way reads and writes. On the heap, where it stays if we leave before the others come.
struct Exchange<H> {
    mine: Vec<u8>,
    all: Vec<u8>,
    request: H,
}

impl<H: Copy> Calls<H> {
    fn load(object: &Object, world: H, byte: H, no_request: H, ignored_status: *mut c_void) -> Option<Self> {
        // SAFETY: each symbol is the MPI function of that name, whose C signature is the one that the field's type
        // spells with this library's handle type.
        unsafe {
            Some(Self {
                gather: object.function(c"MPI_Iallgather")?,
                test: object.function(c"MPI_Test")?,
                rank: object.function(c"MPI_Comm_rank")?,
                size: object.function(c"MPI_Comm_size")?,
                communicator: world,
                byte,
                no_request,
                ignored_status,
            })
        }
    }

    /// The same over the communicator of the host's session, whose first field is an `MPI_Comm`.
    fn within(mut self, session: Option<Address>) -> Self {
        if let Some(session) = session {
            // SAFETY: the host's function returned a reference to its `MpiComm`, which lives as long as the
            // process; its first field is the MPI_Comm, of this library's handle type, and is not written while
            // the host makes a connection manager.
            self.communicator = unsafe { session.0.cast::<H>().read() };
        }
        self
    }

    fn rank_and_size(&self) -> Result<(u32, u32), Failure> {
        let ask = |query: Query<H>, call| {
            let mut value = -1;
            // SAFETY: MPI is initialised, this thread may call it (`may_call_here`), the communicator is valid, and
            // `value` outlives the call.
            let code = unsafe { query(self.communicator, &raw mut value) };
            if code != 0 {
                return Err(Failure::Code { call, code });
            }
            u32::try_from(value).map_err(|_| Failure::Nonsense { call, value })
        };
        let (rank, size) = (ask(self.rank, "MPI_Comm_rank")?, ask(self.size, "MPI_Comm_size")?);
        if rank < size {
            Ok((rank, size))
        } else {
            Err(Failure::Nonsense { call: "MPI_Comm_rank", value: -1 })
        }
    }

    fn all_gather(
        &self,
        mine: &[u8],
        size: u32,
        mut going_on: impl FnMut() -> bool,
    ) -> Result<Vec<u8>, Failure> {
        let count = c_int::try_from(mine.len())
            .map_err(|_| Failure::Nonsense { call: "MPI_Iallgather", value: c_int::MAX })?;
        let exchange = Box::leak(Box::new(Exchange {
            mine: mine.to_vec(),
            all: vec![0; mine.len() * size as usize],
            request: self.no_request,
        }));
        // SAFETY: MPI is initialised and this thread may call it; handles are this library's own. Both buffers are
        // leaked, so they outlive the operation however long it takes, and hold `count` bytes, respectively as many for
        // each rank of the communicator.
        let code = unsafe {
            (self.gather)(
                exchange.mine.as_ptr().cast(),
                count,
                self.byte,
                exchange.all.as_mut_ptr().cast(),
                count,
                self.byte,
                self.communicator,
                &raw mut exchange.request,
            )
        };
        if code != 0 {
            return Err(Failure::Code { call: "MPI_Iallgather", code });
        }
        for look in 0_u32.. {
            let mut done = 0;
            // SAFETY: as above; the request is the one just made, and `done` outlives the call.
            let code = unsafe { (self.test)(&raw mut exchange.request, &raw mut done, self.ignored_status) };
            if code != 0 {
                return Err(Failure::Code { call: "MPI_Test", code });
            }
            if done != 0 {
                // SAFETY: it is the box leaked above, and MPI is through with it.
                let exchange = unsafe { Box::from_raw(std::ptr::from_mut(exchange)) };
                return Ok(exchange.all);
            }
            if !going_on() {
                break;
            }
            std::thread::sleep(if look < SHORT_LOOKS { SHORT_PAUSE } else { PAUSE });
        }
        Err(Failure::Stopped)
    }
}

/// The binary interfaces.
enum Abi {
    OpenMpi { world: Address, byte: Address, null: Address },
    Mpich,
    Standard,
}

impl Abi {
    fn of(object: &Object, path: &Path, version: &str) -> Option<Self> {
        if let Some(world) = object.symbol(c"ompi_mpi_comm_world") {
            let (byte, null) = (object.symbol(c"ompi_mpi_byte")?, object.symbol(c"ompi_request_null")?);
            return Some(Self::OpenMpi { world, byte, null });
        }
        if path.file_name().is_some_and(|name| name.as_bytes().starts_with(b"libmpi_abi.")) {
            return Some(Self::Standard);
        }
        let kin = ["MPICH", "CRAY MPICH", "MVAPICH", "Intel(R) MPI"];
        kin.iter().any(|kin| version.starts_with(kin)).then_some(Self::Mpich)
    }

    /// MPI_THREAD_SERIALIZED; what is less lets only one thread call.
    fn serialized(&self) -> c_int {
        match self {
            Self::OpenMpi { .. } | Self::Mpich => 2,
            Self::Standard => 2048,
        }
    }
}

fn may_call_here(object: &Object, serialized: c_int) -> bool {
    let ask = |name| object.symbol(name).and_then(answer);
    let (level, main) = (ask(c"MPI_Query_thread"), ask(c"MPI_Is_thread_main"));
    level.is_some_and(|level| level >= serialized) || main.is_some_and(|main| main != 0)
}

/// What MPI calls itself, first line only.
fn version(object: &Object) -> String {
    type Version = unsafe extern "C" fn(*mut c_char, *mut c_int) -> c_int;
    let mut text = vec![0_u8; LONGEST_VERSION];
    let mut len = 0;
    // SAFETY: the symbol is the MPI function of that name; it may be called at any time.
    let code = unsafe {
        match object.function::<Version>(c"MPI_Get_library_version") {
            // SAFETY: the buffer is longer than any MPI_MAX_LIBRARY_VERSION_STRING.
            Some(version) => version(text.as_mut_ptr().cast(), &raw mut len),
            None => 1,
        }
    };
    if code != 0 {
        return "an MPI without a version".to_owned();
    }
    text.truncate(usize::try_from(len).unwrap_or(0));
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().next().unwrap_or_default().trim_end_matches('\0');
    line.split(',').next().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A flag that MPI sets; false where it does not.
fn flag(function: Address) -> bool {
    answer(function).is_some_and(|value| value != 0)
}

/// The answer of an MPI function that takes nothing but where to put it.
fn answer(function: Address) -> Option<c_int> {
    type Answer = unsafe extern "C" fn(*mut c_int) -> c_int;
    let mut value = 0;
    // SAFETY: the callers pass MPI_Initialized, MPI_Finalized, MPI_Query_thread or MPI_Is_thread_main: `int(int*)` in
    // each MPI. The first two may be called at any time, the others are asked only when MPI is initialised.
    let code = unsafe {
        let function: Answer = std::mem::transmute::<*mut c_void, Answer>(function.0);
        function(&raw mut value)
    };
    (code == 0).then_some(value)
}

/// The `MpiComm` of the host's session.
fn host_session() -> Option<Address> {
    type Session = unsafe extern "C" fn() -> *mut c_void;
    let host = loaded_objects(is_host_library);
    let session = host.iter().find_map(|object| SESSIONS.iter().find_map(|name| object.symbol(name)))?;
    // SAFETY: a static member function without arguments that returns a reference, which is an address. It makes the
    // session from MPI_COMM_WORLD on its first call, and needs an initialised MPI, which there is.
    let address = unsafe { std::mem::transmute::<*mut c_void, Session>(session.0)() };
    (!address.is_null()).then_some(Address(address))
}

/// An address in a loaded object, not null.
#[derive(Clone, Copy, Debug)]
struct Address(*mut c_void);

/// A loaded object that is never closed again, or RTLD_DEFAULT.
struct Object(*mut c_void);

impl Object {
    fn symbol(&self, name: &CStr) -> Option<Address> {
        // SAFETY: the handle is RTLD_DEFAULT or one that dlopen gave and nobody closes; `name` is a C string.
        let address = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        (!address.is_null()).then_some(Address(address))
    }

    /// # Safety
    /// `F` is the type of a function pointer, and that of the function of this name.
    unsafe fn function<F: Copy>(&self, name: &CStr) -> Option<F> {
        const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
        let Address(address) = self.symbol(name)?;
        // SAFETY: the caller says that `F` is the function's type; sizes are equal, and the address is not null.
        Some(unsafe { std::mem::transmute_copy::<*mut c_void, F>(&address) })
    }
}

/// The loaded objects whose file name is `wanted`, in the order of the loader.
fn loaded_objects(wanted: fn(&OsStr) -> bool) -> Vec<Object> {
    let mut walk = Walk { wanted, found: Vec::new() };
    // SAFETY: `note` has the signature the call wants, takes `data` for the `Walk` it is, which outlives the call and
    // is used by nothing else, and does not unwind.
    unsafe { libc::dl_iterate_phdr(Some(note), (&raw mut walk).cast()) };
    let open = |path: CString| {
        // SAFETY: a C string and flags; NOLOAD runs no code of the library, it is loaded already.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
        (!handle.is_null()).then_some(Object(handle))
    };
    walk.found.into_iter().filter_map(open).collect()
}

struct Walk {
    wanted: fn(&OsStr) -> bool,
    found: Vec<CString>,
}

unsafe extern "C" fn note(info: *mut libc::dl_phdr_info, _size: usize, data: *mut c_void) -> c_int {
    // SAFETY: the loader hands out a valid record for the time of this call; its name is NULL or a C string.
    let name = unsafe { (*info).dlpi_name };
    if name.is_null() {
        return 0;
    }
    // SAFETY: not null, so a C string of the loader's that lives while this call runs; `data` is the caller's `Walk`,
    // borrowed by nobody else during the walk.
    let (path, walk) = unsafe { (CStr::from_ptr(name), &mut *data.cast::<Walk>()) };
    if Path::new(OsStr::from_bytes(path.to_bytes())).file_name().is_some_and(walk.wanted) {
        walk.found.push(path.to_owned());
    }
    0
}

/// Also under the names that repackaging gives it (`libmpi-1a2b3c.so.40`).
fn is_libmpi(file_name: &OsStr) -> bool {
    file_name.as_bytes().starts_with(b"libmpi") && file_name.to_string_lossy().contains(".so")
}

fn is_host_library(file_name: &OsStr) -> bool {
    file_name
        .as_bytes()
        .strip_prefix(b"libtensorrt_llm.so")
        .is_some_and(|rest| rest.is_empty() || rest[0] == b'.')
}

/// Path of the loaded object that holds an address.
fn object_of(address: Address) -> Option<PathBuf> {
    let mut info = libc::Dl_info {
        dli_fname: std::ptr::null(),
        dli_fbase: std::ptr::null_mut(),
        dli_sname: std::ptr::null(),
        dli_saddr: std::ptr::null_mut(),
    };
    // SAFETY: dladdr takes any address and fills `info` when it returns non-zero.
    let known = unsafe { libc::dladdr(address.0, &raw mut info) } != 0;
    if !known || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: a C string of the loader's; an initialised MPI stays loaded.
    Some(PathBuf::from(OsStr::from_bytes(unsafe { CStr::from_ptr(info.dli_fname) }.to_bytes())))
}

/// `tensorrt_llm::mpi::MpiComm::mutableSession()`, which `session()` and `setSession()` use, in the spellings of the
/// namespace that hosts have (plain, and `inline namespace _v1` around or within).
const SESSIONS: [&CStr; 3] = [
    c"_ZN12tensorrt_llm3mpi7MpiComm14mutableSessionEv",
    c"_ZN12tensorrt_llm3mpi3_v17MpiComm14mutableSessionEv",
    c"_ZN12tensorrt_llm3_v13mpi7MpiComm14mutableSessionEv",
];

/// MPI_MAX_LIBRARY_VERSION_STRING is 256 in Open MPI and 8192 in MPICH and the standard ABI.
const LONGEST_VERSION: usize = 16 * 1024;
const SHORT_LOOKS: u32 = 20;
const SHORT_PAUSE: Duration = Duration::from_micros(50);
const PAUSE: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_without_mpi_has_none() {
        assert!(Library::find().is_ok_and(|found| found.is_none()));
    }

    #[test]
    fn libraries_are_known_by_name() {
        for (name, mpi) in [
            ("libmpi.so.40", true),
            ("libmpi-77b0c2e1.so.40.30.4", true),
            ("libmpich.so.12", true),
            ("libmpi_abi.so.1", true),
            ("libmp.so", false),
        ] {
            assert_eq!(is_libmpi(OsStr::new(name)), mpi, "{name}");
        }
        assert!(is_host_library(OsStr::new("libtensorrt_llm.so")));
        assert!(!is_host_library(OsStr::new("libtensorrt_llm_nixl_wrapper.so")));
    }
}
