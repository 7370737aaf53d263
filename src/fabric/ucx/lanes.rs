//! Which of UCX's transports Baton lets in, and what an endpoint ended up with.
//!
//! Pure text work. The native lane is `cma`; `posix` (or `sysv`) only carries UCX's own handshake, because
//! UCX builds no endpoint without a lane for messages. CUDA's transports come in only where GPU memory is carried: beside
//! `cma` alone they would carry nothing, and `cuda_copy` pins all host memory that is registered. It is no place to choose
//! between fabrics.

use MemoryKind::{Dram, Vram};

use super::kinds;
use crate::desc::MemoryKind;

/// The native lane between host memory, which there is no link without.
const NATIVE: &str = "cma";

/// A transport whose puts and gets the initiator performs alone.
struct Native {
    name: &'static str,
    /// The kinds of memory, at its two ends, between which it does.
    between: &'static [[MemoryKind; 2]],
}

/// The native transports that are let in, and `cuda_ipc`, which is if another closes its gaps. RDMA's would: they reach all
/// memory that the card can be told of.
const NATIVES: [Native; 2] = [
    Native { name: NATIVE, between: &[[Dram, Dram]] },
    Native { name: "cuda_ipc", between: &[[Vram, Vram]] },
];

/// The kinds of memory that a transfer may have at its two ends.
const PAIRS: [[MemoryKind; 2]; 4] = [[Dram, Dram], [Vram, Vram], [Dram, Vram], [Vram, Dram]];

/// What UCX needs to recognise GPU memory, to tell cards of it and to reach it from its own process.
const GPU_HELPERS: [&str; 2] = ["cuda_copy", "gdr_copy"];

/// Lanes that UCX needs beside a native one, best first. `sysv` leaves segments behind more easily.
const HELPERS: [&str; 2] = ["posix", "sysv"];

/// What a context lets in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    /// The value of UCX's `TLS`.
    pub tls: String,
    /// The kinds of memory that these transports move natively from each to each.
    pub kinds: &'static [MemoryKind],
}

/// The transports for the context: Baton's set, cut with the user's `UCX_TLS`. The error says what the user's choice
/// leaves out.
pub(super) fn cut(user_tls: Option<&str>) -> Result<Choice, String> {
    cut_from(&NATIVES, user_tls)
}

fn cut_from(natives: &[Native], user_tls: Option<&str>) -> Result<Choice, String> {
    let allowed = Allowed::parse(user_tls.unwrap_or("all"));
    let helper = HELPERS.into_iter().find(|helper| allowed.has(helper));
    match (allowed.has(NATIVE), helper) {
        (true, Some(helper)) => {
            let natives: Vec<&Native> = natives.iter().filter(|native| allowed.has(native.name)).collect();
            let is_native = |pair| natives.iter().any(|native| native.between.contains(pair));
            let kinds = match PAIRS.iter().all(is_native) && allowed.has(GPU_HELPERS[0]) {
                true => kinds::HOST_AND_GPU,
                false => kinds::HOST,
            };
            let useful = |native: &&Native| {
                native.between.iter().any(|pair| pair.iter().all(|kind| kinds.contains(kind)))
            };
            let mut names: Vec<&str> = natives.into_iter().filter(useful).map(|native| native.name).collect();
            names.push(helper);
            let gpu_helpers =
                GPU_HELPERS.into_iter().filter(|name| kinds.contains(&Vram) && allowed.has(name));
            names.extend(gpu_helpers);
            Ok(Choice { tls: names.join(","), kinds })
        }
        (false, _) => Err(format!(
            "UCX_TLS={} leaves out {NATIVE}, the only native lane between processes of one host",
            user_tls.unwrap_or_default()
        )),
        (true, None) => Err(format!(
            "UCX_TLS={} has {NATIVE} but neither posix nor sysv, one of which UCX needs to connect",
            user_tls.unwrap_or_default()
        )),
    }
}

/// What the endpoint's description (`ucp_ep_print_info`) says about its lanes, e.g. `posix/memory+cma/memory`.
pub(super) fn summary(info: &str) -> String {
    let lanes: Vec<&str> = info.lines().filter_map(lane).collect();
    lanes.join("+")
}

/// Whether a lane in this [`summary`] is native.
pub(super) fn has_native(summary: &str) -> bool {
    summary.split('+').any(|lane| lane.split('/').next() == Some(NATIVE))
}

/// `#   lane[1]:  1:cma/memory.0 md[1]  -> ...` gives `cma/memory`.
fn lane(line: &str) -> Option<&str> {
    let rest = line.trim_start_matches(['#', ' ']).strip_prefix("lane[")?;
    let resource = rest.split_once(':')?.1.split_whitespace().next()?;
    let name = resource.split_once(':').map_or(resource, |(_, name)| name);
    Some(name.split_once('.').map_or(name, |(name, _)| name))
}

