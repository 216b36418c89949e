#include <limits>

#include "bundle.hpp"
#include "c_api.hpp"
#include "preprocess.hpp"
#include "selftest.hpp"
#include "words.hpp"

struct adc_bundle {
  std::unique_ptr<adc::Bundle> bundle;
  std::vector<adc::Array> inputs;  // one per input of the model

  [[nodiscard]] std::size_t slot(int value) const {
    const std::vector<int>& known = bundle->info().inputs;
    for (std::size_t i = 0; i < known.size(); ++i) {
      if (known[i] == value) return i;
    }
    adc::fail("not an input of the model");
  }
};

namespace {

adc::OpenOptions parse_options(const char* const* options, int count) {
  adc::OpenOptions open;
  for (int i = 0; i < count; ++i) {
    const auto [name, value] = adc::name_and_value("option", options[i]);
    if (name == "runtime") {
      open.engine = value;
    } else if (name == "threads") {
      open.threads = adc::whole_of(name, value, 1, adc::kMostThreads);
    } else if (name == "sample") {
      open.sample = static_cast<std::size_t>(
          adc::whole_of(name, value, 0, std::numeric_limits<int>::max()));
    } else if (name == "bank") {
      open.banks.push_back(value);
    } else {
      open.device[name] = value;
    }
  }
  return open;
}

const char* name_of(const adc_bundle* b, const std::vector<int>& values, int index) {
  if (index < 0 || index >= static_cast<int>(values.size())) return "";
  const int value = values[static_cast<std::size_t>(index)];
  return b->bundle->info().values[static_cast<std::size_t>(value)].name;
}

}  // namespace

extern "C" {

adc_bundle* adc_bundle_open(const char* folder, const char* const* options, int count) {
  std::unique_ptr<adc_bundle> made;
  const int failed = adc::api::guarded([&] {
    if (folder == nullptr || (options == nullptr && count > 0)) adc::fail("null argument");
    made = std::make_unique<adc_bundle>();
    made->bundle = std::make_unique<adc::Bundle>(folder, parse_options(options, count));
    made->inputs.resize(made->bundle->info().inputs.size());
  });
  return failed != 0 ? nullptr : made.release();
}

void adc_bundle_close(adc_bundle* bundle) { delete bundle; }

int adc_bundle_inputs(const adc_bundle* b) {
  return static_cast<int>(b->bundle->info().inputs.size());
}
int adc_bundle_outputs(const adc_bundle* b) {
  return static_cast<int>(b->bundle->info().outputs.size());
}
const char* adc_bundle_input_name(const adc_bundle* b, int index) {
  return name_of(b, b->bundle->info().inputs, index);
}
const char* adc_bundle_output_name(const adc_bundle* b, int index) {
  std::vector<int> values;
  for (const adc::OutputInfo& output : b->bundle->info().outputs) values.push_back(output.value);
  return name_of(b, values, index);
}
const char* adc_bundle_output_role(const adc_bundle* b, int index) {
  if (index < 0 || index >= adc_bundle_outputs(b)) return "";
  return b->bundle->info().outputs[static_cast<std::size_t>(index)].role;
}

int adc_bundle_set(adc_bundle* b, const char* name, const adc_tensor* tensor) {
  return adc::api::guarded([&] {
    if (name == nullptr || tensor == nullptr) adc::fail("null argument");
    const int value = b->bundle->find(name);
    if (value < 0) adc::fail(std::string("no tensor is called '") + name + "'");
    adc::Array& kept = b->inputs[b->slot(value)];
    const adc::AnyView given = adc::api::from_c(*tensor);
    adc::check_port(given, b->bundle->info().values[static_cast<std::size_t>(value)]);
    kept.dtype = given.dtype;
    kept.shape = given.shape;
    std::memcpy(kept.memory.reserve(given.bytes()), given.data, given.bytes());
    b->bundle->set(value, kept.view());
  });
}

int adc_bundle_set_image(adc_bundle* b, const unsigned char* pixels, int height, int width,
                         int channels) {
  return adc::api::guarded([&] {
    const adc::BundleInfo& info = b->bundle->info();
    if (info.images.size() != 1) adc::fail("the contract does not say how a picture is used");
    if (pixels == nullptr || (channels != 1 && channels != 3)) {
      adc::fail("give rows of grey or RGB pixels");
    }
    adc::Image image = adc::make_image(width, height, channels, "picture");
    std::memcpy(image.pixels.data(), pixels, image.pixels.size());
    adc::Array& kept = b->inputs[b->slot(info.images[0].value)];
    adc::preprocess(image, info.images[0], kept);
    b->bundle->set(info.images[0].value, kept.view());
  });
}

int adc_bundle_run(adc_bundle* b) {
  return adc::api::guarded([&] { b->bundle->run(); });
}

int adc_bundle_get(adc_bundle* b, const char* name, adc_tensor* tensor) {
  return adc::api::guarded([&] {
    if (name == nullptr || tensor == nullptr) adc::fail("null argument");
    const int value = b->bundle->find(name);
    if (value < 0) adc::fail(std::string("no tensor is called '") + name + "'");
    *tensor = adc::api::to_c(b->bundle->get(value));
  });
}

int adc_bundle_selftest(const char* folder, int threads) {
  int different = -1;
  adc::api::guarded([&] {
    if (folder == nullptr) adc::fail("null argument");
    adc::SelftestOptions options;
    options.threads = threads;
    const adc::SelftestResult result = adc::run_selftest(folder, options, stdout);
    if (result.compared == 0) adc::fail("nothing could be compared");
    different = result.different;
  });
  return different;
}

}  // extern "C"
