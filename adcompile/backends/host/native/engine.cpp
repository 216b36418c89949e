#include "engine.hpp"

namespace adc {

std::string part_file(const EngineContext& context, const std::string& use) {
  for (const FileInfo& file : context.part->files) {
    if (use == file.use) return context.folder + "/" + file.path;
  }
  fail(std::string("part ") + context.part->name + ": the bundle has no '" + use + "' file");
}

bool has_file(const EngineContext& context, const std::string& use) {
  for (const FileInfo& file : context.part->files) {
    if (use == file.use) return true;
  }
  return false;
}

std::string option(const EngineContext& context, const std::string& name,
                   const std::string& otherwise) {
  const auto given = context.options.find(name);
  if (given != context.options.end()) return given->second;
  for (const OptionInfo& known : context.part->options) {
    if (name == known.name) return known.value;
  }
  return otherwise;
}

std::vector<Port> ports_of(const BundleInfo& info, const std::vector<int>& values) {
  std::vector<Port> ports;
  for (const int v : values) ports.push_back(info.values[static_cast<std::size_t>(v)]);
  return ports;
}

std::unique_ptr<Stage> open_engine(const std::string& kind, const EngineContext& context) {
  const std::string family = context.part->executor;
  std::string name = kind;
  if (name == "auto" || name.empty()) {
    name = family == "trt" ? "tensorrt" : family == "drpai" ? "drpai" : "onnxruntime";
  }
  if (name == "recorded") return open_recorded(context);
#if defined(ADC_WITH_TENSORRT)
  if (name == "tensorrt") return open_tensorrt(context);
#endif
#if defined(ADC_WITH_DRPAI)
  if (name == "drpai") return open_drpai(context);
#endif
#if defined(ADC_WITH_ONNXRUNTIME)
  if (name == "onnxruntime") return open_onnxruntime(context);
#endif
  for (const char* known : {"tensorrt", "drpai", "onnxruntime"}) {
    if (name == known) {
      std::string macro = name;
      for (char& c : macro) c = static_cast<char>(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c);
      fail("part " + std::string(context.part->name) + " runs on " + name +
           ", but this program was built without it (cmake -DADC_WITH_" + macro + "=ON)");
    }
  }
  fail("unknown engine '" + name + "' (recorded, tensorrt, drpai, onnxruntime)");
}

}  // namespace adc
