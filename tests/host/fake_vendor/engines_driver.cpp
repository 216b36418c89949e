// engines_driver KIND FOLDER ROWS: opens a part "net" (x [?, 3] -> y [?, 3]) on a fake runtime, runs
// ROWS rows of 1, 2, 3 …, prints the results and what is still alive afterwards. ROW_SIZES is a row count
// of the device; MOSAIC a layout, whose grids of 4 and 12 tiles have files.
#include <cstdio>
#include <cstdlib>

#include "engine.hpp"

int fake_live_allocations();
int fake_live_objects();

namespace {

void run(const std::string& kind, const std::string& folder, adc::Index rows) {
  const bool drpai = kind == "drpai";
  adc::BundleInfo info{};
  const adc::Index free = drpai ? 2 : adc::kFree;
  info.values = {{"x", adc::DType::kFloat32, {free, 3}}, {"y", adc::DType::kFloat32, {free, 3}}};
  adc::PartInfo part{};
  part.name = "net";
  part.executor = drpai ? "drpai" : kind == "onnxruntime" ? "npu" : "trt";
  part.by_row = !drpai;
  part.generated = -1;
  part.inputs = {0};
  part.outputs = {1};
  part.files = {{"plan", "net.plan"}, {"model", "net.onnx"}, {"session", "session.json"}};
  const char* sizes = std::getenv("ROW_SIZES");
  if (sizes != nullptr) part.row_sizes = {1, std::atoi(sizes)};
  const char* mosaic = std::getenv("MOSAIC");
  if (mosaic != nullptr) {
    part.options = {{"mosaic", mosaic}};
    part.files.insert(part.files.end(), {{"device_4", "rows4.onnx"}, {"device_12", "rows12.onnx"}});
  }
  info.parts = {part};
  const auto context = adc::context_of(folder, info, info.parts[0],
                                       {{"drpai_address", "0x1000"}, {"drpai_frequency", "2"}});
  const auto stage = adc::open_device_part("auto", context);
  for (int repeat = 0; repeat < 2; ++repeat) {
    std::vector<float> x(static_cast<std::size_t>(rows) * 3 + 1);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i + 1);
    const adc::AnyView in(adc::DType::kFloat32, adc::Shape{rows, 3}, x.data());
    adc::AnyView out;
    stage->run(&in, &out);
    std::printf("y %s:", out.shape.text().c_str());
    for (adc::Index i = 0; i < out.shape.size(); ++i) {
      std::printf(" %g", static_cast<double>(static_cast<const float*>(out.data)[i]));
    }
    std::printf("\n");
  }
}

}  // namespace

int main(int argc, char** argv) {
  int code = 0;
  try {
    run(argv[1], argv[2], argc > 3 ? std::atoi(argv[3]) : 2);
  } catch (const std::exception& error) {
    std::printf("error: %s\n", error.what());
    code = 1;
  }
  std::printf("alive: %d %d\n", fake_live_allocations(), fake_live_objects());
  return code;
}
