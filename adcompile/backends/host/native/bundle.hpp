// A bundle, opened and run: host parts are in this program, device parts behind engines.
#pragma once

#include "engine.hpp"

struct adc_bank;

namespace adc {

struct OpenOptions {
  std::string engine = "auto";
  std::map<std::string, std::string> device;  // options for the engines
  std::size_t sample = 0;                     // for recorded engines
  int threads = 1;
  std::string statistics;          // bank file of PaDiM's statistics instead of the bundle's own …
  std::string statistics_sha256;   // … and its digest
  std::vector<std::string> banks;  // instead of the bundle's own, in order; "" keeps one
  bool devices = true;             // false: host parts only (self-test)
};

class Bundle {
 public:
  /// Opens everything and checks it. `folder` holds the bundle.
  Bundle(const std::string& folder, const OpenOptions& options);
  ~Bundle();
  Bundle(const Bundle&) = delete;
  Bundle& operator=(const Bundle&) = delete;

  [[nodiscard]] const BundleInfo& info() const { return info_; }
  [[nodiscard]] const std::string& folder() const { return folder_; }

  /// Number of a value by name, -1 when there is none.
  [[nodiscard]] int find(const std::string& name) const;
  /// Sets a value (usually an input). The memory must stay as it is until the run is over.
  void set(int value, const AnyView& tensor);
  /// A value of the last run; fails when nothing has made it.
  [[nodiscard]] const AnyView& get(int value) const;

  /// False for device parts when the bundle was opened without devices.
  [[nodiscard]] bool is_open(std::size_t part) const { return stages_.at(part) != nullptr; }
  /// Where a device's runtime ran the part's operators (Stage::placement).
  [[nodiscard]] std::string placement(std::size_t part) const {
    return is_open(part) ? stages_[part]->placement() : "";
  }
  /// Runs all parts in order.
  void run();
  /// Runs one part on the current values.
  void run_part(std::size_t index);
  /// Seconds of each part in the last run.
  [[nodiscard]] const std::vector<double>& seconds() const { return seconds_; }

 private:
  void open_banks(const OpenOptions& options);
  void open_parts(const OpenOptions& options);
  void close();

  const BundleInfo& info_;
  std::string folder_;
  Resources resources_;
  std::vector<adc_bank*> banks_;
  std::vector<std::unique_ptr<Stage>> stages_;
  std::vector<AnyView> values_;
  std::vector<AnyView> in_;
  std::vector<AnyView> out_;
  std::vector<double> seconds_;
};

}  // namespace adc
