#include "part.hpp"

namespace adc {

namespace {

struct TypeInfo {
  const char* name;
  std::size_t size;
};
constexpr std::array<TypeInfo, 14> kTypes{{{"", 0},
                                           {"float32", 4},
                                           {"float64", 8},
                                           {"float16", 2},
                                           {"bfloat16", 2},
                                           {"bool", 1},
                                           {"int8", 1},
                                           {"int16", 2},
                                           {"int32", 4},
                                           {"int64", 8},
                                           {"uint8", 1},
                                           {"uint16", 2},
                                           {"uint32", 4},
                                           {"uint64", 8}}};

const TypeInfo& info(DType dtype) {
  const int i = static_cast<int>(dtype);
  if (i <= 0 || i >= static_cast<int>(kTypes.size())) fail("no such element type");
  return kTypes[static_cast<std::size_t>(i)];
}

}  // namespace

std::size_t element_size(DType dtype) { return info(dtype).size; }
const char* dtype_name(DType dtype) { return info(dtype).name; }

namespace {

bool fits(const Shape& shape, const std::vector<Index>& dims) {
  if (dims.size() == 1 && dims[0] == kAnyRank) return true;
  if (shape.rank() != static_cast<int>(dims.size())) return false;
  for (int i = 0; i < shape.rank(); ++i) {
    const Index wanted = dims[static_cast<std::size_t>(i)];
    if (shape[i] < 0 || (wanted != kFree && wanted != shape[i])) return false;
  }
  return true;
}

}  // namespace

void check_port(const AnyView& tensor, const Port& port) {
  if (tensor.data != nullptr && tensor.dtype == port.dtype && fits(tensor.shape, port.dims)) return;
  const std::string name = std::string("'") + port.name + "'";
  if (tensor.data == nullptr) fail(name + " was not given");
  if (tensor.dtype != port.dtype) {
    fail(name + " is " + dtype_name(tensor.dtype) + ", expected " + dtype_name(port.dtype));
  }
  fail(name + " has shape " + tensor.shape.text() + ", expected " + dims_text(port.dims));
}

std::string dims_text(const std::vector<Index>& dims) {
  std::string text;
  for (const Index d : dims) {
    text += (text.empty() ? "" : ", ") + (d == kFree ? "?" : std::to_string(d));
  }
  return "[" + text + "]";
}

}  // namespace adc
