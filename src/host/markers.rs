//! The names of the host's symbols that tell its age, as its compiler spells them.
//!
//! Whoever can ask for a symbol by name (the dynamic loader, a reader of the file) gets [`Markers`] from here.

use std::ffi::CStr;

use super::age::Markers;

impl Markers {
    /// The markers of a library, of which `has` knows whether it defines a symbol.
    pub fn look_up(has: impl Fn(&CStr) -> bool) -> Self {
        let any = |names: &[&CStr]| names.iter().any(|name| has(name));
        Self {
            agent_desc_grew: any(&AGENT_DESC_GREW),
            manager_before_p4: any(&MANAGER_BEFORE_P4),
            manager_of_p4: any(&MANAGER_OF_P4),
        }
    }
}

/// Every name that [`Markers::look_up`] asks for.
pub fn names() -> impl Iterator<Item = &'static CStr> {
    AGENT_DESC_GREW.into_iter().chain(MANAGER_BEFORE_P4).chain(MANAGER_OF_P4)
}

/// `AgentDesc::serialize() const` and `promoteHostLibraryToGlobalScope()`, in both spellings of the namespace.
pub const AGENT_DESC_GREW: [&CStr; 4] = [
    c"_ZNK12tensorrt_llm8executor8kv_cache9AgentDesc9serializeB5cxx11Ev",
    c"_ZN12tensorrt_llm8executor8kv_cache31promoteHostLibraryToGlobalScopeEv",
    c"_ZNK12tensorrt_llm3_v18executor8kv_cache9AgentDesc9serializeB5cxx11Ev",
    c"_ZN12tensorrt_llm3_v18executor8kv_cache31promoteHostLibraryToGlobalScopeEv",
];

/// `AgentConnectionManager(vector<BaseTransBufferManager*>, CacheState, string const&, optional<RnnCacheState>`...
/// in a spelling of the namespace.
macro_rules! manager_constructor {
    (plain, $rest:literal) => {
        manager_constructor!(
            "_ZN12tensorrt_llm8executor8kv_cache22AgentConnectionManagerC1ESt6vectorIPNS_13batch_manager",
            "22BaseTransBufferManagerESaIS6_EENS1_10CacheStateERKNSt7__cxx1112basic_stringIcSt11char_traitsIcE",
            "SaIcEEESt8optionalINS9_13RnnCacheStateEE",
            $rest
        )
    };
    (v1, $rest:literal) => {
        manager_constructor!(
            "_ZN12tensorrt_llm3_v18executor8kv_cache22AgentConnectionManagerC1ESt6vectorIPNS0_13batch_manager",
            "22BaseTransBufferManagerESaIS7_EENS2_10CacheStateERKNSt7__cxx1112basic_stringIcSt11char_traitsIcE",
            "SaIcEEESt8optionalINSA_13RnnCacheStateEE",
            $rest
        )
    };
    ($($part:literal),+) => {
        match CStr::from_bytes_with_nul(concat!($($part,)+ "\0").as_bytes()) {
            Ok(name) => name,
            Err(_) => panic!("one NUL, at the end"), // at compile time
        }
    };
}

/// ...`)`.
const MANAGER_BEFORE_P4: [&CStr; 2] =
    [const { manager_constructor!(plain, "") }, const { manager_constructor!(v1, "") }];

/// ...`, size_t, unordered_map<string, string>)`, the map by value or by reference.
const MANAGER_OF_P4: [&CStr; 4] = [
    const {
        manager_constructor!(
            plain,
            "mSt13unordered_mapISF_SF_St4hashISF_ESt8equal_toISF_ESaISt4pairISG_SF_EEE"
        )
    },
    const {
        manager_constructor!(
            plain,
            "mRKSt13unordered_mapISF_SF_St4hashISF_ESt8equal_toISF_ESaISt4pairISG_SF_EEE"
        )
    },
    const { manager_constructor!(v1, "mSt13unordered_mapISG_SG_St4hashISG_ESt8equal_toISG_ESaISt4pairISH_SG_EEE") },
    const {
        manager_constructor!(
            v1,
            "mRKSt13unordered_mapISG_SG_St4hashISG_ESt8equal_toISG_ESaISt4pairISH_SG_EEE"
        )
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_shows_its_marker_alone() {
        let seen: Vec<_> = names().map(|name| Markers::look_up(|asked| asked == name)).collect();
        let shown =
            |markers: &Markers| (markers.agent_desc_grew, markers.manager_before_p4, markers.manager_of_p4);
        let (grew, before, of_p4) = ((true, false, false), (false, true, false), (false, false, true));
        let expected = [[grew; 4].as_slice(), &[before; 2], &[of_p4; 4]].concat();
        assert_eq!(seen.iter().map(shown).collect::<Vec<_>>(), expected);
    }
}
