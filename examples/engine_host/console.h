// How a rank talks to whoever started it: commands come in on stdin, one line each, words apart by spaces;
// events go out on stdout, one JSON object per line. The end of stdin ends the rank.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace engine_host
{

// Keeps stdout for events alone: what libraries print there (UCX logs to stdout) goes to stderr from now on. Call it
// once, before any library is opened. Throws std::system_error.
void reserveStdout();

// One event; `emit` prints it.
class Event
{
public:
    explicit Event(std::string_view name);

    Event& text(std::string_view key, std::string_view value);
    Event& number(std::string_view key, uint64_t value);
    void emit();

private:
    std::string mJson;
};

class Console
{
public:
    // The next command if a whole line is there, after at most `waitMs`. Throws Stopped at the end of stdin.
    std::optional<std::vector<std::string>> command(int waitMs);

    // Throws Stopped if stdin has ended; for use inside long waits. Commands stay queued.
    void checkStopped();

private:
    bool readMore(int waitMs);

    std::string mPending;
    bool mEnded = false;
};

// The number in a word of a command; throws Failure(kUsage) that names `what`.
uint64_t parseNumber(std::string const& word, std::string const& what);

} // namespace engine_host
