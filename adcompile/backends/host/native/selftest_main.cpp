// selftest [BUNDLE] [--threads N] [--runtime NAME] [--device-option NAME=VALUE]: exit 0 when every part
// reproduces the golden data, 1 when something differs or nothing could be compared, 2 when the bundle
// cannot be used. Device parts are run when a runtime is named.
#include <exception>

#include "selftest.hpp"
#include "words.hpp"

namespace {

constexpr const char* kUsage =
    "selftest [BUNDLE] [--threads N] [--runtime NAME] [--device-option NAME=VALUE]";

/// Takes one option; false when there is no such one.
bool take(adc::SelftestOptions& options, const std::string& word, const std::string& value) {
  if (word == "--threads") {
    options.threads = adc::whole_of(word, value, 1, adc::kMostThreads);
  } else if (word == "--runtime") {
    options.engine = value;
  } else if (word == "--device-option") {
    const auto [name, setting] = adc::name_and_value(word, value);
    options.device[name] = setting;
  } else {
    return false;
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    std::string folder = "..";
    adc::SelftestOptions options;
    for (int i = 1; i < argc; ++i) {
      const std::string word = argv[i];
      if (word == "--help" || word == "-h") {
        std::printf("usage: %s\n", kUsage);
        return 0;
      }
      if (word.rfind("--", 0) != 0) {
        folder = word;
      } else if (i + 1 < argc && take(options, word, argv[i + 1])) {
        ++i;
      } else {
        std::fprintf(stderr, "usage: %s\n", kUsage);
        return 2;
      }
    }
    const adc::SelftestResult result = adc::run_selftest(folder, options, stdout);
    std::printf("%d tensors compared, %d different, %d parts skipped\n", result.compared,
                result.different, result.skipped);
    if (result.compared == 0) std::printf("nothing was compared: that is a failure\n");
    return result.different == 0 && result.compared > 0 ? 0 : 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 2;
  }
}
