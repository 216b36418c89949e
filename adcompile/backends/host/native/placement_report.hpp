// Where an execution provider ran a model's operators: its own report, vitisai_ep_report.json.
// adcompile/backends/npu/report.py is the same in Python.
#pragma once

#include <filesystem>

#include "provider_session.hpp"
#include "tensor.hpp"

namespace adc {

/// Numbers of operators, and their types without domain.
struct ProviderReport {
  Index total = 0;
  Index npu = 0;
  std::vector<std::string> npu_types;
  std::vector<std::string> cpu_types;
};

/// Reads a report of any release. Fails, naming `where` and the field.
[[nodiscard]] ProviderReport parse_report(const unsigned char* data, std::size_t size,
                                          const std::string& where);

/// The types that the plan puts on the NPU and of which the provider took operators to the CPU.
[[nodiscard]] std::vector<std::string> taken_to_cpu(const Settings& planned,
                                                    const ProviderReport& report);

/// The report of one session; to be made before the session is.
class ReportWatch {
 public:
  /// `plan` is settled: its cache folder and key say where the report will be.
  explicit ReportWatch(const SessionPlan& plan);

  /// What the report says, in words. With `insist` it fails unless there is a report and everything
  /// ran where it was planned; without, a missing or damaged report is part of the words.
  [[nodiscard]] std::string describe(bool insist) const;

 private:
  struct Known {
    std::filesystem::path path;
    std::filesystem::file_time_type written;  // before the session; min() when it was not there
  };

  /// In the model's own cache folder any report counts; elsewhere only one that was written since, so
  /// that the report of another model is never taken for this one's. Empty when there is none.
  [[nodiscard]] std::filesystem::path find() const;

  std::string provider_;
  Settings planned_;
  std::filesystem::path own_;
  std::vector<Known> elsewhere_;
};

}  // namespace adc
