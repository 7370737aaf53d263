//! Connecting and disconnecting again and again leaves nothing behind: descriptors, threads, regions, memory.
//!
//! Each lane has a process of its own, so that nothing of anybody else's is counted. One agent lives as long as
//! the run; the other one is made anew in each cycle, mostly under the name of the one before. They connect, one or
//! the other dialing, move bytes both ways, forget each other and load each other again, and part in turn in
//! the ways there are: after an invalidation, without one, and with a transfer under way.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use baton::agent::{Agent, TransferRequest, TransferState};
use baton::desc::TransferOp;
use comfy_table::Table;
use serde::{Deserialize, Serialize};

use crate::pair::{Lane, Pool, WATCHDOG, agent, eventually, named_agent, ucx_serves, unique};

/// Cycles with every change.
const SHORT: usize = 200;
/// Cycles of the long run, if the environment does not say.
const LONG: usize = 10_000;
/// How many the environment wants.
const CYCLES_VARIABLE: &str = "BATON_SOAK_CYCLES";
/// Of a run, what comes before the first count: caches fill, and the allocator finds its size.
const WARM_UP: usize = 5;
/// What resident memory may grow by after that: noise of the allocator. Of the long run it is 430 bytes a cycle.
const RSS_GROWTH_KIB: u64 = 4 << 10;
/// Bytes that go each way in each cycle.
const LEN: usize = 16 << 10;
/// Bytes that are under way where that is broken off.
const BULK: usize = 4 << 20;

pub fn a_short_soak_leaves_nothing(lane: Lane) {
    println!("{}", table(&[soak(lane, SHORT)]));
}

/// As many cycles as the environment says, on all lanes at a time: most of a cycle is waiting.
#[test]
#[ignore = "minutes of it: make soak"]
fn long_soak() {
    let lanes = [Lane::Local, Lane::StreamUnix, Lane::StreamTcp, Lane::Ucx];
    let lanes = lanes.into_iter().filter(|lane| *lane != Lane::Ucx || ucx_serves("long_soak"));
    let runs: Vec<Run> = std::thread::scope(|scope| {
        let running: Vec<_> = lanes.map(|lane| scope.spawn(move || soak(lane, cycles_wanted()))).collect();
        running.into_iter().map(|lane| lane.join().expect("its process has said why")).collect()
    });
    println!("{}", table(&runs));
    println!("soak: {} cycles, nothing left behind", runs.iter().map(|run| run.cycles).sum::<usize>());
}

#[allow(clippy::disallowed_methods)] // the command line of a test, not a setting of the product
fn cycles_wanted() -> usize {
    std::env::var(CYCLES_VARIABLE).map_or(LONG, |text| text.parse().expect("a number of cycles"))
}

/// One lane's run.
#[derive(Debug, Serialize, Deserialize)]
struct Run {
    lane: String,
    cycles: usize,
    seconds: f64,
    /// After the warm-up.
    start: Footprint,
    end: Footprint,
}

/// What a process and its agent have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Footprint {
    fds: usize,
    threads: usize,
    /// Mappings of memory that is shared with others.
    shared_maps: usize,
    regions: usize,
    quarantined: usize,
    streams: usize,
    transfers: usize,
    unread: bool,
    rss_kib: u64,
}

/// Runs a lane in a process of its own, and says how far it is.
fn soak(lane: Lane, cycles: usize) -> Run {
    let mut child = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "soak::soaking_process", "--ignored", "--nocapture"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the same program starts again");
    let order = writeln!(child.stdin.take().expect("piped"), "{lane:?} {cycles}");
    order.expect("it reads");
    let mut run = None;
    for line in BufReader::new(child.stdout.take().expect("piped")).lines() {
        let line = line.expect("text");
        match line.strip_prefix('@') {
            Some(found) => run = Some(serde_json::from_str(found).expect("a run")),
            None if line.starts_with("soak ") && cycles > SHORT => eprintln!("{line}"),
            None => println!("{line}"),
        }
    }
    let status = child.wait().expect("a child of ours");
    run.filter(|_| status.success())
        .unwrap_or_else(|| panic!("{lane:?}: the soaking process failed: {status}"))
}

