#include "agent/messages.h"

#include "failure.h"

#include <cstring>

namespace engine_host
{
namespace
{

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "fields are written as they lie in memory");

class Writer
{
public:
    explicit Writer(uint8_t kind)
        : mBytes(1, static_cast<char>(kind))
    {
    }

    Writer& number(uint64_t value)
    {
        return raw(&value, sizeof(value));
    }

    Writer& counted(void const* data, uint64_t items, size_t itemBytes)
    {
        return number(items).raw(data, items * itemBytes);
    }

    std::string take()
    {
        return std::move(mBytes);
    }

private:
    Writer& raw(void const* data, size_t length)
    {
        mBytes.append(static_cast<char const*>(data), length);
        return *this;
    }

    std::string mBytes;
};

class Reader
{
public:
    explicit Reader(std::string const& bytes)
        : mBytes(bytes)
    {
    }

    uint64_t number()
    {
        uint64_t value = 0;
        std::memcpy(&value, take(sizeof(value)), sizeof(value));
        return value;
    }

    template <typename List>
    List counted()
    {
        uint64_t const items = number();
        size_t const itemBytes = sizeof(typename List::value_type);
        if (items > left() / itemBytes)
        {
            throw Failure(FailureKind::kProtocol, "a message ends inside a list");
        }
        List list(items, typename List::value_type{});
        if (items != 0)
        {
            std::memcpy(list.data(), take(items * itemBytes), items * itemBytes);
        }
        return list;
    }

    void finish() const
    {
        if (left() != 0)
        {
            throw Failure(FailureKind::kProtocol, "a message is " + std::to_string(left()) + " bytes too long");
        }
    }

private:
    size_t left() const
    {
        return mBytes.size() - mAt;
    }

    char const* take(size_t length)
    {
        if (length > left())
        {
            throw Failure(FailureKind::kProtocol, "a message ends inside a field");
        }
        char const* const data = mBytes.data() + mAt;
        mAt += length;
        return data;
    }

    std::string const& mBytes;
    size_t mAt = 1; // after the kind
};

enum Kind : uint8_t
{
    kRequest = 1,
    kReady = 2,
    kDone = 3,
    kAlive = 4
};

struct Encoder
{
    std::string operator()(RequestAndBufferInfo const& info) const
    {
        return Writer(kRequest)
            .number(info.request)
            .number(info.generationRank)
            .number(info.address)
            .number(info.lengthBytes)
            .number(static_cast<uint64_t>(info.memory))
            .number(info.device)
            .counted(info.blocks.data(), info.blocks.size(), sizeof(uint32_t))
            .counted(info.metadata.data(), info.metadata.size(), 1)
            .take();
    }

    std::string operator()(ReadySignal const& ready) const
    {
        return Writer(kReady).number(ready.request).number(ready.contextRank).take();
    }

    std::string operator()(DoneNotification const& done) const
    {
        return Writer(kDone)
            .number(done.request)
            .number(done.contextRank)
            .number(done.submittedNs)
            .number(done.lengthBytes)
            .number(done.descriptors)
            .take();
    }

    std::string operator()(Alive const&) const
    {
        return Writer(kAlive).take();
    }
};

MemoryKind memoryKind(uint64_t number)
{
    if (number > static_cast<uint64_t>(MemoryKind::kVram))
    {
        throw Failure(FailureKind::kProtocol, "a message names memory of the kind " + std::to_string(number));
    }
    return static_cast<MemoryKind>(number);
}

uint32_t deviceOrdinal(uint64_t number)
{
    if (number > UINT32_MAX)
    {
        throw Failure(FailureKind::kProtocol, "a message names the device " + std::to_string(number));
    }
    return static_cast<uint32_t>(number);
}

Message decodeFields(uint8_t kind, Reader& reader)
{
    // Braced lists are evaluated in order, so the fields are read as they were written.
    switch (kind)
    {
    case kRequest:
        return RequestAndBufferInfo{reader.number(), reader.number(), reader.number(), reader.number(),
            memoryKind(reader.number()), deviceOrdinal(reader.number()), reader.counted<std::vector<uint32_t>>(), reader.counted<std::string>()};
    case kReady: return ReadySignal{reader.number(), reader.number()};
    case kDone:
        return DoneNotification{
            reader.number(), reader.number(), reader.number(), reader.number(), reader.number()};
    case kAlive: return Alive{};
    default: throw Failure(FailureKind::kProtocol, "a message of unknown kind " + std::to_string(kind));
    }
}

} // namespace

std::string encode(Message const& message)
{
    return std::visit(Encoder{}, message);
}

Message decode(std::string const& bytes)
{
    if (bytes.empty())
    {
        throw Failure(FailureKind::kProtocol, "an empty message");
    }
    Reader reader(bytes);
    Message message = decodeFields(static_cast<uint8_t>(bytes[0]), reader);
    reader.finish();
    return message;
}

} // namespace engine_host
