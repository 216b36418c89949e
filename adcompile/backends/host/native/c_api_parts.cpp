#include <exception>
#include <filesystem>
#include <new>

#include "adc_host.h"
#include "c_api.hpp"
#include "parts.hpp"
#include "threads.hpp"

struct adc_part {
  adc::Resources resources;
  std::unique_ptr<adc::Stage> part;
  std::vector<adc::AnyView> in;
  std::vector<adc::AnyView> out;
};

extern "C" {

void adc_set_threads(int count) {
  adc::api::guarded([&] { adc::set_threads(count); });
}

int adc_part_count(void) { return static_cast<int>(parts::table().size()); }

const char* adc_part_name(int index) {
  const bool known = index >= 0 && index < adc_part_count();
  return known ? parts::table()[static_cast<std::size_t>(index)].name : "";
}

adc_part* adc_part_open(int index, const char* weights_path) {
  std::unique_ptr<adc_part> made;
  const int failed = adc::api::guarded([&] {
    if (index < 0 || index >= adc_part_count()) adc::fail("no such part");
    made = std::make_unique<adc_part>();
    const parts::WeightsInfo& info = parts::weights_info();
    if (info.payload_bytes != 0) {
      if (weights_path == nullptr && !adc::Weights::inside_program()) {
        adc::fail("this bundle needs its weights file");
      }
      const std::string path = weights_path == nullptr ? "" : weights_path;
      made->resources.weights = adc::Weights(path, info.payload_bytes, info.sha256);
    }
    const parts::StatisticsInfo& bank = parts::statistics_info();
    if (bank.bytes != 0) {
      if (weights_path == nullptr && !adc::Weights::inside_program()) {
        adc::fail("this bundle needs its statistics: give the path of weights.bin");
      }
      const std::string path =
          weights_path == nullptr
              ? ""
              : (std::filesystem::path(weights_path).parent_path() / bank.path).string();
      made->resources.statistics =
          adc::Weights(path, bank.bytes, bank.sha256, adc::Weights::Kind::statistics);
    }
    made->part = parts::table()[static_cast<std::size_t>(index)].make(made->resources);
    made->in.resize(made->part->inputs().size());
    made->out.resize(made->part->outputs().size());
  });
  return failed != 0 ? nullptr : made.release();
}

void adc_part_close(adc_part* part) { delete part; }
int adc_part_inputs(const adc_part* part) { return static_cast<int>(part->in.size()); }
int adc_part_outputs(const adc_part* part) { return static_cast<int>(part->out.size()); }

const char* adc_part_input_name(const adc_part* part, int index) {
  return part->part->inputs()[static_cast<std::size_t>(index)].name;
}
const char* adc_part_output_name(const adc_part* part, int index) {
  return part->part->outputs()[static_cast<std::size_t>(index)].name;
}

int adc_part_run(adc_part* part, const adc_tensor* inputs, int input_count, adc_tensor* outputs,
                 int output_count) {
  return adc::api::guarded([&] {
    if (input_count != adc_part_inputs(part) || output_count != adc_part_outputs(part)) {
      adc::fail("wrong number of tensors");
    }
    for (int i = 0; i < input_count; ++i) {
      part->in[static_cast<std::size_t>(i)] = adc::api::from_c(inputs[i]);
    }
    part->part->run(part->in.data(), part->out.data());
    for (int i = 0; i < output_count; ++i) {
      outputs[i] = adc::api::to_c(part->out[static_cast<std::size_t>(i)]);
    }
  });
}

}  // extern "C"
