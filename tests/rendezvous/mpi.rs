//! Ranks over the host's MPI: processes under `mpirun`, each of which loads an MPI and initialises it as a host does.
//!
//! `MPI_HOME` names the folder with `bin/mpirun` and `lib/libmpi.so.*` (scripts/install-mpi.sh prints one); without it
//! the `mpirun` of the path serves, and without that each test says by name that it was skipped.

use std::ffi::{CString, c_int, c_void};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::bench::{LIMIT, Running, SOON_MS, settings};
use baton::connection::rendezvous::{Way, choose, gather};

#[test]
fn ranks_meet_over_the_hosts_mpi() {
    for said in under_mpirun("ranks_meet_over_the_hosts_mpi", 3, "world") {
        for rank in 0..3 {
            let line = format!("rank {rank}: HostMpi, of 3: [] [1] [2, 2]");
            assert!(said.contains(&line), "{line}\n{said}");
        }
        assert!(said.contains("MPI_COMM_WORLD"), "{said}");
    }
}

/// Two instances in one MPI job, as TensorRT-LLM splits it: each meets its own ranks alone.
#[test]
fn the_session_of_the_host_is_the_instance() {
    for said in under_mpirun("the_session_of_the_host_is_the_instance", 4, "session") {
        for line in [
            "world 0, rank 0: HostMpi, of 2: [0] [2]",
            "world 1, rank 0: HostMpi, of 2: [1] [3]",
            "world 2, rank 1: HostMpi, of 2: [0] [2]",
            "world 3, rank 1: HostMpi, of 2: [1] [3]",
        ] {
            assert!(said.contains(line), "{line}\n{said}");
        }
    }
}

#[test]
fn a_rank_that_never_comes_ends_the_wait() {
    for said in under_mpirun("a_rank_that_never_comes_ends_the_wait", 2, "missing") {
        assert!(said.contains("not all 2 ranks came within 4"), "{said}");
        assert!(said.contains("BATON_RENDEZVOUS_TIMEOUT_MS"), "{said}");
    }
}

#[test]
fn mpi_is_left_alone_when_it_is_not_to_be_used() {
    for said in under_mpirun("mpi_is_left_alone_when_it_is_not_to_be_used", 2, "unused") {
        let expected = [
            "before MPI_Init: Single",
            "TLLM_DISABLE_MPI: Single",
            "BATON_RENDEZVOUS: Rendezvous",
            "alone: HostMpi",
            "after MPI_Finalize: Single",
        ];
        for line in expected {
            assert_eq!(said.matches(line).count(), 2, "{line}, by each of two ranks\n{said}");
        }
    }
}

/// What `count` ranks that play `role` print, once for each MPI that there is.
fn under_mpirun(test: &str, count: u32, role: &str) -> Vec<String> {
    let installed = Installed::find();
    if installed.is_empty() {
        println!("skipped: {test} (no mpirun here; scripts/install-mpi.sh fetches one)");
        return Vec::new();
    }
    let session = session_library();
    installed
        .iter()
        .map(|mpi| {
            let mut command = Command::new(&mpi.mpirun);
            command.args(["-n", &count.to_string()]);
            if mpi.library.to_string_lossy().ends_with("libmpi.so.40") {
                command.args(["--oversubscribe", "--allow-run-as-root"]);
            }
            command
                .arg(std::env::current_exe().expect("this test"))
                .args(["--exact", "mpi::rank_process", "--ignored", "--nocapture"])
                .env("RENDEZVOUS_ROLE", role)
                .env("RENDEZVOUS_MPI", &mpi.library)
                .env("RENDEZVOUS_SESSION", &session)
                // A host with one core less than ranks must not spin.
                .env("OMPI_MCA_mpi_yield_when_idle", "1");
            let (said, ended) = output(command);
            println!("{}:\n{said}", mpi.library.display());
            assert!(ended, "mpirun did not end in time");
            said
        })
        .collect()
}

/// What a command prints, and whether it ended in time.
fn output(mut command: Command) -> (String, bool) {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("mpirun starts");
    let drain = |pipe: Option<Box<dyn std::io::Read + Send>>| {
        Running::start(move || {
            let mut said = Vec::new();
            if let Some(mut pipe) = pipe {
                let _ = pipe.read_to_end(&mut said); // what came before it broke is what there is
            }
            String::from_utf8_lossy(&said).into_owned()
        })
    };
    let stdout = drain(child.stdout.take().map(|pipe| Box::new(pipe) as _));
    let stderr = drain(child.stderr.take().map(|pipe| Box::new(pipe) as _));
    let start = Instant::now();
    let ended = loop {
        if child.try_wait().expect("our own child").is_some() {
            break true;
        }
        if start.elapsed() > LIMIT {
            let _ = child.kill();
            let _ = child.wait();
            break false;
        }
        std::thread::sleep(Duration::from_millis(10)); // std has no wait with a limit
    };
    (stdout.end() + &stderr.end(), ended)
}

/// An MPI to test with.
struct Installed {
    mpirun: PathBuf,
    library: PathBuf,
}

