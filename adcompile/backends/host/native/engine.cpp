#include "rows.hpp"

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

std::string find_use(const EngineContext& context, const std::vector<std::string>& uses) {
  for (const std::string& use : uses) {
    const std::string sized = use + "_" + std::to_string(context.rows);
    if (context.rows > 0 && has_file(context, sized)) return sized;
    if (has_file(context, use)) return use;
  }
  return "";
}

EngineContext context_of(const std::string& folder, const BundleInfo& info, const PartInfo& part,
                         const std::map<std::string, std::string>& options) {
  EngineContext context;
  context.folder = folder;
  context.info = &info;
  context.part = &part;
  context.options = options;
  for (const int v : part.inputs) context.inputs.push_back(info.values.at(std::size_t(v)));
  for (const int v : part.outputs) context.outputs.push_back(info.values.at(std::size_t(v)));
  return context;
}

std::unique_ptr<Stage> open_device_part(const std::string& kind, const EngineContext& context) {
  const PartInfo& part = *context.part;
  if (!part.by_row || kind == "recorded") return open_engine(kind, context);
  const std::string layout = mosaic_of(part);
  if (!layout.empty()) return by_mosaic(kind, context, layout);
  EngineContext sized = context;
  if (part.row_sizes.size() == 1) sized.rows = part.row_sizes.front();
  return by_rows(open_engine(kind, sized), part);
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
