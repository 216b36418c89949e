#include "numbers.hpp"

namespace adc {

namespace {

template <class T>
double number_at(const void* data, Index i) {
  return static_cast<double>(static_cast<const T*>(data)[i]);
}
template <>
double number_at<Half>(const void* data, Index i) {
  return static_cast<double>(static_cast<float>(static_cast<const Half*>(data)[i]));
}
template <>
double number_at<BFloat16>(const void* data, Index i) {
  return static_cast<double>(static_cast<float>(static_cast<const BFloat16*>(data)[i]));
}

}  // namespace

Reader reader_of(DType dtype) {
  switch (dtype) {
    case DType::kFloat32: return number_at<float>;
    case DType::kFloat64: return number_at<double>;
    case DType::kFloat16: return number_at<Half>;
    case DType::kBFloat16: return number_at<BFloat16>;
    case DType::kBool: return number_at<bool>;
    case DType::kInt8: return number_at<std::int8_t>;
    case DType::kInt16: return number_at<std::int16_t>;
    case DType::kInt32: return number_at<std::int32_t>;
    case DType::kInt64: return number_at<std::int64_t>;
    case DType::kUint8: return number_at<std::uint8_t>;
    case DType::kUint16: return number_at<std::uint16_t>;
    case DType::kUint32: return number_at<std::uint32_t>;
    case DType::kUint64: return number_at<std::uint64_t>;
  }
  fail("no such element type");
}

}  // namespace adc
