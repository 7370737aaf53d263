#include "console.h"

#include "failure.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdio>
#include <sstream>
#include <system_error>

namespace engine_host
{
namespace
{

void appendQuoted(std::string& json, std::string_view value)
{
    json += '"';
    for (char const c : value)
    {
        if (c == '"' || c == '\\')
        {
            json += '\\';
            json += c;
        }
        else if (static_cast<unsigned char>(c) < 0x20)
        {
            char escaped[8];
            std::snprintf(escaped, sizeof(escaped), "\\u%04x", static_cast<unsigned>(static_cast<unsigned char>(c)));
            json += escaped;
        }
        else
        {
            json += c;
        }
    }
    json += '"';
}

// Where events go.
int gEvents = STDOUT_FILENO;

} // namespace

void reserveStdout()
{
    int const events = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
    if (events < 0 || dup2(STDERR_FILENO, STDOUT_FILENO) < 0)
    {
        throw std::system_error(errno, std::generic_category(), "setting stdout aside");
    }
    gEvents = events;
}

Event::Event(std::string_view name)
    : mJson("{\"event\":")
{
    appendQuoted(mJson, name);
}

Event& Event::text(std::string_view key, std::string_view value)
{
    mJson += ',';
    appendQuoted(mJson, key);
    mJson += ':';
    appendQuoted(mJson, value);
    return *this;
}

Event& Event::number(std::string_view key, uint64_t value)
{
    mJson += ',';
    appendQuoted(mJson, key);
    mJson += ':' + std::to_string(value);
    return *this;
}

void Event::emit()
{
    std::string const line = mJson + "}\n";
    for (size_t at = 0; at < line.size();)
    {
        ssize_t const written = write(gEvents, line.data() + at, line.size() - at);
        if (written < 0 && errno != EINTR)
        {
            throw Stopped{}; // nobody listens any more
        }
        at += written > 0 ? static_cast<size_t>(written) : 0;
    }
}

std::optional<std::vector<std::string>> Console::command(int waitMs)
{
    if (mPending.find('\n') == std::string::npos && !mEnded)
    {
        readMore(waitMs);
    }
    auto const end = mPending.find('\n');
    if (end == std::string::npos)
    {
        if (mEnded)
        {
            throw Stopped{};
        }
        return std::nullopt;
    }
    std::istringstream line(mPending.substr(0, end));
    mPending.erase(0, end + 1);
    std::vector<std::string> words;
    for (std::string word; line >> word;)
    {
        words.push_back(word);
    }
    if (words.empty())
    {
        return std::nullopt;
    }
    return words;
}

void Console::checkStopped()
{
    while (!mEnded && readMore(0))
    {
    }
    if (mEnded)
    {
        throw Stopped{};
    }
}

// Takes in what stdin holds, waiting for it up to `waitMs`; says whether there was anything.
bool Console::readMore(int waitMs)
{
    pollfd input{STDIN_FILENO, POLLIN, 0};
    if (poll(&input, 1, waitMs) <= 0)
    {
        return false;
    }
    char chunk[4096];
    ssize_t const got = read(STDIN_FILENO, chunk, sizeof(chunk));
    if (got > 0)
    {
        mPending.append(chunk, static_cast<size_t>(got));
        return true;
    }
    mEnded = got == 0 || (errno != EINTR && errno != EAGAIN);
    return false;
}

uint64_t parseNumber(std::string const& word, std::string const& what)
{
    uint64_t value = 0;
    auto const [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
    if (error != std::errc{} || end != word.data() + word.size())
    {
        throw Failure(FailureKind::kUsage, what + " must be a whole number, not \"" + word + "\"");
    }
    return value;
}

} // namespace engine_host
