#include "driver.h"

#include <algorithm>
#include <cerrno>
#include <iostream>
#include <map>
#include <poll.h>
#include <sstream>
#include <unistd.h>
#include <utility>

namespace bench
{
namespace
{

uint64_t number(std::string const& word)
{
    size_t used = 0;
    uint64_t value = 0;
    try
    {
        value = std::stoull(word, &used);
    }
    catch (std::exception const&)
    {
        used = 0;
    }
    if (used == 0 || used != word.size())
    {
        throw Failed("'" + word + "' is no number");
    }
    return value;
}

std::string hexOf(std::string const& bytes)
{
    constexpr char const* kDigits = "0123456789abcdef";
    std::string hex;
    hex.reserve(2 * bytes.size());
    for (unsigned char const byte : bytes)
    {
        hex += kDigits[byte >> 4];
        hex += kDigits[byte & 15];
    }
    return hex;
}

std::string bytesOf(std::string const& hex)
{
    std::string bytes;
    bytes.reserve(hex.size() / 2);
    for (size_t at = 0; at + 1 < hex.size(); at += 2)
    {
        bytes += static_cast<char>(std::stoul(hex.substr(at, 2), nullptr, 16));
    }
    return bytes;
}

// stdin, by line; a look at whether one has come costs one system call.
class Lines
{
public:
    bool isThere()
    {
        pollfd entry{STDIN_FILENO, POLLIN, 0};
        return mPending.find('\n') != std::string::npos || ::poll(&entry, 1, 0) > 0;
    }

    // False at the end.
    bool next(Words& words)
    {
        size_t end;
        while ((end = mPending.find('\n')) == std::string::npos)
        {
            char chunk[1 << 16];
            auto const got = ::read(STDIN_FILENO, chunk, sizeof(chunk));
            if (got < 0 && errno == EINTR)
            {
                continue;
            }
            if (got <= 0)
            {
                return false;
            }
            mPending.append(chunk, static_cast<size_t>(got));
        }
        std::istringstream line(mPending.substr(0, end));
        mPending.erase(0, end + 1);
        words.clear();
        for (std::string word; line >> word;)
        {
            words.push_back(word);
        }
        return true;
    }

private:
    std::string mPending;
};

// stdout, which is kept from what libraries print.
class Answers
{
public:
    Answers()
        : mFd{::dup(STDOUT_FILENO)}
    {
        if (mFd < 0 || ::dup2(STDERR_FILENO, STDOUT_FILENO) < 0)
        {
            failWithErrno("keeping stdout for answers");
        }
    }

    void say(std::string line) const
    {
        std::replace(line.begin(), line.end(), '\n', ' ');
        line += '\n';
        for (size_t at = 0; at < line.size();)
        {
            auto const put = ::write(mFd, line.data() + at, line.size() - at);
            if (put < 0 && errno == EINTR)
            {
                continue;
            }
            if (put <= 0)
            {
                failWithErrno("answering");
            }
            at += static_cast<size_t>(put);
        }
    }

private:
    int mFd;
};

std::string joined(std::vector<uint64_t> const& numbers)
{
    std::string text;
    for (auto const one : numbers)
    {
        text += ' ' + std::to_string(one);
    }
    return text;
}

// One side of a pair, and what it has been told so far.
class Side
{
public:
    explicit Side(Driver& driver)
        : mDriver{driver}
    {
    }

    std::string obey(Words const& words, Lines& lines)
    {
        auto const& name = words.at(0);
        auto const command = mCommands.find(name);
        if (command == mCommands.end())
        {
            throw Failed("no such command: " + name);
        }
        if (words.size() != command->second.second + 1)
        {
            throw Failed(name + " takes " + std::to_string(command->second.second) + " words");
        }
        return (this->*command->second.first)(words, lines);
    }

private:
    using Command = std::string (Side::*)(Words const&, Lines&);

    std::string buffer(Words const& words, Lines&)
    {
        mIsSource = words[2] == "pattern";
        mBuffer = Buffer(number(words[1]), mIsSource);
        return std::to_string(mBuffer.address());
    }

    std::string open(Words const& words, Lines&)
    {
        uint64_t registerNs = 0;
        auto const begin = Clock::now();
        auto const card = mDriver.open(words[1], mBuffer, registerNs);
        auto const ns = nanosecondsSince(begin) - registerNs;
        return hexOf(card) + ' ' + std::to_string(ns) + ' ' + std::to_string(registerNs);
    }

    std::string meet(Words const& words, Lines&)
    {
        auto const card = bytesOf(words[3]);
        auto const begin = Clock::now();
        mDriver.meet(words[1], words[2], card);
        return std::to_string(nanosecondsSince(begin));
    }