/// Not a test: the process that [`soak`] starts.
#[test]
#[ignore = "the process of one lane's soak"]
fn soaking_process() {
    let Some(order) = std::io::stdin().lines().map_while(Result::ok).next() else { return };
    let (lane, cycles) = order.split_once(' ').expect("lane and cycles");
    let lane = [Lane::Local, Lane::StreamUnix, Lane::StreamTcp, Lane::Ucx]
        .into_iter()
        .find(|known| format!("{known:?}") == lane)
        .expect("a lane");
    let run = Soak::new(lane).run(cycles.parse().expect("a number"));
    println!("\n@{}", serde_json::to_string(&run).expect("JSON"));
}

/// The agent that stays, and the memory of both.
struct Soak {
    lane: Lane,
    ours: Agent,
    our_pool: Pool,
    our_bulk: Pool,
    their_pool: Pool,
    their_bulk: Pool,
    their_name: String,
}

impl Soak {
    fn new(lane: Lane) -> Self {
        Self {
            lane,
            ours: agent("ours", lane),
            our_pool: Pool::new(LEN, 0),
            our_bulk: Pool::new(BULK, 0),
            their_pool: Pool::new(LEN, 0),
            their_bulk: Pool::new(BULK, 0),
            their_name: unique("theirs"),
        }
    }

    fn run(&self, cycles: usize) -> Run {
        let (lane, warm_up) = (format!("{:?}", self.lane), cycles / WARM_UP);
        (0..warm_up).for_each(|number| self.cycle(number));
        let (start, fds, begun) = (self.footprint(), descriptors(), Instant::now());
        println!();
        for number in 0..cycles {
            self.cycle(number);
            if (number + 1) % cycles.div_ceil(10) == 0 {
                let Footprint { fds, threads, rss_kib, .. } = self.footprint();
                let (at, seconds) = (number + 1, begun.elapsed().as_secs_f64());
                println!(
                    "soak {lane}: {at} of {cycles}, {seconds:.1} s, {fds} fds, {threads} threads, {rss_kib} KiB"
                );
            }
        }
        let seconds = begun.elapsed().as_secs_f64();
        let same = |end: &Footprint| Footprint { rss_kib: start.rss_kib, ..*end } == start;
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut end = self.footprint();
        while !same(&end) && Instant::now() < deadline {
            std::thread::yield_now(); // a thread that has been joined may still be listed
            end = self.footprint();
        }
        let new: Vec<_> = descriptors().into_iter().filter(|fd| !fds.contains(fd)).collect();
        assert!(same(&end), "{lane}: after {cycles} cycles {end:?}, before them {start:?}; new: {new:?}");
        let growth_kib = end.rss_kib.saturating_sub(start.rss_kib);
        assert!(growth_kib < RSS_GROWTH_KIB, "{lane}: {cycles} cycles have left {growth_kib} KiB behind");
        Run { lane, cycles, seconds, start, end }
    }

    /// One life of the other agent.
    fn cycle(&self, number: usize) {
        let name = if number % 4 == 3 { unique("theirs") } else { self.their_name.clone() };
        let theirs = named_agent(name, self.lane);
        let load = |from: &Agent, to: &Agent| from.load_blob(to.name(), &to.local_blob()).expect("loads");
        let is_early = number.is_multiple_of(5);
        let register = || {
            [&self.our_pool, &self.our_bulk].iter().for_each(|pool| pool.register(&self.ours));
            [&self.their_pool, &self.their_bulk].iter().for_each(|pool| pool.register(&theirs));
        };
        if is_early {
            register();
        }
        match number.is_multiple_of(2) {
            true => load(&self.ours, &theirs),
            false => load(&theirs, &self.ours),
        }
        load(&self.ours, &theirs);
        if !is_early {
            register();
        }
        self.our_pool.fill(|at| (at + number) as u8);
        self.write(&self.ours, &theirs, (&self.our_pool, &self.their_pool), number);
        assert!(self.their_pool.bytes() == self.our_pool.bytes(), "written in {number}");
        self.ours.invalidate(theirs.name());
        load(&self.ours, &theirs);
        load(&theirs, &self.ours);
        self.their_pool.fill(|at| (at * 3 + number) as u8);
        self.write(&theirs, &self.ours, (&self.their_pool, &self.our_pool), number);
        assert!(self.their_pool.bytes() == self.our_pool.bytes(), "written back in {number}");
        match number % 3 {
            0 => {
                self.ours.invalidate(theirs.name());
                theirs.deregister(&self.their_pool.all());
                drop(theirs);
            }
            1 => drop(theirs),
            _ => {
                let request = request(&theirs, &self.our_bulk, &self.their_bulk);
                let there = || self.ours.check_remote(theirs.name(), &request.remote).then_some(());
                eventually("the announcement", there);
                let transfer = self.ours.submit(&request).expect("taken");
                drop(theirs);
                assert_ne!(transfer.wait(Some(WATCHDOG)), TransferState::InProgress, "{number}");
            }
        }
        [&self.our_pool, &self.our_bulk].iter().for_each(|pool| self.ours.deregister(&pool.all()));
        eventually("the end of the stream", || (self.ours.counters().streams == 0).then_some(()));
        self.ours.take_notifications();
    }

