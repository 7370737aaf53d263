#include "config_file.h"

#include "console.h"
#include "failure.h"

#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <vector>

namespace engine_host
{
namespace
{

constexpr char const* kSection = "cache_transceiver_config";

// Known to TensorRT-LLM and without meaning here.
constexpr std::array kOtherKeys{"transceiver_runtime", "kv_transfer_timeout_ms",
    "kv_transfer_sender_future_timeout_ms", "kv_transfer_poll_interval_ms", "kv_cache_bounce_size_mb",
    "enable_pipelined_transfer", "agent_bounce_buffer_enable", "agent_bounce_params"};

struct Line
{
    size_t number;
    size_t indent;
    std::string key;
    std::string value;
};

std::string trim(std::string const& text)
{
    auto const first = text.find_first_not_of(" \t\r");
    auto const last = text.find_last_not_of(" \t\r");
    return first == std::string::npos ? std::string{} : text.substr(first, last - first + 1);
}

std::string unquote(std::string const& text)
{
    bool const opens = text.size() >= 2 && (text.front() == '"' || text.front() == '\'');
    return opens && text.back() == text.front() ? text.substr(1, text.size() - 2) : text;
}

[[noreturn]] void refuse(std::string const& path, size_t number, std::string const& why)
{
    throw Failure(FailureKind::kUsage, path + ":" + std::to_string(number) + ": " + why);
}

std::vector<Line> readLines(std::string const& path)
{
    std::ifstream file(path);
    if (!file)
    {
        throw Failure(FailureKind::kUsage, "cannot open " + path + ": " + std::strerror(errno));
    }
    std::vector<Line> lines;
    size_t number = 0;
    for (std::string text; std::getline(file, text);)
    {
        ++number;
        text = text.substr(0, text.find('#'));
        std::string const body = trim(text);
        if (body.empty() || body == "---")
        {
            continue;
        }
        auto const colon = body.find(':');
        if (colon == std::string::npos)
        {
            refuse(path, number, "expected \"key: value\", found \"" + body + "\"");
        }
        lines.push_back({number, text.find_first_not_of(" \t"), unquote(trim(body.substr(0, colon))),
            unquote(trim(body.substr(colon + 1)))});
    }
    return lines;
}

// The lines of the section, or all of them in a file that has no such section.
std::vector<Line> sectionOf(std::vector<Line> const& lines)
{
    for (size_t at = 0; at < lines.size(); ++at)
    {
        if (lines[at].key == kSection)
        {
            size_t end = at + 1;
            while (end < lines.size() && lines[end].indent > lines[at].indent)
            {
                ++end;
            }
            auto const first = lines.begin() + static_cast<std::ptrdiff_t>(at) + 1;
            return {first, first + static_cast<std::ptrdiff_t>(end - at - 1)};
        }
    }
    return lines;
}

void apply(ConfigFile& config, std::string const& path, Line const& line)
{
    bool const absent = line.value.empty() || line.value == "null" || line.value == "~";
    if (line.key == "backend")
    {
        if (absent)
        {
            refuse(path, line.number, "backend is empty: the cache transceiver is disabled, there is nothing to run");
        }
        config.backend = line.value;
        return;
    }
    if (line.key == "max_tokens_in_buffer")
    {
        config.maxTokensInBuffer = absent ? 0 : parseNumber(line.value, path + ": max_tokens_in_buffer");
        return;
    }
    for (char const* const known : kOtherKeys)
    {
        if (line.key == known)
        {
            return;
        }
    }
    refuse(path, line.number, "unknown field \"" + line.key + "\" in cache_transceiver_config");
}

} // namespace

ConfigFile readConfigFile(std::string const& path)
{
    std::vector<Line> const section = sectionOf(readLines(path));
    ConfigFile config;
    for (Line const& line : section)
    {
        if (line.indent == section.front().indent) // deeper lines belong to agent_bounce_params
        {
            apply(config, path, line);
        }
    }
    return config;
}

} // namespace engine_host
