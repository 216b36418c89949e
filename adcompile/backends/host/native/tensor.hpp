// Shapes, read-only views and destinations: the vocabulary of every kernel.
//
// A kernel takes views of its inputs and an `Out` that says where its result goes, and returns a
// view of the result. All tensors are dense and row-major. Nothing here owns memory except Buffer.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <new>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace adc {

using Index = std::int64_t;

/// Larger than any size: "to the end" of a slice, "all of them".
inline constexpr Index kNoLimit = std::numeric_limits<Index>::max();
inline constexpr int kMaxRank = 8;
inline constexpr std::size_t kAlignment = 64;

/// Any failure while loading or running: the text says what, where and why.
class Error : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

[[noreturn]] inline void fail(const std::string& what) { throw Error(what); }

inline void require(bool holds, const char* what) {
  if (!holds) fail(what);
}

/// Product of two sizes; an overflow is an error, never a small number.
inline Index checked_product(Index a, Index b) {
  Index product = 0;
  if (__builtin_mul_overflow(a, b, &product)) fail("tensor is too large");
  return product;
}

/// The dimensions of a tensor, at most kMaxRank of them.
class Shape {
 public:
  constexpr Shape() = default;
  template <class... D, class = std::enable_if_t<(std::is_integral_v<D> && ...)>>
  explicit constexpr Shape(D... dims)
      : dims_{static_cast<Index>(dims)...}, rank_(static_cast<int>(sizeof...(dims))) {
    static_assert(sizeof...(dims) <= kMaxRank, "rank over 8");
  }
  [[nodiscard]] static Shape filled(int rank, Index value) {
    require(rank >= 0 && rank <= kMaxRank, "rank over 8");
    Shape shape;
    for (int i = 0; i < rank; ++i) shape.push_back(value);
    return shape;
  }

  [[nodiscard]] constexpr int rank() const { return rank_; }
  Index& operator[](int i) { return dims_[static_cast<std::size_t>(i)]; }
  Index operator[](int i) const { return dims_[static_cast<std::size_t>(i)]; }
  [[nodiscard]] const Index* begin() const { return dims_.data(); }
  [[nodiscard]] const Index* end() const { return dims_.data() + rank_; }
  void push_back(Index d) {
    require(rank_ < kMaxRank, "rank over 8");
    dims_[static_cast<std::size_t>(rank_++)] = d;
  }

  /// Number of elements from dimension `first` up to (not including) `last`.
  [[nodiscard]] Index product(int first, int last) const {
    Index n = 1;
    for (int i = first; i < last; ++i) n = checked_product(n, (*this)[i]);
    return n;
  }
  [[nodiscard]] Index size() const { return product(0, rank_); }

  friend bool operator==(const Shape& a, const Shape& b) {
    return a.rank_ == b.rank_ && std::equal(a.begin(), a.end(), b.begin());
  }
  friend bool operator!=(const Shape& a, const Shape& b) { return !(a == b); }

  /// "[1, 3, 224, 224]"
  [[nodiscard]] std::string text() const {
    std::string out = "[";
    for (int i = 0; i < rank_; ++i) out += (i ? ", " : "") + std::to_string((*this)[i]);
    return out + "]";
  }

 private:
  std::array<Index, kMaxRank> dims_{};
  int rank_ = 0;
};

/// Axis in [-rank, rank) to [0, rank).
inline int wrap_axis(Index axis, int rank) {
  if (axis < -rank || axis >= rank) fail("axis " + std::to_string(axis) + " out of range");
  return static_cast<int>(axis < 0 ? axis + rank : axis);
}

