// device_main BUNDLE FOLDER: runs each part that has a folder FOLDER/PART/ROWS through ONNX Runtime on
// the CPU: its rows are in0.npy …, its results go to out0.npy …
#include <cstdio>
#include <filesystem>

#include "npy.hpp"
#include "rows.hpp"

int main(int, char** argv) {
  namespace fs = std::filesystem;
  try {
    const adc::BundleInfo& info = adc::bundle_info();
    for (const adc::PartInfo& part : info.parts) {
      const fs::path place = fs::path(argv[2]) / part.name;
      if (!fs::exists(place)) continue;
      const auto context = adc::context_of(argv[1], info, part, {{"provider", "cpu"}, {"threads", "1"}});
      const auto stage = adc::open_device_part("onnxruntime", context);
      for (const auto& entry : fs::directory_iterator(place)) {
        const std::string folder = entry.path().string();
        std::vector<adc::Array> rows;
        std::vector<adc::AnyView> in;
        std::vector<adc::AnyView> out(part.outputs.size());
        for (std::size_t i = 0; i < part.inputs.size(); ++i) {
          rows.push_back(adc::read_npy(folder + "/in" + std::to_string(i) + ".npy"));
          in.push_back(rows.back().view());
        }
        stage->run(in.data(), out.data());
        for (std::size_t i = 0; i < out.size(); ++i) {
          adc::write_npy(folder + "/out" + std::to_string(i) + ".npy", out[i]);
        }
      }
    }
  } catch (const adc::Error& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 2;
  }
  return 0;
}
