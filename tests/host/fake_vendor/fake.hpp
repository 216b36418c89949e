// What the fakes of the vendor runtimes share. A model is text, one tensor a line: "in|out NAME TYPE
// DIMS…", the type being a number of that runtime and -1 any size. It computes y = 2 x, z = 2 x + 1; to
// x it adds a hundred times every other input, read cyclically. Calls are printed; the variable FAKE_FAIL
// names the one that fails.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

/// Memory blocks that the program took so far (engines_driver.cpp counts them).
long& blocks_taken();

/// Inside a fake: what it takes does not count.
class Outside {
 public:
  Outside() : taken_(blocks_taken()) {}
  ~Outside() { blocks_taken() = taken_; }
  Outside(const Outside&) = delete;
  Outside& operator=(const Outside&) = delete;

 private:
  long taken_;
};

/// Prints the call; false when it is to fail.
bool works(const char* call, const std::string& detail = "");

/// Objects and device memory that are still alive.
int& alive();

struct FakeTensor {
  std::string name;
  bool input = false;
  int type = 0;
  std::vector<std::int64_t> dims;
};

/// False when the text is no model.
bool parse_model(const std::string& text, std::vector<FakeTensor>& tensors);

std::int64_t count_of(const std::vector<std::int64_t>& dims);
std::string text_of(const std::vector<std::int64_t>& dims);

/// The numbers of an input.
struct Given {
  std::string name;
  std::vector<float> numbers;
};

/// Number `i` of an output.
float answer(const std::string& output, std::int64_t i, const std::vector<Given>& inputs);

/// One number of a float32 or float16 tensor.
float read_number(const void* data, bool half, std::int64_t i);
void write_number(void* data, bool half, std::int64_t i, float value);
