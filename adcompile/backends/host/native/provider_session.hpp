// How a session of a vendor's execution provider is opened: a part's session.json, and what this
// machine adds to it. adcompile/backends/npu/resolve.py is the same in Python, to the same cache key.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

namespace adc {

using Settings = std::vector<std::pair<std::string, std::string>>;

/// session.json as it is read. Files are still relative; every other value is one plain word.
struct SessionPlan {
  std::string provider;           // VitisAIExecutionProvider
  Settings options;               // of the provider
  Settings environment;           // variables that it reads
  Settings config;                // entries of the session's configuration
  std::string encryption_option;  // name of the option that takes a key, "" when there is none
  Settings planned;               // types of operators that are to run on the NPU, and how many
};

/// Reads a plan. Fails, naming the field, when a value is no plain word or a variable is none of the
/// provider's.
[[nodiscard]] SessionPlan parse_session(const unsigned char* data, std::size_t size,
                                        const std::string& where);

/// What the session of one model file is opened with.
struct SessionRequest {
  std::string part;              // name, for the cache key
  std::string folder;            // of the part: what paths are relative to
  std::string model;             // path of the file that is compiled
  std::string provider_version;  // of ONNX Runtime
  /// By the caller: xclbin, config_file, cache_dir (any path), encryption_key, no_cpu_fallback, driver.
  std::map<std::string, std::string> asked;
};

/// The plan with real paths, cache folder and cache key. Fails, naming the variable or the file, when
/// the installation (RYZEN_AI_INSTALLATION_PATH) or the bundle lacks something, when a path leads out
/// of them, or when what was asked does not fit the plan.
[[nodiscard]] SessionPlan settle_session(const SessionPlan& plan, const SessionRequest& request);

/// Sets the plan's variables for this process; call it before the session is made.
void set_environment(const SessionPlan& plan);

}  // namespace adc