impl Installed {
    fn find() -> Vec<Self> {
        let of = |home: PathBuf, names: &[&str]| -> Vec<Self> {
            let mpirun = home.join("bin/mpirun");
            let libraries = names.iter().map(|name| home.join("lib").join(name));
            libraries
                .filter(|library| mpirun.exists() && library.exists())
                .map(|library| Self { mpirun: mpirun.clone(), library })
                .collect()
        };
        match variable("MPI_HOME") {
            Some(home) => of(home.into(), &["libmpi.so.40", "libmpi.so.12", "libmpi_abi.so.1"]),
            None => {
                let mpirun = PathBuf::from("/usr/bin/mpirun");
                let library = ["libmpi.so.40", "libmpi.so.12", "libmpich.so.12"]
                    .into_iter()
                    .find(|name| mpirun.exists() && load(Path::new(name)).is_some());
                library.map(|name| Self { mpirun, library: name.into() }).into_iter().collect()
            }
        }
    }
}

#[allow(clippy::disallowed_methods)] // what the tests are told, not what Baton is
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// A library with the function by which TensorRT-LLM keeps its session's communicator, under that library's name.
fn session_library() -> PathBuf {
    const SOURCE: &str = "#include <string.h>\n\
        static void* session[2];\n\
        void* _ZN12tensorrt_llm3mpi7MpiComm14mutableSessionEv(void) { return session; }\n\
        void set_session(void const* comm, unsigned long size) { memcpy(session, comm, size); }\n";
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("rendezvous-session");
        std::fs::create_dir_all(&folder).expect("a folder");
        let library = folder.join("libtensorrt_llm.so");
        // Made aside and put in place whole: another run of these tests may have it open.
        let [source, fresh] = ["c", "so"].map(|end| folder.join(format!("{}.{end}", std::process::id())));
        std::fs::write(&source, SOURCE).expect("a file");
        let mut compiler = Command::new("g++");
        compiler.args(["-xc", "-shared", "-fPIC", "-o"]).arg(&fresh).arg(&source);
        let status = compiler.status().expect("g++, which builds Baton, is there");
        assert!(status.success(), "{status}");
        std::fs::remove_file(&source).expect("just written");
        std::fs::rename(&fresh, &library).expect("just built");
        library
    });
    built.clone()
}

/// Not a test: a rank, as [`under_mpirun`] starts it.
#[test]
#[ignore = "a process of the tests above"]
fn rank_process() {
    let (Some(role), Some(path)) = (variable("RENDEZVOUS_ROLE"), variable("RENDEZVOUS_MPI")) else { return };
    let host = HostMpi::load(Path::new(&path));
    match role.as_str() {
        "world" => {
            host.init();
            let (rank, _) = host.rank_and_size();
            let way = choose(&settings(&[])).map(|way| way.to_string());
            println!("{}", way.expect("MPI is there"));
            tell(&format!("rank {rank}: "), &vec![rank as u8; rank as usize]);
            host.finalize();
        }
        "session" => {
            host.init();
            let (rank, _) = host.rank_and_size();
            host.split_session(rank % 2);
            tell(&format!("world {rank}, "), &[rank as u8]);
            host.finalize();
        }
        "missing" => {
            host.init();
            let (rank, _) = host.rank_and_size();
            if rank == 0 {
                let outcome = gather(&settings(&[("BATON_RENDEZVOUS_TIMEOUT_MS", SOON_MS)]), &[]);
                println!("{}", outcome.expect_err("rank 1 does not come"));
            }
            host.meet_point_to_point(rank);
            // An operation is under way that never ends: there is nothing to finalise.
            std::process::exit(0);
        }
        "unused" => unused(&host),
        other => panic!("no such role: {other}"),
    }
}

fn unused(host: &HostMpi) {
    let say = |when: &str, variables: &[(&str, &str)]| match choose(&settings(variables)) {
        Ok(Way::Single { .. }) => println!("{when}: Single"),
        Ok(Way::HostMpi { .. }) => println!("{when}: HostMpi"),
        Ok(Way::Rendezvous { .. }) => println!("{when}: Rendezvous"),
        other => println!("{when}: {other:?}"),
    };
    say("before MPI_Init", &[]);
    host.init();
    say("TLLM_DISABLE_MPI", &[("TLLM_DISABLE_MPI", "1")]);
    let place = [("BATON_RENDEZVOUS", "127.0.0.1:9"), ("BATON_RANK", "1"), ("BATON_WORLD_SIZE", "2")];
    say("BATON_RENDEZVOUS", &place);
    say("alone", &[]);
    host.finalize();
    say("after MPI_Finalize", &[]);
}

/// Gathers and prints it, in one write: the ranks' output is mixed.
fn tell(prefix: &str, part: &[u8]) {
    let way = choose(&settings(&[])).expect("there is a way");
    let Way::HostMpi { size, .. } = &way else { panic!("{way:?}") };
    let gathered = gather(&settings(&[]), part).expect("all come");
    let parts: Vec<String> = gathered.parts.iter().map(|part| format!("{part:?}")).collect();
    println!("{prefix}rank {}: HostMpi, of {size}: {}", gathered.rank, parts.join(" "));
}

