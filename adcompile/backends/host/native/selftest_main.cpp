// selftest [BUNDLE] [--threads N]: exit 0 when every host part reproduces the golden data, 1 when
// something differs or nothing could be compared, 2 when the bundle cannot be used.
#include <cstdlib>
#include <exception>

#include "selftest.hpp"

int main(int argc, char** argv) {
  try {
    std::string folder = "..";
    int threads = 1;
    for (int i = 1; i < argc; ++i) {
      const std::string word = argv[i];
      if (word == "--threads" && i + 1 < argc) {
        threads = std::atoi(argv[++i]);
      } else if (word.rfind("--", 0) == 0) {
        std::fprintf(stderr, "usage: selftest [BUNDLE] [--threads N]\n");
        return 2;
      } else {
        folder = word;
      }
    }
    const adc::SelftestResult result = adc::run_selftest(folder, threads, stdout);
    std::printf("%d tensors compared, %d different, %d parts skipped\n", result.compared,
                result.different, result.skipped);
    if (result.compared == 0) std::printf("nothing was compared: that is a failure\n");
    return result.different == 0 && result.compared > 0 ? 0 : 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 2;
  }
}
