//! Which kinds of memory this UCX carries, under which names, and why GPU memory is not among them.
//!
//! Values and words only. A kind is carried when three things hold: the transports let in move it natively to and from every
//! other kind ([`lanes`](super::lanes)), this UCX can be kept from emulating what they do not, and UCX itself knows the kind.
//! With the transports of today the first does not hold for GPU memory.
//!
//! # GPU memory, as UCX does it
//!
//! **Seen** with UCX 1.22.0 (the wheel `libucx-cu12`), CUDA's driver being the stand-in of `tests/fake_cuda`, two processes of
//! a host, `cma,posix,cuda_copy,cuda_ipc`. On no GPU.
//!
//! | | put | get |
//! |---|---|---|
//! | VRAM to VRAM | native over `cuda_ipc`, 16 bytes and 64 KiB, the target's worker never progressed | emulated; native with `UCX_CUDA_IPC_ENABLE_GET_ZCOPY=on`, which UCX itself sets where it sees NVLink |
//! | DRAM to VRAM, VRAM to DRAM | emulated alone | emulated alone |
//!
//! So `cuda_ipc` alone cannot make good [`Limits::kinds`](crate::fabric::Limits::kinds), which is from each to each. And it is
//! never free: with `cuda_copy` in, UCX registers *host* memory with CUDA too (`uct_cuda_copy_mem_reg`, `cuMemHostRegister`).
//! Within one process `cuda_ipc` connects to nobody ("same process"), so a fabric could not prove it against itself.
//!
//! **Switching emulation off.** With `PROTO_EMULATION_ENABLE=n` a put or get that no transport does natively is `Request
//! canceled` at once and touches nothing (seen with 1.21.0 and 1.22.0 over `posix`, and with 1.22.0 for every emulated pair
//! of the table). 1.19.0 does not know the setting, and where the emulating
//! protocols are left out of `PROTOS` it spins inside `ucp_put_nbx` for ever (1.17.0, 1.18.1, 1.19.0). So 1.21 is the oldest
//! that could be trusted with GPU memory; it and later ones have emulation off for host memory, too.
//!
//! **Read in the source of 1.22.0**, not run:
//!
//! * `cuda_ipc` puts (`uct_cuda_ipc_ep_put_zcopy`) are a `cuMemcpyDtoDAsync` each, on a stream of UCX's, with an event behind;
//!   a request completes when a progress of the initiator sees the event reached, and a flush queues behind the events of
//!   all active streams (`uct_cuda_base_ep_flush`). `ucp_ep_flush_nbx` proves arrival there. Mappings of the peer's memory
//!   stay in a cache after the key is given back (`UCX_CUDA_IPC_CACHE`), so its owner's memory is not free when it frees it.
//! * `gdr_copy` and `cuda_copy` move nothing between processes: they fill and empty the bounce buffers of this one.
//! * `rc` and `dc` put natively to VRAM from any kind (`put/offload/*`: short, bcopy, zcopy) if the target's key has their
//!   memory domain in it, that is, if the card could register the memory: by `nvidia_peermem`
//!   (`uct_ib_check_gpudirect_driver`), or by dma-buf (`uct_ib_md_check_dmabuf`), for which `cuda_copy` has to be let in: it
//!   provides the descriptor. A card that could not is no error of `ucp_mem_map`; the put is emulated, or cancelled as above.
//! * A flush over `rc` and `dc` proves that the target's card has the bytes and has sent them on in order, not that the GPU
//!   sees them: UCX calls `cuFlushGPUDirectRDMAWrites` nowhere (1.19.0, 1.20.0, 1.22.0). Since 1.20 a flush reads remotely,
//!   for cards that reach the GPU by a path of their own alone (`ucp_memh_send_flush_is_needed`). Where the GPU does not
//!   order a card's writes by itself, its owner calls `Device::flush_remote_writes` before it tells anybody.

use ucx_sys::Version;
use ucx_sys::bindings::{UCS_MEMORY_TYPE_CUDA, UCS_MEMORY_TYPE_HOST, ucs_memory_type_t};

use super::NAME;
use crate::desc::MemoryKind;
use crate::error::{FabricError, FabricErrorKind};
use crate::fabric::Region;

/// Host memory alone.
pub(super) const HOST: &[MemoryKind] = &[MemoryKind::Dram];

/// Host and GPU memory, from each to each.
pub(super) const HOST_AND_GPU: &[MemoryKind] = &[MemoryKind::Dram, MemoryKind::Vram];

/// The first UCX whose emulation of puts and gets can be switched off.
const UNEMULATED: Version = Version { major: 1, minor: 21, release: 0 };

/// Whether this UCX fails a put or get that no transport does natively, if told to, instead of emulating it.
pub(super) fn can_refuse_emulation(version: Version) -> bool {
    version >= UNEMULATED
}

/// UCX's name for a kind of memory that is carried.
pub(super) fn memory_type(kind: MemoryKind) -> ucs_memory_type_t {
    match kind {
        MemoryKind::Vram => UCS_MEMORY_TYPE_CUDA,
        _ => UCS_MEMORY_TYPE_HOST, // no other kind is registered
    }
}

/// The types of memory that a context supports: bit N is UCX's type N.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MemoryTypes(pub u64);

impl MemoryTypes {
    pub fn has(self, kind: MemoryKind) -> bool {
        self.0 & (1 << memory_type(kind)) != 0
    }
}

/// See the [module](self).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kinds {
    carried: &'static [MemoryKind],
    without_vram: Option<String>,
}

