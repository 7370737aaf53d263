// The mark by which a file on disk is told to be Baton's, and which version: an ELF note named "Baton", of type 1,
// whose content is the version's text. `baton doctor` reads it; nothing needs the library to be loaded for that.
//
// A note is no symbol: what the library exports stays as cmake/exports.txt lists it.
#include <cstddef>
#include <cstdint>

namespace
{

constexpr std::size_t padded(std::size_t size)
{
    return (size + 3) / 4 * 4;
}

// The layout that the ELF specification gives a note: both texts end with a zero byte and are padded to 4 bytes.
struct Note
{
    std::uint32_t nameSize;
    std::uint32_t contentSize;
    std::uint32_t type;
    char name[padded(sizeof("Baton"))];
    char content[padded(sizeof(BATON_VERSION))];
};

[[gnu::section(".note.baton"), gnu::used, gnu::aligned(4)]] constexpr Note note{
    sizeof("Baton"), sizeof(BATON_VERSION), 1, "Baton", BATON_VERSION};

} // namespace
