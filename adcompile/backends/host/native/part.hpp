// What the generated parts and the programs around them agree on.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "half.hpp"
#include "tensor.hpp"

struct adc_searcher;

namespace adc {

/// Element types that cross the border of a part. The numbers are part of the C interface.
enum class DType : int {
  kFloat32 = 1,
  kFloat64 = 2,
  kFloat16 = 3,
  kBFloat16 = 4,
  kBool = 5,
  kInt8 = 6,
  kInt16 = 7,
  kInt32 = 8,
  kInt64 = 9,
  kUint8 = 10,
  kUint16 = 11,
  kUint32 = 12,
  kUint64 = 13,
};

template <class T>
constexpr DType dtype_of() {
  if constexpr (std::is_same_v<T, float>) return DType::kFloat32;
  if constexpr (std::is_same_v<T, double>) return DType::kFloat64;
  if constexpr (std::is_same_v<T, Half>) return DType::kFloat16;
  if constexpr (std::is_same_v<T, BFloat16>) return DType::kBFloat16;
  if constexpr (std::is_same_v<T, bool>) return DType::kBool;
  if constexpr (std::is_same_v<T, std::int8_t>) return DType::kInt8;
  if constexpr (std::is_same_v<T, std::int16_t>) return DType::kInt16;
  if constexpr (std::is_same_v<T, std::int32_t>) return DType::kInt32;
  if constexpr (std::is_same_v<T, std::int64_t>) return DType::kInt64;
  if constexpr (std::is_same_v<T, std::uint8_t>) return DType::kUint8;
  if constexpr (std::is_same_v<T, std::uint16_t>) return DType::kUint16;
  if constexpr (std::is_same_v<T, std::uint32_t>) return DType::kUint32;
  if constexpr (std::is_same_v<T, std::uint64_t>) return DType::kUint64;
}

/// Bytes per element; fails for a number that is no element type.
[[nodiscard]] std::size_t element_size(DType dtype);
[[nodiscard]] const char* dtype_name(DType dtype);

/// A view whose element type is only known while running.
struct AnyView {
  DType dtype = DType::kFloat32;
  Shape shape;
  const void* data = nullptr;

  AnyView() = default;
  AnyView(DType type, const Shape& dims, const void* at) : dtype(type), shape(dims), data(at) {}
  template <class T>
  AnyView(View<T> view)  // NOLINT: a typed view is an untyped view
      : dtype(dtype_of<T>()), shape(view.shape()), data(view.data()) {}

  [[nodiscard]] std::size_t bytes() const {
    return static_cast<std::size_t>(
        checked_product(shape.size(), static_cast<Index>(element_size(dtype))));
  }
};

inline constexpr Index kFree = -1;     // a dimension that may have any size
inline constexpr Index kAnyRank = -2;  // alone in a list: any shape at all

/// Name, type and shape of a tensor at a border.
struct Port {
  const char* name;
  DType dtype;
  std::vector<Index> dims;
};

/// Dimensions for a message: "[?, 3, 8]".
[[nodiscard]] std::string dims_text(const std::vector<Index>& dims);

/// Fails, naming the port, unless the tensor has its type and shape.
void check_port(const AnyView& tensor, const Port& port);

template <class T>
View<T> checked(const AnyView& tensor, const Port& port) {
  check_port(tensor, port);
  return {static_cast<const T*>(tensor.data), tensor.shape};
}

/// Constants of all parts, checked once against the digest that was compiled in.
class Weights {
 public:
  /// `weights`: a file weights.bin, whose payload follows a header. `statistics`: a bank file, whose
  /// constants lie at known places of the whole file.
  enum class Kind { weights, statistics };

  Weights() = default;
  /// Reads `path`, or takes the constants inside the program when it is empty. The payload must have
  /// this size and SHA-256 (64 hex digits).
  Weights(const std::string& path, std::size_t payload_bytes, const char* sha256,
          Kind kind = Kind::weights);

  /// True when the program was built with its constants inside.
  [[nodiscard]] static bool inside_program();

  template <class T>
  [[nodiscard]] View<T> view(std::size_t offset, const Shape& shape) const {
    return {reinterpret_cast<const T*>(at(offset, shape, sizeof(T))), shape};
  }

 private:
  /// Address of a constant; fails when it does not lie inside the file.
  [[nodiscard]] const std::byte* at(std::size_t offset, const Shape& shape,
                                    std::size_t element) const;

  struct Free {
    void operator()(std::byte* p) const { ::operator delete(p, std::align_val_t{kAlignment}); }
  };
  std::unique_ptr<std::byte, Free> owned_;
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

/// What generated parts read besides their inputs.
struct Resources {
  Weights weights;
  Weights statistics;                    // mean and inverse covariance of PaDiM, in their bank file
  std::vector<adc_searcher*> searchers;  // one per nearest-neighbour bank; owned by the bundle

  [[nodiscard]] adc_searcher* searcher(std::size_t index) const {
    if (index >= searchers.size()) fail("this part needs its memory bank: open the whole bundle");
    return searchers[index];
  }
};

/// Something that runs: a generated host part, or a part on a device. Results live in the stage and
/// are valid until its next run.
class Stage {
 public:
  Stage() = default;
  Stage(const Stage&) = delete;
  Stage& operator=(const Stage&) = delete;
  virtual ~Stage() = default;

  [[nodiscard]] virtual const char* name() const = 0;
  [[nodiscard]] virtual const std::vector<Port>& inputs() const = 0;
  [[nodiscard]] virtual const std::vector<Port>& outputs() const = 0;
  /// Where a device's runtime put the operators, as far as it has a choice and says so; "" otherwise.
  [[nodiscard]] virtual std::string placement() const { return ""; }
  /// `in` and `out` have one entry per port, in order.
  virtual void run(const AnyView* in, AnyView* out) = 0;
};

}  // namespace adc
