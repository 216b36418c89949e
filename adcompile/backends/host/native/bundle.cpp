#include "bundle.hpp"

#include <chrono>

#include "bank_search.hpp"
#include "manifest.hpp"
#include "npy.hpp"
#include "parts.hpp"
#include "sha256.hpp"
#include "threads.hpp"

namespace adc {

Bundle::Bundle(const std::string& folder, const OpenOptions& options)
    : info_(bundle_info()),
      folder_(folder),
      values_(info_.values.size()),
      seconds_(info_.parts.size()) {
  check_parts(folder_, info_);
  set_threads(options.threads);
  const parts::WeightsInfo& weights = parts::weights_info();
  const std::string host = folder_ + "/host/";
  if (weights.payload_bytes != 0) {
    const std::string own = Weights::inside_program() ? "" : host + "weights.bin";
    resources_.weights = Weights(own, weights.payload_bytes, weights.sha256);
  }
  const parts::StatisticsInfo& bank = parts::statistics_info();
  if (!options.statistics.empty() && bank.bytes == 0) {
    fail(options.statistics + ": this program has its statistics among its other constants");
  }
  if (bank.bytes != 0) {
    const bool other = !options.statistics.empty();
    const std::string own = Weights::inside_program() ? "" : host + bank.path;
    resources_.statistics =
        Weights(other ? options.statistics : own, bank.bytes,
                other ? options.statistics_sha256.c_str() : bank.sha256, Weights::Kind::statistics);
  }
  try {
    open_banks(options);
    open_parts(options);
  } catch (...) {
    close();
    throw;
  }
}

Bundle::~Bundle() { close(); }

void Bundle::close() {
  stages_.clear();
  for (adc_searcher* searcher : resources_.searchers) adc_searcher_close(searcher);
  for (adc_bank* bank : banks_) adc_bank_close(bank);
  resources_.searchers.clear();
  banks_.clear();
}

void Bundle::open_banks(const OpenOptions& options) {
  std::array<char, 256> why{};
  if (options.banks.size() > info_.banks.size()) {
    fail(options.banks.back() + ": this model reads " + std::to_string(info_.banks.size()) +
         " memory banks, " + std::to_string(options.banks.size()) + " were given");
  }
  for (std::size_t i = 0; i < info_.banks.size(); ++i) {
    const BankInfo& known = info_.banks[i];
    const bool other = i < options.banks.size() && !options.banks[i].empty();
    const std::string path = other ? options.banks[i] : folder_ + "/" + known.path;
    if (!other && sha256_of(path) != known.sha256) {
      fail(path + ": not the bank of this build");
    }
    adc_bank* bank = nullptr;
    if (adc_bank_open(path.c_str(), &bank, why.data(), why.size()) != ADC_OK) {
      fail(path + ": " + why.data());
    }
    banks_.push_back(bank);
    if (adc_bank_columns(bank) != known.columns) {
      fail(path + ": rows of " + std::to_string(adc_bank_columns(bank)) +
           " numbers, the features have " + std::to_string(known.columns));
    }
    if (adc_bank_rows(bank) < known.neighbours) {
      fail(path + ": " + std::to_string(adc_bank_rows(bank)) + " rows, the score needs " +
           std::to_string(known.neighbours) + " neighbours");
    }
    adc_searcher* searcher = nullptr;
    if (adc_searcher_create(bank, options.threads, nullptr, &searcher, why.data(), why.size()) !=
        ADC_OK) {
      fail(path + ": " + why.data());
    }
    resources_.searchers.push_back(searcher);
  }
}

void Bundle::open_parts(const OpenOptions& options) {
  std::size_t most = 0;
  for (const PartInfo& part : info_.parts) {
    most = std::max({most, part.inputs.size(), part.outputs.size()});
    if (part.generated >= 0) {
      stages_.push_back(parts::table()[static_cast<std::size_t>(part.generated)].make(resources_));
      continue;
    }
    if (!options.devices) {
      stages_.push_back(nullptr);
      continue;
    }
    EngineContext context = context_of(folder_, info_, part, options.device);
    context.sample = options.sample;
    stages_.push_back(open_device_part(options.engine, context));
  }
  in_.resize(most);
  out_.resize(most);
}

int Bundle::find(const std::string& name) const {
  for (std::size_t i = 0; i < info_.values.size(); ++i) {
    if (name == info_.values[i].name) return static_cast<int>(i);
  }
  return -1;
}

void Bundle::set(int value, const AnyView& tensor) {
  values_.at(static_cast<std::size_t>(value)) = tensor;
}

const AnyView& Bundle::get(int value) const {
  const AnyView& tensor = values_.at(static_cast<std::size_t>(value));
  if (tensor.data == nullptr) {
    fail(std::string("'") + info_.values[static_cast<std::size_t>(value)].name +
         "' has no value yet");
  }
  return tensor;
}

void Bundle::run_part(std::size_t index) {
  const PartInfo& part = info_.parts.at(index);
  if (!stages_[index]) fail(std::string("part ") + part.name + " is not open");
  for (std::size_t i = 0; i < part.inputs.size(); ++i) in_[i] = get(part.inputs[i]);
  const auto start = std::chrono::steady_clock::now();
  stages_[index]->run(in_.data(), out_.data());
  seconds_[index] =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  for (std::size_t i = 0; i < part.outputs.size(); ++i) {
    const auto value = static_cast<std::size_t>(part.outputs[i]);
    check_port(out_[i], info_.values[value]);
    values_[value] = out_[i];
  }
}

void Bundle::run() {
  for (std::size_t i = 0; i < stages_.size(); ++i) run_part(i);
}

}  // namespace adc
