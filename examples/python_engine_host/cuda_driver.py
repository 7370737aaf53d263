"""GPU memory by the CUDA driver, opened at run time: a host without one runs as long as it wants none.

The only module that knows the driver: libcuda.so.1, or what BATON_CUDA_LIBRARY names, which Baton opens too. Addresses
are for the GPU; the CPU reaches the bytes by `read` and `write` alone. Any thread may call.
"""

from __future__ import annotations

import ctypes
import os
import threading
from ctypes import byref, c_char_p, c_int, c_size_t, c_uint, c_uint8, c_uint64, c_void_p
from dataclasses import dataclass
from functools import cache
from typing import Any

_POSIX_FD = 1
_GRANULARITY_MINIMUM = 0

_ADDRESS, _HANDLE = c_uint64, c_uint64


class CudaError(Exception):
    """The driver, the GPU or its memory does not do; the text says which call and why."""


class _Location(ctypes.Structure):
    _fields_ = (("type", c_int), ("id", c_int))


class _AllocationProp(ctypes.Structure):
    _fields_ = (
        ("type", c_int),
        ("requested_handle_types", c_int),
        ("location", _Location),
        ("win32_handle_meta_data", c_void_p),
        ("flags", c_uint8 * 8),
    )


class _AccessDesc(ctypes.Structure):
    _fields_ = (("location", _Location), ("flags", c_int))


_DEVICE, _PINNED, _READ_WRITE = 1, 1, 3

_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cuInit": (c_uint,),
    "cuDeviceGetCount": (c_void_p,),
    "cuDeviceGet": (c_void_p, c_int),
    "cuDevicePrimaryCtxRetain": (c_void_p, c_int),
    "cuCtxSetCurrent": (c_void_p,),
    "cuCtxSynchronize": (),
    "cuMemAlloc_v2": (c_void_p, c_size_t),
    "cuMemFree_v2": (_ADDRESS,),
    "cuMemcpyHtoD_v2": (_ADDRESS, c_void_p, c_size_t),
    "cuMemcpyDtoH_v2": (c_void_p, _ADDRESS, c_size_t),
    "cuMemsetD8_v2": (_ADDRESS, c_uint8, c_size_t),
    "cuMemGetAllocationGranularity": (c_void_p, c_void_p, c_int),
    "cuMemAddressReserve": (c_void_p, c_size_t, c_size_t, _ADDRESS, c_uint64),
    "cuMemAddressFree": (_ADDRESS, c_size_t),
    "cuMemCreate": (c_void_p, c_size_t, c_void_p, c_uint64),
    "cuMemRelease": (_HANDLE,),
    "cuMemMap": (_ADDRESS, c_size_t, c_size_t, _HANDLE, c_uint64),
    "cuMemUnmap": (_ADDRESS, c_size_t),
    "cuMemSetAccess": (_ADDRESS, c_size_t, c_void_p, c_size_t),
}


class _Driver:
    """The driver of this process. Contexts are retained at first use and never released."""

    def __init__(self) -> None:
        self._name = os.environ.get("BATON_CUDA_LIBRARY") or "libcuda.so.1"
        try:
            self._library = ctypes.CDLL(self._name)
        except OSError as error:
            raise CudaError(f"GPU memory needs the NVIDIA driver: {error}") from error
        self._functions = {name: self._find(name, arguments) for name, arguments in _SIGNATURES.items()}
        self._contexts: dict[int, c_void_p] = {}
        self._lock = threading.Lock()
        self.call("cuInit", 0)
        count = c_int()
        self.call("cuDeviceGetCount", byref(count))
        self.device_count = count.value

    def use(self, device: int) -> None:
        """Makes a device's primary context the calling thread's."""
        with self._lock:
            if not 0 <= device < self.device_count:
                raise CudaError(f"there is no device {device}: the CUDA driver has {self.device_count}")
            if device not in self._contexts:
                handle, context = c_int(), c_void_p()
                self.call("cuDeviceGet", byref(handle), device)
                self.call("cuDevicePrimaryCtxRetain", byref(context), handle)
                self._contexts[device] = context
        self.call("cuCtxSetCurrent", self._contexts[device])

    def call(self, name: str, *arguments: Any) -> None:
        """Raises CudaError unless the call succeeds. Other Python threads run meanwhile."""
        code = self._functions[name](*arguments)
        if code != 0:
            raise CudaError(f"{name.removesuffix('_v2')}: {self._name_of(code)}")

    def _find(self, name: str, arguments: tuple[Any, ...]) -> Any:
        try:
            function = getattr(self._library, name)
        except AttributeError as error:
            raise CudaError(f"{self._name} has no {name}: the NVIDIA driver is too old") from error
        function.argtypes, function.restype = arguments, c_uint
        return function

    def _name_of(self, code: int) -> str:
        text = c_char_p()
        known = self._library.cuGetErrorName(c_uint(code), byref(text)) == 0 and text.value is not None
        return text.value.decode() if known else f"error {code}"


