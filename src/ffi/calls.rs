//! The functions of the bridge, each with the name that the host knows it by. [`super::guard`] takes nothing else.
#![cfg_attr(feature = "panics", allow(unsafe_code))] // a name that C++ can look up

macro_rules! calls {
    ($($call:ident => $name:literal),* $(,)?) => {
        /// A function of the bridge, named as there.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Call { $(#[doc = $name] $call),* }

        impl Call {
            /// What the host calls it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$call => $name),* }
            }

            /// What the bridge calls it.
            pub const fn function(self) -> &'static str {
                match self { $(Self::$call => stringify!($call)),* }
            }
        }

        /// All of them, as C strings `Function=name`.
        #[cfg(any(test, feature = "panics"))]
        const ALL: &[&str] = &[$(concat!(stringify!($call), "=", $name, "\0")),*];
    };
}

calls!(
    HostAge => "host age",
    LogError => "log",
    OpenAgent => "createTransferAgent",
    ShutDown => "shutdown",
    CloseAgent => "~TransferAgent",
    RegisterMemory => "registerMemory",
    DeregisterMemory => "deregisterMemory",
    LoadFromBlob => "loadRemoteAgent",
    LoadFromConnectionInfo => "loadRemoteAgent",
    Invalidate => "invalidateRemoteAgent",
    LocalBlob => "getLocalAgentDesc",
    VramRegions => "getLocalAgentDesc",
    ConnectionInfo => "getLocalConnectionInfo",
    Submit => "submitTransferRequests",
    Notify => "notifySyncMessage",
    TakeNotifications => "getNotifiedSyncMessages",
    CheckRemote => "checkRemoteDescs",
    State => "isCompleted",
    Wait => "wait",
    Release => "release",
    ErrorText => "getLastStatusStr",
    StatusCode => "getLastStatus",
    CloseTransfer => "~TransferStatus",
    OpenConnections => "makeUcxConnectionManager",
    CloseConnections => "~ConnectionManager",
    Ranks => "getCommState",
    Rank => "getCommState",
    Connect => "getConnections",
    Send => "send",
    Receive => "recv",
    Accept => "recvConnect",
    IsOpen => "isRunning",
    OpenLoopback => "createNixlLoopbackAgent",
    Execute => "executeLoopbackRequest",
);

/// The call of this number as a C string `Function=name`, null beyond the last: what the host of `tests/panics` has to have
/// a case for, each.
// SAFETY: the name is no other symbol's.
#[cfg(feature = "panics")]
#[unsafe(no_mangle)]
pub extern "C" fn baton_test_call(number: usize) -> *const std::ffi::c_char {
    ALL.get(number).map_or(std::ptr::null(), |text| text.as_ptr().cast())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BRIDGE: &str = include_str!("bridge.rs");
    const BODIES: [&str; 2] = [BRIDGE, include_str!("connections.rs")];

    /// The functions that the bridge declares, as the variants are spelt.
    fn declared() -> Vec<String> {
        let (_, rest) = BRIDGE.split_once("extern \"Rust\" {").expect("a block");
        let (block, _) = rest.split_once("\n    }\n").expect("its end");
        let names =
            block.lines().filter_map(|line| line.trim().trim_start_matches("unsafe ").strip_prefix("fn "));
        names.map(|name| camel(&name[..name.find('(').expect("arguments")])).collect()
    }

    fn camel(snake: &str) -> String {
        snake.split('_').map(|word| word[..1].to_uppercase() + &word[1..]).collect()
    }

    #[test]
    fn every_function_of_the_bridge_is_behind_the_wall_under_its_own_name() {
        let mut declared = declared();
        let mut known: Vec<_> =
            ALL.iter().map(|text| text[..text.find('=').expect("both")].to_owned()).collect();
        for function in &known {
            let uses: usize =
                BODIES.iter().map(|body| body.matches(&format!("guard(Call::{function}, ")).count()).sum();
            assert_eq!(uses, 1, "{function} runs inside one guard");
        }
        declared.sort();
        known.sort();
        assert_eq!(declared, known);
    }
}
