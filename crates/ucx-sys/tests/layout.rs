//! Holds the committed bindings against the UCX headers of this machine: a C program prints what the compiler
//! sees and the test compares. Without headers or compiler it says so and passes.

use std::collections::BTreeMap;
use std::mem::{offset_of, size_of};
use std::path::Path;
use std::process::Command;

use ucx_sys::bindings as ucx;

/// Collects pairs of (C expression, value in the bindings).
macro_rules! expectations {
    (structs { $($name:ident { $($field:ident),* })* } constants { $($constant:ident),* $(,)? }) => {{
        let mut all: Vec<(String, u64)> = Vec::new();
        $(
            all.push((format!("sizeof({}_t)", base(stringify!($name))), size_of::<ucx::$name>() as u64));
            $(all.push((
                format!("offsetof({}_t, {})", base(stringify!($name)), stringify!($field)),
                offset_of!(ucx::$name, $field) as u64,
            ));)*
        )*
        $(all.push((stringify!($constant).to_owned(), ucx::$constant as i64 as u64));)*
        all
    }};
}

/// bindgen names some structs by their tag and some by their typedef.
fn base(name: &str) -> &str {
    name.strip_suffix("_t").unwrap_or(name)
}

fn expectations() -> Vec<(String, u64)> {
    expectations! {
        structs {
            ucp_params { field_mask, features, request_size, name }
            ucp_context_attr { field_mask, request_size, thread_mode, memory_types, name }
            ucp_worker_params { field_mask, thread_mode, cpu_mask, events, event_fd, flags, client_id }
            ucp_mem_map_params { field_mask, address, length, flags, prot, memory_type }
            ucp_err_handler { cb, arg }
            ucp_ep_params {
                field_mask, address, err_mode, err_handler, user_data, flags, sockaddr, conn_request, name,
                local_sockaddr
            }
            ucp_request_param_t {
                op_attr_mask, flags, request, cb, datatype, user_data, reply_buffer, memory_type, recv_info,
                memh
            }
        }
        constants {
            UCS_OK, UCS_INPROGRESS, UCS_ERR_NO_RESOURCE, UCS_ERR_IO_ERROR, UCS_ERR_NO_MEMORY,
            UCS_ERR_INVALID_PARAM, UCS_ERR_UNREACHABLE, UCS_ERR_INVALID_ADDR, UCS_ERR_CANCELED,
            UCS_ERR_TIMED_OUT, UCS_ERR_UNSUPPORTED, UCS_ERR_REJECTED, UCS_ERR_NOT_CONNECTED,
            UCS_ERR_CONNECTION_RESET, UCS_ERR_ENDPOINT_TIMEOUT, UCS_ERR_LAST,
            UCS_MEMORY_TYPE_HOST, UCS_MEMORY_TYPE_CUDA,
            UCS_THREAD_MODE_SERIALIZED,
            UCP_ERR_HANDLING_MODE_NONE, UCP_ERR_HANDLING_MODE_PEER,
            UCP_FEATURE_RMA, UCP_PARAM_FIELD_FEATURES, UCP_WORKER_PARAM_FIELD_THREAD_MODE,
            UCP_EP_PARAM_FIELD_REMOTE_ADDRESS, UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE,
            UCP_EP_PARAM_FIELD_ERR_HANDLER, UCP_MEM_MAP_PARAM_FIELD_ADDRESS, UCP_MEM_MAP_PARAM_FIELD_LENGTH,
            UCP_MEM_MAP_PARAM_FIELD_MEMORY_TYPE, UCP_ATTR_FIELD_MEMORY_TYPES,
            UCP_OP_ATTR_FIELD_CALLBACK, UCP_OP_ATTR_FIELD_USER_DATA, UCP_OP_ATTR_FIELD_MEMORY_TYPE,
        }
    }
}

#[test]
fn bindings_agree_with_the_headers() {
    let expected = expectations();
    let Some(seen) = ask_the_compiler(&expected) else { return };
    let same_version = seen["UCP_API_MAJOR"] == u64::from(ucx::UCP_API_MAJOR)
        && seen["UCP_API_MINOR"] == u64::from(ucx::UCP_API_MINOR);
    for (expression, ours) in expected {
        let theirs = seen[&expression];
        // Later versions append to structs; nothing else may move.
        let agrees =
            if expression.starts_with("sizeof") && !same_version { ours <= theirs } else { ours == theirs };
        assert!(agrees, "{expression}: bindings say {ours}, the headers {theirs}");
    }
}

/// What the compiler makes of each expression, or `None` (with a word) where it cannot be asked.
fn ask_the_compiler(expressions: &[(String, u64)]) -> Option<BTreeMap<String, u64>> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (source, program) = (folder.join("layout.c"), folder.join("layout"));
    let mut text =
        String::from("#include <stddef.h>\n#include <stdio.h>\n#include <ucp/api/ucp.h>\nint main(void) {\n");
    for expression in
        expressions.iter().map(|(text, _)| text.as_str()).chain(["UCP_API_MAJOR", "UCP_API_MINOR"])
    {
        text.push_str(&format!(
            "  printf(\"%s=%llu\\n\", \"{expression}\", (unsigned long long)({expression}));\n"
        ));
    }
    text.push_str("  return 0;\n}\n");
    std::fs::write(&source, text).expect("the target folder is writable");

    let probe = Command::new("cc")
        .args(["-E", "-x", "c", "-", "-include", "ucp/api/ucp.h"])
        .stdin(std::process::Stdio::null())
        .output();
    if !probe.is_ok_and(|out| out.status.success()) {
        println!(
            "skipped: bindings_agree_with_the_headers (no C compiler or no UCX headers; apt-get install libucx-dev)"
        );
        return None;
    }
    let built =
        Command::new("cc").arg("-o").arg(&program).arg(&source).output().expect("cc ran a moment ago");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let ran = Command::new(&program).output().expect("the program was just built");
    let printed = String::from_utf8(ran.stdout).expect("it prints ASCII");
    Some(
        printed
            .lines()
            .map(|line| {
                let (name, value) = line.rsplit_once('=').expect("name=value");
                (name.to_owned(), value.parse().expect("a number"))
            })
            .collect(),
    )
}
