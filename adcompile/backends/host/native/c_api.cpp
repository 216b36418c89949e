#include "c_api.hpp"

namespace adc::api {

std::string& last_error() {
  thread_local std::string text;
  return text;
}

AnyView from_c(const adc_tensor& t) {
  if (t.rank < 0 || t.rank > ADC_MAX_RANK) fail("tensor of rank over 8");
  Shape shape;
  for (int i = 0; i < t.rank; ++i) {
    if (t.dims[i] < 0) fail("tensor with a negative dimension");
    shape.push_back(t.dims[i]);
  }
  if (t.data == nullptr) fail("tensor without data");
  const AnyView view(static_cast<DType>(t.dtype), shape, t.data);
  static_cast<void>(view.bytes());  // checks type and size
  return view;
}

adc_tensor to_c(const AnyView& view) {
  adc_tensor t{};
  t.dtype = static_cast<std::int32_t>(view.dtype);
  t.rank = view.shape.rank();
  for (int i = 0; i < t.rank; ++i) t.dims[i] = view.shape[i];
  t.data = view.data;
  return t;
}

}  // namespace adc::api

extern "C" const char* adc_last_error(void) { return adc::api::last_error().c_str(); }
