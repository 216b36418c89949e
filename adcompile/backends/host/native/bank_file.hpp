// Reader of the self-describing bank container (the layout is documented, and written, by
// adcompile/anomaly/sections.py). Everything is checked before a pointer is handed out.
#ifndef ADCOMPILE_BANK_FILE_HPP
#define ADCOMPILE_BANK_FILE_HPP

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace adc::search {

constexpr std::size_t kAlignment = 64;

// Memory on a 64-byte boundary, zero-initialised unless that is declined.
class AlignedBytes {
public:
    AlignedBytes() = default;
    AlignedBytes(const AlignedBytes&) = delete;
    AlignedBytes& operator=(const AlignedBytes&) = delete;
    ~AlignedBytes();
    bool allocate(std::size_t size, bool zeros = true);  // false: no memory
    unsigned char* data() const { return data_; }
    std::size_t size() const { return size_; }
    template <class T>
    T* as() const { return reinterpret_cast<T*>(data_); }

private:
    unsigned char* data_ = nullptr;
    std::size_t size_ = 0;
};

struct Section {
    std::string name;
    std::string dtype;  // "<f4", "<f8", "<i4", "|i1"
    std::vector<std::uint64_t> shape;
    const unsigned char* data = nullptr;  // 64-byte aligned when the file's first byte is
    std::uint64_t bytes = 0;
};

struct Container {
    std::string kind;
    std::string contract;
    unsigned char producer[32] = {};
    std::vector<Section> sections;
    const Section* find(const char* name) const;
};

// Checks all of [data, data + size) and describes it. On refusal returns false; `why` names the
// field. The container points into data.
bool parse_container(const unsigned char* data, std::size_t size, Container& out, std::string& why);

// Reads a whole file. Memory use is the file's size. On failure returns false and says why.
bool read_file(const char* path, AlignedBytes& out, std::string& why);

}  // namespace adc::search

#endif
