// Where the receiver is: on other threads of this process, or in a process of its own that can be stopped and killed.

#pragma once

#include "seam.h"

#include <future>

namespace seams
{

class Partner
{
public:
    virtual ~Partner() = default;

    // Hands a command (receiver.h) over; the answer comes as a value or as std::runtime_error.
    virtual std::future<std::string> tell(std::string const& command) = 0;

    std::string ask(std::string const& command);

    // For a process alone: stops it where it is, lets it go on, ends it without warning. None returns before it is so.
    virtual void stop();
    virtual void resume();
    virtual void kill();
};

std::unique_ptr<Partner> partnerThreads(Seam& seam);

// Starts this program again with --serve.
std::unique_ptr<Partner> partnerProcess(Seam const& seam);

// The other end of partnerProcess: follows commands from standard input until it ends.
int serve(Seam& seam);

// An answer that comes in time; throws what the answer throws, or that it did not come.
std::string answerOf(std::future<std::string>& answer, std::string const& what);

} // namespace seams
