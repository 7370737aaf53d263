// The two keys of a cache_transceiver_config that this program needs, read strictly from YAML's plain form.
//
// Not a YAML reader: one `key: value` per line, at the top of the file or under `cache_transceiver_config:`. `baton
// config explain` reads the whole language and every field.
#pragma once

#include <cstdint>
#include <string>

namespace engine_host
{

struct ConfigFile
{
    std::string backend = "DEFAULT";
    uint64_t maxTokensInBuffer = 0; // 0: not given
};

// Throws Failure(kUsage) that names the file, the line and the key.
ConfigFile readConfigFile(std::string const& path);

} // namespace engine_host
