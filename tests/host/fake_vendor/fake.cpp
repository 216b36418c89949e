#include "fake.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sstream>

#include "half.hpp"

bool works(const char* call, const std::string& detail) {
  const char* fail = std::getenv("FAKE_FAIL");
  const bool ok = fail == nullptr || std::strcmp(fail, call) != 0;
  std::printf("%s%s%s%s\n", call, detail.empty() ? "" : " ", detail.c_str(), ok ? "" : " FAILS");
  return ok;
}

int& alive() {
  static int count = 0;
  return count;
}

bool parse_model(const std::string& text, std::vector<FakeTensor>& tensors) {
  tensors.clear();
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream fields(line);
    std::string kind;
    FakeTensor t;
    fields >> kind >> t.name >> t.type;
    t.input = kind == "in";
    for (std::int64_t d = 0; fields >> d;) t.dims.push_back(d);
    if (kind != "in" && kind != "out") return false;
    tensors.push_back(t);
  }
  return true;
}

std::int64_t count_of(const std::vector<std::int64_t>& dims) {
  std::int64_t count = 1;
  for (const std::int64_t d : dims) count *= d;
  return count;
}

std::string text_of(const std::vector<std::int64_t>& dims) {
  std::string text;
  for (const std::int64_t d : dims) text += (text.empty() ? "" : "x") + std::to_string(d);
  return text;
}

float answer(const std::string& output, std::int64_t i, const std::vector<Given>& inputs) {
  float x = 0;
  for (const Given& one : inputs) {
    const float value = one.numbers[static_cast<std::size_t>(i) % one.numbers.size()];
    x += one.name == "x" ? value : 100 * value;
  }
  return 2 * x + static_cast<float>(output[0] - 'y');
}

float read_number(const void* data, bool half, std::int64_t i) {
  return half ? static_cast<float>(static_cast<const adc::Half*>(data)[i])
              : static_cast<const float*>(data)[i];
}

void write_number(void* data, bool half, std::int64_t i, float value) {
  if (half) {
    static_cast<adc::Half*>(data)[i] = adc::Half(value);
  } else {
    static_cast<float*>(data)[i] = value;
  }
}