impl Kinds {
    /// What a context with the transports `tls`, which do `native` kinds natively, carries.
    pub fn of(version: Version, tls: &str, native: &'static [MemoryKind], types: MemoryTypes) -> Self {
        let why = if !native.contains(&MemoryKind::Vram) {
            format!("no transport that Baton lets in ({tls}) puts natively between host and GPU memory")
        } else if !can_refuse_emulation(version) {
            format!("it cannot be kept from emulating puts into GPU memory: {UNEMULATED} or newer is needed")
        } else if !types.has(MemoryKind::Vram) {
            "it was built without CUDA, or its CUDA transports do not load on this machine".to_owned()
        } else {
            return Self { carried: native, without_vram: None };
        };
        Self { carried: HOST, without_vram: Some(format!("UCX {version} carries host memory alone: {why}")) }
    }

    pub fn carried(&self) -> &'static [MemoryKind] {
        self.carried
    }

    /// Why GPU memory is not carried, if it is not.
    pub fn without_vram(&self) -> Option<&str> {
        self.without_vram.as_deref()
    }

    /// Nothing, or the refusal of a region whose kind is not carried.
    pub fn check(&self, region: &Region) -> Result<(), FabricError> {
        if self.carried.contains(&region.kind) {
            return Ok(());
        }
        let why = match (region.kind, &self.without_vram) {
            (MemoryKind::Vram, Some(why)) => format!("{why}; the lanes `cuda` and `stream` carry it"),
            _ => "UCX carries host memory".to_owned(),
        };
        let detail = format!("region {} is {} memory: {why}", region.key, region.kind);
        Err(FabricError::new(NAME, "register", FabricErrorKind::Unsupported, 0, detail))
    }

    /// What UCX said of a region that it does not map, with the region's name and what to do.
    pub fn unmapped(region: &Region, error: FabricError) -> FabricError {
        let advice = match region.kind {
            MemoryKind::Vram => {
                "; a network card needs dma-buf (CUDA's open kernel modules) or nvidia_peermem, see docs/gpu.md"
            }
            _ => "",
        };
        let said = &error.detail;
        let detail =
            format!("region {} ({} memory at {}): {said}{advice}", region.key, region.kind, region.span);
        FabricError { detail, ..error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desc::{RegionKey, Span};

    const CURRENT: Version = Version { major: 1, minor: 22, release: 0 };
    const OLDER: Version = Version { major: 1, minor: 20, release: 1 };
    /// What UCX 1.22 answers: without its CUDA transports, and with them.
    const WITHOUT: MemoryTypes = MemoryTypes(0b001);
    const WITH: MemoryTypes = MemoryTypes(0b111);

    #[test]
    fn the_mask_is_read_by_ucx_s_numbers() {
        use MemoryKind::{Dram, Vram};
        assert!(WITHOUT.has(Dram) && !WITHOUT.has(Vram));
        assert!(WITH.has(Dram) && WITH.has(Vram));
        let rocm_and_managed = MemoryTypes(0b1_1101);
        assert!(rocm_and_managed.has(Dram) && !rocm_and_managed.has(Vram));
        assert!(!MemoryTypes(0).has(Dram));
        assert_eq!((memory_type(Dram), memory_type(Vram)), (UCS_MEMORY_TYPE_HOST, UCS_MEMORY_TYPE_CUDA));
    }

    #[test]
    fn gpu_memory_is_carried_where_all_three_hold_and_else_the_reason_is_told() {
        let all = Kinds::of(CURRENT, "rc,cma,posix", HOST_AND_GPU, WITH);
        assert_eq!((all.carried(), all.without_vram()), (HOST_AND_GPU, None));
        for (version, native, types, why) in [
            (
                CURRENT,
                HOST,
                WITH,
                "UCX 1.22.0 carries host memory alone: no transport that Baton lets in (cma,posix)",
            ),
            (
                OLDER,
                HOST_AND_GPU,
                WITH,
                "UCX 1.20.1 carries host memory alone: it cannot be kept from emulating",
            ),
            (
                CURRENT,
                HOST_AND_GPU,
                WITHOUT,
                "UCX 1.22.0 carries host memory alone: it was built without CUDA",
            ),
        ] {
            let kinds = Kinds::of(version, "cma,posix", native, types);
            assert_eq!(kinds.carried(), HOST, "{why}");
            let said = kinds.without_vram().unwrap_or_default();
            assert!(said.starts_with(why), "{said}");
        }
    }

    #[test]
    fn refusals_name_the_region_its_kind_and_what_to_do() {
        let region = |kind| Region { key: RegionKey(7), kind, device: 0, span: Span { addr: 4096, len: 64 } };
        let kinds = Kinds::of(CURRENT, "cma,posix", HOST, WITHOUT);
        assert_eq!(kinds.check(&region(MemoryKind::Dram)), Ok(()));
        let error = kinds.check(&region(MemoryKind::Vram)).expect_err("it is not carried");
        assert_eq!(error.kind, FabricErrorKind::Unsupported);
        let named = format!("region {} is {} memory", RegionKey(7), MemoryKind::Vram);
        assert!(error.detail.starts_with(&named), "{error}");
        assert!(
            error.detail.contains("UCX 1.22.0") && error.detail.contains("`cuda` and `stream`"),
            "{error}"
        );
        let refused =
            FabricError::new(NAME, "ucp_mem_map", FabricErrorKind::Internal, -3, "Input/output error");
        let error = Kinds::unmapped(&region(MemoryKind::Vram), refused);
        assert!(
            error.detail.contains("Input/output error") && error.detail.contains("nvidia_peermem"),
            "{error}"
        );
        assert_eq!(error.call, "ucp_mem_map");
    }
}