    /// Writes, and waits for the message that follows the bytes.
    fn write(&self, from: &Agent, to: &Agent, (source, target): (&Pool, &Pool), number: usize) {
        let message = number.to_le_bytes().to_vec();
        let request = TransferRequest { sync_message: Some(message.clone()), ..request(to, source, target) };
        eventually("the announcement", || from.check_remote(to.name(), &request.remote).then_some(()));
        let transfer = from.submit(&request).expect("taken");
        assert_eq!(transfer.wait(Some(WATCHDOG)), TransferState::Success, "{}", transfer.error_text());
        let told = crate::pair::notifications(to, from.name(), 1);
        assert_eq!(told, [message], "in cycle {number}");
    }

    fn footprint(&self) -> Footprint {
        let counters = self.ours.counters();
        // SAFETY: no memory of ours is involved; what is free goes back to the system, so that it is not counted.
        unsafe { libc::malloc_trim(0) };
        let status = fs::read_to_string("/proc/self/status").expect("a status");
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("resident memory");
        let maps = fs::read_to_string("/proc/self/maps").expect("mappings");
        let is_shared = |line: &&str| line.split(' ').nth(1).is_some_and(|access| access.ends_with('s'));
        Footprint {
            fds: descriptors().len(),
            threads: fs::read_dir("/proc/self/task").expect("threads").count(),
            shared_maps: maps.lines().filter(is_shared).count(),
            regions: counters.regions,
            quarantined: counters.quarantined,
            streams: counters.streams,
            transfers: counters.transfers,
            unread: counters.unread,
            rss_kib: rss.trim().trim_end_matches(" kB").parse().expect("a number"),
        }
    }
}

fn request(to: &Agent, source: &Pool, target: &Pool) -> TransferRequest<'static> {
    let (local, remote, peer) = (source.all(), target.all(), to.name().to_owned());
    TransferRequest { op: TransferOp::Write, local, remote, peer, sync_message: None }
}

/// Number and file of each descriptor.
fn descriptors() -> Vec<String> {
    let listed = fs::read_dir("/proc/self/fd").expect("descriptors").map_while(Result::ok);
    let file = |path: &std::path::Path| {
        fs::read_link(path).map_or_else(|_| "?".into(), |file| file.display().to_string())
    };
    listed.map(|entry| format!("{} {}", entry.file_name().display(), file(&entry.path()))).collect()
}

/// Counts before and after.
fn table(runs: &[Run]) -> Table {
    let mut table = Table::new();
    table.set_header([
        "lane",
        "cycles",
        "seconds",
        "fds",
        "threads",
        "shared maps",
        "regions",
        "quarantined",
        "streams",
        "transfers",
        "RSS KiB",
    ]);
    for Run { lane, cycles, seconds, start, end } in runs {
        let count = |of: fn(&Footprint) -> usize| format!("{} -> {}", of(start), of(end));
        table.add_row([
            lane.clone(),
            cycles.to_string(),
            format!("{seconds:.1}"),
            count(|at| at.fds),
            count(|at| at.threads),
            count(|at| at.shared_maps),
            count(|at| at.regions),
            count(|at| at.quarantined),
            count(|at| at.streams),
            count(|at| at.transfers),
            format!("{} -> {}", start.rss_kib, end.rss_kib),
        ]);
    }
    table
}
