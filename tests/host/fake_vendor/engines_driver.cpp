// engines_driver KIND FOLDER ROWS [NAME=VALUE…]: opens a part "net" on a fake runtime, runs ROWS rows of
// 1, 2, 3 … three times (a second input begins with 2), and prints the results, how many memory blocks
// the last run took, and what is alive afterwards. FOLDER/ports has its tensors, "in|out NAME DTYPE DIMS…"
// (default: x [?, 3] -> y [?, 3]); ROW_SIZES is a row count of the device, MOSAIC a layout whose grids of
// 4 and 12 tiles have files.
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <fstream>
#include <sstream>

#include "../counting_new.hpp"
#include "engine.hpp"
#include "fake.hpp"

long& blocks_taken() { return taken; }

namespace {

/// The tensors of the part, and their names.
struct Ports {
  std::deque<std::string> names;  // never moves what it holds
  std::vector<adc::Port> in;
  std::vector<adc::Port> out;
};

void read_ports(const std::string& folder, adc::Index rows, Ports& ports) {
  std::ifstream file(folder + "/ports");
  std::stringstream text;
  text << file.rdbuf();
  std::vector<FakeTensor> tensors;
  const std::string first = rows == 0 ? "-1" : std::to_string(rows);
  parse_model(file ? text.str() : "in x 1 " + first + " 3\nout y 1 " + first + " 3\n", tensors);
  for (const FakeTensor& t : tensors) {
    ports.names.push_back(t.name);
    const adc::Port port{ports.names.back().c_str(), static_cast<adc::DType>(t.type), t.dims};
    (t.input ? ports.in : ports.out).push_back(port);
  }
}

void print(const adc::Port& port, const adc::AnyView& tensor) {
  std::printf("%s %s:", port.name, tensor.shape.text().c_str());
  for (adc::Index i = 0; i < tensor.shape.size(); ++i) {
    const bool half = tensor.dtype == adc::DType::kFloat16;
    std::printf(" %g", static_cast<double>(read_number(tensor.data, half, i)));
  }
  std::printf("\n");
}

/// first, first + 1 … for a port.
std::vector<float> numbers(const adc::Port& port, const adc::Shape& shape, std::size_t first) {
  std::vector<float> found(static_cast<std::size_t>(shape.size()) + 1);
  const bool half = port.dtype == adc::DType::kFloat16;
  for (adc::Index i = 0; i < shape.size(); ++i) {
    write_number(found.data(), half, i, static_cast<float>(i) + static_cast<float>(first));
  }
  return found;
}

void run(adc::Stage& stage, const Ports& ports, adc::Index rows) {
  std::vector<std::vector<float>> data;
  std::vector<adc::AnyView> in;
  for (const adc::Port& port : ports.in) {
    adc::Shape shape;
    for (const adc::Index d : port.dims) shape.push_back(d == adc::kFree ? rows : d);
    data.push_back(numbers(port, shape, data.size() + 1));
    in.emplace_back(port.dtype, shape, data.back().data());
  }
  std::vector<adc::AnyView> out(ports.out.size());
  long before = 0;
  for (int repeat = 0; repeat < 3; ++repeat) {
    std::printf("run\n");
    before = taken;
    stage.run(in.data(), out.data());
    if (repeat == 2) std::printf("took %ld\n", taken - before);
    for (std::size_t i = 0; i < out.size(); ++i) print(ports.out[i], out[i]);
  }
}

void open_and_run(const std::string& kind, const std::string& folder, adc::Index rows,
                  const std::map<std::string, std::string>& options) {
  const bool drpai = kind == "drpai";
  Ports ports;
  read_ports(folder, drpai ? rows : 0, ports);
  adc::BundleInfo info{};
  adc::PartInfo part{};
  part.name = "net";
  part.executor = drpai ? "drpai" : kind == "onnxruntime" ? "npu" : "trt";
  part.by_row = ports.in[0].dims[0] == adc::kFree;
  part.generated = -1;
  for (const auto* side : {&ports.in, &ports.out}) {
    for (const adc::Port& port : *side) {
      const int number = static_cast<int>(info.values.size());
      info.values.push_back(port);
      (side == &ports.in ? part.inputs : part.outputs).push_back(number);
    }
  }
  part.files = {{"plan", "net.plan"},
                {"model", "net.onnx"},
                {"session", "parts/net/session.json"}};
  const char* sizes = std::getenv("ROW_SIZES");
  if (sizes != nullptr) part.row_sizes = {1, std::atoi(sizes)};
  const char* mosaic = std::getenv("MOSAIC");
  if (mosaic != nullptr) {
    part.options = {{"mosaic", mosaic}};
    part.files.insert(part.files.end(), {{"device_4", "rows4.onnx"}, {"device_12", "rows12.onnx"}});
  }
  info.parts = {part};
  const auto context = adc::context_of(folder, info, info.parts[0], options);
  const auto stage = adc::open_device_part("auto", context);
  std::printf("placement: %s\n", stage->placement().c_str());
  run(*stage, ports, rows);
}

}  // namespace

int main(int argc, char** argv) {
  int code = 0;
  std::map<std::string, std::string> options;
  for (int i = 4; i < argc; ++i) {
    const std::string word = argv[i];
    const std::size_t equals = word.find('=');
    options[word.substr(0, equals)] = word.substr(equals + 1);
  }
  try {
    open_and_run(argv[1], argv[2], std::atoi(argv[3]), options);
  } catch (const std::exception& error) {
    std::printf("error: %s\n", error.what());
    code = 1;
  }
  std::printf("alive: %d\n", alive());
  return code;
}