/// Aligned memory that only grows; never null, so an empty tensor has an address too.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(std::size_t bytes) { reserve(bytes); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  Buffer(Buffer&& other) noexcept { swap(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    swap(other);
    return *this;
  }
  ~Buffer() { release(); }

  void swap(Buffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(capacity_, other.capacity_);
  }

  /// At least `bytes`; the old contents are lost when it has to grow.
  std::byte* reserve(std::size_t bytes) {
    if (data_ == nullptr || bytes > capacity_) {
      std::byte* fresh = allocate(bytes);
      release();
      data_ = fresh;
      capacity_ = rounded(bytes);
    }
    return data_;
  }

  /// At least `bytes`, the first `used` of them kept; grows by doubling.
  std::byte* extend(std::size_t bytes, std::size_t used) {
    if (data_ != nullptr && bytes <= capacity_) return data_;
    const std::size_t wanted = std::max(bytes, capacity_ + capacity_ / 2);
    std::byte* fresh = allocate(wanted);
    if (used != 0) std::memcpy(fresh, data_, used);
    release();
    data_ = fresh;
    capacity_ = rounded(wanted);
    return data_;
  }

  [[nodiscard]] std::byte* data() { return data_; }
  [[nodiscard]] std::size_t capacity() const { return capacity_; }

 private:
  static std::size_t rounded(std::size_t bytes) {
    if (bytes > std::numeric_limits<std::size_t>::max() / 2) fail("tensor is too large");
    return std::max((bytes + kAlignment - 1) / kAlignment * kAlignment, kAlignment);
  }
  static std::byte* allocate(std::size_t bytes) {
    return static_cast<std::byte*>(
        ::operator new(rounded(bytes), std::align_val_t{kAlignment}));
  }
  void release() noexcept {
    if (data_ != nullptr) ::operator delete(data_, std::align_val_t{kAlignment});
    data_ = nullptr;
    capacity_ = 0;
  }

  std::byte* data_ = nullptr;
  std::size_t capacity_ = 0;
};

/// A read-only dense tensor in somebody else's memory.
template <class T>
class View {
 public:
  View() = default;
  View(const T* data, const Shape& shape) : data_(data), shape_(shape) {}

  [[nodiscard]] const T* data() const { return data_; }
  [[nodiscard]] const Shape& shape() const { return shape_; }
  [[nodiscard]] int rank() const { return shape_.rank(); }
  [[nodiscard]] Index dim(int i) const { return shape_[i]; }
  [[nodiscard]] Index size() const { return shape_.size(); }
  const T& operator[](Index i) const { return data_[i]; }

  /// The only element of a tensor of size one (a scalar, a condition, a trip count).
  [[nodiscard]] T item() const {
    if (size() != 1) fail("expected one element, got shape " + shape_.text());
    return data_[0];
  }

 private:
  const T* data_ = nullptr;
  Shape shape_;
};

/// Where a result goes: a planned place of known shape, or a buffer that grows to fit.
template <class T>
class Out {
 public:
  Out(std::byte* place, const Shape& shape) : place_(place), shape_(shape) {}
  explicit Out(Buffer& buffer) : buffer_(&buffer) {}

  /// Memory for a result of this shape. A planned place insists on the planned shape.
  T* make(const Shape& shape) {
    if (buffer_ == nullptr) {
      if (shape != shape_) {
        fail("result has shape " + shape.text() + ", planned was " + shape_.text());
      }
      return reinterpret_cast<T*>(place_);
    }
    const Index bytes = checked_product(shape.size(), Index{sizeof(T)});
    return reinterpret_cast<T*>(buffer_->reserve(static_cast<std::size_t>(bytes)));
  }
  [[nodiscard]] Buffer* buffer() const { return buffer_; }

 private:
  std::byte* place_ = nullptr;
  Shape shape_;
  Buffer* buffer_ = nullptr;
};

/// Temporary memory of a kernel, kept between frames. Its contents mean nothing after the kernel.
class Scratch {
 public:
  template <class T>
  T* take(std::size_t which, Index count) {
    const Index bytes = checked_product(count, Index{sizeof(T)});
    return reinterpret_cast<T*>(buffers_[which].reserve(static_cast<std::size_t>(bytes)));
  }

 private:
  std::array<Buffer, 6> buffers_;
};

/// The memory of one part: an arena for static shapes and growing slots for dynamic ones, both
/// laid out by the compiler from the life times of the values.
class Workspace {
 public:
  Workspace(std::size_t arena_bytes, std::size_t slots) : arena_(arena_bytes), slots_(slots) {}

  template <class T>
  [[nodiscard]] Out<T> fixed(std::size_t offset, const Shape& shape) {
    return Out<T>(arena_.data() + offset, shape);
  }
  template <class T>
  [[nodiscard]] Out<T> slot(std::size_t index) {
    return Out<T>(slots_[index]);
  }
  [[nodiscard]] Scratch& scratch() { return scratch_; }
  void swap_slots(std::size_t a, std::size_t b) noexcept { slots_[a].swap(slots_[b]); }

 private:
  Buffer arena_;
  std::vector<Buffer> slots_;
  Scratch scratch_;
};

/// Copy of `count` elements; unlike memcpy it accepts zero of them at any address.
template <class T>
inline void copy_elements(const T* from, Index count, T* to) {
  if (count > 0) std::memcpy(to, from, static_cast<std::size_t>(count) * sizeof(T));
}

}  // namespace adc
