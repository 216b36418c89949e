#include "bank_file.hpp"

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

namespace adc::search {
namespace {

constexpr unsigned char kMagic[8] = {0x89, 'A', 'D', 'B', 'A', 'N', 'K', '\n'};
constexpr std::uint32_t kVersion = 1;
constexpr std::size_t kHeader = 192;
constexpr std::size_t kEntry = 96;
constexpr std::uint32_t kMaxSections = 64;
constexpr long kLongestFile = sizeof(long) > 4 ? static_cast<long>(1ll << 46) : 0x7fffffffL;

using Tables = std::array<std::array<std::uint32_t, 256>, 8>;

Tables crc_tables() {
    Tables t{};
    for (std::uint32_t i = 0; i < 256; ++i) {
        std::uint32_t c = i;
        for (int bit = 0; bit < 8; ++bit) c = (c >> 1) ^ ((c & 1u) != 0 ? 0xEDB88320u : 0u);
        t[0][i] = c;
    }
    for (std::uint32_t i = 0; i < 256; ++i)
        for (std::size_t s = 1; s < 8; ++s) t[s][i] = (t[s - 1][i] >> 8) ^ t[0][t[s - 1][i] & 255u];
    return t;
}

// CRC-32 as in zlib, eight bytes a step.
std::uint32_t crc32(std::uint32_t crc, const unsigned char* p, std::size_t n) {
    static const Tables t = crc_tables();
    crc = ~crc;
    for (; n >= 8; n -= 8, p += 8) {
        crc ^= static_cast<std::uint32_t>(p[0]) | static_cast<std::uint32_t>(p[1]) << 8 |
               static_cast<std::uint32_t>(p[2]) << 16 | static_cast<std::uint32_t>(p[3]) << 24;
        crc = t[7][crc & 255u] ^ t[6][(crc >> 8) & 255u] ^ t[5][(crc >> 16) & 255u] ^
              t[4][crc >> 24] ^ t[3][p[4]] ^ t[2][p[5]] ^ t[1][p[6]] ^ t[0][p[7]];
    }
    for (; n > 0; --n, ++p) crc = (crc >> 8) ^ t[0][(crc ^ *p) & 255u];
    return ~crc;
}

template <class T>
T load(const unsigned char* p) {
    T value;
    std::memcpy(&value, p, sizeof value);  // the format is little-endian, and so are we
    return value;
}

bool little_endian() {
    const std::uint32_t one = 1;
    unsigned char first;
    std::memcpy(&first, &one, 1);
    return first == 1;
}

bool all_zero(const unsigned char* p, std::size_t n) {
    for (std::size_t i = 0; i < n; ++i)
        if (p[i] != 0) return false;
    return true;
}

// A zero-padded field of printable ASCII.
bool text_field(const unsigned char* p, std::size_t n, std::string& out) {
    std::size_t used = 0;
    while (used < n && p[used] != 0) ++used;
    if (!all_zero(p + used, n - used)) return false;
    for (std::size_t i = 0; i < used; ++i)
        if (p[i] < 0x21 || p[i] > 0x7e) return false;
    out.assign(reinterpret_cast<const char*>(p), used);
    return true;
}

std::uint64_t item_size(const std::string& dtype) {
    if (dtype == "<f4" || dtype == "<i4") return 4;
    if (dtype == "<f8") return 8;
    if (dtype == "|i1") return 1;
    return 0;
}

std::uint64_t padded(std::uint64_t n) { return (n + kAlignment - 1) / kAlignment * kAlignment; }

bool refuse(std::string& why, std::string text) {
    why = std::move(text);
    return false;
}

bool parse_entry(const unsigned char* entry, const unsigned char* data, std::size_t size,
                 std::uint64_t expected, Section& s, std::string& why) {
    if (!text_field(entry, 32, s.name) || s.name.empty()) return refuse(why, "section name is not text");
    const std::string at = "section '" + s.name + "': ";
    if (!text_field(entry + 32, 4, s.dtype) || item_size(s.dtype) == 0)
        return refuse(why, at + "unknown dtype");
    const auto rank = load<std::uint32_t>(entry + 36);
    if (rank < 1 || rank > 4) return refuse(why, at + "rank is not 1 to 4");
    std::uint64_t items = 1;
    for (std::uint32_t axis = 0; axis < 4; ++axis) {
        const auto n = load<std::uint64_t>(entry + 40 + 8 * axis);
        if (axis >= rank) {
            if (n != 0) return refuse(why, at + "shape has numbers where zeros belong");
            continue;
        }
        // Nothing larger than the file can be described, so the product cannot overflow.
        if (n == 0 || n > size || items > size / n) return refuse(why, at + "shape does not fit");
        items *= n;
        s.shape.push_back(n);
    }
    const auto offset = load<std::uint64_t>(entry + 72);
    s.bytes = load<std::uint64_t>(entry + 80);
    if (s.bytes > size || items * item_size(s.dtype) != s.bytes)
        return refuse(why, at + "bytes do not hold the shape");
    if (offset != expected || offset > size || padded(s.bytes) > size - offset)
        return refuse(why, at + "offset is not where the section belongs");
    if (load<std::uint32_t>(entry + 92) != 0) return refuse(why, at + "reserved bytes are not zero");
    s.data = data + offset;
    if (!all_zero(s.data + s.bytes, static_cast<std::size_t>(padded(s.bytes) - s.bytes)))
        return refuse(why, at + "padding is not zero");
    if (crc32(0, s.data, static_cast<std::size_t>(s.bytes)) != load<std::uint32_t>(entry + 88))
        return refuse(why, at + "checksum is wrong, the bytes are damaged");
    return true;
}

bool parse_header(const unsigned char* data, std::size_t size, Container& out, std::string& why) {
    if (!little_endian()) return refuse(why, "this machine is big-endian; bank files are not");
    if (size < kHeader) return refuse(why, "file is shorter than its header");
    if (std::memcmp(data, kMagic, sizeof kMagic) != 0) return refuse(why, "magic: not a bank file");
    if (load<std::uint32_t>(data + 8) != kVersion)
        return refuse(why, "version " + std::to_string(load<std::uint32_t>(data + 8)) +
                     "; this reader knows " + std::to_string(kVersion));
    const auto count = load<std::uint32_t>(data + 12);
    if (count < 1 || count > kMaxSections || kHeader + kEntry * count > size)
        return refuse(why, "number of sections does not fit");
    if (load<std::uint64_t>(data + 16) != size)
        return refuse(why, "file size: header says " + std::to_string(load<std::uint64_t>(data + 16)) +
                     ", the file has " + std::to_string(size));
    const unsigned char blank[4] = {};
    std::uint32_t crc = crc32(0, data, 128);
    crc = crc32(crc, blank, 4);
    crc = crc32(crc, data + 132, kHeader - 132 + kEntry * count);
    if (crc != load<std::uint32_t>(data + 128))
        return refuse(why, "checksum of header and section table is wrong");
    if (!all_zero(data + 132, kHeader - 132)) return refuse(why, "reserved bytes are not zero");
    if (!text_field(data + 24, 8, out.kind)) return refuse(why, "kind is not text");
    if (!text_field(data + 32, 64, out.contract)) return refuse(why, "contract is not text");
    std::memcpy(out.producer, data + 96, sizeof out.producer);
    return true;
}

}  // namespace

AlignedBytes::~AlignedBytes() { ::operator delete(data_, std::align_val_t(kAlignment)); }

bool AlignedBytes::allocate(std::size_t size, bool zeros) {
    ::operator delete(data_, std::align_val_t(kAlignment));
    size_ = 0;
    data_ = static_cast<unsigned char*>(
        ::operator new(size == 0 ? 1 : size, std::align_val_t(kAlignment), std::nothrow));
    if (data_ == nullptr) return false;
    size_ = size;
    if (zeros) std::memset(data_, 0, size);
    return true;
}

const Section* Container::find(const char* name) const {
    for (const Section& s : sections)
        if (s.name == name) return &s;
    return nullptr;
}

bool parse_container(const unsigned char* data, std::size_t size, Container& out,
                     std::string& why) {
    out = Container();
    if (!parse_header(data, size, out, why)) return false;
    const auto count = load<std::uint32_t>(data + 12);
    const std::size_t table_end = kHeader + kEntry * count;
    std::uint64_t expected = padded(table_end);
    if (expected > size || !all_zero(data + table_end, static_cast<std::size_t>(expected) - table_end))
        return refuse(why, "padding after the section table is not zero");
    for (std::uint32_t i = 0; i < count; ++i) {
        Section s;
        if (!parse_entry(data + kHeader + kEntry * i, data, size, expected, s, why)) return false;
        if (out.find(s.name.c_str()) != nullptr)
            return refuse(why, "section '" + s.name + "' appears twice");
        expected += padded(s.bytes);
        out.sections.push_back(std::move(s));
    }
    if (expected != size) return refuse(why, "file size: bytes after the last section");
    return true;
}

bool read_file(const char* path, AlignedBytes& out, std::string& why) {
    std::FILE* file = std::fopen(path, "rb");
    if (file == nullptr) return refuse(why, std::string("cannot open: ") + std::strerror(errno));
    bool ok = std::fseek(file, 0, SEEK_END) == 0;
    const long length = ok ? std::ftell(file) : -1;
    ok = ok && length >= 0 && length < kLongestFile && std::fseek(file, 0, SEEK_SET) == 0;
    if (!ok) {
        why = "cannot read: not a plain file";
    } else if (!out.allocate(static_cast<std::size_t>(length))) {
        why = "not enough memory for " + std::to_string(length) + " bytes";
        ok = false;
    } else if (std::fread(out.data(), 1, out.size(), file) != out.size()) {
        why = "cannot read: the file ended early";
        ok = false;
    }
    std::fclose(file);
    return ok;
}

}  // namespace adc::search