/// The calls of a host into its own MPI; handles are passed as the machine word that holds them.
struct HostMpi {
    library: *mut c_void,
    world: usize,
    byte: usize,
    integers: bool,
}

impl HostMpi {
    fn load(path: &Path) -> Self {
        let library = load(path).expect("the MPI of mpirun loads");
        let of = |name| symbol(library, name).map(|address| address.addr());
        let (world, byte, integers) = match (of("ompi_mpi_comm_world"), of("ompi_mpi_byte")) {
            (Some(world), Some(byte)) => (world, byte, false),
            _ if path.to_string_lossy().contains("libmpi_abi") => (0x101, 0x247, false),
            _ => (0x4400_0000, 0x4c00_010d, true),
        };
        Self { library, world, byte, integers }
    }

    fn function<F: Copy>(&self, name: &str) -> F {
        const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
        let address = symbol(self.library, name).expect("every MPI has it");
        // SAFETY: the callers name a function of MPI and its type, in which handles are machine words: in registers
        // and in memory of eight bytes these hold the pointers and the integers of all three interfaces.
        unsafe { std::mem::transmute_copy(&address) }
    }

    fn init(&self) {
        type Init = unsafe extern "C" fn(*mut c_void, *mut c_void, c_int, *mut c_int) -> c_int;
        let mut provided = 0;
        let multiple = if self.world == 0x101 { 4096 } else { 3 };
        // SAFETY: MPI_Init_thread takes null for both arguments of main.
        let code = unsafe {
            self.function::<Init>("MPI_Init_thread")(
                std::ptr::null_mut(),
                std::ptr::null_mut(),
                multiple,
                &raw mut provided,
            )
        };
        assert_eq!(code, 0);
    }

    fn finalize(&self) {
        type Finalize = unsafe extern "C" fn() -> c_int;
        // SAFETY: it takes nothing, and MPI is initialised.
        assert_eq!(unsafe { self.function::<Finalize>("MPI_Finalize")() }, 0);
    }

    fn rank_and_size(&self) -> (c_int, c_int) {
        type Query = unsafe extern "C" fn(usize, *mut c_int) -> c_int;
        let (mut rank, mut size) = (-1, -1);
        // SAFETY: MPI is initialised, and the numbers outlive the calls.
        unsafe {
            self.function::<Query>("MPI_Comm_rank")(self.world, &raw mut rank);
            self.function::<Query>("MPI_Comm_size")(self.world, &raw mut size);
        }
        (rank, size)
    }

    /// Makes the ranks of one colour an instance, and says so as TensorRT-LLM would.
    fn split_session(&self, color: c_int) {
        type Split = unsafe extern "C" fn(usize, c_int, c_int, *mut usize) -> c_int;
        type SetSession = unsafe extern "C" fn(*const usize, usize);
        let mut communicator = 0_usize;
        // SAFETY: MPI is initialised; the handle has room for either kind.
        let code =
            unsafe { self.function::<Split>("MPI_Comm_split")(self.world, color, 0, &raw mut communicator) };
        assert_eq!(code, 0);
        let path = variable("RENDEZVOUS_SESSION").expect("the parent sets it");
        let host = load(Path::new(&path)).expect("just built");
        let set = symbol(host, "set_session").expect("just built");
        let len = if self.integers { 4 } else { 8 };
        // SAFETY: the function of the source above.
        unsafe { std::mem::transmute::<*mut c_void, SetSession>(set)(&raw const communicator, len) };
    }

    /// Rank 1 waits until rank 0 says so.
    fn meet_point_to_point(&self, rank: c_int) {
        type Send = unsafe extern "C" fn(*const u8, c_int, usize, c_int, c_int, usize) -> c_int;
        type Receive = unsafe extern "C" fn(*mut u8, c_int, usize, c_int, c_int, usize, *mut u8) -> c_int;
        let (mut byte, mut status) = ([0_u8], [0_u8; 256]);
        // SAFETY: MPI is initialised; the buffers hold one byte and more than any MPI_Status.
        let code = unsafe {
            if rank == 0 {
                self.function::<Send>("MPI_Send")(byte.as_ptr(), 1, self.byte, 1, 7, self.world)
            } else {
                let receive = self.function::<Receive>("MPI_Recv");
                receive(byte.as_mut_ptr(), 1, self.byte, 0, 7, self.world, status.as_mut_ptr())
            }
        };
        assert_eq!(code, 0);
    }
}

/// Loads as Python does, in local scope.
fn load(path: &Path) -> Option<*mut c_void> {
    let path = CString::new(path.as_os_str().as_bytes()).expect("a path");
    // SAFETY: a C string and flags.
    let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    (!library.is_null()).then_some(library)
}

fn symbol(library: *mut c_void, name: &str) -> Option<*mut c_void> {
    let name = CString::new(name).expect("a name");
    // SAFETY: an open library and a C string.
    let address = unsafe { libc::dlsym(library, name.as_ptr()) };
    (!address.is_null()).then_some(address)
}
