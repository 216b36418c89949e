// ONNX Runtime's C API: failures as exceptions, objects that release themselves, element types.
#pragma once

#include <onnxruntime_c_api.h>

#include "part.hpp"

namespace adc::ort {

/// The library's functions, of the version that the headers describe.
inline const OrtApi& api() {
  static const OrtApi& found = []() -> const OrtApi& {
    const OrtApiBase* base = OrtGetApiBase();
    const OrtApi* table = base == nullptr ? nullptr : base->GetApi(ORT_API_VERSION);
    if (table == nullptr) fail("ONNX Runtime: the library is older than the headers");
    return *table;
  }();
  return found;
}

/// Turns a status into an exception; a null status is success.
inline void check(OrtStatus* status, const char* what) {
  if (status == nullptr) return;
  const std::string text = api().GetErrorMessage(status);
  api().ReleaseStatus(status);
  fail(std::string("ONNX Runtime: ") + what + ": " + text);
}

/// Owns an object that the API releases by one of its functions.
template <class T>
class Owned {
 public:
  explicit Owned(void (*release)(T*)) : release_(release) {}
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
  Owned(Owned&& other) noexcept : object_(other.object_), release_(other.release_) {
    other.object_ = nullptr;
  }
  ~Owned() { reset(nullptr); }
  void reset(T* object) {
    if (object_ != nullptr) release_(object_);
    object_ = object;
  }
  /// For functions that make the object.
  T** out() {
    reset(nullptr);
    return &object_;
  }
  [[nodiscard]] T* get() const { return object_; }

 private:
  T* object_ = nullptr;
  void (*release_)(T*);
};

struct TypeName {
  DType dtype;
  ONNXTensorElementDataType ort;
};
constexpr std::array<TypeName, 13> kTypes{{
    {DType::kFloat32, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT},
    {DType::kFloat64, ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE},
    {DType::kFloat16, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16},
    {DType::kBFloat16, ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16},
    {DType::kBool, ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL},
    {DType::kInt8, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8},
    {DType::kInt16, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16},
    {DType::kInt32, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32},
    {DType::kInt64, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64},
    {DType::kUint8, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8},
    {DType::kUint16, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16},
    {DType::kUint32, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32},
    {DType::kUint64, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64},
}};

inline ONNXTensorElementDataType to_ort(DType dtype) {
  for (const TypeName& t : kTypes) {
    if (t.dtype == dtype) return t.ort;
  }
  fail("not an element type");
}

inline DType from_ort(ONNXTensorElementDataType type, const char* tensor) {
  for (const TypeName& t : kTypes) {
    if (t.ort == type) return t.dtype;
  }
  fail(std::string("ONNX Runtime: '") + tensor + "' has an element type this program lacks");
}

/// Element type and sizes of a tensor, or of what a model declares (-1: any size).
struct TensorType {
  DType dtype = DType::kFloat32;
  std::vector<Index> dims;

  void read(const OrtTensorTypeAndShapeInfo* info, const char* tensor) {
    ONNXTensorElementDataType type{};
    std::size_t rank = 0;
    check(api().GetTensorElementType(info, &type), "GetTensorElementType");
    check(api().GetDimensionsCount(info, &rank), "GetDimensionsCount");
    if (rank > kMaxRank) fail(std::string("ONNX Runtime: '") + tensor + "' has over 8 dimensions");
    dtype = from_ort(type, tensor);
    dims.resize(rank);
    check(api().GetDimensions(info, dims.data(), rank), "GetDimensions");
  }
};

}  // namespace adc::ort
