// mosaic_main FOLDER: every folder in it is a case of a part of regions on a device that is made of
// files. "ports" has lines "in|out NAME DTYPE DIMENSION…", "layout" the mosaic, in<i>.npy the rows. Call
// k of the device writes its images to image<k>_<i>.npy and answers with answer<k>_<i>.npy; the joined
// rows go to out<i>.npy. Prints, per case, how often a later run took memory, or the error.
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "counting_new.hpp"
#include "npy.hpp"
#include "rows.hpp"

namespace {

std::string folder;
bool writing = false;
std::vector<std::vector<adc::Array>> answers;  // of every call
std::size_t calls = 0;

class FileDevice final : public adc::Stage {
 public:
  explicit FileDevice(const adc::EngineContext& context)
      : inputs_(context.inputs), outputs_(context.outputs) {}

  [[nodiscard]] const char* name() const override { return "files"; }
  [[nodiscard]] const std::vector<adc::Port>& inputs() const override { return inputs_; }
  [[nodiscard]] const std::vector<adc::Port>& outputs() const override { return outputs_; }

  void run(const adc::AnyView* in, adc::AnyView* out) override {
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      adc::check_port(in[i], inputs_[i]);
      if (writing) {
        adc::write_npy(folder + "/image" + std::to_string(calls) + "_" + std::to_string(i) + ".npy",
                       in[i]);
      }
    }
    for (std::size_t i = 0; i < outputs_.size(); ++i) out[i] = answers.at(calls)[i].view();
    ++calls;
  }

 private:
  std::vector<adc::Port> inputs_;
  std::vector<adc::Port> outputs_;
};

std::string text_of(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

void one_case() {
  adc::PartInfo part{};
  part.name = "net";
  adc::EngineContext context;
  context.part = &part;
  std::vector<std::string> names;
  names.reserve(16);  // ports point into them
  std::ifstream ports(folder + "/ports");
  for (std::string line; std::getline(ports, line);) {
    std::istringstream words(line);
    std::string kind;
    int dtype = 0;
    adc::Index dim = 0;
    words >> kind >> names.emplace_back() >> dtype;
    adc::Port port{names.back().c_str(), static_cast<adc::DType>(dtype), {adc::kFree}};
    while (words >> dim) port.dims.push_back(dim);
    (kind == "in" ? context.inputs : context.outputs).push_back(port);
  }
  const auto stage = adc::by_mosaic("files", context, text_of(folder + "/layout"));
  std::vector<adc::Array> rows;
  std::vector<adc::AnyView> in;
  std::vector<adc::AnyView> out(context.outputs.size());
  for (std::size_t i = 0; i < context.inputs.size(); ++i) {
    rows.push_back(adc::read_npy(folder + "/in" + std::to_string(i) + ".npy"));
    in.push_back(rows.back().view());
  }
  answers.clear();
  for (int k = 0;; ++k) {
    const std::string start = folder + "/answer" + std::to_string(k) + "_";
    if (!std::filesystem::exists(start + "0.npy")) break;
    answers.emplace_back();
    for (std::size_t i = 0; i < context.outputs.size(); ++i) {
      answers.back().push_back(adc::read_npy(start + std::to_string(i) + ".npy"));
    }
  }
  long before = 0;
  for (int run = 0; run < 3; ++run) {
    writing = run == 0;
    calls = 0;
    before = taken;
    stage->run(in.data(), out.data());
  }
  const long later = taken - before;
  if (calls != answers.size()) adc::fail("made another number of calls");
  for (std::size_t i = 0; i < out.size(); ++i) {
    adc::write_npy(folder + "/out" + std::to_string(i) + ".npy", out[i]);
  }
  std::printf("%ld\n", later);
}

}  // namespace

std::unique_ptr<adc::Stage> adc::open_engine(const std::string&, const EngineContext& context) {
  return std::make_unique<FileDevice>(context);
}

int main(int, char** argv) {
  std::vector<std::string> folders;
  for (const auto& entry : std::filesystem::directory_iterator(argv[1])) {
    folders.push_back(entry.path().string());
  }
  std::sort(folders.begin(), folders.end());
  for (const std::string& each : folders) {
    folder = each;
    try {
      one_case();
    } catch (const adc::Error& error) {
      std::printf("error: %s\n", error.what());
    }
  }
  return 0;
}
