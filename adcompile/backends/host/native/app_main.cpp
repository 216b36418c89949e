// The bundle's program. What it does with a picture follows from the roles of the outputs.
#include <exception>
#include <filesystem>

#include "app.hpp"
#include "npy.hpp"

namespace adc::app {

int run_plain(const Options& options) {
  Bundle bundle(options.bundle, options.open);
  const std::string folder = options.output.empty() ? "outputs" : options.output;
  make_folder(folder);
  const std::vector<OutputInfo>& outputs = bundle.info().outputs;
  return each_picture(options, bundle, [&](const Done& done) {
    for (std::size_t i = 0; i < outputs.size(); ++i) {
      write_npy(folder + "/" + done.name + "_" + std::to_string(i) + ".npy",
                bundle.get(outputs[i].value));
    }
    std::printf("%s: %zu outputs\n", done.name.c_str(), outputs.size());
  });
}

}  // namespace adc::app

int main(int argc, char** argv) {
  try {
    const adc::BundleInfo& info = adc::bundle_info();
    if (argc < 2) {
      std::fputs(adc::app::usage(info).c_str(), stderr);
      return 2;
    }
    const adc::app::Options options = adc::app::parse(argc, argv, info);
    if (options.help) {
      std::fputs(adc::app::usage(info).c_str(), stdout);
      return 0;
    }
    if (adc::app::is_anomaly_detector(info)) return adc::app::run_anomaly(options);
    return adc::app::is_object_detector(info) ? adc::app::run_detection(options)
                                              : adc::app::run_plain(options);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 2;
  }
}
