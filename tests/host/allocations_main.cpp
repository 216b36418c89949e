// allocations_main BUNDLE [RUNTIME]: replays the first golden sample three times and prints how often
// each host part took memory in the third; with a runtime, each device part as well (on the CPU).
#include <cstdio>

#include "bundle.hpp"
#include "counting_new.hpp"
#include "npy.hpp"

int main(int argc, char** argv) {
  const std::string folder = argv[1];
  adc::OpenOptions options;
  options.devices = argc > 2;
  if (options.devices) {
    options.engine = argv[2];
    options.device = {{"provider", "cpu"}, {"threads", "1"}};
  }
  adc::Bundle bundle(folder, options);
  const adc::BundleInfo& info = bundle.info();
  std::vector<adc::Array> recorded(info.values.size());
  for (const adc::GoldenTensor& t : info.golden.at(0).tensors) {
    recorded[static_cast<std::size_t>(t.value)] = adc::read_npy(folder + "/" + t.path);
  }
  for (int frame = 0; frame < 3; ++frame) {
    for (std::size_t i = 0; i < info.parts.size(); ++i) {
      const adc::PartInfo& part = info.parts[i];
      if (!bundle.is_open(i)) continue;
      for (const int v : part.inputs) bundle.set(v, recorded[static_cast<std::size_t>(v)].view());
      const long before = taken;
      bundle.run_part(i);
      if (frame == 2) std::printf("%s %ld\n", part.name, taken - before);
    }
  }
  return 0;
}