@cache
def _driver() -> _Driver:
    return _Driver()


def why_not(device: int = 0) -> str:
    """Why there is no memory of a GPU here; empty where there is."""
    try:
        _driver().use(device)
    except CudaError as error:
        return str(error)
    return ""


@dataclass(frozen=True)
class Placement:
    """On which device memory is made, and how."""

    device: int = 0
    chunk_bytes: int = 0  # 0: one cuMemAlloc; else chunks of cuMemCreate, side by side
    chunks_shareable: bool = True  # whether other processes can be given them, as POSIX file descriptors


class Allocation:
    """Memory of a GPU. What a call has changed is there for everybody when it returns. `free` ends it."""

    def __init__(self, length_bytes: int, placement: Placement) -> None:
        """Raises CudaError."""
        self.length_bytes = length_bytes
        self._device = placement.device
        self._chunk_bytes = placement.chunk_bytes
        self._mapped = self._reserved = 0
        address = _ADDRESS()
        _driver().use(self._device)
        if placement.chunk_bytes == 0:
            _driver().call("cuMemAlloc_v2", byref(address), length_bytes)
            self.address = address.value
            return
        try:
            self._map_chunks(placement)
        except CudaError:
            self._unmap_chunks()
            raise

    def write(self, offset: int, source: int, length_bytes: int) -> None:
        """Copies from an address of this process."""
        driver = self._current()
        driver.call("cuMemcpyHtoD_v2", self.address + offset, source, length_bytes)
        driver.call("cuCtxSynchronize")  # the copy may return while the last of it is on its way

    def read(self, offset: int, target: int, length_bytes: int) -> None:
        """Copies to an address of this process."""
        self._current().call("cuMemcpyDtoH_v2", target, self.address + offset, length_bytes)

    def set(self, offset: int, value: int, length_bytes: int) -> None:
        """Gives every byte this value."""
        driver = self._current()
        driver.call("cuMemsetD8_v2", self.address + offset, value, length_bytes)
        driver.call("cuCtxSynchronize")

    def free(self) -> None:
        """Gives the memory back; it may not be used afterwards. Does not raise: a device that has failed frees nothing."""
        try:
            driver = self._current()
            driver.call("cuCtxSynchronize")
            if self._reserved:
                self._unmap_chunks()
            else:
                driver.call("cuMemFree_v2", self.address)
        except CudaError:
            pass

    def _current(self) -> _Driver:
        driver = _driver()
        driver.use(self._device)
        return driver

    def _map_chunks(self, placement: Placement) -> None:
        driver = _driver()
        location = _Location(_DEVICE, self._device)
        handle_types = _POSIX_FD if placement.chunks_shareable else 0
        prop = _AllocationProp(_PINNED, handle_types, location)
        granularity = c_size_t()
        driver.call("cuMemGetAllocationGranularity", byref(granularity), byref(prop), _GRANULARITY_MINIMUM)
        chunk = self._chunk_bytes = -(-placement.chunk_bytes // granularity.value) * granularity.value
        total = -(-self.length_bytes // chunk) * chunk
        address = _ADDRESS()
        driver.call("cuMemAddressReserve", byref(address), total, 0, 0, 0)
        self.address, self._reserved = address.value, total
        while self._mapped < total:
            handle = _HANDLE()
            driver.call("cuMemCreate", byref(handle), chunk, byref(prop), 0)
            try:
                driver.call("cuMemMap", self.address + self._mapped, chunk, 0, handle, 0)
            finally:
                driver.call("cuMemRelease", handle)  # its mapping holds it from here on
            self._mapped += chunk
        access = _AccessDesc(location, _READ_WRITE)
        driver.call("cuMemSetAccess", self.address, total, byref(access), 1)

    def _unmap_chunks(self) -> None:
        driver = _driver()
        while self._mapped:
            self._mapped -= self._chunk_bytes
            driver.call("cuMemUnmap", self.address + self._mapped, self._chunk_bytes)
        if self._reserved:
            driver.call("cuMemAddressFree", self.address, self._reserved)
            self._reserved = 0
