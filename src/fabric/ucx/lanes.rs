//! Which of UCX's transports Baton lets in, and what an endpoint ended up with.
//!
//! Pure text work. The native lane is `cma`; `posix` (or `sysv`) only carries UCX's own handshake, because
//! UCX builds no endpoint without a lane for messages. It is no place to choose between fabrics.

/// Lanes whose puts and gets the initiator performs alone.
const NATIVE: &str = "cma";

/// Lanes that UCX needs beside a native one, best first. `sysv` leaves segments behind more easily.
const HELPERS: [&str; 2] = ["posix", "sysv"];

/// The transports for the context (the value of UCX's `TLS`): Baton's set, cut with the user's `UCX_TLS`.
/// The error says what the user's choice leaves out.
pub(super) fn cut(user_tls: Option<&str>) -> Result<String, String> {
    let allowed = Allowed::parse(user_tls.unwrap_or("all"));
    let helper = HELPERS.into_iter().find(|helper| allowed.has(helper));
    match (allowed.has(NATIVE), helper) {
        (true, Some(helper)) => Ok(format!("{NATIVE},{helper}")),
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
            "sm" | "shm" => true, // UCX's alias: every shared-memory transport, cma among them
            "mm" => transport != NATIVE,
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
            assert_eq!(cut(all).as_deref(), Ok("cma,posix"), "{all:?}");
        }
        assert_eq!(cut(Some("sysv,cma,self")).as_deref(), Ok("cma,sysv"));
        assert_eq!(cut(Some("^posix")).as_deref(), Ok("cma,sysv"));
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