    std::string cell(Words const& words, Lines&)
    {
        mCell = Cell::read(words[1], mIsSource, mBuffer.size());
        mRemote = number(words[2]);
        auto const begin = Clock::now();
        mDriver.prepare(mCell, mBuffer.address(), mRemote);
        return std::to_string(nanosecondsSince(begin));
    }

    std::string way(Words const& words, Lines&)
    {
        mDriver.way(words[1]);
        return {};
    }

    std::string move(Words const& words, Lines&)
    {
        auto const limit = std::chrono::duration<double>(std::stod(words[1]));
        auto const samples = number(words[2]), inner = number(words[3]);
        std::vector<uint64_t> times, posts;
        auto const begin = Clock::now();
        while (times.size() < samples || Clock::now() - begin < limit)
        {
            uint64_t posting = 0;
            auto const start = Clock::now();
            for (uint64_t turn = 0; turn < inner; ++turn)
            {
                auto const post = Clock::now();
                mDriver.post();
                posting += nanosecondsSince(post);
                mDriver.wait();
            }
            times.push_back(nanosecondsSince(start) / inner);
            posts.push_back(posting / inner);
        }
        return joined(times) + " /" + joined(posts);
    }

    std::string ping(Words const& words, Lines&)
    {
        return repeat(number(words[1]), [this] { mDriver.ping(); });
    }

    std::string note(Words const& words, Lines&)
    {
        return repeat(number(words[1]), [this] { mDriver.note(); });
    }

    template <typename Act>
    static std::string repeat(uint64_t count, Act&& act)
    {
        std::vector<uint64_t> times;
        for (uint64_t turn = 0; turn < count; ++turn)
        {
            auto const begin = Clock::now();
            act();
            times.push_back(nanosecondsSince(begin));
        }
        return joined(times);
    }

    std::string beside(Words const& words, Lines&)
    {
        auto const small = Cell::read(words[1], mIsSource, mBuffer.size());
        return joined(mDriver.beside(small, mBuffer.address(), mRemote, number(words[2])));
    }

    // The answer goes out with the next line's.
    std::string serve(Words const&, Lines& lines)
    {
        constexpr int kTurnsBetweenLooks = 64;
        do
        {
            for (int turn = 0; turn < kTurnsBetweenLooks; ++turn)
            {
                mDriver.serve();
            }
        } while (!lines.isThere());
        return {};
    }

    // Ends `serve`.
    std::string rest(Words const&, Lines&)
    {
        return {};
    }

    std::string clear(Words const&, Lines&)
    {
        mBuffer.clear();
        return {};
    }

    std::string check(Words const&, Lines&)
    {
        mBuffer.check(mCell);
        return {};
    }

    Driver& mDriver;
    Buffer mBuffer;
    bool mIsSource = false;
    Cell mCell;
    uint64_t mRemote = 0;
    std::map<std::string, std::pair<Command, size_t>> const mCommands{
        {"buffer", {&Side::buffer, 2}},
        {"open", {&Side::open, 1}},
        {"meet", {&Side::meet, 3}},
        {"cell", {&Side::cell, 2}},
        {"way", {&Side::way, 1}},
        {"move", {&Side::move, 3}},
        {"ping", {&Side::ping, 1}},
        {"note", {&Side::note, 1}},
        {"beside", {&Side::beside, 2}},
        {"serve", {&Side::serve, 0}},
        {"rest", {&Side::rest, 0}},
        {"clear", {&Side::clear, 0}},
        {"check", {&Side::check, 0}},
    };
};

} // namespace

void Driver::way(std::string const&)
{
    throw Failed("there is one way only");
}

void Driver::ping()
{
    throw Failed("has no notifications");
}

void Driver::note()
{
    throw Failed("has no notifications");
}

std::vector<uint64_t> Driver::beside(Cell const&, uint64_t, uint64_t, uint64_t)
{
    throw Failed("moves one cell at a time");
}

uint64_t nanosecondsSince(Clock::time_point begin)
{
    auto const time = std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - begin);
    return static_cast<uint64_t>(time.count());
}

int run(Driver& driver)
{
    try
    {
        Answers const answers;
        Lines lines;
        Side side(driver);
        for (Words words; lines.next(words);)
        {
            if (words.empty() || words[0] == "quit")
            {
                break;
            }
            try
            {
                answers.say("ok " + side.obey(words, lines));
            }
            catch (std::exception const& error)
            {
                answers.say(std::string("failed ") + error.what());
            }
        }
        driver.close();
        return 0;
    }
    catch (std::exception const& error)
    {
        std::cerr << "bench driver: " << error.what() << std::endl;
        return 1;
    }
}

} // namespace bench