/// A parsed `UCX_TLS`: names, or with `^` in front all but the names.
struct Allowed<'a> {
    names: Vec<&'a str>,
    negated: bool,
}

impl<'a> Allowed<'a> {
    fn parse(text: &'a str) -> Self {
        let text = text.trim();
        let (text, negated) = match text.strip_prefix('^') {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        // `ud:aux` names a transport and its use.
        let bare = |name: &'a str| name.trim().split(':').next().unwrap_or_default();
        let names: Vec<&str> = text.split(',').map(bare).filter(|name| !name.is_empty()).collect();
        // An empty value is as good as none.
        if names.is_empty() { Self { names: vec!["all"], negated: false } } else { Self { names, negated } }
    }

    fn has(&self, transport: &str) -> bool {
        let named = self.names.iter().any(|name| match *name {
            "all" => true,
            "sm" | "shm" => transport == NATIVE || HELPERS.contains(&transport),
            "mm" => HELPERS.contains(&transport),
            "cuda" => transport.starts_with("cuda_") || transport == "gdr_copy",
            name => name == transport,
        });
        named != self.negated
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_is_cut_with_the_users_choice() {
        for all in
            [None, Some("all"), Some(""), Some("^tcp"), Some("tcp,cma,posix"), Some("shm,rc"), Some(" sm ")]
        {
            assert_eq!(cut(all), Ok(host("cma,posix")), "{all:?}");
        }
        assert_eq!(cut(Some("sysv,cma,self")), Ok(host("cma,sysv")));
        assert_eq!(cut(Some("^posix")), Ok(host("cma,sysv")));
    }

    fn host(tls: &str) -> Choice {
        Choice { tls: tls.to_owned(), kinds: kinds::HOST }
    }

    #[test]
    fn cuda_ipc_alone_brings_no_gpu_memory_and_no_transport_of_cuda() {
        // It does nothing between host and GPU memory: UCX would emulate that.
        for all in [None, Some("all"), Some("cuda,sm"), Some("cma,posix,cuda_copy,cuda_ipc,gdr_copy")] {
            assert_eq!(cut(all), Ok(host("cma,posix")), "{all:?}");
        }
    }

    #[test]
    fn a_transport_between_all_kinds_lets_in_what_cuda_has_beside_it() {
        let [cma, cuda_ipc] = NATIVES;
        let natives = [Native { name: "rc_mlx5", between: &PAIRS }, cma, cuda_ipc];
        let both = |tls: &str| Ok(Choice { tls: tls.to_owned(), kinds: kinds::HOST_AND_GPU });
        let cut = |user| cut_from(&natives, user);
        assert_eq!(cut(None), both("rc_mlx5,cma,cuda_ipc,posix,cuda_copy,gdr_copy"));
        assert_eq!(cut(Some("^gdr_copy,cuda_ipc")), both("rc_mlx5,cma,posix,cuda_copy"));
        assert_eq!(cut(Some("sm,rc_mlx5,cuda")), both("rc_mlx5,cma,cuda_ipc,posix,cuda_copy,gdr_copy"));
        // Without cuda_copy UCX does not know GPU memory, without the card's transport nothing closes the gaps.
        assert_eq!(cut(Some("^cuda_copy")), Ok(host("rc_mlx5,cma,posix")));
        assert_eq!(cut(Some("^rc_mlx5")), Ok(host("cma,posix")));
    }

    #[test]
    fn a_choice_without_a_native_lane_is_refused_by_name() {
        for without in ["tcp", "tcp,self", "posix", "^cma", "^shm", "rc,ud:aux", "mm"] {
            let reason = cut(Some(without)).unwrap_err();
            assert!(reason.contains(&format!("UCX_TLS={without} leaves out cma")), "{reason}");
        }
        assert!(cut(Some("cma,tcp")).unwrap_err().contains("neither posix nor sysv"));
    }

    #[test]
    fn lanes_are_read_from_the_description() {
        let native = "#\n# UCP endpoint \n#\n#               peer: <no debug data>\n\
            #                 lane[0]:  0:posix/memory.0 md[0]          -> md[0]/posix/sysdev[255] seg 4294967295 am\n\
            #                 lane[1]:  1:cma/memory.0 md[1]            -> md[1]/cma/sysdev[255] rma_bw#0\n#\n";
        assert_eq!(summary(native), "posix/memory+cma/memory");
        assert!(has_native(&summary(native)));
        let emulated =
            "#                 lane[0]:  0:posix/memory.0 md[0] -> md[0]/posix/sysdev[255] am am_bw#0\n";
        assert_eq!(summary(emulated), "posix/memory");
        assert!(!has_native(&summary(emulated)));
        assert!(!has_native(&summary("a text of some later version")));
    }
}
