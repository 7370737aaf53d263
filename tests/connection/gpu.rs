//! Messages from and to memory of a GPU: the host passes pointers and says nothing of what they are for.

use baton::connection::Buffer;
use baton::device::{Cuda, DeviceBuffer, DeviceConfig};

use crate::pair::{Lane, Pair, never, within};
use crate::{LENGTHS, TAG};

/// The GPU, or the stand-in for one.
fn cuda() -> &'static Cuda {
    let library = Cuda::open(&DeviceConfig { library: Some(fake_cuda::driver()) });
    library.expect("the stand-in is always there")
}

/// A message's bytes, on a GPU or not. Leaked, so that no test can break the promise.
enum Bytes {
    Host(&'static mut [u8]),
    Gpu(&'static mut DeviceBuffer),
}

impl Bytes {
    fn new(on_gpu: bool, bytes: &[u8]) -> Self {
        if !on_gpu {
            return Self::Host(Box::leak(bytes.to_vec().into_boxed_slice()));
        }
        let device = cuda().device(0).expect("a device");
        let mut buffer = device.alloc(bytes.len().max(1)).expect("device memory");
        buffer.write(0, bytes).expect("written");
        Self::Gpu(Box::leak(Box::new(buffer)))
    }

    fn buffer(&mut self, len: usize) -> Buffer {
        let addr = match self {
            Self::Host(bytes) => bytes.as_mut_ptr() as u64,
            Self::Gpu(buffer) => buffer.span().addr,
        };
        // SAFETY: it is leaked, and this test alone has it, which waits for the operation.
        unsafe { Buffer::new(addr, len as u64) }
    }

    fn take(&self, len: usize) -> Vec<u8> {
        match self {
            Self::Host(bytes) => bytes.to_vec(),
            Self::Gpu(buffer) => {
                let mut bytes = vec![0; len];
                buffer.read(0, &mut bytes).expect("read");
                bytes
            }
        }
    }
}

#[test]
fn messages_go_from_and_to_gpu_memory() {
    for lane in [Lane::GpuAndUnix, Lane::StreamTcp] {
        let pair = Pair::new(lane);
        for (from_gpu, to_gpu) in [(true, true), (true, false), (false, true)] {
            for len in LENGTHS {
                let wanted: Vec<u8> = (0..len).map(|at| (at * 7 + len) as u8).collect();
                let mut from = Bytes::new(from_gpu, &wanted);
                let mut to = Bytes::new(to_gpu, &vec![0xEE; len]);
                let (out, into) = (from.buffer(len), to.buffer(len));
                within("a message", || {
                    std::thread::scope(|scope| {
                        let sending = scope.spawn(|| pair.requester.send(pair.out, TAG, out, &never));
                        pair.acceptor.receive(pair.back, TAG, into, &never).expect("received");
                        sending.join().expect("no panic").expect("sent");
                    });
                });
                assert_eq!(to.take(len), wanted, "{lane:?}, {len} bytes, GPU {from_gpu} to {to_gpu}");
            }
        }
    }
}
